"""Messages that share a transaction come to the same as if each had one of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from service.mllp import intake
from service.mllp.intake import Taken, take
from service.mllp.reading import Received, understand
from service.mllp.senders import Peer, Sender, load
from service.store.engine import Store, migrate
from site_of_mllp import SENDERS, interrogation, message, with_field

NOW = datetime(2026, 1, 12, 12, tzinfo=UTC)
ANOTHER = '\n[[sender]]\nname = "engine-b"\napplication = "OTHER"\nfacility = "CHILDRENS"\n'
LEFT = (
    "SELECT seq, source, event_id, version, content, origin FROM events ORDER BY seq",
    "SELECT actor, action, subject, detail FROM audit ORDER BY id",
    "SELECT key, sender, control_id, status, answer, issues FROM messages ORDER BY id",
    "SELECT message_id, event_seq, content_hash FROM message_events ORDER BY message_id, event_seq",
)


@st.composite
def told(draw: st.DrawFn) -> bytes:
    """Few pumps, records, versions, patients, control ids and senders, so that they meet."""
    pump, number = draw(st.integers(1, 2)), draw(st.integers(0, 2))
    more: dict[str, Any] = {"version": draw(st.integers(1, 2))}
    more["reservoir_volume"] = {"value": draw(st.sampled_from([12.5, 13])), "unit": "mL"}
    if draw(st.integers(0, 5)) == 0:
        more["patient"] = {"system": "http://hospital.invalid/mrn", "value": "MRN9"}
    made = message(interrogation(pump, number, **more))
    if draw(st.integers(0, 4)) == 0:
        made = with_field(made, 10, draw(st.sampled_from(["", "X1"])))
    return with_field(made, 3, "OTHER") if draw(st.integers(0, 3)) == 0 else made


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that holds nothing."""
    folder = tmp_path_factory.mktemp("together")
    store = Store(f"sqlite:///{folder}/empty.db")
    migrate(store)
    store.close()
    return folder / "empty.db"


@pytest.fixture(scope="module")
def senders(tmp_path_factory: pytest.TempPathFactory) -> list[Sender]:
    file = tmp_path_factory.mktemp("senders") / "senders.toml"
    file.write_text(SENDERS + ANOTHER)
    return load(file)


def left_by(empty: Path, batches: Sequence[Sequence[bytes]], senders: list[Sender]) -> tuple[Any, ...]:
    """What each message came to, and all rows that they left."""
    file = empty.with_name("used.db")
    shutil.copyfile(empty, file)
    store = Store(f"sqlite:///{file}")
    done: list[Taken] = []
    for batch in batches:
        understood = [understand(Received(one, Peer("127.0.0.1")), senders) for one in batch]
        done += take(store, 1, understood, lambda: NOW)
    with store.read() as c:
        rows = [[tuple(row) for row in c.execute(text(query))] for query in LEFT]
    store.close()
    return [(one.outcome, one.answer, one.sender, one.issues) for one in done], rows


@settings(deadline=None, max_examples=60)
@given(sent=st.lists(told(), min_size=2, max_size=9))
def test_together_is_as_one_by_one(empty: Path, senders: list[Sender], sent: list[bytes]) -> None:
    assert left_by(empty, [sent], senders) == left_by(empty, [[one] for one in sent], senders)


def test_a_record_that_is_taken_for_new_is_noticed(
    empty: Path, senders: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = interrogation(1, 0, reservoir_volume={"value": 13, "unit": "mL"}, version=2)
    noticed(
        empty,
        senders,
        message(second),
        lambda: monkeypatch.setattr(intake._Taking, "_heard", Nothing(), raising=False),
    )


def test_a_message_that_is_taken_for_another_sender_s_is_noticed(
    empty: Path, senders: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = with_field(message(interrogation(2, 0)), 3, "OTHER")
    noticed(empty, senders, second, lambda: monkeypatch.setattr(Sender, "__eq__", lambda *_: True))


class Nothing:
    """In place of the records that were heard of: none, whatever is put in."""

    def __get__(self, *_: Any) -> Any:
        return self

    def __set__(self, *_: Any) -> None:
        return

    def __contains__(self, _: Any) -> bool:
        return False

    def update(self, _: Any) -> None:
        return


def noticed(empty: Path, senders: list[Sender], second: bytes, bug: Callable[[], None]) -> None:
    sent = [message(interrogation(1, 0)), second]
    alone = left_by(empty, [[one] for one in sent], senders)
    assert left_by(empty, [sent], senders) == alone
    bug()
    assert left_by(empty, [sent], senders) != alone
