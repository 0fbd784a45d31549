"""The drill: requests made and signed beforehand, sent at a rate, and everything counted twice at the end.

Of the requests a fifth repeats an earlier one and a twentieth is forged; in the end the answers, the metrics and the
store must all say that each genuine event was taken once and no forged one at all.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from optimizer.config import Settings
from optimizer.service import setup, sources
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import open_services, utc_now
from simulations.drills.webhooks.far_side import FarSide
from simulations.drills.webhooks.senders import CERTIFICATE_URL, SENDERS, Happened, Request, Sender, Ses
from simulations.server import Server, free_port
from storage.open import open_store
from storage.records import Campaign, Channel, Variant
from storage.webhooks import Vendor, WebhookSource

WORKSPACE, SOURCE, CAMPAIGN = "drill", "drill", "hooks"
DUPLICATES, FORGED = 0.20, 0.05
#: Events of one message, about as many as a real one has.
EVENTS_EACH = 4
THREADS = 32
WORKERS = 2
TIMEOUT_SECONDS = 30.0
#: A vendor comes again after a 503, and so do we, so often.
TRIES = 100

Note = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How long and how hard; see the flags of the command."""

    rate: int = 500
    seconds: int = 60
    seed: int = 1

    @property
    def requests(self) -> int:
        """How many in all."""
        return self.rate * self.seconds


@dataclass
class Heard:
    """What was answered: by kind of request and status; what the answers count; seconds that each took."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    elapsed: float = 0.0


@dataclass(frozen=True)
class Result:
    """One vendor's drill. ``wrong`` lists what doesn't add up."""

    vendor: Vendor
    size: Size
    sent: dict[str, int]
    rate: float
    median_ms: float
    p99_ms: float
    busy: int
    stored: int
    metrics: dict[str, int]
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every count is exact."""
        return not self.wrong


def run(vendor: Vendor, size: Size, note: Note = lambda line: None) -> Result:  # noqa: ARG005 - says nothing
    """Runs the drill for one vendor."""
    sender: Sender = SENDERS[vendor]()
    with tempfile.TemporaryDirectory(prefix="sendtide-webhooks-") as name, ExitStack() as stack:
        folder = Path(name)
        settings = Settings(
            database=f"sqlite:///{folder / 'hooks.db'}",
            bind=f"127.0.0.1:{free_port()}",
            workers=WORKERS,
            scheduler=False,
            log_level="error",
            metrics_dir=str(folder / "metrics"),
        )
        url = f"http://{settings.bind}"
        settings = replace(settings, public_url=url)
        path = f"/v1/webhooks/{vendor}/{SOURCE}"
        decisions = _prepare(settings, sender, size)
        note(f"{vendor}: signing {size.requests} requests")
        work = plan(sender, decisions, size, url + path)
        if isinstance(sender, Ses):
            far_side = stack.enter_context(FarSide(CERTIFICATE_URL, sender.certificate, folder))
            stack.enter_context(_environment(far_side.environment))
        stack.enter_context(Server(settings, folder))
        note(f"{vendor}: {size.rate} requests a second for {size.seconds} s")
        heard = _send_all(settings.bind, path, work, size)
        counted = _scrape(settings.bind, vendor)
        stored = _stored(settings.database)
    return _judged(vendor, size, Counter(kind for kind, _ in work), heard, counted, stored)


def plan(sender: Sender, decisions: Sequence[str], size: Size, url: str) -> list[tuple[str, Request]]:
    """The requests in order, each with its kind: fresh, duplicate, forged."""
    chance, now = random.Random(f"{size.seed}/{sender.vendor}"), utc_now()
    duplicates, forged = round(size.requests * DUPLICATES), round(size.requests * FORGED)
    kinds = ["duplicate"] * duplicates + ["forged"] * forged + ["fresh"] * (size.requests - duplicates - forged)
    chance.shuffle(kinds)
    kinds.insert(0, kinds.pop(kinds.index("fresh")))  # there must be something to repeat
    made: list[tuple[str, Request]] = []
    genuine: list[Request] = []
    for number, kind in enumerate(kinds):
        if kind == "duplicate":
            made.append((kind, chance.choice(genuine)))
            continue
        at = now - timedelta(seconds=chance.uniform(1, 3600))
        what = chance.choice(("delivered", "opened", "clicked"))
        happened = Happened(number, what, at, f"m{number}", chance.choice(decisions))
        request = sender.request(sender.record(happened), now, url)
        if kind == "fresh":
            genuine.append(request)
        made.append((kind, request if kind == "fresh" else _forged(request)))
    return made


def _forged(request: Request) -> Request:
    """As its vendor would not have signed it: Mailgun's and Postmark's bodies aren't signed, so their proofs are."""
    if b'"signature":"' in request.body:
        body = request.body.replace(b'"signature":"', b'"signature":"0')
    else:
        body = request.body.replace(b"m", b"n", 1)
    headers = request.headers
    if "Authorization" in headers:
        headers = {**headers, "Authorization": "Basic Z3Vlc3M6Z3Vlc3M="}
    return replace(request, body=body, headers=headers)


