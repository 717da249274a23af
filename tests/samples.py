"""One full event of each type, as a clinic sends it, in canonical form."""

from __future__ import annotations

from typing import Any

Json = Any
PATIENT = {"system": "http://hospital.invalid/mrn", "value": "MRN001"}
NURSE = {"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567893", "name": "N. Nurse"}
SERIAL = "NGP000001H"


def q(value: Any, unit: str) -> Json:
    return {"value": value, "unit": unit}


PUMP = {
    "type": "device",
    "source": "clinic-a",
    "id": "D-1",
    "version": 2,
    "patient": PATIENT,
    "occurred_at": "2025-02-03T12:00:00-06:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "right side",
    "kind": "pump",
    "manufacturer": "Medtronic",
    "model": "8637-20",
    "serial": SERIAL,
    "lot": "L1",
    "udi": {"di": "00643169123456", "carrier": "(01)00643169123456"},
    "device_status": "inactive",
    "implanted_on": "2025-02-03",
    "explanted_on": "2026-02-03",
    "reservoir_capacity": q(20, "mL"),
}
CATHETER = {
    "type": "device",
    "source": "clinic-a",
    "id": "D-2",
    "patient": PATIENT,
    "occurred_at": "2025-02-03T12:00:00-06:00",
    "kind": "catheter",
    "manufacturer": "Medtronic",
    "model": "8780",
    "lot": "LOT9",
    "implanted_length": q(72, "cm"),
    "volume_per_length": q(0.0022, "mL/cm"),
    "tip_level": "T6",
    "parent": SERIAL,
}
BRIDGE = {"volume": q(0.27, "mL"), "duration": q(11, "h"), "ends_at": "2025-05-05T21:00:00-05:00"}
REFILL = {
    "type": "refill",
    "source": "clinic-a",
    "id": "R-1",
    "patient": PATIENT,
    "pump": SERIAL,
    "occurred_at": "2025-05-05T10:00:00-05:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "no difficulty",
    "drug": {
        "name": "baclofen",
        "concentration": q(2000, "ug/mL"),
        "ndc": "70257-562-55",
        "lot": "A1234",
        "expires_on": "2027-09-30",
        "compounded": False,
        "other_lots": [{"lot": "B77", "expires_on": "2027-10-31", "volume": q(9.5, "mL")}],
    },
    "volume_expected": q(3.1, "mL"),
    "volume_removed": q(3, "mL"),
    "volume_discarded": q(3, "mL"),
    "volume_instilled": q(20, "mL"),
    "low_alarm_volume": q(2, "mL"),
    "alarm_on": "2025-10-01",
    "refill_by": "2025-10-01",
    "needle_passes": 1,
    "started_at": "2025-05-05T09:30:00-05:00",
    "stopped_because": "syringe leaked at the end",
    "bridge": BRIDGE,
}
FLEX = {
    "mode": "flex",
    "daily_dose": q(100, "ug/d"),
    "concentration": q(500, "ug/mL"),
    "steps": [
        {
            "start": "00:00",
            "duration": q(24, "h"),
            "dose": q(100, "ug"),
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        }
    ],
    "patient_bolus": {
        "dose": q(10, "ug"),
        "duration": q(5, "min"),
        "lockout": q(4, "h"),
        "max_per_day": 3,
    },
}
PERIODIC = {
    "mode": "periodic-bolus",
    "daily_dose": q(110, "ug/d"),
    "concentration": q(500, "ug/mL"),
    "periodic_bolus": {"dose": q(27.5, "ug"), "duration": q(5, "min"), "interval": q(6, "h")},
}
DOSE_CHANGE = {
    "type": "dose-change",
    "source": "clinic-a",
    "id": "P-1",
    "patient": PATIENT,
    "pump": SERIAL,
    "occurred_at": "2025-05-05T10:05:00-05:00",
    "performer": NURSE,
    "verifier": NURSE,
    "note": "tolerated",
    "before": FLEX,
    "after": PERIODIC,
    "reason": "titration",
    "bridge": BRIDGE,
}
STOP = DOSE_CHANGE | {"id": "P-2", "before": FLEX, "after": {"mode": "stopped"}, "hold": "mri"}


def _made(type: str, id: str, *, pump: bool = False, **more: Any) -> Json:
    """An event of the other types, with everything of the envelope."""
    return {
        "type": type,
        "source": "clinic-a",
        "id": id,
        "patient": PATIENT,
        **({"pump": SERIAL} if pump else {}),
        "occurred_at": "2025-05-05T10:00:00-05:00",
        "performer": NURSE,
        "verifier": NURSE,
        "note": "as planned",
        **more,
    }


