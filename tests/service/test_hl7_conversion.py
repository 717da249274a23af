"""HL7 v2 on the command line and over HTTP: any form of stream, back byte for byte, refusals with places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

import golden
from mappings import load_event
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, dump, parse, write
from mappings.hl7v2.framing import FRAMES, framed
from mappings.rows import MappingError
from service import cli
from service.senders import senders
from service.settings import Settings, SettingsError

HL7 = golden.FIXTURES / "hl7v2"
SENDER = str(HL7 / "sender.toml")
READ = [p for p in golden.HL7 if p.parent.name == "read"]
STORYLINES = sorted((golden.FIXTURES / "storyline").glob("*.ndjson"))
ER7 = "x-application/hl7-v2+er7"
JSON = "application/json"


def run(*arguments: str, stdin: bytes = b"") -> Any:
    return CliRunner().invoke(cli.main, ["convert", *arguments], input=stdin)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_a_storyline_goes_through_messages_and_fhir_and_comes_back(path: Path, frame: str) -> None:
    sent = run("events-to-hl7", "--frame", frame, str(path))
    assert sent.exit_code == 0, sent.stderr
    events = run("hl7-to-events", stdin=sent.stdout_bytes)
    assert (events.exit_code, events.stdout_bytes) == (0, path.read_bytes())
    bundles = run("hl7-to-fhir", stdin=sent.stdout_bytes)
    assert bundles.stdout_bytes == run("to-fhir", str(path)).stdout_bytes
    back = run("fhir-to-hl7", "--frame", frame, stdin=bundles.stdout_bytes)
    assert (back.exit_code, back.stdout_bytes) == (0, sent.stdout_bytes)


def test_foreign_messages_come_back_byte_for_byte_and_the_report_says_that_nothing_is_lost(
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.ndjson"
    for path in READ:
        there = run("hl7-to-fhir", "--sender", SENDER, "--losses", str(report), str(path))
        assert there.exit_code == 0, there.stderr
        assert [account["lost"] for account in map(loads, report.read_bytes().splitlines())] == [[]]
        back = run("fhir-to-hl7", "--sender", SENDER, stdin=there.stdout_bytes)
        assert back.stdout_bytes == path.read_bytes()


def test_the_report_of_events_says_what_they_do_not_hold(tmp_path: Path) -> None:
    report = tmp_path / "report.ndjson"
    run(
        "hl7-to-events",
        "--sender",
        SENDER,
        "--losses",
        str(report),
        str(HL7 / "read/refill-with-route-it.hl7"),
    )
    (account,) = map(loads, report.read_bytes().splitlines())
    assert account["control_id"] == "77"
    assert {"path": "ZIT[1]", "rule": "lost"} in account["lost"]
    run("hl7-to-fhir", "--no-original", "--sender", SENDER, "--losses", str(report), str(READ[0]))
    (account,) = map(loads, report.read_bytes().splitlines())
    assert account["lost"]


def inputs(folder: Path, command: str, frame: str) -> list[bytes]:
    """The pieces of an input for a command: two children's histories, with a bad piece among them."""
    events = [line + b"\n" for path in STORYLINES[:2] for line in path.read_bytes().splitlines()]
    if command == "events-to-hl7":
        return [*events[:3], b"{}\n", *events[3:]]
    sent = [framed(write(load_event(loads(line))), frame) for line in events]
    if command == "fhir-to-hl7":
        made = run("hl7-to-fhir", stdin=b"".join(sent)).stdout_bytes.splitlines(keepends=True)
        return [*made[:3], b"[]\n", *made[3:]]
    return [*sent[:3], sent[0].replace(b"MSH", b"HSM"), *sent[3:]]


