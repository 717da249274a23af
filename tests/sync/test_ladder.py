"""The ladder: each server gets the most that it can take, and what is lost on the way is worked out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
import mappings
from fakes import EHRS
from mappings import bundle, chart
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, sender_map
from mappings.identity import resource_identity
from service.sync import capability, ladder
from service.sync.capability import WRITTEN, Matrix, cannot_write
from service.sync.ladder import Plan, choose, shape, superseded
from service.sync.tell import plan_of
from strategies import ANY_EVENT

SERVERS = {path.stem: capability.read(loads(path.read_bytes())) for path in sorted(EHRS.glob("*.json"))}
NO_DOCUMENTS = capability.with_options(SERVERS["epic-like"], {"refuse_types": ["DocumentReference"]})


def event(case: str) -> dict[str, Any]:
    return golden.events(golden.FIXTURES / "golden" / f"{case}.event.json")[-1]


RUNGS = {
    # case: (HAPI, epic-like, oracle-like)
    "device/pump": ("transaction", "chart", "chart"),
    "refill/everything": ("transaction", "chart", "chart"),
    "dose-change/titration": ("transaction", "chart", "chart"),
    "evaluation/spasticity": ("transaction", "chart", "chart"),
    "screening/fifty": ("transaction", "chart", "chart"),
    "procedure/implant": ("transaction", "single", "chart"),
    "interrogation/full": ("transaction", "single", "single"),
    "alarm/sounding": ("transaction", "single", "single"),
    "complication/withdrawal": ("transaction", "chart", "chart"),
    "assessment/five-scales": ("transaction", "single", "single"),
    "education/discharge": ("transaction", "single", "chart"),
    "oral-baclofen/taper": ("transaction", "chart", "chart"),
    "follow-up/refill-due": ("transaction", "chart", "chart"),
}


def test_every_event_type_is_in_the_table() -> None:
    assert {case.partition("/")[0] for case in RUNGS} == set(mappings.EVENT_TYPES)


@pytest.mark.parametrize("case", RUNGS)
def test_each_server_gets_the_rung_it_can_take(case: str) -> None:
    servers = ("hapi", "epic-like", "oracle-like")
    plans = [choose(SERVERS[name], event(case)) for name in servers]
    assert tuple(plan.rung for plan in plans) == RUNGS[case]
    assert {plan.lost for plan in plans} == {()}


def test_a_refill_at_an_epic_like_server_is_a_procedure_observations_and_a_document() -> None:
    plan = choose(SERVERS["epic-like"], event("refill/everything"))
    assert plan.types == {"Procedure", "Observation", "DocumentReference"}
    assert plan.left_out == ("MedicationAdministration", "Provenance")
    assert "the server takes no transactions" in plan.why
    assert any(text.startswith("MedicationAdministration: ") for text in plan.why)


def test_a_procedure_that_could_not_be_corrected_is_not_written() -> None:
    plan = choose(SERVERS["oracle-like"], event("refill/everything"))
    assert plan.types == {"Observation", "DocumentReference"}
    assert any(text.startswith("Procedure: it can be created and not updated") for text in plan.why)
    allowed = capability.with_options(SERVERS["oracle-like"], {"allow_types": ["Procedure"]})
    assert "Procedure" in choose(allowed, event("refill/everything")).types


def test_what_is_lost_without_a_document_is_worked_out() -> None:
    assert choose(NO_DOCUMENTS, event("refill/everything")).lost == (
        "drug.name",
        "drug.ndc",
        "drug.compounded",
    )
    assert choose(NO_DOCUMENTS, event("refill/two-lots")).lost == ("drug.name", "drug.other_lots")
    assert choose(NO_DOCUMENTS, event("dose-change/titration")).lost == ()
    assert choose(NO_DOCUMENTS, event("dose-change/flex-with-bridge")).lost == ("after.steps",)


def test_an_event_that_no_form_fits_is_not_sent_and_loses_everything() -> None:
    plan = choose(NO_DOCUMENTS, event("device/pump"))
    assert (plan.rung, shape_types(plan, event("device/pump"))) == ("none", set())
    assert "patient.value" in plan.lost and "serial" in plan.lost


def shape_types(plan: Plan, of: dict[str, Any]) -> set[str]:
    return {resource["resourceType"] for resource in shape(plan, of)}


def test_a_server_without_patients_to_find_gets_nothing() -> None:
    plan = choose(Matrix(fhir_version="4.0.1"), event("refill/first"))
    assert plan.rung == "none"
    assert "patients cannot be searched" in plan.why[0]


def test_a_message_is_for_receivers_of_messages_only() -> None:
    chosen = {choose(matrix, event(case)).rung for matrix in SERVERS.values() for case in RUNGS}
    assert chosen == set(ladder.RUNGS) - {"hl7v2"}
    plans = [plan_of(event(case), SenderMap()) for case in RUNGS]
    assert {(plan.rung, plan.lost) for plan in plans} == {("hl7v2", ())}
    assert plan_of(event("refill/everything"), SenderMap()).types == {"RAS^O17^RAS_O17"}


def test_a_message_that_its_own_map_cannot_read_is_none() -> None:
    plan = plan_of(event("refill/everything"), sender_map({"namespaces": {"X": "another"}}))
    assert (plan.rung, plan.why) == ("none", ("ORC[1]-3 source",))
    assert "volume_instilled" in plan.lost


SOME_TYPES = st.lists(st.sampled_from(WRITTEN), unique=True, min_size=1)


@settings(max_examples=150, deadline=None)
@given(of=ANY_EVENT, refused=SOME_TYPES, transactions=st.booleans())
def test_a_plan_tells_the_truth(of: dict[str, Any], refused: list[str], transactions: bool) -> None:
    """Of any server: nothing is written that it refuses, and what the plan does not call lost is there."""
    options = {"refuse_types": refused, "transactions": transactions}
    matrix = capability.with_options(SERVERS["hapi"], options)
    plan = choose(matrix, of)
    made = shape(plan, of)
    assert not {resource["resourceType"] for resource in made} & set(refused)
    assert {resource["resourceType"] for resource in made} == plan.types
    assert not any(cannot_write(matrix, type) for type in plan.types)
    back = ladder.read_back(of["type"], made)
    assert ladder.lost(of, back) == plan.lost
    if not plan.lost:
        assert dumps(back) == dumps(of) or plan.rung == "chart"
    if plan.rung in ("transaction", "single"):
        assert (plan.rung == "transaction") == transactions


@settings(max_examples=60, deadline=None)
@given(of=ANY_EVENT)
def test_the_same_event_has_the_same_identities_on_a_rung(of: dict[str, Any]) -> None:
    for matrix in SERVERS.values():
        first, second = (
            [resource_identity(r) for r in shape(choose(matrix, one), one)] for one in (of, loads(dumps(of)))
        )
        assert first == second


def test_a_server_that_can_take_more_now_gets_the_older_form_withdrawn() -> None:
    of = event("refill/everything")
    plan = choose(SERVERS["hapi"], of)
    gone = superseded(plan, of, [])
    charted = {resource_identity(resource) for resource in chart.encode(of)}
    assert {resource_identity(resource) for resource in gone} == charted
    assert {resource["status"] for resource in gone} == {"entered-in-error"}
    back = superseded(choose(SERVERS["epic-like"], of), of, [])
    assert {resource_identity(r) for r in back} == {resource_identity(r) for r in bundle.encode(of)}


def test_a_value_that_a_correction_leaves_out_is_withdrawn() -> None:
    old = event("refill/everything")
    new = {name: value for name, value in old.items() if name != "alarm_on"} | {"version": 2}
    gone = superseded(choose(SERVERS["epic-like"], new), new, [old])
    codes = [r["code"]["coding"][0]["code"] for r in gone if r["resourceType"] == "Observation"]
    assert codes == ["low-reservoir-alarm-date"]


# --- bugs that the tests above must see ---------------------------------------------------------------------


def forgets_the_document(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ladder, "CHARTED", ("Procedure", "Observation"))


def calls_nothing_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ladder, "lost", lambda of, back: ())


def writes_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ladder, "cannot_write", lambda matrix, type: "")


@pytest.mark.parametrize("bug", [forgets_the_document, calls_nothing_lost, writes_what_is_refused])
def test_a_seeded_bug_is_caught(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        for case in RUNGS:
            test_each_server_gets_the_rung_it_can_take(case)
        test_what_is_lost_without_a_document_is_worked_out()
