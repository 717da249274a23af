"""A refill or dose change as an EHR user reads it where devices and administrations are refused: a Procedure
with its words, and an Observation for each volume, dose and date. docs/fhir.md, "Charted records".

The record itself stands in a document beside them (mappings/document.py). What can be read back from these
alone is what the rows here say: that is how a loss is worked out, not written down by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import document, dose_change, refill
from .codes import DEVICE_ACTION, MODE, local, part, sid
from .dose_change import percent_change
from .envelope import Event
from .identity import business_value, own, resource_identity, split_value
from .paths import Json, copy
from .rows import AS_IS, Always, Codec, Derived, Group, Mapping, MappingError, Refused, Row
from .shared_rows import OBSERVED as OBSERVED_STATUS
from .shared_rows import STATUS, SUBJECT, THERAPY, VERSION, claim, key
from .values import ML, PERFORMERS, PERSON, PUMP, UG_PER_D, UG_PER_ML_QUANTITY, ucum

# --- the procedures -------------------------------------------------------------------------------------


def _performed_out(found: Json) -> Json:
    if "started_at" in found:
        return {"performedPeriod": {"start": found["started_at"], "end": found["occurred_at"]}}
    return {"performedDateTime": found["occurred_at"]}


def _performed_in(found: Json) -> Json:
    if "performedPeriod" in found:
        period = found.pop("performedPeriod")
        return {"started_at": period["start"], "occurred_at": period["end"]}
    return {"occurred_at": found.pop("performedDateTime")}


def _status_out(found: Json) -> Json:
    if "stopped_because" not in found:
        return {"status": STATUS.to_fhir(found["status"])}
    status = "entered-in-error" if found["status"] == "entered-in-error" else "stopped"
    return {"status": status, "statusReason": {"text": found["stopped_because"]}}


def _status_in(found: Json) -> Json:
    status = found.pop("status")
    made = {"status": "final" if status == "stopped" else STATUS.from_fhir(status)}
    if "text" in (reason := found.pop("statusReason", {})):
        made["stopped_because"] = reason["text"]
    return made


MANIPULATED = Always("focalDevice[0].action", {"coding": [{"system": DEVICE_ACTION, "code": "manipulated"}]})

REFILL = Mapping(
    Always("resourceType", "Procedure"),
    claim("itb-charted-refill"),
    VERSION,
    *refill.DETAIL_ROWS,
    Row("volume_instilled", part(refill.DETAIL, "volumeInstilled", "valueQuantity"), ML),
    key("charted-refill"),
    Group(("status", "stopped_because"), ("status", "statusReason"), Codec(_status_out, _status_in)),
    Always("code", local("pump-refill")),
    SUBJECT,
    Group(
        ("started_at", "occurred_at"),
        ("performedPeriod", "performedDateTime"),
        Codec(_performed_out, _performed_in),
    ),
    Group(("performer", "verifier"), ("performer",), PERFORMERS),
    Derived("outcome.text", refill.words),
    MANIPULATED,
    Row("pump", "focalDevice[0].manipulated", PUMP, required=True),
    Row("note", "note[0].text"),
)

CHANGE = Mapping(
    Always("resourceType", "Procedure"),
    claim("itb-charted-dose-change"),
    VERSION,
    *dose_change.BRIDGE_ROWS,
    *dose_change.CHANGE_ROWS,
    key("charted-dose-change"),
    Row("status", "status", STATUS, required=True),
    Always("code", local("pump-dose-change")),
    *dose_change.SESSION_ROWS,
    Derived("outcome.text", document.headline),
)

# --- the values -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """An event's `field` as an Observation of local `code`; `derived` is one that is only written."""

    field: str
    code: str
    element: str
    codec: Codec = AS_IS
    derived: Any = None


def _percent(event: Event) -> Json:
    percent = percent_change(event)
    return None if percent is None else ucum(percent, "%")


