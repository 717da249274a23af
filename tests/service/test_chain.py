"""The chain: whatever is done to the rows shows, and the bugs that would hide it are caught."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import chain
from service.chain import AUDIT, EVENTS, START, Head, anchor, is_intact, seal, walk

Rows = list[dict[str, Any]]
TEXT = st.text(max_size=8)


def sealed(rows: Rows, columns: tuple[str, ...] = AUDIT) -> tuple[Rows, dict[int, Head]]:
    """The rows as they are written, and the heads."""
    heads: dict[int, Head] = {}
    made = []
    for row in rows:
        before = heads.get(row["tenant_id"], Head(0, 0, START))
        hashed = chain.seal(columns, row, before.last_hash)
        made.append(row | {"previous_hash": before.last_hash, "row_hash": hashed})
        heads[row["tenant_id"]] = Head(before.length + 1, row[columns[0]], hashed)
    return made, heads


def audit_row(id: int, tenant: int = 1, **more: str) -> dict[str, Any]:
    row = {"id": id, "tenant_id": tenant, "at": "2026", "actor": "a", "action": "sent"}
    return row | {"subject": f"delivery/{id}", "detail": ""} | more


def ledger(**more: str) -> tuple[Rows, dict[int, Head]]:
    """40 rows of two tenants, sealed by the code as it is now: a bug is in the writer as well."""
    return sealed([audit_row(n, 1 + n % 2, **more) for n in range(1, 41)])


LEDGER, HEADS = ledger()


def breaks(rows: Rows, heads: dict[int, Head] | None = None, expected: tuple[str, ...] = ()) -> list[Any]:
    found = walk("audit", rows, ledger()[1] if heads is None else heads, expected)
    return [(one.tenant_id, one.id) for one in found]


def test_what_was_written_verifies() -> None:
    assert breaks(ledger()[0]) == []
    assert breaks([], {}) == []
    assert breaks([], {1: Head(0, 0, START)}) == []


@given(at=st.integers(0, 39), column=st.sampled_from([*AUDIT[2:], "previous_hash", "row_hash"]), text=TEXT)
def test_a_changed_row_is_named(at: int, column: str, text: str) -> None:
    rows = ledger()[0]
    row = rows[at]
    if row[column] != text:
        rows[at] = row | {column: text}
        assert (row["tenant_id"], row["id"]) in breaks(rows)


@given(at=st.integers(0, 39))
def test_a_removed_row_shows_in_the_next_one_of_its_tenant_or_at_the_end(at: int) -> None:
    rows = ledger()[0]
    row = rows.pop(at)
    found = breaks(rows)
    following = at + 2 if at < 38 else None
    assert found[0] == (row["tenant_id"], following + 1 if following is not None else None)
    assert found[-1] == (row["tenant_id"], None)


@given(st.integers(0, 39), st.integers(0, 39))
def test_rows_that_changed_places_show(one: int, other: int) -> None:
    moved = ledger()[0]
    a, b = moved[one], moved[other]
    moved[one], moved[other] = b | {"id": a["id"]}, a | {"id": b["id"]}
    found = {id for _, id in breaks(moved)}
    assert found >= ({a["id"], b["id"]} if one != other else set())


def test_an_added_row_shows_though_it_is_sealed() -> None:
    last = [row for row in LEDGER if row["tenant_id"] == 1][-1]
    extra = audit_row(41)
    extra |= {"previous_hash": last["row_hash"], "row_hash": seal(AUDIT, extra, last["row_hash"])}
    assert breaks([*LEDGER, extra]) == [(1, None)]


def test_a_row_sealed_anew_betrays_itself_by_the_one_after_it() -> None:
    rows = ledger()[0]
    row = rows[10] | {"actor": "b"}
    row["row_hash"] = chain.seal(AUDIT, row, row["previous_hash"])
    rows[10] = row
    assert breaks(rows) == [(row["tenant_id"], row["id"] + 2)]


@given(at=st.integers(0, 37))
def test_a_row_cannot_be_led_past_one_that_was_removed(at: int) -> None:
    rows = ledger()[0]
    gone, following = rows[at], rows[at + 2]
    rows[at + 2] = following | {"previous_hash": gone["previous_hash"]}
    del rows[at]
    assert (following["tenant_id"], following["id"]) in breaks(rows)


def test_a_ledger_written_anew_misses_its_anchor() -> None:
    noted = anchor("audit", 1, Head(3, 6, LEDGER[5]["row_hash"]))
    other, heads = ledger(actor="b")
    assert breaks(LEDGER, HEADS, (noted,)) == []
    assert breaks(other, heads) == []
    assert breaks(other, heads, (noted,)) == [(1, None)]
    assert chain.ANCHOR.fullmatch(noted)


@given(st.lists(TEXT | st.none(), min_size=2, max_size=2), st.lists(TEXT | st.none(), min_size=2, max_size=2))
def test_only_the_same_values_have_the_same_hash(one: list[Any], other: list[Any]) -> None:
    columns = ("a", "b")
    hashes = [chain.seal(columns, dict(zip(columns, values, strict=True)), START) for values in (one, other)]
    assert (hashes[0] == hashes[1]) == (one == other)


def test_a_hash_is_for_ever() -> None:
    """Rows sealed by an earlier version must verify: this value may never change."""
    row = dict.fromkeys(EVENTS, "x") | {
        "seq": 7,
        "tenant_id": 1,
        "version": 2,
        "pump": None,
        "patient_value": "ä",
    }
    assert seal(EVENTS, row, START) == "8bb8264fe3a9de83dbab27edfdc21cc390f4a04d6659014b772b5813d7c5efbf"
    assert is_intact(EVENTS, row | {"previous_hash": START, "row_hash": seal(EVENTS, row, START)})


# --- bugs that these tests must catch -------------------------------------------------------------------


def hash_without_a_column(patch: pytest.MonkeyPatch) -> None:
    right = chain.seal
    patch.setattr(chain, "seal", lambda columns, row, previous: right(columns[:-2], row, previous))


def hash_without_the_row_before(patch: pytest.MonkeyPatch) -> None:
    right = chain.seal
    patch.setattr(chain, "seal", lambda columns, row, previous: right(columns, row, START))


def columns_run_together(patch: pytest.MonkeyPatch) -> None:
    def wrong(columns: Any, row: Any, previous: str) -> str:
        text = "".join(str(row[name]) for name in columns) + previous
        return hashlib.sha256(text.encode()).hexdigest()

    patch.setattr(chain, "seal", wrong)


def own_hash_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chain, "is_intact", lambda columns, row: True)


BUGS = (hash_without_a_column, hash_without_the_row_before, columns_run_together, own_hash_not_looked_at)
CHECKS: tuple[Callable[[], None], ...] = (
    test_a_changed_row_is_named,
    test_a_removed_row_shows_in_the_next_one_of_its_tenant_or_at_the_end,
    test_rows_that_changed_places_show,
    test_a_row_sealed_anew_betrays_itself_by_the_one_after_it,
    test_a_row_cannot_be_led_past_one_that_was_removed,
    test_only_the_same_values_have_the_same_hash,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_caught(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    test_what_was_written_verifies()  # the bug is not one that any use would show
    caught = []
    for check in CHECKS:
        try:
            check()
        except AssertionError:
            caught.append(check)
    assert caught, "no test saw the seeded bug"
