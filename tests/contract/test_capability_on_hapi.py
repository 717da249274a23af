"""The recorded CapabilityStatement is what the HAPI of today says."""

from __future__ import annotations

from fakes import EHRS
from mappings.exact_json import loads
from service.sync import capability
from service.sync.ehr import HttpEhr


def test_the_recording_says_what_a_real_hapi_says(hapi: str) -> None:
    recorded = capability.read(loads((EHRS / "hapi.json").read_bytes()))
    now = capability.read(HttpEhr(hapi).metadata())
    assert capability.difference(recorded, now) == [
        f"system +{name}" for name in sorted(now.operations - recorded.operations)
    ]
