"""What the service tells about itself: JSON log lines and metrics, both without patient data.

A log line holds ids of requests, routes (never addresses with values in them), counts and outcomes.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Log = structlog.typing.FilteringBoundLogger


class _StandardError:
    """Writes each line to what is standard error at that moment."""

    def msg(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = msg


def make_log(level: str = "info") -> Log:
    """A logger that writes one JSON object a line to standard error."""
    names = logging.getLevelNamesMapping()
    made: Log = structlog.wrap_logger(
        _StandardError(),
        wrapper_class=structlog.make_filtering_bound_logger(names.get(level.upper(), logging.INFO)),
        processors=[
            _located,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
    return made


def _located(_logger: Any, _method: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Of an exception (`log.exception`, `exc_info=`) its class and place; never its message or variables."""
    found = said.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    return {**said, **where(error)} if isinstance(error, BaseException) else said


def where(error: BaseException) -> dict[str, Any]:
    """The class of an error and the lines it passed: its message may hold a patient's data."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}" for frame in frames],
    }


class Metrics:
    """The counters of one application, in a registry of their own."""

    def __init__(self, outcomes: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "itb_events", "Events received, by outcome", ["outcome"], registry=self.registry
        )
        for outcome in outcomes:
            self.events.labels(outcome)  # a counter that is 0 is there from the start
        self.requests = Histogram(
            "itb_http_request_seconds",
            "Requests answered, by route and status",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._drift = Gauge(
            "itb_drift",
            "What differed at the newest comparison of an EHR with the ledger",
            ["endpoint", "kind"],
            registry=self.registry,
        )
        self._deliveries = Gauge(
            "itb_deliveries", "Deliveries to EHRs, by status", ["status"], registry=self.registry
        )
        self._messages = Gauge(
            "itb_messages", "HL7 v2 messages that wait, by status", ["status"], registry=self.registry
        )

        self._shut = Gauge(
            "itb_endpoint_breaker_open",
            "1 while an EHR's breaker lets only probes through",
            ["endpoint"],
            registry=self.registry,
        )

    def render(
        self,
        deliveries: Mapping[str, int],
        messages: Mapping[str, int],
        shut: Mapping[str, bool],
        drift: Mapping[tuple[str, str], int],
    ) -> bytes:
        """The Prometheus text, as it is now: deliveries, messages that wait, breakers, drift of the EHRs."""
        self._drift.clear()
        for (endpoint, kind), count in drift.items():
            self._drift.labels(endpoint, kind).set(count)
        for endpoint, is_shut in shut.items():
            self._shut.labels(endpoint).set(is_shut)
        for status, count in messages.items():
            self._messages.labels(status).set(count)
        for status, count in deliveries.items():
            self._deliveries.labels(status).set(count)
        return generate_latest(self.registry)
