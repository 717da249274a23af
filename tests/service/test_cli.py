"""`itb`: what each command prints, where, and how it ends; as real processes where that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import requests
from click.testing import CliRunner

import golden
from mappings import load_event
from mappings.exact_json import dumps, loads
from samples import DOSE_CHANGE, PUMP, REFILL
from service import cli
from service.store import keys
from service.store.deliveries import STATUSES
from service.store.engine import Store
from service.synthetic import clinic

Json = Any
STORIES = sorted(golden.FIXTURES.glob("storyline/*.ndjson"))
ITB = [sys.executable, "-m", "service.cli"]


class Site:
    """`itb` on a ledger of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db"}

    def __call__(self, *arguments: str, stdin: bytes = b"", **env: str) -> Any:
        done = CliRunner().invoke(cli.main, arguments, input=stdin, env=self.env | env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def fine(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """What a command that succeeds prints."""
        done = self(*arguments, stdin=stdin)
        assert done.exit_code == 0, done.stderr
        return done.stdout_bytes

    def file(self, name: str, *events: Json) -> str:
        path = self.folder / name
        path.write_bytes(b"".join(e if isinstance(e, bytes) else dumps(e) + b"\n" for e in events))
        return str(path)


@pytest.fixture
def itb(tmp_path: Path) -> Site:
    return Site(tmp_path)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in sorted(group.commands.items()):
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


# --- every command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [(), *commands(cli.main)], ids=" ".join)
def test_every_command_explains_itself(itb: Site, path: tuple[str, ...]) -> None:
    done = itb(*path, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: main {' '.join(path)}".rstrip())
    _, _, words = done.stdout.partition("\n\n")
    assert len(words.split("\n")[0].split()) > 3, "no sentence about what it does"
    assert not (itb.folder / "itb.db").exists()


FAILURE, USAGE, STOPPED = 1, 2, 4
ERRORS: dict[str, tuple[list[str], int, str]] = {
    "no such command": (["frob"], USAGE, "No such command 'frob'"),
    "no such file to convert": (["convert", "to-fhir", "none.ndjson"], USAGE, "none.ndjson"),
    "no such file of FHIR": (["convert", "from-fhir", "none.ndjson"], USAGE, "none.ndjson"),
    "a source of no form": (["convert", "from-fhir", "--source", "A B"], USAGE, "--source must match"),
    "no such file to import": (["import", "none.ndjson"], USAGE, "none.ndjson"),
    "no folder to export to": (["export", "none/x.ndjson"], STOPPED, "none/x.ndjson"),
    "no pump": (["fixtures", "--pumps", "0"], USAGE, "--pumps"),
    "a name of no form": (["keys", "add", "Front Desk"], USAGE, "NAME must match"),
    "no such key": (["keys", "revoke", "nobody"], FAILURE, "no live key of nobody"),
    "an endpoint name of no form": (["endpoints", "add", "My_EHR", "http://x.invalid"], USAGE, "name: "),
    "an address of no form": (["endpoints", "add", "ehr", "x.invalid/fhir"], USAGE, "url: "),
    "an address with a password": (["endpoints", "add", "ehr", "http://a:b@x.invalid"], USAGE, "url: "),
    "a header of no form": (["endpoints", "add", "e", "http://x.invalid", "--header", "x"], USAGE, "'x'"),
    "a header of two lines": (
        ["endpoints", "add", "e", "http://x.invalid", "--header", "A:b\nC:d"],
        USAGE,
        "options.headers: ",
    ),
    "no endpoint yet": (["sync"], USAGE, "no endpoint yet"),
    "no such endpoint": (["sync", "nowhere"], USAGE, "no endpoint nowhere"),
    "no such port": (["serve", "--port", "70000"], USAGE, "--port"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_call_says_what_is_wrong(itb: Site, name: str) -> None:
    arguments, status, words = ERRORS[name]
    done = itb(*arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ITB_DATABASE_URL", "nonsense", "ITB_DATABASE_URL"),
        ("ITB_DATABASE_URL", "sqlite://", "not durable"),
        ("ITB_DATABASE_URL", "sqlite:////nowhere/itb.db", "unable to open database file"),
        ("ITB_DATABASE_URL", f"sqlite:///{__file__}", "not a database"),
        ("ITB_DATABASE_URL", "mysql+nothing://h/x", "mysql"),
        ("ITB_DATABASE_URL", "mysql://h/x", "driver"),
        ("ITB_MAX_BODY_BYTES", "many", "ITB_MAX_BODY_BYTES: must be a whole number"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "export", "worker"])
def test_a_setting_that_cannot_be_used_is_named(
    itb: Site, command: str, variable: str, value: str, words: str
) -> None:
    done = itb(command, **{variable: value})
    assert done.exit_code != 0
    assert words in done.output
    assert "Traceback" not in done.output


# --- convert --------------------------------------------------------------------------------------------


def process(*arguments: str, stdin: bytes = b"", **env: str) -> tuple[int, bytes, list[str]]:
    done = subprocess.run(
        [*ITB, *arguments],
        input=stdin,
        env=os.environ | env,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


@pytest.mark.parametrize("path", STORIES, ids=lambda p: p.stem)
@pytest.mark.parametrize("from_file", [True, False], ids=["FILE", "-"])
def test_a_storyline_survives_two_processes_byte_for_byte(path: Path, from_file: bool) -> None:
    there = process(
        "convert", "to-fhir", str(path) if from_file else "-", stdin=b"" if from_file else path.read_bytes()
    )
    assert (there[0], there[2]) == (0, [])
    assert process("convert", "from-fhir", stdin=there[1]) == (0, path.read_bytes(), [])


def test_bad_lines_go_to_standard_error_and_the_others_go_on() -> None:
    good = STORIES[0].read_bytes().splitlines()
    bad = [b"{", dumps(REFILL | {"volume_instilled": 20, "surprise": 1})]
    stream = b"\n".join([good[0], bad[0], b"", good[1], bad[1], *good[2:]])
    status, out, said = process("convert", "to-fhir", stdin=stream)
    assert (status, len(out.splitlines())) == (1, len(good))
    assert [line.split(": ")[:3] for line in said] == [
        ["line 2", "$", "json"],
        ["line 5", "volume_instilled", "bare-number"],
        ["line 5", "surprise", "unknown-field"],
    ]
    status, back, said = process("convert", "from-fhir", stdin=out.replace(b"\n", b'\n{"resourceType":1}\n'))
    assert (status, len(said), back) == (1, len(good), STORIES[0].read_bytes())
    assert {line.partition(": ")[2].split(": ")[1] for line in said} == {"resource-type"}


# --- fixtures, import, export ---------------------------------------------------------------------------


def test_fixtures_are_the_same_bytes_for_the_same_seed(itb: Site) -> None:
    first, again, other = (
        itb.fine("fixtures", "--pumps", "3", "--years", "1", "--seed", seed) for seed in ("5", "5", "6")
    )
    assert first == again != other
    assert first == b"".join(dumps(event) + b"\n" for event in clinic(3, 1, 5))


@pytest.mark.parametrize("path", STORIES, ids=lambda p: p.stem)
def test_what_is_imported_is_exported_as_it_was(itb: Site, path: Path) -> None:
    number = len(path.read_bytes().splitlines())
    assert json.loads(itb.fine("import", str(path))) == {"accepted": number}
    assert itb.fine("export") == path.read_bytes()
    assert json.loads(itb.fine("import", stdin=path.read_bytes())) == {"replayed": number}
    target = itb.folder / "out.ndjson"
    itb.fine("export", str(target))
    assert target.read_bytes() == path.read_bytes()


def test_an_export_is_canonical_and_holds_the_current_versions(itb: Site) -> None:
    spelled = dict(reversed((REFILL | {"status": "final", "version": 1}).items()))
    fixed = REFILL | {"version": 2, "note": "fixed"}
    itb.fine("import", itb.file("in.ndjson", spelled, DOSE_CHANGE, fixed))
    out = itb.fine("export").splitlines()
    assert [loads(line)["id"] for line in out] == ["P-1", "R-1"]
    assert out == [dumps(load_event(loads(line))) for line in out]
    assert out[1] == dumps(load_event(loads(dumps(fixed))))


def test_an_export_that_fails_leaves_the_file_as_it_was(itb: Site) -> None:
    kept = itb.file("out.ndjson", REFILL)
    before = Path(kept).read_bytes()
    assert itb("export", kept, ITB_DATABASE_URL="sqlite:////nowhere/itb.db").exit_code == 3
    assert Path(kept).read_bytes() == before
    itb.fine("export", kept)
    assert Path(kept).read_bytes() == b""


def test_an_import_names_bad_lines_and_takes_the_others(itb: Site) -> None:
    other = REFILL | {"note": "other"}
    too_much = REFILL | {"id": "R-9", "volume_instilled": {"value": 20.5, "unit": "mL"}}
    path = itb.file("in.ndjson", PUMP, b"\n", b"{\n", REFILL, other, too_much, DOSE_CHANGE, REFILL)
    done = itb("import", path)
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"accepted": 3, "rejected": 2, "conflict": 1, "replayed": 1}
    said = [line.split(": ")[:3] for line in done.stderr.splitlines()]
    assert said == [
        ["line 3", "$", "json"],
        ["line 5", "version", "conflict"],
        ["line 6", "volume_instilled", "R1"],
    ]
    assert len(itb.fine("export").splitlines()) == 3


# --- keys, endpoints, doctor, sync ----------------------------------------------------------------------


def test_a_key_is_printed_once_and_lives_until_it_is_revoked(itb: Site) -> None:
    key = itb.fine("keys", "add", "front-desk").decode().strip()
    assert key.encode() not in itb.fine("keys", "list")
    assert itb.fine("keys", "list").split(b"\t")[0] == b"front-desk"
    store = Store(itb.env["ITB_DATABASE_URL"])
    with store.read() as c:
        found = keys.caller(c, key)
    assert found is not None and found.name == "front-desk"
    assert itb.fine("keys", "revoke", "front-desk") == b"1 revoked\n"
    with store.read() as c:
        assert keys.caller(c, key) is None
    store.close()
    assert b"live" not in itb.fine("keys", "list")


NOBODY = "http://127.0.0.1:9/fhir"


def test_an_endpoint_is_added_once_and_its_secret_never_shown(itb: Site) -> None:
    options = ("--header", "Authorization: Basic c2VjcmV0", "--poll-seconds", "60")
    assert itb.fine("endpoints", "add", "ehr", NOBODY + "/", *options).startswith(b"ehr\t" + NOBODY.encode())
    again = itb("endpoints", "add", "ehr", NOBODY)
    assert (again.exit_code, "an endpoint ehr already" in again.stderr) == (1, True)
    listed = itb.fine("endpoints", "list").decode()
    assert listed == f"ehr\t{NOBODY}\tenabled\tread up to -\n"
    itb("sync")
    assert "c2VjcmV0" not in itb("doctor").output + listed


def test_backfill_delivers_what_was_before_the_endpoint(itb: Site) -> None:
    itb.fine("import", stdin=dumps(REFILL))
    assert itb.fine("endpoints", "add", "later", NOBODY).endswith(b"\t0 events to deliver\n")
    assert itb.fine("endpoints", "add", "whole", NOBODY, "--backfill").endswith(b"\t1 events to deliver\n")


def test_an_ehr_that_is_not_there_is_named_and_the_events_wait(itb: Site) -> None:
    itb.fine("endpoints", "add", "ehr", NOBODY)
    itb.fine("import", stdin=dumps(REFILL))
    status, out, said = process("sync", "ehr", **itb.env)
    assert (status, said) == (3, ["Error: no answer from ehr"])
    assert out.startswith(b"ehr\tUnreachable")
    done = itb("doctor")
    assert f"FAIL  EHR ehr: {NOBODY}: Unreachable" in done.stdout
    assert "1 pending" in done.stdout


def test_doctor_says_what_is_missing_and_how_to_get_it(itb: Site) -> None:
    done = itb("doctor")
    assert done.exit_code == 1
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "ok    database",
        "ok    ledger",
        "FAIL  keys",
        "FAIL  endpoints",
        "ok    deliveries",
    ]
    for command in ("itb keys add NAME", "itb endpoints add NAME URL"):
        assert command in done.stdout
    assert "FAIL  keys" not in itb("doctor", ITB_REQUIRE_KEY="false").stdout


def test_sync_brings_hapi_in_step_and_doctor_is_content(itb: Site, hapi: str) -> None:
    name = f"cli-{uuid.uuid4().hex[:8]}"
    patient = {"system": "http://hospital.invalid/mrn", "value": name}
    events = [
        e | {"source": name, "patient": patient} | {k: name for k in ("pump", "serial") if k in e}
        for e in map(loads, STORIES[0].read_bytes().splitlines())
    ]
    events = [e | ({"parent": name} if "parent" in e else {}) for e in events]
    itb.fine("keys", "add", "test")
    itb.fine("endpoints", "add", "hapi", hapi, "--create-missing-patients")
    itb.fine("import", itb.file("in.ndjson", *events))
    out = itb.fine("sync").decode()
    assert f"delivered {len(events)} sent" in out
    doctor = itb.fine("doctor").decode()
    assert "0 pending, 0 failed, 0 parked" in doctor
    assert f"ok    EHR hapi: {hapi}: " in doctor

    def count(type: str) -> int:
        query = {"patient:Patient.identifier": f"{patient['system']}|{name}", "_summary": "count"}
        answer = requests.get(f"{hapi}/{type}", query, headers={"Cache-Control": "no-cache"}, timeout=60)
        return int(answer.json()["total"])

    assert count("Procedure") == sum(e["type"] == "dose-change" for e in events)
    assert count("Device") == sum(e["type"] == "device" for e in events)
    again = itb.fine("sync", "hapi").decode()
    assert "sent" not in again
    ours = [line for line in itb.fine("export").splitlines() if loads(line)["source"] == name]
    assert ours == [dumps(load_event(e)) for e in events]  # HAPI may hold what other tests left


def test_explain_names_the_field_of_each_element(itb: Site) -> None:
    out = itb.fine("explain", stdin=dumps(REFILL)).decode().splitlines()
    assert out[0].startswith("# clinic-a R-1, map ")
    assert "dosage.dose.value\t20\tvolume_instilled.value\tcopied" in out
    told = loads(itb.fine("explain", "--json", stdin=dumps(REFILL)))
    assert len(told["elements"]) + len({e["resource"] for e in told["elements"]}) + 1 == len(out)
    assert itb("explain", stdin=b"{}").stderr.startswith("line 1: type: required:")


def test_explain_names_the_field_of_a_message(itb: Site) -> None:
    message = (golden.FIXTURES / "golden/dose-change/flex-with-bridge.hl7").read_bytes()
    out = itb.fine("explain", stdin=message).decode().splitlines()
    assert "dosage.dose.value\t178.7000\t-\tderived\t-" in out
    daily = "extension[2].valueQuantity.value\t180\tafter.daily_dose.value\tcopied\tRXE[1]-23,24"
    assert daily in out
    mllp = itb.fine("explain", "--json", stdin=b"\x0b" + message + b"\x1c\r")
    told = {e["path"]: e["hl7"] for e in loads(mllp)["elements"] if e["resource"].startswith("Procedure")}
    (who,) = told["performer[0].actor.display"]
    assert (who["place"], who["rule"]) == ("ORC[1]-19", "mappings/hl7v2/rde_o11.py")
    bad = itb("explain", stdin=message.replace(b"ug/d^ug/d", b"kg^kg", 1))
    assert bad.exit_code == 1 and bad.stderr.startswith("message 1: RXE[1]-23: unit:")


def test_the_guide_is_written_as_a_package_with_examples(itb: Site, tmp_path: Path) -> None:
    target, events = tmp_path / "guide.tgz", tmp_path / "events.ndjson"
    events.write_bytes(dumps(REFILL))
    done = itb("ig", "build", "--out", str(target), "--examples", str(events))
    assert done.exit_code == 0, done.stderr
    with tarfile.open(target) as package:
        held = {name: loads(package.extractfile(name).read()) for name in package.getnames()}  # type: ignore[union-attr]
    assert held["package/package.json"]["fhirVersions"] == ["4.0.1"]
    index = held["package/.index.json"]["files"]
    assert {f"package/{f['filename']}" for f in index} | {"package/package.json", "package/.index.json"} == {
        name for name in held if "/example/" not in name
    }
    examples = [held[name] for name in held if name.startswith("package/example/") and "index" not in name]
    assert {e["resourceType"] for e in examples} == {"MedicationAdministration", "Provenance"}
    first = target.read_bytes()
    itb("ig", "build", "--out", str(target), "--examples", str(events))
    assert target.read_bytes() == first


def test_a_bad_example_for_the_guide_is_named(itb: Site, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_bytes(dumps({**REFILL, "type": "surprise"}))
    done = itb("ig", "build", "--out", str(tmp_path / "x.tgz"), "--examples", str(events))
    assert done.exit_code != 0 and "line 1: type" in done.stderr
    assert not (tmp_path / "x.tgz").exists()


def test_deliveries_are_listed_and_steered(itb: Site) -> None:
    itb.fine("endpoints", "add", "hapi", "http://ehr.invalid/fhir")
    itb.fine("import", itb.file("events.ndjson", REFILL, DOSE_CHANGE))
    first, second = itb.fine("deliveries", "list").decode().splitlines()
    assert first.split("\t")[:5] == ["1", "hapi", f"{REFILL['source']}/R-1", "pending", "0 tries"]
    assert itb.fine("deliveries", "pause", "1") == b"1\tpause\n"
    assert itb.fine("deliveries", "list", "--status", "paused").decode().split("\t")[0] == "1"
    assert itb("deliveries", "skip", "1").exit_code == 2
    assert itb("deliveries", "resume", "1", "2").exit_code == 1
    assert itb.fine("deliveries", "list", "--status", "paused")
    itb.fine("deliveries", "resume", "1")
    itb.fine("deliveries", "skip", "1", "--reason", "on paper there")
    assert (
        itb.fine("deliveries", "list", "--status", "skipped").decode().split("\t")[-1] == "on paper there\n"
    )
    assert "no delivery 9" in itb("deliveries", "retry", "9").stderr
    itb.fine("deliveries", "retry", "1")
    itb.fine("deliveries", "cancel", "1", "2", "--reason", "another hospital")
    assert itb.fine("deliveries", "list", "--endpoint", "hapi", "--status", "pending") == b""
    assert "no endpoint x" in itb("deliveries", "list", "--endpoint", "x").stderr


def test_an_endpoint_is_paused_resumed_and_cleared(itb: Site) -> None:
    itb.fine("endpoints", "add", "hapi", "http://ehr.invalid/fhir")
    itb.fine("endpoints", "pause", "hapi")
    itb.fine("import", itb.file("events.ndjson", REFILL))
    assert itb.fine("endpoints", "resume", "hapi") == b"hapi\tresume\t1 deliveries\n"
    assert itb.fine("endpoints", "retry", "hapi") == b"hapi\tretry\t0 deliveries\n"
    assert itb.fine("endpoints", "skip", "hapi", "--reason", "x") == b"hapi\tskip\t0 deliveries\n"
    assert itb.fine("endpoints", "cancel", "hapi", "--reason", "x") == b"hapi\tcancel\t1 deliveries\n"
    assert "no endpoint other" in itb("endpoints", "pause", "other").stderr


def test_the_statuses_on_offer_are_those_that_there_are() -> None:
    (option,) = (o for o in cli.main.commands["deliveries"].commands["list"].params if o.name == "status")
    assert tuple(option.type.choices) == STATUSES
