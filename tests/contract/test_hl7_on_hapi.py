"""HL7 v2 messages as FHIR: valid by HAPI's judgement, stored by it, and back from it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden
import strategies
from mappings import identity
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, dump, parse, write
from mappings.hl7v2.fhir import from_fhir, to_fhir
from mappings.stream import Converter

READ = [p for p in golden.HL7 if p.parent.name in ("read", "update")]
WRITTEN = [golden.sibling(p, ".hl7") for p in golden.GOLDEN]
EVENTS = st.one_of(*strategies.EVENTS.values())
HEADERS = {"Content-Type": "application/fhir+json", "Cache-Control": "no-cache"}


@pytest.mark.parametrize("path", READ, ids=lambda p: p.stem)
def test_hapi_finds_no_error_in_the_fhir_of_a_foreign_message(
    path: Path, hapi_validate: Callable[[Any], list[Any]]
) -> None:
    (bundle,) = to_fhir(golden.message(path), golden.sender(), Converter()).bundles
    for entry in bundle["entry"]:
        assert hapi_validate(entry["resource"]) == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_fhir_of_a_message_of_ours_is_that_of_its_event(path: Path) -> None:
    """HAPI judges the golden resources themselves (test_fixtures_on_hapi)."""
    event = golden.events(path.with_name(f"{path.stem}.event.json"))[-1]
    (bundle,) = to_fhir(parse(path.read_bytes()), SenderMap(), Converter()).bundles
    assert dumps(bundle) == dumps(Converter().to_fhir(event))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=15)
@given(EVENTS)
def test_hapi_finds_no_error_in_the_fhir_of_any_message(
    hapi_validate: Callable[[Any], list[Any]], event: dict[str, Any]
) -> None:
    (bundle,) = to_fhir(parse(dump(write(event))), SenderMap(), Converter()).bundles
    for entry in bundle["entry"]:
        assert hapi_validate(entry["resource"]) == []


def test_a_foreign_message_comes_back_from_a_real_server_byte_for_byte(hapi: str) -> None:
    path = golden.FIXTURES / "hl7v2/read/refill-with-route-it.hl7"
    (bundle,) = to_fhir(golden.message(path), golden.sender(), Converter()).bundles
    refill = next(e["resource"] for e in bundle["entry"] if "dosage" in e["resource"])
    patient = refill["subject"]["identifier"]
    once = {"If-None-Exist": f"identifier={identity.token(patient['system'], patient['value'])}"}
    body = {"resourceType": "Patient", "identifier": [patient]}
    requests.post(f"{hapi}/Patient", json=body, headers=HEADERS | once, timeout=60).raise_for_status()
    wanted = HEADERS | {"Prefer": "return=representation"}
    answer = requests.post(hapi, data=dumps(bundle), headers=wanted, timeout=60)
    assert answer.status_code == 200, answer.text
    stored = {"resourceType": "Bundle", "type": "collection", "entry": loads(answer.content)["entry"]}
    found = from_fhir(stored, golden.sender())
    assert found.errors == []
    assert [dump(message) for message in found.messages] == [path.read_bytes()]
