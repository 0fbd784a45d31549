"""Batches over HTTP, end to end, beside a loop of Vowpal Wabbit's predictions over the same contexts and actions."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import orjson

from optimizer.service.requests import DecisionRequest
from simulations.baselines.vw import Learner, VwOptions
from simulations.bench import shop
from simulations.bench.figure import ROUNDS, Figure, at_least, medians
from simulations.bench.served import Shop, serving

ROWS, AT_ONCE = 10_000, 2
#: Predictions of Vowpal Wabbit a round.
PREDICTED = 300
#: Recipients before this one are asked about by other figures.
_FIRST = 10_000_000
#: Seconds between the starts of batches. Two that come in the same instant may be taken by one worker, which then does
#: both while the other has nothing to do; a moment later the idle one is quicker to take the second.
_APART = 0.2
#: BanditDB's published rate, predictions a second on four cores.
BANDITDB = 10_000


def measure(stocked: Shop) -> list[Figure]:
    """NDJSON and JSON, two batches at once."""
    numbers = count()
    with serving(stocked) as bind:

        def ask(lines: bool) -> Callable[[], float]:
            return lambda: rate(bind, stocked, [next(numbers) for _ in range(AT_ONCE)], lines)

        ask(True)()  # warm
        ndjson, json, predictions = medians([ask(True), ask(False), vowpal_wabbit()], ROUNDS)
    beside = f"Vowpal Wabbit, squarecb, one process: {predictions:,.0f} predictions/s"
    return [
        at_least(f"2 batches of {ROWS:,} at once, NDJSON", f"{ndjson:,.0f}/s", beside, ndjson / predictions, 25),
        at_least(f"2 batches of {ROWS:,} at once, JSON", f"{json:,.0f}/s", beside, json / predictions, 25),
        Figure("the same beside BanditDB", f"{ndjson:,.0f}/s", f"its published {BANDITDB:,}/s on four cores"),
    ]


def rate(bind: str, stocked: Shop, numbers: list[int], lines: bool) -> float:
    """Rows a second of batches that are sent at once, each with a number of its own, as NDJSON or JSON."""
    bodies = [_body(number, lines) for number in numbers]
    headers = {**stocked.headers, "Content-Type": "application/x-ndjson" if lines else "application/json"}
    started = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as pool:
        sent = []
        for body in bodies:
            sent.append(pool.submit(_post, bind, headers, body))
            time.sleep(_APART)
        answers = [one.result() for one in sent]
    taken = time.perf_counter() - started
    decided = [row for raw in answers for row in _rows(raw, lines)]
    if len(decided) != ROWS * len(bodies) or any("decision_id" not in row for row in decided):
        raise ValueError(f"{len(decided)} answers, one of them {decided[0]}")
    return len(decided) / taken


def _rows(raw: bytes, lines: bool) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (
        [orjson.loads(line) for line in raw.splitlines()] if lines else orjson.loads(raw)["decisions"]
    )
    return found


def _body(number: int, lines: bool) -> bytes:
    first = _FIRST + number * ROWS
    rows = [
        {
            "recipient_id": request.recipient_id,
            "recipient": {
                "timezone": request.recipient.timezone,
                "attributes": request.recipient.attributes,
                "channels": dict.fromkeys(shop.CHANNELS, True),
            },
        }
        for request in shop.requests(first, ROWS)
        if request.recipient is not None
    ]
    if lines:
        return b"\n".join(orjson.dumps({"campaign_id": "c", **row}) for row in rows)
    return orjson.dumps({"campaign_id": "c", "recipients": rows})


def _post(bind: str, headers: dict[str, str], body: bytes) -> bytes:
    connection = http.client.HTTPConnection(bind, timeout=600)
    try:
        connection.request("POST", "/v1/decisions/batch", body, headers)
        answer = connection.getresponse()
        raw = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {raw[:500]!r}")
        return raw
    finally:
        connection.close()


def vowpal_wabbit() -> Callable[[], float]:
    """Predictions a second over the shop's contexts and actions, by a learner that has seen some rewards."""
    learner = Learner(VwOptions(algorithm="squarecb").arguments(1))
    actions = adf_lines()
    people = [shared_line(request) for request in shop.requests(1, PREDICTED)]
    rng = np.random.default_rng(0)
    for i, person in enumerate(people):
        chosen = int(rng.integers(len(actions)))
        label = f"0:{-float(rng.random() < 0.1):g}:{1 / len(actions):.6g} "
        example = [person, *(label + one if j == chosen else one for j, one in enumerate(actions))]
        if i < 100:
            learner.learn(example)

    def work() -> float:
        started = time.perf_counter()
        for person in people:
            learner.predict([person, *actions])
        return PREDICTED / (time.perf_counter() - started)

    return work


def adf_lines() -> list[str]:
    """The shop's actions in Vowpal Wabbit's format."""
    variants, hours = [f"|v v{i}" for i in range(6)], [f"|s hour{h} w:{h / 24:.3f}" for h in range(24)]
    return [*(f"{v} {s} |c {c}" for v in variants for s in hours for c in shop.CHANNELS), "|n none"]


def shared_line(request: DecisionRequest) -> str:
    """The context of a request in Vowpal Wabbit's format."""
    told = {} if request.recipient is None else request.recipient.attributes
    return "shared |u " + " ".join(
        f"{name}={value}" if isinstance(value, str) else f"{name}:{value:.4g}" for name, value in told.items()
    )
