"""Endpoints that are told by HL7 v2: over real connections that fail in every way, to our own receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from certificates import Authority
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import parse
from service.mllp import client
from service.mllp.intake import retry
from service.mllp.senders import load
from service.store import deliveries, endpoints, messages
from service.store.engine import Store
from service.sync import messages as telling
from service.sync.ehr import Ambiguous
from service.sync.messages import Line
from service.sync.scorecard import samples
from service.sync.send import Sent
from service.sync.worker import sync_once
from site_of_mllp import Beside, all_events, clock, interrogation, settings_in
from site_of_receiver import FAULTS, MAP, Pair, pair, wrong


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path) as made:
        yield made


def texts(store: Store) -> list[bytes]:
    """Of every event that the ledger holds; lanes go beside each other, so their order is of each lane."""
    return sorted(dumps(one.event) for one in all_events(store))


def on_its_own(site: Pair, name: str) -> Sent:
    """What becomes of the one delivery to that endpoint, tried now."""
    with site.a.read() as c:
        endpoint = endpoints.find(c, 1, name)
        assert endpoint is not None
        found = deliveries.search(c, 1, limit=9, endpoint_id=endpoint.id)
    (sent,) = telling.deliver(Line(site.a, site.client, endpoint, site.now), found, lambda some: ())
    return sent


def test_every_type_of_event_arrives_equal_in_another_ledger(site: Pair) -> None:
    site.send(*samples())
    site.push()
    assert wrong(site.a, site.b) == {}
    assert texts(site.b) == texts(site.a)
    (*_, last) = site.deliveries()
    assert (last.rung, last.reason, loads((last.loss or "").encode())) == (
        "hl7v2",
        "CA",
        {"left_out": [], "lost": []},
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_line_loses_and_doubles_nothing(tmp_path: Path, fault: str) -> None:
    with pair(tmp_path, plan=["", fault, fault, "", fault]) as site:
        site.send(*(interrogation(pump, number) for number in range(3) for pump in range(2)))
        site.push()
        assert wrong(site.a, site.b) == {}
        assert site.peer.done[fault] == 3


def many(folder: Path, seed: int) -> tuple[dict[str, int], int]:
    """What is wrong after 32 messages in four lanes, when every second one meets a fault; how many did."""
    with pair(folder, rest=0.5, seed=seed) as site:
        site.send(*(interrogation(pump, number) for number in range(8) for pump in range(4)))
        site.push()
        return dict(wrong(site.a, site.b)), site.peer.done.total() - site.peer.done[""]


@pytest.mark.parametrize("seed", range(2))
def test_any_mix_of_faults_keeps_every_lane_whole_and_in_order(tmp_path: Path, seed: int) -> None:
    found, faults = many(tmp_path, seed)
    assert (found, faults > 10) == ({}, True)


# --- answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "tries", "status", "failure"),
    [
        ("ae", 1, "failed", "Refused"),
        ("ar", 5, "parked", "Declined"),
        ("unknown-patient", 5, "parked", "Missing"),
        ("locked", 30, "sent", None),
        ("garbage", 30, "sent", None),
    ],
)
def test_an_answer_holds_its_lane_as_the_table_says(
    tmp_path: Path, fault: str, tries: int, status: str, failure: str | None
) -> None:
    with pair(tmp_path, plan=[fault] * tries) as site:
        site.send(interrogation(1, 1), interrogation(1, 2), interrogation(1, 3))
        site.push()
        first, *later = site.deliveries()
        assert (first.status, first.failure, first.attempts) == (status, failure, tries + (status == "sent"))
        assert {one.status for one in later} == ({"sent"} if status == "sent" else {"pending"})
        if status != "sent":
            assert all_events(site.b) == []
            assert "MSH" not in (first.reason or "")


def test_a_refused_message_holds_no_other_lane_and_goes_on_when_a_person_says_so(tmp_path: Path) -> None:
    with pair(tmp_path, plan=["ae"]) as site:
        site.send(interrogation(1, 1), interrogation(2, 1), interrogation(1, 2))
        site.push()
        assert [one.status for one in site.deliveries()] == ["failed", "sent", "pending"]
        assert site.deliveries()[0].reason == "Refused: AE; E 103 OBX^1^5"
        with site.a.write() as c:
            deliveries.change(c, 1, [site.deliveries()[0].id], "retry", now=site.now(), reason=None)
        site.push()
        assert wrong(site.a, site.b) == {}


def test_what_our_receiver_parks_is_sent_again_when_its_map_was_mended(site: Pair, tmp_path: Path) -> None:
    senders = tmp_path / "senders.toml"
    senders.write_text(senders.read_text() + 'map = "map.toml"\n')
    (tmp_path / "map.toml").write_text('namespaces = {"CLINIC-B" = "clinic-b"}\n')
    site.send(interrogation(1, 1))
    site.push()
    assert [one.status for one in site.deliveries()] == ["failed"]
    (tmp_path / "map.toml").write_text('namespaces = {"clinic-a" = "clinic-a"}\n')
    with site.b.read() as c:
        (parked,) = messages.search(c, 1, limit=9)
    assert parked.status == "parked"
    assert retry(site.b, 1, parked, load(senders), clock, "test") == ()
    with site.a.write() as c:
        deliveries.change(c, 1, [site.deliveries()[0].id], "retry", now=site.now(), reason=None)
    site.push()
    assert wrong(site.a, site.b) == {}


# --- what a message is ----------------------------------------------------------------------------------


def test_a_try_says_byte_for_byte_what_the_first_one_said(tmp_path: Path) -> None:
    with pair(tmp_path, plan=["cut-after", "late"]) as site:
        site.send(interrogation(1, 1))
        site.push()
        with site.b.read() as c:
            (one,) = messages.search(c, 1, limit=9)
        assert site.deliveries()[0].attempts == 3
        assert site.behind.count("repeated") == 2
        assert parse(one.raw).field("MSH", 5) == "ENGINE"


def test_two_receivers_behind_one_engine_are_told_under_two_control_ids(site: Pair) -> None:
    site.add("clinic")
    site.send(interrogation(1, 1))
    assert [on_its_own(site, name).note for name in ("ward", "clinic")] == ["CA", "CA"]
    with site.b.read() as c:
        assert len({one.control_id for one in messages.search(c, 1, limit=9)}) == 2
    assert len(all_events(site.b)) == 1


def test_of_a_corrected_record_only_the_newest_version_is_told(site: Pair) -> None:
    site.send(interrogation(1, 1), interrogation(1, 2))
    site.send(interrogation(1, 1, version=2, reservoir_volume={"value": 11, "unit": "mL"}))
    site.push()
    assert [one.reason for one in site.deliveries()] == ["superseded by version 2", "CA", "CA"]
    assert wrong(site.a, site.b) == {}


def test_a_receiver_is_written_to_as_its_map_says(tmp_path: Path) -> None:
    with pair(tmp_path) as site:
        how = {"sending": ["PUMPS", "CHILDRENS"], "version": "2.5.1", "write_zone": "America/New_York"}
        site.add("east", hl7v2=how | {"write_charset": "8859/1"})
        site.send(interrogation(1, 1, note="Grüße"))
        assert on_its_own(site, "east").note == "CA"
        with site.b.read() as c:
            (one,) = messages.search(c, 1, limit=9)
        message = parse(one.raw)
        assert (message.field("MSH", 12), message.field("MSH", 18)) == ("2.5.1", "8859/1")
        assert message.field("OBR", 7) == "20260112010001-0500"
        assert "Grüße".encode("latin-1") in one.raw
        assert texts(site.b) == texts(site.a)


def test_what_no_message_can_say_waits_for_a_person(site: Pair) -> None:
    site.add("ascii", hl7v2={"write_charset": "ASCII"})
    site.send(interrogation(1, 1, note="Grüße"))
    assert str(on_its_own(site, "ascii").error) == "no message can say it: MSH-18 charset"
    assert site.peer.done.total() == 0


def test_a_lane_that_another_worker_has_taken_meanwhile_goes_no_further(site: Pair) -> None:
    site.send(interrogation(1, 1), interrogation(2, 1), interrogation(1, 2), interrogation(2, 2))
    line = Line(site.a, site.client, site.endpoint, site.now)
    taken = telling.deliver(line, site.deliveries(), lambda some: {site.deliveries()[1].lane})
    assert [one.event["id"] for one in all_events(site.b)] == ["I-1-1", "I-2-1", "I-2-2"]
    assert len(taken) == 1


def test_what_a_sender_told_is_not_sent_back_to_it(tmp_path: Path) -> None:
    """A tells B; B has an endpoint for the same engine, and another one."""
    with pair(tmp_path) as site:
        with site.b.write() as c:
            back = endpoints.add(c, 1, "back", "mllp://127.0.0.1:9", {"sender": "engine-a"}, now=site.now())
            on = endpoints.add(c, 1, "on", "mllp://127.0.0.1:9", {}, now=site.now())
        site.send(interrogation(1, 1))
        site.push()
        with site.b.write() as c:
            assert {one.endpoint_id for one in deliveries.search(c, 1, limit=9)} == {on.id}
            assert deliveries.catch_up(c, back, now=site.now()) == 0
            assert [one.origin for one in all_events(site.b)] == ["back"]


def test_one_round_of_sync_tells_what_is_pending_and_reads_nothing(site: Pair) -> None:
    site.send(interrogation(1, 1), interrogation(2, 1))
    done = sync_once(site.a, site.endpoint, site.now)
    assert (done.pulled, done.sent, done.ok) == ({}, {"sent": 2}, True)
    assert wrong(site.a, site.b) == {}
    site.peer.close()
    site.send(interrogation(1, 2))
    away = sync_once(site.a, site.endpoint, site.now)
    assert (away.sent, site.deliveries()[-1].failure) == ({"pending": 1}, "Unreachable")


def test_an_encrypted_receiver_is_told_with_our_certificate(site: Pair, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    server, own = authority.sign("server", "IP:127.0.0.1"), authority.sign("engine-a.invalid")
    tls = {"mllp_cert": server.cert, "mllp_key": server.key, "mllp_client_ca": authority.file}
    there = Beside(site.b, settings_in(tmp_path, **tls))
    files = {"ca_file": authority.file, "cert_file": own.cert, "key_file": own.key}
    with site.a.write() as c:
        url = f"mllps://127.0.0.1:{there.port}"
        encrypted = endpoints.add(c, 1, "encrypted", url, {"hl7v2": MAP} | files, now=site.now())
        endpoints.set_enabled(c, site.endpoint.id, False)
    site.send(interrogation(1, 1))
    assert sync_once(site.a, encrypted, site.now).sent == {"sent": 1}
    assert wrong(site.a, site.b) == {}
    assert there.count("taken") == 1


def test_a_paused_receiver_gets_afterwards_what_it_missed(site: Pair) -> None:
    with site.a.write() as c:
        endpoints.set_enabled(c, site.endpoint.id, False)
    site.send(interrogation(1, 1))
    site.push()
    assert site.deliveries() == []
    with site.a.write() as c:
        endpoints.set_enabled(c, site.endpoint.id, True)
        deliveries.catch_up(c, site.endpoint, now=site.now())
    site.push()
    assert wrong(site.a, site.b) == {}
    assert len(all_events(site.b)) == 1


# --- bugs that the tests above must see -----------------------------------------------------------------


def sent_before_the_answer(patch: pytest.MonkeyPatch) -> None:
    right = client.MllpClient.exchange

    def hopeful(self: Any, message: Any) -> Any:
        try:
            return right(self, message)
        except Ambiguous:
            return client.Acknowledged("AA", ())

    patch.setattr(client.MllpClient, "exchange", hopeful)


def random_control_id(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(telling, "control_id", lambda endpoint, stored: uuid4().hex[:20])


def no_lane_order(patch: pytest.MonkeyPatch) -> None:
    right = deliveries.waiting
    patch.setattr(deliveries, "waiting", lambda *a, **k: list(reversed(right(*a, **k))))


def goes_on_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    right = telling.deliver

    def careless(line: Any, found: Any, settle: Any) -> Any:
        done: list[Any] = []
        for one in found:
            done += right(line, [one], settle)
        return done

    patch.setattr(telling, "deliver", careless)


def any_answer_is_ours(patch: pytest.MonkeyPatch) -> None:
    right = client.acknowledged
    patch.setattr(client, "acknowledged", lambda data, id: right(data, parse(data).field("MSA", 2)))


def a_late_answer_counts_for_the_next(patch: pytest.MonkeyPatch) -> None:
    any_answer_is_ours(patch)
    patch.setattr(client, "_is_dead", lambda connection: False)


BUGS = {
    sent_before_the_answer: "lost",
    random_control_id: "told by several messages",
    no_lane_order: "out of order",
    goes_on_after_a_failure: "out of order",
    any_answer_is_ours: "lost",
    a_late_answer_counts_for_the_next: "lost",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_seen(
    bug: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    assert many(tmp_path, 1)[0][BUGS[bug]] > 0