REFILL_VALUES = (
    Value("volume_expected", "reservoir-volume-expected", "valueQuantity", ML),
    Value("volume_removed", "reservoir-volume-removed", "valueQuantity", ML),
    Value("volume_discarded", "reservoir-volume-discarded", "valueQuantity", ML),
    Value("volume_instilled", "reservoir-volume-instilled", "valueQuantity", ML),
    Value("drug.concentration", "drug-concentration", "valueQuantity", UG_PER_ML_QUANTITY),
    Value("drug.lot", "drug-lot", "valueString"),
    Value("drug.expires_on", "drug-expiry", "valueDateTime"),
    Value("low_alarm_volume", "low-reservoir-alarm-volume", "valueQuantity", ML),
    Value("alarm_on", "low-reservoir-alarm-date", "valueDateTime"),
    Value("refill_by", "refill-by", "valueDateTime"),
)
CHANGE_VALUES = (
    Value("after.daily_dose", "pump-daily-dose", "valueQuantity", UG_PER_D),
    Value("before.daily_dose", "pump-daily-dose-before", "valueQuantity", UG_PER_D),
    Value("", "dose-change-percent", "valueQuantity", derived=_percent),
    Value("after.concentration", "drug-concentration", "valueQuantity", UG_PER_ML_QUANTITY),
    Value("before.concentration", "drug-concentration-before", "valueQuantity", UG_PER_ML_QUANTITY),
    Value("after.mode", "infusion-mode", "valueCodeableConcept", MODE),
    Value("before.mode", "infusion-mode-before", "valueCodeableConcept", MODE),
)
KIND = "charted-value"
PLACE = f"identifier[system={sid(KIND)}].value"


def _value_key(code: str) -> Group:
    """(source, id) ⇄ `source.id/code`."""

    def read(found: Json) -> Json:
        value, _, said = str(found.pop(PLACE, "")).rpartition("/")
        pair = split_value(value)
        if pair is None or said != code:
            raise Refused("identifier", f"needs an identifier of {sid(KIND)} of the form source.id/{code}")
        return {"source": pair[0], "id": pair[1]}

    def write(said: Json) -> Json:
        return {PLACE: f"{business_value(said['source'], said['id'])}/{code}"}

    return Group(("source", "id"), (PLACE,), Codec(write, read))


OBSERVED_ROWS = (
    Row("status", "status", OBSERVED_STATUS, required=True),
    THERAPY,
    SUBJECT,
    Row("pump", "focus[0]", PUMP, required=True),
    Row("occurred_at", "effectiveDateTime", required=True),
    Row("performer", "performer[0]", PERSON),
)
OBSERVED = Mapping(Always("resourceType", "Observation"), *OBSERVED_ROWS)
"""What the observations share."""


def _observation(value: Value) -> Mapping:
    said: Row | Derived = Row(value.field, value.element, value.codec, required=True)
    if value.derived is not None:
        said = Derived(value.element, value.derived)
    return Mapping(
        Always("resourceType", "Observation"),
        claim("itb-charted-value"),
        _value_key(value.code),
        *OBSERVED_ROWS,
        Always("code", local(value.code)),
        said,
    )


@dataclass(frozen=True, slots=True)
class Chart:
    """How one event type is charted: its Procedure, and its values with their Observations."""

    kind: str
    procedure: Mapping
    values: tuple[tuple[Value, Mapping], ...]


CHARTS = {
    "refill": Chart("charted-refill", REFILL, tuple((v, _observation(v)) for v in REFILL_VALUES)),
    "dose-change": Chart("charted-dose-change", CHANGE, tuple((v, _observation(v)) for v in CHANGE_VALUES)),
}
"""The event types that have more than a document."""


def encode(
    event: Event, types: Iterable[str] = ("Procedure", "Observation", "DocumentReference")
) -> list[Json]:
    """The charted resources of an event, of the given types only, the document last."""
    wanted, made = set(types), []
    whole = {"status": "final", **event}
    chart = CHARTS.get(event["type"])
    if chart is not None and "Procedure" in wanted:
        made.append(chart.procedure.encode(whole))
    if chart is not None and "Observation" in wanted:
        made += [mapping.encode(whole) for value, mapping in chart.values if _has(event, value)]
        if "Procedure" in wanted:
            part_of = [own("Procedure", chart.kind, business_value(event["source"], event["id"]))]
            made = [
                one | {"partOf": part_of} if one["resourceType"] == "Observation" else one for one in made
            ]
    return [*made, document.encode(event)] if "DocumentReference" in wanted else made


def _has(event: Event, value: Value) -> bool:
    if value.derived is not None:
        return value.derived(event) is not None
    node: Json = event
    for name in value.field.split("."):
        if name not in node:
            return False
        node = node[name]
    return True


def told(type: str, resources: Iterable[Json]) -> Json:
    """What charted resources of an event of this type say without the document: some fields of it.

    A resource that cannot be read says nothing.
    """
    event: Json = {}
    chart = CHARTS.get(type)
    for resource in resources:
        mapping = _mapping_of(chart, resource) if chart else None
        if mapping is not None:
            with suppress(MappingError):
                _merge(event, mapping.read(copy(resource)))
    return event


def _mapping_of(chart: Chart, resource: Json) -> Mapping | None:
    system, value = resource_identity(resource)
    if system == sid(chart.kind):
        return chart.procedure
    code = value.rpartition("/")[2]
    return next((m for v, m in chart.values if system == sid(KIND) and v.code == code), None)


def _merge(into: Json, more: Json) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value
