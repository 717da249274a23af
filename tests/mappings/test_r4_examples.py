"""The specification's own examples: read digit for digit, refused as not ours, kept as an EHR's additions.

None of them tells an event of ours. So that they can be what an EHR adds, each is grafted onto every golden
resource of its type: what ours does not have is taken from the example.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import golden
from mappings import MappingError, from_fhir, read_fhir
from mappings.bundle import encode, is_telling
from mappings.event import EVENTS_TOLD_BY
from mappings.exact_json import dumps, loads
from mappings.r4_table import CHECKED, table
from mappings.rows import Issue
from mappings.validate import validate
from mappings.weave import onto

Json = Any
EXAMPLES = sorted((golden.FIXTURES / "r4-examples").glob("*.json"))
BEYOND = "Observation-decimal"
"""Holds 1E-245 and -1E245: numbers that we refuse (docs/fhir.md, "JSON")."""
READ = [path for path in EXAMPLES if path.stem != BEYOND]


def example(path: Path) -> Json:
    return loads(path.read_bytes())


def named(path: Path) -> str:
    return path.stem


def test_there_is_an_example_of_every_type_that_tells_an_event() -> None:
    types = {path.stem.partition("-")[0] for path in EXAMPLES}
    assert set(EVENTS_TOLD_BY) <= types <= set(CHECKED)


# --- read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", READ, ids=named)
def test_an_example_is_written_again_digit_for_digit(path: Path) -> None:
    as_text = {"parse_float": str, "parse_int": str}
    again = json.loads(dumps(example(path)), **as_text)
    assert again == json.loads(path.read_bytes(), **as_text)


def test_an_absurd_number_is_refused_and_not_rounded() -> None:
    text = (golden.FIXTURES / f"r4-examples/{BEYOND}.json").read_bytes()
    with pytest.raises(MappingError, match="number: the exponent of 1.000000000000000000E-245"):
        loads(text)
    possible = text.replace(b"E-245", b"E-2").replace(b"E+245", b"E+10")
    again = dumps(loads(possible))
    assert b'"value":0.01000000000000000000,' in again
    assert b'"value":-10000000000.00000000,' in again
    assert b'"value":1.00,' in again and b'"value":1000000000000000000,' in again


INVALID = {
    "DeviceUseStatement-example": ("reference-target", "reasonReference names a Procedure"),
    "MedicationRequest-medrx0301": ("reference-target", "dispenseRequest.performer names a Practitioner"),
    "Observation-clinical-gender": ("reference-target", "performer names an Encounter"),
    "Procedure-f201": ("format", "instantiatesCanonical is relative"),
}
"""Examples that break a rule of R4; HAPI does not see the first three (validator_beside_hapi.toml)."""


@pytest.mark.parametrize("path", READ, ids=named)
def test_an_example_is_valid_unless_it_is_known_not_to_be(path: Path) -> None:
    assert [issue.rule for issue in validate(example(path))] == [
        INVALID[name][0] for name in [path.stem] if name in INVALID
    ]


@pytest.mark.parametrize("path", READ, ids=named)
def test_an_example_is_not_ours_and_is_left_as_it_is(path: Path) -> None:
    seen = example(path)
    with pytest.raises(MappingError) as refused:
        from_fhir(seen)
    rules = {issue.rule for issue in refused.value.issues}
    assert rules in ({"not-ours"}, {"rate-unit"})  # a rate without a unit is refused whoever wrote it
    assert seen == example(path)


# --- kept -------------------------------------------------------------------------------------------------


def grafted(ours: Json, theirs: Json, type: str) -> Json:
    """`ours` with all that only `theirs` has: elements, items of lists, extensions, `_siblings`."""
    made = copy.deepcopy(ours)
    choice = dict(_choices(type))
    taken = {choice[name.lstrip("_")] for name in ours if name.lstrip("_") in choice}
    for key, value in theirs.items():
        name = key.lstrip("_")
        if key not in ours:
            if choice.get(name) not in taken:
                made[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(ours[key], dict):
            made[key] = grafted(ours[key], value, _kind(type, key))
        elif isinstance(value, list) and isinstance(ours[key], list):
            made[key] += copy.deepcopy(value)
    return made


def _choices(type: str) -> list[tuple[str, str]]:
    found = []
    for name, definition in table()["types"].get(type, {}).items():
        for kind in definition["types"] if name.endswith("[x]") else ():
            shown = "Quantity" if kind == "SimpleQuantity" else kind
            found.append((name[:-3] + shown[0].upper() + shown[1:], name))
    return found


def _kind(type: str, key: str) -> str:
    definition = table()["types"].get(type, {}).get(key)
    return definition["types"][0] if definition else ""


def on_a_server(path: Path) -> list[Json]:
    """A golden event's resources as an EHR gives them back, the telling one first."""
    made = sorted(copy.deepcopy(encode(golden.events(path)[-1])), key=lambda r: not is_telling(r))
    for number, resource in enumerate(made):
        resource["id"] = str(number)
        resource.setdefault("meta", {}).update({"versionId": "3", "lastUpdated": "2026-01-01T00:00:00Z"})
    return made


