"""Programs that tests run as processes of their own: ``python -m tests.storage.rivals PROGRAM URL NUMBER``.

Each says ``ready`` when its store is open and starts at a line on its standard input, so that all start together. Each
line after that is one acknowledged write.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from storage.open import open_store
from storage.policies import Pointer
from storage.port import Store, Writer
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_artifact,
    make_decision,
    make_event,
    make_message,
    make_policy,
)

#: At most so many messages a recipient, of so many recipients.
CAP = 3
RECIPIENTS = 25
ATTEMPTS = 150


def reserve(store: Store, number: str) -> None:
    """Reserves under a cap by reading and writing in one transaction, from four threads."""

    def attempt(turn: int) -> None:
        recipient_id = f"u{turn % RECIPIENTS}"
        decision = make_decision(
            decision_id=f"dec_{number}_{turn}", recipient_id=recipient_id, send_at=at((turn * 7 + int(number)) % 90)
        )

        def work(writer: Writer) -> bool:
            held = writer.messages(WORKSPACE, [recipient_id], at(-100), at(100)).get(recipient_id, ())
            if len(held) >= CAP:
                return False
            writer.add_decision(decision, make_message(decision))
            return True

        if store.write(work, recipients=[(WORKSPACE, recipient_id)]):
            say(decision.decision_id)

    in_threads(attempt, range(ATTEMPTS))


def log(store: Store, number: str) -> None:
    """Logs decisions with an event, for ever, from four threads."""

    def attempt(turn: int) -> None:
        decision = make_decision(decision_id=f"dec_{number}_{turn}")

        def work(writer: Writer) -> None:
            writer.add_decision(decision, make_message(decision))
            writer.add_event(make_event(event_id=f"ev_{number}_{turn}", decision_id=decision.decision_id))

        store.write(work)
        say(decision.decision_id)

    in_threads(attempt, itertools.count())


def tell(store: Store, number: str) -> None:
    """Logs decisions, each between two messages that it tells of in the same write, from four threads."""

    def attempt(turn: int) -> None:
        tell_around(store, f"{number}_{turn}")

    in_threads(attempt, range(100))


def tell_around(store: Store, name: str) -> None:
    """One write: a message, a decision, a message, all of one recipient."""
    decision = make_decision(decision_id=f"dec_{name}", recipient_id=f"u{name}")

    def work(writer: Writer) -> None:
        writer.add_message(foreign_message(recipient_id=decision.recipient_id, message_ref="before"))
        writer.add_decision(decision, None)
        writer.add_message(foreign_message(recipient_id=decision.recipient_id, message_ref="after"))

    store.write(work)


def publish(store: Store, number: str) -> None:
    """Publishes policies with large artifacts, for ever."""
    for turn in itertools.count():
        name = f"{number}_{turn}"

        def work(writer: Writer, name: str = name) -> None:
            stored = writer.pointer(WORKSPACE, "spring")
            generation = 1 if stored is None else stored.generation + 1
            writer.put_artifact(make_artifact(artifact_id=f"art_{name}", blob=name.encode() * 50_000))
            writer.add_policy(make_policy(policy_id=f"pol_{name}"))
            writer.move_pointer(Pointer(WORKSPACE, "spring", f"pol_{name}", generation, at(0)))

        store.write(work)
        say(f"pol_{name}")


def in_threads(attempt: Callable[[int], None], turns: Iterator[int] | range) -> None:
    """Runs all turns in four threads, each drawing the next turn when it is free."""
    numbers = iter(turns)

    def work() -> None:
        for turn in numbers:
            attempt(turn)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()


def say(line: str) -> None:
    """One whole line at once: threads must not mix theirs, and a killed process must have said it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs the named program."""
    program, url, number = sys.argv[1:]
    store = open_store(url)
    say("ready")
    sys.stdin.readline()
    {"reserve": reserve, "log": log, "tell": tell, "publish": publish}[program](store, number)
    store.close()


if __name__ == "__main__":
    main()
