"""The ledger, its deliveries, links and leases; on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, event

from mappings import exact_json, load_event
from samples import CATHETER, DOSE_CHANGE, PATIENT, PUMP, REFILL, SERIAL, q
from service.store import audit, conflicts, deliveries, endpoints, events, keys, lanes, leases, links, remote
from service.store.deliveries import CHANGES, Outcome
from service.store.endpoints import Endpoint
from service.store.engine import Store, migrate
from service.store.lanes import Lease
from service.store.links import Link
from service.store.remote import RemoteVersion
from service.store.times import stamp
from strategies import ANY_EVENT

Json = Any
NOW = datetime.fromisoformat("2026-11-23T09:00:00+00:00")
ENDPOINT = Endpoint(1, 1, "a", "http://ehr.invalid/fhir", True, "", None, 0)


def canonical(event: Json) -> Json:
    return load_event(exact_json.loads(exact_json.dumps(event)))


def accept(c: Connection, event: Json, **more: Any) -> events.Accepted:
    values = {"received_at": NOW, "actor": "test", "endpoints": endpoints.every(c, 1)} | more
    return events.accept(c, 1, canonical(event), **values)


def seqs(found: list[events.StoredEvent]) -> list[tuple[str, int]]:
    return [(stored.event["id"], stored.version) for stored in found]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=ANY_EVENT)
def test_an_event_comes_back_as_it_was_loaded(store: Store, event: Json) -> None:
    with store.write() as c:
        done = events.accept(c, 1, event, received_at=NOW, actor="test", endpoints=[])
        found = events.find(c, 1, event["source"], event["id"])
    if done.outcome in ("accepted", "corrected"):
        assert found[-1].event == event
        assert exact_json.dumps(found[-1].event) == exact_json.dumps(event)
        assert found[-1].content_hash == events.content_hash(event)


def test_outcomes(store: Store) -> None:
    with store.write() as c:
        assert accept(c, REFILL).outcome == "accepted"
        assert accept(c, REFILL) == events.Accepted("replayed", 1)
        assert accept(c, REFILL | {"note": "x"}).outcome == "conflict"
        assert accept(c, REFILL | {"note": "x", "version": 2}) == events.Accepted("corrected", 2)
        assert accept(c, REFILL | {"version": 2}).outcome == "conflict"
        assert accept(c, REFILL) == events.Accepted("replayed", 1)
        assert seqs(events.find(c, 1, "clinic-a", "R-1")) == [("R-1", 1), ("R-1", 2)]
        rows = audit.of(c, 1, "clinic-a/R-1")
    assert [row.action for row in rows] == ["accepted", "conflict", "corrected", "conflict"]


def test_digits_make_content(store: Store) -> None:
    one = canonical(REFILL | {"volume_instilled": q(exact_json.loads("19.0"), "mL")})
    two = canonical(REFILL | {"volume_instilled": q(exact_json.loads("19.00"), "mL")})
    assert one == two
    assert events.content_hash(one) != events.content_hash(two)


def test_tenants_do_not_see_each_other(store: Store) -> None:
    with store.write() as c:
        c.exec_driver_sql("INSERT INTO tenants (id, name) VALUES (2, 'other')")
        accept(c, REFILL)
        done = events.accept(
            c, 2, canonical(REFILL | {"note": "x"}), received_at=NOW, actor="t", endpoints=[]
        )
        assert done.outcome == "accepted"
        for tenant, seq in ((1, 1), (2, 2)):
            assert [e.seq for e in events.search(c, tenant, limit=10)] == [seq]
            assert [e.seq for e in events.timeline(c, tenant, SERIAL)] == [seq]
            assert [e.seq for e in events.find(c, tenant, "clinic-a", "R-1")] == [seq]
            assert events.by_seq(c, tenant, 3 - seq) is None
        assert deliveries.find(c, 2, 1) is None


def test_a_timeline_holds_current_versions_as_they_happened(store: Store) -> None:
    early = REFILL | {
        "id": "R-0",
        "occurred_at": "2025-05-05T10:00:00-04:00",
        "started_at": "2025-05-05T13:00:00Z",
    }
    with store.write() as c:
        for event in (DOSE_CHANGE, REFILL, CATHETER, PUMP, early):
            accept(c, event)
        accept(c, REFILL | {"version": 2, "note": "corrected"})
        assert seqs(events.timeline(c, 1, SERIAL)) == [
            ("D-2", 1),
            ("D-1", 2),
            ("R-0", 1),
            ("R-1", 2),
            ("P-1", 1),
        ]
        moved = REFILL | {"version": 3, "pump": "OTHER1"}
        accept(c, moved)
        assert seqs(events.timeline(c, 1, SERIAL)) == [("D-2", 1), ("D-1", 2), ("R-0", 1), ("P-1", 1)]
        assert events.pumps(c, 1, limit=10) == [SERIAL, "OTHER1"]
        assert events.pumps(c, 1, limit=10, after=SERIAL) == ["OTHER1"]


def test_a_correction_keeps_its_record_s_place_among_those_of_one_instant(store: Store) -> None:
    with store.write() as c:
        for event in (CATHETER, PUMP, CATHETER | {"version": 2, "lot": "L2"}):
            accept(c, event)
        assert seqs(events.timeline(c, 1, SERIAL)) == [("D-2", 2), ("D-1", 2)]


def claimed(c: Connection, endpoint_id: int, at: datetime = NOW, owner: str = "w") -> dict[str, list[int]]:
    """What a worker may send now, by lane: the events' ledger numbers; it gives the lanes back."""
    leases = lanes.claim(c, endpoint_id, owner, now=at, until=at, limit=10)
    found = deliveries.waiting(c, leases, now=at, most=9)
    lanes.release(c, endpoint_id, [lease.lane for lease in leases], owner)
    return {lease.lane: [d.event_seq for d in found if d.lane == lease.lane] for lease in leases}


