"""The scorecard: what a server gets, before it gets anything."""

from __future__ import annotations

from typing import Any

import pytest

import golden
from fakes import EHRS
from mappings import EVENT_TYPES
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, sender_map
from service.commands.servers import card_lines
from service.sync import capability
from service.sync.scorecard import is_good, message_card, samples, scorecard


def card(name: str, held: Any = None, **options: Any) -> Any:
    matrix = capability.read(loads((EHRS / f"{name}.json").read_bytes()))
    return scorecard(capability.with_options(matrix, options), held)


def test_the_samples_are_the_fullest_golden_event_of_each_type() -> None:
    every = [golden.events(path)[-1] for path in golden.GOLDEN]
    for sample in samples():
        alike = [dumps(e) for e in every if e["type"] == sample["type"] and "status" not in e]
        assert dumps(sample) == max(alike, key=len)
    assert tuple(sample["type"] for sample in samples()) == EVENT_TYPES


def test_hapi_gets_everything_whole() -> None:
    made = card("hapi")
    assert {event["rung"] for event in made["events"]} == {"transaction"}
    assert is_good(made)
    assert made["system"] == {"transaction": True, "batch": False, "history": True, "export": False}


@pytest.mark.parametrize("name", ["epic-like", "oracle-like"])
def test_an_ehr_that_takes_little_loses_nothing_either(name: str) -> None:
    made = card(name)
    assert {event["rung"] for event in made["events"]} == {"single", "chart"}
    assert not any(event["lost"] for event in made["events"])
    assert is_good(made)


def test_a_loss_is_shown_and_is_not_good() -> None:
    made = card("epic-like", refuse_types=["DocumentReference"])
    by_type = {event["type"]: event for event in made["events"]}
    assert by_type["refill"]["lost"] == ["drug.name", "drug.ndc", "drug.compounded"]
    assert by_type["device"]["rung"] == "none"
    assert not is_good(made)
    shown = "\n".join(card_lines(made | {"endpoint": "e", "url": "u", "error": None}))
    assert "LOST: drug.name, drug.ndc, drug.compounded" in shown
    assert "note  by its options: DocumentReference is not written" in shown


def test_the_events_of_the_ledger_count_too() -> None:
    two_lots = golden.events(golden.FIXTURES / "golden/refill/two-lots.event.json")[-1]
    made = card("epic-like", {"refill": [two_lots]}, refuse_types=["DocumentReference"])
    (refill,) = [event for event in made["events"] if event["type"] == "refill"]
    assert refill["judged"] == 2
    assert "drug.other_lots" in refill["lost"]


def test_a_receiver_of_messages_is_judged_by_its_map() -> None:
    good = message_card(SenderMap())
    assert {event["rung"] for event in good["events"]} == {"hl7v2"}
    assert is_good(good)
    assert not is_good(message_card(sender_map({"namespaces": {"X": "another"}})))
    shown = card_lines(good | {"endpoint": "e", "url": "mllp://h:1", "error": None})
    assert shown[0] == "e\tmllp://h:1\tHL7 v2.6"
    assert any("dose-change" in line and "RDE^O11^RDE_O11" in line for line in shown)


def test_the_card_for_people_names_every_type_and_event() -> None:
    text = "\n".join(card_lines(card("oracle-like") | {"endpoint": "e", "url": "u", "error": None}))
    for word in (*EVENT_TYPES, *capability.READ):
        assert f"  {word}" in text
    assert "because Procedure: it can be created and not updated" in text
