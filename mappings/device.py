"""A pump or catheter: `Device`, and `DeviceUseStatement` for how long it is or was implanted.

The pump's serial number is its identity, a catheter's is its own serial or else the first record of it.
docs/fhir.md, "Devices".
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import identity
from .codes import UDI_ISSUERS, definition, extension, local, property_of, sid
from .envelope import SERIAL, SERIAL_WORDS, Envelope, Event, Recorded, Strictly, in_order, is_retracted
from .fields import Code, Day, Line, Part, Quantity
from .rows import Always, Codec, Derived, Group, Issue, Json, Mapping, MappingError, Refused, Row
from .shared_rows import SUBJECT, VERSION, key
from .sources import Sources
from .values import CM, ML, ML_PER_CM, PATIENT, PERSON, PUMP, ucum


class UdiSchema(Strictly):
    """Unique Device Identification: the device identifier and the carrier's human-readable text."""

    di = Line(required=True)
    carrier = Line(most=255)


class DeviceSchema(Recorded, Envelope):
    """A pump or catheter as it is recorded at `occurred_at`."""

    kind = Code("pump", "catheter", required=True)
    manufacturer = Line()
    model = Line()
    serial = Line(pattern=SERIAL, words=SERIAL_WORDS)
    lot = Line()
    udi = Part(UdiSchema())
    device_status = Code("active", "inactive")
    implanted_on = Day()
    explanted_on = Day()
    reservoir_capacity = Quantity("mL", above_zero=True)
    implanted_length = Quantity("cm", above_zero=True)
    volume_per_length = Quantity("mL/cm", above_zero=True)
    tip_level = Line()
    parent = Line(pattern=SERIAL, words=SERIAL_WORDS)


SCHEMA = DeviceSchema()

PUMP_ONLY = ("reservoir_capacity",)
CATHETER_ONLY = ("implanted_length", "volume_per_length", "tip_level", "parent")


def issues(event: Event) -> list[Issue]:
    """What is wrong with the event as a whole."""
    kind = event["kind"]
    found = in_order(event, "implanted_on", "explanted_on")
    if kind == "pump" and "serial" not in event:
        found.append(Issue("serial", "required", "is required for a pump"))
    for name in CATHETER_ONLY if kind == "pump" else PUMP_ONLY:
        if name in event:
            found.append(Issue(name, "kind", f"has no place in a {kind}"))
    return found


def device_key(event: Event) -> str:
    """The value of the device's own identifier."""
    return (
        str(event["serial"]) if "serial" in event else identity.business_value(event["source"], event["id"])
    )


def _status_out(found: Json) -> Json:
    if found.get("status") != "entered-in-error":
        return {"status": found["device_status"]} if "device_status" in found else {}
    made = {"status": "entered-in-error"}
    if "device_status" in found:
        made[BEFORE_ERROR] = found["device_status"]
    return made


def _status_in(found: Json) -> Json:
    status = found.pop("status", None)
    if status == "entered-in-error":
        held = found.pop(BEFORE_ERROR, None)
        return {"status": status} | ({"device_status": held} if held else {})
    if status not in (None, "active", "inactive"):
        raise Refused("code", f"unknown code {status!r}; known: active, inactive, entered-in-error")
    return {"device_status": status} if status else {}


BEFORE_ERROR = f"extension[url={definition('itb-status-before-error')}].valueCode"
STATUS = Group(("status", "device_status"), ("status", BEFORE_ERROR), Codec(_status_out, _status_in))


def _issuer(event: Event) -> str | None:
    carrier = event.get("udi", {}).get("carrier", "")
    if carrier.startswith("(01)"):
        return UDI_ISSUERS["gs1"]
    return UDI_ISSUERS["hibcc"] if carrier.startswith("+") else None


def _catheter_volume(event: Event) -> Json:
    """V_cath = implanted_cm * mL_per_cm (docs/clinical.md, "Formulas")."""
    if "implanted_length" not in event or "volume_per_length" not in event:
        return None
    volume: Decimal = event["implanted_length"]["value"] * event["volume_per_length"]["value"]
    return [ucum(volume, "mL")]


