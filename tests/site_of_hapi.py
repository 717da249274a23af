"""What tests ask of a real HAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import requests

from mappings.exact_json import dumps
from mappings.r4_table import RESOURCE_TYPES


def validator_of(base_url: str) -> Callable[[Any], list[Any]]:
    """The function that gives the errors which this server's `$validate` finds in a resource."""
    session = requests.Session()

    def validate(resource: Any) -> list[Any]:
        type = resource.get("resourceType")
        url = f"{base_url}/{type if type in RESOURCE_TYPES else 'Basic'}/$validate"
        headers = {"Content-Type": "application/fhir+json"}
        answer = session.post(url, data=dumps(resource), headers=headers, timeout=60)
        return [i for i in answer.json()["issue"] if i["severity"] in ("error", "fatal")]

    return validate
