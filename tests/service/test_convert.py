"""`itb convert` in a stream: bytes in, bytes out, bad lines named, memory bounded by pumps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mappings import load_event, stream
from mappings.exact_json import dumps, loads, reread
from service import cli, conversion

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
STORYLINES = sorted((FIXTURES / "storyline").glob("*.ndjson"))


def run(*arguments: str, stdin: bytes = b"") -> Any:
    return CliRunner().invoke(cli.main, arguments, input=stdin)


def test_there_are_storylines() -> None:
    assert len(STORYLINES) >= 3


@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_a_storyline_comes_back_byte_for_byte(path: Path) -> None:
    there = run("convert", "to-fhir", str(path))
    assert there.exit_code == 0, there.stderr
    back = run("convert", "from-fhir", stdin=there.stdout_bytes)
    assert back.exit_code == 0, back.stderr
    assert back.stdout_bytes == path.read_bytes()


@pytest.mark.parametrize("path", STORYLINES, ids=lambda p: p.stem)
def test_a_storyline_is_in_canonical_form(path: Path) -> None:
    for line in path.read_bytes().splitlines():
        assert dumps(load_event(loads(line))) == line


def test_a_dose_change_closes_the_one_before_in_its_own_transaction() -> None:
    bundles = [loads(r.out[0]) for r in conversion.to_fhir(STORYLINES_BY["girl-9y"])]
    changes = [b for b in bundles if any(e["resource"]["resourceType"] == "Procedure" for e in b["entry"])]
    open_now: dict[str, Any] = {}
    for bundle in changes:
        for entry in bundle["entry"]:
            resource = entry["resource"]
            system = next(iter(resource.get("identifier", [])), {}).get("system", "")
            if system.endswith("/segment"):
                value = resource["identifier"][0]["value"]
                if resource["status"] == "in-progress":
                    open_now[value] = resource
                else:
                    open_now.pop(value)
        assert len(open_now) == 1


STORYLINES_BY = {path.stem: path.read_bytes().splitlines() for path in STORYLINES}


def test_a_bad_line_is_named_and_the_others_go_on() -> None:
    good = STORYLINES_BY["girl-9y"]
    broken = [good[0], b'{"type":"refill"', b"\xff", b'{"type":"refill","type":"device"}', good[1]]
    done = run("convert", "to-fhir", stdin=b"\n".join(broken))
    assert done.exit_code == 1
    assert len(done.stdout_bytes.splitlines()) == 2
    named = [line.split(": ")[:3] for line in done.stderr.splitlines()]
    assert [(n[0], n[2]) for n in named] == [
        ("line 2", "json"),
        ("line 3", "utf-8"),
        ("line 4", "duplicate-key"),
    ]


def test_an_unknown_predecessor_is_said_and_not_invented() -> None:
    changes = [line for line in STORYLINES_BY["girl-9y"] if b'"before"' in line]
    (converted,) = conversion.to_fhir(changes[:1])
    resources = [e["resource"] for e in loads(converted.out[0])["entry"]]
    orders = [r for r in resources if r["resourceType"] == "MedicationRequest"]
    assert len(orders) == 1
    assert orders[0]["priorPrescription"]["extension"][0]["valueCode"] == "unknown"
    assert "reference" not in orders[0]["priorPrescription"]


def test_more_than_the_reservoir_holds_is_refused_with_rule_r1() -> None:
    lines = list(STORYLINES_BY["girl-9y"])
    refill = loads(next(line for line in lines if b'"refill"' in line))
    refill |= {"id": "R-too-much", "volume_instilled": {"value": 21, "unit": "mL"}}
    *_, last = conversion.to_fhir([*lines, dumps(refill)])
    assert [(i.path, i.rule) for i in last.errors] == [("volume_instilled", "R1")]


def test_memory_grows_with_pumps_and_not_with_events() -> None:
    change = loads(next(line for line in STORYLINES_BY["girl-9y"] if b'"before"' in line))
    converter = conversion.Converter()
    for n in range(50):
        converter.to_fhir(load_event(change | {"id": f"P-{n}"}))
    assert [len(reread(kept)) for kept in converter._programs.values()] == [stream.KEPT]


def test_the_progress_bar_stays_out_of_pipes() -> None:
    assert run("convert", "to-fhir", stdin=b"").stderr == ""
    assert list(conversion.to_fhir(io.BytesIO(b"\n\n"))) == []
