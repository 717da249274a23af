"""Many hands on both sides at once: no edit is undone by a writer that had not seen it.

Half of the threads are users of the EHR and count the lot of a record up, half are users here and count its
note up, while a poll and the lanes run. An update that is lost shows as a count that goes down, on either
side, or as an end that is not the last one written.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from service.store import links
from service.sync import agreement, merge, send
from service.sync.ehr import EhrError, Stale
from service.sync.merge import Merged
from service.sync.pull import pull
from service.sync.worker import push_due
from site_of_tests import REFILL, Site

Json = Any
RECORDS = 20


@dataclass
class Hands:
    """What was written last, by record, and how the threads take turns over one record."""

    ids: dict[str, str]
    lots: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=lambda: {n: threading.Lock() for n in NAMES})


NAMES = [f"R-{n}" for n in range(RECORDS)]


def made(folder: Path, url: str) -> Site:
    site = Site(folder, url)
    site.register()
    drug = REFILL["drug"] | {"lot": "L0"}
    site.send(*({**REFILL, "id": name, "pump": f"NGP{name}", "note": "0", "drug": drug} for name in NAMES))
    site.push()
    site.pull()
    return site


def edit_there(site: Site, hands: Hands, name: str) -> None:
    """A user of the EHR counts the lot of a record up and saves; told of a newer version, does it again."""
    with hands.locks[name]:
        wanted = hands.lots.get(name, 0) + 1
        while True:
            resource = site.ehr.read("MedicationAdministration", hands.ids[name])
            resource["contained"][0]["batch"]["lotNumber"] = f"L{wanted}"
            try:
                site.ehr.update(resource)
            except Stale:
                continue
            hands.lots[name] = wanted
            return


def edit_here(site: Site, hands: Hands, name: str) -> None:
    """A user here counts the note of a record up and sends it; told of a newer version, does it again."""
    with hands.locks[name]:
        wanted = hands.notes.get(name, 0) + 1
        while True:
            event = site.versions("clinic-a", name)[-1]
            (outcome,) = site.send({**event, "note": str(wanted), "version": event.get("version", 1) + 1})
            if outcome == "corrected":
                hands.notes[name] = wanted
                return


def run(site: Site, threads: int, edits: int) -> Hands:
    hands = Hands({name: site.one("refill", name)["id"] for name in NAMES})
    done = threading.Event()
    failures: list[BaseException] = []

    def working(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                done.set()

        return run

    def user(number: int) -> None:
        chance = random.Random(number)
        edit = edit_there if number % 2 else edit_here
        for _ in range(edits):
            if failures:
                return
            edit(site, hands, chance.choice(NAMES))

    def polls() -> None:
        while not done.is_set():
            pull(site.store, site.ehr, site.endpoint, site.now)

    def lanes() -> None:
        while not done.is_set():
            push_due(site.store, site.endpoint, site.ehr, site.now)

    users = [threading.Thread(target=working(lambda n=n: user(n))) for n in range(threads)]  # type: ignore[misc]
    syncing = [threading.Thread(target=working(polls)), threading.Thread(target=working(lanes))]
    for thread in (*users, *syncing):
        thread.start()
    for thread in users:
        thread.join()
    done.set()
    for thread in syncing:
        thread.join()
    if failures:
        raise failures[0]
    while site.pull().keys() - {"echo"} or site.push():
        pass
    return hands


def counts(site: Site, name: str) -> dict[str, list[tuple[int, int]]]:
    """(lot, note) of every version of a record: in the EHR and here."""
    (history,) = site.held("refill", name)
    there = [(r["contained"][0]["batch"]["lotNumber"], r["note"][0]["text"]) for r in history]
    here = [(e["drug"]["lot"], e["note"]) for e in site.versions("clinic-a", name)]
    return {
        side: [(int(re.sub(r"\D", "", lot)), int(note)) for lot, note in pairs]
        for side, pairs in (("there", there), ("here", here))
    }


def lost(site: Site, hands: Hands) -> list[str]:
    """Every count that went down, and every end that is not the last word."""
    found = []
    for name in NAMES:
        wanted = (hands.lots.get(name, 0), hands.notes.get(name, 0))
        for side, pairs in counts(site, name).items():
            for before, after in zip(pairs, pairs[1:], strict=False):
                if after[0] < before[0] or after[1] < before[1]:
                    found.append(f"{name} {side}: {before} became {after}")
            if pairs[-1] != wanted:
                found.append(f"{name} {side}: ends as {pairs[-1]}, written was {wanted}")
    return found


def test_eight_threads_lose_no_edit(tmp_path: Path) -> None:
    site = made(tmp_path, f"sqlite:///{tmp_path}/itb.db")
    hands = run(site, threads=8, edits=500)
    assert sum(hands.lots.values()) + sum(hands.notes.values()) == 4000
    assert lost(site, hands) == []
    assert {d.status for d in site.deliveries()} == {"sent"}


# --- seeded bugs: each must be seen ------------------------------------------------------------------------


def theirs_replaces_ours(patch: pytest.MonkeyPatch) -> None:
    """What was read is the new version, whatever happened here meanwhile."""

    def wrong(base: Any, ours: Any, theirs: Any, **_: Any) -> Merged:
        found = merge.differences(base, ours, theirs)
        return Merged({**theirs}, tuple(found), (), ())

    patch.setattr(agreement, "merge", wrong)


def no_if_match(patch: pytest.MonkeyPatch) -> None:
    right = send.entry

    def wrong(*arguments: Any) -> Any:
        entry = right(*arguments)
        entry["request"].pop("ifMatch", None)
        return entry

    patch.setattr(send, "entry", wrong)


def base_is_what_we_are_about_to_write(patch: pytest.MonkeyPatch) -> None:
    right = links.save

    def wrong(c: Any, link: Any, *, now: Any) -> None:
        right(c, replace(link, told=None), now=now)

    patch.setattr(links, "save", wrong)


@pytest.mark.parametrize("bug", [theirs_replaces_ours, no_if_match, base_is_what_we_are_about_to_write])
def test_a_seeded_bug_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Any) -> None:
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with monkeypatch.context() as patch:
            site = made(folder, f"sqlite:///{folder}/itb.db")
            bug(patch)
            try:
                if lost(site, run(site, threads=4, edits=60)):
                    return
            except (AssertionError, EhrError):
                return
            finally:
                site.store.close()
    raise AssertionError("no lost update was seen")
