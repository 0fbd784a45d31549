"""Takes Mautic's webhooks and reports to Sendtide what they tell.

    DECIDE_URL=http://127.0.0.1:8080 DECIDE_KEY=st_… MAUTIC_SECRET=… python mautic_events.py 8090

In Mautic, add a webhook to this address for the events "Email sent", "Email opened", "Page hit" and "Contact channel
subscription change", with the same secret. The key needs the scopes decide and feedback; recipients are called by their
contact's id.

Send each e-mail through Mautic's API (``POST /api/emails/ID/contact/CONTACT/send``) with the token ``{decision}`` set
to the decision's id, and write links with ``?decision={decision}`` in them: so sends and clicks name their decision.
Opens name Mautic's own id of the message, which the report of the send has told.

Mautic's payloads: https://devdocs.mautic.org/en/latest/webhooks/events/index.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Report = tuple[str, dict[str, Any]]


def reports(payload: dict[str, Any]) -> Iterator[Report]:
    """What is to be reported: the path of the API, and the body; events one by one under ``/v1/events``."""
    for one in payload.get("mautic.email_on_send", []):
        decision = (one.get("tokens") or {}).get("{decision}")
        if decision:
            sent = {"sent_at": one["timestamp"], "provider": "mautic", "message_id": one["idHash"]}
            yield f"/v1/decisions/{decision}/confirm", sent
    for one in payload.get("mautic.email_on_open", []):
        stat = one["stat"]
        opened = {"type": "opened", "provider": "mautic", "message_id": stat["trackingHash"]}
        yield event(f"open {stat['id']} {stat['openCount']}", one, opened)
    for one in payload.get("mautic.page_on_hit", []):
        hit = one["hit"]
        seen: dict[str, Any] = {"recipient_id": str(hit["lead"]["id"]), "properties": {"page": hit["url"]}}
        decision = (hit.get("query") or {}).get("decision")
        told = {"type": "clicked", "decision_id": decision} if decision else {"type": "viewed"}
        yield event(f"hit {hit['id']}", one, {**seen, **told})
    for one in payload.get("mautic.lead_channel_subscription_changed", []):
        contact = str(one["contact"]["id"])
        # Mautic doesn't say which message it was about, so it silences every channel: better too quiet. A dead address
        # is reported as a refusal for that reason: a bounce has to name its message. A contact who comes back
        # ("contactable") is not reported: what someone refused, only they can take back, where you ask them.
        if one["new_status"] in ("unsubscribed", "manual", "bounced"):
            yield event(
                f"{one['new_status']} {contact} {one['timestamp']}",
                one,
                {"type": "unsubscribed", "recipient_id": contact},
            )


def event(name: str, one: dict[str, Any], facts: dict[str, Any]) -> Report:
    """An event; its id is made of Mautic's, so that a webhook that comes twice counts once."""
    return "/v1/events", {"event_id": f"mautic {name}", "occurred_at": one["timestamp"], **facts}


def genuine(body: bytes, signature: str | None, secret: str) -> bool:
    """Whether Mautic signed this body: HMAC-SHA256 in base64 under ``Webhook-Signature``."""
    expected = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return signature is not None and hmac.compare_digest(expected.encode(), signature.encode())


def forward(payload: dict[str, Any], url: str, key: str) -> None:
    """Reports it all; ``OSError`` when that failed and Mautic should send it again."""
    found = list(reports(payload))
    for path, body in found:
        if path != "/v1/events":
            post(url + path, key, body)
    events = [body for path, body in found if path == "/v1/events"]
    if events:
        answer = post(f"{url}/v1/events", key, {"events": events})
        for refused in answer["rejected"]:
            print(f"refused: {events[refused['index']]}: {refused['detail']}", file=sys.stderr)


def post(url: str, key: str, body: Any) -> Any:
    """Posts JSON; the answer. What is refused for good (4xx) is told and left."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code >= 500 or refused.code == 429:
                raise
            print(f"{url}: {refused.read().decode()}", file=sys.stderr)
            return {"rejected": []}


def serve(port: int, url: str, key: str, secret: str) -> ThreadingHTTPServer:
    """A server for Mautic's webhooks. It answers 200 once everything is stored, so nothing is lost in between."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(self.answer(body))
            self.end_headers()

        def answer(self, body: bytes) -> int:
            if not genuine(body, self.headers.get("Webhook-Signature"), secret):
                return 401
            try:
                forward(json.loads(body), url, key)
            except (ValueError, KeyError, TypeError, AttributeError) as odd:
                print(f"not a payload of Mautic's: {odd!r}", file=sys.stderr)
                return 400
            except OSError as gone:
                print(f"{url}: {gone}", file=sys.stderr)
                return 503
            return 200

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing of each request."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    told = os.environ
    if len(sys.argv) != 2 or not {"DECIDE_URL", "DECIDE_KEY", "MAUTIC_SECRET"} <= told.keys():
        sys.exit("usage: DECIDE_URL=… DECIDE_KEY=… MAUTIC_SECRET=… python mautic_events.py PORT")
    serve(int(sys.argv[1]), told["DECIDE_URL"], told["DECIDE_KEY"], told["MAUTIC_SECRET"]).serve_forever()
