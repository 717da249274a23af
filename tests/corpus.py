"""Resources for the validator: valid ones of every type we write, and the same with one thing wrong.

Always the same ones (a fixed seed), so that a disagreement with HAPI can be looked at again.
`tests/contract/test_validator_beside_hapi.py` asks both validators about each of them.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

import golden
from mappings import chart, load_event
from mappings.codes import ITB
from mappings.exact_json import dumps, loads
from mappings.hl7v2.fhir import to_fhir
from mappings.r4_table import CHECKED, PATTERNS, table
from mappings.rows import Issue
from mappings.stream import Converter
from r4_cases import CASES
from service.fhir.routes import capability
from service.problems import outcome
from strategies import EVENTS

Json = Any
SEED = 20250505
EVENTS_OF_A_TYPE = 26
PATIENTS = 40
LEAST = 8
"""Cases of each kind, where there are so many."""


@dataclass(frozen=True)
class Case:
    """A resource, where it comes from, and what was done to it (`kind`)."""

    kind: str
    name: str
    resource: Json
    rank: int = 0


# --- valid ------------------------------------------------------------------------------------------------


@cache
def valid() -> list[Case]:
    """Distinct resources that are valid R4: generated events, golden files, storylines, patients."""
    found: dict[bytes, Case] = {}
    for case in [
        *_golden(),
        *_storylines(),
        *_generated(),
        *_patients(),
        *_ours(),
        *_carried(),
        *_put_right(),
    ]:
        plain = replace(case, resource=_unclaimed(case.resource))
        found.setdefault(dumps(plain.resource), plain)
    return list(found.values())


def _unclaimed(resource: Json) -> Json:
    """Without claims of our profiles: both judge it by R4 alone. The guide has its own test."""
    if resource["resourceType"] == "Bundle":
        entries = [
            e | {"resource": _unclaimed(e["resource"])} for e in resource.get("entry", ()) if "resource" in e
        ]
        return resource | ({"entry": entries} if len(entries) == len(resource.get("entry", "x")) else {})
    meta = {name: value for name, value in resource.get("meta", {}).items() if name != "profile"}
    bare = {name: value for name, value in resource.items() if name != "meta"}
    return bare | ({"meta": meta} if meta else {})


def _of_bundle(kind: str, name: str, bundle: Json) -> Iterator[Case]:
    yield Case(kind, f"{name} Bundle", bundle)
    for number, entry in enumerate(bundle["entry"]):
        yield Case(kind, f"{name} {number} {entry['resource']['resourceType']}", entry["resource"])


def _golden() -> Iterator[Case]:
    for path in golden.GOLDEN:
        yield from list(_of_bundle("golden", golden.case(path), golden.bundle(path)))[1:]
    for path in golden.CHARTED:
        for number, resource in enumerate(chart.encode(golden.events(path)[-1])):
            yield Case("golden", f"{golden.case(path)} chart {number}", resource)


def _storylines() -> Iterator[Case]:
    for path in sorted((golden.FIXTURES / "storyline").glob("*.ndjson")):
        converter = Converter()
        for number, line in enumerate(path.read_bytes().splitlines()):
            bundle = converter.to_fhir(load_event(loads(line)))
            yield from list(_of_bundle("storyline", f"{path.stem} {number}", bundle))[1:]


def _generated() -> Iterator[Case]:
    """Whole Bundles and Provenances of the first events of each type: they are much alike."""
    for type, strategy in EVENTS.items():
        for number, event in enumerate(_drawn(strategy, EVENTS_OF_A_TYPE)):
            for case in _of_bundle("generated", f"{type} {number}", Converter().to_fhir(event)):
                alike = case.resource["resourceType"] in ("Bundle", "Provenance")
                if number < (2 if case.resource["resourceType"] == "Bundle" else 8) or not alike:
                    yield case


def _drawn(strategy: Any, count: int) -> list[Json]:
    """The first values that hypothesis draws from this seed."""
    values: list[Json] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Json) -> None:
        values.append(value)

    collect()
    return values


def _patients() -> Iterator[Case]:
    chance = random.Random(SEED)
    for number in range(PATIENTS):
        yield Case("patient", f"patient {number}", _patient(number, chance))


def _patient(number: int, chance: random.Random) -> Json:
    """What an EHR may hold of a patient."""
    name = {"family": f"Åberg-{number}", "given": ["Mia", "Z."], "use": "official"}
    more: Json = {
        "active": chance.random() < 0.5,
        "name": [name, {"text": "Mimi", "use": "nickname", "period": {"end": "2020-05"}}],
        "telecom": [{"system": "phone", "value": "+1 555 0100", "use": "home", "rank": 1}],
        "gender": chance.choice(["male", "female", "other", "unknown"]),
        "birthDate": chance.choice(["2016", "2016-02", "2016-02-29"]),
        "address": [{"line": ["1 Main St"], "city": "Houston", "country": "US", "type": "both"}],
        "maritalStatus": {"text": "never married"},
        "multipleBirthInteger": 2,
        "contact": [
            {"relationship": [{"text": "mother"}], "name": {"text": "A. Mother"}, "gender": "female"}
        ],
        "communication": [
            {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "en"}]}, "preferred": True}
        ],
        "generalPractitioner": [{"display": "Dr Lind"}],
        "managingOrganization": {"reference": "Organization/1"},
        "link": [{"other": {"reference": f"Patient/{number}"}, "type": "seealso"}],
        "deceasedBoolean": False,
        "meta": {"lastUpdated": "2025-05-05T10:00:00.120-05:00", "versionId": "3", "source": "urn:x:ehr"},
        "language": "en-US",
        "_birthDate": {
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime",
                    "valueDateTime": "2016-02-29T10:00:00Z",
                }
            ]
        },
    }
    chosen = {key: more[key] for key in more if chance.random() < 0.6}
    identifier = {"system": "http://hospital.invalid/mrn", "value": f"MRN{number:03}", "use": "usual"}
    return {"resourceType": "Patient", "id": f"p-{number}", "identifier": [identifier], **chosen}


def _ours() -> Iterator[Case]:
    """What the service answers with."""
    yield Case("service", "capability", capability("2025-05-05T10:00:00Z"))
    for severity, code in (
        ("error", "invalid"),
        ("warning", "business-rule"),
        ("information", "informational"),
    ):
        made = outcome(
            [Issue("Patient.name", "format", "is not a name"), Issue("$", "x", "y")], code, severity
        )
        yield Case("service", f"outcome {severity}", made)


def _carried() -> Iterator[Case]:
    """What messages of other systems become, the message itself among it."""
    for path in golden.HL7:
        if path.parent.name in ("read", "update"):
            for bundle in to_fhir(golden.message(path), golden.sender(), Converter()).bundles:
                yield from _of_bundle("hl7", path.stem, bundle)


def _put_right() -> Iterator[Case]:
    for rule, (_, right) in CASES.items():
        yield Case("put right", rule, {key: value for key, value in right.items() if value is not None})


# --- where things stand ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """One value in a resource: `holder[key]`, or one item of that list; `kind` is its R4 type."""

    holder: Json
    key: str
    index: int | None
    kind: str
    element: str
    definition: Json
    parent: str

    @property
    def value(self) -> Json:
        found = self.holder[self.key]
        return found if self.index is None else found[self.index]

    def put(self, value: Json) -> None:
        if self.index is None:
            self.holder[self.key] = value
        else:
            self.holder[self.key][self.index] = value


def elements(type: str) -> dict[str, tuple[str, str, Json]]:
    """The JSON names of a type's elements: (R4 type, element, definition)."""
    found = {}
    for name, definition in table()["types"][type].items():
        if not name.endswith("[x]"):
            found[name] = (definition["types"][0], name, definition)
            continue
        for kind in definition["types"]:
            shown = "Quantity" if kind == "SimpleQuantity" else kind
            found[name[:-3] + shown[0].upper() + shown[1:]] = (kind, name, definition)
    return found


