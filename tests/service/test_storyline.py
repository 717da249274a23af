"""The storylines, against numbers that were worked out apart from the code (fixtures/storyline)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mappings import load_event
from mappings.exact_json import dumps, loads
from service.pump.ledger import pump_state, to_json
from service.pump.reservoir import percent_change, rounded

STORIES = Path(__file__).resolve().parents[2] / "fixtures" / "storyline"
NAMES = ("girl-9y", "prometra", "forty-ml")


def story(name: str) -> tuple[list[Any], Any]:
    """(events, expected)."""
    lines = (STORIES / f"{name}.ndjson").read_bytes().splitlines()
    return [load_event(loads(line)) for line in lines], json.loads(
        (STORIES / f"{name}.expected.json").read_text()
    )


def utc(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_canonical(name: str) -> None:
    for line in (STORIES / f"{name}.ndjson").read_bytes().splitlines():
        assert dumps(load_event(loads(line))) == line


@pytest.mark.parametrize("name", NAMES)
def test_every_state_has_the_expected_numbers(name: str) -> None:
    events, expected = story(name)
    assert len(expected["states"]) == len({e["occurred_at"] for e in events if e["type"] != "device"})
    for row in expected["states"]:
        state = pump_state(events, datetime.fromisoformat(row["at"]))
        found = {
            "daily_dose": state.daily_dose,
            "concentration": state.concentration,
            "flow_rate": state.flow_rate,
            "volume_after": state.reservoir_volume,
        }
        assert found == {key: Decimal(row[key]) for key in found}, row["event"]
        dates = {
            "alarm_at": utc(state.alarm_at),
            "empty_at": utc(state.empty_at),
            "stability_on": str(state.stability_on),
            "refill_by": str(state.refill_by),
            "refill_by_decided_by": state.refill_by_decided_by,
        }
        assert dates == {key: row[key] for key in dates}, row["event"]


@pytest.mark.parametrize("name", NAMES)
def test_every_refill_finds_the_expected_residual(name: str) -> None:
    events, expected = story(name)
    for row in expected["refills"]:
        found = pump_state(events, datetime.fromisoformat(row["at"])).last_refill
        assert found is not None
        for key in ("expected_residual", "actual_residual", "discrepancy", "delivery_ratio"):
            assert getattr(found, key) == Decimal(row[key])


@pytest.mark.parametrize("name", NAMES)
def test_the_volume_before_each_visit_is_the_volume_just_before_it(name: str) -> None:
    events, expected = story(name)
    for row in expected["states"][1:]:
        visit = datetime.fromisoformat(row["at"])
        earlier = [e for e in events if datetime.fromisoformat(e["occurred_at"]) < visit]
        assert pump_state(earlier, visit).reservoir_volume == Decimal(row["volume_before"])


@pytest.mark.parametrize("name", NAMES)
def test_the_path_and_the_open_issues(name: str) -> None:
    events, expected = story(name)
    state = pump_state(events, datetime.fromisoformat(events[-1]["occurred_at"]))
    path = expected["path_volume"]
    assert state.pump == expected["pump"]
    assert state.path_volume == (Decimal(path) if path else None)
    assert [issue.rule for issue in state.open_issues] == expected["open_issues_at_end"]


def test_the_bridge_of_the_girl() -> None:
    events, expected = story("girl-9y")
    wanted = expected["bridge"]
    bridge = pump_state(events, datetime.fromisoformat("2025-04-02T09:00:00-05:00")).bridge
    assert bridge is not None and bridge.running
    assert bridge.volume == Decimal(wanted["volume"])
    assert bridge.flow_rate == Decimal(wanted["flow_rate"])
    assert bridge.duration == Decimal(wanted["duration_h"])
    assert bridge.drug == Decimal(wanted["drug"])
    assert utc(bridge.ends_at) == wanted["ends_at"]


def test_the_percent_changes_of_the_girl() -> None:
    events, expected = story("girl-9y")
    changes = [e for e in events if e["type"] == "dose-change" and "before" in e]
    found = [
        str(rounded(percent_change(*(e[side]["daily_dose"]["value"] for side in ("before", "after"))), 1))
        for e in changes
    ]
    assert found == [row["percent_change"] for row in expected["states"] if row.get("percent_change")]


def test_a_date_worked_out_at_implant_would_miss_a_dry_pump_by_four_weeks() -> None:
    events, _ = story("girl-9y")
    first = pump_state(events, datetime.fromisoformat("2025-02-03T12:00:00-06:00"))
    later = pump_state(events, datetime.fromisoformat("2025-03-10T10:00:00-05:00"))
    assert first.alarm_at and later.alarm_at
    assert (first.alarm_at - later.alarm_at).days == 28


def test_the_state_as_json_names_its_units_and_how_values_came_about() -> None:
    events, _ = story("girl-9y")
    shown = to_json(pump_state(events, datetime.fromisoformat("2025-04-01T15:00:00+00:00")))
    assert shown["label"] == "informational, not for dosing decisions"
    assert shown["reservoir_volume"] == {"value": Decimal("20.0000"), "unit": "mL"}
    assert shown["concentration"] == {"value": Decimal(2000), "unit": "ug/mL"}
    assert shown["alarm_at"] == "2025-10-21T01:37:14-05:00"
    assert shown["refill_by"] == "2025-09-28"
    assert shown["bridge"]["ends_at"] == "2025-04-02T10:30:26-05:00"
    assert "175 mcg/day / 2000 mcg/mL" in shown["derivation"]["flow_rate"]
    assert loads(dumps(shown))["reservoir_volume"]["value"] == Decimal("20.0000")
    derived = (
        "path_volume flow_rate daily_dose concentration reservoir_volume alarm_at empty_at stability_on "
        "refill_by bridge last_refill"
    )
    assert set(derived.split()) <= shown["derivation"].keys()
