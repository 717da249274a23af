"""Units and quantities: converted by name only, refused otherwise, and shown safely."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from mappings import MappingError, load_event
from mappings.fields import to_ucum
from mappings.values import shown, shown_quantity
from strategies import decimals


def change(quantity: Any) -> dict[str, Any]:
    after = {"mode": "simple", "daily_dose": quantity, "concentration": {"value": 500, "unit": "mcg/mL"}}
    patient = {"system": "http://hospital.invalid/mrn", "value": "MRN001"}
    at = "2025-02-03T12:00:00-06:00"
    shared = {"type": "dose-change", "source": "clinic-a", "id": "P-1", "patient": patient}
    return shared | {"pump": "NGP1", "occurred_at": at, "after": after}


@pytest.mark.parametrize("unit", ["ug/d", "mcg/d", "mcg/day", "ug/day"])
def test_what_people_write_becomes_ucum(unit: str) -> None:
    event = load_event(change({"value": Decimal("100.00"), "unit": unit}))
    assert event["after"]["daily_dose"] == {"value": Decimal("100.00"), "unit": "ug/d"}
    assert str(event["after"]["daily_dose"]["value"]) == "100.00"
    assert event["after"]["concentration"]["unit"] == "ug/mL"


@pytest.mark.parametrize(
    "unit", ["Ug/d", "µg/d", "μg/d", "mcg", "ug/h", "mL/d", "ug / d", "", "ug/d ", "mcg/Day"]
)
def test_another_unit_is_refused_not_guessed(unit: str) -> None:
    with pytest.raises(MappingError) as caught:
        load_event(change({"value": 100, "unit": unit}))
    assert [(i.path, i.rule) for i in caught.value.issues] == [("after.daily_dose.unit", "unit")]


def test_mg_is_refused_and_the_equivalent_shown() -> None:
    with pytest.raises(MappingError) as caught:
        load_event(change({"value": Decimal("0.350"), "unit": "mg/day"}))
    (issue,) = caught.value.issues
    assert issue.rule == "U1"
    assert "0.350 mg/d would be 350 ug/d" in issue.message


@pytest.mark.parametrize(
    "value", ["100", True, None, [100], {"value": 1}, Decimal("NaN"), Decimal("-1"), Decimal("-0.0")]
)
def test_a_value_that_is_no_plain_number_is_refused(value: Any) -> None:
    with pytest.raises(MappingError) as caught:
        load_event(change({"value": value, "unit": "ug/d"}))
    assert {i.path for i in caught.value.issues} == {"after.daily_dose.value"}


def test_unit_names_are_translated_position_by_position() -> None:
    assert [to_ucum(u) for u in ("mcg/hour", "days", "mcgram", "day/mcg")] == ["ug/h", "d", "mcgram", "d/ug"]


@given(decimals("0", "100000"))
def test_numbers_are_shown_without_trailing_zeros_and_mean_the_same(value: Decimal) -> None:
    text = shown(value)
    assert Decimal(text.replace(",", "")) == value
    assert not (text.endswith("0") and "." in text)
    assert not text.startswith(".")


def test_quantities_are_shown_as_people_must_read_them() -> None:
    assert shown_quantity({"value": Decimal("2000.00"), "unit": "ug/mL"}) == "2,000 mcg/mL"
    assert shown_quantity({"value": Decimal("0.5"), "unit": "ug/d"}) == "0.5 mcg/day"
