"""Each advisory check: a history that it speaks about, its sum, and a history beside it that it lets pass."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pump_events import SERIAL, about_patient, at, change, device, quantity, refill, simple, told
from service.pump.checks import CHECKS, Check
from service.pump.ledger import pump_state
from service.pump.models import MODELS, Model, model_of
from service.pump.refill_checks import PRODUCTS, eleven_digits
from service.pump.reservoir import Thresholds
from service.pump.state import OpenIssue

Json = dict[str, Any]
STOP = {"mode": "stopped"}
ELSEWHERE = "2025-01-11T12:00:00-05:00"


def pump(model: str = "8637-20", implanted_on: str = "2025-01-01", **more: Any) -> Json:
    return device("D-1", 0, kind="pump", serial=SERIAL, model=model, implanted_on=implanted_on, **more)


def found(events: list[Json], days: float, rule: str) -> list[OpenIssue]:
    return [i for i in pump_state(events, at(days), pump=SERIAL).open_issues if i.rule == rule]


def one(events: list[Json], days: float, rule: str) -> tuple[str, str]:
    """(severity, arithmetic) of the one finding of a rule."""
    (issue,) = found(events, days, rule)
    return issue.severity, issue.arithmetic


def running(dose: str = "100", strength: str = "500", **more: Any) -> list[Json]:
    return [refill("R-1", 0, strength=strength), change("P-1", 0, simple(dose, strength) | more)]


def step(start: str, hours: str, dose: str) -> Json:
    return {"start": start, "duration": quantity(hours, "h"), "dose": quantity(dose, "ug")}


def flex(steps: list[Json], strength: str = "500") -> Json:
    total = sum(s["dose"]["value"] for s in steps)
    return simple(str(total), strength) | {"mode": "flex", "steps": steps}


# --- F1: deliverable --------------------------------------------------------------------------------------


def test_f1_a_dose_below_the_least_flow_cannot_run() -> None:
    """Worked example 7: 60 mcg/day of 2,000 mcg/mL is 0.03 mL/d; of 500 mcg/mL it is 0.12."""
    severity, sum = one([pump(), *running("60", "2000")], 1, "F1")
    assert severity == "warning"
    assert sum == "60 / 2000 = 0.03 mL/d < 0.048 mL/d; at 0.048 mL/d it is 96 mcg/day of 2000 mcg/mL"
    assert found([pump(), *running("60", "500")], 1, "F1") == []
    assert found([pump(), *running("96", "2000")], 1, "F1") == []


def test_f1_says_nothing_of_a_model_without_a_row() -> None:
    for model in ("8627-18", "SynchroMed", "IsoMed 8472-20"):
        assert found([pump(model), *running("60", "2000")], 1, "F1") == []
    assert found(running("60", "2000"), 1, "F1") == []


def test_f1_knows_the_greatest_flow() -> None:
    events = [pump(), refill("R-1", 0, strength="50"), change("P-1", 0, simple("1500", "50"))]
    assert one(events, 0, "F1") == ("warning", "1500 / 50 = 30 mL/d > 24 mL/d")


def test_f1_looks_at_each_step_and_not_at_the_mean() -> None:
    steps = [step("00:00", "12", "10"), step("12:00", "12", "90")]
    events = [pump(), refill("R-1", 0), change("P-1", 0, flex(steps))]
    assert one(events, 1, "F1")[1].startswith("10 mcg in 12 h / 500 = 0.04 mL/d < 0.048 mL/d")


def test_f1_looks_at_background_and_boluses() -> None:
    bolus = {"dose": quantity("20", "ug"), "interval": quantity("6", "h"), "duration": quantity("1", "min")}
    program = simple("100") | {"mode": "periodic-bolus", "periodic_bolus": bolus}
    issues = found([pump(), refill("R-1", 0), change("P-1", 0, program)], 1, "F1")
    assert [i.arithmetic.split(";")[0] for i in issues] == [
        "(100 - 4 * 20) / 500 = 0.04 mL/d < 0.048 mL/d",
        "20 mcg in 1 min / 500 = 57.6 mL/d > 24 mL/d",
    ]


def test_f1_knows_the_minimum_rate() -> None:
    events = [pump(), refill("R-1", 0), change("P-1", 0, simple("4") | {"mode": "minimum-rate"})]
    assert found(events, 1, "F1") == []
    events[-1] = change("P-1", 0, simple("2") | {"mode": "minimum-rate"})
    assert one(events, 1, "F1")[1].startswith("2 / 500 = 0.004 mL/d < 0.006 mL/d")


def test_f1_looks_at_the_flow_of_the_bridge() -> None:
    said = {"bridge": {"volume": quantity("0.3", "mL")}}
    events = [pump(), *running("96", "2000"), refill("R-2", 30, strength="500")]
    events.append(change("P-2", 30, simple("60"), simple("96", "2000"), **said))
    assert one(events, 31, "F1")[1].startswith("60 / 2000 = 0.03 mL/d < 0.048")


def test_f1_counts_the_steps_of_a_day() -> None:
    def day(number: int) -> Json:
        hours = [step(f"{n:02}:00", "1", "10") for n in range(number - 1)]
        return flex([*hours, step(f"{number - 1:02}:00", str(25 - number), "100")])

    events = [pump(), refill("R-1", 0), change("P-1", 0, day(14))]
    assert one(events, 1, "F1") == ("warning", "14 > 13")
    assert found([pump(), refill("R-1", 0), change("P-1", 0, day(13))], 1, "F1") == []


def test_what_a_pump_can_give_of_what_it_holds_is_in_its_state() -> None:
    """Worked example 7."""
    for strength, least in (("500", 24), ("1000", 48), ("2000", 96), ("3000", 144), ("4000", 192)):
        state = pump_state([pump(), *running("200", strength)], at(1))
        assert state.least_daily_dose == least
        assert state.derivation["least_daily_dose"].startswith("D = q * C = 0.048 mL/d")
    assert pump_state(running(), at(1)).least_daily_dose is None


# --- F2, F3, U3: boluses and clocks -----------------------------------------------------------------------

BOLUS = {"dose": quantity("20", "ug"), "max_per_day": 4}


def test_f2_a_patient_bolus_of_baclofen_is_not_permitted_on_a_prometra() -> None:
    events = running(patient_bolus=BOLUS)
    assert one([pump("Prometra II 13827"), *events], 1, "F2")[0] == "critical"
    assert found([pump(), *events], 1, "F2") == []


def test_f2_a_lockout_too_long_for_the_maximum() -> None:
    def limits(hours: str, most: int) -> list[Json]:
        bolus = {"dose": quantity("5", "ug"), "lockout": quantity(hours, "h"), "max_per_day": most}
        return running(patient_bolus=bolus)

    assert one(limits("8", 4), 1, "F2") == ("warning", "(4 - 1) * 8 h = 24 h >= 24 h")
    assert found(limits("7", 4), 1, "F2") == []  # at 0, 7, 14 and 21 h


def test_f3_flex_over_a_change_of_offset() -> None:
    events = [refill("R-1", 0), change("P-1", 0, flex([step("00:00", "24", "100")]))]
    away = told("interrogation", "I-1", 10, mode="flex") | {"occurred_at": ELSEWHERE}
    assert one([*events, away], 11, "F3") == ("warning", "-0500 - +0000 = -5 h")
    assert found([*running(), away], 11, "F3") == []
    assert found([*events, told("interrogation", "I-1", 10, mode="flex")], 11, "F3") == []


def test_u3_boluses_that_give_more_than_the_dose_they_are_part_of() -> None:
    def boluses(dose: str) -> list[Json]:
        bolus = {"dose": quantity("30", "ug"), "interval": quantity("6", "h")}
        return running(dose, mode="periodic-bolus", periodic_bolus=bolus)

    assert one(boluses("100"), 1, "U3") == ("warning", "4 * 30 = 120 > 100")
    assert found(boluses("120"), 1, "U3") == []


# --- C1, C2, C4, R5, R2: refills --------------------------------------------------------------------------


def test_c1_a_strength_that_is_not_sold() -> None:
    assert one(running("200", "3000"), 1, "C1") == ("warning", "3000 is none of 500, 1000, 2000 mcg/mL")
    drug = refill("R-1", 0, strength="3000")["drug"] | {"compounded": True}
    compounded = refill("R-1", 0, drug=drug)
    assert found([compounded, change("P-1", 0, simple("200", "3000"))], 1, "C1") == []


def test_c1_a_strength_outside_what_a_prometra_takes() -> None:
    drug = refill("R-1", 0, strength="3000")["drug"] | {"compounded": True}
    events = [pump("16827"), refill("R-1", 0, drug=drug), change("P-1", 0, simple("200", "3000"))]
    assert one(events, 1, "C1") == ("warning", "3000 > 2000 mcg/mL")


def drug_of(strength: str, **more: Any) -> Json:
    return refill("X", 0, strength=strength)["drug"] | more


def test_c2_a_product_of_another_strength() -> None:
    wrong = refill("R-1", 0, drug=drug_of("500", ndc="66794-157-01"))
    severity, sum = one([wrong, change("P-1", 0, simple("100"))], 1, "C2")
    assert (severity, sum) == ("critical", "2000 / 500 = 4 times the recorded strength")
    for drug in (drug_of("500", ndc="70121-2501-01"), drug_of("500", ndc="66794-157-01", compounded=True)):
        assert found([refill("R-1", 0, drug=drug), change("P-1", 0, simple("100"))], 1, "C2") == []


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("66794-157-01", "66794015701"),
        ("66794-0157-01", "66794015701"),
        ("66794015701", "66794015701"),
        ("6679415701", None),
        ("66794-157", None),
        ("667941-157-01", None),
        ("", None),
    ],
)
def test_an_ndc_is_compared_in_eleven_digits(written: str, digits: str | None) -> None:
    assert eleven_digits(written) == digits
    assert all(len(ndc) == 11 for ndc in PRODUCTS)


def test_c2_a_lot_that_had_expired() -> None:
    def filled(ends: str) -> list[Json]:
        return [refill("R-1", 0, drug=drug_of("500", expires_on=ends)), change("P-1", 0, simple("100"))]

    assert one(filled("2024-12-31"), 1, "C2") == ("warning", "2025-01-01 > 2024-12-31")
    assert one(filled("2024-12"), 1, "C2")[0] == "warning"
    for good in ("2025-01-01", "2025-01"):
        assert found(filled(good), 1, "C2") == []


def test_c4_a_prime_while_the_catheter_is_unknown() -> None:
    prime = {"volume": quantity("0.4", "mL")}
    implant = told("procedure", "O-1", 0, action="implant", prime=prime)
    assert one([*running(), implant], 1, "C4")[0] == "warning"
    known = told("procedure", "O-1", 0, action="implant", prime=prime, dead_space=quantity("0.2", "mL"))
    assert found([*running(), known], 1, "C4") == []


def test_r5_a_low_alarm_that_is_very_low() -> None:
    def alarm(volume: str, *more: Json) -> list[Json]:
        filled = refill("R-1", 0, low_alarm_volume=quantity(volume, "mL"))
        return [filled, change("P-1", 0, simple("100")), *more]

    assert one(alarm("1"), 1, "R5") == ("warning", "1 < 2 mL")
    assert found(alarm("2"), 1, "R5") == []
    withdrawal = told("complication", "C-1", 0, problem="withdrawal")
    assert one(alarm("2", withdrawal), 1, "R5") == ("warning", "2 = 2 mL")


def test_r2_is_critical_with_signs_of_withdrawal_or_overdose() -> None:
    visit = refill("R-2", 50, volume_removed=quantity("15", "mL"))
    assert one([*running(), visit], 50, "R2")[0] == "warning"
    signs = told("complication", "C-1", 40, problem="withdrawal")
    assert one([*running(), visit, signs], 50, "R2")[0] == "critical"
    over = told("complication", "C-1", -5, problem="overdose", ended_at="2024-12-28T12:00:00Z")
    assert one([*running(), visit, over], 50, "R2")[0] == "warning"


def test_r2_counts_the_refills_in_a_row() -> None:
    """8 days at 0.2 mL/d leave 18.4 mL."""

    def visit(number: int, removed: str) -> Json:
        return refill(f"R-{number}", 8 * number - 8, volume_removed=quantity(removed, "mL"))

    assert "in a row" not in found([*running(), visit(2, "15")], 8, "R2")[0].message
    thrice = [*running(), visit(2, "20.5"), visit(3, "15"), visit(4, "15")]
    assert "; 2 refills in a row" in found(thrice, 24, "R2")[0].message
    assert found([*thrice, visit(5, "18")], 32, "R2") == []


def test_r1_more_was_taken_out_than_was_filled_in() -> None:
    def visit(removed: str) -> Json:
        return refill("R-2", 8, volume_removed=quantity(removed, "mL"))

    assert one([*running(), visit("20.1")], 8, "R1") == ("warning", "20.1 > 20 mL")
    assert found([*running(), visit("20")], 8, "R1") == []


# --- D, U2, K1: doses -------------------------------------------------------------------------------------


def raised(dose: str, days: float = 10, *more: Json) -> list[Json]:
    return [*running(), change("P-2", days, simple(dose), simple("100")), *more]


def test_u2_a_dose_that_was_doubled() -> None:
    assert one(raised("200"), 11, "U2") == ("critical", "200 / 100 = 2 >= 2")
    assert found(raised("199"), 11, "U2") == []


def test_d1_a_high_dose() -> None:
    assert one(running("1100", "2000"), 1, "D1") == ("warning", "1100 > 1000 mcg/day")
    assert one(running("2100", "2000"), 1, "D1") == ("warning", "2100 > 2000 mcg/day")
    assert one(running("950", "2000", patient_bolus=BOLUS), 1, "D1") == ("warning", "1030 > 1000 mcg/day")
    assert found(running("1000", "2000"), 1, "D1") == []


def cause(name: str, **more: Any) -> Json:
    return about_patient("evaluation", "E-1", -400, indication={"kind": "spasticity", "cause": name, **more})


def test_d3_a_large_increase_by_origin() -> None:
    assert found(raised("140"), 11, "D3") == []
    severity, sum = one(raised("141"), 11, "D3")
    assert severity == "warning"
    expected = "(141 - 100) / 100 * 100 = 41.0 % > 40 %, the most that is published for any origin"
    assert sum == expected
    assert found(raised("121", 10, cause("spinal-cord-injury")), 11, "D3") == []
    assert "cerebral" in one(raised("121", 10, cause("cerebral-palsy")), 11, "D3")[1]


def test_d3_a_large_decrease() -> None:
    assert one(raised("79"), 11, "D3")[1] == "(79 - 100) / 100 * 100 = -21.0 % < -20 %"
    assert found(raised("80"), 11, "D3") == []


def test_d3_is_over_with_the_next_refill() -> None:
    assert found([*raised("79"), refill("R-2", 20)], 21, "D3") == []


def test_d3_two_increases_within_a_day() -> None:
    second = change("P-3", 10.5, simple("120"), simple("110"))
    assert "the increase before it" in found([*raised("110"), second], 11, "D3")[0].message
    later = change("P-3", 11, simple("120"), simple("110"))
    assert found([*raised("110"), later], 12, "D3") == []


def test_d3_an_increase_within_a_day_of_the_implant() -> None:
    implant = told("procedure", "O-1", 0, action="implant")
    assert "the implant" in found(raised("110", 0.5, implant), 1, "D3")[0].message
    assert found(raised("110", 1, implant), 2, "D3") == []
    assert "the implant" in found(raised("110", 0.25, pump()), 1, "D3")[0].message
    assert found(raised("110", 0.5, pump()), 1, "D3") == []  # the next day, by its date


def test_d3_a_hold_is_no_change_of_dose() -> None:
    held = change("P-2", 10, STOP, simple("100"), hold="mri")
    resumed = change("P-3", 10.1, simple("100"), STOP)
    for events in ([*running(), held], [*running(), held, resumed]):
        assert found(events, 11, "D3") == found(events, 11, "D6") == found(events, 11, "U2") == []


def trial(bolus: str, **more: Any) -> Json:
    return about_patient("screening", "S-1", -30, bolus=quantity(bolus, "ug"), **more)


def test_d4_a_start_above_twice_the_screening_bolus() -> None:
    assert found([*running(), trial("50", responder=True)], 1, "D4") == []
    assert one([*running("101"), trial("50", responder=True)], 1, "D4")[1] == "101 > 2 * 50 = 100 mcg/day"
    long = trial("75", responder=True, effect_duration=quantity("9", "h"))
    assert one([*running(), long], 1, "D4") == ("warning", "100 > 1 * 75 = 75 mcg/day")
    assert found([*running(), trial("75", responder=True, effect_duration=quantity("8", "h"))], 1, "D4") == []


def test_d4_a_start_after_screenings_without_a_response() -> None:
    assert (
        one([*running(), trial("100", responder=False)], 1, "D4")[1]
        == "of 1 screening bolus 0 had a response"
    )
    assert found([*running(), trial("100")], 1, "D4") == []
    assert found(running(), 1, "D4") == []


def test_d4_says_nothing_of_a_pump_that_replaced_another() -> None:
    replaced = told("procedure", "O-1", 0, action="replacement", old_pump="OLD1")
    assert found([*running("400"), trial("50", responder=True), replaced], 1, "D4") == []


def test_d6_a_stop_without_a_taper() -> None:
    stop = change("P-2", 10, STOP, simple("100"))
    assert one([*running(), stop], 11, "D6")[0] == "critical"
    tapered = [change("P-2", 10, simple("80"), simple("100")), change("P-3", 12, STOP, simple("80"))]
    assert found([*running(), *tapered], 13, "D6") == []
    out = told("procedure", "O-1", 10, action="explant")
    assert found([*running(), stop, out], 11, "D6") == []


def test_d6_a_dose_cut_to_a_half() -> None:
    assert one(raised("50"), 11, "D6") == ("critical", "50 / 100 = 0.5 <= 1 / 2")
    assert found(raised("50"), 11, "D3") == []
    assert found(raised("51"), 11, "D6") == []


def test_d5_two_screening_boluses_within_a_day() -> None:
    first, second = (about_patient("screening", f"S-{n}", days, bolus=quantity("50", "ug"))
                     for n, days in ((1, -30), (2, -29.01)))  # fmt: skip
    assert one([*running(), first, second], 1, "D5")[0] == "warning"
    later = about_patient("screening", "S-2", -29, bolus=quantity("50", "ug"))
    assert found([*running(), first, later], 1, "D5") == []


def oral(**more: Any) -> Json:
    steps = [
        {"dose": quantity("10", "mg"), "times_per_day": 3, "starts_on": "2024-06-01"},
        {"dose": quantity("5", "mg"), "times_per_day": 3, "starts_on": "2025-02-01"},
    ]
    return about_patient("oral-baclofen", "B-1", -200, steps=steps, **more)


def test_k1_oral_baclofen_at_its_full_dose_while_the_pump_goes_up() -> None:
    assert one(raised("110", 10, oral()), 11, "K1")[1].startswith("10 mg * 3 = 30 mg/day")
    assert found(raised("110", 40, oral()), 41, "K1") == []
    assert found(raised("90", 10, oral()), 11, "K1") == []
    assert found(raised("110", 10, oral(ended_on="2025-01-05")), 11, "K1") == []


def test_k1_an_implant_in_the_first_year_after_a_brain_injury() -> None:
    injury = cause("traumatic-brain-injury", onset_on="2024-01-02")
    assert one([pump(), *running(), injury], 1, "K1")[1] == "2025-01-01 < 2024-01-02 + 1 year = 2025-01-02"
    for known in ("2024-01-01", "2024-01"):
        past = cause("traumatic-brain-injury", onset_on=known)
        assert found([pump(), *running(), past], 1, "K1") == []


def test_k1_an_implant_during_an_infection() -> None:
    infection = told("complication", "C-1", -3, problem="infection")
    assert one([pump(), *running(), infection], 1, "K1")[1] == "2024-12-29 < 2025-01-01 <= not ended"
    over = told("complication", "C-1", -3, problem="infection", ended_at="2024-12-30T12:00:00Z")
    assert found([pump(), *running(), over], 1, "K1") == []


# --- P1: service life -------------------------------------------------------------------------------------


def service(events: list[Json], days: float) -> dict[str, Any]:
    state = pump_state(events, at(days), pump=SERIAL)
    names = ("eri_on", "eri_decided_by", "eos_on", "eos_decided_by", "plan_replacement_by")
    return {name: getattr(state, name) for name in names}


def test_p1_worked_example_13() -> None:
    assert service([pump(implanted_on="2019-03-10")], 1) == {
        "eri_on": date(2025, 12, 10),
        "eri_decided_by": "service-life",
        "eos_on": date(2026, 3, 10),
        "eos_decided_by": "service-life",
        "plan_replacement_by": date(2025, 9, 10),
    }


def test_p1_a_forecast_earlier_than_the_limit_decides() -> None:
    events = [pump(implanted_on="2019-03-10"), told("interrogation", "I-1", 0, eri_months=6)]
    assert service(events, 1) == {
        "eri_on": date(2025, 7, 1),
        "eri_decided_by": "interrogation",
        "eos_on": date(2025, 9, 29),
        "eos_decided_by": "interrogation",
        "plan_replacement_by": date(2025, 4, 1),
    }


@pytest.mark.parametrize(
    ("reading", "eri"),
    [
        ({"eri_on": "2025-07"}, date(2025, 7, 1)),
        ({"eri_on": "2025-07-15"}, date(2025, 7, 15)),
        ({"eri_on": "2025-07-15", "eri_months": 6}, date(2025, 7, 1)),
        ({"eri_months": 18}, date(2025, 12, 10)),
        ({"eri_months": 0}, date(2025, 1, 1)),
    ],
)
def test_p1_a_month_begins_with_its_first_day_and_the_earlier_date_counts(reading: Json, eri: date) -> None:
    events = [pump(implanted_on="2019-03-10"), told("interrogation", "I-1", 0, **reading)]
    assert service(events, 1)["eri_on"] == eri


def test_p1_a_newer_forecast_takes_the_place_of_an_older_one() -> None:
    events = [told("interrogation", "I-1", 0, eri_months=6), told("interrogation", "I-2", 30, eri_months=8)]
    assert service(events, 20)["eri_on"] == date(2025, 7, 1)
    assert service(events, 31)["eri_on"] == date(2025, 9, 30)  # a short month's last day, never later


def test_p1_what_was_reported_stays_reported() -> None:
    log = [{"entry": "eri", "at": "2025-01-03T00:00:00Z"}]
    events = [
        pump(),
        told("interrogation", "I-1", 5, log=log),
        told("interrogation", "I-2", 30, eri_months=9),
    ]
    facts = service(events, 31)
    assert (facts["eri_on"], facts["eri_decided_by"]) == (date(2025, 1, 3), "reported")
    assert (facts["eos_on"], facts["eos_decided_by"]) == (date(2025, 4, 3), "reported")


def test_p1_no_claim_about_the_end_of_a_model_that_is_not_known() -> None:
    facts = service([pump("8667-20"), told("alarm", "A-1", 5, alarm="eri")], 6)
    assert (facts["eri_on"], facts["eos_on"]) == (date(2025, 1, 6), None)
    assert set(service([pump("8667-20")], 6).values()) == {None}


def test_p1_from_booking_to_the_end() -> None:
    events = [pump(implanted_on="2019-03-10"), *running()]
    days = {name: (date.fromisoformat(name) - date(2025, 1, 1)).days for name in
            ("2025-09-09", "2025-09-10", "2025-12-10", "2026-03-10")}  # fmt: skip
    assert found(events, days["2025-09-09"], "P1")[0].arithmetic.startswith(
        "2025-09-09 >= 2019-03-10 + 6 years"
    )
    assert "to be booked by 2025-09-10" in found(events, days["2025-09-10"], "P1")[0].message
    assert one(events, days["2025-12-10"], "P1") == ("warning", "2025-12-10 >= 2025-12-10")
    assert one(events, days["2026-03-10"], "P1") == ("critical", "2026-03-10 >= 2026-03-10")
    gone = told("procedure", "O-1", 100, action="explant")
    assert found([*events, gone], days["2026-03-10"], "P1") == []


def test_p1_a_prometra_is_old_after_ten_years() -> None:
    assert "10 years" in found([pump("13827", "2015-01-01")], 0, "P1")[0].message
    assert found([pump("13827", "2015-01-03")], 0, "P1") == []


def test_p1_the_pump_says_that_its_service_has_ended() -> None:
    assert one([told("alarm", "A-1", 5, alarm="eos")], 6, "P1")[0] == "critical"


# --- P2, P3, I1, P4: log, scans, clock, record ------------------------------------------------------------


def logged(entry: str, days: float = 9) -> Json:
    entries = [{"entry": entry, "at": at(days).strftime("%Y-%m-%dT%H:%M:%SZ")}]
    return told("interrogation", f"I-{entry}", 10, log=entries)


ENDS = {
    "motor-stall": logged("motor-stall-recovery", 9.5),
    "telemetry-mode-stall": told("interrogation", "I-9", 12, eri_months=40),
    "stopped-pump": logged("therapy-start", 9.5),
    "pump-reset": change("P-9", 10, simple("100")),
    "safe-state": change("P-9", 12, simple("100")),
    "critical-memory-error": change("P-9", 12, simple("100")),
    "empty-reservoir": refill("R-9", 10),
}


@pytest.mark.parametrize("entry", ENDS)
def test_p2_a_critical_entry_is_open_until_something_ends_it(entry: str) -> None:
    assert one([*running(), logged(entry)], 13, "P2")[0] == "critical"
    assert found([*running(), logged(entry), ENDS[entry]], 13, "P2") == []


def test_p2_a_stop_does_not_end_a_reset_and_a_recovery_before_the_stall_does_not_end_it() -> None:
    assert found([*running(), logged("pump-reset"), change("P-9", 12, STOP, hold="temporary")], 13, "P2")
    assert found([*running(), logged("motor-stall"), logged("motor-stall-recovery", 8)], 13, "P2")


def test_p2_an_alarm_that_lasts() -> None:
    assert one([told("alarm", "A-1", 5, alarm="motor-stall")], 6, "P2")[0] == "critical"
    over = told("alarm", "A-1", 5, alarm="motor-stall", ended_at="2025-01-06T13:00:00Z")
    assert found([over], 6, "P2") == []
    assert found([told("alarm", "A-1", 5, alarm="low-reservoir")], 6, "P2") == []


def test_p2_a_pump_that_stands_still_for_two_days() -> None:
    events = [*running(), change("P-2", 10, STOP, hold="temporary"), change("P-3", 11, STOP, STOP)]
    assert found(events, 12, "P2") == []
    severity, sum = one(events, 12.5, "P2")
    assert severity == "critical" and sum.endswith("= 60 h > 48 h")


def test_p3_a_scan_without_an_interrogation_after_it() -> None:
    scan = [change("P-2", 10, STOP, simple("100"), hold="mri"), change("P-3", 10.1, simple("100"), STOP)]
    assert one([*running(), *scan], 11, "P3")[0] == "warning"
    assert found([*running(), scan[0]], 10.05, "P3") == []
    assert found([*running(), *scan, told("interrogation", "I-1", 10.1, mode="simple")], 11, "P3") == []
    effect = told("complication", "C-1", 10, problem="mri-effect")
    assert one([*running(), effect], 11, "P3")[0] == "critical"


def test_p3_a_prometra_is_emptied_before_a_scan() -> None:
    hold = change("P-2", 10, STOP, simple("100"), hold="mri")
    assert one([pump("13827"), *running(), hold], 10, "P3")[0] == "critical"
    assert found([pump(), *running(), hold], 10, "P3") == []
    emptied = refill("R-2", 10, volume="0", volume_removed=quantity("18", "mL"))
    assert found([pump("13827"), *running(), emptied, hold], 10, "P3") == []


def test_i1_a_clock_that_is_off() -> None:
    def reading(clock: str) -> Json:
        return told("interrogation", "I-1", 10, pump_clock=clock)

    assert one([*running(), reading("2025-01-11T11:00:00Z")], 11, "I1") == ("warning", "-60 min, more than 5")
    assert found([*running(), reading("2025-01-11T06:05:00-06:00")], 11, "I1") == []
    again = change("P-2", 10, simple("100"))
    assert found([*running(), reading("2025-01-11T11:00:00Z"), again], 11, "I1") == []


def test_p4_records_outside_the_pumps_use() -> None:
    assert one([pump(implanted_on="2025-01-02"), running()[1]], 1, "P4") == (
        "warning",
        "2025-01-01 < 2025-01-02",
    )
    out = told("procedure", "O-1", 5, action="explant")
    late = change("P-2", 6, simple("110"), simple("100"))
    assert one([pump(), *running(), out, late], 7, "P4") == ("warning", "2025-01-07 > 2025-01-06")
    assert found([pump(), *running(), out], 7, "P4") == []


def test_p4_a_second_pump_in_use() -> None:
    other = device("D-9", -900, kind="pump", serial="OLD1", implanted_on="2020-01-01")
    assert one([pump(), other, *running()], 1, "P4") == ("warning", "2 > 1")
    replaced = told("procedure", "O-1", 0, action="replacement", old_pump="OLD1")
    assert found([pump(), other, *running(), replaced], 1, "P4") == []


# --- the tables -------------------------------------------------------------------------------------------


def test_a_model_is_known_by_its_reference() -> None:
    names = {text: (model_of({"model": text}) or Model("", ())).name for text in
             ("8637-20", "SynchroMed II 8637-40", "8667-20", "Prometra II 13827", "16827", "SynchroMed II",
              "8627-18", "11827", "", "8637-20 13827")}  # fmt: skip
    assert names == {
        "8637-20": "SynchroMed II",
        "SynchroMed II 8637-40": "SynchroMed II",
        "8667-20": "SynchroMed III",
        "Prometra II 13827": "Prometra II",
        "16827": "Prometra II",
        "SynchroMed II": "",
        "8627-18": "",
        "11827": "",
        "": "",
        "8637-20 13827": "",
    }
    assert model_of(None) is None


def test_models_are_a_sites_own() -> None:
    slow = Model("slow pump", ("SLOW",), least_flow=Decimal(1), greatest_flow=Decimal(2))
    state = pump_state([pump("SLOW-1"), *running()], at(1), Thresholds(models=(*MODELS, slow)))
    assert [i.arithmetic for i in state.open_issues if i.rule == "F1"] == [
        "100 / 500 = 0.2 mL/d < 1 mL/d; at 1 mL/d it is 500 mcg/day of 500 mcg/mL"
    ]


ROWS = (Path(__file__).resolve().parents[2] / "docs/clinical.md").read_text().splitlines()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_names_its_rule_and_the_rule_has_its_row(check: Check) -> None:
    rule = (check.__doc__ or "").partition(":")[0]
    assert [row for row in ROWS if re.match(rf"\| `?{rule}`? \| (refused; )?advisory", row)], rule


def test_no_check_is_in_the_table_twice() -> None:
    assert len(set(CHECKS)) == len(CHECKS)