def places(node: Json, type: str | None = None) -> Iterator[Place]:
    """Every value whose type is known, outermost first; a resource's own `resourceType` is none."""
    name = type or node["resourceType"]
    if name == "Resource":
        name = node["resourceType"]
    if name not in table()["types"]:
        return
    known = elements(name)
    for key, value in list(node.items()):
        if key not in known:
            continue
        kind, element, definition = known[key]
        for index, item in enumerate(value) if definition.get("many") else [(None, value)]:
            yield Place(node, key, index, kind, element, definition, name)
            if isinstance(item, dict):
                yield from places(item, kind)


# --- valid in another way ---------------------------------------------------------------------------------


def _extended(place: Place, chance: Chance) -> None:
    place.value.setdefault("extension", []).append({"url": "http://x.invalid/e", "valueString": "theirs"})


def _another_coding(place: Place, chance: Chance) -> None:
    place.value["coding"].append({"system": "http://x.invalid/codes", "code": "77"})


def _trailing_zero(value: Json) -> Json:
    return Decimal(f"{value}0") if "." in str(value) else Decimal(f"{value}.0")


VARIES: dict[str, tuple[Wants, Damage]] = {}
"""What may stand in a resource and makes it no less valid; filled below, as `BREAKS` is."""


def varied(whole: list[Case], each: int = 1) -> list[Case]:
    """Valid resources with something harmless done to them."""
    return _all(VARIES, whole, each)


