"""What other systems send: read by their file, or refused with the field and the reason; never guessed."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from decimal import Decimal

import pytest

import golden
from mappings.exact_json import loads
from mappings.hl7v2 import Reading, SenderMap, head, parse, read, sender_map
from mappings.hl7v2.sender import CHECKS
from mappings.rows import MappingError

HL7 = golden.FIXTURES / "hl7v2"
HOSPITAL = sender_map(tomllib.loads((HL7 / "sender.toml").read_text()))
READ = {p.stem: p for p in sorted(HL7.glob("read/*.hl7"))}
REFUSED = {p.stem: p for p in sorted(HL7.glob("refused/*.hl7"))}


def reading(data: bytes, sender: SenderMap = HOSPITAL) -> Reading:
    return read(parse(data, charset=sender.charset), sender)


@pytest.mark.parametrize("case", READ)
def test_a_message_of_the_hospital_is_read_as_its_events_and_notes(case: str) -> None:
    expected = loads(golden.sibling(READ[case], ".read.json").read_bytes())
    found = reading(READ[case].read_bytes())
    assert found.errors == []
    assert golden.reading(found) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_not_be_guessed_is_refused_and_says_where(case: str) -> None:
    expected = loads(golden.sibling(REFUSED[case], ".problem.json").read_bytes())
    found = reading(REFUSED[case].read_bytes())
    assert found.events == []
    assert golden.listed(found.errors) == expected


REFILL = READ["refill-with-route-it"].read_bytes()


def test_a_reservoir_volume_with_route_it_is_parked_unless_the_file_says_remap() -> None:
    found = reading(REFILL, replace(HOSPITAL, intrathecal_refill="park"))
    assert found.events == []
    assert [(i.path, i.rule) for i in found.errors] == [("RXR[1]-1", "intrathecal-refill")]


def test_a_time_without_offset_needs_the_senders_zone() -> None:
    found = reading(REFILL, replace(HOSPITAL, zone=None))
    assert [(i.path, i.rule) for i in found.errors] == [("RXA[1]-3", "time-zone")]


def test_a_time_to_the_minute_is_read_where_the_file_says_that_it_is_exact() -> None:
    data = REFILL.replace(b"20250401102000|", b"202504011020|")
    (event,) = reading(data, replace(HOSPITAL, whole_minutes=True)).events
    assert event["occurred_at"] == "2025-04-01T10:20:00-05:00"


def test_a_sender_of_whom_nothing_is_known_is_read_only_where_the_message_says_all() -> None:
    found = reading(REFILL, SenderMap())
    assert {(i.path, i.rule) for i in found.errors} >= {
        ("PID[1]-3", "patient"),
        ("ORC[1]-3", "source"),
        ("RXA[1]-3", "time-zone"),
    }


def test_several_orders_are_several_events_and_one_that_is_wrong_stops_no_other() -> None:
    lines = REFILL.split(b"\n")
    order = [line for line in lines if line[:3] in (b"ORC", b"RXA", b"RXR", b"OBX")]
    second = [line.replace(b"R-77", b"R-78") for line in order]
    third = [line.replace(b"R-77", b"R-79").replace(b"|20.0|ML|", b"|20.0|cc|") for line in order]
    found = reading(b"\n".join([*lines[:3], *order, *second, *third]))
    assert [event["id"] for event in found.events] == ["R-77", "R-78"]
    assert [i.rule for i in found.errors] == ["unit"]


def test_an_explicit_null_is_not_there_and_is_noted() -> None:
    found = reading(REFILL.replace(b"|^second pass needed|", b'|""|'))
    assert "note" not in found.events[0]
    assert ("RXA[1]-9", "null") in [(i.path, i.rule) for i in found.notes]


def test_an_obx_without_a_value_is_not_there() -> None:
    found = reading(REFILL.replace(b"||3.60|mL|||||F", b"||||||||N"))
    assert "volume_removed" not in found.events[0]


def test_a_record_marked_deleted_or_wrong_is_entered_in_error() -> None:
    (deleted,) = reading(REFILL.replace(b"|CP|A|", b"|CP|D|")).events
    assert deleted["status"] == "entered-in-error"
    oru = READ["interrogation-in-their-codes"].read_bytes()
    (wrong,) = reading(oru.replace(b"|R\r", b"|W\r").replace(b"|||||F\r", b"|||||W\r")).events
    assert wrong["status"] == "entered-in-error"


def test_digits_are_kept() -> None:
    (event,) = reading(READ["interrogation-in-their-codes"].read_bytes()).events
    assert str(event["reservoir_volume"]["value"]) == "11.250"
    assert isinstance(event["daily_dose"]["value"], Decimal)


def test_the_head_of_an_unreadable_message_is_known() -> None:
    broken = REFILL + b"\xff not a segment"
    with pytest.raises(MappingError):
        parse(broken)
    found = head(broken)
    assert found is not None and found.field("MSH", 10) == "77"
    assert head(b"nonsense") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "General Hospital"),
        ("zone", "Mars/Olympus"),
        ("zone", 7),
        ("authorities", {"A": 1}),
        ("namespaces", {"A": "Not A Source"}),
        ("intrathecal_refill", "ignore"),
        ("reservoir_from", 0),
        ("whole_minutes", "yes"),
        ("version", "2.3"),
        ("sending", "ITB"),
        ("charset", 1),
        ("accept_ack", "maybe"),
        ("observation", {}),
    ],
)
def test_a_wrong_line_in_a_senders_file_is_named(name: str, value: object) -> None:
    with pytest.raises(MappingError) as caught:
        sender_map({name: value})
    (issue,) = caught.value.issues
    assert issue.path == name


def test_every_line_of_a_senders_file_is_checked() -> None:
    assert set(CHECKS) == set(SenderMap.__dataclass_fields__) - {"theirs"}
    with pytest.raises(MappingError):
        sender_map([])
