"""What is no event: read as an update, written as a message, and never taken for something done to a pump."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

import golden
import strategies
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, dump, parse, read, write_update
from mappings.hl7v2.fhir import from_fhir, to_fhir
from mappings.hl7v2.updates import KINDS, SCHEMAS, TRIGGERS, load_update
from mappings.rows import MappingError
from mappings.stream import Converter
from mappings.validate import validate

UPDATES = {p.stem: p for p in golden.HL7 if p.parent.name == "update"}
SHARED = {
    "source": st.just("general-hospital"),
    "id": strategies.LINE,
    "patient": strategies.BUSINESS_ID,
    "occurred_at": strategies.MOMENT.filter(lambda t: "." not in t and "+00:00" not in t),
}
DRUG = strategies.fields(
    {"name": strategies.LINE},
    {
        "ndc": st.just("70121-2503-01"),
        "concentration": strategies.quantity("ug/mL", "50", "4000"),
        "lot": strategies.LINE,
        "expires_on": strategies.DAY,
    },
)
MADE = st.one_of(
    strategies.fields({"kind": st.just("patient-update"), **SHARED}, {}),
    strategies.fields(
        {
            "kind": st.sampled_from(["patient-link", "patient-merge"]),
            **SHARED,
            "other": strategies.BUSINESS_ID,
        },
        {},
    ),
    strategies.fields(
        {"kind": st.just("dispense"), **SHARED, "drug": DRUG, "quantity": strategies.quantity("mL", "1")},
        {"performer": st.builds(lambda name: {"name": name}, strategies.LINE)},
    ),
    strategies.fields(
        {
            "kind": st.just("report"),
            **SHARED,
            "title": strategies.LINE,
            "content_type": st.sampled_from(["application/pdf", "text/plain"]),
            "data": st.binary(min_size=1).map(lambda b: base64.b64encode(b).decode()),
        },
        {},
    ),
).map(load_update)


@pytest.mark.parametrize("case", UPDATES)
def test_a_message_that_is_no_event_is_read_as_an_update(case: str) -> None:
    found = read(golden.message(UPDATES[case]), golden.sender())
    assert (found.events, found.errors) == ([], [])
    assert golden.reading(found) == loads(golden.sibling(UPDATES[case], ".read.json").read_bytes())


@given(MADE)
def test_any_update_survives_its_message(update: dict[str, object]) -> None:
    sender = SenderMap(source="general-hospital")
    written = dump(write_update(update, sender))
    found = read(parse(written), sender)
    assert (found.errors, found.events) == ([], [])
    assert found.updates == [update]
    assert dump(write_update(found.updates[0], sender)) == written


@pytest.mark.parametrize("case", UPDATES)
def test_an_update_comes_back_from_fhir_byte_for_byte(case: str) -> None:
    message = golden.message(UPDATES[case])
    (bundle,) = to_fhir(message, golden.sender(), Converter()).bundles
    assert validate(bundle) == []
    patients = [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Patient"]
    assert (bundle["type"] == "collection") == bool(patients)  # an EHR's patients are not ours to write
    back = from_fhir(loads(dumps(bundle)), golden.sender())
    assert back.errors == []
    assert [dump(one) for one in back.messages] == [UPDATES[case].read_bytes()]
    for patient in patients:
        patient["identifier"] = [{"system": "urn:other", "value": "1"}]
        assert from_fhir(bundle, golden.sender()).messages == []


@given(MADE)
def test_a_kit_or_report_comes_back_from_fhir_without_being_carried(update: dict[str, object]) -> None:
    sender = SenderMap(source="general-hospital")
    written = write_update(update, sender)
    (bundle,) = to_fhir(written, sender, Converter()).bundles
    assert validate(bundle) == []
    kinds = [e["resource"]["resourceType"] for e in bundle["entry"]]
    assert ("Binary" in kinds) == str(update["kind"]).startswith("patient")
    (message,) = from_fhir(loads(dumps(bundle)), sender).messages
    assert dump(message) == dump(written)


def test_every_kind_has_a_schema_and_messages() -> None:
    assert set(SCHEMAS) == set(TRIGGERS) == set(KINDS.values())
    for bad in ({}, {"kind": "refill"}, {"kind": "patient-merge"}, []):
        with pytest.raises(MappingError):
            load_update(bad)
