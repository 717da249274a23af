"""Identity: the same for ever, readable back, and safe inside a search."""

from __future__ import annotations

import re
from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from mappings import identity, to_fhir
from mappings.exact_json import dumps, loads
from strategies import ANY_EVENT, LINE, SOURCE


@given(SOURCE, LINE)
def test_source_and_id_come_back_from_the_value(source: str, id: str) -> None:
    value = identity.business_value(source, id)
    assert identity.split_value(value) == (source, id)
    assert not re.search(r"[|,$\\\s]", value)


@given(st.text(max_size=10))
def test_any_other_value_is_read_as_foreign_or_as_itself(value: str) -> None:
    pair = identity.split_value(value)
    assert pair is None or identity.business_value(*pair) == value


def test_identity_is_fixed_for_ever() -> None:
    value = identity.business_value("clinic-a", "R-1")
    assert value == "clinic-a.R-1"
    assert identity.urn(identity.sid("refill"), value) == "urn:uuid:f92ebd49-abc6-5207-b725-cc5213d1daa4"


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_identity_is_a_uuid_of_version_5(system: str, value: str) -> None:
    named = uuid5(identity.NAMESPACE, f"{system}|{value}")
    assert identity.urn(system, value) == named.urn
    assert identity.client_id(system, value) == f"itb-{named}"


def test_a_search_token_escapes_what_would_split_it() -> None:
    assert identity.token("http://h/mrn", "a|b,c$d e") == r"http://h/mrn|a%5C%7Cb%5C%2Cc%5C%24d%20e"


@given(ANY_EVENT)
def test_the_hash_ignores_where_references_point_and_nothing_else(event: dict[str, object]) -> None:
    for entry in to_fhir(event)["entry"]:
        ours = entry["resource"]
        stored = identity.rewrite_references(ours, lambda type, system, value: f"{type}/1")
        stored |= {"id": "1", "meta": {"versionId": "3", "lastUpdated": "2025-01-01T00:00:00Z"}}
        assert identity.content_hash(loads(dumps(stored))) == identity.content_hash(ours)
        changed = ours | {"language": "en"}
        assert identity.content_hash(changed) != identity.content_hash(ours)


@given(ANY_EVENT)
def test_every_reference_of_a_bundle_resolves_or_is_logical(event: dict[str, object]) -> None:
    bundle = to_fhir(event)
    within = {entry["fullUrl"] for entry in bundle["entry"]}
    for reference in re.findall(r'"reference":"([^"]*)"', dumps(bundle).decode()):
        assert reference in within or reference.startswith(("#", "Patient?identifier="))
