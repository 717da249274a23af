"""Whatever is sent: no crash, no hang, no acknowledgement of what is not stored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mappings.hl7v2 import parse
from service.mllp import answers
from service.mllp.framing import framed, is_clean, unframed
from service.mllp.intake import take
from service.mllp.reading import Received, status_of, understand
from service.mllp.senders import Peer, load
from service.store import events, messages
from service.store.engine import Store, migrate
from site_of_mllp import (
    ENHANCED,
    ORIGINAL,
    SENDERS,
    Beside,
    code_of,
    connect,
    interrogation,
    message,
    settings_in,
    with_field,
    within,
)

NOW = datetime(2026, 1, 12, tzinfo=UTC)
HERE = Peer("127.0.0.1")
GOOD = [message(interrogation(1, n), how) for n in range(3) for how in (ORIGINAL, ENHANCED)]
BYTES = st.sampled_from(
    [bytes([b]) for b in range(256)] + [b"\x0b", b"\x1c", b"\r", b"\n", b"|", b"^", b"\\"] * 9
)
CHARSETS = st.sampled_from(
    ["", "ASCII", "8859/1", "UNICODE UTF-8", "UNICODE", "GB 18030-2000", "~", "\\X41\\"]
)


WORDS = st.text(st.characters(exclude_characters="|\r\n", exclude_categories=["Cs"]), max_size=12)
"""What a field of MSH may hold: without what would move the fields after it."""


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good message with some bytes changed, taken out, put in, or repeated; or one that lies."""
    data = draw(st.sampled_from(GOOD))
    if draw(st.booleans()):
        data = with_field(data, draw(st.sampled_from([3, 9, 10, 11, 12, 15, 16])), draw(WORDS))
        data = data if draw(st.booleans()) else with_field(data, 18, draw(CHARSETS))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "cut", "put", "again", "message"]))
        more = {"set": b"", "cut": b"", "put": draw(BYTES), "again": data[at : at + 40]}
        new = draw(st.sampled_from(GOOD)) if kind == "message" else more[kind]
        data = data[:at] + (draw(BYTES) if kind == "set" else new) + data[at + (kind in ("set", "cut")) :]
    return data


def any_of(strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(strategy, st.binary(max_size=80), st.binary(max_size=60).map(lambda b: b"MSH|^~\\&" + b))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('fuzz')}/itb.db")
    migrate(made)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("senders")
    (made / "senders.toml").write_text(SENDERS)
    return made


def taken(store: Store) -> set[str]:
    """The control ids of the messages whose events are in the ledger."""
    with store.read() as c:
        return {one.control_id for one in messages.search(c, 1, limit=100_000, status="taken")}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=any_of(mutated()))
@example(data=GOOD[0] + b"\x1c")
@example(data=b"MSH|^~\\&|\x0b|\x1c")
@example(data=with_field(GOOD[0], 18, "UNICODE UTF-8").replace(b"12.5", b"\xff\xfe"))
def test_any_message_is_taken_or_refused_and_its_answer_says_which(
    folder: Path, store: Store, data: bytes
) -> None:
    it = understand(Received(data, HERE), load(folder / "senders.toml"))
    assert bool(it.events) != bool(it.issues)
    (done,) = take(store, 1, [it], lambda: NOW)
    found = unframed(done.answer)
    assert all(is_clean(one) for one in found)
    assert b"".join(map(framed, found)) == done.answer
    positive = [code_of(one) for one in found if code_of(one) in ("AA", "CA")]
    with store.read() as c:
        known = messages.known(c, 1, [it.key] if it.key else [])
        kept = messages.find(c, 1, known[it.key].id or 0) if it.key in known else None
        if positive:
            assert kept is not None
            assert kept.status == "taken"
            assert [events.by_seq(c, 1, s) is not None for s in messages.seqs(c, 1, kept.id)]
    if it.issues and it.key and done.outcome != "repeated":
        assert done.outcome == status_of(done.issues)
    assert take(store, 1, [it], lambda: NOW)[0].answer == done.answer or not it.key


@given(st.text(max_size=3), st.text(max_size=3), st.sampled_from("AER"))
def test_whatever_msh_15_and_16_say_a_failure_is_never_told_as_a_success(
    accept: str, application: str, letter: str
) -> None:
    made = answers.codes(accept, application, letter)
    assert len(made) <= 2
    assert {code[1] for code in made} <= {letter}
    assert len({code[0] for code in made}) == len(made)


PIECES = st.lists(
    st.one_of(any_of(mutated()).map(framed), any_of(mutated()), st.binary(max_size=30), st.just(b"\x0b")),
    max_size=6,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, cuts=st.lists(st.integers(1, 4000), max_size=5))
def test_whatever_comes_over_a_connection_it_is_answered_or_closed_and_the_next_is_served(
    live: Beside, served: Store, pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(pieces)

    async def talk() -> list[bytes]:
        line = await connect(live.port)
        at = 0
        for cut in sorted(cuts):
            line.writer.write(stream[at:cut])
            await line.writer.drain()
            at = cut
        line.writer.write(stream[at:])
        line.writer.write_eof()
        found = []
        while (answer := await line.answer()) is not None:
            found.append(answer)
        return found

    for answer in within(20, talk()):
        if code_of(answer) in ("AA", "CA"):
            assert parse(answer).field("MSA", 2) in taken(served)

    async def next_one() -> bytes:
        return await (await connect(live.port)).exchange(GOOD[0])

    assert code_of(within(20, next_one())) == "AA"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('live')}/itb.db")
    migrate(made)
    return made


@pytest.fixture(scope="module")
def live(served: Store, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    return Beside(served, settings_in(tmp_path_factory.mktemp("live-settings"), mllp_message_bytes=5000))
