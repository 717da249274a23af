"""/fhir: what the ledger holds, read and searched as FHIR R4."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

import golden
from mappings import identity
from mappings.codes import sid
from mappings.event import identity as named
from mappings.exact_json import dumps, loads
from mappings.stream import Converter
from mappings.validate import validate
from samples import PUMP, REFILL, without
from service.fhir.record import EVENTS_OF
from service.fhir.search import PARAMETERS
from site_of_facade import GIRL, STORIES, business, found, get, histories, said, story, take

Json = Any


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with histories(tmp_path_factory.mktemp("facade")) as client:
        yield client


# --- what is there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metadata"), ("GET", "/Device"), ("GET", "/Device/1"), ("POST", ""), ("POST", "/$validate")],
)
def test_without_a_key_there_is_only_an_outcome(app: Flask, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nothing"}):
        reply = app.test_client().open(f"/fhir{path}", method=method, headers=headers)
        assert reply.status_code == 401
        assert said(reply) == [("login", "key", "Authorization")]
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_capability_statement_is_strict_r4_and_keeps_its_word(shared: FlaskClient) -> None:
    statement = get(shared, "metadata")
    assert validate(statement) == []
    (rest,) = statement["rest"]
    searched = [r for r in rest["resource"] if "interaction" in r]
    assert {r["type"] for r in searched} == set(EVENTS_OF) == set(PARAMETERS)
    assert {r["type"] for r in rest["resource"]} - set(EVENTS_OF) == {"Patient", "Group"}
    for offered in searched:
        assert {"read", "search-type"} <= {i["code"] for i in offered["interaction"]}
        for parameter in offered["searchParam"]:
            value = "2026-01-01" if parameter["type"] == "date" else "x"
            found(shared, offered["type"], **{parameter["name"]: value})


def test_the_capability_statement_passes_hapi(shared: FlaskClient, hapi_validate: Callable[..., Any]) -> None:
    assert hapi_validate(get(shared, "metadata")) == []


def applied(events: list[Json]) -> dict[tuple[str, ...], Json]:
    """What a server holds that took the transaction of every event, in order."""
    held = {}
    converter = Converter()
    for event in events:
        for entry in converter.to_fhir(event)["entry"]:
            resource = entry["resource"]
            held[resource["resourceType"], *identity.resource_identity(resource)] = resource
    return held


def literal(node: Json) -> Iterator[str]:
    """Every literal reference below the node."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, (dict, list)):
            yield from literal(value)
    if isinstance(node, dict) and isinstance(node.get("reference"), str):
        yield node["reference"]


@pytest.mark.parametrize("path", [*golden.GOLDEN, *STORIES], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_record_is_what_the_transactions_would_leave(client: FlaskClient, path: Path) -> None:
    events = story(path)
    take(client, events)
    wanted = applied(events)
    shown: dict[tuple[str, ...], Json] = {}
    for type in EVENTS_OF:
        for resource in found(client, type, _count=1000):
            assert get(client, f"{type}/{resource['id']}") == resource
            assert validate(resource) == []
            key = identity.resource_identity(resource) if type != "Provenance" else (type, resource["id"])
            shown[type, *key] = resource
    witnesses = [key for key in shown if key[0] == "Provenance"]
    assert len(witnesses) == len({named(event) for event in events})
    for key in witnesses:
        theirs, ours = shown.pop(key), wanted[key]
        assert identity.content_hash(theirs | {"recorded": ""}) == identity.content_hash(
            ours | {"recorded": ""}
        )
    wanted = {key: resource for key, resource in wanted.items() if key[0] != "Provenance"}
    assert shown.keys() == wanted.keys()
    for key, resource in wanted.items():
        assert identity.content_hash(shown[key]) == identity.content_hash(resource), key


def test_every_reference_leads_somewhere(shared: FlaskClient) -> None:
    references = {
        reference
        for type in EVENTS_OF
        for resource in found(shared, type, _count=1000)
        for reference in literal(resource)
        if not reference.startswith("#")
    }
    assert len(references) > 40
    for reference in references:
        type, _, id = reference.partition("/")
        assert get(shared, reference)["id"] == id
        assert type in EVENTS_OF


def test_a_read_names_its_version_and_a_correction_is_the_next_one(client: FlaskClient, clock: Any) -> None:
    take(client, [REFILL])
    (first,) = found(client, "MedicationAdministration")
    clock.forward(60)
    take(client, [REFILL | {"version": 2, "note": "other"}])
    reply = client.get(f"/fhir/MedicationAdministration/{first['id']}")
    second = loads(reply.data)
    assert (first["meta"]["versionId"], second["meta"]["versionId"]) == ("1", "2")
    assert reply.headers["ETag"] == 'W/"2"'
    assert first["meta"]["lastUpdated"] < second["meta"]["lastUpdated"]


def test_a_program_that_is_closed_has_a_later_version_than_when_it_ran(
    client: FlaskClient, clock: Any
) -> None:
    events = story(GIRL)
    seen: dict[str, str] = {}
    for event in events:
        clock.forward(60)
        take(client, [event])
        for resource in found(client, "MedicationAdministration", _count=1000):
            text = dumps(without(resource, "meta")).decode()
            version = resource["meta"]["versionId"]
            assert seen.setdefault(f"{resource['id']}/{version}", text) == text, "changed under one version"


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("MedicationAdministration/none", 404, ("not-found", "not-found", "$")),
        ("Provenance/none", 404, ("not-found", "not-found", "$")),
        ("Patient/1", 404, ("not-found", "not-supported", "resourceType")),
        ("Patient", 404, ("not-found", "not-supported", "resourceType")),
        ("Patient?_id=1", 404, ("not-found", "not-supported", "resourceType")),
        ("Device?colour=red", 422, ("invalid", "search", "colour")),
        ("Provenance?identifier=x", 422, ("invalid", "search", "identifier")),
        ("Device?_lastUpdated=yesterday", 422, ("invalid", "search", "_lastUpdated")),
        ("Device?_lastUpdated=ge2026-13-01", 422, ("invalid", "search", "_lastUpdated")),
        ("Device?_lastUpdated=ge2026-01-01T00:00:00", 422, ("invalid", "search", "_lastUpdated")),
        ("Device?_count=-1", 422, ("invalid", "search", "_count")),
        ("Device?_offset=x", 422, ("invalid", "search", "_offset")),
        ("MedicationAdministration?effective-time=x", 422, ("invalid", "search", "effective-time")),
        ("Device/1/_history", 404, ("not-found", "not-found", "$")),
    ],
)
def test_what_is_not_there_is_an_outcome(
    shared: FlaskClient, path: str, status: int, told: tuple[str, str, str]
) -> None:
    reply = shared.get(f"/fhir/{path}")
    assert reply.status_code == status, reply.text
    assert said(reply) == [told]


