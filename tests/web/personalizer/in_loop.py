"""An asynchronous client, called as if it were not: every call runs to its end in an event loop of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any


class InLoop:
    """Calls an asynchronous client's operations one after the other; what it answers piece by piece is an iterator."""

    def __init__(self, made: Callable[[], Any]) -> None:
        """``made`` makes the client, inside the loop."""
        self._made = made
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> InLoop:
        self._client = self._run(self._entered())
        return self

    async def _entered(self) -> Any:
        return await self._made().__aenter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._client.__aexit__(None, None, None))
        self._run(asyncio.sleep(0))  # aiohttp closes its connections in the loop's next turn
        self._loop.close()

    def _run(self, awaited: Any) -> Any:
        return self._loop.run_until_complete(awaited)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._client, name)

        def call(*given: Any, **named: Any) -> Any:
            answer = operation(*given, **named)
            if inspect.isawaitable(answer):
                answer = self._run(answer)
            return self._pieces(answer) if hasattr(answer, "__anext__") else answer

        return call

    def _pieces(self, answer: AsyncIterator[Any]) -> Iterator[Any]:
        async def collected() -> list[Any]:
            return [piece async for piece in answer]

        yield from self._run(collected())
