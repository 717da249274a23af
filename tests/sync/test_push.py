"""Delivering: each thing once, in order, and nothing lost whatever breaks in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fakes import lose_answer
from mappings.bundle import Around
from mappings.codes import definition
from service.store import deliveries
from service.store.deliveries import Outcome
from service.sync import outbox, send, shape
from service.sync.ehr import Ambiguous, EhrError, Forbidden, Refused, Throttled, Unauthorized, Unreachable
from site_of_tests import DEVICE, DRUG, HISTORY, REFILL, SECOND, START, THIRD, Site, event, program

OTHER = event("refill", "R-9", pump="NGP2", drug=DRUG, volume_instilled=REFILL["volume_instilled"])
"""Of another pump: another lane."""


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url, batch_size=1)
    yield made
    made.store.close()


def versions(site: Site) -> dict[tuple[str, str], int]:
    return {key: len(history) for key, history in site.ehr.history.items()}


def check_history_is_there_once(site: Site) -> None:
    for kind, id in (
        ("refill", "R-1"),
        ("programming-session", "P-2"),
        ("program", "P-3"),
        ("segment", "P-3"),
    ):
        (history,) = site.held(kind, id)
        assert len(history) == 1
    for id in ("P-1", "P-2"):
        opened, closed = site.one("segment", id), site.held("segment", id)[0]
        assert [r["status"] for r in closed] == ["in-progress", "completed"]
        assert opened["effectivePeriod"]["end"] == {"P-1": SECOND, "P-2": THIRD}[id]["occurred_at"]
        assert [r["status"] for r in site.held("program", id)[0]] == ["active", "stopped"]
    assert site.running() == ["clinic-a.P-3"]
    assert len([k for k in site.ehr.history if k[0] == "Device"]) == 1
    assert len([k for k in site.ehr.history if k[0] == "Provenance"]) == len(HISTORY)


def test_a_history_arrives_once_and_in_order(site: Site) -> None:
    site.register()
    assert set(site.send(*HISTORY)) == {"accepted"}
    assert site.push() == {"sent": len(HISTORY)}
    check_history_is_there_once(site)


def test_sending_everything_twice_changes_nothing(site: Site) -> None:
    site.register()
    site.send(*HISTORY)
    site.push()
    before = versions(site)
    assert set(site.send(*HISTORY)) == {"replayed"}
    assert site.push() == {}
    assert versions(site) == before


class Killed(BaseException):
    """The process dies here."""


def kill(name: str) -> None:
    raise Killed


def killed_history(site: Site, step: int, point: str) -> None:
    """Deliver the history, killed once: `before` the EHR's commit, or `after` it and before ours."""
    site.register()
    site.send(*HISTORY)
    faults = [lambda name: None] * step + [kill]
    if point == "after":
        site.ehr.after = faults
    else:
        site.ehr.before = faults
    with contextlib.suppress(Killed):
        site.push()
    site.restart()
    site.push()
    check_history_is_there_once(site)
    assert {d.status for d in site.deliveries()} == {"sent"}


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("step", range(len(HISTORY)))
def test_a_kill_in_mid_delivery_neither_loses_nor_doubles(site: Site, step: int, point: str) -> None:
    killed_history(site, step, point)


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("step", range(3))
def test_nor_does_it_when_events_travel_together(
    tmp_path: Path, database_url: str, step: int, point: str
) -> None:
    site = Site(tmp_path, database_url)
    killed_history(site, step, point)
    transactions = [name for name in site.ehr.calls if name == "transaction"]
    assert len(transactions) <= 4  # device, refill and start in one; the two that follow alone; one again
    site.store.close()


def sent_before_sending(patch: pytest.MonkeyPatch) -> None:
    right = outbox.deliver

    def wrong(route: Any, found: Any, settle: Any) -> Any:
        with route.store.write() as c:
            done = [Outcome(delivery, "sent") for delivery in found]
            outbox.deliveries.record(c, done, now=route.now())
        return right(route, found, settle)

    patch.setattr(outbox, "deliver", wrong)


