"""A record that is made quickly is one that is made as any other."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from typing import Any

import pytest

from storage.swift import swift


@dataclass(frozen=True, slots=True)
class Plain:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=0, compare=False)


@swift
@dataclass(frozen=True, slots=True)
class Swift:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list)
    d: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError("a")


@swift
@dataclass(frozen=True, slots=True)
class More(Swift):
    e: float = 1.5


@pytest.mark.parametrize("given", [{"a": 1}, {"a": 1, "b": "x", "c": [2], "d": 3}])
def test_it_is_made_equal_and_frozen_like_the_plain_one(given: dict[str, Any]) -> None:
    plain, swift_one = Plain(**given), Swift(**given)
    assert asdict(swift_one) == asdict(plain)
    assert repr(swift_one) == repr(plain).replace("Plain", "Swift")
    assert swift_one == Swift(**{**given, "d": 9})
    assert type(swift_one) is Swift
    for name in ("a", "other"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(swift_one, name, 2)
    with pytest.raises(FrozenInstanceError):
        del swift_one.a


def test_it_is_copied_pickled_and_replaced() -> None:
    one = Swift(1, c=[1])
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == copy.copy(one) == replace(one, b="b") == one  # noqa: S301
    assert replace(one, a=2) == Swift(2, c=[1])
    assert Swift(1).c is not Swift(1).c


def test_what_is_checked_after_it_is_made_is_checked() -> None:
    with pytest.raises(ValueError, match="a"):
        Swift(-1)
    with pytest.raises(TypeError):
        Swift()  # type: ignore[call-arg]
    assert list(inspect.signature(Swift).parameters) == ["a", "b", "c", "d"]


def test_a_subclass_has_all_fields() -> None:
    one = More(1, e=2.5)
    assert (one.a, one.b, one.e, type(one)) == (1, "b", 2.5, More)
    assert isinstance(one, Swift)


def test_fields_that_it_does_not_know_are_refused() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        a: int

    @dataclass(frozen=True)
    class Loose:
        a: int

    for unknown in (Named, Loose):
        with pytest.raises(TypeError, match="a: fields must be slots"):
            swift(unknown)