def _prepare(settings: Settings, sender: Sender, size: Size) -> list[str]:
    """Makes workspace, source, and the decisions that events are about; returns their ids."""
    services = open_services(settings, lambda: utc_now() - timedelta(hours=2), seed=size.seed, watch=False)
    try:
        setup.ensure_workspace(services, WORKSPACE)
        now = services.clock()
        campaign = Campaign(WORKSPACE, CAMPAIGN, (Variant("a"),), (Channel("email"),), created_at=now, updated_at=now)
        setup.put_campaign(services, replace(campaign, allow_no_send=False))
        sources.put_source(services, WebhookSource(WORKSPACE, SOURCE, sender.vendor, sender.secrets, sender.topic_arns))
        asked = [
            DecisionRequest(CAMPAIGN, f"u{n}", request_id=f"r{n}", immediate=True)
            for n in range(max(10, size.requests // EVENTS_EACH))
        ]
        return [services.decider.decide(WORKSPACE, one)[0].decision_id for one in asked]
    finally:
        services.close()


def _send_all(address: str, path: str, work: Sequence[tuple[str, Request]], size: Size) -> Heard:
    """Sends each request at its time, or as soon after it as there is a client free."""
    heard, lock = Heard(), threading.Lock()
    todo: Iterator[tuple[int, tuple[str, Request]]] = iter(enumerate(work))
    began = time.monotonic()

    def client() -> None:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        while True:
            with lock:
                number, (kind, request) = next(todo, (0, ("", Request(b"", {}))))
            if not kind:
                break
            time.sleep(max(0.0, began + number / size.rate - time.monotonic()))
            _send(connection, path, kind, request, heard, lock)
        connection.close()

    with ThreadPoolExecutor(THREADS, thread_name_prefix="vendor") as pool:
        for one in [pool.submit(client) for _ in range(THREADS)]:
            one.result()
    heard.elapsed = time.monotonic() - began
    return heard


def _send(
    connection: http.client.HTTPConnection, path: str, kind: str, request: Request, heard: Heard, lock: threading.Lock
) -> None:
    began = time.monotonic()
    for _ in range(TRIES):
        connection.request("POST", path + request.query, request.body, request.headers)
        answer = connection.getresponse()
        raw = answer.read()
        if answer.status != 503:
            break
        with lock:
            heard.busy += 1
        time.sleep(0.1)
    with lock:
        heard.seconds.append(time.monotonic() - began)
        heard.statuses[kind, answer.status] += 1
        if answer.status == 200:
            heard.counts.update({name: count for name, count in orjson.loads(raw).items() if count})


def _scrape(address: str, vendor: Vendor) -> dict[str, int]:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(
        rf'^sendtide_webhook_events_total{{result="(\w+)",vendor="{vendor}"}} (\S+)$', text, re.MULTILINE
    )
    return {result: int(float(count)) for result, count in found}


def _stored(database: str) -> int:
    """How many vendor's events the store holds."""
    store, after, count = open_store(database), "", 0
    try:
        with store.read() as reader:
            while ids := reader.vendor_decisions(WORKSPACE, after=after, limit=500):
                count += sum(len(reader.vendor_words(WORKSPACE, one)) for one in ids)
                after = ids[-1]
    finally:
        store.close()
    return count


def _judged(
    vendor: Vendor, size: Size, sent: Counter[str], heard: Heard, counted: dict[str, int], stored: int
) -> Result:
    good = 204 if vendor == "twilio" else 200
    expected: dict[str, tuple[Any, Any]] = {
        "fresh ones taken": (heard.statuses["fresh", good], sent["fresh"]),
        "duplicates answered": (heard.statuses["duplicate", good], sent["duplicate"]),
        "forged ones refused": (heard.statuses["forged", 401], sent["forged"]),
        "events stored": (stored, sent["fresh"]),
        "accepted in /metrics": (counted.get("accepted", 0), sent["fresh"]),
        "duplicates in /metrics": (counted.get("duplicate", 0), sent["duplicate"]),
        "forged in /metrics": (counted.get("forged", 0), sent["forged"]),
        "others in /metrics": (sorted(counted.keys() - {"accepted", "duplicate", "forged"}), []),
    }
    if vendor != "twilio":  # its answers are empty
        expected["accepted in answers"] = (heard.counts["accepted"], sent["fresh"])
        expected["duplicates in answers"] = (heard.counts["duplicates"], sent["duplicate"])
    slow = sorted(heard.seconds)
    return Result(
        vendor=vendor,
        size=size,
        sent=dict(sent),
        rate=sum(sent.values()) / heard.elapsed,
        median_ms=1000 * slow[len(slow) // 2],
        p99_ms=1000 * slow[len(slow) * 99 // 100],
        busy=heard.busy,
        stored=stored,
        metrics=counted,
        wrong=tuple(f"{what}: {found}, not {right}" for what, (found, right) in expected.items() if found != right),
    )


def line(result: Result) -> str:
    """The result for people."""
    verdict = "passed: every count exact" if result.passed else "FAILED: " + "; ".join(result.wrong)
    return (
        f"{result.vendor}: {result.rate:.0f} requests/s (asked: {result.size.rate}) for {result.size.seconds} s, "
        f"{result.sent['fresh']} events, {result.sent['duplicate']} duplicates, {result.sent['forged']} forged; "
        f"median {result.median_ms:.1f} ms, p99 {result.p99_ms:.0f} ms, {result.busy} times 503; {verdict}"
    )


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """Adds to the environment that the server is started in."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