# --- broken ---------------------------------------------------------------------------------------------

TEXTS = frozenset(PATTERNS) - {"xhtml"}
NUMBERS = frozenset({"decimal", "integer", "positiveInt", "unsignedInt"})
PRIMITIVES = frozenset({*PATTERNS, *NUMBERS, "boolean"})
Chance = random.Random
Wants = Callable[[Place], bool]
Damage = Callable[[Place, Chance], None]


def _codes(place: Place) -> list[str] | None:
    found: list[str] | None = table()["codes"].get(place.definition.get("codes"))
    return found


def _gone(place: Place, chance: Chance) -> None:
    del place.holder[place.key]


def _put(*values: Json) -> Damage:
    return lambda place, chance: place.put(copy.deepcopy(chance.choice(values)))


def _with(**more: Json) -> Damage:
    def damage(place: Place, chance: Chance) -> None:
        place.value.update(copy.deepcopy(more))

    return damage


def _without(*names: str) -> Damage:
    def damage(place: Place, chance: Chance) -> None:
        for name in names:
            place.value.pop(name, None)

    return damage


def _second_choice(place: Place, chance: Chance) -> None:
    """Another of the types that the element may have, beside the one it has."""
    samples = {
        "string": "x",
        "boolean": True,
        "dateTime": "2025-01-01",
        "CodeableConcept": {"text": "x"},
        "Period": {"start": "2025-01-01"},
        "Reference": {"display": "x"},
        "Quantity": {"value": 1},
        "SimpleQuantity": {"value": 1},
        "integer": 1,
        "positiveInt": 1,
        "Ratio": {"numerator": {"value": 1}, "denominator": {"value": 1}},
        "Range": {"low": {"value": 1}},
        "Timing": {"code": {"text": "x"}},
        "Age": {"value": 1, "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"},
        "date": "2025-01-01",
        "code": "x",
    }
    for name, (kind, element, _) in elements(place.parent).items():
        if element == place.element and name != place.key and kind in samples:
            place.holder[name] = samples[kind]
            return
    raise LookupError("no second")


def _is(*kinds: str) -> Wants:
    return lambda place: place.kind in kinds


_TYPES = frozenset(CHECKED)


def _locates(place: Place) -> bool:
    """A string that is a code or a place, where other words would be wrong."""
    return place.parent in ("Reference", "Identifier") or place.key in (
        "fullUrl",
        "ifNoneExist",
        "url",
        "expression",
    )


def _has(kind: str, *names: str) -> Wants:
    return lambda p: p.kind == kind and isinstance(p.value, dict) and all(name in p.value for name in names)


def _wrong_target(place: Place, chance: Chance) -> str:
    return chance.choice(
        [t for t in ("Location", "Medication", "Patient", "Flag") if t not in _targets(place)]
    )


def _targets(place: Place) -> list[str]:
    found: list[str] = place.definition.get("targets", [])
    return found


def _aim_literally(place: Place, chance: Chance) -> None:
    place.put({"reference": f"{_wrong_target(place, chance)}/1"})


def _aim_by_type(place: Place, chance: Chance) -> None:
    place.put({"type": _wrong_target(place, chance), "display": "x"})


def _renamed(change: Callable[[str], str]) -> Damage:
    def damage(place: Place, chance: Chance) -> None:
        place.holder[change(place.key)] = place.holder.pop(place.key)

    return damage


def _duplicated(place: Place, chance: Chance) -> None:
    place.holder[place.key].append(copy.deepcopy(place.value))


def _changed(change: Callable[[Json], Json]) -> Damage:
    return lambda place, chance: place.put(change(place.value))


