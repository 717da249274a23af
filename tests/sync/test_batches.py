"""Several deliveries in one transaction: no bad entry harms a neighbour, no answer counts for another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from fakes import MemoryEhr
from mappings.identity import resource_identity
from service.store.tables import links as table
from service.sync import retry, send, shape
from service.sync.ehr import Ambiguous, EhrError, Gone, Refused, TooLarge
from service.sync.outbox import Keeper, step
from service.sync.patient_cache import Patients
from service.sync.push import Route
from service.sync.retry import Act, Rule
from service.sync.worker import step_name
from site_of_tests import DRUG, HISTORY, REFILL, Site, event

Json = Any


def refill(pump: int, number: int = 1) -> Json:
    more = {"drug": DRUG, "volume_instilled": REFILL["volume_instilled"]}
    at = f"2025-03-{number:02}T12:00:00-06:00"
    return event("refill", f"R-{pump}-{number}", pump=f"NGP{pump}", occurred_at=at, **more)


class Odd(MemoryEhr):
    """Refuses a transaction with one of `bad` in it; answers as `distort` makes it, once."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: dict[str, EhrError] = {}
        self.distort: list[Callable[[list[Json]], list[Json]]] = []
        self.bundles: list[Json] = []

    def transaction(self, bundle: Json) -> list[Json]:
        self.bundles.append(bundle)
        for entry in bundle["entry"]:
            for name in entry["resource"].get("identifier", []):
                if (error := self.bad.get(name["value"])) is not None:
                    raise error
        answer = super().transaction(bundle)
        return self.distort.pop(0)(answer) if self.distort else answer


class Clinic(Site):
    def __init__(self, folder: Path, url: str = "", **options: Any) -> None:
        super().__init__(folder, url, **options)
        self.ehr: Odd = Odd()
        self.register()

    def statuses(self) -> list[str]:
        return [d.status for d in self.deliveries()]

    def linked(self) -> list[tuple[str, str, str, str]]:
        """What the ledger believes to be where in the EHR."""
        columns = (table.c.system, table.c.value, table.c.resource_type, table.c.remote_id)
        with self.store.read() as c:
            return [tuple(row) for row in c.execute(select(*columns))]

    def refills(self) -> dict[str, int]:
        """How many resources, and versions, there are of each refill."""
        found: dict[str, int] = {}
        for key, versions in self.ehr.history.items():
            if key[0] == "MedicationAdministration":
                name = resource_identity(versions[-1])[1]
                found[name] = found.get(name, 0) + len(versions)
        return found


@pytest.fixture
def clinic(tmp_path: Path, database_url: str) -> Iterator[Clinic]:
    made = Clinic(tmp_path, database_url)
    yield made
    made.store.close()


def test_many_lanes_and_many_of_a_lane_go_in_one_transaction(clinic: Clinic) -> None:
    clinic.send(*(refill(pump, number) for pump in range(5) for number in (1, 2)))
    assert clinic.push() == {"sent": 10}
    assert [len(bundle["entry"]) for bundle in clinic.ehr.bundles] == [20]


def test_a_transaction_has_about_as_many_resources_as_the_endpoint_takes(tmp_path: Path) -> None:
    clinic = Clinic(tmp_path, batch_size=6)
    clinic.send(*(refill(pump) for pump in range(10)))
    assert clinic.push() == {"sent": 10}
    assert max(len(bundle["entry"]) for bundle in clinic.ehr.bundles) == 6


def test_threads_side_by_side_share_few_lanes(clinic: Clinic) -> None:
    """Else the first one takes all lanes, and one transaction after the other is all that the EHR gets."""
    clinic.send(*(refill(pump, number) for number in (1, 2) for pump in range(4)))
    patients, keeper = Patients(clinic.endpoint, clinic.now), Keeper(clinic.store, clinic.now)

    def side_by_side(ehr: Odd) -> Counter[str] | None:
        route = Route(clinic.store, ehr, clinic.endpoint, patients, clinic.now, beside=2)
        return step(route, keeper, step_name())

    other = Odd()
    other.state = clinic.ehr.state
    clinic.ehr.before.append(lambda _: done.append(side_by_side(other)))
    done: list[Counter[str] | None] = []
    done.append(side_by_side(clinic.ehr))
    assert done == [{"sent": 2}, {"sent": 4}]  # of the two lanes that the first one left, one
    assert clinic.push() == {"sent": 2}


def test_the_same_identity_never_stands_twice_in_one_transaction(clinic: Clinic) -> None:
    clinic.send(*HISTORY)
    assert clinic.push() == {"sent": len(HISTORY)}
    for bundle in clinic.ehr.bundles:
        urls = [entry["fullUrl"] for entry in bundle["entry"]]
        assert len(urls) == len(set(urls))


def test_patients_are_looked_up_together(clinic: Clinic) -> None:
    sent = []
    for number in range(30):
        clinic.register(f"P{number}")
        sent.append(
            refill(number) | {"patient": {"system": "http://hospital.invalid/mrn", "value": f"P{number}"}}
        )
    clinic.send(*sent)
    assert clinic.push() == {"sent": 30}
    assert clinic.ehr.calls.count("search") <= 4


@pytest.mark.parametrize(
    ("error", "status"),
    [(Refused("no", 422), "failed"), (Gone("gone", 410), "parked"), (TooLarge("", 413), "failed")],
)
def test_a_bad_entry_never_fails_its_neighbours(clinic: Clinic, error: EhrError, status: str) -> None:
    clinic.send(*(refill(pump) for pump in range(16)))
    clinic.ehr.bad["clinic-a.R-11-1"] = error
    assert clinic.push(rounds=1) == {"sent": 15, status: 1}
    assert clinic.statuses()[11] == status
    assert len(clinic.ehr.bundles) <= 1 + 2 * 4  # halves, down to the bad one
    assert clinic.refills() == {f"clinic-a.R-{n}-1": 1 for n in range(16) if n != 11}


