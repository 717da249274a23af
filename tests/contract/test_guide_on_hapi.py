"""The implementation guide on a real HAPI that has installed its package: it loads, and it is enforced."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

import golden
from mappings.codes import LOCAL, definition
from mappings.exact_json import dumps
from mappings.ig.catalogue import PROFILES
from service import guide

DEFINITIONS = guide.definitions()
OFFLINE = "Unable to resolve package id hl7.fhir.r4.core#null"
"""HAPI 8.8 looks up the context of an extension in a package that it would have to download."""
Validate = Callable[[Any], list[Any]]


def examples() -> dict[str, Any]:
    """The fullest golden resource of each profile that is claimed."""
    found: dict[str, Any] = {}
    for resource in golden.resources():
        (claimed,) = resource["meta"]["profile"]
        name = claimed.rsplit("/", 1)[1]
        if len(dumps(resource)) > len(dumps(found.get(name, ""))):
            found[name] = resource
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("one", DEFINITIONS, ids=lambda d: f"{d['resourceType']}/{d['id']}")
def test_a_definition_is_valid(one: Any, hapi_validate: Validate) -> None:
    assert [e["diagnostics"] for e in hapi_validate(one) if OFFLINE not in e["diagnostics"]] == []


def test_the_package_is_installed(hapi: str) -> None:
    for type in ("StructureDefinition", "CodeSystem", "ValueSet", "SearchParameter"):
        for one in (d for d in DEFINITIONS if d["resourceType"] == type):
            found = requests.get(f"{hapi}/{type}", params={"url": one["url"]}, timeout=60).json()
            assert [entry["resource"]["version"] for entry in found["entry"]] == [one["version"]]


def test_every_profile_is_claimed_by_something() -> None:
    contained = {"itb-fill", "itb-fill-lot"}
    assert set(EXAMPLES) == {profile.id for profile in PROFILES} - contained


def broken() -> Iterator[tuple[str, str]]:
    """(profile, element) of every element at the top that the profile requires and R4 does not."""
    for one in DEFINITIONS:
        if one["resourceType"] == "StructureDefinition" and one["id"] in EXAMPLES:
            for element in one["differential"]["element"]:
                name = element["path"].partition(".")[2]
                if element.get("min") == 1 and name and "." not in name and "sliceName" not in element:
                    yield one["id"], name


@pytest.mark.parametrize(("profile", "element"), list(broken()))
def test_a_required_element_is_missed(profile: str, element: str, hapi_validate: Validate) -> None:
    damaged = copy.deepcopy(EXAMPLES[profile])
    names = [key for key in damaged if key == element or key.startswith(element.removesuffix("[x]"))]
    assert names
    for name in names:
        del damaged[name]
    assert hapi_validate(damaged)


def changed(profile: str, change: Callable[[Any], Any]) -> Any:
    damaged = copy.deepcopy(EXAMPLES[profile])
    change(damaged)
    return damaged


def part(resource: Any, name: str) -> Any:
    return next(e for e in resource["extension"] if e["url"] == definition(name))


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a reservoir filled in mg": ("itb-refill", lambda r: r["dosage"]["dose"].update(code="mg", unit="mg")),
    "a refill given into the spine": (
        "itb-refill",
        lambda r: r["dosage"].update(route={"coding": [{"system": "http://snomed.info/sct", "code": "1"}]}),
    ),
    "a fill without a lot": ("itb-refill", lambda r: r["contained"][0]["batch"].pop("lotNumber")),
    "a fill with no strength": ("itb-refill", lambda r: r["contained"][0]["ingredient"][0].pop("strength")),
    "a volume that is a text": (
        "itb-refill",
        lambda r: part(r, "itb-refill-detail")["extension"].__setitem__(
            0, {"url": "volumeExpected", "valueString": "5 mL"}
        ),
    ),
    "a rate an hour": (
        "itb-infusion-segment",
        lambda r: r["dosage"]["rateRatio"]["denominator"].update(code="h", unit="h"),
    ),
    "a mode nobody knows": (
        "itb-therapy-order",
        lambda r: part(r, "itb-infusion-mode")["valueCodeableConcept"].update(
            coding=[{"system": LOCAL, "code": "turbo"}]
        ),
    ),
    "a daily dose in mg": (
        "itb-therapy-order",
        lambda r: part(r, "itb-daily-dose")["valueQuantity"].update(code="mg/d", unit="mg/d"),
    ),
    "an identifier of another system": (
        "itb-alarm",
        lambda r: r["identifier"][0].update(system="http://ehr.invalid/alarms"),
    ),
    "another alarm": (
        "itb-alarm",
        lambda r: r["valueCodeableConcept"].update(coding=[{"system": LOCAL, "code": "itb-pump"}]),
    ),
    "a session that is another procedure": (
        "itb-programming-session",
        lambda r: r["code"].update(coding=[{"system": LOCAL, "code": "implant"}]),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_would_harm_is_refused(what: str, hapi_validate: Validate) -> None:
    profile, change = WRONG[what]
    assert hapi_validate(EXAMPLES[profile]) == []
    assert hapi_validate(changed(profile, change))


def test_the_searches_find_what_they_say(hapi: str) -> None:
    """On records of their own: a pump, a program and its segment, a refill."""
    mark = uuid.uuid4().hex[:8]
    headers = {"Content-Type": "application/fhir+json"}

    def store(profile: str, patch: Callable[[Any], Any]) -> str:
        resource = changed(profile, patch)
        resource = {k: v for k, v in resource.items() if k not in _REFERRING}
        answer = requests.post(
            f"{hapi}/{resource['resourceType']}", dumps(resource), headers=headers, timeout=60
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def found(query: str) -> list[str]:
        fresh = {"Cache-Control": "no-cache"}
        answer = requests.get(f"{hapi}/{query}", headers=fresh, timeout=60)
        assert answer.status_code == 200, answer.text
        return [e["resource"]["id"] for e in answer.json().get("entry", [])]

    def named(resource: Any) -> None:
        resource["identifier"] = [{"system": "urn:test", "value": mark}]

    def refill(resource: Any) -> None:
        named(resource)
        resource["extension"] = [
            {
                "url": definition("itb-refill-detail"),
                "extension": [
                    {"url": "alarmDate", "valueDate": "2031-03-14"},
                    {"url": "refillBy", "valueDate": "2031-03-10"},
                ],
            }
        ]

    def pump_of_its_own(resource: Any) -> None:
        named(resource)
        resource["serialNumber"] = f"NGP{mark}"

    pump = store("itb-pump", pump_of_its_own)
    assert found(f"Device?itb-serial=NGP{mark}") == [pump]
    order = store("itb-therapy-order", named)
    mode = part(EXAMPLES["itb-therapy-order"], "itb-infusion-mode")["valueCodeableConcept"]["coding"][0][
        "code"
    ]
    mine = f"identifier=urn:test|{mark}"
    assert found(f"MedicationRequest?{mine}&itb-infusion-mode={LOCAL}|{mode}") == [order]
    assert found(f"MedicationRequest?{mine}&itb-infusion-mode=stopped") == []
    fill = store("itb-refill", refill)
    assert found(f"MedicationAdministration?{mine}&itb-refill-by=le2031-03-10") == [fill]
    assert found(f"MedicationAdministration?{mine}&itb-refill-by=lt2031-03-10") == []
    assert found(f"MedicationAdministration?{mine}&itb-alarm-date=2031-03-14") == [fill]


_REFERRING = (
    "subject",
    "patient",
    "device",
    "performer",
    "request",
    "recorder",
    "priorPrescription",
    "parent",
)