LATER = "2025-05-05T11:00:00-05:00"
ASHWORTH = {"scale": "mas", "grade": "1+", "muscle": "hip adductors", "side": "left", "scored_at": LATER}
EVALUATION = _made(
    "evaluation",
    "E-1",
    indication={
        "kind": "spasticity",
        "cause": "cerebral-palsy",
        "onset_on": "2016-03",
        "description": "all limbs",
    },
    team=[{"role": "surgeon", "system": "http://hl7.org/fhir/sid/us-npi", "value": "1", "name": "Dr Lind"}],
    goals=[{"description": "sleep through the night", "state": "active", "due_on": "2025-12-31"}],
    medicines_tried=[{"name": "diazepam", "state": "past", "dose": "2 mg", "result": "drowsy"}],
    summary="suitable",
)
SCREENING = _made(
    "screening",
    "S-1",
    bolus=q(50, "ug"),
    drug={
        "name": "Lioresal",
        "concentration": q(50, "ug/mL"),
        "ndc": "70121-2496-05",
        "lot": "SC77",
        "expires_on": "2026-05",
    },
    site="L3/L4",
    responder=True,
    effect_duration=q(6.5, "h"),
    recommended_daily_dose=q(100, "ug/d"),
    adverse_effects="none",
    scores=[ASHWORTH],
)
ASLEEP = SCREENING | {"id": "S-2", "scores": [{"scale": "gas", "score": -1, "goal": "sleep"}]}
PROCEDURE = _made(
    "procedure",
    "O-1",
    pump=True,
    action="replacement",
    old_pump="NGP000000H",
    catheter="C-2",
    old_catheter="C-1",
    started_at="2025-05-05T09:00:00-05:00",
    site="left abdomen",
    reason="end of service",
    dead_space=q(0.357, "mL"),
    prime={"volume": q(0.357, "mL"), "dose": q(178.5, "ug"), "duration": q(20, "min")},
)
INTERROGATION = _made(
    "interrogation",
    "I-1",
    pump=True,
    reservoir_volume=q(4.2, "mL"),
    low_alarm_volume=q(2, "mL"),
    alarm_on="2025-10-16",
    daily_dose=q(180, "ug/d"),
    concentration=q(2000, "ug/mL"),
    mode="flex",
    eri_months=64,
    eri_on="2031-01",
    pump_clock=LATER,
    patient_boluses={"requested": 9, "delivered": 7, "denied": 2},
    log=[{"entry": "eri", "at": LATER}],
    programmer="tablet 3",
)
ALARM = _made("alarm", "A-1", pump=True, alarm="low-reservoir", ended_at=LATER)
COMPLICATION = _made(
    "complication",
    "C-1",
    pump=True,
    problem="withdrawal",
    severity="moderate",
    ended_at=LATER,
    signs="itching without rash",
)
ASSESSMENT = _made("assessment", "M-1", scores=[ASHWORTH])
NUMERIC = _made("assessment", "M-2", scores=[{"scale": "gas", "score": 1, "goal": "sleep"}])
EDUCATION = _made(
    "education",
    "U-1",
    topics=["alarms"],
    audience=["family"],
    material="Going home with a pump",
    understood=True,
)
ORAL = _made(
    "oral-baclofen",
    "B-1",
    steps=[
        {"dose": q(10, "mg"), "times_per_day": 3, "starts_on": "2025-05-05", "ends_on": "2025-05-19"},
    ],
    ended_on="2025-05-19",
    reason="wean",
)
DUE = _made(
    "follow-up",
    "F-1",
    pump=True,
    kind="refill-due",
    state="due",
    due_on="2025-09-28",
    alarm_on="2025-10-16",
    reason="stability",
)
VISIT = _made(
    "follow-up",
    "F-2",
    pump=True,
    kind="visit",
    state="booked",
    starts_at=LATER,
    ends_at="2025-05-05T12:00:00-05:00",
    purpose="refill-visit",
)
EVERY = {
    "pump": PUMP,
    "catheter": CATHETER,
    "refill": REFILL,
    "dose-change": DOSE_CHANGE,
    "stop": STOP,
    "evaluation": EVALUATION,
    "screening": SCREENING,
    "screening-goal": ASLEEP,
    "procedure": PROCEDURE,
    "interrogation": INTERROGATION,
    "alarm": ALARM,
    "complication": COMPLICATION,
    "ashworth": ASSESSMENT,
    "numeric": NUMERIC,
    "education": EDUCATION,
    "oral": ORAL,
    "due": DUE,
    "visit": VISIT,
}


def without(event: Json, *names: str) -> Json:
    """The event without some of its fields."""
    return {key: value for key, value in event.items() if key not in names}