def create_without_condition(patch: pytest.MonkeyPatch) -> None:
    right = send.entry

    def wrong(*args: Any) -> Any:
        made = right(*args)
        if "ifNoneExist" in made["request"]:
            made["request"]["ifNoneExist"] = f"identifier=http://nobody.invalid|{uuid4()}"
        return made

    patch.setattr(send, "entry", wrong)


def neighbours_left_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shape, "neighbours", lambda event, held: Around())


def newest_first(patch: pytest.MonkeyPatch) -> None:
    right = outbox.deliveries.waiting

    def wrong(c: Any, leases: Any, **more: Any) -> Any:
        found = right(c, leases, **(more | {"most": 100}))
        return found[::-1]

    patch.setattr(outbox.deliveries, "waiting", wrong)


BUGS = (
    sent_before_sending,
    create_without_condition,
    neighbours_left_open,
    newest_first,
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_kill_test_catches_a_seeded_bug(
    bug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these must make at least one of the kill tests fail; one that none catches shows a hole."""
    bug(monkeypatch)
    caught = 0
    for step in range(len(HISTORY)):
        for point in ("before", "after"):
            folder = tmp_path / f"{point}{step}"
            folder.mkdir()
            try:
                killed_history(Site(folder, batch_size=1), step, point)
            except (AssertionError, ValueError):
                caught += 1
    assert caught, "no kill test saw the seeded bug"


@pytest.mark.parametrize("step", range(len(HISTORY)))
def test_a_lost_answer_is_read_back_and_not_sent_again(site: Site, step: int) -> None:
    site.register()
    site.send(*HISTORY)
    site.ehr.after = [lambda name: None] * step + [lose_answer]
    assert site.push() == {"sent": len(HISTORY), "pending": 1}
    check_history_is_there_once(site)


def fail(error: EhrError) -> Any:
    def raise_it(name: str) -> None:
        raise error

    return raise_it


def test_an_outage_delays_and_keeps_the_order(site: Site) -> None:
    site.register()
    site.send(*HISTORY)
    site.ehr.before = [fail(Unreachable("down"))] * 5 + [fail(Throttled("busy", 429, 60.0))] * 2
    assert site.push() == {"pending": 7, "sent": len(HISTORY)}
    check_history_is_there_once(site)


@pytest.mark.parametrize(
    ("error", "held"), [(Refused("no", 422), "failed"), (Forbidden("no", 403), "parked")]
)
def test_a_held_delivery_holds_its_own_lane_only(site: Site, error: EhrError, held: str) -> None:
    site.register()
    site.ehr.before = [fail(error)]
    site.send(DEVICE, REFILL, OTHER)
    site.push()
    assert [d.status for d in site.deliveries()] == [held, "pending", "sent"]
    assert site.held("refill", "R-1") == []
    with site.store.write() as c:
        deliveries.change(c, 1, [site.deliveries()[0].id], "retry", now=site.now(), reason=None)
    assert site.push() == {"sent": 2}


@pytest.mark.parametrize("registered", [0, 2])
def test_no_patient_or_several_park_the_delivery_and_say_so(site: Site, registered: int) -> None:
    for _ in range(registered):
        site.register()
    site.send(DEVICE)
    assert site.push() == {"pending": 2, "parked": 1}  # asked three times
    (parked,) = site.deliveries()
    assert parked.reason is not None
    assert ("no patient" if not registered else "2 patients") in parked.reason
    assert "MRN001" not in parked.reason


def test_a_test_server_may_have_its_missing_patients_made(tmp_path: Path) -> None:
    site = Site(tmp_path, create_missing_patients=True)
    site.send(DEVICE, REFILL)
    assert site.push() == {"sent": 2}
    assert len([k for k in site.ehr.history if k[0] == "Patient"]) == 1


@pytest.mark.parametrize("claims", [True, False])
def test_an_ehr_may_be_spared_the_claims_of_profiles(tmp_path: Path, claims: bool) -> None:
    site = Site(tmp_path, create_missing_patients=True, claim_profiles=claims)
    site.send(DEVICE, REFILL)
    assert site.push() == {"sent": 2}
    (refill,) = [v[-1] for k, v in site.ehr.history.items() if k[0] == "MedicationAdministration"]
    claimed = refill["meta"].get("profile", [])
    assert claimed == ([definition("itb-refill")] if claims else [])


def test_a_late_dose_change_takes_its_place_in_the_chain(site: Site) -> None:
    site.register()
    site.send(DEVICE, START, THIRD)
    site.push()
    site.send(SECOND)
    assert site.push() == {"sent": 1}
    assert site.one("segment", "P-1")["effectivePeriod"]["end"] == SECOND["occurred_at"]
    assert site.one("segment", "P-2")["effectivePeriod"]["end"] == THIRD["occurred_at"]
    assert site.one("program", "P-3")["priorPrescription"]["identifier"]["value"] == "clinic-a.P-2"
    assert site.running() == ["clinic-a.P-3"]


def test_a_retracted_dose_change_leaves_the_chain(site: Site) -> None:
    site.register()
    site.send(DEVICE, START, SECOND, THIRD)
    site.push()
    site.send(SECOND | {"version": 2, "status": "entered-in-error"})
    assert site.push() == {"sent": 1}
    assert site.one("segment", "P-2")["status"] == "entered-in-error"
    assert site.one("program", "P-2")["status"] == "entered-in-error"
    assert site.one("segment", "P-1")["effectivePeriod"]["end"] == THIRD["occurred_at"]
    assert site.one("program", "P-3")["priorPrescription"]["identifier"]["value"] == "clinic-a.P-1"


def test_a_correction_sent_before_delivery_spares_the_wrong_version(site: Site) -> None:
    site.register()
    site.send(DEVICE, START, START | {"version": 2, "after": program(90)})
    assert site.push() == {"sent": 3}
    (history,) = site.held("program", "P-1")
    assert [r["dosageInstruction"][0]["text"] for r in history] == ["Simple continuous 90 mcg/day"]


def test_what_somebody_edited_in_the_ehr_is_not_overwritten(site: Site) -> None:
    site.register()
    site.send(DEVICE, REFILL)
    site.push()
    edited = site.one("refill", "R-1") | {"note": [{"text": "checked"}]}
    site.ehr.update(edited)
    site.send(REFILL | {"version": 2, "needle_passes": 2})
    site.push()
    merged = site.versions("clinic-a", "R-1")[-1]
    assert (merged["version"], merged["note"], merged["needle_passes"]) == (3, "checked", 2)
    assert site.one("refill", "R-1")["note"] == [{"text": "checked"}]
    assert "needlePasses" in str(site.one("refill", "R-1"))
    assert {d.status for d in site.deliveries()} == {"sent"}


def test_a_bug_parks_the_item_and_not_the_lane_runner(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.register()
    site.ehr.before = [lambda name: (_ for _ in ()).throw(ZeroDivisionError())]
    site.send(DEVICE, OTHER)
    site.push()
    assert [d.status for d in site.deliveries()] == ["parked", "sent"]
    assert "ZeroDivisionError" in (site.deliveries()[0].reason or "")


def test_a_refused_login_is_tried_once_more_and_then_parked(site: Site) -> None:
    site.register()
    site.ehr.before = [fail(Unauthorized("no", 401))] * 2
    site.send(DEVICE)
    assert site.push() == {"pending": 1, "parked": 1}


def test_a_day_without_the_ehr_needs_nobody(site: Site) -> None:
    """More tries than any count would allow: what passes by itself never ends as failed or parked."""
    site.register()
    site.send(*HISTORY)
    outage = [fail(Unreachable("down")), fail(Throttled("busy", 503, 60.0)), fail(Ambiguous("cut", 500))]
    site.ehr.before = outage * 100
    came = site.push(rounds=500)
    assert came.keys() == {"pending", "sent"}
    assert came["sent"] == len(HISTORY)
    assert came["pending"] > 100
    check_history_is_there_once(site)
