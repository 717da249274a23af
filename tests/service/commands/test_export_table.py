"""`itb export-table`: every field in a column, every digit in a cell, and no name where none is asked for."""

from __future__ import annotations

import csv
import os
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet  # type: ignore[import-untyped]

import golden
import strategies
from mappings import MAPPINGS, load_event
from mappings.exact_json import dumps, loads
from mappings.fields import Line, Part, Prose, instant
from service import cli
from service.commands.exits import DONE, REFUSED, USAGE
from service.flat import tables as flat

Json = Any
FLAT = flat.tables()
STORIES = sorted(golden.FIXTURES.glob("storyline/*.ndjson"))


def run(*arguments: str | Path, env: dict[str, str], stdin: bytes = b"") -> Any:
    done = CliRunner().invoke(cli.main, [str(a) for a in arguments], env=env, input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    made = {"ITB_DATABASE_URL": f"sqlite:///{tmp_path}/itb.db"}
    run(
        "import",
        env=made,
        stdin=b"\n".join(line for path in STORIES for line in path.read_bytes().splitlines()),
    )
    return made


def put(node: Json, path: str, value: Json) -> None:
    *outer, last = path.split(".")
    for step in outer:
        node = node.setdefault(step, {})
    node[last] = value


def told_by(columns: tuple[flat.Column, ...], row: Json, cut: str = "") -> Json:
    """The part of an event that a row tells."""
    made: Json = {}
    units = {c.path: row[c.name] for c in columns if c.name.endswith("_unit")}
    for column in columns:
        value, path = row[column.name], column.path.removeprefix(cut)
        if value is None or column.kind in ("utc", "offset") or column.name.endswith("_unit"):
            continue
        if column.kind == "decimal":
            unit = units.get(column.path) or column.name.rpartition(f"{path.replace('.', '_')}_")[2]
            put(made, path, {"value": value, "unit": unit.replace("_per_", "/")})
        else:
            put(made, path, value.split() if column.kind == "words" else value)
    return made


def rebuilt(rows: list[tuple[str, Json]]) -> Json:
    """The event again, out of its rows."""
    (main, row), *items = rows
    event = told_by(FLAT[main], row)
    for table, item in items:
        listed = FLAT[table][3].path
        *outer, last = listed.split(".")
        node = event
        for step in outer:
            node = node.setdefault(step, {})
        held = node.setdefault(last, [])
        assert item["number"] == len(held) + 1 and (item["source"], item["id"]) == (row["source"], row["id"])
        held.append(told_by(FLAT[table][4:], item, f"{listed}."))
    return load_event(event)


@pytest.mark.parametrize("path", golden.GOLDEN, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_the_tables_hold_all_of_an_event(path: Path) -> None:
    for event in golden.events(path):
        assert dumps(rebuilt(list(flat.rows(event)))) == dumps(event)


@settings(max_examples=60)
@given(st.one_of(*strategies.EVENTS.values()))
def test_the_tables_hold_all_of_any_event(event: Json) -> None:
    event = load_event(event)
    assert dumps(rebuilt(list(flat.rows(event)))) == dumps(event)


def leaves(schema: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in schema.load_fields.items():
        path = f"{prefix}{name}"
        found |= leaves(field.schema, f"{path}.") if isinstance(field, Part) else {path: field}
    return found


def test_every_field_has_a_column_and_every_text_its_rule() -> None:
    texts = set()
    for kind, module in MAPPINGS.items():
        main = kind.replace("-", "_")
        shown = {c.path for t, cs in FLAT.items() if t.partition("__")[0] == main for c in cs}
        assert leaves(module.SCHEMA).keys() <= shown, kind
        texts |= {path for path, field in leaves(module.SCHEMA).items() if isinstance(field, (Line, Prose))}
    assert texts == set(flat.PEOPLE)
    assert {c.kind for columns in FLAT.values() for c in columns} == set(flat.KINDS)
    for table, columns in FLAT.items():
        assert len({c.name for c in columns}) == len(columns), table


def test_csv_and_parquet_say_the_same_digit_for_digit(tmp_path: Path, env: dict[str, str]) -> None:
    for form in ("csv", "parquet"):
        assert run("export-table", tmp_path / form, "--format", form, env=env).exit_code == DONE
        assert {p.name for p in (tmp_path / form).iterdir()} == {f"{table}.{form}" for table in FLAT}
    events = [loads(line) for line in run("export", env=env).stdout_bytes.splitlines()]
    for table, columns in FLAT.items():
        wanted = [row for event in events for name, row in flat.rows(event) if name == table]
        with (tmp_path / "csv" / f"{table}.csv").open(newline="") as file:
            assert list(csv.DictReader(file)) == [{k: flat.text(v) for k, v in row.items()} for row in wanted]
        held = parquet.read_table(tmp_path / "parquet" / f"{table}.parquet")
        assert not any(pyarrow.types.is_floating(t) for t in held.schema.types)
        assert held.to_pylist() == wanted
        for row in wanted:
            for column in columns:
                if column.kind == "utc" and row[column.name] is not None:
                    written = row[column.name.removesuffix("_utc")]
                    assert row[column.name] == instant(written).astimezone(UTC)


def test_what_parquet_cannot_hold_is_left_out_and_named(tmp_path: Path, env: dict[str, str]) -> None:
    refill = next(loads(r) for p in STORIES for r in p.read_bytes().splitlines() if b'"refill"' in r)
    odd = {
        **refill,
        "id": "odd",
        "volume_removed": {"value": Decimal("0.0000000000000000015"), "unit": "mL"},
    }
    run("import", env=env, stdin=dumps(odd))
    done = run("export-table", tmp_path / "p", "--format", "parquet", env=env)
    assert (done.exit_code, "unfit" in done.stderr) == (REFUSED, True)
    assert "odd" not in parquet.read_table(tmp_path / "p" / "refill.parquet")["id"].to_pylist()
    assert (
        run("export-table", tmp_path / "c", "--format", "csv", "--table", "refill", env=env).exit_code == DONE
    )
    assert "0.0000000000000000015" in (tmp_path / "c" / "refill.csv").read_text()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["refill.csv"]


# --- pseudonyms -----------------------------------------------------------------------------------------


def keyfile(tmp_path: Path, content: bytes = b"k" * 32, mode: int = 0o600) -> Path:
    path = tmp_path / f"key-{len(content)}-{mode}"
    path.write_bytes(content)
    os.chmod(path, mode)
    return path


def names_of(event: Json) -> set[str]:
    """What must not be read in a pseudonymised table."""
    found = {
        event["id"],
        event["patient"]["value"],
        event.get("pump"),
        event.get("serial"),
        event.get("note"),
    }
    found |= {event.get(who, {}).get("name") for who in ("performer", "verifier")}
    return {name for name in found if name is not None and len(name) > 3}


def pseudonymised(tmp_path: Path, env: dict[str, str]) -> str:
    for key in (b"k" * 32, b"l" * 32):
        folder = tmp_path / f"out-{key[:1].decode()}"
        call = ("export-table", folder, "--format", "csv", "--pseudonymise", keyfile(tmp_path, key))
        assert run(*call, env=env).exit_code == DONE
        (tmp_path / f"key-32-{0o600}").unlink()
    first, other = ((tmp_path / f"out-{k}" / "refill.csv").read_text() for k in "kl")
    assert first != other
    events = [loads(line) for line in run("export", env=env).stdout_bytes.splitlines()]
    content = "".join(path.read_text() for path in (tmp_path / "out-k").iterdir())
    for event in events:
        for name in names_of(event):
            assert name not in content, name
    with (tmp_path / "out-k" / "refill.csv").open(newline="") as file:
        refills = list(csv.DictReader(file))
    with (tmp_path / "out-k" / "dose_change.csv").open(newline="") as file:
        changes = list(csv.DictReader(file))
    assert {r["patient_value"] for r in refills} <= {r["patient_value"] for r in changes}
    assert {r["pump"] for r in refills} <= {r["pump"] for r in changes}
    assert len({r["patient_value"] for r in changes}) == len({dumps(e["patient"]) for e in events})
    assert {len(r["patient_value"]) for r in refills} == {32}
    return content


def test_pseudonyms_join_tables_and_name_nobody(tmp_path: Path, env: dict[str, str]) -> None:
    pseudonymised(tmp_path, env)


@pytest.mark.parametrize("path", ["patient.value", "pump", "serial", "note", "performer.name"])
def test_a_name_that_is_left_as_it_is_would_be_noticed(
    path: str, tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loads(STORIES[0].read_bytes().splitlines()[0])
    run("import", env=env, stdin=dumps({**first, "id": "D-note", "note": "Grandmother Ida"}))
    monkeypatch.setitem(flat.PEOPLE, path, "plain")
    with pytest.raises(AssertionError):
        pseudonymised(tmp_path, env)


def test_a_key_that_is_short_or_open_is_refused(tmp_path: Path, env: dict[str, str]) -> None:
    for key in (keyfile(tmp_path, b"short"), keyfile(tmp_path, b"k" * 32, 0o644)):
        call = ("export-table", tmp_path / "out", "--format", "csv", "--pseudonymise", key)
        assert run(*call, env=env).exit_code == USAGE
    assert not (tmp_path / "out").exists()
