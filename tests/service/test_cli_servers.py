"""`itb doctor ENDPOINT`: a server is asked, and the answer shown, before anything is sent to it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mappings.exact_json import loads
from service import cli
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving

NOBODY = "http://127.0.0.1:9/fhir"


class Itb:
    """The command on a ledger of its own."""

    def __init__(self, folder: Path) -> None:
        self.env = {"ITB_DATABASE_URL": f"sqlite:///{folder}/itb.db"}

    def __call__(self, *arguments: str) -> Any:
        done = CliRunner().invoke(cli.main, arguments, env=self.env)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done


@pytest.fixture
def itb(tmp_path: Path) -> Itb:
    return Itb(tmp_path)


@pytest.mark.parametrize(
    ("personality", "rung"), [("hapi", "transaction"), ("epic-like", "chart"), ("oracle-like", "chart")]
)
def test_the_card_of_a_server_is_shown_when_it_is_added_and_when_it_is_asked_for(
    itb: Itb, personality: str, rung: str
) -> None:
    with serving(FakeEhr(load(personality))) as url:
        added = itb("endpoints", "add", "ehr", url)
        done = itb("doctor", "ehr")
        as_json = itb("doctor", "ehr", "--json")
    assert (added.exit_code, done.exit_code, as_json.exit_code) == (0, 0, 0)
    assert added.stdout == f"ehr\t{url}\t0 events to deliver\n"
    assert done.stdout == added.stderr
    refills = [event for event in loads(as_json.stdout.encode())["events"] if event["type"] == "refill"]
    assert [(refill["rung"], refill["lost"]) for refill in refills] == [(rung, [])]
    assert f"  refill          {rung}" in done.stdout


def test_a_loss_is_said_and_ends_with_1(itb: Itb) -> None:
    with serving(FakeEhr(load("epic-like"))) as url:
        itb("endpoints", "add", "ehr", url, "--refuse-type", "DocumentReference")
        done = itb("doctor", "ehr")
    assert done.exit_code == 1
    assert "LOST: drug.name" in done.stdout


def test_a_server_that_does_not_answer_is_named_and_asked_again_later(itb: Itb) -> None:
    added = itb("endpoints", "add", "ehr", NOBODY)
    assert (added.exit_code, "FAIL  Unreachable" in added.stderr) == (0, True)
    done = itb("doctor", "ehr")
    assert (done.exit_code, "FAIL  Unreachable" in done.stdout) == (1, True)
    assert itb("doctor", "ehr", "--json").exit_code == 1


def test_what_a_server_said_before_is_shown_while_it_is_away(itb: Itb) -> None:
    with serving(FakeEhr(load("epic-like"))) as url:
        itb("endpoints", "add", "ehr", url)
    done = itb("doctor", "ehr")
    assert done.exit_code == 1
    assert "below is what it said before" in done.stdout
    assert "  refill          chart" in done.stdout


def test_a_receiver_of_messages_is_added_by_its_map_and_judged(itb: Itb, tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text('receiving = ["ENGINE", "WARD"]\nversion = "2.5.1"\n')
    with socket.create_server(("127.0.0.1", 0)) as there:
        url = f"mllp://127.0.0.1:{there.getsockname()[1]}"
        added = itb("endpoints", "add", "ward", url, "--map", str(file), "--sender", "engine-a")
        card, whole = itb("doctor", "ward"), itb("doctor")
    assert (added.exit_code, card.exit_code) == (0, 0)
    assert card.stdout.splitlines()[0] == f"ward\t{url}\tHL7 v2.5.1"
    assert f"ok    HL7 v2 receiver ward: {url}: takes connections" in whole.stdout
    away = itb("doctor", "ward")
    assert (away.exit_code, "FAIL  no MLLP connection: ConnectionRefusedError" in away.stdout) == (1, True)
    assert f"FAIL  HL7 v2 receiver ward: {url}: no MLLP connection" in itb("doctor").stdout
    for command in (("reconcile", "ward"), ("endpoints", "subscribe", "ward", "http://here.invalid")):
        done = itb(*command)
        assert (done.exit_code, "nothing can be read from it" in done.stderr) == (1, True)
    taken = itb("endpoints", "add", "other", url, "--sender", "engine-a")
    assert "is the sender of endpoint ward already" in taken.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mllp://127.0.0.1",), "mllp(s)://HOST:PORT"),
        (("mllp://127.0.0.1:9", "--ca", "ca.pem"), "mllps:// receiver"),
        (("http://ehr.invalid/fhir", "--answer-seconds", "5"), "mllp:// receiver"),
    ],
)
def test_a_receiver_that_cannot_be_used_is_refused(itb: Itb, arguments: tuple[str, ...], words: str) -> None:
    done = itb("endpoints", "add", "ward", *arguments)
    assert (done.exit_code, words in done.stderr) == (2, True)


def test_a_map_that_cannot_be_used_is_refused(itb: Itb, tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    for text, words in (("zone = 3", "zone"), ("zone = ", "--map")):
        file.write_text(text)
        done = itb("endpoints", "add", "ward", "mllp://127.0.0.1:9", "--map", str(file))
        assert (done.exit_code, words in done.stderr) == (2, True)


def test_an_endpoint_that_is_not_there_is_named(itb: Itb) -> None:
    done = itb("doctor", "nobody")
    assert (done.exit_code, done.stderr) == (1, "Error: there is no endpoint nobody\n")
    assert itb("doctor", "--json").exit_code == 2