def test_an_unknown_parameter_is_ignored_only_when_that_is_asked_for(shared: FlaskClient) -> None:
    reply = shared.get("/fhir/Device?colour=red", headers={"Prefer": "handling=lenient"})
    assert (reply.status_code, loads(reply.data)["total"]) == (200, 6)


def test_only_json_is_given(shared: FlaskClient) -> None:
    reply = shared.get("/fhir/Device", headers={"Accept": "application/fhir+xml"})
    assert reply.status_code == 406
    assert said(reply) == [("not-supported", "not-acceptable", "$")]
    assert shared.delete("/fhir/Device/1").status_code == 405


# --- search ---------------------------------------------------------------------------------------------

REFILLS = sid("refill")
MRN = "http://hospital.invalid/mrn"
PUMP_OF_GIRL = "NGP000001H"
SEGMENTS = [f"P-{n}" for n in range(1, 8)]
OF_GIRL = {"patient": f"{MRN}|MRN001"}


@pytest.mark.parametrize(
    ("type", "query", "ids"),
    [
        ("MedicationAdministration", {"identifier": f"{REFILLS}|clinic-a.R-2"}, ["R-2"]),
        ("MedicationAdministration", {"identifier": "clinic-a.R-2"}, ["R-2"]),
        ("MedicationAdministration", {"identifier": f"{REFILLS}|R-2"}, []),
        ("MedicationAdministration", {"identifier": f"{MRN}|clinic-a.R-2"}, []),
        ("MedicationAdministration", {"identifier": "clinic-a.R-2,clinic-a.R-3"}, ["R-2", "R-3"]),
        ("Device", OF_GIRL, ["D-1", "D-2"]),
        ("Device", {"patient": "MRN001"}, ["D-1", "D-2"]),
        ("Device", {"patient:identifier": f"{MRN}|MRN001"}, ["D-1", "D-2"]),
        ("Device", {"patient": f"{MRN}|nobody"}, []),
        ("Device", {"patient": "http://other.invalid|MRN001"}, []),
        ("Device", OF_GIRL | {"status": "active"}, ["D-1", "D-2"]),
        ("Device", {"status": "inactive"}, []),
        ("Procedure", OF_GIRL, SEGMENTS),
        ("Procedure", OF_GIRL | {"status": "completed"}, SEGMENTS),
        ("MedicationRequest", OF_GIRL | {"status": "active"}, ["P-7"]),
        ("MedicationRequest", OF_GIRL | {"status": "stopped"}, SEGMENTS[:-1]),
        ("MedicationAdministration", OF_GIRL | {"status": "in-progress"}, ["P-7"]),
        ("MedicationAdministration", {"device": PUMP_OF_GIRL, "status": "in-progress"}, ["P-7"]),
        (
            "MedicationAdministration",
            OF_GIRL | {"effective-time": "ge2025-05-05T14:00:00Z"},
            ["P-6", "P-7", "R-3"],
        ),
        (
            "MedicationAdministration",
            OF_GIRL | {"effective-time": "lt2025-02-05T18:00:00Z"},
            ["P-1", "R-1"],
        ),
        (
            "MedicationAdministration",
            OF_GIRL | {"effective-time": "2025-02-06T12:00:00-06:00"},
            ["P-2"],
        ),
        ("MedicationAdministration", OF_GIRL | {"effective-time": "2025-09-22"}, ["P-7", "R-3"]),
        ("MedicationAdministration", OF_GIRL | {"effective-time": "gt2025-09-22"}, ["P-7"]),
        ("MedicationAdministration", OF_GIRL | {"effective-time": "le2025-02-03"}, ["P-1", "R-1"]),
        ("MedicationAdministration", OF_GIRL | {"effective-time": "2025-09"}, ["P-7", "R-3"]),
    ],
)
def test_a_search_finds_just_these(
    shared: FlaskClient, type: str, query: dict[str, str], ids: list[str]
) -> None:
    held = [r for r in found(shared, type, **query) if r["resourceType"] == type]
    assert sorted(business(r) for r in held) == ids


