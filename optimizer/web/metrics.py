"""Prometheus metrics of the API.

With ``PROMETHEUS_MULTIPROC_DIR`` set before the first import, prometheus-client keeps values in files of that folder
and a scrape of any worker answers for all of them (``metric_files`` writes them). Whoever starts the workers wipes the
folder and marks dead workers.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence

from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from optimizer.service.endpoints import all_states
from optimizer.service.learningalerts import learning_alerts
from optimizer.service.requests import IngestReport
from optimizer.service.wiring import Services
from optimizer.web import metric_files
from storage.errors import StoreError
from storage.log import Decision
from storage.port import Reader

#: Seconds: from a cached read to a batch of 10,000.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: How often a worker writes what it serves into its metrics, in seconds.
_POLICY_SECONDS = 1.0
_ENDPOINT = ("workspace", "endpoint")
#: How long what was read of trainings is told, in seconds: it takes hundreds of verdicts, and changes by the minute.
_LEARNING_SECONDS = 60.0

metric_files.install()


class Metrics:
    """The metrics of one app. Safe between threads, as prometheus-client's values are."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self._requests = Counter("sendtide_requests", "Requests.", ("method", "route", "status"), registry=r)
        self._seconds = Histogram(
            "sendtide_request_seconds", "Time to answer.", ("method", "route"), registry=r, buckets=_BUCKETS
        )
        self._decisions = Counter("sendtide_decisions", "New decisions.", ("status", "group"), registry=r)
        self._masked = Counter(
            "sendtide_rule_masked_actions",
            "Actions that a rule masked in new decisions, or would have if it weren't a dry run.",
            ("workspace", "rule_id", "kind", "dry_run"),
            registry=r,
        )
        self._withheld = Counter(
            "sendtide_rule_withheld",
            "New decisions that were withheld, for each rule that masked actions of them.",
            ("workspace", "rule_id", "kind"),
            registry=r,
        )
        self._events = Counter("sendtide_events", "Reported events.", ("result",), registry=r)
        self._webhooks = Counter(
            "sendtide_webhook_events", "What became of vendors' events.", ("vendor", "result"), registry=r
        )
        campaign = ("workspace", "campaign")
        self._generation = Gauge(
            "sendtide_policy_generation",
            "Generation of the served policy; with several workers that of the one furthest behind.",
            campaign,
            registry=r,
            multiprocess_mode="livemin",
        )
        self._fault = Gauge(
            "sendtide_policy_fault",
            "Workers that can't load the campaign's newest policy and keep the old one.",
            campaign,
            registry=r,
            multiprocess_mode="livesum",
        )
        self._policies_at = float("-inf")
        self._learning = _Learning()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def count_decisions(self, decisions: Sequence[Decision]) -> None:
        """Counts new decisions, and what each rule did to them. One that was overridden did nothing."""
        made: Tally[tuple[str, str]] = Tally()
        masked: Tally[tuple[str, str, str, str]] = Tally()
        withheld: Tally[tuple[str, str, str]] = Tally()
        # Summed up first: looking a labelled counter up costs more than everything else here.
        for one in decisions:
            made[one.status, one.group] += 1
            for reason in one.reasons:
                if reason.rule_id in one.snapshot.overridden_rules:
                    continue
                rule = (one.workspace_id, reason.rule_id, reason.kind)
                masked[*rule, "true" if reason.dry_run else "false"] += reason.masked
                withheld[rule] += one.status == "withheld" and not reason.dry_run
        for counter, tally in ((self._decisions, made), (self._masked, masked), (self._withheld, withheld)):
            for labels, count in tally.items():
                counter.labels(*labels).inc(count)

    def count_events(self, report: IngestReport) -> None:
        """Counts what became of an envelope of events."""
        matched = report.accepted - report.unmatched
        results = (
            ("matched", matched),
            ("unmatched", report.unmatched),
            ("duplicate", report.duplicates),
            ("rejected", len(report.rejected)),
        )
        for result, count in results:
            if count:
                self._events.labels(result).inc(count)

    def count_webhook(self, vendor: str, report: IngestReport, unknown: int) -> None:
        """Counts what became of a vendor's delivery; ``unknown`` of its events have a type that nobody here knows."""
        results = {
            "accepted": report.accepted,
            "duplicate": report.duplicates,
            "unmatched": report.unmatched,
            "rejected": len(report.rejected),
            "unknown_type": unknown,
        }
        for result, count in results.items():
            if count:
                self._webhooks.labels(vendor, result).inc(count)

    def count_forged(self, vendor: str) -> None:
        """Counts a delivery that its vendor did not sign."""
        self._webhooks.labels(vendor, "forged").inc()

    def show_policies(self, services: Services, *, anyhow: bool = False) -> None:
        """Writes which policies this worker serves, at most once a second unless it must be done ``anyhow``."""
        at = time.monotonic()
        if at - self._policies_at < _POLICY_SECONDS and not anyhow:
            return
        self._policies_at = at
        for one in services.policies.status():
            self._generation.labels(one.workspace_id, one.campaign_id).set(one.generation)
            self._fault.labels(one.workspace_id, one.campaign_id).set(one.fault is not None)

    def text(self, services: Services | None) -> bytes:
        """The exposition text of all workers; without ``services`` (store down) what needs the store is left out."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus-client leaves it untyped
        live = CollectorRegistry()
        live.register(_Live(services, self._learning))
        return generate_latest(registry) + generate_latest(live)


class _Live(Collector):
    """What is read from the store at the scrape."""

    def __init__(self, services: Services | None, learning: _Learning) -> None:
        self._services = services
        self._learning = learning

    def collect(self) -> Iterable[Metric]:
        return list(self._read())

    def _read(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("sendtide_store_up", "Whether the store could be read.")
        unmatched = GaugeMetricFamily(
            "sendtide_unmatched_events", "Events whose decision is unknown.", labels=("workspace",)
        )
        failed = GaugeMetricFamily(
            "sendtide_training_failed_time_seconds",
            "When the newest training run that failed was asked for, since 1970; 0 = none has.",
            labels=("workspace",),
        )
        pushed: list[GaugeMetricFamily | CounterMetricFamily] = [
            GaugeMetricFamily("sendtide_webhook_behind", "Changes that an endpoint has not seen.", labels=_ENDPOINT),
            CounterMetricFamily("sendtide_webhook_delivered", "Changes that an endpoint took.", labels=_ENDPOINT),
            GaugeMetricFamily("sendtide_webhook_failures", "Attempts that failed in a row.", labels=_ENDPOINT),
            GaugeMetricFamily("sendtide_webhook_stopped", "Whether an endpoint gets nothing more.", labels=_ENDPOINT),
        ]
        learning: Sequence[Metric] = ()
        readable = self._services is not None
        if self._services is not None:
            try:
                with self._services.store.read() as reader:
                    learning = self._learning.read(reader)
                    for workspace in reader.workspaces():
                        count = reader.unmatched_events(workspace.workspace_id)
                        unmatched.add_metric([workspace.workspace_id], count)
                        runs = reader.training_runs(workspace.workspace_id, limit=1, status="failed").items
                        at = runs[0].created_at.timestamp() if runs else 0.0
                        failed.add_metric([workspace.workspace_id], at)
                        for one in all_states(reader, workspace.workspace_id):
                            told = one.delivery
                            values = (one.behind, told.delivered, told.failures, told.stopped is not None)
                            for family, value in zip(pushed, values, strict=True):
                                family.add_metric([workspace.workspace_id, told.endpoint_id], float(value))
            except StoreError:
                readable = False
        up.add_metric([], float(readable))
        yield up
        yield unmatched
        yield failed
        yield from pushed
        yield from learning


class _Learning:
    """What is told of trainings, read once a minute."""

    def __init__(self) -> None:
        self._known: tuple[float, Sequence[Metric]] = (float("-inf"), ())

    def read(self, reader: Reader) -> Sequence[Metric]:
        """The metrics of all workspaces."""
        now = time.monotonic()
        if now - self._known[0] >= _LEARNING_SECONDS:
            self._known = (now, _learning_metrics(reader))
        return self._known[1]


def _learning_metrics(reader: Reader) -> Sequence[Metric]:
    campaign = ("workspace", "campaign")
    trained = GaugeMetricFamily(
        "sendtide_training_finished_time_seconds",
        "When the last retrain that didn't fail has finished, since 1970; 0 = none lately.",
        labels=("workspace",),
    )
    refused = GaugeMetricFamily(
        "sendtide_training_refused", "Whether the last retrain refused the campaign's data.", labels=campaign
    )
    drift = GaugeMetricFamily("sendtide_drift_alarms", "Alarms of drift that stand.", labels=(*campaign, "kind"))
    back = GaugeMetricFamily(
        "sendtide_policy_rolled_back_time_seconds",
        "When a policy of the campaign was last taken back, since 1970; 0 = none lately.",
        labels=campaign,
    )
    for workspace in reader.workspaces():
        name = workspace.workspace_id
        told = learning_alerts(reader, name)
        trained.add_metric([name], told.trained.timestamp() if told.trained is not None else 0.0)
        for one in told.campaigns:
            labels = [name, one.campaign_id]
            refused.add_metric(labels, float(one.refused))
            back.add_metric(labels, one.rolled_back.timestamp() if one.rolled_back is not None else 0.0)
            for kind, count in one.drift.items():
                drift.add_metric([*labels, kind], float(count))
    return (trained, refused, drift, back)


def of(app: Flask) -> Metrics:
    """The metrics of an app."""
    found: Metrics = app.extensions["sendtide_metrics"]
    return found
