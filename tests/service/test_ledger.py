"""The fold: its laws, and what it says about records that are odd, missing or late."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.exact_json import dumps
from pump_events import (
    SERIAL,
    START,
    about_patient,
    at,
    change,
    device,
    quantity,
    refill,
    simple,
    told,
)
from service.pump.ledger import pump_state, to_json
from service.pump.reservoir import Thresholds
from service.pump.state import PumpState
from strategies import EVENTS, program, similar

Json = dict[str, Any]
unhurried = settings(deadline=None)  # a busy machine is no failure


def rules(state: PumpState) -> list[str]:
    return [issue.rule for issue in state.open_issues]


DAYS = st.one_of(st.integers(0, 4000).map(lambda n: n / 40), st.integers(0, 9).map(lambda n: n * 10.0))
"""Any of a hundred days, and a few of them often: records of one moment."""


BRIDGE = st.sampled_from([{}, {"bridge": {"volume": quantity("0.3574", "mL")}}])
STRENGTH = st.sampled_from(["500", "500.0", "2000"])
MILLILITRES = st.sampled_from(["0", "3.5", "18"]).map(lambda value: quantity(value, "mL"))


BOLUSES = {"patient_bolus": {"dose": quantity("50", "ug"), "max_per_day": 4}}


def any_refill(draw: st.DrawFn, id: str, days: float) -> Json:
    low = draw(st.sampled_from([{}, {"low_alarm_volume": quantity("3.0", "mL")}]))
    filled = {"strength": draw(STRENGTH), "volume_removed": draw(MILLILITRES), **low, **draw(BRIDGE)}
    return refill(id, days, **filled)


def any_broken_refill(draw: st.DrawFn, id: str, days: float) -> Json:
    parts = {"volume": draw(st.sampled_from(["0", "5"])), "volume_removed": draw(MILLILITRES)}
    return refill(id, days, stopped_because="the port could not be found", **parts)


def any_change(draw: st.DrawFn, id: str, days: float) -> Json:
    before = draw(st.sampled_from([None, simple("100"), simple("100", "2000"), {"mode": "stopped"}]))
    after = draw(program().filter(lambda made: before is None or similar({"before": before, "after": made})))
    return change(id, days, after, before, **draw(BRIDGE))


def any_hold(draw: st.DrawFn, id: str, days: float) -> Json:
    return change(id, days, {"mode": "stopped"}, hold=draw(st.sampled_from(["mri", "temporary"])))


def any_reading(draw: st.DrawFn, id: str, days: float) -> Json:
    counted = draw(st.sampled_from([{}, {"delivered": 3}, {"delivered": 40, "denied": 2}, {"requested": 9}]))
    log = [
        {
            "entry": draw(st.sampled_from(["motor-stall", "eri", "therapy-start"])),
            "at": "2025-01-05T00:00:00Z",
        }
    ]
    said = {"patient_boluses": counted} if counted else {}
    return told("interrogation", id, days, eri_months=draw(st.integers(0, 9)), log=log, **said)


def any_prime(draw: st.DrawFn, id: str, days: float) -> Json:
    prime = {"volume": quantity(draw(st.sampled_from(["0.3", "0.75"])), "mL")}
    return told("procedure", id, days, action=draw(st.sampled_from(["implant", "revision"])), prime=prime)


def any_end(draw: st.DrawFn, id: str, days: float) -> Json:
    if draw(st.booleans()):
        return told("procedure", id, days, action="explant")
    return told("procedure", id, days, action="replacement", old_pump=SERIAL, pump="NEW1")


def any_device(draw: st.DrawFn, id: str, days: float) -> Json:
    length = draw(st.sampled_from(["80", "72"]))
    catheter = {"volume_per_length": quantity("0.0022", "mL/cm"), "implanted_length": quantity(length, "cm")}
    pump = {"kind": "pump", "serial": SERIAL, "model": draw(st.sampled_from(["8637-20", "13827"]))}
    pump |= draw(st.sampled_from([{}, {"implanted_on": "2018-03-01"}, {"explanted_on": "2025-02-01"}]))
    return device(
        id, days, **draw(st.sampled_from([pump, {"kind": "catheter", "parent": SERIAL, **catheter}]))
    )


def any_problem(draw: st.DrawFn, id: str, days: float) -> Json:
    return told("complication", id, days, problem=draw(st.sampled_from(["withdrawal", "mri-effect"])))


def any_alarm(draw: st.DrawFn, id: str, days: float) -> Json:
    return told("alarm", id, days, alarm=draw(st.sampled_from(["motor-stall", "eos", "low-reservoir"])))


def any_screening(draw: st.DrawFn, id: str, days: float) -> Json:
    bolus = quantity(draw(st.sampled_from(["25", "50"])), "ug")
    return about_patient("screening", id, days, bolus=bolus, responder=draw(st.booleans()))


def any_bolus(draw: st.DrawFn, id: str, days: float) -> Json:
    return change(id, days, simple(draw(st.sampled_from(["100", "140"]))) | BOLUSES)


def any_bridge(draw: st.DrawFn, id: str, days: float) -> Json:
    dose, new = draw(st.sampled_from(["100", "170"])), draw(st.sampled_from(["2000", "500"]))
    bridge = {"volume": quantity("0.3574", "mL")}
    return change(id, days, simple(dose, new), simple("100", draw(STRENGTH)), bridge=bridge)


FLOW = (any_refill, any_broken_refill, any_change, any_hold, any_reading, any_prime, any_bolus, any_bridge)
"""What changes the reservoir or how fast it empties."""
REST = (any_end, any_device, any_problem, any_alarm, any_screening)


@st.composite
def histories(draw: st.DrawFn, kinds: tuple[Any, ...] = FLOW, fewest: int = 0) -> list[Json]:
    """A first refill and programming, and then records of these kinds, in any order of time."""
    first = draw(st.one_of(program(), st.just(simple("100") | BOLUSES)))
    events = [refill("R-0", 0), change("P-0", 0, first)]
    for index in range(draw(st.integers(fewest, 7))):
        events.append(draw(st.sampled_from(kinds))(draw, f"E-{index + 1}", draw(DAYS)))
    return events


EVERYTHING = histories(FLOW + REST)


def numbers(state: PumpState) -> PumpState:
    """The state without what tells which record said it last."""
    return replace(state, programmed_at=None, derivation={}, open_issues=())


@unhurried
@given(EVERYTHING.flatmap(lambda h: st.tuples(st.just(h), st.permutations(h))), DAYS)
def test_the_order_of_arrival_does_not_matter(orders: tuple[list[Json], list[Json]], days: float) -> None:
    sent, arrived = orders
    assert pump_state(sent, at(days), pump=SERIAL) == pump_state(arrived, at(days), pump=SERIAL)


OF_A_PROGRAMMING = {"chain", "F3", "I1", "P2", "P4"}
"""Rules that are right to speak, or to be silent, because a programmer was at the pump again."""


@settings(deadline=None, max_examples=200)
@given(histories((*FLOW, any_reading, any_reading, any_bridge), fewest=3), st.data(), DAYS)
def test_splitting_a_period_changes_no_number_and_no_finding(
    events: list[Json], data: st.DataObject, days: float
) -> None:
    """Anywhere, or soon after a record, where a bridge may run; seen at any time, or soon after the split."""
    soon = st.sampled_from(events).map(lambda e: (moment(e) - START) / timedelta(days=1) + 0.5)
    split = data.draw(st.one_of(DAYS, soon))
    days = data.draw(st.sampled_from([days, split + 0.25, split + 15]))
    now = max((e for e in events if e["type"] == "dose-change" and moment(e) <= at(split)), key=last)
    held = {"hold": now["hold"]} if "hold" in now else {}
    again = change("P-split", split, now["after"], now["after"], **held)
    if again["occurred_at"] in {e["occurred_at"] for e in events}:
        return  # at one moment the ids decide which programming is the last one
    whole, parted = pump_state(events, at(days)), pump_state([*events, again], at(days))
    assert numbers(parted) == numbers(whole)
    assert set(rules(parted)) - OF_A_PROGRAMMING == set(rules(whole)) - OF_A_PROGRAMMING


def moment(event: Json) -> datetime:
    return datetime.fromisoformat(event["occurred_at"])


def last(event: Json) -> tuple[datetime, str]:
    return moment(event), event["id"]


@unhurried
@given(histories(), st.data(), DAYS, DAYS)
def test_a_record_that_does_nothing_to_the_pump_changes_no_number(
    events: list[Json], data: st.DataObject, when: float, days: float
) -> None:
    more = data.draw(st.sampled_from([any_problem, any_screening]))
    idle = st.composite(lambda draw: more(draw, "X-1", when))()
    whole, beside = pump_state(events, at(days)), pump_state([*events, data.draw(idle)], at(days))
    assert numbers(beside) == numbers(whole)


@unhurried
@given(histories(), histories(), DAYS)
def test_another_pump_of_the_patient_changes_no_number(
    events: list[Json], others: list[Json], days: float
) -> None:
    beside = [other | {"pump": "NEW1", "id": f"N{other['id']}"} for other in others]
    both = pump_state([*events, *beside], at(days), pump=SERIAL)
    assert numbers(both) == numbers(pump_state(events, at(days), pump=SERIAL))


@unhurried
@given(EVERYTHING, st.data(), DAYS)
def test_a_correction_equals_having_been_right_the_first_time(
    right: list[Json], data: st.DataObject, days: float
) -> None:
    """Whatever the wrong record said, at whatever time, of whatever type."""
    index = data.draw(st.integers(0, len(right) - 1))
    kind = data.draw(st.sampled_from(FLOW + REST))
    wrong = data.draw(st.composite(lambda draw: kind(draw, right[index]["id"], draw(DAYS)))())
    corrected = right[index] | {"version": 2}
    sent = data.draw(st.permutations([*right[:index], wrong, *right[index + 1 :], corrected]))
    assert pump_state(sent, at(days), pump=SERIAL) == pump_state(right, at(days), pump=SERIAL)


@unhurried
@given(EVERYTHING, st.data(), DAYS)
def test_a_record_entered_in_error_counts_as_never_sent(
    events: list[Json], data: st.DataObject, days: float
) -> None:
    index = data.draw(st.integers(1, len(events) - 1))
    retracted = [*events, events[index] | {"version": 2, "status": "entered-in-error"}]
    left = [e for i, e in enumerate(events) if i != index]
    assert pump_state(retracted, at(days), pump=SERIAL) == pump_state(left, at(days), pump=SERIAL)


def of_one_pump(event: Json) -> Json:
    names = [name for name in ("pump", "serial", "parent") if name in event]
    return event | dict.fromkeys(names, SERIAL)


@unhurried
@given(st.lists(st.one_of(*EVENTS.values()).map(of_one_pump), max_size=8), st.integers(0, 60))
def test_no_history_is_too_odd_for_a_state(events: list[Json], years: int) -> None:
    state = pump_state(events, START + timedelta(days=365 * years), pump=SERIAL)
    assert dumps(to_json(state))


@unhurried
@given(EVERYTHING, DAYS)
def test_what_comes_later_does_not_count(events: list[Json], days: float) -> None:
    known = [e for e in events if moment(e) <= at(days)]
    assert pump_state(events, at(days), pump=SERIAL) == pump_state(known, at(days), pump=SERIAL)


@unhurried
@given(EVERYTHING, DAYS)
def test_a_pump_that_was_taken_out_has_no_dates(events: list[Json], days: float) -> None:
    state = pump_state(events, at(days), pump=SERIAL)
    dates = (state.reservoir_volume, state.alarm_at, state.empty_at, state.refill_by, state.eri_on)
    assert state.in_use or dates == (None,) * 5


@unhurried
@given(histories(), DAYS)
def test_every_patient_bolus_never_brings_a_date_later(events: list[Json], days: float) -> None:
    state = pump_state(events, at(days))
    if state.alarm_at_worst_case is not None and state.alarm_at is not None:
        assert state.alarm_at_worst_case <= state.alarm_at
    if state.refill_by is not None and state.alarm_at is not None:
        assert state.refill_by <= state.alarm_at.date()


@unhurried
@given(histories(), DAYS, DAYS)
def test_a_volume_never_grows_between_refills_nor_falls_below_zero(
    events: list[Json], one: float, other: float
) -> None:
    first, second = sorted((one, other))
    earlier, later = pump_state(events, at(first)), pump_state(events, at(second))
    assert earlier.reservoir_volume is not None and later.reservoir_volume is not None
    assert min(earlier.reservoir_volume, later.reservoir_volume) >= 0
    low, almost = later.low_alarm_volume, Decimal("0.0001")
    assert low is not None
    passed = later.alarm_at is not None and later.alarm_at <= at(second)
    assert passed or later.reservoir_volume >= low - almost
    assert not passed or later.reservoir_volume <= low + almost
    if earlier.last_refill_at == later.last_refill_at:
        assert later.reservoir_volume <= earlier.reservoir_volume


@unhurried
@given(histories(), DAYS)
def test_the_alarm_is_the_last_second_at_or_above_the_low_volume(events: list[Json], days: float) -> None:
    state = pump_state(events, at(days))
    if state.alarm_at is None or state.alarm_at <= at(days):
        return  # passed, or passed at once by a prime
    before = pump_state(events, state.alarm_at).reservoir_volume
    later = [e for e in events if at(days) < datetime.fromisoformat(e["occurred_at"])]
    if not later:
        assert before is not None and before >= state.low_alarm_volume
        after = pump_state(events, state.alarm_at + timedelta(seconds=1)).reservoir_volume
        assert after is not None and after <= state.low_alarm_volume + Decimal("0.0001")


def test_a_pump_without_records_has_a_state() -> None:
    state = pump_state([], START)
    assert (state.pump, state.reservoir_volume, state.alarm_at, state.open_issues) == (None, None, None, ())
    assert to_json(state)["program"] is None


def test_a_program_before_the_first_refill_empties_nothing() -> None:
    state = pump_state([change("P-1", 0, simple("100"))], at(5))
    assert state.flow_rate == Decimal("0.2")
    assert (state.reservoir_volume, state.refill_by) == (None, None)


def test_what_is_still_to_come_does_not_count() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), change("P-2", 10, simple("200"))]
    assert pump_state(events, at(9)).daily_dose == 100
    assert pump_state(events, at(10)).daily_dose == 200


def test_at_one_moment_the_refill_comes_before_the_programming() -> None:
    events = [change("A-1", 0, simple("100")), refill("Z-9", 0)]
    assert pump_state(events, at(1)).reservoir_volume == Decimal("19.8")


def test_a_concentration_change_without_a_bridge_is_open_until_the_next_refill() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100"))]
    events += [refill("R-2", 30, strength="2000"), change("P-2", 30, simple("100", "2000"))]
    state = pump_state(events, at(31))
    assert rules(state) == ["C3"]
    assert "0.250 of the programmed dose" in state.open_issues[0].arithmetic
    assert rules(pump_state([*events, refill("R-3", 60, strength="2000")], at(61))) == []


@pytest.mark.parametrize("where", ["refill", "dose-change", "minutes before the refill"])
@pytest.mark.parametrize("bridge", [{"not_required": "path flushed"}, {"volume": quantity("0.4", "mL")}])
def test_a_bridge_may_stand_on_the_refill_or_on_the_programming(where: str, bridge: Json) -> None:
    said = {"bridge": bridge}
    of_refill, of_change = (said, {}) if where == "refill" else ({}, said)
    first = 29.99 if where == "minutes before the refill" else 30
    events = [
        refill("R-1", 0),
        change("P-1", 0, simple("100")),
        refill("R-2", 30, strength="2000", **of_refill),
        change("P-2", first, simple("100", "2000"), simple("100"), **of_change),
    ]
    state = pump_state(events, at(31))
    assert "C3" not in rules(state)
    assert (state.bridge is not None) == ("volume" in bridge)
    if state.bridge is not None:
        assert (state.bridge.flow_rate, state.bridge.duration) == (Decimal("0.2"), Decimal(48))


def test_a_refills_bridge_is_given_once() -> None:
    events = [
        refill("R-1", 0),
        change("P-1", 0, simple("100")),
        refill("R-2", 30, strength="2000", bridge={"volume": quantity("0.2", "mL")}),
        change("P-2", 30, simple("100", "2000")),
        change("P-3", 40, simple("120", "2000")),
    ]
    state = pump_state(events, at(50))
    assert state.bridge is None
    # 0.2 mL in one day of bridge, 9 d at 0.05 mL/d, 10 d at 0.06 mL/d
    assert state.reservoir_volume == Decimal(20) - Decimal("0.2") - Decimal("0.45") - Decimal("0.6")


def test_another_program_during_a_bridge_ends_it_and_says_so() -> None:
    events = [
        refill("R-1", 0),
        change("P-1", 0, simple("100")),
        refill("R-2", 30, strength="2000"),
        change("P-2", 30, simple("100", "2000"), bridge={"volume": quantity("0.4", "mL")}),
        change("P-3", 31, simple("120", "2000")),
    ]
    state = pump_state(events, at(32))
    assert state.bridge is None
    assert rules(state) == ["C3"]
    assert state.reservoir_volume == Decimal(20) - Decimal("0.2") - Decimal("0.06")


def test_a_bridge_recorded_for_another_time_than_it_needs_is_pointed_out() -> None:
    bridge = {"volume": quantity("0.4", "mL"), "duration": quantity("30", "h")}
    events = [
        refill("R-1", 0),
        change("P-1", 0, simple("100")),
        refill("R-2", 30, strength="2000"),
        change("P-2", 30, simple("100", "2000"), bridge=bridge),
    ]
    found = pump_state(events, at(30)).open_issues
    assert [(i.rule, i.severity) for i in found] == [("C3", "warning"), ("C4", "warning")]
    assert "0.4 mL / 0.2 mL/d = 48.00 h" in found[0].arithmetic


def test_a_program_for_another_concentration_than_the_reservoirs_is_critical() -> None:
    events = [refill("R-1", 0, strength="2000"), change("P-1", 0, simple("100", "500"))]
    found = pump_state(events, at(1)).open_issues
    assert [(i.rule, i.severity) for i in found] == [("C2", "critical")]
    assert found[0].arithmetic == "100 / 500 * 2000 = 400 mcg/day"


def test_a_missing_programming_shows_in_the_chain() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100"))]
    events.append(change("P-3", 5, simple("130"), simple("120")))
    assert rules(pump_state(events, at(6))) == ["chain"]
    missing = change("P-2", 3, simple("120"), simple("100"))
    assert rules(pump_state([*events, missing], at(6))) == []


def test_patient_boluses_bring_the_refill_forward_and_widen_what_is_expected() -> None:
    bolus = {"patient_bolus": {"dose": quantity("20", "ug"), "max_per_day": 4}}
    events = [refill("R-1", 0, strength="2000"), change("P-1", 0, simple("350", "2000") | bolus)]
    state = pump_state(events, at(0))
    assert state.worst_case_daily_dose == 430
    assert state.alarm_at == at(18 / 0.175) - timedelta(microseconds=at(18 / 0.175).microsecond)
    assert state.alarm_at_worst_case is not None
    assert state.alarm_at_worst_case.date().isoformat() == "2025-03-26"  # 83.7 d
    assert str(state.refill_by) == "2025-03-21"
    # after 80 d between 6 mL (no bolus) and 2.8 mL (every bolus) may be left
    for removed, open_rules in (("6.0", []), ("2.8", []), ("8.1", ["R2"]), ("0.7", ["R2"])):
        visit = refill("R-2", 80, strength="2000", volume_removed=quantity(removed, "mL"))
        assert rules(pump_state([*events, visit], at(80))) == open_rules


def test_a_bolus_without_a_limit_is_pointed_out() -> None:
    bolus = {"patient_bolus": {"dose": quantity("20", "ug")}}
    state = pump_state([refill("R-1", 0), change("P-1", 0, simple("100") | bolus)], at(1))
    assert rules(state) == ["F2"]
    assert state.worst_case_daily_dose is None


def test_a_lockout_limits_the_boluses_too() -> None:
    bolus = {"dose": quantity("10", "ug"), "lockout": quantity("8", "h"), "max_per_day": 9}
    state = pump_state([refill("R-1", 0), change("P-1", 0, simple("100") | {"patient_bolus": bolus})], at(1))
    assert state.worst_case_daily_dose == 130


def test_a_refill_falls_due_then_alarms_then_is_empty() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100"))]
    found = [pump_state(events, at(days)).open_issues for days in (84, 85, 90, 100)]
    assert [[i.severity for i in issues] for issues in found] == [[], ["warning"], ["critical"], ["critical"]]
    assert "empty" in found[3][0].message
    assert pump_state(events, at(101)).reservoir_volume == 0


def test_an_alarm_that_was_passed_before_a_programming_stays_passed() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), change("P-2", 95, simple("50"))]
    assert pump_state(events, at(96)).alarm_at == at(90)
    assert pump_state(events, at(96)).empty_at == at(105)


def test_a_stopped_pump_has_no_alarm_but_a_stability_limit() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), change("P-2", 10, {"mode": "stopped"})]
    state = pump_state(events, at(60))
    assert (state.reservoir_volume, state.alarm_at, state.refill_by_decided_by) == (18, None, "stability")


def test_a_hold_takes_nothing_out_of_the_reservoir() -> None:
    """10 d and 5 d at 0.2 mL/d, with 3 d of standing still between them."""
    held = change("P-2", 10, {"mode": "stopped"}, simple("100"), hold="mri")
    resumed = change("P-3", 13, simple("100"), {"mode": "stopped"})
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), held, resumed]
    assert pump_state(events, at(12)).reservoir_volume == 18
    assert pump_state(events, at(18)).reservoir_volume == 17
    assert pump_state(events, at(18)).alarm_at == at(93)


def test_flex_is_integrated_step_by_step_on_the_pumps_own_clock() -> None:
    steps = [
        {"start": "06:00", "duration": quantity("12", "h"), "dose": quantity("90", "ug")},
        {"start": "18:00", "duration": quantity("12", "h"), "dose": quantity("10", "ug")},
    ]
    flex = {"mode": "flex", "daily_dose": quantity("100", "ug/d")}
    flex |= {"concentration": quantity("500", "ug/mL"), "steps": steps}
    noon = change("P-1", 0, flex)  # 12:00 UTC
    six_hours_west = noon | {"occurred_at": "2025-01-01T06:00:00-06:00"}
    for event, first_six_hours in ((noon, "0.09"), (six_hours_west, "0.09")):
        state = pump_state([refill("R-1", 0), event], at(0.25))
        assert state.reservoir_volume == 20 - Decimal(first_six_hours)
    assert pump_state([refill("R-1", 0), noon], at(0.5)).reservoir_volume == Decimal("19.9")
    assert pump_state([refill("R-1", 0), six_hours_west], at(0.5)).reservoir_volume == Decimal("19.82")
    whole_days = [pump_state([refill("R-1", 0), e], at(70)).reservoir_volume for e in (noon, six_hours_west)]
    assert whole_days == [6, 6]


def test_weekdays_count_on_their_days() -> None:
    week = ["mon", "tue", "wed", "thu", "fri"]
    day = {"start": "00:00", "duration": quantity("24", "h")}
    steps = [
        day | {"dose": quantity("100", "ug"), "days": week},
        day | {"dose": quantity("240", "ug"), "days": ["sat", "sun"]},
    ]
    flex = {"mode": "flex", "daily_dose": quantity("140", "ug/d")}
    flex |= {"concentration": quantity("1000", "ug/mL"), "steps": steps}
    events = [refill("R-1", 0, strength="1000"), change("P-1", 0, flex)]  # Wednesday 2025-01-01, noon
    found = [pump_state(events, at(days)).reservoir_volume for days in (2, 2.5, 3.5, 7)]
    assert found == [Decimal(20) - Decimal(used) for used in ("0.2", "0.25", "0.49", "0.98")]


def test_thresholds_are_a_sites_own() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100"))]
    state = pump_state(events, at(0), Thresholds(refill_margin_days=7, low_alarm_volume=Decimal(4)))
    assert state.alarm_at == at(80)
    assert str(state.refill_by) == "2025-03-15"


def test_device_facts_add_up_and_an_explanted_pump_has_no_dates() -> None:
    pump = {"kind": "pump", "serial": "NGP000009H"}
    events = [
        device("D-1", 0, **pump, model="8637-20", reservoir_capacity=quantity("20", "mL")),
        device("D-2", 0, kind="catheter", parent="NGP000009H", implanted_length=quantity("80", "cm")),
        refill("R-1", 0),
        change("P-1", 0, simple("100")),
    ]
    assert pump_state(events, at(1)).path_volume is None
    length = {"volume_per_length": quantity("0.0022", "mL/cm"), "implanted_length": quantity("80", "cm")}
    events.append(device("D-3", 2, kind="catheter", parent="NGP000009H", **length))
    assert pump_state(events, at(3)).path_volume == Decimal("0.3750")
    events.append(device("D-4", 50, **pump, device_status="inactive", explanted_on="2025-02-20"))
    state = pump_state(events, at(60))
    assert state.device["reservoir_capacity"]["value"] == 20
    assert state.device["explanted_on"] == "2025-02-20"
    assert (state.in_use, state.reservoir_volume, state.open_issues) == (False, None, ())


BROKEN = "the port could not be found again"


@pytest.mark.parametrize(
    ("removed", "instilled", "volume", "last_refill"),
    [(None, "0", "18.0000", "R-0"), ("4", "0", "14.0000", "R-0"), ("18", "5", "5.0000", "R-1")],
)
def test_a_refill_that_was_broken_off_leaves_what_was_not_taken_out(
    removed: str | None, instilled: str, volume: str, last_refill: str
) -> None:
    """20 mL of 500 ug/mL at 100 ug/d for 10 days leave 18 mL."""
    out = {"volume_removed": quantity(removed, "mL")} if removed is not None else {}
    broken = refill("R-1", 10, strength="2000", volume=instilled, stopped_because=BROKEN, **out)
    events = [refill("R-0", 0), change("P-0", 0, simple("100")), broken]
    state = pump_state(events, at(10))
    assert state.reservoir_volume == Decimal(volume)
    filled = {e["id"]: e["occurred_at"] for e in events}
    assert state.last_refill_at == filled[last_refill]
    assert state.concentration == Decimal("2000" if last_refill == "R-1" else "500")


# --- primes and counted boluses ---------------------------------------------------------------------------


def prime(days: float, volume: str = "0.4", **more: Any) -> Json:
    return told("procedure", "O-1", days, action="implant", prime={"volume": quantity(volume, "mL")}, **more)


def test_a_prime_is_taken_out_of_the_reservoir_after_the_fill_of_the_same_moment() -> None:
    events = [refill("R-1", 0), prime(0), change("P-1", 0, simple("100"))]
    assert pump_state(events, at(0)).reservoir_volume == Decimal("19.6")
    assert pump_state(events, at(0)).alarm_at == at(88)
    visit = refill("R-2", 50, volume_removed=quantity("9.6", "mL"))
    found = pump_state([*events, visit], at(50)).last_refill
    assert found is not None
    assert (found.expected_residual, found.discrepancy) == (Decimal("9.6"), 0)


def test_a_prime_that_takes_the_volume_below_the_alarm_raises_it_then() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), prime(89)]
    assert pump_state(events, at(90)).alarm_at == at(89)
    assert pump_state(events, at(90)).empty_at == at(98)


def test_a_prime_takes_no_more_than_is_there() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), prime(99)]
    assert pump_state(events, at(99)).reservoir_volume == 0


def test_a_prime_before_the_first_refill_is_not_known_to_empty_anything() -> None:
    assert pump_state([prime(-1), refill("R-1", 0)], at(0)).reservoir_volume == 20


def test_a_prime_of_the_new_pump_takes_nothing_out_of_the_old_one() -> None:
    swap = told(
        "procedure",
        "O-1",
        5,
        action="replacement",
        pump="NEW1",
        old_pump=SERIAL,
        prime={"volume": quantity("0.4", "mL")},
    )
    events = [refill("R-1", 0), change("P-1", 0, simple("100")), swap]
    visit = refill("R-2", 10, volume_removed=quantity("18", "mL"))
    found = pump_state([*events, visit], at(10), pump=SERIAL).last_refill
    assert found is not None and found.expected_residual == 18


def counted(id: str, days: float, delivered: int) -> Json:
    return told("interrogation", id, days, patient_boluses={"delivered": delivered})


def test_boluses_that_were_counted_since_the_last_reading_are_consumed() -> None:
    """10 of 50 mcg at 500 mcg/mL are 1 mL, beside 10 d * 0.2 mL/d."""
    events = [counted("I-0", 0, 7), refill("R-1", 0), change("P-1", 0, simple("100") | BOLUSES)]
    state = pump_state([*events, counted("I-1", 10, 10)], at(10))
    assert state.reservoir_volume == 17
    assert state.alarm_at == at(10 + 15 / Decimal("0.2"))
    again = pump_state([*events, counted("I-1", 10, 10), counted("I-2", 20, 5)], at(20))
    assert again.reservoir_volume == Decimal("14.5")


def test_boluses_of_which_some_may_be_older_than_the_fill_or_the_setting_are_not_guessed() -> None:
    set_to = change("P-1", 0, simple("100") | BOLUSES)
    never_read = [refill("R-1", 0), set_to, counted("I-1", 10, 10)]
    refilled = [counted("I-0", 0, 0), refill("R-0", 0), set_to, refill("R-1", 5), counted("I-1", 10, 10)]
    other = {"patient_bolus": {"dose": quantity("25", "ug"), "max_per_day": 4}}
    changed = [counted("I-0", 0, 0), refill("R-1", 0), set_to, change("P-2", 5, simple("100") | other)]
    assert pump_state(never_read, at(10)).reservoir_volume == 18
    assert pump_state(refilled, at(10)).reservoir_volume == 19
    assert pump_state([*changed, counted("I-1", 10, 10)], at(10)).reservoir_volume == 18


def test_a_programming_that_leaves_the_bolus_as_it_is_does_not_stop_the_count() -> None:
    set_to = simple("100") | BOLUSES
    events = [
        counted("I-0", 0, 0),
        refill("R-1", 0),
        change("P-1", 0, set_to),
        change("P-2", 5, set_to, set_to),
    ]
    assert pump_state([*events, counted("I-1", 10, 10)], at(10)).reservoir_volume == 17


def test_a_stopped_pump_that_names_a_bolus_and_no_concentration_has_a_state() -> None:
    events = [refill("R-1", 0), change("P-1", 0, {"mode": "stopped"} | BOLUSES)]
    state = pump_state([*events, counted("I-1", 1, 0), counted("I-2", 2, 3)], at(3))
    assert state.reservoir_volume == 20


def test_the_worst_case_counts_no_bolus_twice() -> None:
    events = [counted("I-0", 0, 0), refill("R-1", 0), change("P-1", 0, simple("100") | BOLUSES)]
    # 18 mL at 300 ug/d of 500 ug/mL, whatever was counted
    for more in ([], [counted("I-1", 10, 10)]):
        assert pump_state([*events, *more], at(10)).alarm_at_worst_case == at(30)


def test_one_pump_of_several_is_asked_for_by_its_serial() -> None:
    events = [refill("R-1", 0), change("P-1", 0, simple("100"))]
    other = refill("R-9", 1, pump="NEW1", volume="40")
    assert pump_state([*events, other], at(1), pump=SERIAL).reservoir_volume == Decimal("19.8")
    assert pump_state([*events, other], at(1)).pump == "NEW1"