@pytest.mark.parametrize("frame", ["mllp", "ndjson"])
@pytest.mark.parametrize("command", ["hl7-to-fhir", "hl7-to-events", "events-to-hl7", "fhir-to-hl7"])
def test_a_conversion_goes_on_where_its_checkpoint_says_byte_for_byte(
    command: str, frame: str, tmp_path: Path
) -> None:
    pieces = inputs(tmp_path, command, frame)
    file, out, job, losses = (tmp_path / name for name in ("in", "out", "job.ck", "losses"))
    more = ["--losses", str(losses)] if command.startswith("hl7") else ["--frame", frame]
    arguments = (command, *more, "--out", str(out), "--checkpoint", str(job), str(file))
    file.write_bytes(b"".join(pieces[: len(pieces) // 2]))
    assert run(*arguments).exit_code == 1
    with out.open("ab") as half:
        half.write(b"what a kill left behind the checkpoint")
    file.write_bytes(b"".join(pieces))
    assert run(*arguments).exit_code == 1
    (tmp_path / "once").mkdir()
    whole = [text.replace(str(tmp_path / "losses"), str(tmp_path / "once" / "losses")) for text in more]
    assert out.read_bytes() == run(command, *whole, str(file)).stdout_bytes
    if losses.exists():
        assert losses.read_bytes() == (tmp_path / "once" / "losses").read_bytes()
    file.write_bytes(b"".join([pieces[1], *pieces[1:]]))
    changed = run(*arguments)
    assert (changed.exit_code, "are not those that were done" in changed.stderr) == (4, True)


def test_a_checkpoint_is_of_one_senders_file(tmp_path: Path) -> None:
    sender, file = tmp_path / "sender.toml", tmp_path / "in"
    file.write_bytes(READ[0].read_bytes())
    arguments = ("hl7-to-events", "--sender", str(sender), "--out", str(tmp_path / "out"))
    arguments = (*arguments, "--checkpoint", str(tmp_path / "job.ck"), str(file))
    sender.write_bytes(Path(SENDER).read_bytes())
    assert run(*arguments).exit_code == 0
    sender.write_bytes(Path(SENDER).read_bytes() + b"\n# changed\n")
    assert run(*arguments).exit_code == 4


def test_a_bad_message_is_named_and_the_others_go_on() -> None:
    good = (golden.FIXTURES / "golden/refill/first.hl7").read_bytes()
    bad = good.replace(b"|mL^mL^UCUM", b"|cc^cc^UCUM", 1)
    found = run("hl7-to-events", stdin=good + bad + b"MSH|nonsense\r" + good)
    assert found.exit_code == 1
    assert len(found.stdout_bytes.splitlines()) == 2
    assert "message 2: RXA[1]-6: unit: " in found.stderr
    assert "message 3: MSH-2: separators: " in found.stderr


def test_a_scheduler_gets_a_report() -> None:
    good = (golden.FIXTURES / "golden/refill/first.hl7").read_bytes()
    found = run("hl7-to-events", "--report", "json", stdin=good + b"MSH|nonsense\r")
    told = loads(found.stderr.splitlines()[-1].encode())
    assert (told["status"], told["counts"]) == (1, {"converted": 1, "refused": 1, "written": 1})
    assert told["items"][0]["line"] == 2


def test_a_wrong_sender_file_is_a_usage_error(tmp_path: Path) -> None:
    for name, text in (("a.toml", "zone = 'Mars'"), ("b.toml", "zone ="), ("c.json", "[]")):
        (tmp_path / name).write_text(text)
        found = run("hl7-to-events", "--sender", str(tmp_path / name))
        assert found.exit_code == 2
        assert name in found.stderr


def test_another_message_is_written_where_it_tells_the_event() -> None:
    event = dumps(golden.events(golden.FIXTURES / "golden/dose-change/titration.event.json")[-1])
    found = run("events-to-hl7", "--message", "ORU^R42", stdin=event)
    assert b"|ORU^R42^ORU_R01|" in found.stdout_bytes
    assert run("events-to-hl7", "--message", "RAS^O17", stdin=event).exit_code == 1


# --- HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture
def hospital(make_app: Callable[..., Flask], tmp_path: Path) -> Any:
    folder = tmp_path / "senders"
    folder.mkdir()
    (folder / "hospital.toml").write_bytes(Path(SENDER).read_bytes())
    made = make_app(hl7_senders=str(folder), require_key=False)
    yield made.test_client()
    made.extensions["itb"].store.close()


def post(client: FlaskClient, name: str, data: bytes, type: str = ER7, **headers: str) -> Any:
    return client.post(f"/api/v1/convert/{name}", data=data, content_type=type, headers=headers)


@pytest.mark.parametrize("path", READ, ids=lambda p: p.stem)
def test_a_message_is_converted_over_http_and_back(hospital: FlaskClient, path: Path) -> None:
    there = post(hospital, "hl7-to-fhir?sender=hospital", path.read_bytes())
    assert there.status_code == 200, there.data
    assert there.mimetype == "application/fhir+json"
    back = post(hospital, "fhir-to-hl7?sender=hospital", there.data, "application/fhir+json")
    assert (back.status_code, back.mimetype, back.data) == (200, ER7, path.read_bytes())


def test_several_messages_are_one_bundle_and_notes_are_there_for_who_asks(hospital: FlaskClient) -> None:
    sent = b"".join(framed(golden.message(path), "text") for path in READ)
    made = post(hospital, "hl7-to-fhir?sender=hospital", sent, Accept=JSON)
    assert made.status_code == 200, made.data
    told = loads(made.data)
    assert told["bundle"]["type"] == "transaction"
    assert "mg-to-ug" in {note["rule"] for note in told["notes"]}
    assert all(note["path"].startswith("[") for note in told["notes"])


def test_a_refused_message_is_a_problem_that_names_the_field(client: FlaskClient) -> None:
    good = dump(write(load_event(loads((golden.FIXTURES / "golden/refill/first.event.json").read_bytes()))))
    found = post(client, "hl7-to-fhir", good.replace(b"|mL^mL^UCUM", b"|cc", 1))
    assert found.status_code == 422
    assert [(e["path"], e["rule"]) for e in loads(found.data)["errors"]] == [("RXA[1]-6", "unit")]
    found = post(client, "hl7-to-fhir", good + b"MSH|x\r")
    assert [(e["path"], e["rule"]) for e in loads(found.data)["errors"]] == [("[1].MSH-2", "separators")]
    assert post(client, "hl7-to-fhir", b"").status_code == 422
    assert post(client, "hl7-to-fhir?sender=nobody", good).status_code == 422
    assert post(client, "hl7-to-fhir", good, "text/plain").status_code == 415
    assert post(client, "fhir-to-hl7", b"{}", JSON).status_code == 422
    assert post(client, "fhir-to-hl7?message=QBP", good, JSON).status_code == 422


def test_http_writes_what_the_library_writes(client: FlaskClient) -> None:
    event = golden.events(golden.FIXTURES / "golden/dose-change/start.event.json")[-1]
    bundle = dumps(golden.bundle(golden.FIXTURES / "golden/dose-change/start.event.json"))
    made = post(client, "fhir-to-hl7?message=ORU^R42", bundle, JSON)
    assert made.data == dump(write(event, message="ORU^R42"))
    assert parse(made.data).field("MSH", 9) == "ORU^R42^ORU_R01"


def test_a_folder_of_senders_is_read_by_name_or_refused(tmp_path: Path, settings: Settings) -> None:
    assert senders("") == {}
    (tmp_path / "b.json").write_text('{"version": "2.8"}')
    (tmp_path / "notes.txt").write_text("no sender")
    assert senders(str(tmp_path)) == {"b": SenderMap(version="2.8")}
    (tmp_path / "Big House.toml").write_text("")
    with pytest.raises(MappingError):
        senders(str(tmp_path))
    (tmp_path / "Big House.toml").unlink()
    (tmp_path / "c.toml").write_text("zone = 'Mars'")
    from service.app import create_app

    with pytest.raises(SettingsError, match=r"c\.toml: zone"):
        create_app(replace(settings, hl7_senders=str(tmp_path)))
    with pytest.raises(SettingsError):
        create_app(replace(settings, hl7_senders=str(tmp_path / "none")))