def came_to(c: Connection, id: int, status: str, **more: Any) -> None:
    delivery = deliveries.find(c, 1, id)
    assert delivery is not None
    deliveries.record(c, [Outcome(delivery, status, **more)], now=NOW)
    lanes.refresh(c, delivery.endpoint_id, [delivery.lane])


def test_a_lane_is_in_order_and_a_held_head_holds_only_its_own_lane(store: Store) -> None:
    second = {"pump": "OTHER1", "id": "R-9"}
    pump, other = f"pump:{SERIAL}", "pump:OTHER1"
    with store.write() as c:
        for name in ("a", "b"):
            endpoints.add(c, 1, name, "http://ehr.invalid", {}, now=NOW)
        for event in (REFILL, DOSE_CHANGE, REFILL | second):
            accept(c, event)
        a, b = endpoints.every(c, 1)
        assert claimed(c, a.id) == {other: [3], pump: [1, 2]}
        came_to(c, 1, "failed", failure="Refused", last_status=422, reason="no")
        assert claimed(c, a.id) == {other: [3]}
        assert deliveries.change(c, 1, [1], "retry", now=NOW, reason=None) == [1]
        came_to(c, 1, "sent", last_status=200)
        assert claimed(c, a.id) == {other: [3], pump: [2]}
        later = NOW + timedelta(seconds=10)
        came_to(c, 3, "pending", failure="Throttled", next_try_at=stamp(later))
        assert claimed(c, a.id) == {other: [3]}
        assert claimed(c, a.id, later) == {other: [3], pump: [2]}
        assert claimed(c, b.id) == {other: [3], pump: [1, 2]}
        assert deliveries.counts(c) == dict.fromkeys(deliveries.STATUSES, 0) | {"pending": 5, "sent": 1}
        assert deliveries.counts(c, b.id)["pending"] == 3


def test_every_try_is_counted_and_how_often_it_ended_alike(store: Store) -> None:
    with store.write() as c:
        endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        accept(c, REFILL)
        for failure in ("Throttled", "Ambiguous", "Ambiguous"):
            came_to(c, 1, "pending", failure=failure, reason="no answer")
        waiting = deliveries.find(c, 1, 1)
        assert waiting is not None
        assert (waiting.attempts, waiting.failure, waiting.repeats) == (3, "Ambiguous", 2)
        came_to(c, 1, "sent", last_status=201)
        sent = deliveries.find(c, 1, 1)
    assert sent is not None
    assert (sent.attempts, sent.status, sent.last_status, sent.reason) == (4, "sent", 201, None)
    assert (sent.failure, sent.repeats) == (None, 0)


def test_what_a_person_did_meanwhile_stays_but_what_was_sent_is_sent(store: Store) -> None:
    with store.write() as c:
        endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        accept(c, REFILL)
        delivery = deliveries.find(c, 1, 1)
        assert delivery is not None
        deliveries.change(c, 1, [1], "cancel", now=NOW, reason="not for them")
        deliveries.record(c, [Outcome(delivery, "pending", failure="Throttled")], now=NOW)
        assert deliveries.counts(c)["cancelled"] == 1
        deliveries.record(c, [Outcome(delivery, "sent")], now=NOW)
        assert deliveries.counts(c)["sent"] == 1


