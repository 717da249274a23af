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
SYSTEM = st.sampled_from(["http://hospital.invalid/mrn", "urn:oid:1.2.3", "http://hl7.org/fhir/sid/us-npi"])
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
        required | {"drug": DRUG, "volume_instilled": volume},
        optional
        | dict.fromkeys(("volume_expected", "volume_removed", "volume_discarded", "low_alarm_volume"), volume)
        | {"alarm_on": DAY, "refill_by": DAY, "needle_passes": st.integers(1, 9), "started_at": MOMENT}
        | {"bridge": BRIDGE},
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


def _similar(event: dict[str, Any]) -> bool:
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
        .filter(_similar)
        .map(_loaded)
    )


EVENTS = {"device": _devices(), "refill": _refills(), "dose-change": _dose_changes()}
ANY_EVENT = st.one_of(*EVENTS.values())
