"""Nothing of a message is lost on its way through FHIR and back, changed or not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import golden
import strategies
from mappings import from_fhir as events_of
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, dump, parse, read, write
from mappings.hl7v2.fhir import from_fhir, to_fhir
from mappings.hl7v2.rewrite import lost, rewrite
from mappings.rows import MappingError
from mappings.stream import Converter
from mappings.validate import validate

HOSPITAL = golden.sender()
READ = {p.stem: p for p in golden.HL7 if p.parent.name == "read"}
WRITTEN = {golden.case(p): golden.sibling(p, ".hl7") for p in golden.GOLDEN}
REFILL = golden.message(READ["refill-with-route-it"])


def through_fhir(data: bytes, sender: SenderMap) -> bytes:
    made = to_fhir(parse(data, charset=sender.charset), sender, Converter())
    assert made.errors == []
    (bundle,) = [loads(dumps(bundle)) for bundle in made.bundles]
    assert validate(bundle) == []
    found = from_fhir(bundle, sender)
    assert found.errors == []
    (message,) = found.messages
    return dump(message)


@pytest.mark.parametrize("case", READ)
def test_a_foreign_message_comes_back_from_fhir_byte_for_byte(case: str) -> None:
    data = READ[case].read_bytes()
    assert through_fhir(data, HOSPITAL) == data


@pytest.mark.parametrize("case", WRITTEN)
def test_a_message_of_ours_comes_back_from_fhir_without_being_carried(case: str) -> None:
    data = WRITTEN[case].read_bytes()
    made = to_fhir(parse(data), SenderMap(), Converter())
    types = [e["resource"]["resourceType"] for bundle in made.bundles for e in bundle["entry"]]
    assert "Binary" not in types
    assert through_fhir(data, SenderMap()) == data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"|F\r", b"|F|||changed\r"),
        (b"PID|", b"NTE|1||theirs\rPID|"),
        (b"|P|2.6", b"|T|2.6"),
        (b"||U", b"||X"),
    ],
)
def test_a_message_of_ours_that_somebody_changed_is_carried(old: bytes, new: bytes) -> None:
    data = WRITTEN["refill/everything"].read_bytes()
    altered = data.replace(old, new, 1) if old != b"||U" else data + b"ZIT|1\r"
    assert altered != data
    assert through_fhir(altered, SenderMap()) == altered
    (bundle,) = to_fhir(parse(altered), SenderMap(), Converter()).bundles
    assert "Binary" in str(bundle)


def test_the_original_is_named_as_the_source_of_the_record() -> None:
    (bundle,) = to_fhir(REFILL, HOSPITAL, Converter()).bundles
    resources = {e["resource"]["resourceType"]: e for e in bundle["entry"]}
    assert resources["Binary"]["fullUrl"] in str(resources["Provenance"]["resource"]["entity"])
    (without,) = to_fhir(REFILL, HOSPITAL, Converter(), original=False).bundles
    assert events_of(without) == events_of(bundle)
    assert "Binary" not in str(without)


def changed(**values: Any) -> dict[str, Any]:
    (event,) = read(REFILL, HOSPITAL).events
    return {**event, **values}


def test_a_correction_changes_its_field_and_keeps_all_else() -> None:
    event = changed(volume_instilled={"value": Decimal("19.5"), "unit": "mL"})
    made = rewrite(REFILL, event, HOSPITAL)
    assert read(made, HOSPITAL).events == [event]
    assert [i.path for i in lost(REFILL, made)] == ["RXA[1]-6"]
    assert made.field("ZIT", 2) == "kept"
    assert made.field("RXA", 5) == "4711^BACLOFEN 2000 MCG/ML PF^GHDRUG"
    assert made.field("RXR", 1) == "IT^Intrathecal^HL70162"
    assert made.field("MSH", 3) == "RHAP"
    assert made.field("MSH", 10) != "77"


def test_what_a_correction_adds_or_takes_away_is_added_or_taken_away() -> None:
    event = changed(needle_passes=2, version=2, status="entered-in-error")
    del event["volume_removed"], event["note"]
    made = rewrite(REFILL, event, HOSPITAL)
    (again,) = read(made, HOSPITAL).events
    assert again == event
    assert {i.path for i in lost(REFILL, made)} >= {"RXA[1]-9", "OBX[1]"}
    assert b"COLOUR" in dump(made) and b"RESIDUAL" not in dump(made)


def test_through_fhir_a_correction_meets_the_original() -> None:
    (bundle,) = to_fhir(REFILL, HOSPITAL, Converter()).bundles
    text = dumps(bundle).replace(b"20.0", b"19.0")
    (message,) = from_fhir(loads(text), HOSPITAL).messages
    assert message.field("RXA", 6) == "19.0"
    assert message.field("ZIT", 2) == "kept"


def test_another_record_or_several_are_not_written_into_a_message() -> None:
    with pytest.raises(MappingError):
        rewrite(REFILL, changed(id="R-78"), HOSPITAL)
    order = [s for s in REFILL.segments if s[0] not in ("MSH", "PID", "PV1", "")]
    twice = replace(REFILL, segments=[*REFILL.segments[:-1], *order, [""]])
    with pytest.raises(MappingError):
        rewrite(twice, changed(), HOSPITAL)
    assert read(twice, HOSPITAL).errors == []
    bundles = to_fhir(twice, HOSPITAL, Converter()).bundles
    assert len(bundles) == 2
    for bundle in bundles:
        (message,) = from_fhir(bundle, HOSPITAL).messages
        assert len(read(message, HOSPITAL).events) == 1


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], max_examples=60)
@given(st.data())
def test_any_change_of_any_event_is_written_and_what_is_not_ours_survives(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(strategies.EVENTS)))
    event, other = (data.draw(strategies.EVENTS[kind]) for _ in range(2))
    other = {**other, "source": event["source"], "id": event["id"]}
    if kind == "follow-up" and event["kind"] != other["kind"]:
        return
    ours = write(event)
    foreign = (
        [["ZIT", "1", "kept"], ["NTE", "1", "", "theirs"]] if kind != "follow-up" else [["ZIT", "1", "kept"]]
    )
    original = replace(ours, segments=[*ours.segments[:-1], *foreign, [""]])
    made = rewrite(original, other, SenderMap())
    (found,) = read(made).events
    assert found == other
    assert made.field("ZIT", 2) == "kept"
