"""Which opens and clicks a machine made: a pure function of all that is known of one message.

Privacy proxies load every picture, mail filters follow every link. Counted as people they would teach the policy to
write to mail filters. Each rule below gives a confidence, from 0 to 1, that a machine did it; the surest one speaks,
and from ``AUTOMATED_FROM`` on the event counts for nothing. The label of one event may hang on the others of the same
message and on when that went out and arrived, so all of them are judged together, and the same set in any order gets
the same labels. What a vendor reports without a time is judged by all but the rules that look at times. Anybody can
follow a link thousands of times: the first ``MOST`` are judged together, what comes later is no one person's reading.

What is *not* a sign: an open and a click close together (people who click have just opened), the picture proxies of
Gmail and Yahoo (they load when a person looks, unless the vendor says otherwise), a recipient who clicks often.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from optimizer.service.webhooks.delivery import Signs
from storage.webhooks import Label

#: From this confidence on an event is taken for a machine's.
AUTOMATED_FROM = 0.5
#: Sooner after the arrival nobody has opened a message, let alone found a link in it. Senders' trackers report filters'
#: clicks within 1.5 s; vendors' stamps are often whole seconds, so that more would catch people who were waiting.
TOO_SOON = timedelta(seconds=1.5)
#: A filter's click may come before the receiving server has said that it took the message; a longer lead is a clock's.
LEAD = timedelta(hours=1)
#: So many different links within so long is no hand.
BURST_LINKS = 3
BURST = timedelta(seconds=2)
#: The same program at the same address, so close to what a machine did, is that machine.
COMPANY = timedelta(seconds=10)
#: Opens and clicks of one message that are judged together, the first by time; all others are a machine's.
MOST = 1_000

_APPLE = "Mozilla/5.0"
_SCANNERS = re.compile(
    r"barracuda|proofpoint|urldefense|mimecast|symantec|messagelabs|ironport|fireeye|trend ?micro|forcepoint|websense"
    r"|zscaler|fortimail|safelinks|mailscanner|virustotal|bingpreview|headlesschrome|phantomjs"
    r"|python-requests|python-urllib|aiohttp|go-http-client|libwww-perl|apache-httpclient|\bcurl/|\bwget/"
    r"|axios/|node-fetch|\bjava/\d"
    r"|facebookexternalhit|facebot|slackbot|twitterbot|telegrambot|discordbot|linkedinbot|whatsapp/|skypeuripreview"
    r"|googlebot|google-pagerenderer|bingbot|applebot|yandexbot|ahrefsbot|semrushbot|crawler|spider|(?<![a-z])bot\b",
    re.IGNORECASE,
)


#: An address and a user agent.
_Client = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Trace:
    """An open or a click, with what may betray a machine."""

    event_id: str
    type: str
    at: datetime
    signs: Signs


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found: its name, how sure it is, and the number or word that it hangs on."""

    rule: str
    confidence: float
    because: str = ""

    @property
    def rank(self) -> tuple[float, str, str]:
        """The surest first; of equals the one whose name comes first."""
        return -self.confidence, self.rule, self.because


#: How sure each rule is.
CONFIDENCE = {
    "vendor": 0.95,
    "apple_privacy": 0.95,
    "scanner": 0.95,
    "head": 0.95,
    "before_delivery": 0.9,
    "burst": 0.9,
    "too_soon": 0.8,
    "same_client": 0.8,
    "too_many": 0.8,
}
#: Rules whose findings tell of the client that did it, and not only of this fetch.
_OF_A_CLIENT = frozenset({"scanner", "head", "before_delivery", "burst", "too_soon"})
_AFTER_MOST = f"after {MOST:,}"
PERSON = Label(False, 0.0, "")
#: What comes when ``MOST`` are known already, and shows no surer sign by itself.
TOO_MANY = Label(True, CONFIDENCE["too_many"], f"too_many: {_AFTER_MOST}")


