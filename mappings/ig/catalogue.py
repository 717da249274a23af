"""What the guide is made of and no row can say: titles, purposes, and elements that are written by hand."""

from __future__ import annotations

from dataclasses import dataclass

from mappings import (
    alarm,
    assessment,
    chart,
    complication,
    device,
    document,
    dose_change,
    education,
    evaluation,
    follow_up,
    interrogation,
    oral_baclofen,
    procedure,
    program,
    refill,
    scores,
    screening,
)
from mappings.codes import INTRATHECAL, MODE, definition, extension, local, part, sid
from mappings.paths import Json, Path, Step, at, parse
from mappings.rows import Codec, Mapping
from mappings.values import PATIENT, PUMP, TIME_SPAN, ratio

Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands (`steps`), and what the guide says of it."""

    steps: Steps
    event: str = ""
    holds: Json = None
    codec: Codec | None = None
    required: bool = False
    note: str = ""
    target: str = ""
    """The profile of what a reference points to."""


def says(path: str | Path, event: str = "", codec: Codec | None = None, *, required: bool = False) -> Place:
    """A place that the mapping writes by hand."""
    steps = parse(path) if isinstance(path, str) else path.steps
    return Place(steps, event, codec.holds if codec else None, codec, required)


def own(kind: str) -> Place:
    """The business identifier."""
    return says(f"identifier[system={sid(kind)}].value", "source, id", required=True)


def always(path: str, value: Json) -> Place:
    """A place that always holds the same."""
    return Place(parse(path), holds=value, required=True)


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile: what it is for, the mappings whose rows it is made from, and `more` rows.

    `inside` is the id of the contained resource that it is about.
    """

    id: str
    type: str
    title: str
    description: str
    mappings: tuple[Mapping, ...] = ()
    more: tuple[Place, ...] = ()
    inside: str = ""


ALL_MODES = Codec(
    MODE.to_fhir,
    MODE.from_fhir,
    value_set="itb-infusion-mode",
    concepts=(*MODE.concepts, local("bridge"), local("prime")),
)
RATE = ratio("ug", "d")
CONFORMANCE = {"publisher": "The itb-fhir project", "date": "2026-11-23"}
"""What every definition of the guide says; `date` changes with the definitions."""

