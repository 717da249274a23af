"""R13: events that come late, early, twice and five times end in the same record as events in order."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chaos import left_behind
from history import Write, check
from mappings.exact_json import dumps
from mappings.identity import content_hash, resource_identity
from service.store import events
from service.sync import outbox, send, shape
from service.synthetic import clinic
from site_of_tests import Site

Json = Any
EVENTS = list(islice(clinic(5, 6, 4), 160))
WINDOW = 50


def disordered(seed: int) -> list[Json]:
    """Each event up to five times, each time up to `WINDOW` places from where it belongs."""
    rng = random.Random(seed)
    placed = [
        (number + rng.uniform(-WINDOW, WINDOW), event)
        for number, event in enumerate(EVENTS)
        for _ in range(rng.randint(1, 5))
    ]
    return [event for _, event in sorted(placed, key=lambda pair: pair[0])]


class Ward(Site):
    """Takes batches of what is sent, and delivers between them."""

    def __init__(self, folder: Path, sent: list[Json]) -> None:
        super().__init__(folder)
        for name in sorted({event["patient"]["value"] for event in EVENTS}):
            patient = {"resourceType": "Patient", "id": name}
            self.ehr.place(patient | {"identifier": [EVENTS[0]["patient"] | {"value": name}]})
        self.outcomes: set[str] = set()
        for at in range(0, len(sent), 40):
            self.outcomes.update(self.send(*sent[at : at + 40]))
            self.push(rounds=2)
        self.push(rounds=400)

    def told(self) -> dict[Any, str]:
        """What the EHR holds, by identity and content."""
        held = [versions[-1] for (type, _), versions in self.ehr.history.items() if type != "Patient"]
        return {
            (resource["resourceType"], *resource_identity(resource)): content_hash(resource)
            for resource in held
            if resource["resourceType"] != "Provenance"  # it says when an event came
        }

    def kept(self) -> list[bytes]:
        with self.store.read() as c:
            return sorted(dumps(found.event) for found in events.search(c, 1, limit=10_000))

    def check(self) -> None:
        """All but order and content on the way: the checker knows only those of a history in order."""
        writes = [
            Write(v.key[0], v.key[1], v.number, n, v.resource) for n, v in enumerate(self.ehr.state.log)
        ]
        found = check(left_behind(self.store, writes, EVENTS, Path("no log"), 0.0))
        assert [one for one in found if one.invariant not in ("I3", "I4")] == []


def compare(folder: Path, seed: int) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
    straight, mixed = Ward(folder / "a", EVENTS), Ward(folder / "b", disordered(seed))
    assert straight.outcomes == {"accepted"}
    assert mixed.outcomes == {"accepted", "replayed"}
    assert mixed.kept() == straight.kept()
    assert mixed.told() == straight.told()
    mixed.check()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_events_in_any_order_and_number_end_in_the_same_record(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed)


def no_chain(patch: pytest.MonkeyPatch) -> None:
    """A late program finds no other around it."""
    patch.setattr(shape, "_held_changes", lambda c, endpoint, event: [])


def neighbours_stay(patch: pytest.MonkeyPatch) -> None:
    """A late program takes its place, and those around it do not learn of it."""
    right = shape.neighbours
    patch.setattr(shape, "neighbours", lambda event, held: replace(right(event, held), changed=[]))


def held_twice(patch: pytest.MonkeyPatch) -> None:
    """First contact without a condition, and every delivery is tried twice."""
    right = send.entry

    def wrong(endpoint: Any, one: Any, lookup: Any) -> Any:
        made = right(endpoint, one, lookup)
        made["request"].pop("ifNoneExist", None)
        return made

    patch.setattr(send, "entry", wrong)
    patch.setattr(outbox.links, "save_many", lambda c, made, now: None)


@pytest.mark.parametrize("bug", [no_chain, neighbours_stay, held_twice], ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_seen(bug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, mixed = tmp_path / "a", tmp_path / "b"
    straight.mkdir()
    mixed.mkdir()
    wanted = Ward(straight, EVENTS).told()
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        made = Ward(mixed, disordered(1))
        assert made.told() == wanted
        made.check()
