"""How a row of the ledger is sealed: a hash over what it says and over the row before it. Pure.

    row_hash = sha256("itb-chain-1" · previous_hash · each column as length:text)

A changed row no longer has its hash; a row that was removed, added or moved leaves a neighbour whose
`previous_hash` is nobody's. The last row of each chain is kept apart (the head), or its removal would not
show. Whoever can rewrite everything can seal it anew: against that, keep a head elsewhere
(`itb verify --expect`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FORM = "itb-chain-1"
START = "0" * 64
"""What the first row of a chain follows."""

EVENTS = (
    "seq", "tenant_id", "source", "event_id", "version", "type", "status", "patient_system", "patient_value",
    "pump", "occurred_at", "occurred_utc", "content", "content_hash", "received_at", "origin",
)  # fmt: skip
AUDIT = ("id", "tenant_id", "at", "actor", "action", "subject", "detail")
COLUMNS = {"events": EVENTS, "audit": AUDIT}
ANCHOR = re.compile(r"(events|audit)/[0-9]+:[0-9]+:[0-9a-f]{64}")
"""The sealed columns of each chained table, its number first. Another list needs another `FORM` beside it:
the rows that there are stay sealed as they are."""


class Damaged(Exception):
    """A row that is not what was written; the message names the row and nothing that it says."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a tenant's chain: how many rows, the last one's number and hash."""

    length: int
    last_id: int
    last_hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """A row (None: the end of the chain) that does not verify, and how that shows."""

    tenant_id: int
    id: int | None
    reason: str


def seal(columns: Iterable[str], row: Mapping[Any, Any], previous: str) -> str:
    """The hash of a row that follows the row whose hash is `previous`; hexadecimal sha256."""
    parts = [FORM, previous]
    for name in columns:
        value = row[name]
        # Lengths keep "ab", "c" and "a", "bc" apart; NULL is not the empty text, nor 1 the text "1".
        if value is None:
            parts.append("-")
        elif isinstance(value, int):
            parts.append(f"i{value}")
        else:
            parts.append(f"{len(value)}:{value}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def is_intact(columns: Iterable[str], row: Mapping[Any, Any]) -> bool:
    """Whether the row says what was sealed; its place in the chain is not looked at."""
    found: str = row["row_hash"]
    return found == seal(columns, row, row["previous_hash"])


def check_event(row: Mapping[Any, Any]) -> None:
    """Raises `Damaged` for an event row that is not what was written."""
    if not is_intact(EVENTS, row):
        raise Damaged(f"event row {row['seq']} is not what was accepted: it was changed in the database")


def walk(
    name: str, rows: Iterable[Mapping[Any, Any]], heads: Mapping[int, Head], expected: Iterable[str] = ()
) -> Iterator[Break]:
    """Every break in the chains of one table, of all tenants; `rows` in order of their numbers.

    `expected` are anchors (`anchor`) that were noted earlier: the chain must still pass through them.
    """
    columns = COLUMNS[name]
    last: dict[int, Head] = {}
    missing = {text for text in expected if text.startswith(f"{name}/")}
    for row in rows:
        tenant, id = row["tenant_id"], row[columns[0]]
        before = last.get(tenant, Head(0, 0, START))
        if not is_intact(columns, row):
            yield Break(tenant, id, "was changed")
        elif row["previous_hash"] != before.last_hash:
            after = f"row {before.last_id}" if before.length else "the start"
            yield Break(tenant, id, f"does not follow {after}: a row before it was changed, removed or moved")
        last[tenant] = Head(before.length + 1, id, row["row_hash"])
        if missing:
            missing.discard(anchor(name, tenant, last[tenant]))
    for tenant in sorted({*heads, *last}):
        found, head = last.get(tenant, Head(0, 0, START)), heads.get(tenant)
        if found != head:
            held = f"{head.length} rows up to {head.last_id}" if head else "no row"
            yield Break(
                tenant, None, f"{held} were written, {found.length} rows up to {found.last_id} are there"
            )
    for text in sorted(missing):
        yield Break(int(text.split("/")[1].split(":")[0]), None, f"does not pass through {text}")


def anchor(name: str, tenant_id: int, head: Head) -> str:
    """A head as one word, to be kept elsewhere: `events/1:1203:5f3a…`."""
    return f"{name}/{tenant_id}:{head.length}:{head.last_hash}"
