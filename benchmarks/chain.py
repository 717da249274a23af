"""What the hash chain costs: events accepted a second into SQLite, with it and without, taking turns.

Both write the same events, deliveries and audit rows, one transaction each as a live sender's, and 50 in
one as an import's. Last: how fast `itb verify` walks.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from mappings import load_event
from mappings.event import Event
from service.chain import COLUMNS
from service.store import chains, endpoints, events
from service.store.engine import Store, migrate
from service.synthetic import clinic

EVENTS = 2000
ROUNDS = 5
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def unchained(c: Connection, name: str, tenant_id: int, values: Sequence[Mapping[str, Any]]) -> list[int]:
    """The same rows without a hash."""
    table = chains.TABLES[name]
    keys = [
        c.execute(insert(table).values(tenant_id=tenant_id, **one)).inserted_primary_key for one in values
    ]
    return [int(key[0]) for key in keys if key is not None]


@contextlib.contextmanager
def without_chain(store: Store) -> Iterator[None]:
    with store.write() as c:
        for name in COLUMNS:
            c.exec_driver_sql(f"DROP TRIGGER {name}_follows")
            c.exec_driver_sql(f"DROP TRIGGER {name}_head")
    chained = chains.append
    chains.append = unchained
    yield
    chains.append = chained


def accept_all(store: Store, sent: list[Event], per_transaction: int) -> float:
    """Seconds."""
    started = time.perf_counter()
    for first in range(0, len(sent), per_transaction):
        with store.write() as c:
            known = endpoints.every(c, 1)
            for event in sent[first : first + per_transaction]:
                events.accept(c, 1, event, received_at=NOW, actor="bench", endpoints=known)
    return time.perf_counter() - started


def one(folder: str, name: str, sent: list[Event], chained: bool, per_transaction: int) -> float:
    store = Store(f"sqlite:///{folder}/{name}.db")
    migrate(store)
    with store.write() as c:
        endpoints.add(c, 1, "hapi", "http://ehr.invalid", {}, now=NOW)
    with contextlib.nullcontext() if chained else without_chain(store):
        took = accept_all(store, sent, per_transaction)
    store.close()
    return took


def main() -> None:
    sent = [load_event(event) for event, _ in zip(clinic(70, 3, 1), range(EVENTS), strict=False)]
    with tempfile.TemporaryDirectory() as folder:
        for per_transaction in (1, 50):
            took: dict[bool, list[float]] = {True: [], False: []}
            for n in range(ROUNDS):
                for chained in (True, False):
                    name = f"{per_transaction}-{n}-{chained}"
                    took[chained].append(one(folder, name, sent, chained, per_transaction))
            with_it, without = (statistics.median(took[chained]) for chained in (True, False))
            cost = (with_it - without) / len(sent) * 1e6
            print(
                f"{per_transaction:2} a transaction: {len(sent) / with_it:6.0f}/s with the chain, "
                f"{len(sent) / without:6.0f}/s without; {cost:4.0f} us each, ratio {without / with_it:.2f}"
            )
        store = Store(f"sqlite:///{folder}/1-0-True.db")
        started = time.perf_counter()
        with store.read() as c:
            assert not list(chains.breaks(c, "events")) and not list(chains.breaks(c, "audit"))
        print(f"verify: {2 * len(sent) / (time.perf_counter() - started):.0f} rows/s")
        store.close()


if __name__ == "__main__":
    main()
