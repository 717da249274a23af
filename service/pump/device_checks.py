"""What a person should look at in the pump itself: its service life, its log, its clock, its record.

One function a rule, in the table of `checks`. docs/clinical.md, "Rules" and "Service life".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from mappings.envelope import Event, occurred
from mappings.fields import instant

from .reservoir import months_later
from .service_life import first_day
from .state import CRITICAL, WARNING, OpenIssue
from .view import View

CLOSED_BY = {
    "motor-stall": ("motor-stall-recovery",),
    "telemetry-mode-stall": ("motor-stall-recovery", "therapy-start", "interrogation"),
    "stopped-pump": ("therapy-start", "dose-change"),
    "pump-reset": ("dose-change",),
    "safe-state": ("dose-change",),
    "critical-memory-error": ("dose-change",),
    "empty-reservoir": ("refill",),
}
"""Critical entries of a log, and the later entry or record that ends each of them; a design choice."""


def service_ends(view: View) -> Iterator[OpenIssue]:
    """P1: the end of service, the replacement indicator, or the time to plan for it, whichever is worst."""
    life, today = view.life, view.state.at.date()
    if not view.state.in_use:
        return
    if life.eos is not None and (life.ended or today >= life.eos[0]):
        words = "reported its end of service on" if life.ended else "is at its end of service since"
        yield OpenIssue(
            "P1", CRITICAL, f"the pump {words} {life.eos[0]}: it stops", f"{today} >= {life.eos[0]}"
        )
        return
    if life.eri is not None and (life.indicated or today >= life.eri[0]):
        ends = f", its service ends on {life.eos[0]} at the latest" if life.eos is not None else ""
        yield OpenIssue(
            "P1",
            WARNING,
            f"the pump asks for its replacement since {life.eri[0]}{ends}",
            f"{today} >= {life.eri[0]}",
        )
        return
    if life.eri is not None and life.plan_by is not None and today >= life.plan_by:
        yield OpenIssue(
            "P1",
            WARNING,
            f"the replacement of the pump is due on {life.eri[0]} and to be booked by {life.plan_by}",
            f"{today} >= {life.plan_by}",
        )
        return
    yield from _old(view, today)


def _old(view: View, today: date) -> Iterator[OpenIssue]:
    implanted = (view.state.device or {}).get("implanted_on")
    if view.model is None or view.model.planning_years is None or implanted is None:
        return
    years = view.model.planning_years
    since = months_later(date.fromisoformat(implanted), 12 * years)
    if since is not None and today >= since:
        yield OpenIssue(
            "P1",
            WARNING,
            f"the pump was implanted on {implanted}, {years} years ago or more: a {view.model.name} is "
            "replaced about then",
            f"{today} >= {implanted} + {years} years = {since}",
        )


def log_is_critical(view: View) -> Iterator[OpenIssue]:
    """P2: a critical alarm or log entry that nothing later has ended; EOS is P1's."""
    found: dict[str, tuple[datetime, Event]] = {}
    for name, at, event in _entries(view):
        if name in CLOSED_BY and not _closed(view, name, at, event):
            found[name] = (at, event)
    for name, (at, _) in found.items():
        ends = " or ".join(CLOSED_BY[name])
        yield OpenIssue(
            "P2",
            CRITICAL,
            f"the pump reported {name} at {at.isoformat()}, and nothing on record ended it",
            f"no {ends} after {at.isoformat()}",
        )


def _entries(view: View) -> Iterator[tuple[str, datetime, Event]]:
    for event in view.of_type("interrogation"):
        for entry in event.get("log", ()):
            yield entry["entry"], instant(entry["at"]), event
    for event in view.of_type("alarm"):
        if "ended_at" not in event or instant(event["ended_at"]) > view.state.at:
            yield event["alarm"], occurred(event), event


def _closed(view: View, name: str, at: datetime, told: Event) -> bool:
    ends = CLOSED_BY[name]
    if any(entry in ends and when >= at for entry, when, _ in _entries(view)):
        return True
    for event in view.of_type(*(end for end in ends if end in ("refill", "dose-change", "interrogation"))):
        gives = event["type"] != "dose-change" or event["after"]["mode"] != "stopped"
        if gives and event is not told and occurred(event) >= max(at, occurred(told)):
            return True
    return False


def stopped_for_long(view: View) -> Iterator[OpenIssue]:
    """P2: the program has been stopped for longer than the pump bears without a critical alarm."""
    event = view.run.programming
    if event is None or event["after"]["mode"] != "stopped" or not view.state.in_use:
        return
    hours = view.thresholds.stopped_hours
    since = _stopped_since(view)
    if view.state.at - since > timedelta(hours=hours):
        gone = (view.state.at - since) // timedelta(hours=1)
        yield OpenIssue(
            "P2",
            CRITICAL,
            f"the pump is stopped since {since.isoformat()}, more than {hours} h",
            f"{view.state.at.isoformat(timespec='seconds')} - {since.isoformat()} = {gone} h > {hours} h",
        )


def _stopped_since(view: View) -> datetime:
    since = view.state.at
    for event in reversed(view.of_type("dose-change")):
        if event["after"]["mode"] != "stopped":
            break
        since = occurred(event)
    return since