PROFILES = (
    Profile(
        "itb-pump",
        "Device",
        "Implanted intrathecal pump",
        "A programmable pump. Its serial number is its identity, and stands in an identifier too, because "
        "R4 has no search by serial number.",
        (device.DEVICE["pump"],),
    ),
    Profile(
        "itb-catheter",
        "Device",
        "Intrathecal catheter",
        "The catheter of a pump; its implanted length times its volume per length is its dead space.",
        (device.DEVICE["catheter"],),
    ),
    Profile(
        "itb-device-use",
        "DeviceUseStatement",
        "How long a pump or catheter is implanted",
        "From implant to explant, and when and by whom this was recorded.",
        (device.USE,),
    ),
    Profile(
        "itb-therapy-order",
        "MedicationRequest",
        "Program of the pump",
        "What the pump is set to: mode, daily dose, concentration, and the steps or boluses as dosages that "
        "run side by side (all have sequence 1). Each new program closes the one before.",
        (dose_change.ORDER, program.PROGRAM),
        (
            says("status", required=True),
            says(extension("itb-infusion-mode", "valueCodeableConcept"), "", ALL_MODES),
            says("statusReason"),
            says("priorPrescription"),
            says(
                at("dosageInstruction", extension("itb-step-number", "valuePositiveInt").text), "after.steps"
            ),
            says(
                at("dosageInstruction", extension("itb-bolus-lockout", "valueDuration").text),
                "after.patient_bolus.lockout",
                TIME_SPAN,
            ),
            says(
                at("dosageInstruction", extension("itb-bolus-max-per-day", "valuePositiveInt").text),
                "after.patient_bolus.max_per_day",
            ),
        ),
    ),
    Profile(
        "itb-infusion-segment",
        "MedicationAdministration",
        "Infusion under one program",
        "What the pump gives from one programming to the next. The rate is the mean over 24 h in every mode, "
        "never an hourly rate of a flex program.",
        (),
        (
            own("segment"),
            says(
                extension("itb-infusion-mode", "valueCodeableConcept"), "after.mode", ALL_MODES, required=True
            ),
            says("subject", "patient", required=True),
            says("effectivePeriod", "occurred_at", required=True),
            says("device", "pump", PUMP, required=True),
            says("request", required=True),
            says("medicationCodeableConcept", "after.concentration", required=True),
            always("dosage.route", INTRATHECAL),
            says("dosage.rateRatio", "after.daily_dose", RATE, required=True),
        ),
    ),
    Profile(
        "itb-bolus",
        "MedicationAdministration",
        "Bridge or priming bolus",
        "A bolus that moves drug through tubing and catheter at a programming or an operation. The dose is "
        "in ug where the concentration is known, else in mL.",
        (),
        (
            own("bolus"),
            says(extension("itb-infusion-mode", "valueCodeableConcept"), "", ALL_MODES, required=True),
            says("subject", "patient", required=True),
            says("device", "pump", PUMP, required=True),
            always("dosage.route", INTRATHECAL),
            says("dosage.dose", "bridge.volume, prime.volume", required=True),
        ),
    ),
    Profile(
        "itb-refill",
        "MedicationAdministration",
        "Refill of the reservoir",
        "What went into the tank of the pump, with its lot. Never a dose to the patient: the route is the "
        "reservoir, and the text says so.",
        (refill.REFILL,),
        (Place(parse("medicationReference"), "drug", required=True, target="itb-fill"),),
    ),
    Profile(
        "itb-fill",
        "Medication",
        "Drug of a refill",
        "The drug that a refill contains: baclofen alone, of one concentration, with lot and expiry.",
        (refill.REFILL,),
        inside="fill",
    ),
    Profile(
        "itb-fill-lot",
        "Medication",
        "One more lot of a refill",
        "A further lot of the same drug in the same fill, and how much of it.",
        (refill.LOT,),
    ),
    Profile(
        "itb-programming-session",
        "Procedure",
        "Programming of the pump",
        "The session in which a program was changed, or the pump stopped: dose before and after, change in "
        "percent, and both programs.",
        (dose_change.SESSION,),
        (
            says(part("itb-dose-change", "programBefore", "valueReference"), "before"),
            says(part("itb-dose-change", "programAfter", "valueReference"), "after", required=True),
        ),
    ),
    Profile(
        "itb-procedure",
        "Procedure",
        "Operation on the pump system",
        "Implant, revision, replacement or explant, with a focal device for each part that was put in, taken "
        "out or worked on.",
        (procedure.OPERATION,),
        (
            says("code", "action", procedure.KIND, required=True),
            says("focalDevice.manipulated", "pump, catheter", required=True),
            says(at("focalDevice", extension("itb-device-role", "valueCode").text), required=True),
        ),
    ),
    Profile(
        "itb-interrogation",
        "Observation",
        "Interrogation of the pump",
        "What telemetry read out of the pump, a component for each value and for each entry of its log.",
        (interrogation.READING,),
        (says("component", "log"),),
    ),
    Profile(
        "itb-alarm",
        "Observation",
        "Alarm of the pump",
        "One alarm, from when it began to when it was over.",
        (alarm.ALARM,),
    ),
    Profile(
        "itb-alarm-flag",
        "Flag",
        "Warning of an alarm",
        "Stands while an alarm lasts, for whoever opens the chart.",
        (alarm.FLAG,),
    ),
    Profile(
        "itb-evaluation",
        "ClinicalImpression",
        "Evaluation before the decision",
        "The examination before a decision for the therapy; it points to indication, team, goals and the "
        "medicines that were tried.",
        (evaluation.IMPRESSION,),
        (
            says("problem", "indication", required=True),
            says("supportingInfo", "team, goals, medicines_tried"),
        ),
    ),
    Profile(
        "itb-indication",
        "Condition",
        "Indication of the therapy",
        "Spasticity or dystonia, and what it comes from.",
        (evaluation.INDICATION,),
    ),
    Profile(
        "itb-care-team",
        "CareTeam",
        "Team of the therapy",
        "The specialties that decided together.",
        (evaluation.TEAM,),
    ),
    Profile(
        "itb-goal",
        "Goal",
        "Goal of the therapy",
        "What the family and the team want to reach.",
        (evaluation.GOAL,),
    ),
    Profile(
        "itb-medicine-tried",
        "MedicationStatement",
        "Medicine tried before",
        "A medicine that was tried before the decision, and what came of it.",
        (evaluation.MEDICINE,),
    ),
    Profile(
        "itb-screening",
        "Observation",
        "Response to a screening bolus",
        "One test dose: whether the child responded, for how long, and the scores over the hours.",
        (screening.RESPONSE,),
        (says("partOf", "bolus", required=True), says("hasMember", "scores")),
    ),
    Profile(
        "itb-screening-bolus",
        "MedicationAdministration",
        "Screening bolus",
        "A single dose into the spinal fluid, before any implant.",
        (screening.BOLUS,),
    ),
    Profile(
        "itb-complication",
        "Condition",
        "Problem of the therapy",
        "Withdrawal, overdose, infection and the other problems of the therapy, with their severity.",
        (complication.PROBLEM,),
    ),
    Profile(
        "itb-assessment",
        "Observation",
        "Assessment",
        "The scores of one visit.",
        (assessment.PANEL,),
        (says("hasMember", "scores", required=True),),
    ),
    Profile(
        "itb-score",
        "Observation",
        "Score",
        "One score of tone, function, pain or a goal. Grades of an ordinal scale are codes, never numbers.",
        (scores.SCORE,),
        (says("code", "scale", scores.SCALE, required=True),),
    ),
    Profile(
        "itb-education",
        "Procedure",
        "Education of patient and family",
        "What was taught, to whom, and whether it was understood.",
        (education.LESSON,),
        (
            says(extension("itb-education-topic", "valueCodeableConcept"), "topics", education.TOPIC),
            says(extension("itb-education-audience", "valueCode"), "audience"),
        ),
    ),
    Profile(
        "itb-oral-baclofen",
        "MedicationRequest",
        "Oral baclofen beside the pump",
        "The oral dose and its taper, in mg: the only doses of this guide that are.",
        (oral_baclofen.ORDER,),
    ),
    Profile(
        "itb-refill-due",
        "Task",
        "Refill due",
        "The day by which the pump must be refilled, and its alarm date.",
        (follow_up.TASK,),
    ),
    Profile(
        "itb-visit",
        "Appointment",
        "Visit",
        "A visit for a refill, a dose change or a check of the pump.",
        (follow_up.VISIT,),
        (says("participant.actor", "patient", PATIENT),),
    ),
    Profile(
        "itb-record",
        "DocumentReference",
        "Record as a document",
        "Any event, for a server that takes no more than documents: a text for people, and the canonical "
        "event, digit for digit.",
        (document.RECORD,),
        tuple(
            says(f"content.{path}", required=path == "attachment")
            for path in (
                "attachment",
                "attachment.contentType",
                "attachment.data",
                "attachment.hash",
                "format",
            )
        ),
    ),
    Profile(
        "itb-charted-refill",
        "Procedure",
        "Refill, charted",
        "A refill for a server that refuses medication administrations.",
        (chart.REFILL,),
    ),
    Profile(
        "itb-charted-dose-change",
        "Procedure",
        "Dose change, charted",
        "A dose change for a server that refuses programs as orders and infusions as administrations.",
        (chart.CHANGE,),
    ),
    Profile(
        "itb-charted-value",
        "Observation",
        "Volume, dose or date, charted",
        "One value of a charted refill or dose change.",
        (chart.OBSERVED,),
        (
            own(chart.KIND),
            says("code", required=True),
            says("partOf"),
            *(says(f"value{type}") for type in ("Quantity", "String", "DateTime", "CodeableConcept")),
        ),
    ),
    Profile(
        "itb-provenance",
        "Provenance",
        "Where a record came from",
        "One for each version of an event: whose record it is, when it was taken in, and the hash of the "
        "event it was made from.",
        (),
        tuple(
            says(path, required=True)
            for path in (
                "occurredDateTime",
                "activity",
                "agent.type",
                "agent.who",
                "entity.role",
                "entity.what",
            )
        ),
    ),
)

