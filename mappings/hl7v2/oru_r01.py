"""Any event as ORU^R01: OBR says which type it is, an OBX holds each value.

An interrogation in the style of IHE PCD-01 (OBX-4 counts below device, subsystem and channel); devices,
procedures, screenings and the other types that no message of HL7 v2 was made for in the same way.
"""

from __future__ import annotations

from mappings.event import EVENT_TYPES

from .observed import Observed
from .rows import Always, Derived, MessageMap
from .shared import NAMELESS, PID, key, moment, result_status
from .values import LOCAL_SYSTEM

CHANNEL = "1.1.1."
"""OBX-4 of a metric: the one device, its one subsystem, its one channel (IHE PCD TF 2, OBX-4)."""
CODES = {
    "reservoir_volume": "reservoir-volume-calculated",
    "low_alarm_volume": "low-reservoir-alarm-volume",
    "alarm_on": "low-reservoir-alarm-date",
    "daily_dose": "pump-daily-dose",
    "concentration": "drug-concentration",
    "mode": "infusion-mode",
    "eri_months": "eri-months",
    "eri_on": "eri-date",
    "pump_clock": "pump-clock",
    "patient_boluses.requested": "patient-bolus-requested",
    "patient_boluses.delivered": "patient-bolus-delivered",
    "patient_boluses.denied": "patient-bolus-denied",
}
"""Values of an interrogation: the codes they have in FHIR."""


def _message(type: str) -> MessageMap:
    interrogation = type == "interrogation"
    codes = {leaf: f"{code}^{code.replace('-', ' ')}^{LOCAL_SYSTEM}" for leaf, code in CODES.items()}
    return MessageMap(
        name=f"ORU^R01 {type}",
        type=type,
        trigger=lambda event: "ORU^R01^ORU_R01",
        segments=("PID", "OBR", "OBX"),
        rows=(*PID, key("OBR-3,2"), moment("occurred_at", "OBR-7", required=True)),
        always=(
            NAMELESS,
            Always("OBR-1", "1"),
            Always("OBR-4", f"{type}^ITB {type.replace('-', ' ')}^{LOCAL_SYSTEM}"),
        ),
        derived=(Derived("OBR-25", result_status),),
        observed=Observed(codes, CHANNEL) if interrogation else Observed(),
    )


ORU_R01 = {type: _message(type) for type in EVENT_TYPES}
