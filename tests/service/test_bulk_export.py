"""/fhir/$export: asked for, polled, fetched; as of one moment, for one key, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient

import golden
from mappings import load_event
from mappings.exact_json import dumps, loads
from mappings.validate import validate
from service.app import create_app
from service.fhir import bulk as routes
from service.fhir import bulk_export, record
from service.fhir.bulk_export import Asked
from service.server import free_port
from service.settings import Settings
from service.store import bulk, cohort, events, keys
from service.store.engine import Store
from service.store.keys import Caller
from site_of_facade import STORIES, business, found, get, said, story, take

Json = Any
ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}
STATUS = routes.STATUS


def begin(client: FlaskClient, path: str = "$export", headers: Json = ASYNC, **query: Any) -> Any:
    return client.get(f"/fhir/{path}", query_string=query, headers=headers)


def local(url: str) -> str:
    assert url.startswith("http://localhost/fhir/")
    return url.removeprefix("http://localhost")


def settled() -> None:
    """Every export that runs in this process has ended."""
    for thread in threading.enumerate():
        if thread.name == "itb-bulk":
            thread.join(30)


def manifest(client: FlaskClient, path: str = "$export", **query: Any) -> Json:
    reply = begin(client, path, **query)
    assert reply.status_code == 202, reply.text
    settled()
    done = client.get(local(reply.headers["Content-Location"]))
    assert done.status_code == 200, done.text
    return loads(done.data)


def lines(client: FlaskClient, entry: Json) -> list[Json]:
    reply = client.get(local(entry["url"]))
    assert (reply.status_code, reply.mimetype) == (200, "application/fhir+ndjson")
    made = [loads(line) for line in reply.data.splitlines()]
    assert len(made) == entry["count"]
    return made


def exported(client: FlaskClient, told: Json) -> dict[str, list[Json]]:
    """The resources of a manifest by type."""
    held: dict[str, list[Json]] = {}
    for entry in told["output"]:
        held.setdefault(entry["type"], []).extend(lines(client, entry))
    return held


def deleted(client: FlaskClient, told: Json) -> set[str]:
    named = set()
    for entry in told["deleted"]:
        for bundle in lines(client, entry):
            assert bundle["type"] == "transaction" and validate(bundle) == []
            named |= {e["request"]["url"] for e in bundle["entry"] if e["request"]["method"] == "DELETE"}
    return named


def everyone(client: FlaskClient) -> list[Json]:
    events = [event for path in STORIES for event in story(path)]
    take(client, events)
    return events


def refill(sent: list[Json], **more: Any) -> Json:
    """One more refill, otherwise as the first of those sent."""
    return load_event({**next(e for e in sent if e["type"] == "refill"), **more})


def by_id(resources: list[Json]) -> dict[str, bytes]:
    return {resource["id"]: dumps(resource) for resource in resources}


def whole(client: FlaskClient) -> dict[str, dict[str, bytes]]:
    """What search shows, type by type."""
    held = {type: by_id(found(client, type, _count=1000)) for type in record.EVENTS_OF}
    return {type: resources for type, resources in held.items() if resources}


# --- what it gives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["$export", "Patient/$export", "Group/all/$export"])
def test_an_export_is_the_record_as_search_shows_it(
    client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_export, "PER_FILE", 5)
    monkeypatch.setattr(bulk_export, "PAGE", 2)
    everyone(client)
    told = manifest(client, path)
    assert told["requiresAccessToken"] is True and told["request"].endswith(f"/fhir/{path}")
    assert told["deleted"] == told["error"] == []
    assert len([e for e in told["output"] if e["type"] == "Provenance"]) > 1
    assert {type: by_id(held) for type, held in exported(client, told).items()} == whole(client)


def test_types_and_groups_narrow_it(client: FlaskClient) -> None:
    sent = everyone(client)
    other = {"system": "http://hospital.invalid/mrn", "value": "elsewhere"}
    take(client, [refill(sent, source="north", patient=other, pump="NORTH1")])
    only = exported(client, manifest(client, _type="Device,Task"))
    assert only.keys() <= {"Device", "Task"} and by_id(only["Device"]) == whole(client)["Device"]
    north = exported(client, manifest(client, "Group/source.north/$export"))
    assert north.keys() == {"MedicationAdministration", "Provenance"}
    assert {len(held) for held in north.values()} == {1}
    clinic = exported(client, manifest(client, "Group/source.clinic-a/$export"))
    all = whole(client)
    assert sum(map(len, clinic.values())) == sum(map(len, all.values())) - 2


def test_what_comes_later_is_not_in_it(client: FlaskClient, clock: Any) -> None:
    sent = everyone(client)
    before = whole(client)
    told = manifest(client)
    clock.forward(600)
    change = next(e for e in sent if e["type"] == "dose-change")
    take(client, [load_event({**change, "version": 2, "note": "mended"}), refill(sent, id="R-new")])
    take(client, [load_event({**sent[-1], "version": 2, "status": "entered-in-error"})])
    assert whole(client) != before
    assert {type: by_id(held) for type, held in exported(client, told).items()} == before


def test_since_gives_what_changed_and_names_what_to_let_go_of(client: FlaskClient, clock: Any) -> None:
    sent = everyone(client)
    clock.forward(600)
    first = manifest(client)
    clock.forward(600)
    gone = next(e for e in sent if e["type"] == "refill")
    take(client, [load_event({**gone, "version": 2, "status": "entered-in-error"})])
    take(client, [refill(sent, id="R-new")])
    second = manifest(client, _since=first["transactionTime"])
    changed = exported(client, second)
    assert {type: len(held) for type, held in changed.items()} == {
        "MedicationAdministration": 1,
        "Provenance": 2,
    }
    assert deleted(client, second) == {
        f"MedicationAdministration/{r['id']}"
        for r in found(client, "MedicationAdministration", status="entered-in-error", _count=1000)
    }
    # A reader that follows holds what a first load would give, but for what it let go of.
    held = {type: by_id(found) for type, found in exported(client, first).items()}
    for type, resources in changed.items():
        held[type] |= by_id(resources)
    for name in deleted(client, second):
        type, _, id = name.partition("/")
        del held[type][id]
    wanted = whole(client)
    for name in deleted(client, second):
        type, _, id = name.partition("/")
        assert b"entered-in-error" in wanted[type].pop(id)
    # What witnesses an earlier version is no longer shown, and stays true.
    assert held.pop("Provenance").items() >= wanted.pop("Provenance").items()
    assert held == wanted
    assert manifest(client, _since=clock.forward(600).isoformat())["output"] == []


def test_what_was_on_its_way_at_that_moment_is_in_the_next_one(
    client: FlaskClient, clock: Any, app: Flask
) -> None:
    late = refill(everyone(client), id="late")
    clock.forward(600)
    first = manifest(client)
    with app.extensions["itb"].store.write() as c:  # its transaction was open since before the export
        began = clock() - timedelta(seconds=20)
        events.accept(c, 1, late, received_at=began, actor="x", endpoints=[])
    clock.forward(600)
    second = manifest(client, _since=first["transactionTime"])
    (told,) = exported(client, second)["MedicationAdministration"]
    assert business(told) == "late"


def test_each_resource_of_a_retracted_event_says_so() -> None:
    seen = set()
    for path in golden.GOLDEN:
        for event in golden.events(path):
            gone = load_event({**event, "status": "entered-in-error"})
            stored = events.StoredEvent(1, 1, gone, "", "2026-11-23T09:00:00.000000Z", None)
            for resource in record.shown([stored]):
                type = resource["resourceType"]
                assert record.is_retracted(resource) == (type != "Provenance"), (path, type)
                seen.add(type)
    assert seen == set(record.EVENTS_OF)


def test_a_download_reads_one_patient_at_a_time(
    client: FlaskClient, app: Flask, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone(client)
    told = manifest(client, _type="Provenance")
    read: list[Any] = []
    real = record.record
    monkeypatch.setattr(record, "record", lambda *a: read.append(a) or real(*a))
    store: Store = app.extensions["itb"].store
    with store.read() as c:
        job = bulk.find(c, Caller(1, "test"), told["output"][0]["url"].split("/")[-2], now=clock())
    assert job is not None
    stream = bulk_export.lines(store, job, "Provenance.1.ndjson")
    assert stream is not None and next(stream) and len(read) == 1
    assert len(list(stream)) + 1 == told["output"][0]["count"] and len(read) == len(STORIES)


# --- how it is asked for --------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Json, Json, int, str]] = {
    "no Prefer": ("$export", {}, {}, 400, "Prefer"),
    "an unknown type": ("$export", ASYNC, {"_type": "Device,Patient"}, 400, "_type"),
    "only unknown types": (
        "$export",
        ASYNC | {"Prefer": "respond-async, handling=lenient"},
        {"_type": "X"},
        400,
        "_type",
    ),
    "a date": ("$export", ASYNC, {"_since": "2026-01-01"}, 400, "_since"),
    "no offset": ("$export", ASYNC, {"_since": "2026-01-01T00:00:00"}, 400, "_since"),
    "CSV": ("$export", ASYNC, {"_outputFormat": "text/csv"}, 400, "_outputFormat"),
    "a parameter of others": ("$export", ASYNC, {"_typeFilter": "x"}, 400, "_typeFilter"),
    "XML": ("$export", ASYNC | {"Accept": "application/fhir+xml"}, {}, 406, "$"),
    "no such group": ("Group/1/$export", ASYNC, {}, 404, "$"),
    "no such source": ("Group/source.nobody/$export", ASYNC, {}, 404, "$"),
    "no such job": (f"{STATUS}/1", {}, {}, 404, "$"),
    "no such file": (f"{STATUS}/1/Device.1.ndjson", {}, {}, 404, "$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_cannot_be_followed_is_refused(client: FlaskClient, name: str) -> None:
    path, headers, query, status, where = REFUSED[name]
    reply = begin(client, path, headers, **query)
    assert (reply.status_code, said(reply)[0][2]) == (status, where)


def test_a_lenient_client_is_told_less(client: FlaskClient) -> None:
    everyone(client)
    lenient = ASYNC | {"Prefer": "respond-async, handling=lenient"}
    reply = begin(client, "$export", lenient, _type="Device,Patient", _typeFilter="x", _outputFormat="ndjson")
    settled()
    told = loads(client.get(local(reply.headers["Content-Location"])).data)
    assert {e["type"] for e in told["output"]} == {"Device"}


def posted(client: FlaskClient, path: str, *parameters: Json, headers: Json = ASYNC, **more: Any) -> Any:
    body = {"resourceType": "Parameters", "parameter": list(parameters), **more}
    return client.post(
        f"/fhir/{path}", data=dumps(body), headers=headers, content_type="application/fhir+json"
    )


@pytest.mark.parametrize("path", ["$export", "Patient/$export", "Group/all/$export"])
def test_parameters_may_be_posted(client: FlaskClient, path: str) -> None:
    everyone(client)
    since = {"name": "_since", "valueInstant": "1990-01-01T00:00:00Z"}
    types = [{"name": "_type", "valueString": type} for type in ("Device,Procedure", "MedicationRequest")]
    reply = posted(client, path, since, *types)
    assert reply.status_code == 202, reply.text
    settled()
    told = loads(client.get(local(reply.headers["Content-Location"])).data)
    asked = manifest(client, path, _type="Device,Procedure,MedicationRequest", _since="1990-01-01T00:00:00Z")
    assert {e["type"] for e in told["output"]} == {"Device", "Procedure", "MedicationRequest"}
    assert {t: by_id(r) for t, r in exported(client, told).items()} == {
        t: by_id(r) for t, r in exported(client, asked).items()
    }


POSTED_IN_VAIN: dict[str, tuple[list[Json], str]] = {
    "a filter": ([{"name": "_typeFilter", "valueString": "Device?type=x"}], "_typeFilter"),
    "a patient": ([{"name": "patient", "valueReference": {"reference": "Patient/1"}}], "patient"),
    "no value": ([{"name": "_type"}], "_type"),
    "two values": ([{"name": "_type", "valueString": "Device", "valueCode": "Device"}], "_type"),
    "a number": ([{"name": "_since", "valueInteger": 1}], "_since"),
    "no name": ([{"valueString": "Device"}], "resourceType"),
}


@pytest.mark.parametrize("name", POSTED_IN_VAIN)
def test_posted_parameters_that_cannot_be_followed_are_refused(client: FlaskClient, name: str) -> None:
    parameters, where = POSTED_IN_VAIN[name]
    reply = posted(client, "$export", *parameters)
    assert (reply.status_code, said(reply)[0][2]) == (400, where)


def test_a_lenient_client_may_post_what_is_not_supported(client: FlaskClient) -> None:
    everyone(client)
    lenient = ASYNC | {"Prefer": "respond-async, handling=lenient"}
    unsupported = [p for name in ("a filter", "a patient") for p in POSTED_IN_VAIN[name][0]]
    reply = posted(
        client, "$export", *unsupported, {"name": "_type", "valueString": "Device"}, headers=lenient
    )
    assert reply.status_code == 202, reply.text
    settled()
    told = loads(client.get(local(reply.headers["Content-Location"])).data)
    assert {e["type"] for e in told["output"]} == {"Device"}


def test_only_parameters_are_posted(client: FlaskClient) -> None:
    reply = posted(client, "$export", resourceType="Bundle")
    assert (reply.status_code, said(reply)[0][2]) == (400, "resourceType")
    reply = client.post("/fhir/$export", data=b"[]", headers=ASYNC, content_type="application/fhir+json")
    assert (reply.status_code, said(reply)[0][2]) == (400, "resourceType")
    reply = client.post("/fhir/$export", data=b"_type=Device", headers=ASYNC, content_type="text/plain")
    assert reply.status_code == 415


def other_client(app: Flask, clock: Any, tenant: int = 1) -> FlaskClient:
    with app.extensions["itb"].store.write() as c:
        key = keys.add(c, tenant, "other", now=clock())
    made = app.test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return made


def test_an_export_belongs_to_its_key(client: FlaskClient, app: Flask, clock: Any) -> None:
    everyone(client)
    told = manifest(client)
    other = other_client(app, clock)
    for url in (told["output"][0]["url"], told["output"][0]["url"].rpartition("/")[0]):
        assert other.get(local(url)).status_code == 404
        assert other.delete(local(url).replace("/Device.1.ndjson", "")).status_code in (404, 405)
        assert app.test_client().get(local(url)).status_code == 401
        assert client.get(local(url)).status_code == 200


def running(app: Flask, clock: Any, caller: str = "test", worker: str = "somebody") -> str:
    """An export that another process is working on."""
    id, now = f"job-{caller}", clock()
    with app.extensions["itb"].store.write() as c:
        up_to = cohort.newest_seq(c, 1)
        expires = now + routes.KEPT
        bulk.add(
            c,
            id,
            Caller(1, caller),
            request="http://localhost/fhir/$export",
            asked=asdict(Asked()),
            up_to=up_to,
            now=now,
            expires_at=expires,
        )
        job = bulk.find(c, Caller(1, caller), id, now=now)
        assert job is not None and bulk.claim(c, job, worker, now=now, silent_since=now)
        bulk.beat(c, id, worker, now=now, progress="3 patients done")
    return id


def test_a_second_export_waits_until_the_first_has_ended(client: FlaskClient, app: Flask, clock: Any) -> None:
    id = running(app, clock)
    reply = begin(client)
    assert (reply.status_code, said(reply)[0][:2]) == (429, ("throttled", "bulk"))
    assert int(reply.headers["Retry-After"]) > 0
    polled = client.get(f"/fhir/{STATUS}/{id}")
    assert (polled.status_code, polled.headers["X-Progress"]) == (202, "3 patients done")
    assert int(polled.headers["Retry-After"]) > 0
    other = other_client(app, clock)
    assert begin(other).status_code == 202
    assert client.delete(f"/fhir/{STATUS}/{id}").status_code == 202
    assert client.get(f"/fhir/{STATUS}/{id}").status_code == 404
    assert begin(client).status_code == 202
    settled()


def test_a_cancelled_export_stops_working(client: FlaskClient, app: Flask, clock: Any) -> None:
    everyone(client)
    id = running(app, clock)
    store: Store = app.extensions["itb"].store
    with store.read() as c:
        job = bulk.find(c, Caller(1, "test"), id, now=clock())
    assert job is not None
    client.delete(f"/fhir/{STATUS}/{id}")
    bulk_export.run(store, job, "somebody", lambda: clock.forward(5))
    assert client.get(f"/fhir/{STATUS}/{id}").status_code == 404


def test_an_export_expires(client: FlaskClient, clock: Any) -> None:
    everyone(client)
    told = manifest(client)
    url = local(told["output"][0]["url"])
    assert "GMT" in client.get(url.rpartition("/")[0]).headers["Expires"]
    clock.forward(25 * 3600)
    assert client.get(url).status_code == client.get(url.rpartition("/")[0]).status_code == 404
    assert begin(client).status_code == 202
    settled()


def test_an_export_that_fails_says_so_and_lets_the_next_begin(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone(client)

    def broken(*_: Any) -> Iterator[Json]:
        raise RuntimeError("MRN001")

    with monkeypatch.context() as patch:
        patch.setattr(record, "everything", broken)
        reply = begin(client)
        settled()
    failed = client.get(local(reply.headers["Content-Location"]))
    assert (failed.status_code, "MRN001" in failed.text) == (500, False)
    assert manifest(client)["output"]


def test_the_capability_statement_says_so(client: FlaskClient) -> None:
    (rest,) = get(client, "metadata")["rest"]
    offered = {o["definition"].rpartition("/")[2] for o in rest["operation"]}
    levels = {r["type"]: r["operation"][0]["definition"] for r in rest["resource"] if "operation" in r}
    assert "export" in offered and {t: d.rpartition("/")[2] for t, d in levels.items()} == {
        "Patient": "patient-export",
        "Group": "group-export",
    }


# --- over a restart, on both databases ------------------------------------------------------------------


def test_an_export_of_a_killed_service_goes_on_after_a_restart(database_url: str, tmp_path: Path) -> None:
    """A real service finds a job whose worker is gone, and ends it; the files come over real HTTP."""
    now = datetime.now(UTC) - timedelta(seconds=60)
    app = create_app(Settings(database_url=database_url, log_level="error"), clock=lambda: now)
    with app.extensions["itb"].store.write() as c:
        key = keys.add(c, 1, "test", now=now)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    everyone(client)
    wanted = whole(client)
    id = running(app, lambda: now, worker="a process that was killed")
    app.extensions["itb"].store.close()

    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    env = os.environ | {"ITB_DATABASE_URL": database_url, "ITB_WORKER": "false", "ITB_MIN_FREE_BYTES": "0"}
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        try:
            session = requests.Session()
            session.headers["Authorization"] = f"Bearer {key}"
            told = polled(session, f"http://127.0.0.1:{port}/fhir/{STATUS}/{id}")
            held: dict[str, dict[str, bytes]] = {}
            for entry in told["output"]:
                content = session.get(entry["url"], timeout=30).content
                held.setdefault(entry["type"], {}).update(
                    by_id([loads(line) for line in content.splitlines()])
                )
            assert held == wanted
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def polled(session: requests.Session, url: str) -> Json:
    """The manifest, as a client waits for it."""
    wait = threading.Event()
    for _ in range(600):
        try:
            answer = session.get(url, timeout=5)
            if answer.status_code == 200:
                return loads(answer.content)
            assert answer.status_code == 202, answer.text
        except requests.ConnectionError:
            pass
        wait.wait(0.1)
    raise AssertionError("waited in vain")


# --- seeded bugs ----------------------------------------------------------------------------------------


def never(*_: Any) -> Any:
    return False


BUGS: dict[str, tuple[Any, str, Any, Callable[..., None]]] = {
    "later versions count": (
        events,
        "_superseded",
        lambda up_to=None, real=events._superseded: real(),
        test_what_comes_later_is_not_in_it,
    ),
    "later events count": (
        events,
        "_current",
        lambda tenant, up_to=None, real=events._current: real(tenant),
        test_what_comes_later_is_not_in_it,
    ),
    "retracted ones are kept": (
        record,
        "is_retracted",
        never,
        test_since_gives_what_changed_and_names_what_to_let_go_of,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_noticed(
    bug: str, client: FlaskClient, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, name, wrong, test = BUGS[bug]
    monkeypatch.setattr(holder, name, wrong)
    with pytest.raises(AssertionError):
        test(client, clock)


def test_without_the_overlap_an_open_transaction_would_be_missed(
    client: FlaskClient, clock: Any, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_export, "OVERLAP", timedelta(0))
    with pytest.raises((AssertionError, KeyError)):
        test_what_was_on_its_way_at_that_moment_is_in_the_next_one(client, clock, app)