def test_what_follows_a_bad_entry_in_its_lane_waits_for_it(clinic: Clinic) -> None:
    clinic.send(*(refill(pump, number) for number in (1, 2) for pump in range(4)))
    clinic.ehr.bad["clinic-a.R-1-1"] = Refused("no", 422)
    clinic.push()
    assert clinic.statuses() == ["sent", "failed", "sent", "sent", "sent", "pending", "sent", "sent"]


def test_one_that_makes_the_server_fail_travels_alone_in_the_end(clinic: Clinic) -> None:
    """500 for the whole transaction, each time: its neighbours must not wait for it for ever."""
    clinic.send(*(refill(pump) for pump in range(16)))
    clinic.ehr.bad["clinic-a.R-5-1"] = Ambiguous("internal error", 500)
    clinic.push(rounds=40)
    assert clinic.statuses() == ["pending" if n == 5 else "sent" for n in range(16)]
    assert clinic.refills() == {f"clinic-a.R-{n}-1": 1 for n in range(16) if n != 5}


def swapped(answer: list[Json]) -> list[Json]:
    return answer[2:4] + answer[:2] + answer[4:]


def short(answer: list[Json]) -> list[Json]:
    return answer[:-1]


def doubled(answer: list[Json]) -> list[Json]:
    return [answer[0], answer[0], *answer[2:]]


def of_others(answer: list[Json]) -> list[Json]:
    return [one | {"identifier": [{"system": "urn:other", "value": "1"}]} for one in answer]


@pytest.mark.parametrize("distort", [swapped, short, doubled, of_others], ids=lambda d: d.__name__)
def test_nothing_is_done_on_an_answer_that_does_not_name_it(clinic: Clinic, distort: Any) -> None:
    clinic.send(*(refill(pump) for pump in range(6)))
    clinic.ehr.distort = [distort]
    first = clinic.push(rounds=1)
    wrong = {"swapped": 2, "doubled": 1}.get(distort.__name__, 6)
    assert first.get("pending", 0) == wrong
    assert first.get("sent", 0) == 6 - wrong
    clinic.push()
    assert set(clinic.statuses()) == {"sent"}
    assert clinic.refills() == {f"clinic-a.R-{n}-1": 1 for n in range(6)}


def survive(folder: Path, bad: set[int], distortions: list[Any], size: int) -> None:
    """Whatever is refused and however answers are distorted: each good event once, each bad one visible."""
    clinic = Clinic(folder, batch_size=size)
    clinic.send(*(refill(pump, number) for number in (1, 2) for pump in range(5)))
    for pump in bad:
        clinic.ehr.bad[f"clinic-a.R-{pump}-1"] = Refused("no", 422)
    clinic.ehr.distort = list(distortions)
    clinic.push()
    wanted = ["failed" if pump in bad else "sent" for pump in range(5)]
    wanted += ["pending" if pump in bad else "sent" for pump in range(5)]
    try:
        assert clinic.statuses() == wanted
        assert clinic.refills() == {
            f"clinic-a.R-{pump}-{n}": 1 for pump in range(5) for n in (1, 2) if pump not in bad
        }
        for bundle in clinic.ehr.bundles:
            urls = [entry["fullUrl"] for entry in bundle["entry"]]
            assert len(urls) == len(set(urls))
        for system, value, type, id in clinic.linked():
            assert resource_identity(clinic.ehr.history[type, id][-1]) == (system, value)
    finally:
        clinic.store.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bad=st.sets(st.integers(0, 4), max_size=3),
    distortions=st.lists(st.sampled_from([swapped, short, doubled, of_others]), max_size=4),
    size=st.sampled_from([1, 3, 8, 50]),
)
def test_batches_hold_under_any_mix(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], distortions: list[Any], size: int
) -> None:
    survive(tmp_path_factory.mktemp("mix"), bad, distortions, size)


def never_split(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(retry.TABLE, "Refused", Rule(Act.FAIL))


def answers_believed(patch: pytest.MonkeyPatch) -> None:
    def wrong(endpoint: Any, due: Any, found: Any) -> Any:
        return [
            send.link_of(endpoint, one.key, answer.resource, one.hash)
            for one, answer in zip(due, found, strict=True)
        ]

    patch.setattr(send, "answered", wrong)


def lanes_go_past_a_failure(patch: pytest.MonkeyPatch) -> None:
    class Forgetful(send.Sending):
        def _fail(self, parcels: Any, error: Exception) -> None:
            super()._fail(parcels, error)
            self.failed.clear()

    patch.setattr("service.sync.push.Sending", Forgetful)


BUGS = (never_split, answers_believed, lanes_go_past_a_failure)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_in_the_batches_is_caught(bug: Any, tmp_path: Path) -> None:
    cases: list[tuple[set[int], list[Any], int]] = [
        ({1}, [], 50),
        (set(), [of_others], 50),
        ({2}, [swapped, short], 8),
        (set(), [doubled, short, swapped], 3),
    ]
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        caught = 0
        for number, case in enumerate(cases):
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                survive(folder, *case)
            except (AssertionError, ValueError):
                caught += 1
    assert caught


def test_company_gets_smaller_after_each_failure_that_may_be_ones_own(clinic: Clinic) -> None:
    clinic.send(refill(1))
    clinic.ehr.bad["clinic-a.R-1-1"] = Ambiguous("internal error", 500)
    rooms = []
    for _ in range(8):
        clinic.push(rounds=1)
        rooms.append(shape.room(clinic.deliveries()[0], 50))
    assert rooms == [25, 12, 6, 3, 1, 1, 1, 1]