@pytest.mark.parametrize("type", sorted(EVENTS_OF))
def test_id_finds_one_and_alternatives_find_each(shared: FlaskClient, type: str) -> None:
    held = [r["id"] for r in found(shared, type)]
    for id in held[:2]:
        assert [r["id"] for r in found(shared, type, _id=id)] == [id]
    assert [r["id"] for r in found(shared, type, _id=",".join(held[:2]))] == held[:2]
    assert found(shared, type, _id="none") == []


def test_a_search_by_post_is_the_same_search(shared: FlaskClient) -> None:
    sent = {"patient": f"{MRN}|MRN001", "status": "active"}
    reply = shared.post("/fhir/MedicationRequest/_search", data=sent)
    assert loads(reply.data)["entry"] == get(shared, "MedicationRequest", **sent)["entry"]


def test_a_device_is_found_by_reference_and_by_serial(shared: FlaskClient) -> None:
    assert len(found(shared, "DeviceUseStatement", **OF_GIRL)) == 2
    (use,) = found(shared, "DeviceUseStatement", device=PUMP_OF_GIRL)
    for named_so in (use["device"]["reference"], use["device"]["reference"].removeprefix("Device/")):
        assert found(shared, "DeviceUseStatement", device=named_so) == [use]
        assert {business(r) for r in found(shared, "MedicationAdministration", device=named_so)} == {
            *SEGMENTS,
            *("R-1", "R-2", "R-3"),
        }


def test_last_updated_divides_what_came_before_from_what_came_after(client: FlaskClient, clock: Any) -> None:
    take(client, [PUMP, REFILL])
    between = clock.forward(60).isoformat().replace("+00:00", "Z")
    take(client, [REFILL | {"id": "R-2"}])

    def ids(*wanted: str) -> list[str]:
        held = found(client, "MedicationAdministration", _lastUpdated=list(wanted))
        return [business(r) for r in held]

    assert (ids(f"ge{between}"), ids(f"gt{between}")) == (["R-2"], [])
    assert (ids(f"lt{between}"), ids(f"le{between}")) == (["R-1"], ["R-1", "R-2"])
    assert (ids("ge2026-11-23"), ids("2026-11-23"), ids("lt2026-11-23")) == (["R-1", "R-2"],) * 2 + ([],)
    assert ids("ge2020-01-01", f"lt{between}") == ["R-1"]


@pytest.mark.parametrize("count", [1, 3, 7, 100])
def test_pages_add_up_to_the_whole(shared: FlaskClient, count: int) -> None:
    whole = [r["id"] for r in found(shared, "MedicationAdministration", **OF_GIRL)]
    path = f"/fhir/MedicationAdministration?_count={count}&patient={MRN}|MRN001"
    seen: list[str] = []
    while path:
        page = loads(shared.get(path).data)
        assert validate(page) == []
        assert page["total"] == len(whole) == 11
        entries = page.get("entry", [])
        assert 0 < len(entries) <= count
        seen += [entry["resource"]["id"] for entry in entries]
        split = [urlsplit(link["url"]) for link in page["link"] if link["relation"] == "next"]
        path = f"{split[0].path}?{split[0].query}" if split else ""
    assert seen == whole


def test_a_count_of_zero_only_counts(shared: FlaskClient) -> None:
    page = get(shared, "Procedure", _count=0)
    assert page["total"] > 7
    assert "entry" not in page
    assert [link["relation"] for link in page["link"]] == ["self"]