def plain(resource: Json) -> Json:
    """Without what only a server may set, and the narrative."""
    left = {k: v for k, v in resource.items() if k not in ("meta", "text")}
    meta = {k: v for k, v in resource.get("meta", {}).items() if k not in ("versionId", "lastUpdated")}
    return left | ({"meta": meta} if meta else {})


OURS = {path: on_a_server(path) for path in golden.GOLDEN}
TELLING = [path for path in READ if path.stem.partition("-")[0] in EVENTS_TOLD_BY]
REFUSED = {
    "performer": "who did it is a literal reference alone: no business identifier, no name",
    "rate-unit": "a rate whose unit is no amount per time",
    "format": "another dosage, as if it were a step of ours",
    "timing": "another dosage, as if it were a step of ours",
    "unit": "another dosage, as if it were a step of ours",
    "derived": "a problem that has abated and is active all the same",
    "order": "an end that lies before our beginning",
    "code": "a device at an operation, with no role that we know",
}
"""What an example may add that is not guessed but refused, by rule: it would change what is told."""


def read_back(path: Path, ours: list[Json]) -> tuple[list[Issue], set[str]]:
    """Read what the example makes of ours and write it again: the issues, and what was left out for them.

    What is refused is that element alone: without it the rest of the example is kept.
    """
    first, *related = ours
    theirs, issues, out = example(path), [], set()
    while True:
        seen = grafted(first, theirs, first["resourceType"])
        before = dumps(seen)
        found = read_fhir(collection([seen, *related])).errors
        assert dumps(seen) == before
        if not found:
            break
        issues += found
        culprits = {culprit(issue) for issue in found}
        assert culprits & theirs.keys(), found
        out |= culprits
        theirs = {key: value for key, value in theirs.items() if key.lstrip("_") not in culprits}
    (told,) = from_fhir(collection([seen, *related]))
    assert plain(onto(told, seen, related)) == plain(loads(before))
    return issues, out


CULPRIT = {"verificationStatus": "abatementDateTime", "code": "focalDevice"}
"""Where the issue stands at another element than the one that was added."""


def culprit(issue: Issue) -> str:
    element = issue.path.removeprefix("Bundle.entry[0].resource.").partition(".")[0].partition("[")[0]
    return CULPRIT.get(element, element)


def collection(resources: list[Json]) -> Json:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


@pytest.fixture(scope="module")
def refusals() -> Iterator[Counter[str]]:
    """The rules that refused an addition; each of `REFUSED` is needed, and most additions are kept."""
    counted: Counter[str] = Counter()
    yield counted
    print(f"kept and refused: {counted}")
    assert counted.keys() - {"kept"} == REFUSED.keys()


@pytest.mark.parametrize("path", TELLING, ids=named)
def test_what_an_example_adds_to_ours_is_written_back_unchanged(path: Path, refusals: Counter[str]) -> None:
    for ours in OURS.values():
        if ours[0]["resourceType"] == path.stem.partition("-")[0]:
            issues, out = read_back(path, ours)
            assert out <= {
                "performer",
                "assessor",
                "dosage",
                "dosageInstruction",
                "effectivePeriod",
                "status",
            } | set(CULPRIT.values()), out
            refusals.update({issue.rule for issue in issues} or {"kept"})
