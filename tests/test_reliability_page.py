"""docs/reliability.md has every fault and crash point, and names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from crash_points import POINTS
from history import INVARIANTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = re.findall(r"^\| ([Rc]\d+) \| (.+?) \| (.+?) \|$", PAGE, re.M)
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+)::(\w+)`", PAGE)))
ALL = [f"R{n}" for n in range(1, 24)] + [f"c{n}" for n in range(1, 21)]


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_and_crash_point_has_one_row() -> None:
    assert [id for id, _, _ in ROWS] == ALL


@pytest.mark.parametrize(("id", "where", "what"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_a_test_or_a_reason(id: str, where: str, what: str) -> None:
    assert "`tests/" in what or len(what.split()) >= 6


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name in functions(path)


def test_the_crash_points_are_those_of_the_runs() -> None:
    of_the_runs = {id for id, _, what in ROWS if "it fires there" in what and id[0] == "c"}
    assert of_the_runs == POINTS.keys()


def test_the_invariants_are_those_of_the_checker() -> None:
    assert re.findall(r"^\| (I\d) \|", PAGE, re.M) == list(INVARIANTS)
