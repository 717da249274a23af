"""What a comparison found, as people see it: on the command line, over HTTP and as a metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from mappings.exact_json import dumps, loads
from service import cli
from service.app import create_app
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving
from service.settings import Settings
from service.store import keys
from service.sync.ehr import HttpEhr
from site_of_tests import HISTORY, PATIENT

CASES = "/api/v1/cases"


class Ward:
    """A ledger whose history was delivered to the fake EHR; `itb` is the command on it."""

    def __init__(self, folder: Path, fake: FakeEhr, url: str) -> None:
        self.fake, self.url = fake, url
        self.database = f"sqlite:///{folder}/itb.db"
        fake.register(PATIENT["system"], PATIENT["value"])
        (folder / "history.ndjson").write_bytes(b"\n".join(dumps(event) for event in HISTORY))
        self.itb("endpoints", "add", "ward", url)
        self.itb("import", str(folder / "history.ndjson"))
        assert self.itb("sync", "ward").exit_code == 0

    def itb(self, *arguments: str) -> Any:
        done = CliRunner().invoke(cli.main, arguments, env={"ITB_DATABASE_URL": self.database})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def held(self, kind: str) -> list[Any]:
        """The resources that the EHR holds under our identifiers of a kind."""
        newest = {version.key: version.resource for version in self.fake.state.log}
        return [r for r in newest.values() if r and kind in str(r.get("identifier", ""))]

    def lose(self, kind: str) -> None:
        """As a server that was restored to before it."""
        for one in self.held(kind):
            del self.fake.state.versions[one["resourceType"], one["id"]]

    def double(self, kind: str) -> str:
        """A user copies a record, identifier and all; the id of the copy."""
        one = {name: value for name, value in self.held(kind)[0].items() if name not in ("id", "meta")}
        return str(HttpEhr(self.url).save(one)["id"])


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    fake = FakeEhr(load("hapi"))
    with serving(fake) as url:
        yield Ward(tmp_path, fake, url)


@pytest.fixture
def client(ward: Ward) -> Iterator[FlaskClient]:
    app: Flask = create_app(Settings(database_url=ward.database, min_free_bytes=0))
    made = app.extensions["itb"]
    with made.store.write() as c:
        key = keys.add(c, 1, "ann", now=made.clock())
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    yield client
    made.store.close()


def test_a_comparison_is_shown_by_the_command_over_http_and_as_a_metric(
    ward: Ward, client: FlaskClient
) -> None:
    drift = "/api/v1/endpoints/ward/drift"
    assert client.get(drift).json == {"comparison": None, "findings": [], "next_cursor": None}
    ward.lose("/segment")
    done = ward.itb("reconcile", "ward")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{len(HISTORY)} records compared: 3 missing"
    assert all(line.startswith("missing   ") and " segment clinic-a." in line for line in lines[:-1])
    shown = client.get(drift).json
    assert (shown["comparison"]["counts"], shown["comparison"]["begun_by"]) == ({"missing": 3}, "cli")
    assert {one["identifier"]["value"] for one in shown["findings"]} == {f"clinic-a.P-{n}" for n in (1, 2, 3)}
    assert 'itb_drift{endpoint="ward",kind="missing"} 3.0' in client.get("/metrics").text
    first = client.get(f"{drift}?limit=2").json
    rest = client.get(f"{drift}?limit=2&cursor={first['next_cursor']}").json
    assert first["findings"] + rest["findings"] == shown["findings"]
    mended = ward.itb("reconcile", "ward", "--fix", "--json")
    assert mended.exit_code == 0, mended.stdout
    *found, said = [loads(line) for line in mended.stdout.encode().splitlines()]
    assert all("is due again" in one["repaired"] for one in found)
    assert said["counts"] == {"missing": 3}
    assert ward.itb("sync", "ward").exit_code == 0
    assert ward.itb("reconcile", "ward").stdout == f"{len(HISTORY)} records compared: no difference\n"
    assert 'itb_drift{endpoint="ward"' not in client.get("/metrics").text
    assert client.get("/api/v1/endpoints/nobody/drift").status_code == 404


def test_a_double_is_a_case_until_a_person_closes_it(ward: Ward, client: FlaskClient) -> None:
    copy = ward.double("/refill")
    assert ward.itb("reconcile", "ward", "--fix").exit_code == 1, "a double is for a person"
    (case,) = client.get(CASES).json["cases"]
    assert (case["endpoint"], case["kind"], case["status"]) == ("ward", "duplicate", "open")
    assert copy in case["remote_ids"]
    listed = ward.itb("cases", "list").stdout.split("\t")
    assert (listed[0], listed[1:3], listed[-1]) == (str(case["id"]), ["ward", "duplicate"], "open\n")
    for query, number in (("status=open", 1), ("status=closed", 0), ("endpoint=ward", 1)):
        assert len(client.get(f"{CASES}?{query}").json["cases"]) == number, query
    assert client.get(f"{CASES}?status=lost").status_code == 422
    assert client.get(f"{CASES}?endpoint=nobody").status_code == 404
    close = f"{CASES}/{case['id']}/close"
    assert client.post(close, json={}).status_code == 422
    closed = client.post(close, json={"reason": "the copy was deleted"})
    assert (closed.status_code, closed.json["status"]) == (200, "closed")
    assert closed.json["reason"] == "the copy was deleted"
    assert client.post(close, json={"reason": "again"}).status_code == 409
    assert client.post(f"{CASES}/99/close", json={"reason": "x"}).status_code == 404
    assert ward.itb("cases", "list").stdout == ""
    assert ward.itb("cases", "list", "--all").stdout.endswith("closed\n")
    assert ward.itb("reconcile", "ward").exit_code == 1, "it is there twice still"
    (opened,) = client.get(f"{CASES}?status=open").json["cases"]
    assert ward.itb("cases", "close", str(opened["id"]), "--reason", "told the ward").exit_code == 0
    assert "no open case" in ward.itb("cases", "close", "99", "--reason", "x").stderr


def test_a_server_that_is_away_is_named(ward: Ward) -> None:
    ward.itb("endpoints", "add", "away", "http://127.0.0.1:9/fhir")
    done = ward.itb("reconcile", "away")
    assert (done.exit_code, "away could not be read" in done.stderr) == (1, True)
