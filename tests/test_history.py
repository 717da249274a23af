"""The history checker sees what it says it sees: a good history passes, and each way to spoil it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from history import INVARIANTS, Breach, History, Sent, Write, check, summary
from mappings.exact_json import dumps, loads
from mappings.stream import Converter
from service.synthetic import clinic

EVENTS = [(n, event) for n, event in enumerate(islice(clinic(2, 1, 5), 24), start=1)]


def good() -> History:
    """What an EHR holds after each event was applied, one after the other."""
    writes: list[Write] = []
    ids: dict[Any, str] = {}
    converter = Converter()
    patients: dict[str, str] = {}
    for _, event in EVENTS:
        name = event["patient"]
        if name["value"] not in patients:
            patients[name["value"]] = f"Patient/p{len(patients)}"
            resource = {
                "resourceType": "Patient",
                "id": patients[name["value"]][8:],
                "identifier": [dict(name)],
            }
            writes.append(Write("Patient", resource["id"], 1, len(writes), resource))
        for entry in converter.to_fhir(event)["entry"]:
            resource = loads(dumps(entry["resource"]))
            key = (resource["resourceType"], str(resource.get("identifier") or resource["id"]))
            id = ids.setdefault(key, f"r{len(ids)}")
            _point(resource, patients)
            before = [w.resource for w in writes if (w.type, w.id) == (key[0], id)]
            resource = {**resource, "id": resource["id"] if key[0] == "Provenance" else id}
            if resource not in before:
                writes.append(Write(key[0], resource["id"], len(before) + 1, len(writes), resource))
    audit = [("accepted", f"{e['source']}/{e['id']}") for _, e in EVENTS]
    return History(
        acknowledged=[e for _, e in EVENTS],
        ledger=EVENTS,
        deliveries=[Sent(100 + seq, seq, "sent") for seq, _ in EVENTS],
        audit=[*audit, *(("sent", f"delivery/{100 + seq}") for seq, _ in EVENTS)],
        writes=writes,
        logs='{"event": "request", "status": 200}',
        canaries=[e["patient"]["value"] for _, e in EVENTS],
    )


def _point(node: Any, patients: dict[str, str]) -> None:
    """References to patients made literal, the others left logical."""
    if isinstance(node, dict):
        if "reference" in node and "identifier" in node:
            literal = patients.get(node["identifier"]["value"])
            node.pop("reference")
            if literal:
                node["reference"] = literal
        for value in node.values():
            _point(value, patients)
    elif isinstance(node, list):
        for item in node:
            _point(item, patients)


def test_a_good_history_has_no_breach() -> None:
    found = check(good())
    assert found == []
    assert len(good().writes) > 60


def of_type(history: History, type: str, number: int = 0) -> int:
    return [at for at, w in enumerate(history.writes) if w.type == type][number]


def changed(history: History, at: int, resource: Any) -> History:
    writes = list(history.writes)
    writes[at] = replace(writes[at], resource=resource)
    return replace(history, writes=writes)


def without_a_write(history: History) -> History:
    at = of_type(history, "MedicationAdministration")
    gone = history.writes[at]
    return replace(history, writes=[w for w in history.writes if (w.type, w.id) != (gone.type, gone.id)])


def not_in_the_ledger(history: History) -> History:
    return replace(history, acknowledged=[*history.acknowledged, history.ledger[0][1] | {"id": "lost"}])


def other_digits_in_the_ledger(history: History) -> History:
    first, *rest = history.acknowledged
    return replace(history, acknowledged=[first | {"note": "20.0"}, *rest])


def without_a_delivery(history: History) -> History:
    return replace(history, deliveries=history.deliveries[1:])


def twice(history: History) -> History:
    one = history.writes[of_type(history, "Procedure")]
    return replace(history, writes=[*history.writes, replace(one, id="second", position=999)])


def written_again(history: History) -> History:
    one = history.writes[of_type(history, "Procedure")]
    return replace(history, writes=[*history.writes, replace(one, version=2, position=999)])


def a_later_event_first(history: History) -> History:
    at = of_type(history, "Provenance", -1)
    writes = list(history.writes)
    writes[at] = replace(writes[at], position=-1)
    return replace(history, writes=sorted(writes, key=lambda w: int(w.position)))


def an_older_state_last(history: History) -> History:
    counts: dict[Any, list[Write]] = {}
    for write in history.writes:
        counts.setdefault((write.type, write.id), []).append(write)
    first, second = next(v for v in counts.values() if len(v) == 2)
    return replace(history, writes=[*history.writes, replace(first, version=3, position=999)])


def a_rounded_digit(history: History) -> History:
    at = of_type(history, "MedicationAdministration")
    text = dumps(history.writes[at].resource)
    assert b'"value":20.0,' in text or b'"value":40.0,' in text
    return changed(
        history, at, loads(text.replace(b'"value":20.0,', b'"value":20,').replace(b"40.0,", b"40,"))
    )


def about_another_patient(history: History) -> History:
    at = of_type(history, "MedicationAdministration")
    resource = history.writes[at].resource
    other = {"Patient/p0": "Patient/p1", "Patient/p1": "Patient/p0"}[resource["subject"]["reference"]]
    return changed(history, at, resource | {"subject": resource["subject"] | {"reference": other}})


def unaudited(history: History) -> History:
    return replace(history, audit=history.audit[1:])


def audited_twice(history: History) -> History:
    return replace(history, audit=[*history.audit, history.audit[-1]])


def a_broken_chain(history: History) -> History:
    return replace(history, chain_problems=["row 7 does not verify"])


def named_in_a_log(history: History) -> History:
    return replace(history, logs=f"failed for {next(iter(history.canaries))}")


def parked(history: History) -> History:
    first, *rest = history.deliveries
    audit = [row for row in history.audit if row != ("sent", f"delivery/{first.id}")]
    return replace(history, deliveries=[replace(first, status="parked", reason="why"), *rest], audit=audit)


def quiet_too_late(history: History) -> History:
    return replace(history, quiet_after_s=31.0)


SPOILED: list[tuple[Callable[[History], History], str]] = [
    (without_a_write, "I1"),
    (not_in_the_ledger, "I1"),
    (other_digits_in_the_ledger, "I1"),
    (without_a_delivery, "I1"),
    (twice, "I2"),
    (written_again, "I2"),
    (a_later_event_first, "I3"),
    (an_older_state_last, "I3"),
    (a_rounded_digit, "I4"),
    (about_another_patient, "I4"),
    (unaudited, "I5"),
    (audited_twice, "I5"),
    (a_broken_chain, "I5"),
    (named_in_a_log, "I6"),
    (parked, "I7"),
    (quiet_too_late, "I7"),
]


@pytest.mark.parametrize(("spoil", "invariant"), SPOILED, ids=lambda x: getattr(x, "__name__", x))
def test_a_spoiled_history_is_seen(spoil: Callable[[History], History], invariant: str) -> None:
    assert invariant in {breach.invariant for breach in check(spoil(good()))}


def test_every_invariant_has_a_spoiled_history() -> None:
    assert {invariant for _, invariant in SPOILED} == INVARIANTS.keys()


def test_states_that_nobody_saw_may_be_skipped() -> None:
    """Two changes in one transaction leave one version; its last state is what counts."""
    made = good()
    counts: dict[Any, list[Write]] = {}
    for write in made.writes:
        counts.setdefault((write.type, write.id), []).append(write)
    first, second = next(v for v in counts.values() if len(v) == 2)
    writes = [w for w in made.writes if w not in (first, second)] + [replace(second, version=1)]
    assert check(replace(made, writes=sorted(writes, key=lambda w: int(w.position)))) == []


def test_the_summary_counts_by_invariant() -> None:
    assert summary([Breach("I1", "a"), Breach("I1", "b"), Breach("I6", "c")]).startswith(
        "2 lost, 0 duplicated"
    )
