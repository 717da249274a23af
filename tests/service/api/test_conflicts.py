"""Conflicts over HTTP and on the command line: listed, shown, decided by one person or by two."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from mappings.exact_json import loads
from mappings.paths import copy
from service.app import create_app
from service.cli import main
from service.settings import Settings
from service.store import keys
from site_of_tests import HISTORY, REFILL, Site

Json = Any


class Clinic:
    """A site with a record in conflict, served over HTTP to two persons."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, f"sqlite:///{folder}/itb.db")
        self.site.register()
        self.site.send(*HISTORY)
        self.site.push()
        with self.site.store.write() as c:
            self.keys = {name: keys.add(c, 1, name, now=self.site.now()) for name in ("ann", "bob")}
        app = create_app(Settings(database_url=self.site.url, min_free_bytes=0))
        self.client: FlaskClient = app.test_client()

    def edit(self, **changes: Any) -> None:
        resource = copy(self.site.one("refill", "R-1"))
        if "strength" in changes:
            amount = resource["contained"][0]["ingredient"][0]["strength"]["numerator"]
            amount["value"] = changes.pop("strength")
        self.site.ehr.update(resource | changes)
        self.site.pull()

    def call(self, method: str, path: str, person: str = "ann", **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[person]}"}
        return self.client.open(f"/api/v1/{path}", method=method, headers=headers, **options)

    def decide(self, person: str, **decision: Any) -> Any:
        return self.call("POST", "conflicts/1/resolve", person, json=decision)

    def itb(self, *arguments: str, person: str = "ann") -> Result:
        env = {"ITB_DATABASE_URL": self.site.url, "ITB_KEY": self.keys[person]}
        return CliRunner().invoke(main, ["conflicts", *arguments], env=env)


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


def body(answer: Any) -> Json:
    return loads(answer.data)


def test_a_conflict_is_listed_and_shown_with_both_sides(clinic: Clinic) -> None:
    clinic.edit(strength=2000)
    (one,) = body(clinic.call("GET", "conflicts"))["conflicts"]
    assert (one["id"], one["endpoint"], one["kind"], one["status"]) == (1, "hapi", "edited", "open")
    assert (one["source"], one["event_id"], one["two_persons"]) == ("clinic-a", "R-1", True)
    assert one["fields"] == [{"path": "drug.concentration", "owner": "dose"}]
    full = body(clinic.call("GET", "conflicts/1"))
    strengths = [full[side]["drug"]["concentration"]["value"] for side in ("base", "ours", "theirs")]
    assert strengths == [500, 500, 2000]
    assert loads(full["raw"])["resourceType"] == "MedicationAdministration"
    assert body(clinic.call("GET", "conflicts?status=resolved"))["conflicts"] == []
    assert clinic.call("GET", "conflicts?endpoint=nobody").status_code == 404
    assert clinic.call("GET", "conflicts/2").status_code == 404


def test_a_conflict_is_an_open_issue_of_its_pump_and_shows_on_what_it_holds(clinic: Clinic) -> None:
    clinic.edit(strength=2000)
    clinic.site.send(REFILL | {"version": 2, "note": "held"})
    clinic.site.push()
    issues = body(clinic.call("GET", "pumps/NGP1"))["open_issues"]
    (issue,) = [one for one in issues if one["rule"] == "S1"]
    assert (issue["severity"], issue["arithmetic"]) == ("critical", "drug.concentration")
    (held,) = body(clinic.call("GET", "deliveries?status=parked"))["deliveries"]
    assert (held["conflict"], held["event"]["id"]) == (1, "R-1")


def test_two_keys_decide_about_a_dose(clinic: Clinic) -> None:
    clinic.edit(strength=2000)
    first = body(clinic.decide("ann", take="theirs"))
    assert (first["status"], first["proposed_by"]) == ("open", "ann")
    assert body(clinic.decide("ann", take="theirs"))["status"] == "open"
    second = body(clinic.decide("bob", fields={"drug.concentration": "theirs"}))
    assert (second["status"], second["resolved_by"]) == ("resolved", "bob")
    assert second["ours"]["drug"]["concentration"]["value"] == 2000
    assert clinic.decide("ann", take="ours").status_code == 409


@pytest.mark.parametrize(
    ("decision", "path"),
    [
        ({}, "$"),
        ({"take": "ours", "fields": {"note": "ours"}}, "$"),
        ({"take": "both"}, "take"),
        ({"fields": {"note": "ours", "drug.lot": "ours"}}, "fields.drug.lot"),
        ({"fields": {"drug.lot": "ours"}}, "fields.note"),
        ({"fields": {"note": "neither"}}, "fields.note"),
        ({"fields": ["note"]}, "fields"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(clinic: Clinic, decision: Json, path: str) -> None:
    clinic.site.send(REFILL | {"version": 2, "note": "ours"})
    clinic.edit(note=[{"text": "theirs"}])
    answer = clinic.decide("ann", **decision)
    assert answer.status_code == 422
    assert path in {error["path"] for error in body(answer)["errors"]}
    assert body(clinic.call("GET", "conflicts/1"))["status"] == "open"


def test_the_command_line_decides_too(clinic: Clinic) -> None:
    clinic.edit(strength=2000)
    listed = clinic.itb("list").output.split("\t")
    assert listed[:5] == ["1", "hapi", "clinic-a/R-1", "edited", "drug.concentration"]
    assert loads(clinic.itb("show", "1").output.encode())["theirs"]["id"] == "R-1"
    assert "another person" in clinic.itb("resolve", "1", "--take", "ours").output
    assert clinic.itb("list").output.strip().endswith("proposed by ann")
    done = clinic.itb("resolve", "1", "--field", "drug.concentration=ours", person="bob")
    assert done.output == "1\tresolved\n"
    assert clinic.itb("list").output == ""
    assert clinic.itb("list", "--all").output.strip().endswith("resolved")
    clinic.site.time = datetime.now(UTC)  # the command line has a real clock
    clinic.site.push()
    assert clinic.site.one("refill", "R-1")["meta"]["versionId"] == "3"


def test_the_command_line_needs_a_key_a_number_and_a_side(clinic: Clinic) -> None:
    clinic.edit(strength=2000)
    clinic.keys["ann"] = "nobody's"
    assert clinic.itb("resolve", "1", "--take", "ours").exit_code == 2
    for wrong in (["show", "9"], ["resolve", "9", "--take", "ours"], ["resolve", "1"]):
        result = clinic.itb(*wrong, person="bob")
        assert result.exit_code == 1, result.output
    assert clinic.itb("resolve", "1", "--field", "note", person="bob").exit_code == 2