def _mapping(kind: str) -> Mapping:
    code = f"itb-{kind}"
    return Mapping(
        Always("resourceType", "Device"),
        VERSION,
        Derived(f"identifier[system={sid('device')}].value", device_key, strict=True),
        key("device-event"),
        Row("udi.di", "udiCarrier[0].deviceIdentifier"),
        Derived("udiCarrier[0].issuer", _issuer),
        Row("udi.carrier", "udiCarrier[0].carrierHRF"),
        STATUS,
        Row("manufacturer", "manufacturer"),
        Row("lot", "lotNumber"),
        Row("serial", "serialNumber"),
        Row("model", "modelNumber"),
        Always("type", local(code)),
        Row("reservoir_capacity", property_of("reservoir-capacity", "valueQuantity[0]"), ML),
        Row("implanted_length", property_of("catheter-length-implanted", "valueQuantity[0]"), CM),
        Row("volume_per_length", property_of("catheter-volume-per-length", "valueQuantity[0]"), ML_PER_CM),
        Derived(property_of("catheter-volume", "valueQuantity"), _catheter_volume, strict=True),
        Row("tip_level", property_of("catheter-tip-level", "valueCode[0].text")),
        Row("patient", "patient", PATIENT, required=True),
        Row("note", "note[0].text"),
        Row("parent", "parent", PUMP),
    )


DEVICE = {"pump": _mapping("pump"), "catheter": _mapping("catheter")}


def _use_status(event: Event) -> str:
    if is_retracted(event):
        return "entered-in-error"
    return "completed" if "explanted_on" in event else "active"


USE = Mapping(
    Always("resourceType", "DeviceUseStatement"),
    Derived(f"identifier[system={sid('device-use')}].value", device_key, strict=True),
    Derived("status", _use_status),
    SUBJECT,
    Row("implanted_on", "timingPeriod.start"),
    Row("explanted_on", "timingPeriod.end"),
    Row("occurred_at", "recordedOn", required=True),
    Row("performer", "source", PERSON),
    Row("verifier", extension("itb-verifier", "valueReference"), PERSON),
    Derived("device", lambda event: identity.own("Device", "device", device_key(event))),
)


MAPPED = (
    ("Device", "", DEVICE["pump"]),
    ("Device", "", DEVICE["catheter"]),
    ("DeviceUseStatement", "", USE),
)
"""(resource, where its values stand in the event, mapping)."""
DERIVED = frozenset({"type", "kind"})
"""Fields that follow from which resource it is."""


def encode(event: Event) -> list[Json]:
    """The Device and its DeviceUseStatement."""
    return [DEVICE[event["kind"]].encode(event), USE.encode(event)]


def is_primary(resource: Json) -> bool:
    """True for a Device that is one of ours, by type code."""
    return resource.get("resourceType") == "Device" and kind_of(resource) is not None


def kind_of(resource: Json) -> str | None:
    """`pump` or `catheter` by the local type code; None for any other device."""
    codings = (resource.get("type") or {}).get("coding", [])
    for kind in ("pump", "catheter"):
        wanted = local(f"itb-{kind}")["coding"][0]
        if any((c.get("system"), c.get("code")) == (wanted["system"], wanted["code"]) for c in codings):
            return kind
    return None


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Device and its DeviceUseStatement, and the residue of both."""
    kind = kind_of(resource)
    assert kind is not None
    use = sources.pointing_at("DeviceUseStatement", "device", resource)
    if use is None:
        why = "no DeviceUseStatement of this device came with it: when its state was recorded is unknown"
        raise MappingError([Issue("DeviceUseStatement", "required", why)])
    event, used = DEVICE[kind].read(resource), USE.read(use)
    if used["patient"] != event["patient"]:
        raise MappingError(
            [Issue("DeviceUseStatement.subject", "P4", "is another patient than Device.patient")]
        )
    event = {"type": "device", "kind": kind, **event, **used}
    DEVICE[kind].check(resource, event)
    USE.check(use, event)
    return event, {"Device": resource, "DeviceUseStatement": use}
