"""Codecs: how one value is written in FHIR, each an inverse pair; and how values are shown to people."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from . import identity
from .codes import PERFORM_FUNCTION, UCUM, sid
from .paths import Json
from .rows import Codec, Refused

UNITS = ("ug", "mg", "ug/d", "ug/h", "ug/mL", "mL", "mL/d", "cm", "mL/cm", "d", "h", "min")
"""UCUM units this project writes; checked with a UCUM parser in the tests."""


def ucum(value: Decimal | int, unit: str) -> Json:
    """A FHIR Quantity in UCUM."""
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def read_ucum(value: Json, unit: str) -> Json:
    """{"value", "unit"} of a FHIR Quantity; Refused when it is not UCUM `unit`, in code and in text."""
    if not isinstance(value, dict) or "value" not in value:
        raise Refused("quantity", f"must be a Quantity in {unit}")
    if value.get("system") != UCUM or value.get("code") != unit:
        raise Refused("unit", f"must be UCUM {unit}, not {value.get('code')!r} of {value.get('system')!r}")
    shown = value.get("unit", unit)
    if shown not in (unit, unit.replace("ug", "mcg")):
        raise Refused("unit", f"the unit's text {shown!r} contradicts its code {unit!r}")
    extra = set(value) - {"value", "unit", "system", "code"}
    if extra:
        raise Refused("quantity", f"{', '.join(sorted(extra))} is not carried")
    number = value["value"]
    if isinstance(number, bool) or not isinstance(number, (int, Decimal)):
        raise Refused("quantity", "its value must be a number")
    return {"value": Decimal(number), "unit": unit}


def quantity(unit: str) -> Codec:
    """A Quantity in one UCUM unit; the Decimal passes through with its digits."""

    def to_fhir(value: Json) -> Json:
        if value["unit"] != unit:
            raise Refused("unit", f"must be {unit}, not {value['unit']}")
        return ucum(value["value"], unit)

    return Codec(to_fhir, lambda value: read_ucum(value, unit), holds={"system": UCUM, "code": unit})


def quantity_in(*units: str) -> Codec:
    """A Quantity in one of several UCUM units, e.g. a duration in h or min."""

    def to_fhir(value: Json) -> Json:
        if value["unit"] not in units:
            raise Refused("unit", f"must be one of {', '.join(units)}, not {value['unit']}")
        return ucum(value["value"], value["unit"])

    def from_fhir(value: Json) -> Json:
        code = value.get("code")
        return read_ucum(value, code if code in units else units[0])

    return Codec(to_fhir, from_fhir, holds={"system": UCUM})


def ratio(numerator: str, denominator: str) -> Codec:
    """`numerator/denominator` as a Ratio over exactly 1 denominator: 2000 ug/mL = 2000 ug : 1 mL."""
    unit = f"{numerator}/{denominator}"

    def to_fhir(value: Json) -> Json:
        if value["unit"] != unit:
            raise Refused("unit", f"must be {unit}, not {value['unit']}")
        return {"numerator": ucum(value["value"], numerator), "denominator": ucum(1, denominator)}

    def from_fhir(value: Json) -> Json:
        below = read_ucum(value["denominator"], denominator)["value"]
        above = read_ucum(value["numerator"], numerator)["value"]
        if below != 1:
            raise Refused("ratio", f"must be per 1 {denominator}, not per {below}")
        return {"value": above, "unit": unit}

    above = {"system": UCUM, "code": numerator}
    return Codec(to_fhir, from_fhir, holds={"numerator": above, "denominator": ucum(1, denominator)})


ML = quantity("mL")
UG = quantity("ug")
MG = quantity("mg")
UG_PER_D = quantity("ug/d")
UG_PER_ML = ratio("ug", "mL")
UG_PER_ML_QUANTITY = quantity("ug/mL")
CM = quantity("cm")
ML_PER_CM = quantity("mL/cm")
TIME_SPAN = quantity_in("h", "min", "d")


def business(kind: str) -> Codec:
    """(source, id) ⇄ the value of our business identifier of this kind, as one `source.id` text."""

    def from_fhir(value: Any) -> Json:
        pair = identity.split_value(value) if isinstance(value, str) else None
        if pair is None:
            raise Refused("identifier", f"is not a {kind} identifier of the form source.id")
        return {"source": pair[0], "id": pair[1]}

    return Codec(lambda key: identity.business_value(key["source"], key["id"]), from_fhir)


def _person_out(person: Json) -> Json:
    actor: Json = {"type": "Practitioner"}
    if "system" in person:
        actor["identifier"] = {"system": person["system"], "value": person["value"]}
    if "name" in person:
        actor["display"] = person["name"]
    return actor


def _person_in(actor: Json) -> Json:
    person: Json = {}
    known = actor.get("identifier") or {}
    if "system" in known and "value" in known:
        person = {"system": known["system"], "value": known["value"]}
    if "display" in actor:
        person["name"] = actor["display"]
    if not person:
        raise Refused("performer", "names nobody: neither a business identifier nor a display")
    return person


PERSON = Codec(_person_out, _person_in)
"""A person as a Reference to a Practitioner by business identifier or name."""


def _function(code: str) -> Json:
    return {"coding": [{"system": PERFORM_FUNCTION, "code": code}]}


def _performers_out(found: Json) -> Json:
    actors = [
        {"function": _function(role), "actor": _person_out(found[field])}
        for field, role in (("performer", "performer"), ("verifier", "verifier"))
        if field in found
    ]
    return {"performer": actors} if actors else {}


def _performers_in(found: Json) -> Json:
    people: Json = {}
    rest = []
    for item in found.get("performer", []):
        role = item.get("function", {}).get("coding", [{}])[0].get("code", "performer")
        actor = item["actor"]
        if role in ("performer", "verifier") and role not in people and set(item) <= {"function", "actor"}:
            people[role] = _person_in(actor)
        else:
            rest.append(item)
    if "performer" in found:
        found["performer"] = rest
    return people


PERFORMERS = Codec(_performers_out, _performers_in)
"""performer and verifier ⇄ `performer[]` with the function code of each (R4 med-admin-perform-function)."""


def own_reference(type: str, kind: str) -> Codec:
    """A business identifier value ⇄ a Reference to our resource of that kind."""

    def from_fhir(reference: Json) -> Json:
        identifier = reference.get("identifier", {})
        if "value" not in identifier or identifier.get("system") != sid(kind):
            raise Refused("reference", f"needs the {kind} identifier of the {type} it points to")
        return identifier["value"]

    return Codec(lambda value: identity.own(type, kind, value), from_fhir)


def _patient_in(reference: Json) -> Json:
    known = reference.get("identifier", {})
    if "system" not in known or "value" not in known:
        raise Refused("patient", "needs a business identifier (system and value) of the patient")
    return {"system": known["system"], "value": known["value"]}


PATIENT = Codec(identity.patient, _patient_in)
PUMP = own_reference("Device", "device")


def shown(value: Decimal | int) -> str:
    """A number as people should read it: no trailing zeros, commas from 1,000 (ISMP)."""
    plain = str(value)
    if len(plain) > 3 or "E" in plain:
        plain = f"{Decimal(value):,f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def shown_quantity(value: Json) -> str:
    """`2,000 mcg/mL`: mcg, never the Greek letter or `ug`, for people (ISMP)."""
    return f"{shown(value['value'])} {_unit_shown(value['unit'])}"


@lru_cache(maxsize=256)
def _unit_shown(unit: str) -> str:
    return unit.replace("ug", "mcg").replace("/d", "/day")
