"""The listener on a real port: what is answered, when, to whom, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from mappings.hl7v2 import SenderMap, dump, parse, write_update
from service.mllp import listen
from service.mllp.framing import framed
from service.mllp.intake import retry, take
from service.mllp.reading import Received, understand
from service.mllp.senders import Peer, Sender, anywhere
from service.store import events, messages
from service.store.engine import Store
from service.store.messages import Stored
from site_of_mllp import (
    ORIGINAL,
    Beside,
    clock,
    code_of,
    connect,
    interrogation,
    message,
    settings_in,
    with_field,
    within,
)


@pytest.fixture
def beside(store: Store, tmp_path: Path) -> Beside:
    return Beside(store, settings_in(tmp_path, mllp_message_bytes=20_000, mllp_idle_seconds=60))


def kept(store: Store) -> list[Stored]:
    with store.read() as c:
        return messages.search(c, 1, limit=1000)


def ids(store: Store) -> list[str]:
    with store.read() as c:
        return [stored.event["id"] for stored in events.search(c, 1, limit=1000)]


def exchange(port: int, *sent: bytes) -> list[bytes]:
    """The answers to messages sent one after the other on one connection."""

    async def talk() -> list[bytes]:
        line = await connect(port)
        return [await line.exchange(one) for one in sent]

    return list(within(20, talk()))


FIRST = message(interrogation(1, 1))


def test_a_message_is_acknowledged_and_kept_with_its_event(beside: Beside, store: Store) -> None:
    (answer,) = exchange(beside.port, FIRST)
    found = parse(answer)
    assert (found.field("MSA", 1), found.field("MSA", 2)) == ("AA", parse(FIRST).field("MSH", 10))
    assert (found.field("MSH", 5), found.field("MSH", 6)) == ("PUMPS", "CHILDRENS")
    (one,) = kept(store)
    assert (one.raw, one.status, one.sender, one.type) == (FIRST, "taken", "engine-a", "ORU^R01^ORU_R01")
    assert one.answer == framed(answer)
    with store.read() as c:
        (seq,) = messages.seqs(c, 1, one.id)
        stored = events.by_seq(c, 1, seq)
        assert stored is not None
        assert stored.event == interrogation(1, 1)
        assert messages.of_event(c, 1, seq) == [one.id]
        assert messages.search(c, 1, limit=9, source_message=stored.content_hash) == [one]


def test_a_resend_gets_the_first_answer_byte_for_byte_also_after_a_restart(
    beside: Beside, store: Store, tmp_path: Path
) -> None:
    first, again = exchange(beside.port, FIRST, FIRST)
    assert again == first
    other = Beside(store, settings_in(tmp_path))
    assert exchange(other.port, FIRST) == [first]
    assert len(kept(store)) == len(ids(store)) == 1
    assert (beside.count("taken"), beside.count("repeated"), other.count("repeated")) == (1, 1, 1)


def test_another_message_under_a_used_control_id_is_refused_and_kept(beside: Beside, store: Store) -> None:
    control_id = parse(FIRST).field("MSH", 10)
    other = message(interrogation(1, 2), control_id=control_id)
    first, refused, again = exchange(beside.port, FIRST, other, other)
    assert code_of(refused) == "AR"
    assert parse(refused).field("ERR", 3).startswith("205^")
    assert parse(refused).field("ERR", 2) == "MSH^1^10"
    assert again == refused
    assert exchange(beside.port, FIRST) == [first]
    assert [(m.raw, m.status) for m in kept(store)] == [(FIRST, "taken"), (other, "refused")]
    assert ids(store) == ["I-1-1"]


def test_a_refused_message_names_segment_field_and_rule_and_is_kept(beside: Beside, store: Store) -> None:
    bad = FIRST.replace(b"|12.5|mL^mL^UCUM|", b"|12.5|gal^gal^UCUM|")
    (answer,) = exchange(beside.port, bad)
    err = parse(answer).first("ERR")
    assert code_of(answer) == "AE"
    assert err is not None
    assert (err[2], err[5]) == ("OBX^2^6", "unit^^99ITB")
    (one,) = kept(store)
    assert (one.raw, one.status, [i.rule for i in one.issues]) == (bad, "parked", ["unit"])
    assert ids(store) == []


def test_an_update_is_refused_and_kept_as_it_is_no_event(beside: Beside, store: Store) -> None:
    first, second = ({"system": "http://hospital.invalid/mrn", "value": value} for value in ("M1", "M2"))
    told = {"kind": "patient-merge", "source": "clinic-a", "id": "77", "patient": first, "other": second}
    merge = dump(write_update(told | {"occurred_at": "2026-01-12T10:00:00-06:00"}, ORIGINAL))
    (answer,) = exchange(beside.port, merge)
    err = parse(answer).first("ERR")
    assert err is not None
    assert (code_of(answer), err[3].partition("^")[0], err[2]) == ("AR", "200", "MSH^1^9")
    assert [(m.raw, m.status) for m in kept(store)] == [(merge, "refused")]
    assert ids(store) == []


def test_what_contradicts_the_ledger_is_refused(beside: Beside, store: Store) -> None:
    other_patient = {"system": "http://hospital.invalid/mrn", "value": "MRN9"}
    _, answer, conflict = exchange(
        beside.port,
        FIRST,
        message(interrogation(1, 2, patient=other_patient)),
        message(interrogation(1, 1, reservoir_volume={"value": 11, "unit": "mL"})),
    )
    assert (code_of(answer), code_of(conflict)) == ("AE", "AE")
    assert [(m.status, [i.rule for i in m.issues]) for m in kept(store)][1:] == [
        ("refused", ["P4"]),
        ("refused", ["conflict"]),
    ]


@pytest.mark.parametrize(
    ("field", "text", "rule", "kept_as"),
    [
        (3, "OTHERS", "sender", None),
        (4, "OTHERS", "sender", None),
        (10, "", "control-id", "refused"),
        (11, "T", "processing-id", "refused"),
        (9, "ZZZ^Z01", "message-type", "refused"),
        (18, "KOI8", "charset", "refused"),
    ],
)
def test_a_message_that_is_refused_as_such_gets_ar(
    beside: Beside, store: Store, field: int, text: str, rule: str, kept_as: str | None
) -> None:
    (answer,) = exchange(beside.port, with_field(FIRST, field, text))
    err = parse(answer).first("ERR")
    assert code_of(answer) == "AR"
    assert err is not None
    assert err[5].startswith(f"{rule}^")
    assert [m.status for m in kept(store)] == ([kept_as] if kept_as else [])
    assert ids(store) == []


MODES = [  # MSH-15, MSH-16 -> answers to a good message, answers to a bad one (HL7 v2 table 0155)
    ("", "", ["AA"], ["AE"]),
    ("AL", "NE", ["CA"], ["CE"]),
    ("AL", "AL", ["CA", "AA"], ["CE"]),
    ("NE", "AL", ["AA"], ["AE"]),
    ("", "AL", ["AA"], ["AE"]),
    ("ER", "AL", ["AA"], ["CE"]),
    ("SU", "ER", ["CA"], ["AE"]),
    ("AL", "SU", ["CA", "AA"], ["CE"]),
    ("ER", "NE", [], ["CE"]),
    ("NE", "NE", [], []),
]


@pytest.mark.parametrize(("accept", "application", "good", "bad"), MODES)
def test_the_acknowledgements_are_those_that_the_message_asks_for(
    beside: Beside, accept: str, application: str, good: list[str], bad: list[str]
) -> None:
    def asking(data: bytes) -> bytes:
        return with_field(with_field(data, 15, accept), 16, application)

    async def talk(asked: bytes) -> list[str]:
        line = await connect(beside.port)
        line.writer.write(framed(asked) + framed(message(interrogation(2, 1), control_id="LAST")))
        found = []
        while (answer := await line.answer()) is not None:
            if parse(answer).field("MSA", 2) == "LAST":
                break
            found.append(code_of(answer))
        return found

    assert within(20, talk(asking(FIRST))) == good
    without_unit = with_field(FIRST, 10, "BAD").replace(b"|12.5|mL^mL^UCUM|", b"|12.5||")
    assert within(20, talk(asking(without_unit))) == bad


def test_messages_of_one_connection_are_taken_in_their_order(beside: Beside, store: Store) -> None:
    sent = [message(interrogation(1, n)) for n in range(200)]

    async def talk() -> list[str]:
        line = await connect(beside.port)
        line.writer.write(b"".join(b"\r\n" + framed(one) for one in sent))
        return [parse(await line.answer() or b"").field("MSA", 2) for _ in sent]

    assert within(60, talk()) == [parse(one).field("MSH", 10) for one in sent]
    assert ids(store) == [f"I-1-{n}" for n in range(200)]


def test_hundreds_of_connections_are_served_at_once(beside: Beside, store: Store) -> None:
    async def talk() -> set[str]:
        lines = await asyncio.gather(*(connect(beside.port) for _ in range(300)))
        found = await asyncio.gather(
            *(line.exchange(message(interrogation(n, 1))) for n, line in enumerate(lines))
        )
        return {code_of(answer) for answer in found}

    assert within(60, talk()) == {"AA"}
    assert len(ids(store)) == 300


def test_one_connection_too_many_is_closed(store: Store, tmp_path: Path) -> None:
    small = Beside(store, settings_in(tmp_path, mllp_connections=2))

    async def talk() -> None:
        lines = [await connect(small.port) for _ in range(2)]
        for line in lines:
            assert code_of(await line.exchange(FIRST)) == "AA"
        assert await (await connect(small.port)).answer() is None
        lines[0].writer.close()
        while True:  # a place is free once the server has noticed
            line = await connect(small.port)
            line.writer.write(framed(FIRST))
            if await line.answer() is not None:
                return

    within(20, talk())


def test_a_message_that_is_too_long_is_refused_and_the_next_is_taken(beside: Beside, store: Store) -> None:
    long = FIRST + b"NTE|1||" + b"x" * 50_000
    answers = exchange(beside.port, long, FIRST)
    assert [code_of(answer) for answer in answers] == ["AR", "AA"]
    assert parse(answers[0]).field("MSA", 2) == parse(FIRST).field("MSH", 10)
    assert len(kept(store)) == 1


@pytest.mark.parametrize("byte", [b"\x0b", b"\x1c"])
def test_a_framing_byte_in_a_message_refuses_all_of_it(beside: Beside, store: Store, byte: bytes) -> None:
    smuggled = FIRST + b"NTE|1||" + byte + message(interrogation(7, 7))
    answer, good = exchange(beside.port, smuggled, FIRST)
    assert (code_of(answer), code_of(good)) == ("AR", "AA")
    assert [m.status for m in kept(store)] == ["refused", "taken"]
    assert ids(store) == ["I-1-1"]


def test_noise_is_not_answered_and_too_much_of_it_ends_the_connection(beside: Beside, store: Store) -> None:
    async def talk() -> None:
        line = await connect(beside.port)
        line.writer.write(b"GET / HTTP/1.1\r\n\r\n" + framed(FIRST) + b"more noise")
        assert code_of(await line.answer() or b"") == "AA"
        line.writer.write(b"z" * 100_000)
        assert await line.answer() is None

    within(20, talk())
    assert len(kept(store)) == 1


def test_a_connection_that_stands_still_is_closed(store: Store, tmp_path: Path) -> None:
    impatient = Beside(store, settings_in(tmp_path, mllp_idle_seconds=1))

    async def talk() -> None:
        line = await connect(impatient.port)
        assert code_of(await line.exchange(FIRST)) == "AA"
        assert await line.answer() is None

    within(20, talk())


def test_an_answer_is_given_to_a_sender_who_has_closed_its_sending_half(beside: Beside) -> None:
    async def talk() -> bytes | None:
        line = await connect(beside.port)
        line.writer.write(framed(FIRST))
        line.writer.write_eof()
        return await line.answer()

    assert code_of(within(20, talk())) == "AA"


@contextmanager
def full_disk(store: Store) -> Iterator[None]:
    """SQLite may not make its file any longer, as on a full disk."""
    with store.engine.connect() as c:
        pages = c.exec_driver_sql("PRAGMA page_count").scalar()

    def limit(c: Connection) -> None:
        c.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    event.listen(store.engine, "begin", limit)
    yield
    event.remove(store.engine, "begin", limit)
    store.engine.dispose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL's disk is its server's
def test_on_a_full_disk_nothing_is_acknowledged_and_later_it_is(beside: Beside, store: Store) -> None:
    sent = [message(interrogation(1, n, note="x" * 3000)) for n in range(60)]

    async def pipelined() -> list[bytes]:
        line = await connect(beside.port)
        line.writer.write(b"".join(map(framed, sent)))
        found = []
        while (answer := await line.answer()) is not None:
            found.append(answer)
        return found

    with full_disk(store):
        answers = within(30, pipelined())
    good = [answer for answer in answers if code_of(answer) == "AA"]
    assert len(answers) - len(good) == 1, "after the first that is not stored the connection ends"
    assert code_of(answers[-1]) == "AR"
    assert ids(store) == [f"I-1-{n}" for n in range(len(good))], "stored is what was acknowledged, in order"
    assert {code_of(answer) for answer in exchange(beside.port, *sent)} == {"AA"}
    assert ids(store) == [f"I-1-{n}" for n in range(60)]


class Unusable(dict[str, str]):
    """A table of words that fails where it is asked: what a bug of ours looks like to the one who reads."""

    def get(self, *asked: object) -> str:
        raise RecursionError


def test_a_bug_parks_its_message_and_stops_no_other(store: Store) -> None:
    def engine(name: str, words: dict[str, str]) -> Sender:
        return anywhere(Sender(name, name.upper(), "CHILDRENS", (), map=SenderMap(observations=words)))

    senders = [engine("bad", Unusable(VOL="reservoir_volume")), engine("good", {})]
    first, second = (with_field(message(interrogation(1, n)), 3, w) for n, w in ((1, "BAD"), (2, "GOOD")))
    found = [understand(Received(sent, Peer("")), senders) for sent in (first, second)]
    bad, good = take(store, 1, found, clock)
    assert (bad.outcome, good.outcome) == ("parked", "taken")
    assert [(m.status, [i.rule for i in m.issues]) for m in kept(store)] == [
        ("parked", ["internal"]),
        ("taken", []),
    ]
    mended = [engine("bad", {}), engine("good", {})]
    assert retry(store, 1, kept(store)[0], mended, clock, "test") == ()
    assert [m.status for m in kept(store)] == ["taken", "taken"]


def test_a_changed_file_of_senders_counts_from_the_next_message_on(beside: Beside, tmp_path: Path) -> None:
    other = with_field(FIRST, 3, "NEWCOMER")
    file = tmp_path / "senders.toml"
    (refused,) = exchange(beside.port, other)
    file.write_text(
        file.read_text() + '[[sender]]\nname = "b"\napplication = "NEWCOMER"\nfacility = "CHILDRENS"\n'
    )
    (taken,) = exchange(beside.port, other)
    file.write_text("spoilt")
    (still,) = exchange(beside.port, other)
    assert [code_of(one) for one in (refused, taken, still)] == ["AR", "AA", "AA"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mllp_listen": "127.0.0.1"}, "HOST:PORT"),
        ({"mllp_listen": "0.0.0.0:0"}, "ITB_MLLP_PLAINTEXT"),
        ({"mllp_senders": ""}, "ITB_MLLP_SENDERS"),
        ({"mllp_senders": "nowhere.toml"}, "nowhere.toml"),
        ({"mllp_key": "key.pem"}, "ITB_MLLP_CERT"),
        ({"mllp_cert": "nowhere.pem"}, "certificate"),
    ],
)
def test_settings_that_are_not_complete_are_refused(
    store: Store, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(listen.ListenError, match=words):
        Beside(store, replace(settings_in(tmp_path), **changes))


def test_a_port_that_is_taken_is_said(store: Store, tmp_path: Path) -> None:
    first = Beside(store, settings_in(tmp_path))
    with pytest.raises(listen.ListenError, match="ITB_MLLP_LISTEN"):
        Beside(store, replace(settings_in(tmp_path), mllp_listen=f"127.0.0.1:{first.port}"))
