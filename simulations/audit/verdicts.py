"""What is found of one reservation and one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["kept", "violated", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("kept", "violated", "unknown")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and in a few words why; ``others`` are the messages that filled a cap."""

    verdict: Verdict
    detail: str = ""
    others: tuple[str, ...] = ()


KEPT = Judgement("kept")
CHANGED = Judgement("unknown", "the recipient's record has changed since")
LOST = Judgement("unknown", "the version of the rule that was in force is not stored")
UNTOLD = Judgement("unknown", "the log doesn't tell whether a refusal was known by then")
