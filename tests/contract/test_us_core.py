"""What is written is also what US Core 9 asks of such a resource, on a real HAPI (fixtures/us-core)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

import golden
from mappings.exact_json import dumps

PROFILES = {p["id"]: p for p in json.loads((golden.FIXTURES / "us-core/profiles.json").read_text())}
HEADERS = {"Content-Type": "application/fhir+json"}
SURVEYS = ("itb-assessment", "itb-score")


def wanted(resource: Any) -> str | None:
    """The US Core profile that there is for such a resource."""
    type = resource["resourceType"]
    if type == "Observation":
        (claimed,) = resource["meta"]["profile"]
        survey = claimed.endswith(SURVEYS)
        return "us-core-observation-screening-assessment" if survey else "us-core-simple-observation"
    return next((id for id, profile in PROFILES.items() if profile["type"] == type), None)


def errors(us_core: str, resource: Any, id: str) -> list[str]:
    answer = requests.post(
        f"{us_core}/{resource['resourceType']}/$validate",
        data=dumps(resource),
        params={"profile": PROFILES[id]["url"]},
        headers=HEADERS,
        timeout=60,
    )
    return [i["diagnostics"] for i in answer.json()["issue"] if i["severity"] in ("error", "fatal")]


@pytest.fixture(scope="module")
def us_core(hapi: str) -> str:
    """A HAPI that knows the profiles."""
    for id, profile in PROFILES.items():
        answer = requests.put(f"{hapi}/StructureDefinition/{id}", json=profile, headers=HEADERS, timeout=60)
        assert answer.status_code in (200, 201), answer.text
    return hapi


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_a_golden_resource_is_what_us_core_asks_for(path: Path, us_core: str) -> None:
    for entry in golden.bundle(path)["entry"]:
        id = wanted(entry["resource"])
        if id is not None:
            assert errors(us_core, entry["resource"], id) == [], id


def test_every_profile_is_met_by_something_and_can_be_missed(us_core: str) -> None:
    met = {}
    for path in golden.GOLDEN:
        for entry in golden.bundle(path)["entry"]:
            met[wanted(entry["resource"])] = entry["resource"]
    assert set(met) == {*PROFILES, None}
    for id, element in (
        ("us-core-simple-observation", "category"),
        ("us-core-observation-screening-assessment", "category"),
        ("us-core-medicationrequest", "requester"),
        ("us-core-procedure", "code"),
        ("us-core-device", "type"),
    ):
        assert errors(us_core, {k: v for k, v in met[id].items() if k != element}, id)
