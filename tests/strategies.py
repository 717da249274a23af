"""Generated events of every type: clinically possible, in canonical form."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from mappings import load_event

LINE = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn", "Co"]),
    min_size=1,
    max_size=20,
).filter(lambda s: s == s.strip() and not any(c.isspace() and c != " " for c in s))
PROSE = st.lists(LINE, min_size=1, max_size=3).map("\n".join)
SERIAL = st.from_regex(r"[A-Z]{3}[0-9]{6}H", fullmatch=True)
SOURCE = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
SYSTEM = st.sampled_from(
    ["http://hospital.invalid/mrn", "urn:oid:2.16.840.1.113883.4.6", "http://hl7.org/fhir/sid/us-npi"]
)
DAY = st.dates(min_value=date(1990, 1, 1)).map(str)
MOMENT = st.builds(
    lambda t, f, z: f"{t:%Y-%m-%dT%H:%M:%S}{f}{z}",
    st.datetimes(min_value=datetime(1990, 1, 1)).map(lambda t: t.replace(microsecond=0)),
    st.sampled_from(["", ".5", ".120", ".000000"]),
    st.sampled_from(["Z", "+00:00", "-06:00", "-05:00", "+05:30", "+14:00"]),
)


def decimals(least: str, most: str) -> st.SearchStrategy[Decimal]:
    """Decimals with trailing zeros and up to four places."""
    low, high = Decimal(least), Decimal(most)
    fewest = max(0, -int(low.as_tuple().exponent))

    def scaled(places: int) -> st.SearchStrategy[Decimal]:
        whole = st.integers(int(low.scaleb(places)), int(high.scaleb(places)))
        return whole.map(lambda n: Decimal(n).scaleb(-places))

    return st.integers(fewest, fewest + 3).flatmap(scaled)


def quantity(unit: str, least: str = "0", most: str = "40") -> st.SearchStrategy[dict[str, Any]]:
    """A quantity in canonical form."""
    return decimals(least, most).map(lambda d: {"value": d, "unit": unit})


def fields(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


BUSINESS_ID = fields({"system": SYSTEM, "value": LINE}, {})
PERSON = st.one_of(
    BUSINESS_ID, fields({"name": LINE}, {}), fields({"system": SYSTEM, "value": LINE, "name": LINE}, {})
)
SPAN = st.builds(lambda d, u: {"value": d, "unit": u}, decimals("1", "20"), st.sampled_from(["h", "min"]))
BRIDGE = st.one_of(
    fields({"volume": quantity("mL", "0.1", "2")}, {"duration": SPAN, "ends_at": MOMENT}),
    fields({"not_required": PROSE}, {}),
)
STATUS = st.just("entered-in-error")
VERSION = st.integers(2, 99)


def _envelope(type: str, *, pump: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    required = {
        "type": st.just(type),
        "source": SOURCE,
        "id": LINE,
        "patient": BUSINESS_ID,
        "occurred_at": MOMENT,
    }
    if pump:
        required["pump"] = SERIAL
    return required, {
        "version": VERSION,
        "status": STATUS,
        "performer": PERSON,
        "verifier": PERSON,
        "note": PROSE,
    }


@st.composite
def flex(draw: st.DrawFn) -> dict[str, Any]:
    """A flex program whose steps tile the day and add up to the daily dose."""
    cuts = sorted(draw(st.sets(st.integers(0, 23), min_size=1, max_size=5)))
    lengths = [(b - a) for a, b in zip(cuts, [*cuts[1:], cuts[0] + 24], strict=True)]
    doses = [draw(decimals("5", "100")) for _ in cuts]
    steps = [
        {
            "start": f"{start:02}:00",
            "duration": {"value": Decimal(hours), "unit": "h"},
            "dose": {"value": dose, "unit": "ug"},
        }
        for start, hours, dose in zip(cuts, lengths, doses, strict=True)
    ]
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    if draw(st.booleans()):
        steps = [{**step, "days": days} for step in steps]
    return {"mode": "flex", "daily_dose": {"value": sum(doses, Decimal(0)), "unit": "ug/d"}, "steps": steps}


PATIENT_BOLUS = fields(
    {"dose": quantity("ug", "1", "50")},
    {"duration": SPAN, "lockout": SPAN, "max_per_day": st.integers(1, 20)},
)
PERIODIC = fields({"dose": quantity("ug", "1", "50"), "interval": SPAN}, {"duration": SPAN})


@st.composite
def program(draw: st.DrawFn) -> dict[str, Any]:
    """Any program."""
    mode = draw(st.sampled_from(["simple", "flex", "periodic-bolus", "minimum-rate", "stopped"]))
    made: dict[str, Any] = {"mode": mode}
    if mode == "flex":
        made = draw(flex())
    elif mode != "stopped":
        made["daily_dose"] = draw(quantity("ug/d", "100", "800"))
    if mode == "periodic-bolus":
        made["periodic_bolus"] = draw(PERIODIC)
    if mode != "stopped" or draw(st.booleans()):
        made["concentration"] = draw(quantity("ug/mL", "50", "4000"))
    if draw(st.booleans()):
        made["patient_bolus"] = draw(PATIENT_BOLUS)
    return made


DRUG = fields(
    {
        "concentration": quantity("ug/mL", "50", "4000"),
        "lot": LINE,
        "expires_on": st.one_of(DAY, DAY.map(lambda d: d[:7])),
    },
    {
        "name": st.sampled_from(["baclofen", "Lioresal 2000 mcg/mL", "Gablofen"]),
        "ndc": st.sampled_from(["70121-2503-01", "66794-157-01"]),
        "compounded": st.booleans(),
        "other_lots": st.lists(
            fields(
                {
                    "lot": LINE,
                    "expires_on": DAY,
                    "volume": st.just({"value": Decimal("0.010"), "unit": "mL"}),
                },
                {},
            ),
            min_size=1,
            max_size=11,
        ),
    },
)


def _loaded(raw: dict[str, Any]) -> dict[str, Any]:
    for earlier, later in (("started_at", "occurred_at"), ("implanted_on", "explanted_on")):
        if earlier in raw and later in raw:
            raw = raw | {earlier: raw[later]}
    if "ends_at" in raw.get("bridge", {}):
        raw = raw | {"bridge": raw["bridge"] | {"ends_at": raw["occurred_at"]}}
    return load_event(raw)


def _refills() -> st.SearchStrategy[dict[str, Any]]:
    required, optional = _envelope("refill", pump=True)
    volume = quantity("mL")
    return fields(
        required | {"drug": DRUG, "volume_instilled": quantity("mL", "1")},
        optional
        | dict.fromkeys(("volume_expected", "volume_removed", "volume_discarded", "low_alarm_volume"), volume)
        | {"alarm_on": DAY, "refill_by": DAY, "needle_passes": st.integers(1, 9), "started_at": MOMENT}
        | {"bridge": BRIDGE, "stopped_because": PROSE},
    ).map(_loaded)


def _devices() -> st.SearchStrategy[dict[str, Any]]:
    required, optional = _envelope("device", pump=False)
    optional |= {
        "manufacturer": LINE,
        "model": LINE,
        "lot": LINE,
        "udi": fields(
            {"di": LINE}, {"carrier": st.sampled_from(["(01)00812345678901(21)IP2", "+X1", "other"])}
        ),
        "device_status": st.sampled_from(["active", "inactive"]),
        "implanted_on": DAY,
        "explanted_on": DAY,
    }
    pump = fields(
        required | {"kind": st.just("pump"), "serial": SERIAL},
        optional | {"reservoir_capacity": quantity("mL", "10", "40")},
    )
    catheter = fields(
        required | {"kind": st.just("catheter")},
        optional
        | {"serial": SERIAL, "parent": SERIAL, "tip_level": LINE}
        | {
            "implanted_length": quantity("cm", "1", "110"),
            "volume_per_length": quantity("mL/cm", "0.001", "0.01"),
        },
    )
    return st.one_of(pump, catheter).map(_loaded)


def similar(event: dict[str, Any]) -> bool:
    """Whether the dose changes by less than ten times, as U2 has it."""
    old = event.get("before", {}).get("daily_dose", {}).get("value")
    new = event["after"].get("daily_dose", {}).get("value")
    return not old or not new or max(old, new) < 10 * min(old, new)


def _dose_changes() -> st.SearchStrategy[dict[str, Any]]:
    required, optional = _envelope("dose-change", pump=True)
    return (
        fields(
            required | {"after": program()},
            optional | {"before": program(), "reason": PROSE, "bridge": BRIDGE},
        )
        .filter(similar)
        .map(lambda raw: raw | ({"hold": "mri"} if raw["after"]["mode"] == "stopped" else {}))
        .map(_loaded)
    )


def _tidied(raw: dict[str, Any]) -> dict[str, Any]:
    """A time that must not lie before another is set equal to it."""
    for earlier, later in (("occurred_at", "ended_at"), ("starts_at", "ends_at")):
        if earlier in raw and later in raw:
            raw = raw | {later: raw[earlier]}
    return _loaded(raw)


SIDE = st.sampled_from(["left", "right"])
MUSCLE = st.sampled_from(["hip adductors", "hamstrings", "gastrocnemius", "biceps"])
SCORE = st.one_of(
    fields(
        {
            "scale": st.just("mas"),
            "muscle": MUSCLE,
            "grade": st.sampled_from(["0", "1", "1+", "2", "3", "4"]),
        },
        {"side": SIDE, "scored_at": MOMENT},
    ),
    fields(
        {"scale": st.just("gmfcs"), "grade": st.sampled_from(["I", "II", "III", "IV", "V"])},
        {"scored_at": MOMENT},
    ),
    fields({"scale": st.just("bad"), "score": st.integers(0, 32)}, {"scored_at": MOMENT}),
    fields({"scale": st.just("pain"), "score": st.integers(0, 10)}, {"scored_at": MOMENT}),
    fields({"scale": st.just("gas"), "score": st.integers(-2, 2)}, {"goal": LINE, "scored_at": MOMENT}),
)
SCORES = st.lists(SCORE, min_size=1, max_size=4)


def _event(
    type: str, required: dict[str, Any], optional: dict[str, Any], *, pump: bool = False
) -> st.SearchStrategy[dict[str, Any]]:
    shared, more = _envelope(type, pump=pump)
    return fields(shared | required, more | optional).map(_tidied)


def _evaluations() -> st.SearchStrategy[dict[str, Any]]:
    indication = fields(
        {"kind": st.sampled_from(["spasticity", "dystonia"])},
        {
            "cause": st.sampled_from(
                ["cerebral-palsy", "spinal-cord-injury", "multiple-sclerosis", "stroke"]
            ),
            "onset_on": st.one_of(DAY, DAY.map(lambda d: d[:7])),
            "description": PROSE,
        },
    )
    member = st.builds(lambda role, who: {"role": role, **who}, LINE, PERSON)
    goal = fields(
        {"description": LINE, "state": st.sampled_from(["proposed", "active", "completed"])}, {"due_on": DAY}
    )
    medicine = fields(
        {"name": LINE, "state": st.sampled_from(["current", "past"])}, {"dose": LINE, "result": PROSE}
    )
    return _event(
        "evaluation",
        {"indication": indication},
        {
            "team": st.lists(member, min_size=1, max_size=3),
            "goals": st.lists(goal, min_size=1, max_size=12),
            "medicines_tried": st.lists(medicine, min_size=1, max_size=3),
            "summary": PROSE,
        },
    )


def _screenings() -> st.SearchStrategy[dict[str, Any]]:
    drug = fields(
        {"concentration": st.just({"value": Decimal("50"), "unit": "ug/mL"})},
        {"name": LINE, "ndc": st.just("70121-2496-05"), "lot": LINE, "expires_on": DAY},
    )
    return _event(
        "screening",
        {"bolus": quantity("ug", "25", "100")},
        {
            "drug": drug,
            "site": LINE,
            "responder": st.booleans(),
            "effect_duration": SPAN,
            "recommended_daily_dose": quantity("ug/d", "50", "200"),
            "adverse_effects": PROSE,
            "scores": SCORES,
        },
    )


def _procedures() -> st.SearchStrategy[dict[str, Any]]:
    shared = {
        "started_at": MOMENT,
        "site": LINE,
        "reason": PROSE,
        "dead_space": quantity("mL", "0.1", "1"),
        "prime": fields(
            {"volume": quantity("mL", "0.1", "1")}, {"dose": quantity("ug", "1", "500"), "duration": SPAN}
        ),
    }
    old = SERIAL.map(lambda s: f"old-{s}")
    cases = {
        "implant": ({}, {"catheter": SERIAL}),
        "revision": ({}, {"catheter": SERIAL, "old_catheter": old}),
        "replacement": ({"old_pump": old}, {"catheter": SERIAL, "old_catheter": old}),
        "explant": ({}, {"catheter": SERIAL}),
    }
    return st.one_of(
        *(
            _event("procedure", {"action": st.just(action), **required}, {**shared, **optional}, pump=True)
            for action, (required, optional) in cases.items()
        )
    )


def _interrogations() -> st.SearchStrategy[dict[str, Any]]:
    count = st.integers(0, 100)
    entry = fields(
        {"entry": st.sampled_from(["motor-stall", "motor-stall-recovery", "eri"]), "at": MOMENT}, {}
    )
    return _event(
        "interrogation",
        {"reservoir_volume": quantity("mL")},
        {
            "low_alarm_volume": quantity("mL"),
            "alarm_on": DAY,
            "daily_dose": quantity("ug/d", "24", "1000"),
            "concentration": quantity("ug/mL", "500", "2000"),
            "mode": st.sampled_from(["simple", "flex", "stopped"]),
            "eri_months": st.integers(0, 84),
            "eri_on": st.one_of(DAY, DAY.map(lambda d: d[:7])),
            "pump_clock": MOMENT,
            "patient_boluses": st.one_of(
                fields({"requested": count}, {"delivered": count, "denied": count}),
                fields({"delivered": count}, {"denied": count}),
            ),
            "log": st.lists(entry, min_size=1, max_size=4),
            "programmer": LINE,
        },
        pump=True,
    )


def _follow_ups() -> st.SearchStrategy[dict[str, Any]]:
    due = _event(
        "follow-up",
        {
            "kind": st.just("refill-due"),
            "state": st.sampled_from(["due", "done", "cancelled"]),
            "due_on": DAY,
        },
        {"alarm_on": DAY, "reason": PROSE},
        pump=True,
    )
    visit = _event(
        "follow-up",
        {
            "kind": st.just("visit"),
            "state": st.sampled_from(["proposed", "booked", "done", "cancelled", "missed"]),
            "purpose": st.sampled_from(["refill-visit", "annual-review"]),
            "starts_at": MOMENT,
            "ends_at": MOMENT,
        },
        {"reason": PROSE},
        pump=True,
    )
    return st.one_of(due, visit)


@st.composite
def _oral_steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    days = sorted(draw(st.lists(DAY, min_size=1, max_size=5)))
    return [
        draw(
            fields(
                {
                    "dose": quantity("mg", "0", "25"),
                    "times_per_day": st.integers(1, 4),
                    "starts_on": st.just(day),
                },
                {"ends_on": st.just(day)},
            )
        )
        for day in days
    ]


EVENTS = {
    "device": _devices(),
    "refill": _refills(),
    "dose-change": _dose_changes(),
    "evaluation": _evaluations(),
    "screening": _screenings(),
    "procedure": _procedures(),
    "interrogation": _interrogations(),
    "alarm": _event(
        "alarm",
        {"alarm": st.sampled_from(["low-reservoir", "eri", "motor-stall"])},
        {"ended_at": MOMENT},
        pump=True,
    ),
    "complication": _event(
        "complication",
        {"problem": st.sampled_from(["withdrawal", "infection", "catheter-problem"])},
        {"severity": st.sampled_from(["mild", "severe"]), "ended_at": MOMENT, "signs": PROSE},
        pump=True,
    ),
    "assessment": _event("assessment", {"scores": SCORES}, {}),
    "education": _event(
        "education",
        {"topics": st.lists(st.sampled_from(["alarms", "mri", "refills"]), min_size=1, unique=True)},
        {
            "audience": st.lists(st.sampled_from(["patient", "family"]), min_size=1, unique=True),
            "material": LINE,
            "understood": st.booleans(),
        },
    ),
    "oral-baclofen": _event("oral-baclofen", {"steps": _oral_steps()}, {"ended_on": DAY, "reason": PROSE}),
    "follow-up": _follow_ups(),
}
ANY_EVENT = st.one_of(*EVENTS.values())