def _swapped(place: Place, chance: Chance) -> None:
    place.value.update({"start": "2025-02-02", "end": "2025-02-01"})


def _unpointed(place: Place, chance: Chance) -> None:
    place.holder[place.key].append({"resourceType": "Patient", "id": "nobody", "active": True})


def _sibling(value: Json) -> Damage:
    def damage(place: Place, chance: Chance) -> None:
        place.holder[f"_{place.key}"] = [value] if place.index is not None else value

    return damage


def _root(**more: Json) -> Damage:
    """Something wrong with the resource itself: `place` is any of its own elements."""

    def damage(place: Place, chance: Chance) -> None:
        place.holder.update(copy.deepcopy(more))

    return damage


def _top(type: str | None = None) -> Wants:
    return lambda p: p.parent == (type or p.parent) and p.holder.get("resourceType") == p.parent


HL7 = "http://hl7.org/fhir/StructureDefinition"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
DAYS = ("date", "dateTime", "instant")
NONSENSE_DAYS = (
    "2025-02-30",
    "2025-13-01",
    "2025-1-1",
    "25-01-01",
    "0000-01-01",
    "yesterday",
    "2025-01-01T10:00:00",
    "2025-01-01T25:00:00Z",
    "2025-01-01T10:00Z",
    "2025-01-01 10:00:00Z",
    "2025-01-01T10:00:00+15:00",
    "2025-01-01T10:00:00,5Z",
    "20250101",
    "2025-02-29",
    "2025-04-31T10:00:00Z",
)
OTHER_UNITS = ("furlong", "mcg", "ug/day", "cc/h")

