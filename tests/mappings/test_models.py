"""fhir.resources models in and out: typed, and with every digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import golden
from mappings import MappingError, from_fhir
from mappings.exact_json import dumps
from mappings.models import model, plain


def spelled(value: Any) -> Any:
    """The event with Z written as +00:00, which is how a model keeps it."""
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spelled(item) for item in value]
    utc = isinstance(value, str) and len(value) > 19 and value[10] == "T" and value.endswith("Z")
    return f"{value[:-1]}+00:00" if utc else value


@pytest.mark.parametrize("path", golden.GOLDEN, ids=golden.case)
def test_an_event_goes_through_models_digit_for_digit(path: Path) -> None:
    wanted = spelled(golden.events(path)[-1])
    back = from_fhir(plain(model(golden.bundle(path))))
    assert dumps(wanted) in [dumps(event) for event in back]


def test_what_is_no_fhir_is_refused_with_its_place() -> None:
    with pytest.raises(MappingError) as caught:
        model({"resourceType": "MedicationAdministration", "status": 3})
    assert {issue.rule for issue in caught.value.issues} == {"model"}
    assert "status" in {issue.path for issue in caught.value.issues}
