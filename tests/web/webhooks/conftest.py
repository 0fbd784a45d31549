"""A workspace with a source of each vendor, and vendors that post to them as they would over the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from optimizer.config import Settings
from optimizer.service.webhooks.certificates import Certificates
from optimizer.service.wiring import Services
from optimizer.web import create_app
from simulations.drills.webhooks.senders import CERTIFICATE_URL, SENDERS, Happened, Request, Sender, Ses
from storage.log import Event
from storage.webhooks import Vendor
from tests.web.conftest import CAMPAIGN, Caller, StillClock, key

PUBLIC_URL = "https://hooks.example.org/tide"
VENDORS: tuple[Vendor, ...] = ("sendgrid", "mailgun", "postmark", "ses", "twilio", "standard")


@dataclass
class FarSide:
    """The vendors' own servers: what may be fetched there, and what was."""

    pages: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    fault: Exception | None = None

    def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
        if self.fault is not None:
            raise self.fault
        return self.pages[url]


@dataclass
class Hook:
    """One vendor and the source that it posts to."""

    app: Flask
    sender: Sender
    source_id: str
    clock: StillClock

    @property
    def path(self) -> str:
        return f"/v1/webhooks/{self.sender.vendor}/{self.source_id}"

    @property
    def url(self) -> str:
        return PUBLIC_URL + self.path

    def request(self, happened: Happened, now: datetime | None = None) -> Request:
        return self.sender.request(self.sender.record(happened), now or self.clock.now, self.url)

    def post(self, request: Request, **headers: str) -> TestResponse:
        return self.app.test_client().post(
            self.path + request.query, data=request.body, headers={**request.headers, **headers}, buffered=True
        )

    def say(self, *happened: Happened) -> list[TestResponse]:
        return [self.post(self.request(one)) for one in happened]


@pytest.fixture
def far_side() -> FarSide:
    return FarSide()


@pytest.fixture
def app(database: str, clock: StillClock, far_side: FarSide) -> Iterator[Flask]:
    settings = Settings(database=database, public_url=PUBLIC_URL)
    made = create_app(settings, clock=clock, seed="webhook-tests")
    made.extensions["sendtide_certificates"] = Certificates(far_side)
    yield made
    made.extensions["sendtide"].close()


@pytest.fixture
def services(app: Flask) -> Services:
    opened: Services = app.extensions["sendtide"].get()
    return opened


_SENDERS: dict[Vendor, Sender] = {}


def sender_of(vendor: Vendor) -> Sender:
    """One of each, since making keys takes a while."""
    if vendor not in _SENDERS:
        _SENDERS[vendor] = SENDERS[vendor]()
    return _SENDERS[vendor]


def hook_of(admin: Caller, vendor: Vendor, clock: StillClock, far_side: FarSide, name: str = "") -> Hook:
    """A source of a vendor, and the vendor."""
    sender, source_id = sender_of(vendor), name or f"our-{vendor}"
    setup = {"vendor": vendor, "secrets": list(sender.secrets), "topic_arns": list(sender.topic_arns)}
    reply = admin("PUT", f"/v1/webhook-sources/{source_id}", setup)
    assert reply.status_code == 201, reply.get_data(as_text=True)
    if isinstance(sender, Ses):
        far_side.pages[CERTIFICATE_URL] = sender.certificate
    return Hook(admin.app, sender, source_id, clock)


@pytest.fixture
def hooks(ready: Caller, clock: StillClock, far_side: FarSide) -> dict[Vendor, Hook]:
    return {vendor: hook_of(ready, vendor, clock, far_side) for vendor in VENDORS}


@pytest.fixture(params=VENDORS)
def hook(request: pytest.FixtureRequest, ready: Caller, clock: StillClock, far_side: FarSide) -> Hook:
    """Each vendor in turn."""
    return hook_of(ready, request.param, clock, far_side)


@pytest.fixture
def decision(ready: Caller) -> dict[str, Any]:
    """A reserved e-mail to ``u1``, to go out now."""
    asked = {"campaign_id": "c", "recipient_id": "u1", "request_id": "r1", "immediate": True}
    found: dict[str, Any] = ready("POST", "/v1/decisions", asked).get_json()
    assert found["status"] == "reserved"
    return found


@pytest.fixture
def other_admin(app: Flask) -> Caller:
    """Another workspace's admin, with a campaign of the same name."""
    caller = Caller(app, key(app, "admin", workspace="other"))
    caller("PUT", "/v1/campaigns/c", CAMPAIGN)
    return caller


def events_of(services: Services, decision_id: str, workspace: str = "default") -> list[Event]:
    with services.store.read() as reader:
        decision = reader.decision(workspace, decision_id)
        assert decision is not None
        return list(reader.events(workspace, decision))


def unmatched(services: Services, workspace: str = "default") -> int:
    with services.store.read() as reader:
        return reader.unmatched_events(workspace)


def metric(app: Flask, vendor: str, result: str) -> float:
    """A counter of ``/metrics``, 0 where it isn't there yet."""
    text = app.test_client().get("/metrics").get_data(as_text=True)
    name = f'sendtide_webhook_events_total{{result="{result}",vendor="{vendor}"}}'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))
