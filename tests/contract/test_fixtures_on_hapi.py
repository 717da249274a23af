"""Every fixture on a real HAPI: valid by its judgement, and the same after a second posting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import golden
from mappings import chart, from_fhir, identity, load_event
from mappings.exact_json import dumps, loads
from mappings.stream import Converter

STORYLINES = sorted((golden.FIXTURES / "storyline").glob("*.ndjson"))
HEADERS = {
    "Content-Type": "application/fhir+json",
    "Cache-Control": "no-cache",
    "Prefer": "return=representation",
}


def storyline(path: Path) -> Iterator[dict[str, Any]]:
    """The transaction Bundles of a storyline."""
    converter = Converter()
    for line in path.read_bytes().splitlines():
        yield converter.to_fhir(load_event(loads(line)))


def post(hapi: str, bundle: Any) -> Any:
    answer = requests.post(hapi, data=dumps(bundle), headers=HEADERS, timeout=60)
    assert answer.status_code == 200, answer.text
    return loads(answer.content)


def register(hapi: str, bundle: Any) -> None:
    """The EHR registers the patient of a Bundle, once."""
    subjects = [e["resource"].get("subject") or e["resource"].get("patient") for e in bundle["entry"]]
    patient = next(s["identifier"] for s in subjects if s)
    system, value = patient["system"], patient["value"]
    once = {"If-None-Exist": f"identifier={identity.token(system, value)}"}
    body = {"resourceType": "Patient", "identifier": [patient]}
    requests.post(f"{hapi}/Patient", json=body, headers=HEADERS | once, timeout=60).raise_for_status()


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_hapi_finds_no_error_in_a_golden_resource(
    path: Path, hapi_validate: Callable[[Any], list[Any]]
) -> None:
    for entry in golden.bundle(path)["entry"]:
        assert hapi_validate(entry["resource"]) == []


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_hapi_finds_no_error_in_a_chart(path: Path, hapi_validate: Callable[[Any], list[Any]]) -> None:
    for resource in chart.encode(golden.events(path)[-1]):
        assert hapi_validate(resource) == []


@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_hapi_finds_no_error_in_a_storyline(path: Path, hapi_validate: Callable[[Any], list[Any]]) -> None:
    for bundle in storyline(path):
        for entry in bundle["entry"]:
            assert hapi_validate(entry["resource"]) == []


@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_posting_a_storyline_twice_changes_nothing(path: Path, hapi: str) -> None:
    bundles = list(storyline(path))
    register(hapi, bundles[0])
    first = [post(hapi, bundle) for bundle in bundles]
    latest = {}
    for answer in first:
        for entry in answer["entry"]:
            resource = entry["resource"]
            latest[resource["resourceType"], resource["id"]] = resource["meta"]["versionId"]
    for bundle in bundles:
        for entry in post(hapi, bundle)["entry"]:
            resource = entry["resource"]
            assert entry["response"]["status"].startswith("200")
            assert resource["meta"]["versionId"] == latest[resource["resourceType"], resource["id"]]


@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_hapi_gives_every_event_back_digit_for_digit(path: Path, hapi: str) -> None:
    for line, bundle in zip(path.read_bytes().splitlines(), storyline(path), strict=True):
        register(hapi, bundle)
        stored = [{"resource": entry["resource"]} for entry in post(hapi, bundle)["entry"]]
        back = from_fhir({"resourceType": "Bundle", "type": "collection", "entry": stored})
        assert [dumps(event) for event in back] == [line]