def scan_without_reading(view: View) -> Iterator[OpenIssue]:
    """P3: after a scan nobody has interrogated the pump: it may still be stopped."""
    readings = [occurred(e) for e in view.of_type("interrogation")]
    holds = [e for e in view.of_type("dose-change") if e.get("hold") == "mri"]
    if holds and holds[-1] is not view.run.programming and not _after(readings, occurred(holds[-1])):
        yield _unread(WARNING, "stopped for a scan", holds[-1])
    effects = [e for e in view.of_type("complication") if e["problem"] == "mri-effect"]
    if effects and "ended_at" not in effects[-1] and not _after(readings, occurred(effects[-1])):
        yield _unread(CRITICAL, "affected by a scan", effects[-1])


def _after(readings: list[datetime], moment: datetime) -> bool:
    return any(reading > moment for reading in readings)


def _unread(severity: str, what: str, event: Event) -> OpenIssue:
    at = event["occurred_at"]
    return OpenIssue(
        "P3",
        severity,
        f"the pump was {what} at {at} and is not interrogated since: a rotor that stopped in the magnet can "
        "stay stopped until then",
        f"no interrogation after {at}",
    )


def full_before_scan(view: View) -> Iterator[OpenIssue]:
    """P3: a model that must be emptied before a scan is on hold for one, and no emptying is recorded."""
    hold = view.run.programming
    if view.model is None or not view.model.empty_before_mri or hold is None or hold.get("hold") != "mri":
        return
    fills = [e for e in view.of_type("refill") if occurred(e) <= occurred(hold)]
    if fills and fills[-1]["volume_instilled"]["value"]:
        filled = fills[-1]
        yield OpenIssue(
            "P3",
            CRITICAL,
            f"the pump is on hold for a scan since {hold['occurred_at']}; a {view.model.name} must be "
            "emptied before, and no emptying is recorded",
            f"last filled {filled['occurred_at']} with {filled['volume_instilled']['value']} mL",
        )


def clock_is_off(view: View) -> Iterator[OpenIssue]:
    """I1: the pump's clock differs from the time of its reading, and was not set since."""
    read = [e for e in view.of_type("interrogation") if "pump_clock" in e]
    if not read:
        return
    program = view.run.programming
    if program is not None and occurred(program) >= occurred(read[-1]):
        return
    skew = instant(read[-1]["pump_clock"]) - occurred(read[-1])
    if abs(skew) > timedelta(minutes=view.thresholds.clock_skew_minutes):
        minutes = skew // timedelta(minutes=1)
        yield OpenIssue(
            "I1",
            WARNING,
            f"the pump's clock said {read[-1]['pump_clock']} at {read[-1]['occurred_at']}: steps and log "
            "entries are at other times",
            f"{minutes:+} min, more than {view.thresholds.clock_skew_minutes}",
        )


def outside_its_use(view: View) -> Iterator[OpenIssue]:
    """P4: a record of a pump before it was implanted or after it was taken out."""
    device = view.state.device or {}
    begins, ends = device.get("implanted_on"), _taken_out(view, device)
    for event in view.of_type("refill", "dose-change", "interrogation"):
        day = occurred(event).date().isoformat()
        if begins is not None and day < begins:
            yield _outside(event, day, "before the pump was implanted", f"{day} < {begins}")
        elif ends is not None and day > ends:
            yield _outside(event, day, "after the pump was taken out", f"{day} > {ends}")


def _taken_out(view: View, device: Any) -> str | None:
    days = [str(device["explanted_on"])] if "explanted_on" in device else []
    for event in view.of_type("procedure"):
        if event["action"] == "explant" or event.get("old_pump") == view.state.pump:
            days.append(occurred(event).date().isoformat())
    return min(days, default=None)


def _outside(event: Event, day: str, when: str, sum: str) -> OpenIssue:
    record = f"{event['type']} {event['source']}/{event['id']}"
    return OpenIssue("P4", WARNING, f"the {record} of {day} is {when}: a wrong pump or a wrong date", sum)


def second_pump(view: View) -> Iterator[OpenIssue]:
    """P4: another pump of the patient is on record as in use."""
    others = [serial for serial, in_use in view.other_pumps if in_use]
    if view.state.in_use and others:
        number = len(others) + 1
        why = f"the patient has {number} pumps in use: also {', '.join(others)}"
        yield OpenIssue("P4", WARNING, why, f"{number} > 1")


def too_soon_after_injury(view: View) -> Iterator[OpenIssue]:
    """K1: an implant less than a year after a brain injury."""
    implanted = (view.state.device or {}).get("implanted_on")
    known = [e["indication"] for e in view.of_type("evaluation")]
    if implanted is None or not known or known[-1].get("cause") != "traumatic-brain-injury":
        return
    if "onset_on" not in known[-1]:
        return
    injured, years = known[-1]["onset_on"], view.thresholds.injury_years
    free = months_later(first_day(injured), 12 * years)
    if free is not None and implanted < free.isoformat():
        yield OpenIssue(
            "K1",
            WARNING,
            f"the pump was implanted on {implanted}, the brain injury was on {injured}: not yet {years} year "
            "earlier",
            f"{implanted} < {injured} + {years} year = {free}",
        )


def implanted_with_infection(view: View) -> Iterator[OpenIssue]:
    """K1: an infection that had begun before the pump was implanted and had not ended."""
    implanted = (view.state.device or {}).get("implanted_on")
    if implanted is None:
        return
    for event in view.of_type("complication"):
        began = occurred(event).date().isoformat()
        ended = instant(event["ended_at"]).date().isoformat() if "ended_at" in event else None
        if event["problem"] == "infection" and began < implanted and (ended is None or ended >= implanted):
            yield OpenIssue(
                "K1",
                WARNING,
                f"the pump was implanted on {implanted} during the infection of {began}",
                f"{began} < {implanted} <= {ended or 'not ended'}",
            )