@pytest.mark.parametrize("action", sorted(CHANGES))
@pytest.mark.parametrize("status", deliveries.STATUSES)
def test_a_person_may_do_what_the_table_says_and_the_lane_follows(
    store: Store, action: str, status: str
) -> None:
    with store.write() as c:
        endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        for event in (REFILL, DOSE_CHANGE):
            accept(c, event)
        if status != "pending":
            to = next((name for name, done in CHANGES.items() if done.to == status), None)
            if to is not None:
                deliveries.change(c, 1, [1], to, now=NOW, reason="why")
            else:
                came_to(c, 1, status, failure="Refused" if status != "sent" else None)
        possible = status in CHANGES[action].starts
        assert deliveries.change(c, 1, [1], action, now=NOW, reason="why") == ([1] if possible else [])
        found = deliveries.find(c, 1, 1)
        assert found is not None
        assert found.status == (CHANGES[action].to if possible else status)
        first = {"pending": [1, 2]} | dict.fromkeys(("sent", "skipped", "cancelled"), [2])
        assert list(claimed(c, 1).values()) == ([first[found.status]] if found.status in first else [])


def test_a_lane_has_one_holder_until_its_lease_ends(store: Store) -> None:
    end, after = NOW + timedelta(seconds=30), NOW + timedelta(seconds=31)
    with store.write() as c:
        endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        accept(c, REFILL)
        (first,) = lanes.claim(c, 1, "one", now=NOW, until=end, limit=5)
        assert lanes.claim(c, 1, "two", now=NOW, until=end, limit=5) == []
        assert lanes.held(c, [first]) == {first.lane}
        (second,) = lanes.claim(c, 1, "two", now=after, until=after + timedelta(30), limit=5)
        assert second.fence == first.fence + 1
        assert lanes.held(c, [first]) == set()
        lanes.release(c, 1, [first.lane], "one")
        lanes.renew(c, ["one"], until=after + timedelta(60))
        assert lanes.owners(c, now=after) == ["two"]
        lanes.end(c, "two")
        assert lanes.owners(c, now=after) == []
        lanes.renew(c, ["one", "two"], until=after + timedelta(60))
        assert [lease.fence for lease in lanes.claim(c, 1, "one", now=after, until=end, limit=5)] == [3]


def test_a_lease_is_one_owner_s_until_it_ends(store: Store) -> None:
    end, after = NOW + timedelta(seconds=30), NOW + timedelta(seconds=31)
    with store.write() as c:
        assert leases.acquire(c, 1, "lane", "a", now=NOW, until=end) == 1
        assert leases.acquire(c, 1, "lane", "b", now=NOW, until=end) is None
        assert leases.acquire(c, 1, "other", "b", now=NOW, until=end) == 1
        assert leases.is_held(c, 1, "lane", 1)
        assert leases.acquire(c, 1, "lane", "b", now=after, until=after + timedelta(30)) == 2
        assert not leases.is_held(c, 1, "lane", 1)
        leases.renew(c, ["a"], until=after + timedelta(60))
        assert leases.holders(c, now=after) == ["b"]
        leases.release(c, 1, "lane", 1, now=after)
        assert leases.acquire(c, 1, "lane", "a", now=after, until=end) is None
        leases.release(c, 1, "lane", 2, now=after)
        assert leases.acquire(c, 1, "lane", "a", now=after, until=end) == 3


def test_a_link_is_found_from_both_sides_and_replaced(store: Store) -> None:
    with store.write() as c:
        a = endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        first = Link(1, a.id, "sys", "v", "Device", "12", "1", "hash")
        links.save(c, first, now=NOW)
        assert links.find(c, a.id, "sys", "v") == links.find_remote(c, a.id, "Device", "12") == first
        second = Link(1, a.id, "sys", "v", "Device", "12", "2", "other")
        links.save(c, second, now=NOW)
        assert links.find(c, a.id, "sys", "v") == second
        assert links.find(c, a.id + 1, "sys", "v") is None
        links.forget(c, a.id, "sys", "v")
        assert links.find_remote(c, a.id, "Device", "12") is None


def test_a_remote_version_is_kept_once_with_its_outcome(store: Store) -> None:
    with store.write() as c:
        a = endpoints.add(c, 1, "a", "http://ehr.invalid", {}, now=NOW)
        first = RemoteVersion(1, a.id, "Device", "12", "3", "2025-01-01T00:00:00Z", '{"a": 1}', "h1", "echo")
        anew = replace(first, raw='{"a": 2}', content_hash="h2", outcome="accepted")
        remote.add(c, [first, anew], now=NOW)
        assert remote.seen(c, a.id, "Device", ["12", "13"]) == {
            ("12", "3", "h1"): "echo",
            ("12", "3", "h2"): "accepted",
        }
        assert remote.raw_of(c, a.id, "Device", "12", "3") == '{"a": 2}'
        assert remote.raw_of(c, a.id, "Device", "12", "4") is None