EXTENSIONS = {
    "itb-affected-pump": ("Affected pump", "The pump that a problem is about."),
    "itb-bolus-lockout": ("Lockout", "How long the pump refuses the next patient bolus."),
    "itb-bolus-max-per-day": ("Most boluses a day", "How many patient boluses the pump gives in 24 h."),
    "itb-bridge": ("Bridge bolus", "Volume and time of a bridge bolus, or why none was needed."),
    "itb-catheter-dead-space": ("Dead space", "Volume between reservoir outlet and catheter tip."),
    "itb-compounded": ("Compounded", "Whether a pharmacy made the drug, and no manufacturer."),
    "itb-concentration": ("Concentration", "Concentration that the program reckons with, in ug/mL."),
    "itb-daily-dose": (
        "Daily dose",
        "What the program gives in 24 h, in ug/d: the sum of its steps, without patient boluses.",
    ),
    "itb-device-role": ("Role in the operation", "Pump or catheter, and whether it is the old one."),
    "itb-dose-change": ("Dose change", "Dose, mode and program before and after, and the change in percent."),
    "itb-education-audience": ("Audience", "Who was taught."),
    "itb-education-topic": ("Topic", "What was taught."),
    "itb-education-understood": ("Understood", "Whether those who were taught could say it back."),
    "itb-ended-before-error": (
        "End before it was entered in error",
        "When the problem was over, as the record said before it was withdrawn.",
    ),
    "itb-event-version": ("Version of the event", "Counts the corrections of one record, from 1."),
    "itb-hold": ("Hold", "Why the pump was stopped for a while: for MRI, or another reason."),
    "itb-infusion-mode": ("Infusion mode", "How the pump gives: simple, flex, in boluses, or not at all."),
    "itb-lot-volume": ("Volume of a lot", "How much of a fill came from this lot."),
    "itb-prime": ("Priming bolus", "Volume, dose and time of the bolus that fills tubing and catheter."),
    "itb-pump-clock-offset": (
        "Offset of the pump's clock",
        "The UTC offset in which the times of the program's steps are meant.",
    ),
    "itb-refill-detail": (
        "Refill detail",
        "Volumes expected, taken out, thrown away and filled in, and the dates that follow from them.",
    ),
    "itb-status-before-error": (
        "Status before it was entered in error",
        "The status that the record had before it was withdrawn.",
    ),
    "itb-step-number": ("Step", "The number of a flex step in the order of the program."),
    "itb-verifier": ("Verifier", "The second person who checked the record."),
}
"""(title, description) of each extension; where it stands and what it holds comes from the rows."""
MANY = frozenset({"itb-education-topic", "itb-education-audience"})
"""Extensions that may stand more than once."""

