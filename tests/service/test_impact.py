"""A change of the map shows in the FHIR of stored events, value by value, beside an older revision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import golden
from mappings import load_event, resources
from mappings.identity import resource_identity
from mappings.paths import copy
from service.impact import ROOT, compared

GIRL = golden.FIXTURES / "storyline" / "girl-9y.ndjson"
IN_GIT = (ROOT / ".git").exists()


def itb(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "impact", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def told() -> dict[str, Any]:
    event = golden.events(golden.FIXTURES / "golden/refill/everything.event.json")[-1]
    return {f"{r['resourceType']} {'|'.join(resource_identity(r))}": r for r in resources(load_event(event))}


def test_the_same_map_changes_nothing() -> None:
    assert list(compared(1, told(), told())) == []


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        (("dosage", "dose", "value"), 1, "clinical"),
        (("dosage", "dose", "unit"), "L", "clinical"),
        (("status",), "stopped", "clinical"),
        (("dosage", "text"), "other words", "words"),
        (("identifier", 0, "value"), "another", "identifier"),
    ],
)
def test_a_difference_is_named_and_weighed(path: tuple[Any, ...], value: Any, kind: str) -> None:
    old, new = told(), copy(told())
    node = next(resource for name, resource in new.items() if name.startswith("MedicationAdministration"))
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (change,) = compared(7, old, new)
    assert (change.line, change.kind, change.after) == (7, kind, value)


def test_digits_count() -> None:
    old, new = told(), copy(told())
    dose = next(r for name, r in new.items() if name.startswith("MedicationAdministration"))["dosage"]["dose"]
    dose["value"] = dose["value"].normalize()
    assert [change.kind for change in compared(1, old, new)] == ["clinical"]


def test_an_event_that_is_refused_now_is_a_difference() -> None:
    kinds = {c.kind for c in compared(1, told(), {"refused": {"because": "x"}})}
    assert "refused" in kinds


@pytest.mark.skipif(not IN_GIT, reason="the older revision is read from git")
def test_the_present_revision_beside_itself(tmp_path: Path) -> None:
    done = itb("HEAD", str(GIRL))
    assert "events; differences:" in done.stdout, done.stderr
    missing = itb("no-such-revision", str(GIRL))
    assert (missing.returncode, "no such revision" in missing.stderr) == (1, True)
