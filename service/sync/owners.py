"""Whose word counts for each field of each event when two sides say different things. Pure: a table.

A row is a path in the event; it stands for everything below it. What has a row is merged as one: a list is
never woven item by item, because half of one taper or flex program and half of another is a third one.
docs/sync.md, "Both sides edited", says why each group of rows has its owner.
"""

from __future__ import annotations

from enum import Enum


class Owner(Enum):
    """Who decides about a field that was edited on both sides, or by the one who does not own it."""

    DOSE = "dose"
    """What reaches the patient, and who that is: the EHR's word is never taken without two persons."""
    PUMP = "pump"
    """Read off the pump by its programmer, whose later word counts; against an older one a person decides."""
    EHR = "ehr"
    """Orders and appointments: the EHR's word counts."""
    EITHER = "either"
    """Whoever changed it; a person decides when both did."""
    RETRACTION = "retraction"
    """`status`: a retraction travels, unless the other side went on with the record."""


_ENVELOPE = {
    "type": Owner.DOSE,
    "source": Owner.DOSE,
    "id": Owner.DOSE,
    "status": Owner.RETRACTION,
    "patient": Owner.DOSE,
    "performer": Owner.EITHER,
    "verifier": Owner.EITHER,
    "note": Owner.EITHER,
}
_PUMP_ENVELOPE = {**_ENVELOPE, "pump": Owner.DOSE, "occurred_at": Owner.PUMP}

OWNERS: dict[str, dict[str, Owner]] = {
    "device": {
        **_ENVELOPE,
        "occurred_at": Owner.EITHER,
        "kind": Owner.DOSE,
        "manufacturer": Owner.EITHER,
        "model": Owner.PUMP,
        "serial": Owner.DOSE,
        "lot": Owner.EITHER,
        "udi": Owner.EITHER,
        "device_status": Owner.PUMP,
        "implanted_on": Owner.EITHER,
        "explanted_on": Owner.EITHER,
        "reservoir_capacity": Owner.PUMP,
        "implanted_length": Owner.PUMP,  # of a catheter: it decides primes and bridges
        "volume_per_length": Owner.PUMP,
        "tip_level": Owner.EITHER,
        "parent": Owner.DOSE,
    },
    "refill": {
        **_PUMP_ENVELOPE,
        "drug.name": Owner.DOSE,
        "drug.concentration": Owner.DOSE,
        "drug.ndc": Owner.DOSE,  # names a product, and so its strength
        "drug.lot": Owner.EITHER,
        "drug.expires_on": Owner.EITHER,
        "drug.compounded": Owner.DOSE,
        "drug.other_lots": Owner.DOSE,  # each with a volume
        "volume_expected": Owner.PUMP,
        "volume_removed": Owner.PUMP,
        "volume_discarded": Owner.PUMP,
        "volume_instilled": Owner.DOSE,  # times the concentration: the drug in the pump
        "low_alarm_volume": Owner.PUMP,
        "alarm_on": Owner.PUMP,
        "refill_by": Owner.PUMP,
        "needle_passes": Owner.EITHER,
        "started_at": Owner.PUMP,
        "stopped_because": Owner.EITHER,
        "bridge": Owner.DOSE,
    },
    "dose-change": {
        **_PUMP_ENVELOPE,
        "before": Owner.DOSE,
        "after": Owner.DOSE,
        "reason": Owner.EITHER,
        "hold": Owner.DOSE,
        "bridge": Owner.DOSE,
    },
    "evaluation": {
        **_ENVELOPE,
        "occurred_at": Owner.EITHER,
        "indication": Owner.EHR,
        "team": Owner.EHR,
        "goals": Owner.EITHER,
        "medicines_tried": Owner.DOSE,
        "summary": Owner.EITHER,
    },
    "screening": {
        **_ENVELOPE,
        "occurred_at": Owner.EITHER,
        "bolus": Owner.DOSE,
        "drug.name": Owner.DOSE,
        "drug.concentration": Owner.DOSE,
        "drug.ndc": Owner.DOSE,
        "drug.lot": Owner.EITHER,
        "drug.expires_on": Owner.EITHER,
        "site": Owner.EITHER,
        "responder": Owner.EITHER,
        "effect_duration": Owner.EITHER,
        "recommended_daily_dose": Owner.DOSE,
        "adverse_effects": Owner.EITHER,
        "scores": Owner.EITHER,
    },
    "procedure": {
        **_PUMP_ENVELOPE,
        "action": Owner.DOSE,
        "old_pump": Owner.DOSE,
        "catheter": Owner.DOSE,
        "old_catheter": Owner.DOSE,
        "started_at": Owner.EITHER,
        "site": Owner.EITHER,
        "reason": Owner.EITHER,
        "dead_space": Owner.PUMP,
        "prime": Owner.DOSE,
    },
    "interrogation": {
        **_PUMP_ENVELOPE,
        "reservoir_volume": Owner.PUMP,
        "low_alarm_volume": Owner.PUMP,
        "alarm_on": Owner.PUMP,
        "daily_dose": Owner.DOSE,
        "concentration": Owner.DOSE,
        "mode": Owner.DOSE,
        "eri_months": Owner.PUMP,
        "eri_on": Owner.PUMP,
        "pump_clock": Owner.PUMP,
        "patient_boluses": Owner.DOSE,
        "log": Owner.PUMP,
        "programmer": Owner.PUMP,
    },
    "alarm": {**_PUMP_ENVELOPE, "alarm": Owner.PUMP, "ended_at": Owner.PUMP},
    "complication": {
        **_PUMP_ENVELOPE,
        "occurred_at": Owner.EITHER,
        "problem": Owner.EITHER,
        "severity": Owner.EITHER,
        "ended_at": Owner.EITHER,
        "signs": Owner.EITHER,
    },
    "assessment": {**_ENVELOPE, "occurred_at": Owner.EITHER, "scores": Owner.EITHER},
    "education": {
        **_ENVELOPE,
        "occurred_at": Owner.EITHER,
        "topics": Owner.EITHER,
        "audience": Owner.EITHER,
        "material": Owner.EITHER,
        "understood": Owner.EITHER,
    },
    "oral-baclofen": {
        **_ENVELOPE,
        "occurred_at": Owner.EHR,
        "steps": Owner.DOSE,
        "ended_on": Owner.DOSE,  # how long it is taken
        "reason": Owner.EHR,
    },
    "follow-up": {
        **_PUMP_ENVELOPE,
        "occurred_at": Owner.EHR,
        "kind": Owner.EHR,
        "state": Owner.EHR,
        "due_on": Owner.EHR,
        "alarm_on": Owner.PUMP,
        "starts_at": Owner.EHR,
        "ends_at": Owner.EHR,
        "purpose": Owner.EHR,
        "reason": Owner.EHR,
    },
}
"""Every field of every event type; `version` alone has no row: it counts what is decided here."""
