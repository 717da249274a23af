"""`itb doctor ENDPOINT`: a server is asked, and the answer shown, before anything is sent to it."""

from __future__ import annotations

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


def test_an_endpoint_that_is_not_there_is_named(itb: Itb) -> None:
    done = itb("doctor", "nobody")
    assert (done.exit_code, done.stderr) == (1, "Error: there is no endpoint nobody\n")
    assert itb("doctor", "--json").exit_code == 2
