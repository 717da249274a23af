"""A pump or catheter: `Device`, and `DeviceUseStatement` for how long it is or was implanted.

The pump's serial number is its identity, a catheter's is its own serial or else the first record of it.
docs/fhir.md, "Devices".
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import identity
from .codes import UDI_ISSUERS, local, property_of, sid
from .envelope import SERIAL, SERIAL_WORDS, Envelope, Event, Recorded, Strictly, in_order
from .fields import Code, Day, Line, Part, Quantity
from .paths import Json
from .rows import Always, Derived, Issue, Mapping, MappingError, Row
from .shared_rows import SUBJECT, VERIFIER, VERSION, claim, event_status, key, status_of
from .sources import Sources
from .telling import Telling
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


STATUS = status_of("device_status", {"active": "active", "inactive": "inactive"})


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
        claim(code),
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
    return event_status(event, "completed" if "explanted_on" in event else "active")


USE = Mapping(
    Always("resourceType", "DeviceUseStatement"),
    claim("itb-device-use"),
    Derived(f"identifier[system={sid('device-use')}].value", device_key, strict=True),
    Derived("status", _use_status),
    SUBJECT,
    Row("implanted_on", "timingPeriod.start"),
    Row("explanted_on", "timingPeriod.end"),
    Row("occurred_at", "recordedOn", required=True),
    Row("performer", "source", PERSON),
    VERIFIER,
    Derived("device", lambda event: identity.own("Device", "device", device_key(event))),
)


TELLS = tuple(Telling("Device", "device-event", "type", (f"itb-{kind}",)) for kind in DEVICE)
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


def decode(resource: Json, sources: Sources) -> tuple[Any, Json]:
    """The event of a Device and its DeviceUseStatement, and the residue of both."""
    kind = next(kind for kind, telling in zip(DEVICE, TELLS, strict=True) if telling.tells(resource))
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
