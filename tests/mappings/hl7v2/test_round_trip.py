"""An event goes into a message and comes out of it the same, whatever its type; so does the message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden
import strategies
from mappings import from_fhir
from mappings.event import EVENT_TYPES
from mappings.hl7v2 import SenderMap, dump, parse, read, sender_map, write
from mappings.hl7v2.catalogue import MAPS, map_for
from mappings.hl7v2.leaves import flat, leaves_of, unflat
from mappings.rows import MappingError
from mappings.stream import Converter

Event = dict[str, Any]
EVENTS = st.one_of(*strategies.EVENTS.values())
CASES = {golden.case(path): path for path in golden.GOLDEN}
OTHERS = {"dose-change": ("RDE^O11", "ORU^R42", "ORU^R01"), "refill": ("RAS^O17", "ORU^R01")}
THEIRS = sender_map(
    {
        "authorities": {"HOSP": "http://hospital.invalid/mrn", "NPI": "http://hl7.org/fhir/sid/us-npi"},
        "observations": {"VOL^EPIC": "reservoir_volume", "RESID^EPIC": "volume_removed"},
        "codes": {"S^EPIC": "simple", "RES^EPIC": "pump-reservoir"},
        "version": "2.8",
    }
)

ABROAD = sender_map({"write_zone": "Pacific/Auckland"})


def back(message: bytes, sender: SenderMap) -> Event:
    reading = read(parse(message), sender)
    assert reading.errors == []
    assert reading.notes == []
    (event,) = reading.events
    return event


def check(event: Event, sender: SenderMap, message: str = "") -> None:
    written = dump(write(event, sender, message=message))
    found = back(written, sender)
    assert found == event
    assert str(found) == str(event)  # digit for digit, in canonical order
    assert dump(write(found, sender, message=message)) == written


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS, st.sampled_from([SenderMap(), THEIRS]))
def test_any_event_survives_its_message(event: Event, sender: SenderMap) -> None:
    check(event, sender)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS, st.data())
def test_times_by_another_zones_clocks_are_still_the_event(event: Event, data: st.DataObject) -> None:
    names = OTHERS.get(event["type"], ("ORU^R01",))
    written = dump(write(event, ABROAD, message=data.draw(st.sampled_from(names))))
    for reader in (ABROAD, SenderMap()):
        assert str(back(written, reader)) == str(event)


def test_a_field_and_an_obx_that_mean_another_instant_are_still_refused() -> None:
    event = golden.events(CASES["refill/first"])[-1]
    message = write(event, ABROAD)
    (rxa,) = [segment for segment in message.segments if segment[0] == "RXA"]
    assert rxa[3].endswith("+1300")
    rxa[3] = rxa[4] = rxa[3].replace("+1300", "+1200")
    assert {issue.rule for issue in read(message).errors} == {"contradiction"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS, st.data())
def test_any_event_survives_each_message_that_tells_it(event: Event, data: st.DataObject) -> None:
    names = OTHERS.get(event["type"], ("ORU^R01",))
    check(event, SenderMap(), data.draw(st.sampled_from(names)))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_hl7_to_fhir_to_hl7_gives_the_same_bytes(event: Event) -> None:
    written = dump(write(event))
    (read_event,) = read(parse(written)).events
    (again,) = from_fhir(Converter().to_fhir(read_event))
    assert dump(write(again)) == written


@given(EVENTS)
def test_leaves_are_the_whole_event(event: Event) -> None:
    leaves = flat(event)
    assert {pattern for pattern, _ in leaves} <= set(leaves_of(event["type"]))
    assert unflat(event["type"], leaves) == event


@pytest.mark.parametrize("case", CASES)
def test_a_golden_event_is_written_as_its_golden_message(case: str) -> None:
    path = CASES[case]
    event = golden.events(path)[-1]
    assert golden.sibling(path, ".hl7").read_bytes() == dump(write(event))
    assert back(golden.sibling(path, ".hl7").read_bytes(), SenderMap()) == event


def test_every_type_has_a_message_and_every_row_a_leaf() -> None:
    assert {m.type for m in MAPS} == set(EVENT_TYPES)
    for m in MAPS:
        leaves = leaves_of(m.type)
        places = [name for row in m.rows for name in row.events]
        assert set(places) <= set(leaves), m.name
        assert len(places) == len(set(places)), m.name
        assert set(m.observed.codes) <= set(leaves_of(m.type)) | set(leaves_of("interrogation"))


def test_a_message_that_does_not_tell_the_type_is_refused() -> None:
    event = golden.events(CASES["refill/first"])[-1]
    for name in ("RDE^O11", "SIU^S12", "ADT^A08", "nonsense"):
        with pytest.raises(MappingError):
            map_for(event, name)


@given(EVENTS, st.data())
def test_a_damaged_message_is_read_or_refused_and_never_a_crash(event: Event, data: st.DataObject) -> None:
    message = write(event)
    segments = [list(segment) for segment in message.segments]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(1, len(segments) - 1))
        action = data.draw(st.sampled_from(["drop", "double", "field", "cut"]))
        if action == "drop":
            del segments[at]
        elif action == "double":
            segments.insert(at, list(segments[at]))
        elif action == "cut":
            del segments[at][data.draw(st.integers(1, 6)) :]
        elif len(segments[at]) > 1:
            number = data.draw(st.integers(1, len(segments[at]) - 1))
            segments[at][number] = data.draw(
                st.one_of(st.sampled_from(['""', "^^^^", "~~", "-1", "1e9", "\\", "&&"]), st.text(max_size=6))
            )
        if len(segments) < 2:
            break
    damaged = type(message)(segments, message.separators, message.codec, message.ending)
    reading = read(damaged)
    assert all(issue.path and issue.rule and issue.message for issue in reading.errors)
