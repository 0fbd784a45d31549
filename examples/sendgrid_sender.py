"""A sender's loop between Sendtide and SendGrid.

    DECIDE_URL=http://127.0.0.1:8080 DECIDE_KEY=st_… SENDGRID_KEY=SG.… python sendgrid_sender.py people.csv

``people.csv`` has the columns recipient_id and email. The key needs the scopes decide and feedback.

What is planned and what is still to be reported lies in one small file, written before and after each step: a loop that
is killed goes on where it was. Between "it is being sent" and "it was sent" nobody can know; such a message is not sent
again (twice is worse than never), and Sendtide counts it as sent, as for any that is not confirmed.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CAMPAIGN = "spring"
#: SendGrid's dynamic template for each variant, and what goes out when nobody can be asked.
TEMPLATES = {"mens": "d-0001", "womens": "d-0002"}
BASELINE = {"variant_id": "mens", "channel": "email"}
SENDER = "news@example.com"


class UnreachableError(Exception):
    """Nobody answered, or only to say that they can't just now: try again later."""


def post(url: str, key: str, body: Any) -> tuple[int, Any, Any]:
    """Posts JSON; the status, the parsed answer and its headers. 4xx is an answer; no answer, 429 and 5xx are not."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null"), answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 429 or refused.code >= 500:
                raise UnreachableError(f"{url}: {refused.code}") from None
            return refused.code, json.loads(refused.read() or b"null"), refused.headers
    except OSError as gone:
        raise UnreachableError(f"{url}: {gone}") from None


class Sender:
    """The loop's state and its steps. ``now`` is a parameter, so that a test can be quick."""

    def __init__(self, decide: str, decide_key: str, mail: str, mail_key: str, state: Path) -> None:
        self.decide, self.decide_key, self.mail, self.mail_key = decide, decide_key, mail, mail_key
        self.state = state
        kept = json.loads(state.read_text()) if state.exists() else {}
        #: Messages to be sent: recipient, email, variant, send_at, decision_id (None: the baseline), whether "sending".
        self.planned: list[dict[str, Any]] = [one for one in kept.get("planned", []) if not one["sending"]]
        #: What Sendtide has not heard yet: path and body.
        self.unreported: list[list[Any]] = kept.get("unreported", [])

    def plan(self, people: list[dict[str, str]], run: str, now: datetime) -> None:
        """Asks what to send to whom and when; plans the baseline for now where nobody answers.

        A request's id is that of its run and recipient: asking again, after a crash say, gives the same decisions.
        """
        rows = [{"recipient_id": one["recipient_id"], "request_id": f"{run}/{one['recipient_id']}"} for one in people]
        try:
            status, answer, _ = self._ask("/v1/decisions/batch", {"campaign_id": CAMPAIGN, "recipients": rows})
        except UnreachableError:
            for one in people:
                self._add(one, BASELINE["variant_id"], now.isoformat(), None)
            self._save()
            return
        if status != 200:
            raise SystemExit(f"the batch was refused: {answer['detail']}")
        for one, decision in zip(people, answer["decisions"], strict=True):
            # A row that could not be decided is a problem in its place; no_send and withheld mean: nothing is sent.
            if decision["status"] == "reserved":
                action = decision["action"]
                self._add(one, action["variant_id"], action["send_at"], decision["decision_id"])
        self._save()

    def tick(self, now: datetime) -> None:
        """Sends what is due, and reports what is not reported yet."""
        for message in [one for one in self.planned if datetime.fromisoformat(one["send_at"]) <= now]:
            if message["decision_id"] is None or self._claim(message):
                self._send(message, now)
            else:
                self.planned.remove(message)
            self._save()
        self._report()

    def _claim(self, message: dict[str, Any]) -> bool:
        """Whether the message still stands: it may have been revoked or displaced since it was planned."""
        path = f"/v1/decisions/{message['decision_id']}"
        try:
            status, answer, _ = self._ask(f"{path}/claim", {})
        except UnreachableError:
            return True  # It is reserved, and an outage stops no mail.
        if status == 409 and answer["code"] in ("not_claimable_assumed_sent", "not_claimable_now"):
            # This program was late, by an hour or into quiet hours: it would count as a message that nobody read.
            self.unreported.append([f"{path}/release", {"reason": "not sent in time"}])
        return status == 200

    def _send(self, message: dict[str, Any], now: datetime) -> None:
        message["sending"] = True
        self._save()
        person: dict[str, Any] = {"to": [{"email": message["email"]}]}
        if message["decision_id"] is not None:
            # SendGrid repeats custom arguments in every event of the message: so opens and clicks find their decision.
            person["custom_args"] = {"sendtide_decision_id": message["decision_id"]}
        body = {
            "personalizations": [person],
            "from": {"email": SENDER},
            "template_id": TEMPLATES[message["variant_id"]],
        }
        try:
            status, answer, headers = post(f"{self.mail}/v3/mail/send", self.mail_key, body)
        except UnreachableError:
            message["sending"] = False  # Try again at the next tick; the claim holds.
            return
        self.planned.remove(message)
        if status == 202:
            self._sent(message, now, headers.get("X-Message-Id"))
        elif message["decision_id"] is not None:
            release = {"reason": f"SendGrid {status}: {json.dumps(answer)}"[:250]}
            self.unreported.append([f"/v1/decisions/{message['decision_id']}/release", release])

    def _sent(self, message: dict[str, Any], now: datetime, message_id: str | None) -> None:
        if message["decision_id"] is not None:
            told = {"sent_at": now.isoformat(), "provider": "sendgrid", "message_id": message_id}
            self.unreported.append([f"/v1/decisions/{message['decision_id']}/confirm", told])
            return
        sent = {
            "id": message_id or f"{message['recipient_id']} {now.isoformat()}",
            "recipient_id": message["recipient_id"],
        }
        sent |= {"channel": BASELINE["channel"], "sent_at": now.isoformat()}
        sent |= {"campaign_id": CAMPAIGN, "variant_id": BASELINE["variant_id"]}
        self.unreported.append(["/v1/sends", sent])

    def _report(self) -> None:
        """Tells Sendtide what happened. Each report may be repeated without harm."""
        while self.unreported:
            path, body = self.unreported[0]
            try:
                status, answer, _ = self._ask(path, body)
            except UnreachableError:
                return
            if status >= 400:
                print(f"{path} was refused: {answer['detail']}", file=sys.stderr)
            del self.unreported[0]
            self._save()

    def _add(self, person: dict[str, str], variant_id: str, send_at: str, decision_id: str | None) -> None:
        message = {"variant_id": variant_id, "send_at": send_at, "decision_id": decision_id, "sending": False}
        self.planned.append({"recipient_id": person["recipient_id"], "email": person["email"], **message})

    def _ask(self, path: str, body: Any) -> tuple[int, Any, Any]:
        return post(self.decide + path, self.decide_key, body)

    def _save(self) -> None:
        draft = self.state.with_suffix(".draft")
        draft.write_text(json.dumps({"planned": self.planned, "unreported": self.unreported}))
        draft.replace(self.state)


def main(argv: list[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC), pause: float = 5.0) -> None:
    """Plans a run for the people in a file, then works until all of it is sent and reported."""
    if len(argv) != 2 or not {"DECIDE_URL", "DECIDE_KEY", "SENDGRID_KEY"} <= os.environ.keys():
        sys.exit("usage: DECIDE_URL=… DECIDE_KEY=… SENDGRID_KEY=… python sendgrid_sender.py PEOPLE.csv")
    sender = Sender(
        os.environ["DECIDE_URL"],
        os.environ["DECIDE_KEY"],
        os.environ.get("SENDGRID_URL", "https://api.sendgrid.com"),
        os.environ["SENDGRID_KEY"],
        Path(os.environ.get("SENDER_STATE", "sender.json")),
    )
    if not sender.planned and not sender.unreported:
        with Path(argv[1]).open(newline="", encoding="utf-8") as file:
            sender.plan(list(csv.DictReader(file)), run=f"{CAMPAIGN} {clock():%Y-%m-%d}", now=clock())
    while sender.planned or sender.unreported:
        sender.tick(clock())
        time.sleep(pause)


if __name__ == "__main__":
    main(sys.argv)
