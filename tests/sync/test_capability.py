"""What servers say they can do: read as it is said, corrected only by options that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import EHRS, MemoryEhr
from mappings.exact_json import dumps, loads
from service.store import audit, capabilities
from service.sync import capability, survey
from service.sync.capability import NOTHING, WRITTEN, Matrix, TypeSupport, cannot_write, finding
from service.sync.ehr import Ambiguous, Unreachable
from site_of_tests import Site

STATEMENTS = sorted(EHRS.glob("*.json"))


def statement(name: str) -> Any:
    return loads((EHRS / f"{name}.json").read_bytes())


def matrix(name: str) -> Matrix:
    return capability.read(statement(name))


def written(name: str, **options: Any) -> set[str]:
    made = capability.with_options(matrix(name), options)
    return {type for type in WRITTEN if not cannot_write(made, type)}


def test_hapi_takes_everything_in_transactions() -> None:
    made = matrix("hapi")
    assert (made.fhir_version, made.transactions) == ("4.0.1", True)
    assert written("hapi") == set(WRITTEN)
    refill = made.of("MedicationAdministration")
    assert refill.conditional_create and refill.conditional_update
    assert refill.versioning == "versioned-update"
    assert {"history-type", "history-instance", "vread", "patch"} <= refill.interactions
    assert {"_lastUpdated", "identifier", "patient", "device"} <= refill.search_params
    assert capability.problems(made) == []


def test_the_two_large_vendors_take_three_types_or_fewer() -> None:
    assert written("epic-like") == {"DocumentReference", "Observation", "Procedure"}
    assert written("oracle-like") == {"DocumentReference", "Observation"}
    for name in ("epic-like", "oracle-like"):
        made = matrix(name)
        assert not made.transactions
        assert capability.problems(made) == []
        assert "_lastUpdated" not in made.of("MedicationAdministration").search_params


def test_what_cannot_be_corrected_is_not_written() -> None:
    assert "an error could not be corrected" in cannot_write(matrix("oracle-like"), "Procedure")
    assert cannot_write(matrix("epic-like"), "Device").startswith("the server offers no create and no update")
    assert cannot_write(matrix("epic-like"), "ClinicalImpression") == "the server does not offer it"


def test_what_cannot_be_found_again_is_not_written() -> None:
    lost = TypeSupport(interactions=frozenset({"create", "update", "search-type"}))
    assert "found again" in cannot_write(Matrix(types={"Observation": lost}), "Observation")


def test_a_resource_is_found_by_identifier_or_among_the_patients() -> None:
    assert finding(matrix("hapi"), "Observation") == "identifier"
    assert finding(matrix("oracle-like"), "Observation") == "patient"
    assert finding(matrix("oracle-like"), "Flag") == ""
    assert finding(matrix("hapi"), "Provenance") == "_id"


def test_a_provenance_needs_an_id_of_ours() -> None:
    takes = TypeSupport(interactions=frozenset({"update"}))
    refuses = TypeSupport(interactions=frozenset({"create", "update"}), client_ids=False)
    assert cannot_write(Matrix(types={"Provenance": takes}), "Provenance") == ""
    assert "gives ids itself" in cannot_write(Matrix(types={"Provenance": refuses}), "Provenance")


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda p: p.stem)
def test_a_matrix_is_kept_and_read_again_as_it_was(path: Path) -> None:
    made = capability.read(loads(path.read_bytes()))
    assert capability.load(loads(dumps(capability.dump(made)))) == made


def test_an_option_never_widens_in_silence() -> None:
    made = capability.with_options(matrix("oracle-like"), {"allow_types": ["Procedure", "Provenance"]})
    assert not cannot_write(made, "Procedure") and not cannot_write(made, "Provenance")
    assert [text.partition(" although ")[0] for text in made.by_option] == [
        "Procedure is written",
        "Provenance is written",
    ]
    made = capability.with_options(matrix("oracle-like"), {"transactions": True})
    assert made.transactions and made.by_option == ("transactions are sent although not listed",)
    allowed_already = capability.with_options(
        matrix("hapi"), {"allow_types": ["Device"], "transactions": True}
    )
    assert allowed_already.by_option == ()


def test_an_option_narrows() -> None:
    assert written("hapi", refuse_types=["Device"]) == set(WRITTEN) - {"Device"}
    assert written("hapi", refuse_types=["Device"], allow_types=["Device"]) == set(WRITTEN) - {"Device"}
    assert not capability.with_options(matrix("hapi"), {"transactions": False}).transactions


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"fhirVersion": "5.0.0"}, "its FHIR version is 5.0.0"),
        ({"fhirVersion": None}, "its FHIR version is not said"),
        ({"rest": []}, "patients cannot be searched"),
        ({"rest": [{"mode": "client", "resource": statement("hapi")["rest"][0]["resource"]}]}, "patients"),
    ],
)
def test_a_server_that_cannot_be_used_says_why(broken: Any, said: str) -> None:
    found = capability.problems(capability.read(statement("hapi") | broken))
    assert len(found) == 1 and said in found[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(rest=JSON, software=JSON)
def test_a_misshapen_statement_is_refused_or_offers_nothing(rest: Any, software: Any) -> None:
    said = {"resourceType": "CapabilityStatement", "rest": rest, "software": software}
    try:
        made = capability.read(said)
    except ValueError as error:
        assert "CapabilityStatement" in str(error)
    else:
        assert all(cannot_write(made, type) for type in WRITTEN)


def test_anything_but_a_statement_is_refused() -> None:
    for said in ([], None, {"resourceType": "Bundle"}):
        with pytest.raises(ValueError, match="CapabilityStatement"):
            capability.read(said)


def test_what_changed_between_two_readings_is_said() -> None:
    hapi = matrix("hapi")
    fewer = capability.read(statement("hapi"))
    types = dict(fewer.types) | {"Device": NOTHING}
    found = capability.difference(
        hapi, Matrix(hapi.fhir_version, "HAPI 9", types, frozenset(), hapi.operations)
    )
    assert "system -transaction" in found
    assert "Device -create" in found
    assert any(text.startswith("software ") for text in found)
    assert capability.difference(hapi, fewer) == []


# --- kept for each endpoint -----------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_reading_is_kept_for_a_day(site: Site) -> None:
    assert survey.known(site.store, site.endpoint) is None
    assert survey.is_due(site.store, site.endpoint, site.now)
    read = survey.matrix_of(site.store, site.ehr, site.endpoint, site.now)
    assert survey.known(site.store, site.endpoint) == read == matrix("hapi")
    assert not survey.is_due(site.store, site.endpoint, site.now)
    site.time += survey.KEPT
    assert survey.is_due(site.store, site.endpoint, site.now)


def test_a_change_of_the_server_is_audited(site: Site) -> None:
    survey.refresh(site.store, site.ehr, site.endpoint, site.now)
    survey.refresh(site.store, site.ehr, site.endpoint, site.now)
    with site.store.read() as c:
        assert audit.of(c, 1, "endpoint/hapi") == []
    site.ehr.statement = EHRS / "epic-like.json"
    survey.refresh(site.store, site.ehr, site.endpoint, site.now)
    with site.store.read() as c:
        (row,) = audit.of(c, 1, "endpoint/hapi")
    assert "system -transaction" in row.detail


@pytest.mark.parametrize("error", [Unreachable("down"), None])
def test_a_server_that_does_not_answer_keeps_what_was_known(site: Site, error: Any) -> None:
    survey.refresh(site.store, site.ehr, site.endpoint, site.now)

    class Silent(MemoryEhr):
        def metadata(self) -> Any:
            if error:
                raise error
            return {"resourceType": "OperationOutcome"}

    with pytest.raises((Unreachable, Ambiguous)):
        survey.refresh(site.store, Silent(), site.endpoint, site.now)
    assert survey.known(site.store, site.endpoint) == matrix("hapi")


def test_the_options_count_at_once(tmp_path: Path) -> None:
    site = Site(tmp_path, refuse_types=["Flag"])
    made = survey.refresh(site.store, site.ehr, site.endpoint, site.now)
    assert cannot_write(made, "Flag")
    with site.store.read() as c:
        kept = capabilities.find(c, site.endpoint.id)
    assert kept is not None
    assert not cannot_write(capability.load(loads(kept.matrix)), "Flag")