BREAKS: dict[str, tuple[Wants, Damage]] = {
    # cardinality
    "required element gone": (lambda p: p.definition.get("min", 0) > 0, _gone),
    "one for a list": (lambda p: p.index is not None, lambda p, _: p.holder.update({p.key: p.value})),
    "list for one": (lambda p: p.index is None, lambda p, _: p.put([p.value])),
    "empty list": (lambda p: p.index is not None, lambda p, _: p.holder.update({p.key: []})),
    "null": (lambda p: p.index is None, _put(None)),
    "null in a list": (lambda p: p.index is not None, lambda p, _: p.put(None)),
    "empty object": (lambda p: p.kind not in PRIMITIVES, _put({})),
    "two of a choice": (lambda p: p.element.endswith("[x]"), _second_choice),
    # types
    "number for text": (lambda p: p.kind in TEXTS, _put(3, Decimal("1.5"))),
    "boolean for text": (lambda p: p.kind in TEXTS, _put(True)),
    "object for text": (lambda p: p.kind in TEXTS, _put({"value": "x"})),
    "text for a number": (_is(*NUMBERS), _changed(str)),
    "text for a boolean": (_is("boolean"), _put("true", "false")),
    "text for an object": (lambda p: p.kind not in PRIMITIVES and p.kind != "Resource", _put("x")),
    "number for an object": (lambda p: p.kind not in PRIMITIVES, _put(7)),
    "fraction for a whole number": (_is("integer", "positiveInt", "unsignedInt"), _put(Decimal("1.5"))),
    "below the least number": (_is("positiveInt", "unsignedInt"), _put(-1, -7)),
    "beyond 32 bits": (_is("integer", "positiveInt", "unsignedInt"), _put(2**31, 10**12)),
    # formats
    "no such day or time": (_is(*DAYS), _put(*NONSENSE_DAYS)),
    "date for an instant": (_is("instant"), _put("2025-01-01", "2025-01-01T10:00Z")),
    "no such time": (_is("time"), _put("25:00:00", "10:00", "noon", "10:00:00Z")),
    "bad id": (_is("id"), _put("a b", "x" * 65, "a_b", "ä", "a/b")),
    "id added that is none": (_top(), _root(id="no id")),
    "empty text": (lambda p: p.kind in TEXTS, _put("")),
    "blank code or uri": (_is("code", "uri", "url", "canonical"), _put(" ", "\t")),
    "space in a uri": (_is("uri", "url", "canonical"), _put("http://x.invalid/a b", "urn:x: y")),
    "spaces around a code": (_is("code"), _changed(lambda v: f" {v} ")),
    "two spaces in a code": (_is("code"), _put("a  b")),
    "relative system of an identifier": (_has("Identifier", "system"), _with(system="mrn")),
    "relative system of a coding": (_has("Coding", "system"), _with(system="local-codes")),
    "relative canonical": (_is("canonical"), _put("StructureDefinition/x")),
    "oid that is none": (_has("Identifier", "system"), _with(system="urn:oid:2.16.840.01.x")),
    "oid that is short": (_has("Identifier", "system"), _with(system="urn:oid:1.2.840")),
    "uuid that is none": (_has("Identifier", "system"), _with(system="urn:uuid:53FEFA32-FCBB-4FF8-8A92")),
    "reference with a space": (_has("Reference", "reference"), _with(reference="Patient/a b")),
    # codes
    "code outside a required binding": (
        lambda p: p.kind == "code" and _codes(p) is not None,
        _put("nonsense"),
    ),
    "code in capitals": (
        lambda p: p.kind == "code" and _codes(p) is not None and not p.value.isupper(),
        _changed(str.upper),
    ),
    "concept outside a required binding": (
        lambda p: p.kind == "CodeableConcept" and _codes(p) is not None,
        _put({"coding": [{"system": f"{TERMINOLOGY}/condition-clinical", "code": "unwell"}]}, {"text": "x"}),
    ),
    "code that its HL7 system does not have": (
        _is("Coding"),
        _put({"system": f"{TERMINOLOGY}/v3-ParticipationType", "code": "NOBODY"}),
    ),
    "coding without a code": (_has("Coding", "code"), _without("code")),
    "coding without a system": (_has("Coding", "system"), _without("system")),
    "unit that UCUM does not have": (
        _has("Quantity", "code", "system"),
        lambda p, c: p.value.update(code=c.choice(OTHER_UNITS)),
    ),
    "language that is none": (_top(), _root(language="not a language")),
    # references
    "reference to another type": (lambda p: bool(_targets(p)), _aim_literally),
    "reference of another type": (lambda p: bool(_targets(p)), _aim_by_type),
    "reference to what R4 does not have": (_is("Reference"), _with(type="Pump")),
    "reference that says another type": (
        _is("Reference"),
        lambda p, _: p.put({"reference": "Basic/1", "type": "Patient"}),
    ),
    "reference to nothing contained": (_is("Reference"), lambda p, _: p.put({"reference": "#nowhere"})),
    # elements
    "unknown element": (lambda p: True, _root(colour="red")),
    "unknown element of an object": (
        lambda p: isinstance(p.value, dict) and p.kind != "Resource",
        _with(colour="red"),
    ),
    "element of another type": (_top(), _root(bloodGroup="A", masterIdentifier={"value": "x"})),
    "element in capitals": (lambda p: True, _renamed(str.capitalize)),
    "element misspelt": (lambda p: len(p.key) > 3, _renamed(lambda key: key[:-1])),
    "sibling of nothing": (_top(), _root(_colour={"id": "x"})),
    "sibling with a value": (lambda p: p.kind in PRIMITIVES, _sibling({"value": "x"})),
    "sibling of an object": (lambda p: p.kind not in PRIMITIVES, _sibling({"id": "x"})),
    "empty sibling": (lambda p: p.kind in PRIMITIVES, _sibling({})),
    "unknown resource type": (_top(), _root(resourceType="Pump")),
    "resource type in small letters": (_top(), lambda p, _: p.holder.update(resourceType=p.parent.lower())),
    "no resource type": (_top(), lambda p, _: p.holder.pop("resourceType")),
    # invariants
    "qty-3": (_has("Quantity", "code", "system"), _without("system")),
    "rat-1": (_has("Ratio", "denominator"), _without("denominator")),
    "per-1": (_is("Period"), _swapped),
    "ext-1 both": (
        _has("Extension", "url"),
        _with(valueString="x", extension=[{"url": "x", "valueCode": "y"}]),
    ),
    "ext-1 neither": (_is("Extension"), lambda p, _: p.put({"url": p.value["url"]})),
    "mad-1": (_has("MedicationAdministration.dosage", "dose"), _without("dose", "rateRatio", "rateQuantity")),
    "obs-6": (
        lambda p: _top("Observation")(p) and any(k.startswith("value") for k in p.holder),
        _root(dataAbsentReason={"text": "x"}),
    ),
    "con-4": (
        _top("Condition"),
        _root(
            abatementDateTime="2025-01-01",
            clinicalStatus={"coding": [{"system": f"{TERMINOLOGY}/condition-clinical", "code": "active"}]},
        ),
    ),
    "app-2": (_has("Appointment", "start"), _without("end")),
    "app-4": (_top("Appointment"), _root(status="booked", cancelationReason={"text": "x"})),
    "inv-1": (_top("Task"), _root(authoredOn="2025-01-02T00:00:00Z", lastModified="2025-01-01T00:00:00Z")),
    "gol-1": (_top("Goal"), _root(target=[{"detailString": "x"}])),
    "ctm-1": (
        _top("CareTeam"),
        _root(participant=[{"member": {"reference": "Patient/1"}, "onBehalfOf": {"display": "x"}}]),
    ),
    "tim-1": (lambda p: _is("Timing.repeat")(p) and "durationUnit" not in p.value, _with(duration=1)),
    "tim-4": (_is("Timing.repeat"), _with(duration=-1, durationUnit="h")),
    "tim-9": (_is("Timing.repeat"), _with(offset=10, when=["C"])),
    "tim-10": (_is("Timing.repeat"), _with(timeOfDay=["06:00:00"], when=["AC"])),
    "cpt-2": (_has("ContactPoint", "system"), _without("system")),
    "dom-3": (lambda p: p.key == "contained", _unpointed),
    "dom-4": (lambda p: p.key == "contained", _with(meta={"versionId": "1"})),
    "dom-5": (lambda p: p.key == "contained", _with(meta={"security": [{"system": "urn:x:y", "code": "x"}]})),
    "contained twice": (lambda p: p.key == "contained", _duplicated),
    # beyond shape
    "narrative with a script": (
        _top(),
        _root(
            text={
                "status": "generated",
                "div": '<div xmlns="http://www.w3.org/1999/xhtml"><script>x</script></div>',
            }
        ),
    ),
    "empty narrative": (
        _top(),
        _root(text={"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"> </div>'}),
    ),
    "narrative that is no xhtml": (_top(), _root(text={"status": "generated", "div": "<p>x"})),
    "profile that nobody knows": (_top(), _root(meta={"profile": [f"{HL7}/nobody-knows"]})),
    "HL7 extension that is none": (
        _top(),
        lambda p, _: p.holder.setdefault("extension", []).append(
            {"url": f"{HL7}/nobody-knows", "valueCode": "x"}
        ),
    ),
    "HL7 extension with another value": (
        _top(),
        lambda p, _: p.holder.setdefault("extension", []).append(
            {"url": f"{HL7}/data-absent-reason", "valueString": "unknown"}
        ),
    ),
    "unknown coding beside a required one": (
        lambda p: _has("CodeableConcept", "coding")(p) and _codes(p) is not None,
        _another_coding,
    ),
    "base64 that is none": (
        _top(),
        lambda p, _: p.holder.setdefault("extension", []).append(
            {"url": "http://x.invalid/e", "valueBase64Binary": "a"}
        ),
    ),
}
"""What is done to a resource: (where it can be done, how). Each kind is a row of the test's report."""


VARIES |= {
    "extension of theirs": (lambda p: p.kind not in {*PRIMITIVES, "Resource", "Extension"}, _extended),
    "extension of a primitive": (
        lambda p: p.kind in PRIMITIVES and p.index is None and f"_{p.key}" not in p.holder,
        _sibling({"extension": [{"url": "http://x.invalid/e", "valueCode": "x"}]}),
    ),
    "id of an element": (
        lambda p: p.kind not in PRIMITIVES and p.kind != "Resource",
        lambda p, _: p.value.setdefault("id", "e1"),
    ),
    "blank string": (lambda p: _is("string", "markdown")(p) and not _locates(p), _put(" ", "\t")),
    "string in many scripts": (
        lambda p: _is("string", "markdown")(p) and not _locates(p),
        _put("\u0416\u00e9\u4e2d\U0001f9e0 \u200f\u05d0", "a\u00a0b", "two\nlines", "<b>&amp;"),
    ),
    "trailing zero": (lambda p: p.kind == "decimal" and p.parent != "Count", _changed(_trailing_zero)),
    "year alone": (
        # mdd-1: HAPI fails a rule that compares a year with a day; R4 does not say which comes first
        lambda p: _is("date", "dateTime")(p) and p.parent != "MedicationDispense",
        lambda p, _: None if p.parent == "Period" else p.put("2025"),
    ),
    "leap second": (
        lambda p: (
            _is("dateTime")(p) and p.parent not in ("Period", "Task", "Appointment", "MedicationDispense")
        ),
        _put("2016-12-31T23:59:60Z", "2025-05-05T10:00:00.123456789+14:00"),
    ),
    "another coding": (
        lambda p: _has("CodeableConcept", "coding")(p) and p.parent != "Extension" and _codes(p) is None,
        _another_coding,
    ),
    "language": (_top(), _root(language="de-AT")),
    "narrative": (
        lambda p: _top()(p) and "text" in table()["types"][p.parent],  # no Bundle, no Binary
        _root(
            text={"status": "additional", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><p>x</p></div>'}
        ),
    ),
    "meta": (
        lambda p: _top()(p) and "meta" not in p.holder,
        _root(
            meta={"versionId": "7", "lastUpdated": "2025-05-05T10:00:00.120-05:00", "tag": [{"code": "x"}]}
        ),
    ),
    "literal reference": (
        lambda p: p.kind == "Reference" and len(_targets(p)) > 0,
        lambda p, _: p.put({"reference": f"https://x.invalid/fhir/{_targets(p)[0]}/1/_history/2"}),
    ),
    "logical reference": (
        lambda p: _is("Reference")(p) and not p.value.get("reference", "").startswith("#"),
        _put({"identifier": {"value": "1", "assigner": {"display": "x"}}}, {"display": "somebody"}),
    ),
    "absent for a reason": (
        lambda p: p.kind in ("dateTime", "string") and p.index is None and p.parent in _TYPES,
        lambda p, _: p.holder.update(
            {
                f"_{p.key}": {
                    "extension": [
                        {"url": f"{HL7}/data-absent-reason", "valueCode": p.holder.pop(p.key) and "masked"}
                    ]
                }
            }
        ),
    ),
    "keys in another order": (
        lambda p: isinstance(p.value, dict) and len(p.value) > 1,
        lambda p, _: p.put(dict(reversed(p.value.items()))),
    ),
}


def broken(whole: list[Case], each: int = 1) -> list[Case]:
    """Resources of every type with every kind of damage that they can have, and each broken invariant."""
    wrong = [
        Case(f"rule {rule}", rule, {k: v for k, v in pair[0].items() if v is not None})
        for rule, pair in CASES.items()
    ]
    return _all(BREAKS, whole, each) + wrong


def _all(kinds: dict[str, tuple[Wants, Damage]], whole: list[Case], each: int) -> list[Case]:
    """For every kind and resource type `each` cases; more where few types can have it."""
    known = {dumps(case.resource) for case in whole}
    by_type: dict[str, list[Case]] = {}
    for case in whole:
        by_type.setdefault(case.resource["resourceType"], []).append(case)
    found = []
    for kind, (wants, damage) in kinds.items():
        made: list[Case] = []
        for type, cases in sorted(by_type.items()):
            some = _damaged(kind, cases, wants, damage, random.Random(f"{SEED} {kind} {type}"))
            made += [case for case in islice(some, 4 * each) if dumps(case.resource) not in known]
        made.sort(key=lambda case: case.rank)
        found += made[: max(LEAST, sum(case.rank < each for case in made))]
    return found


def _of_nobody(resource: Json) -> Json:
    """A copy that claims no profile and has extensions and codes that no guide knows: R4 alone judges it."""
    text = dumps(resource).replace(f'"{ITB}/'.encode(), b'"http://x.invalid/itb/')
    made = loads(text)
    for one in [made, *(entry.get("resource", {}) for entry in made.get("entry", []))]:
        meta = one.get("meta", {})
        if meta.pop("profile", None) and not meta:
            del one["meta"]
    return made


def _damaged(kind: str, cases: list[Case], wants: Wants, damage: Damage, chance: Chance) -> Iterator[Case]:
    rank = 0
    for case in chance.sample(cases, min(len(cases), 16)):
        resource = _of_nobody(case.resource)
        fitting = [place for place in places(resource) if wants(place)]
        if not fitting:
            continue
        place = chance.choice(fitting)
        try:
            damage(place, chance)
        except LookupError:
            continue
        yield Case(kind, f"{case.name} {place.parent}.{place.key}", resource, rank)
        rank += 1
