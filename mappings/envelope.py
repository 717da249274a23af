"""What every event carries, whatever its type (the envelope), and the marshmallow parts types share."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from marshmallow import RAISE, Schema, ValidationError
from marshmallow.exceptions import SCHEMA

from .fields import Code, Line, Moment, Part, Prose, Quantity, Said, Whole, instant, refuse
from .rows import Issue

Event = dict[str, Any]
"""One event in canonical form: keys in contract order, Decimal values, times as they were written."""

URI = r"[A-Za-z][A-Za-z0-9+.-]*:[^\s|,$\\]+"
SERIAL = r"[^\s|,$\\\x00-\x1f]{1,64}"
SERIAL_WORDS = "must be 1 to 64 characters without spaces or any of | , $ \\"


class Strictly(Schema):
    """A schema whose unknown fields are errors; `load` keeps only the fields that came with a value.

    `load` is marshmallow's for this narrow case, without its hooks: events pass here by the million,
    and the general one costs four times as much (benchmarks/convert.py).
    """

    class Meta:
        unknown = RAISE

    def load(self, data: Any, *, many: bool | None = None, **kwargs: Any) -> Any:
        """The loaded data in the order of the fields; raises marshmallow's `ValidationError`."""
        if many:
            return self._load_list(data)
        errors: dict[str, Any] = {}
        loaded: dict[str, Any] = {}
        for name, field in self.load_fields.items():
            if name not in data:
                if field.required:
                    errors[name] = [Said("required", "is required")]
                continue
            value = data[name]
            if value is None:
                errors[name] = [Said("null", "must not be null")]
                continue
            try:
                loaded[name] = field._deserialize(value, name, data)
            except ValidationError as error:
                errors[name] = error.messages
        for name in data.keys() - self.load_fields.keys():
            errors[str(name)] = [Said("unknown-field", "is not a field of this object")]
        if not errors:
            try:
                self.whole(loaded)
            except ValidationError as error:
                errors[SCHEMA] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded

    def _load_list(self, items: list[Any]) -> list[Any]:
        errors: dict[Any, Any] = {}
        loaded = []
        for index, item in enumerate(items):
            try:
                loaded.append(self.load(item))
            except ValidationError as error:
                errors[index] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded

    def whole(self, data: Any) -> None:
        """Checks over several fields; raises `refuse(...)`."""


class BusinessId(Strictly):
    """`{"system", "value"}`: never a server's id."""

    system = Line(required=True, pattern=URI, words="must be a URI such as http://hospital.example/mrn")
    value = Line(required=True)


class Person(Strictly):
    """A practitioner, by business identifier, name, or both."""

    system = Line(pattern=URI, words="must be a URI such as http://hl7.org/fhir/sid/us-npi")
    value = Line()
    name = Line()

    def whole(self, data: Any) -> None:
        if ("system" in data) != ("value" in data):
            raise refuse("required", "system and value belong together")
        if not data:
            raise refuse("required", "needs a system and value, or a name")


class Bridge(Strictly):
    """A bridge bolus after a concentration change, or why none was needed (docs/clinical.md, "Bridge")."""

    volume = Quantity("mL", above_zero=True)
    duration = Quantity("h", "min", "d", above_zero=True)
    ends_at = Moment()
    not_required = Prose()

    def whole(self, data: Any) -> None:
        if ("volume" in data) == ("not_required" in data):
            raise refuse("bridge", "needs either a volume (with duration and ends_at) or not_required")
        if "not_required" in data and len(data) > 1:
            raise refuse("bridge", "not_required stands alone")


PERSON = Person()
BRIDGE = Bridge()


class Envelope(Strictly):
    """The fields of every event (contract: events)."""

    type = Line(required=True)
    source = Line(required=True, pattern=r"[a-z0-9-]{1,40}", words="must match [a-z0-9-]{1,40}")
    id = Line(required=True)
    version = Whole(1, 2_000_000_000)
    status = Code("final", "entered-in-error")
    patient = Part(BusinessId(), required=True)


class Recorded(Strictly):
    """The rest of the envelope; it stands behind `pump` where a type has one."""

    occurred_at = Moment(required=True)
    performer = Part(PERSON)
    verifier = Part(PERSON)
    note = Prose()


class PumpEnvelope(Envelope):
    """The envelope of an event about one pump."""

    pump = Line(required=True, pattern=SERIAL, words=SERIAL_WORDS)


def identity(event: Event) -> tuple[str, str]:
    """(source, id): who this record is."""
    return event["source"], event["id"]


def version(event: Event) -> int:
    """The sender's version, 1 where it says none."""
    return int(event.get("version", 1))


def is_retracted(event: Event) -> bool:
    """True for `entered-in-error`."""
    return event.get("status") == "entered-in-error"


def pump_of(event: Event) -> str | None:
    """The serial of the pump an event is about: its `pump`, a pump's own serial, a catheter's parent."""
    if "pump" in event:
        return str(event["pump"])
    if event["type"] == "device":
        serial = event.get("serial") if event["kind"] == "pump" else event.get("parent")
        return str(serial) if serial is not None else None
    return None


def lane_key(event: Event) -> str:
    """What must stay in order with this event: its pump, or its patient where there is no pump."""
    pump = pump_of(event)
    if pump is not None:
        return f"pump:{pump}"
    return f"patient:{event['patient']['system']}|{event['patient']['value']}"


def occurred(event: Event) -> datetime:
    """When it happened, aware."""
    return instant(event["occurred_at"])


def in_order(event: Event, earlier: str, later: str) -> list[Issue]:
    """An issue when the time or date `later` lies before `earlier`."""
    if earlier not in event or later not in event:
        return []
    first, second = event[earlier], event[later]
    before = instant(second) < instant(first) if "T" in first else second < first
    return [Issue(later, "order", f"{second} lies before {earlier} {first}")] if before else []


def bridge_issues(event: Event) -> list[Issue]:
    """A bridge ends after the visit that began it."""
    end = event.get("bridge", {}).get("ends_at")
    if end is None or instant(end) >= occurred(event):
        return []
    return [Issue("bridge.ends_at", "order", f"{end} lies before occurred_at {event['occurred_at']}")]