VALUE_SETS = {
    "itb-cause": "What spasticity or dystonia comes from",
    "itb-education-topic": "Topics of education",
    "itb-indication": "Indications of intrathecal baclofen",
    "itb-infusion-mode": "Infusion modes of programs and boluses",
    "itb-log-entry": "Entries of a pump's log",
    "itb-operation": "Operations on a pump system",
    "itb-problem": "Problems of the therapy",
    "itb-program-mode": "Infusion modes of programs",
    "itb-pump-alarm": "Alarms of a pump",
    "itb-scale": "Scales of scores",
    "itb-severity": "Severities of problems",
    "itb-visit-purpose": "Purposes of visits",
}
"""Titles; the codes come from the codecs that read and write them."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search parameter that R4 lacks."""

    id: str
    bases: tuple[str, ...]
    type: str
    expression: str
    description: str


_DETAIL = "MedicationAdministration.extension.where(url='{url}').extension.where(url='{part}').value"


def _detail(part_name: str) -> str:
    return _DETAIL.format(url=definition("itb-refill-detail"), part=part_name)


def _mode_of(type: str) -> str:
    return f"{type}.extension.where(url='{definition('itb-infusion-mode')}').value"


SEARCHES = (
    Search("itb-serial", ("Device",), "token", "Device.serialNumber", "Serial number of a pump or catheter"),
    Search(
        "itb-infusion-mode",
        ("MedicationRequest", "MedicationAdministration"),
        "token",
        f"{_mode_of('MedicationRequest')} | {_mode_of('MedicationAdministration')}",
        "Infusion mode of a program, segment or bolus",
    ),
    Search(
        "itb-refill-by",
        ("MedicationAdministration",),
        "date",
        _detail("refillBy"),
        "Day by which the pump must be refilled again",
    ),
    Search(
        "itb-alarm-date",
        ("MedicationAdministration",),
        "date",
        _detail("alarmDate"),
        "Day of the low reservoir alarm after a refill",
    ),
)
