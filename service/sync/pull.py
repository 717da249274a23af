"""Read what changed in one EHR: by time where its server searches so, else by patient; and what is gone.

The position up to which a type was read is the server's time, never ours. Each poll begins a while before it:
servers stamp before they commit, so a late commit appears behind. A position is saved in the transaction
that takes in the page which reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mappings.event import EVENTS_TOLD_BY
from service.store import audit, endpoints, events, hints, links, positions
from service.store.endpoints import Endpoint
from service.store.engine import Store
from service.store.times import stamp

from . import patients, survey
from .arrival import take, take_deletion
from .ehr import Ehr, Gone, Missing, Refused
from .pages import ahead, before, changes, is_later
from .readback import LOOKS
from .reading import Reader

Json = Any
Clock = Callable[[], datetime]
TYPES = tuple(dict.fromkeys([*EVENTS_TOLD_BY, "DeviceUseStatement", "MedicationAdministration"]))
"""What is polled: whatever tells an event, and what is sent beside it."""
NOT_BELIEVED = "deletions not believed"
FEW = 20
"""So many deletions at once are believed however few resources there were."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """How many versions were new here, by what became of them."""

    counts: dict[str, int]


def pull(
    store: Store,
    ehr: Ehr,
    endpoint: Endpoint,
    now: Clock,
    *,
    thorough: bool = True,
    accept_deletions: bool = False,
) -> Pulled:
    """Read every page of every type since its position; raises `EhrError` with the pages so far kept.

    `thorough`: also what costs more than it mostly brings: deletions, and types that are read patient by
    patient. `accept_deletions`: a person has said that so much is gone there indeed.
    """
    return Round(store, ehr, endpoint, now).run(thorough, accept_deletions)


class Round:
    """One round of reading one EHR."""

    def __init__(self, store: Store, ehr: Ehr, endpoint: Endpoint, now: Clock) -> None:
        self.store, self._ehr, self.endpoint, self.now = store, ehr, endpoint, now
        self._reader = Reader(store, ehr, endpoint)
        self.counts: dict[str, int] = {}
        self._overlap = endpoint.options.get("overlap_seconds", 300)
        with store.read() as c:
            self._positions = positions.of(c, endpoint.id)
        self._reached: dict[str, str] = {}

    def run(self, thorough: bool, accept_deletions: bool) -> Pulled:
        matrix = survey.matrix_of(self.store, self._ehr, self.endpoint, self.now)
        by_patient = []
        for type in TYPES:
            support = matrix.of(type)
            if "search-type" not in support.interactions:
                continue
            if "_lastUpdated" in support.search_params:
                self._by_time(type)
            elif "patient" in support.search_params:
                by_patient.append(type)
        if thorough:
            self._by_patient(by_patient)
            kept = [type for type in TYPES if "history-type" in matrix.of(type).interactions]
            self._deletions(kept, accept_deletions)
        self._save()
        return Pulled(self.counts)

    # --- by time ------------------------------------------------------------------------------------------

    def _by_time(self, type: str) -> None:
        position = self._positions.get(type, self.endpoint.cursor)
        since = before(position, self._overlap) if position is not None else None
        begun = newest = None
        for window in ahead(changes(self._ehr, type, since)):
            if begun is None and (begun := window.begun) is not None and self._was_reset(begun, position):
                self._reset(type)
                return self._by_time(type)
            self.take(window.page.resources, type, window.reached if window.page.next else None)
            newest = window.reached or newest
        end = begun or newest
        if end is not None and is_later(end, position):
            self._reached[type] = end
        return None

    def _was_reset(self, begun: str, position: str | None) -> bool:
        """Whether the server's clock stands before what was read: it was set up anew, or set back."""
        return position is not None and is_later(before(position, self._overlap), begun)

    def _reset(self, type: str) -> None:
        self._positions.pop(type, None)
        with self.store.write() as c:
            positions.forget(c, self.endpoint.id, type)
            endpoints.set_cursor(c, self.endpoint.id, None)
            self._audit(c, "read-anew", f"{type}: the server's clock is before what was read there")
        self.endpoint = endpoints.without_cursor(self.endpoint)

    def take(self, resources: list[Json], type: str, reached: str | None) -> None:
        """Take in resources of one type; `reached`: with them all is read up to that time of the server."""
        position = self._positions.get(type)
        moves = reached is not None and is_later(reached, position)

        def also(c: Connection) -> None:
            if moves and reached is not None:
                positions.save(c, self.endpoint, type, reached, now=self.now())

        # A catheter names its pump, which may be on the same page.
        first = [r for r in resources if type != "Device" or "parent" not in r]
        rest = [r for r in resources if type == "Device" and "parent" in r]
        for some, last in ((first, not rest), (rest, True)):
            if some:
                counts = take(
                    self.store,
                    self._ehr,
                    self._reader,
                    self.endpoint,
                    some,
                    self.now,
                    also if last else None,
                    by_poll=True,
                )
                self.add(counts)
        if moves and reached is not None:
            self._positions[type] = reached

    def add(self, counts: dict[str, int]) -> None:
        """Count what became of some."""
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + number

    # --- patient by patient -------------------------------------------------------------------------------

    def _by_patient(self, types: list[str]) -> None:
        if not types:
            return
        after = ("", "")
        while True:
            with self.store.read() as c:
                known = events.patients(c, self.endpoint.tenant_id, limit=100, after=after)
            if not known:
                return
            for system, value in known:
                self._one_patient(types, {"system": system, "value": value})
            after = known[-1]

    def _one_patient(self, types: list[str], name: Json) -> None:
        try:
            id = patients.find(self._ehr, name)
        except patients.Unclear:
            return  # not registered there, or not to be told apart: a delivery says so
        for type in types:
            try:
                for page in ahead(self._ehr.search(type, {"patient": id})):
                    self.take(page.resources, type, None)
            except (Refused, Missing):
                self.add({"unreadable": 1})

    # --- what is gone -------------------------------------------------------------------------------------

    def _deletions(self, types: list[str], accept: bool) -> None:
        """What the server says was deleted, and says again when it is asked: an absence tells nothing."""
        gone: list[tuple[str, str]] = []
        reached: dict[str, str] = {}
        for type in types:
            what = f"{type}/_history"
            position = self._positions.get(what) or self._positions.get(type) or self.endpoint.cursor
            if position is None:
                continue  # nothing was read before: nothing can be missed
            end = None
            for page in self._ehr.type_history(type, before(position, self._overlap)):
                end = end or page.server_time
                gone += self._linked(type, page.deleted)
            if end is not None and is_later(end, position):
                reached[what] = end
        gone = list(dict.fromkeys(gone))
        with self.store.read() as c:
            known = links.count(c, self.endpoint.id)
        if is_emptied(len(gone), known) and not accept:
            self.add({NOT_BELIEVED: len(gone)})
            with self.store.write() as c:
                self._audit(c, "emptied", f"{len(gone)} of {known} resources are said to be deleted")
            return
        for type, id in gone:
            self.confirm(type, id, was_said=True)
        self._reached |= reached

    def _linked(self, type: str, ids: list[str]) -> list[tuple[str, str]]:
        with self.store.read() as c:
            found = links.of_remote(c, self.endpoint.id, type, ids) if ids else {}
        return [(type, id) for id, link in found.items() if link.deleted_at is None]

    def confirm(self, type: str, id: str, *, was_said: bool = False) -> None:
        """Read one resource that the EHR named: as it is now, or that it is gone.

        `was_said`: the EHR's history tells of the deletion. Else a 404 is left to the next write or
        comparison while a cache may be older than the resource.
        """
        try:
            found = self._looked_for(type, id)
        except Missing as error:
            if was_said or isinstance(error, Gone) or self._is_missed(type, id):
                with self.store.write() as c:
                    outcome = take_deletion(c, self.endpoint, type, id, self.now())
                self.add({outcome: 1})
            return
        self.take([found], type, None)  # of a deletion: it was brought back

    def _looked_for(self, type: str, id: str) -> Json:
        """The resource; raises `Gone`, or `Missing` after `LOOKS` looks: a cache may not have it yet."""
        for left in range(LOOKS - 1, -1, -1):
            try:
                return self._ehr.read(type, id)
            except Missing as error:
                if not left or isinstance(error, Gone):
                    raise
        raise AssertionError("not reached")

    def _is_missed(self, type: str, id: str) -> bool:
        with self.store.read() as c:
            link = links.find_remote(c, self.endpoint.id, type, id)
        return link is not None and links.is_past_caches(link, self.now())

    # --- positions ----------------------------------------------------------------------------------------

    def _save(self) -> None:
        if not self._reached:
            return
        with self.store.write() as c:
            for what, position in self._reached.items():
                positions.save(c, self.endpoint, what, position, now=self.now())
            endpoints.set_cursor(c, self.endpoint.id, min(self._reached.values()))

    def _audit(self, c: Connection, action: str, detail: str) -> None:
        audit.write(
            c,
            self.endpoint.tenant_id,
            at=stamp(self.now()),
            actor="sync",
            action=action,
            subject=f"endpoint/{self.endpoint.name}",
            detail=detail,
        )


def is_emptied(gone: int, known: int) -> bool:
    """Whether so much is gone at once that the server has rather lost it than anybody deleted it."""
    return gone > FEW and gone * 5 > known


def read_waiting(store: Store, ehr: Ehr, endpoint: Endpoint, now: Clock) -> bool:
    """Read what the EHR said has changed, as it is now; False when it did not say what. Raises `EhrError`.

    A hint is gone before it is followed: what fails then is found by the next poll.
    """
    with store.read() as c:
        if not hints.are_waiting(c, endpoint.id):
            return True
    with store.write() as c:
        waiting = hints.take(c, endpoint.id)
    named = {(type, id) for type, id in waiting if type in TYPES and id}
    round = Round(store, ehr, endpoint, now)
    for type, id in sorted(named, key=lambda pair: (TYPES.index(pair[0]), pair[1])):
        round.confirm(type, id)
    return (None, None) not in waiting
