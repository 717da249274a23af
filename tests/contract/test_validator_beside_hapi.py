"""Our verdict beside HAPI's over thousands of resources: no false alarm, and every difference explained.

The resources are those of `tests/corpus.py` and the examples of the R4 specification; the explanations stand
in `validator_beside_hapi.toml`. `pytest -s` shows how many of each kind both, one or none refused.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import corpus
import golden
from mappings import MappingError
from mappings.exact_json import dumps, loads
from mappings.rows import Issue
from mappings.validate import validate
from service.hapi_server import start_hapi
from site_of_hapi import validator_of

EXPLAINED = tomllib.loads(Path(__file__).with_name("validator_beside_hapi.toml").read_text())
EXAMPLE = "R4 example"


@dataclass(frozen=True)
class Verdict:
    """What both say of a case: our issues, and HAPI's errors as text."""

    case: corpus.Case
    ours: list[Issue]
    theirs: list[str]

    def __str__(self) -> str:
        return f"{self.case.kind}: {self.case.name}: ours {self.ours[:2]}, theirs {self.theirs[:2]}"


def examples() -> list[corpus.Case]:
    """The specification's examples, but for one whose numbers are beyond what we read."""
    found = []
    for path in sorted((golden.FIXTURES / "r4-examples").glob("*.json")):
        try:
            found.append(corpus.Case(EXAMPLE, path.stem, loads(path.read_bytes())))
        except MappingError:
            assert path.stem == "Observation-decimal"
    return found


@pytest.fixture(scope="module")
def hapi_validate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], list[Any]]]:
    """The errors found by a HAPI of its own, which knows R4 and not our guide."""
    server = start_hapi(log_path=tmp_path_factory.mktemp("plain-hapi") / "hapi.log", load_guide=False)
    yield validator_of(server.base_url)
    server.stop()


@pytest.fixture(scope="module")
def verdicts(hapi_validate: Callable[[Any], list[Any]]) -> list[Verdict]:
    whole = corpus.valid()
    cases = [*whole, *corpus.varied(whole), *corpus.broken(whole), *examples()]

    def judged(case: corpus.Case) -> Verdict:
        theirs = [_text(issue) for issue in hapi_validate(case.resource)]
        return Verdict(case, validate(case.resource), theirs)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(judged, cases))
    _print(found)
    return found


def _text(issue: Any) -> str:
    coded = issue.get("details", {}).get("coding", [{}])[0].get("code", "")
    return f"{coded} {issue['diagnostics']}"


def _print(found: list[Verdict]) -> None:
    kinds: dict[str, Counter[str]] = {}
    for one in found:
        says = {(0, 0): "valid", (1, 1): "refused", (1, 0): "stricter", (0, 1): "missed"}
        kinds.setdefault(one.case.kind, Counter())[says[bool(one.ours), bool(one.theirs)]] += 1
    total: Counter[str] = sum(kinds.values(), Counter())
    for kind, counted in [*kinds.items(), ("all", total)]:
        print(f"{kind:44}" + "  ".join(f"{says} {n}" for says, n in sorted(counted.items())))


def explanation(side: str, one: Verdict, says: str) -> int | None:
    """The row that explains what one of the two says, if there is one."""
    for number, row in enumerate(EXPLAINED[side]):
        fits = says in row["rules"] if side == "stricter" else any(words in says for words in row["says"])
        if fits and one.case.kind in row["kinds"]:
            return number
    return None


def test_the_corpus_is_large_and_has_no_resource_twice() -> None:
    whole = corpus.valid()
    broken = {dumps(case.resource) for case in corpus.broken(whole)}
    assert len(whole) >= 1000 and len(broken) >= 1000
    assert not broken & {dumps(case.resource) for case in whole}
    assert {case.resource["resourceType"] for case in whole} >= set(corpus.CHECKED) - {"Medication"}


def test_both_find_nothing_in_what_is_valid(verdicts: list[Verdict]) -> None:
    kinds = {case.kind for case in corpus.valid()} | set(corpus.VARIES)
    assert [str(one) for one in verdicts if one.case.kind in kinds and (one.ours or one.theirs)] == []


def test_there_is_no_false_alarm_that_is_not_explained(verdicts: list[Verdict]) -> None:
    alarms = [one for one in verdicts if one.ours and not one.theirs]
    unexplained = [
        one for one in alarms if any(explanation("stricter", one, i.rule) is None for i in one.ours)
    ]
    assert [str(one) for one in unexplained] == []


def test_there_is_no_miss_that_is_not_explained(verdicts: list[Verdict]) -> None:
    misses = [one for one in verdicts if one.theirs and not one.ours]
    unexplained = [one for one in misses if any(explanation("missed", one, t) is None for t in one.theirs)]
    assert [str(one) for one in unexplained] == []


def test_every_explanation_is_needed(verdicts: list[Verdict]) -> None:
    used = {
        (side, explanation(side, one, says), one.case.kind)
        for one in verdicts
        if bool(one.ours) != bool(one.theirs)
        for side, said in (("stricter", [i.rule for i in one.ours]), ("missed", one.theirs))
        for says in said
    }
    rows = {(side, n, k) for side in EXPLAINED for n, row in enumerate(EXPLAINED[side]) for k in row["kinds"]}
    assert rows - used == set()
