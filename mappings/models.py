"""`fhir.resources` models of our resources, and plain JSON data of such models, digit for digit.

`model_dump_json` of these models writes 19.00 as 19.0; `plain` reads the Decimal that the model still holds.
A time that ended in `Z` comes back with `+00:00`: the model keeps the instant and the offset, not the letter.
Importing this module imports pydantic and the models, which takes about a second; the rest of the package
does not need it.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import BaseModel, ValidationError

from .paths import Json
from .rows import Issue, MappingError


def model(resource: Json) -> Any:
    """The `fhir.resources.R4B` model of a resource or Bundle; raises `MappingError` (rule `model`)."""
    try:
        return get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except ValidationError as error:
        issues = [
            Issue(".".join(map(str, e["loc"])) or "$", "model", e["msg"])
            for e in error.errors(include_url=False, include_input=False)
        ]
        raise MappingError(issues) from None


def plain(value: Any) -> Json:
    """Plain JSON data of a model: what `read_fhir` and `from_fhir` take."""
    if isinstance(value, BaseModel):
        made: Json = {"resourceType": type(value).__name__} if _is_resource(value) else {}
        for name, field in type(value).model_fields.items():
            held = getattr(value, name)
            if held is not None and name != "resource_type":
                made[field.alias or name] = plain(held)
        return made
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, str) else value


def _is_resource(value: Any) -> bool:
    return "implicitRules" in type(value).model_fields
