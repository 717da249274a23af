"""Records for servers that take no more than procedures, observations and documents."""

from __future__ import annotations

import copy
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
from mappings import chart, document, from_fhir, load_event, read_fhir
from mappings.exact_json import dumps, loads
from mappings.identity import resource_identity
from mappings.validate import validate
from strategies import ANY_EVENT


def bundle(resources: list[Any]) -> Any:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


def charted(type: str, case: str) -> tuple[dict[str, Any], list[Any]]:
    event = golden.events(golden.FIXTURES / "golden" / type / f"{case}.event.json")[-1]
    return event, chart.encode(event)


@pytest.mark.parametrize("path", golden.CHARTED, ids=golden.case)
def test_the_chart_is_the_golden_one(path: Path) -> None:
    wanted = golden.sibling(path, ".chart.json").read_text(encoding="utf-8")
    assert golden.pretty(chart.encode(golden.events(path)[-1])) == wanted


def test_there_is_a_golden_chart_of_every_kind() -> None:
    assert {path.parent.name for path in golden.CHARTED} >= set(chart.CHARTS)


@settings(max_examples=150, deadline=None)
@given(ANY_EVENT)
def test_any_event_comes_back_byte_for_byte_from_its_chart(event: dict[str, Any]) -> None:
    made = loads(dumps(bundle(chart.encode(event))))
    assert [dumps(back) for back in from_fhir(made)] == [dumps(event)]


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT)
def test_every_charted_resource_is_strict_r4(event: dict[str, Any]) -> None:
    made = chart.encode(event)
    assert [issue for resource in made for issue in validate(resource)] == []
    names = [resource_identity(resource) for resource in made]
    assert len(set(names)) == len(names)


@settings(max_examples=100, deadline=None)
@given(ANY_EVENT)
def test_what_is_charted_without_the_document_says_nothing_else(event: dict[str, Any]) -> None:
    """Each field that is read back without the document is one of the event, digit for digit."""

    def within(part: Any, whole: Any) -> None:
        if isinstance(part, dict):
            for name, value in part.items():
                within(value, whole[name])
        else:
            assert dumps(part) == dumps(whole)

    told = chart.told(event["type"], chart.encode(event, ("Procedure", "Observation")))
    within(told, {"status": "final", **event})
    assert bool(told) == (event["type"] in chart.CHARTS)


def test_a_refill_never_reads_as_a_dose_to_the_patient() -> None:
    event, made = charted("refill", "everything")
    procedure = made[0]
    assert "NOT a patient dose" in procedure["outcome"]["text"]
    assert "NOT a patient dose" in made[-1]["description"]
    assert b"72607000" not in dumps(made)
    assert "NOT a patient dose" in document.text(event)


def test_the_text_leaves_the_patient_to_the_chart_it_stands_in() -> None:
    event, _ = charted("refill", "everything")
    assert event["patient"]["value"] not in document.text(event)
    assert "2,000 mcg/mL" in document.text(event)
    assert not re.search(r"\bug\b", document.text(event))


@pytest.mark.parametrize("case", ["everything", "two-lots"])
def test_every_field_of_the_event_is_in_the_text(case: str) -> None:
    event, _ = charted("refill", case)
    text = document.text(event)
    assert event["drug"]["lot"] in text
    for other in event["drug"].get("other_lots", ()):
        assert other["lot"] in text


def read(resource: Any) -> list[str]:
    return [issue.rule for issue in read_fhir(resource).errors]


def test_a_document_that_contradicts_what_is_attached_is_refused() -> None:
    _, made = charted("refill", "first")
    record = made[-1]
    other = copy.deepcopy(record)
    other["subject"]["identifier"]["value"] = "MRN999"
    assert read(other) == ["record"]
    other = copy.deepcopy(record)
    other["identifier"][0]["value"] = "clinic-a.R-999"
    assert read(other) == ["record"]
    other = copy.deepcopy(record)
    other["context"]["related"][0]["identifier"]["value"] = "NGP000002H"
    assert read(other) == ["record"]


def test_an_attachment_that_was_changed_or_is_elsewhere_is_refused() -> None:
    _, made = charted("refill", "first")
    record = made[-1]
    attachment = record["content"][1]["attachment"]
    attachment["data"] = b64encode(b64decode(attachment["data"]).replace(b'"lot":"', b'"lot":"X')).decode()
    assert read(record) == ["record"]
    del attachment["data"]
    assert read(record) == ["record"]
    del record["content"][1]
    assert read(record) == ["record"]


def test_a_document_marked_as_wrong_in_the_ehr_withdraws_its_event() -> None:
    event, made = charted("refill", "first")
    (back,) = from_fhir(made[-1] | {"status": "entered-in-error"})
    assert back == load_event({**event, "status": "entered-in-error"})
    withdrawn = chart.encode(back)[-1]
    assert read(withdrawn | {"status": "current"}) == ["record"]


def test_extensions_that_a_server_drops_cost_nothing_while_the_document_is_there() -> None:
    event, made = charted("refill", "corrected-in-error")
    kept = [{k: v for k, v in r.items() if k not in ("extension", "meta")} for r in made]
    assert from_fhir(bundle(kept)) == [event]


@settings(max_examples=200, deadline=None)
@given(ANY_EVENT, st.data())
def test_a_damaged_document_raises_nothing_but_its_own_error(
    event: dict[str, Any], data: st.DataObject
) -> None:
    record = document.encode(event)
    name = data.draw(st.sampled_from(sorted(record.keys() - {"resourceType"})))
    record[name] = data.draw(
        st.sampled_from([None, [], {}, "x", [None], [{}], 7, [{"attachment": {"data": "x"}}]])
    )
    reading = read_fhir(bundle([record]))
    assert reading.events == [event] or reading.errors
