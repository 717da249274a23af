"""`itb import-csv`: what each cell means is stated or refused, row by row, and rows are taken in once."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import golden
from mappings import MAPPINGS, MappingError
from mappings.exact_json import loads
from mappings.fields import Part
from service import cli
from service.commands import checkpoint
from service.commands.exits import REFUSED, USAGE
from service.csv import cells as csv_cells
from service.csv import columns as csv_map
from service.csv import rows as csv_rows

Json = Any
FOLDER = golden.FIXTURES / "csv"
MAPS = sorted(FOLDER.glob("*.toml"))
MAP = (FOLDER / "refill-log.toml").read_text()
LOG = (FOLDER / "refill-log.csv").read_bytes()
TOLD = csv_map.load(MAP)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"ITB_DATABASE_URL": f"sqlite:///{tmp_path}/itb.db"}


def run(*arguments: str | Path, env: dict[str, str]) -> Any:
    done = CliRunner().invoke(cli.main, [str(a) for a in arguments], env=env)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def report_of(done: Any) -> Json:
    return loads(done.stdout.splitlines()[-1].encode())


def exported(env: dict[str, str]) -> list[Json]:
    return [loads(line) for line in run("export", env=env).stdout_bytes.splitlines()]


def read(content: bytes, told: csv_map.CsvMap = TOLD) -> list[csv_rows.Row]:
    records = csv_rows.records(io.BytesIO(content), told.multiline)
    names = csv_rows.header_of(next(records)[1], told)
    return list(csv_rows.rows(records, names, told))


# --- the examples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MAPS, ids=lambda p: p.stem)
def test_each_example_is_taken_in_once(path: Path, env: dict[str, str]) -> None:
    file = path.with_suffix(".csv")
    rows = len(file.read_bytes().splitlines()) - 1
    assert report_of(run("import-csv", "--map", path, file, env=env)) == {"accepted": rows}
    assert report_of(run("import-csv", "--map", path, file, env=env)) == {"replayed": rows}
    expected = path.with_suffix(".events.ndjson").read_bytes()
    assert run("export", env=env).stdout_bytes == expected


# --- what is refused ------------------------------------------------------------------------------------

HEAD, FIRST = LOG.splitlines()[:2]
CELLS: dict[str, tuple[bytes, bytes, str, str]] = {
    "a comma where a point is stated": (b",20.0,", b',"20,0",', "volume_instilled", "decimal"),
    "groups that are not of three": (b",500,", b',"5,00",', "drug.concentration", "decimal"),
    "two points": (b",3.1,", b",3.1.0,", "volume_expected", "decimal"),
    "a number with its unit": (b",20.0,", b",20.0 mL,", "volume_instilled", "decimal"),
    "an exponent": (b",500,", b",5e2,", "drug.concentration", "decimal"),
    "a time that was twice": (b"02/03/2025,10:15 AM", b"11/02/2025,1:30 AM", "occurred_at", "time-zone"),
    "a time that never was": (b"02/03/2025,10:15 AM", b"03/09/2025,2:30 AM", "occurred_at", "time-zone"),
    "a day of another order": (b"02/03/2025", b"25/03/2025", "occurred_at", "date"),
    "a time without AM or PM": (b"10:15 AM", b"10:15", "occurred_at", "date"),
    "an expiry of another form": (b"09/2027", b"09/30/2027", "drug.expires_on", "date"),
    "half a time": (b"10:15 AM", b"-", "id", "required"),
    "no lot": (b",A1234,", b",,", "drug.lot", "required"),
    "half a stick": (b",20.0,1,", b",20.0,1.5,", "needle_passes", "type"),
    "a negative volume": (b",3.0,", b",-3.0,", "volume_removed.value", "negative"),
    "no baclofen": (b",Gablofen,", b",Morphine,", "drug.name", "drug"),
    "a cell too many": (b",20.0,", b",20,0,", "$", "csv"),
    "a lost quote": (b",RN Ito,", b',"RN Ito,', "$", "csv"),
    "bytes of another encoding": (b",RN Ito,", b",RN It\xf6,", "$", "encoding"),
}


def refusal(name: str) -> None:
    before, after, path, rule = CELLS[name]
    assert before in FIRST
    bad, good = read(b"\n".join([HEAD, FIRST.replace(before, after, 1), FIRST]))
    assert bad.event is None and (path, rule) in [(i.path, i.rule) for i in bad.issues], bad.issues
    assert good.event is not None and (bad.line, good.line) == (2, 3)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_not_as_stated_is_refused_and_the_next_row_goes_on(name: str) -> None:
    refusal(name)


def test_a_reason_names_the_column_and_not_what_stands_there() -> None:
    (row,) = read(b"\n".join([HEAD, FIRST.replace(b",20.0,", b",secret,").replace(b",A1234,", b",,")]))
    (issue,) = row.issues
    assert "'In mL'" in issue.message and "secret" not in issue.message


def edited(old: str, new: str) -> str:
    assert old in MAP, old
    return MAP.replace(old, new, 1)


MAPS_REFUSED = {
    "not TOML": ("[file]", "[file", "$", "toml"),
    "no decimal mark": ('decimal = "."\n', "", "file.decimal", "required"),
    "no encoding": ('encoding = "utf-8"\n', "", "file.encoding", "required"),
    "no zone": ('time_zone = "America/Chicago"\n', "", "file.time_zone", "time-zone"),
    "no such zone": ("America/Chicago", "America/Chicag", "file.time_zone", "time-zone"),
    "one mark for two": ('thousands = ","', 'thousands = "."', "file.thousands", "map"),
    "no id": ('columns = ["Serial", "Date", "Time"]', "columns = []", "id.columns", "required"),
    "no unit": ('column = "In mL"\nunit = "mL"', 'column = "In mL"', 'fields."volume_instilled"', "unit"),
    "a unit of another kind": (
        'column = "In mL"\nunit = "mL"',
        'column = "In mL"\nunit = "ug"',
        'fields."volume_instilled".unit',
        "unit",
    ),
    "mg without a word": ('unit = "mcg/mL"', 'unit = "mg/mL"', 'fields."drug.concentration".unit', "U1"),
    "a date for a time": (
        '"%m/%d/%Y %I:%M %p"',
        '"%m/%d/%Y"',
        'fields."occurred_at".time_of_day',
        "time",
    ),
    "noon or midnight": ("%I:%M %p", "%I:%M", 'fields."occurred_at".format', "time"),
    "a year of two digits": ("%m/%Y", "%m/%y", 'fields."drug.expires_on".century', "date"),
    "a language": ("%m/%Y", "%b %Y", 'fields."drug.expires_on".format', "date"),
    "no such field": ("[fields.note]", "[fields.notes]", 'fields."notes"', "unknown-field"),
    "a part": ('[fields."drug.lot"]', "[fields.drug]", 'fields."drug"', "unknown-field"),
    "a key of another kind": (
        'column = "Lot"',
        'column = "Lot"\nunit = "mL"',
        'fields."drug.lot".unit',
        "map",
    ),
    "a key that is not known": ('column = "Lot"', 'colum = "Lot"', 'fields."drug.lot".colum', "map"),
    "a number that is not exact": (
        'column = "In mL"',
        "constant = 20.5",
        'fields."volume_instilled".constant',
        "map",
    ),
}


@pytest.mark.parametrize("name", MAPS_REFUSED)
def test_a_map_that_leaves_something_open_is_refused(name: str) -> None:
    old, new, path, rule = MAPS_REFUSED[name]
    with pytest.raises(MappingError) as refused:
        csv_map.load(edited(old, new))
    assert (path, rule) in [(i.path, i.rule) for i in refused.value.issues], refused.value.issues


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEAD.replace(b"Room", b"Weight"), "'Weight' is neither mapped nor named"),
        (HEAD.replace(b"In mL", b"In"), "there is no column 'In mL'"),
        (HEAD.replace(b"Room", b"In mL"), "'In mL' stands there twice"),
    ],
)
def test_a_header_that_does_not_fit_stops_before_the_first_row(
    header: bytes, words: str, tmp_path: Path, env: dict[str, str]
) -> None:
    file = tmp_path / "log.csv"
    file.write_bytes(b"\n".join([header, FIRST]))
    done = run("import-csv", "--map", FOLDER / "refill-log.toml", file, env=env)
    assert (done.exit_code, words in done.stderr, exported(env)) == (USAGE, True, [])


# --- what is kept exactly -------------------------------------------------------------------------------


@given(st.decimals(0, 10**9, places=None, allow_nan=False).filter(lambda d: "E" not in str(d)), st.booleans())
def test_a_number_keeps_every_digit(value: Decimal, grouped: bool) -> None:
    for decimal, thousands in ((".", ","), (",", ".")):
        text = f"{value:,f}" if grouped else f"{value:f}"
        cell = text.translate(str.maketrans({".": decimal, ",": thousands}))
        found = csv_cells.number(cell, decimal, thousands if grouped else "")
        assert format(found, "f") == format(value, "f")


ZONES = ("America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu")


@given(st.sampled_from(ZONES), st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)))
def test_a_local_time_means_one_instant_or_is_refused(name: str, local: datetime) -> None:
    where = ZoneInfo(name)
    # What the zone's clock showed at each instant around it: the times at which it showed `local`.
    start = datetime(local.year, local.month, local.day, tzinfo=UTC)
    offsets = {(start + timedelta(hours=h)).astimezone(where).utcoffset() for h in range(-24, 48)}
    showing = {
        (local - offset).replace(tzinfo=UTC)
        for offset in offsets
        if offset is not None and (local - offset).replace(tzinfo=UTC).astimezone(where).utcoffset() == offset
    }
    try:
        found = datetime.fromisoformat(csv_cells.with_offset(local, where))
    except csv_cells.CellError as error:
        assert error.rule == "time-zone" and len(showing) != 1
    else:
        assert {found.astimezone(UTC)} == showing and found.replace(tzinfo=None) == local


def test_ids_of_two_columns_never_meet() -> None:
    text = edited('columns = ["Serial", "Date", "Time"]', 'columns = ["Lot", "Room"]')
    told = csv_map.load(text.replace('ignore = ["Room"]', ""))
    rows = [
        FIRST.replace(b"A1234", lot).removesuffix(b"4") + room
        for lot, room in ((b"a/b", b"c"), (b"a", b"b/c"), (b"a%2Fb", b"c"))
    ]
    ids = [row.id for row in read(b"\n".join([HEAD, *rows]), told)]
    assert len(set(ids)) == 3 and None not in ids


def test_a_constant_goes_with_its_part_and_milligrams_are_noted() -> None:
    told = csv_map.load((FOLDER / "dose-changes.toml").read_text())
    first, second = read((FOLDER / "dose-changes.csv").read_bytes(), told)
    assert first.event is not None and "before" not in first.event
    assert second.event is not None and second.event["before"]["mode"] == "simple"
    assert [(n.path, n.rule) for n in second.notes] == [
        ("before.concentration", "mg-to-ug"),
        ("after.concentration", "mg-to-ug"),
    ]


def test_what_was_converted_is_in_the_audit(env: dict[str, str]) -> None:
    from service.store import audit
    from service.store.engine import Store

    path = FOLDER / "dose-changes.toml"
    run("import-csv", "--map", path, path.with_suffix(".csv"), env=env)
    store = Store(env["ITB_DATABASE_URL"])
    with store.read() as c:
        rows = [row for row in audit.of(c, 1, "event/programmer-export/S-101") if row.action == "converted"]
    store.close()
    assert len(rows) == 1 and "0.5 mg/mL was read as 500 ug/mL" in rows[0].detail


def test_lines_of_one_cell_are_kept_where_the_map_allows_them() -> None:
    told = csv_map.load(edited('decimal = "."', 'decimal = "."\nmultiline = true'))
    record = FIRST.replace(b",1,,4", b',1,"one\ntwo",4')
    row, last = read(b"\n".join([HEAD, record, FIRST]), told)
    assert row.event is not None and row.event["note"] == "one\ntwo"
    assert (row.line, last.line) == (3, 4)
    assert read(b"\n".join([HEAD, record]))[0].event is None


# --- mend and go on -------------------------------------------------------------------------------------


def test_refused_rows_are_mended_in_their_file_and_given_again(tmp_path: Path, env: dict[str, str]) -> None:
    log, refused, again = (tmp_path / name for name in ("log.csv", "refused.csv", "again.csv"))
    lines = LOG.splitlines()
    lines[1] = lines[1].replace(b",20.0,", b',"20,0",')
    lines[3] = lines[3].replace(b",20,", b",200,")
    lines.insert(2, FIRST.replace(b"02/03/2025", b"04/04/2025").replace(b",20.0,", b",20,0,"))
    log.write_bytes(b"\r\n".join(lines) + b"\r\n")
    command = ("import-csv", "--map", FOLDER / "refill-log.toml")
    dry = run(*command, log, "--dry-run", env=env)
    table = [line.split("\t") for line in dry.stdout.splitlines()[1:-1]]
    assert [(t[0], t[2]) for t in table] == [
        ("2", "rejected"),
        ("3", "rejected"),
        ("4", "accepted"),
        ("5", "rejected"),
    ] and exported(env) == []
    done = run(*command, log, "--refused-to", refused, env=env)
    assert (done.exit_code, report_of(done)) == (REFUSED, {"rejected": 3, "accepted": 1})
    held = list(csv.reader(refused.read_text().splitlines()))
    assert held[0] == ["itb_line", "itb_reason", *HEAD.decode().split(",")]
    assert [row[0] for row in held[1:]] == ["2", "3", "5"]
    assert "volume_instilled: decimal: " in held[1][1] and "R1" in held[3][1]
    assert [row[2:] for row in held[1:]] == list(csv.reader(s.decode() for s in (*lines[1:3], lines[4])))

    mended = refused.read_text().replace('"20,0"', "20.0").replace(",200,", ",20,")
    refused.write_text(mended)
    done = run(*command, refused, "--refused-to", again, env=env)
    assert report_of(done) == {"accepted": 2, "rejected": 1}
    again.write_text(again.read_text().replace(",20,0,", ",20.0,"))
    assert report_of(run(*command, again, env=env)) == {"accepted": 1}
    assert len(exported(env)) == 4
    done = run(*command, log, env=env)
    assert report_of(done) == {"rejected": 3, "replayed": 1}


class Killed(BaseException):
    """The process is gone."""


def test_killed_at_every_row_it_takes_each_once_and_names_each_refused_once(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 4)
    monkeypatch.setattr("service.intake.PER_TRANSACTION", 3)
    log, refused, alone = tmp_path / "log.csv", tmp_path / "refused.csv", tmp_path / "alone.csv"
    days = [FIRST.replace(b"02/03", f"02/{day:02}".encode()) for day in range(1, 28)]
    days[4::5] = [row.replace(b",20.0,", b",20 mL,") for row in days[4::5]]
    log.write_bytes(b"\n".join([HEAD, *days]))
    command = ("import-csv", "--map", FOLDER / "refill-log.toml", log, "--refused-to")
    real: Callable[..., Any] = csv_rows.row
    for line in range(3, 28, 4):

        def dying(at: int, *rest: Any, line: int = line) -> Any:
            if at == line:
                raise Killed
            return real(at, *rest)

        monkeypatch.setattr(csv_rows, "row", dying)
        with pytest.raises(Killed):
            run(*command, refused, "--checkpoint", tmp_path / "job.ck", env=env)
    monkeypatch.setattr(csv_rows, "row", real)
    done = run(*command, refused, "--checkpoint", tmp_path / "job.ck", "--report", "json", env=env)
    counts = report_of(done)["counts"]
    assert (done.exit_code, counts["rejected"], counts["accepted"] + counts["replayed"]) == (REFUSED, 5, 22)
    elsewhere = {"ITB_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}
    run(*command, alone, env=elsewhere)
    assert refused.read_bytes() == alone.read_bytes()
    assert exported(env) == exported(elsewhere)


# --- seeded bugs ----------------------------------------------------------------------------------------


def check_everything() -> None:
    for name in CELLS:
        refusal(name)
    test_ids_of_two_columns_never_meet()
    test_a_constant_goes_with_its_part_and_milligrams_are_noted()
    test_a_reason_names_the_column_and_not_what_stands_there()
    told = csv_map.load((FOLDER / "pump-list.toml").read_text())
    (first, _) = read((FOLDER / "pump-list.csv").read_bytes(), told)
    assert first.event is not None and str(first.event["reservoir_capacity"]["value"]) == "20.0"


BUGS: dict[str, tuple[Any, str, Any]] = {
    "commas read as points": (
        csv_cells,
        "number",
        lambda text, decimal, thousands="": Decimal(text.replace(",", ".")),
    ),
    "commas left out": (csv_cells, "number", lambda text, d, t="": Decimal(text.replace(",", ""))),
    "the first of two times is taken": (
        csv_cells,
        "with_offset",
        lambda local, where: local.replace(tzinfo=where).isoformat(),
    ),
    "ids joined as they are": (
        csv_rows,
        "_id",
        lambda held, told, issues: "/".join(held[column] for column in told.id_columns),
    ),
    "constants always": (csv_rows, "_belongs", lambda one, told, values: True),
    "a thousandfold": (csv_cells, "micrograms", lambda value, unit: (value, unit.replace("mg", "ug"))),
    "bad bytes replaced": (
        csv_rows,
        "cells_of",
        lambda record, told: next(
            csv.reader([record.decode(told.encoding, "replace").strip()], delimiter=told.delimiter)
        ),
    ),
}


def test_everything_holds_without_a_seeded_bug() -> None:
    check_everything()


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BUGS[bug])
    with pytest.raises((AssertionError, ArithmeticError)):
        check_everything()
        told = csv_map.load((FOLDER / "dose-changes.toml").read_text())
        rows = read((FOLDER / "dose-changes.csv").read_bytes(), told)
        assert [r.event and r.event["after"]["concentration"]["value"] for r in rows] == [500, 500]


def test_each_kind_of_field_says_what_a_map_must_state_of_it() -> None:
    found: set[type] = set()

    def walk(schema: Any) -> None:
        for field in schema.load_fields.values():
            if isinstance(field, Part):
                walk(field.schema)
            else:
                found.add(type(field))

    for module in MAPPINGS.values():
        walk(module.SCHEMA)
    assert found == set(csv_map.CHECKS)