def test_a_key_names_its_tenant_until_it_is_revoked(store: Store) -> None:
    with store.write() as c:
        key = keys.add(c, 1, "lab", now=NOW)
        assert keys.caller(c, key) == keys.Caller(1, "lab")
        assert keys.caller(c, key + "x") is None
        assert [row.name for row in keys.every(c, 1)] == ["lab"]
        assert keys.revoke(c, 1, "lab", now=NOW) == 1
        assert keys.caller(c, key) is None
        assert keys.revoke(c, 1, "lab", now=NOW) == 0


def test_an_endpoint_keeps_what_it_was_told_over_the_defaults(store: Store) -> None:
    with store.write() as c:
        made = endpoints.add(c, 1, "a", "http://ehr.invalid/fhir/", {"poll_seconds": 60}, now=NOW)
        endpoints.set_cursor(c, made.id, "2025-01-01T00:00:00Z")
        found = endpoints.by_id(c, made.id)
    assert found is not None
    assert (found.url, found.cursor) == ("http://ehr.invalid/fhir", "2025-01-01T00:00:00Z")
    assert found.options == endpoints.DEFAULT_OPTIONS | {"poll_seconds": 60}
    assert "options" not in repr(found)


def test_the_bell_rings_for_the_endpoints_that_something_is_due_to_once_it_is_committed(store: Store) -> None:
    with store.write() as c:
        one, other = (endpoints.add(c, 1, name, "http://ehr.invalid/fhir", {}, now=NOW) for name in "ab")
        endpoints.set_enabled(c, other.id, False)
    with store.write() as c:
        accept(c, REFILL)
        assert store.bell.count(one.id) == 0
    assert (store.bell.count(one.id), store.bell.count(other.id)) == (1, 0)


@pytest.mark.parametrize(
    ("index", "call"),
    [
        ("sqlite_autoindex_events_1", lambda c: events.find(c, 1, "s", "i")),
        ("INTEGER PRIMARY KEY", lambda c: events.by_seqs(c, 1, range(25))),
        ("of USING INTEGER PRIMARY KEY", lambda c: events.other_versions(c, 1, range(25))),
        ("ix_events_pump", lambda c: events.timeline(c, 1, SERIAL)),
        ("ix_events_pump", lambda c: events.current(c, 1, pump=SERIAL, limit=2)),
        ("ix_events_device", lambda c: events.devices_of(c, 1, [SERIAL, "x"])),
        ("sqlite_autoindex_events_1", lambda c: events.versions_of(c, 1, [("s", "i"), ("s", "j")])),
        ("ix_events_patient", lambda c: events.search(c, 1, limit=9, patient=("s", PATIENT["value"]))),
        (
            "ix_events_patient",
            lambda c: events.beside(c, 1, pump=SERIAL, patient=("s", PATIENT["value"]), types=("device",)),
        ),
        ("ix_deliveries_lane", lambda c: deliveries.waiting(c, [Lease(1, "x", 1)], now=NOW, most=5)),
        ("ix_lanes_due", lambda c: lanes.claim(c, 1, "w", now=NOW, until=NOW, limit=5)),
        ("ix_lanes_due", lambda c: lanes.due(c, 1, now=NOW, most=5)),
        ("ix_deliveries_event", lambda c: deliveries.of_event(c, 1)),
        ("sqlite_autoindex_links_1", lambda c: links.find(c, 1, "s", "v")),
        ("sqlite_autoindex_links_1", lambda c: links.find_many(c, 1, [("s", "v"), ("s", "w")])),
        ("ix_links_remote", lambda c: links.find_remote(c, 1, "Device", "1")),
        ("ix_links_remote", lambda c: links.of_remote(c, 1, "Device", ["1", "2"])),
        ("sqlite_autoindex_remote_versions_1", lambda c: remote.seen(c, 1, "Device", ["1", "2"])),
        ("sqlite_autoindex_remote_versions_1", lambda c: remote.raw_of(c, 1, "Device", "1", "1")),
        ("ix_conflicts_record", lambda c: conflicts.open_of(c, 1, 1, "s", "i")),
        ("ix_conflicts_lane", lambda c: conflicts.open_in_lane(c, 1, "x")),
        ("ix_conflicts_lane", lambda c: conflicts.open_in_lanes(c, ENDPOINT, ["x", "y"])),
        ("sqlite_autoindex_api_keys_1", lambda c: keys.caller(c, "key")),
    ],
)
def test_each_question_has_its_index(tmp_path: Path, index: str, call: Any) -> None:
    made = Store(f"sqlite:///{tmp_path}/plan.db")
    migrate(made)
    asked: list[tuple[str, Any]] = []
    event.listen(
        made.engine, "before_cursor_execute", lambda _c, _cur, text, values, *_: asked.append((text, values))
    )
    with made.read() as c:
        call(c)
        text, values = asked[-1]
        plan = " ".join(row[3] for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values))
    made.close()
    assert index in plan, plan