def judge(traces: Iterable[Trace], sent_at: datetime | None, delivered_at: datetime | None) -> dict[str, Label]:
    """The labels of the opens and clicks of one message, by event id.

    Args:
        traces: all that are known, in any order; several of one id count once.
        sent_at: when the sender says that it went out, None while nobody has.
        delivered_at: when it is first known to have arrived, None while nobody has said when.
    """
    ordered = sorted({trace.event_id: trace for trace in traces}.values(), key=lambda one: (one.at, one.event_id))
    timed = [one for one in ordered[:MOST] if one.signs.timed]
    found = {one.event_id: [*_alone(one)] for one in ordered}
    for one in ordered[MOST:]:
        found[one.event_id].append(_finding("too_many", _AFTER_MOST))
    for one in timed:
        found[one.event_id] += _in_time(one, sent_at, delivered_at)
    for event_id in _bursts([one for one in timed if one.type == "clicked" and one.signs.url]):
        found[event_id].append(_finding("burst", f"{BURST_LINKS} links in {BURST.total_seconds():g} s"))
    machines: dict[_Client, list[datetime]] = {}
    for one in timed:
        if any(finding.rule in _OF_A_CLIENT for finding in found[one.event_id]):
            machines.setdefault(_client(one), []).append(one.at)
    for one in timed:
        if not found[one.event_id] and _in_company(one, machines):
            found[one.event_id].append(_finding("same_client"))
    return {event_id: _label(findings) for event_id, findings in found.items()}


def _finding(rule: str, because: str = "") -> Finding:
    return Finding(rule, CONFIDENCE[rule], because)


def _label(findings: Sequence[Finding]) -> Label:
    if not findings:
        return PERSON
    surest = min(findings, key=lambda one: one.rank)
    reason = f"{surest.rule}: {surest.because}" if surest.because else surest.rule
    return Label(surest.confidence >= AUTOMATED_FROM, surest.confidence, reason)


def _alone(one: Trace) -> Iterable[Finding]:
    """What the fetch itself shows."""
    signs = one.signs
    if signs.flagged:
        yield _finding("vendor", signs.flagged)
    if one.type == "opened" and signs.user_agent.strip() == _APPLE:
        yield _finding("apple_privacy")
    scanner = _SCANNERS.search(signs.user_agent)
    if scanner is not None:
        yield _finding("scanner", scanner[0].lower())
    if signs.method.upper() == "HEAD":
        yield _finding("head")


def _in_time(one: Trace, sent_at: datetime | None, delivered_at: datetime | None) -> Iterable[Finding]:
    """What the time shows. Only a vendor's own clock says that something came *before* the arrival: when a message was
    sent is told by the sender, whose clock is another and who may tell it late."""
    if delivered_at is not None and timedelta(0) < delivered_at - one.at <= LEAD:
        yield _finding("before_delivery")
        return
    start, what = (sent_at, "sending") if delivered_at is None else (delivered_at, "arrival")
    if start is not None and timedelta(0) <= one.at - start < TOO_SOON:
        yield _finding("too_soon", f"{(one.at - start).total_seconds():.1f} s after {what}")


def _bursts(clicks: Sequence[Trace]) -> set[str]:
    """The clicks, given in order of time, that lie in a stretch with too many different links."""
    found: set[str] = set()
    links: Counter[str] = Counter()
    first = told = 0
    for last, click in enumerate(clicks):
        links[click.signs.url] += 1
        while click.at - clicks[first].at > BURST:
            left = clicks[first].signs.url
            links[left] -= 1
            if not links[left]:
                del links[left]
            first += 1
        if len(links) >= BURST_LINKS:
            found.update(one.event_id for one in clicks[max(first, told) : last + 1])
            told = last + 1
    return found


def _client(one: Trace) -> _Client:
    return one.signs.address, one.signs.user_agent


def _in_company(one: Trace, machines: Mapping[_Client, Sequence[datetime]]) -> bool:
    """Whether a machine, of those by client in order of time, came from the same one at about that time."""
    client = _client(one)
    times = machines.get(client, ()) if all(client) else ()
    next_ = bisect_left(times, one.at - COMPANY)
    return next_ < len(times) and times[next_] <= one.at + COMPANY
