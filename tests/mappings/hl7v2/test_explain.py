"""Each field of an event that a message told says where it stood there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings

import golden
from mappings.hl7v2 import SenderMap, parse, read, write
from mappings.hl7v2.convert import Came
from mappings.hl7v2.explain import CONVERTED, Told, shown, told
from mappings.hl7v2.leaves import flat
from mappings.hl7v2.message import Message
from strategies import ANY_EVENT

ROOT = Path(__file__).resolve().parents[3]
BY_OTHER_MEANS = {"status", "kind", "version"}
"""Fields that may follow from a code of the message as a whole, and not from a row."""


def origins(message: Message) -> tuple[Any, list[Told]]:
    came: list[Came] = []
    (event,) = read(message, SenderMap(), came).events
    return event, told(event, came[0], message.separators)


@settings(max_examples=150, deadline=None)
@given(ANY_EVENT)
def test_each_field_of_an_event_has_a_place_that_holds_it(event: Any) -> None:
    message = write(event)
    read_back, places = origins(message)
    assert read_back == event
    fields = {pattern.replace("[]", f"[{at}]") for pattern, at in flat(event)}
    assert fields - {one.field for one in places} <= BY_OTHER_MEANS
    for one in places:
        name, number, first = re.fullmatch(r"(\w+)\[(\d+)\]-(\d+)(?:,\d+)*", one.place).groups()  # type: ignore[union-attr]
        segment = [s for s in message.segments if s[0] == name][int(number) - 1]
        assert one.texts[0] in segment[int(first)]
        assert (ROOT / one.rule).is_file()


def test_a_number_is_copied_and_a_time_converted() -> None:
    data = (golden.FIXTURES / "golden/dose-change/flex-with-bridge.hl7").read_bytes()
    _, places = origins(parse(data))
    found = {one.field: one for one in places}
    assert (found["after.steps[2].dose"].place, found["after.steps[2].dose"].how) == ("TQ1[3]-2", "copied")
    assert (found["occurred_at"].place, found["occurred_at"].how) == ("TQ1[1]-7", CONVERTED)
    assert (found["bridge.volume"].place, found["bridge.volume"].rule) == (
        "OBX[8]-5",
        "mappings/hl7v2/observed.py",
    )


def test_an_element_names_the_places_of_its_fields() -> None:
    data = (golden.FIXTURES / "golden/dose-change/flex-with-bridge.hl7").read_bytes()
    (explained,), reading = shown(parse(data), SenderMap())
    assert not reading.errors
    elements = {(e["resource"].split()[0], e["path"]): e["hl7"] for e in explained["elements"]}
    (daily,) = elements["MedicationRequest", "extension[2].valueQuantity.value"]
    assert (daily["field"], daily["place"]) == ("after.daily_dose", "RXE[1]-23,24")
    assert daily["text"] == ["180", "ug/d^ug/d^UCUM"]
    assert elements["MedicationRequest", "resourceType"] == []
