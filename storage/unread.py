"""A JSON object that is read only when somebody looks into it: most of a long log's are held and never looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_EMPTY: Final = b"{}"
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Unread(Mapping[str, Any]):
    """The object that a JSON text says, as it was written: without blanks. It is read anew at each look, since read it
    takes several times the room."""

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __getitem__(self, name: str) -> Any:
        return _decode(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_decode(self._text))

    def __len__(self) -> int:
        return len(_decode(self._text))

    def __bool__(self) -> bool:
        return self._text != _EMPTY

    def __repr__(self) -> str:
        return repr(_decode(self._text))
