"""An interrogation: what telemetry read out of the pump, as one Observation with a component a value.

The precedent is that of implanted cardiac devices; `focus` is the pump, `subject` the patient
(docs/fhir.md, "Interrogation").
"""

from __future__ import annotations

from typing import Any

from .codes import LOCAL, MODE, MODES, component, local, local_concepts
from .envelope import Event, PumpEnvelope, Recorded, Strictly
from .fields import Code, Day, Line, Moment, Part, Quantity, Whole, refuse
from .paths import Json
from .rows import Always, Issue, Mapping, Row
from .shared_rows import OBSERVED, SUBJECT, VERIFIER, VERSION, claim, key
from .sources import Sources
from .telling import Telling
from .values import ML, PERSON, PUMP, UG_PER_D, UG_PER_ML_QUANTITY

LOG = (
    "motor-stall",
    "motor-stall-recovery",
    "stopped-pump",
    "pump-reset",
    "safe-state",
    "low-reservoir",
    "empty-reservoir",
    "eri",
    "eos",
    "critical-memory-error",
    "noncritical-memory-error",
    "telemetry-mode-stall",
    "therapy-stop",
    "therapy-start",
    "alarm-silenced",
)
"""Entries of a pump's event log (docs/clinical.md, "Alarms and log")."""


class BolusCountSchema(Strictly):
    """Patient boluses since the last interrogation."""

    requested = Whole(0, 100_000)
    delivered = Whole(0, 100_000)
    denied = Whole(0, 100_000)

    def whole(self, data: Any) -> None:
        if not data:
            raise refuse("required", "needs at least one count")


class LogEntrySchema(Strictly):
    """One entry of the pump's log, at the time of the pump's clock."""

    entry = Code(*LOG, required=True)
    at = Moment(required=True)


class InterrogationSchema(Recorded, PumpEnvelope):
    """What the programmer read; every value is as the pump said it, none is worked out."""

    reservoir_volume = Quantity("mL")
    low_alarm_volume = Quantity("mL")
    alarm_on = Day()
    daily_dose = Quantity("ug/d")
    concentration = Quantity("ug/mL", above_zero=True)
    mode = Code(*MODES)
    eri_months = Whole(0, 240)
    eri_on = Day(month_enough=True)
    pump_clock = Moment()
    patient_boluses = Part(BolusCountSchema())
    log = Part(LogEntrySchema(), many=True)
    programmer = Line()


SCHEMA = InterrogationSchema()
VALUES = (
    "reservoir_volume",
    "low_alarm_volume",
    "alarm_on",
    "daily_dose",
    "concentration",
    "mode",
    "eri_months",
    "eri_on",
    "pump_clock",
    "patient_boluses",
    "log",
)


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    if not any(name in event for name in VALUES):
        return [Issue("$", "required", "an interrogation reads at least one value")]
    return []


READING = Mapping(
    Always("resourceType", "Observation"),
    claim("itb-interrogation"),
    VERSION,
    VERIFIER,
    key("interrogation"),
    Row("status", "status", OBSERVED, required=True),
    Always("code", local("pump-interrogation")),
    SUBJECT,
    Row("pump", "focus[0]", PUMP, required=True),
    Row("occurred_at", "effectiveDateTime", required=True),
    Row("performer", "performer[0]", PERSON),
    Row("note", "note[0].text"),
    Row("programmer", "device.display"),
    Row("reservoir_volume", component("reservoir-volume-calculated", "valueQuantity"), ML),
    Row("low_alarm_volume", component("low-reservoir-alarm-volume", "valueQuantity"), ML),
    Row("alarm_on", component("low-reservoir-alarm-date", "valueDateTime")),
    Row("daily_dose", component("pump-daily-dose", "valueQuantity"), UG_PER_D),
    Row("concentration", component("drug-concentration", "valueQuantity"), UG_PER_ML_QUANTITY),
    Row("mode", component("infusion-mode", "valueCodeableConcept"), MODE),
    Row("eri_months", component("eri-months", "valueInteger")),
    Row("eri_on", component("eri-date", "valueDateTime")),
    Row("pump_clock", component("pump-clock", "valueDateTime")),
    Row("patient_boluses.requested", component("patient-bolus-requested", "valueInteger")),
    Row("patient_boluses.delivered", component("patient-bolus-delivered", "valueInteger")),
    Row("patient_boluses.denied", component("patient-bolus-denied", "valueInteger")),
)

ENTRY = Mapping(
    Row("entry", "code", local_concepts("log-", *LOG, value_set="itb-log-entry"), required=True),
    Row("at", "valueDateTime", required=True),
)
"""A component that holds an entry of the log."""
LOG_CODES = {f"log-{name}" for name in LOG}

TELLS = (Telling("Observation", "interrogation", "code", ("pump-interrogation",), "itb-interrogation"),)
MAPPED = (("Observation", "", READING), ("Observation.component", "log.", ENTRY))
DERIVED = frozenset({"type"})


def encode(event: Event) -> list[Json]:
    """The one Observation."""
    reading = READING.encode({"status": "final", **event})
    if "log" in event:
        reading.setdefault("component", []).extend(ENTRY.encode(entry) for entry in event["log"])
    return [reading]


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of an Observation, and the residue."""
    event = {"type": "interrogation", **READING.read(resource)}
    entries = [item for item in resource.get("component", []) if _is_entry(item)]
    if entries:
        resource["component"] = [item for item in resource["component"] if not _is_entry(item)]
        event["log"] = [ENTRY.read(item) for item in entries]
    return event, {"Observation": resource}


def _is_entry(item: Json) -> bool:
    codings = item.get("code", {}).get("coding", [])
    return any(c.get("system") == LOCAL and c.get("code") in LOG_CODES for c in codings)
