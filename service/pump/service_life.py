"""When a pump's battery asks for a replacement (ERI) and when the pump stops (EOS), and what says so.

What the pump itself reported counts, and the service limit of its model; the earlier of both decides.
A date is never later than what it came from: docs/clinical.md, "Service life".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from mappings.envelope import Event, occurred
from mappings.fields import instant

from .models import Model
from .reservoir import Thresholds, end_of_service, later_on, months_later

SERVICE_LIFE, FORECAST, REPORTED = "service-life", "interrogation", "reported"
Dated = tuple[date, str]
Maybe = tuple[date | None, str]


@dataclass(frozen=True, slots=True)
class ServiceLife:
    """(date, what decides it) of ERI and EOS; `indicated` when the pump said that ERI is reached."""

    eri: Dated | None = None
    eos: Dated | None = None
    indicated: bool = False
    ended: bool = False
    plan_by: date | None = None


def service_life(
    pump: Any, model: Model | None, events: Iterable[Event], thresholds: Thresholds
) -> ServiceLife:
    """Of a pump by its device facts and the interrogations and alarms among `events`, in order."""
    records = [e for e in events if e["type"] in ("interrogation", "alarm")]
    indicated = min(_reported(records, "eri"), default=None)
    ended = min(_reported(records, "eos"), default=None)
    eris: list[Maybe] = [(indicated, REPORTED)] if indicated else _forecast(records)
    eoses: list[Maybe] = [(ended, REPORTED)] if ended else []
    if model is not None and model.indicator_days is not None:
        eoses += [(later_on(day, model.indicator_days), said) for day, said in eris if day is not None]
    limit = _limit(pump, model)
    if limit is not None:
        eris.append((limit[0], SERVICE_LIFE))
        eoses.append((limit[1], SERVICE_LIFE))
    eri, eos = _first(eris), _first(eoses)
    return ServiceLife(
        eri,
        eos,
        indicated is not None,
        ended is not None,
        months_later(eri[0], -thresholds.replacement_notice_months) if eri is not None else None,
    )


def _first(dates: list[Maybe]) -> Dated | None:
    return min(((day, said) for day, said in dates if day is not None), default=None)


def _limit(pump: Any, model: Model | None) -> tuple[date, date] | None:
    if model is None or model.service_years is None or model.indicator_days is None:
        return None
    if "implanted_on" not in (pump or {}):
        return None
    return end_of_service(date.fromisoformat(pump["implanted_on"]), model.service_years, model.indicator_days)


def _reported(records: list[Event], what: str) -> Iterator[date]:
    """The days on which the pump reported `eri` or `eos`; a log's clock never makes it later."""
    for event in records:
        day = occurred(event).date()
        if event.get("alarm") == what:
            yield day
        for entry in event.get("log", ()):
            if entry["entry"] == what:
                yield min(instant(entry["at"]).date(), day)
        if what == "eri" and event.get("eri_months") == 0:
            yield day
        if what == "eri" and "eri_on" in event and first_day(event["eri_on"]) <= day:
            yield first_day(event["eri_on"])


def _forecast(records: list[Event]) -> list[Maybe]:
    """What the newest interrogation with a forecast says; of its two forms the earlier."""
    for event in reversed(records):
        said: list[date | None] = []
        if "eri_on" in event:
            said.append(first_day(event["eri_on"]))
        if "eri_months" in event:
            said.append(months_later(occurred(event).date(), event["eri_months"]))
        if said:
            return [(day, FORECAST) for day in said]
    return []


def first_day(said: str) -> date:
    """A day, or the first day of a month that is all that is known."""
    return date.fromisoformat(said if len(said) > 7 else f"{said}-01")
