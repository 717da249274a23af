"""Who a patient is on an EHR's server: by business identifier, and through merges of records (Patient.link).

A record that was merged away says `replaced-by`; the one that took it in may say `replaces`. Both are
followed to a depth, never in a circle; where they do not lead to one record that counts, a person must say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .ehr import Ehr, Missing

Json = Any
DEEPEST = 5
"""Merges of merges that are followed."""


class Unclear(Exception):
    """No patient, or several; the message says which and why, without naming anybody."""


class Nobody(Unclear):
    """No patient has this identifier."""


def find(ehr: Ehr, name: Json) -> str:
    """The id of the one patient that counts with this business identifier; raises `Unclear`, `EhrError`."""
    params = {"identifier": f"{name['system']}|{name['value']}"}
    found = [r for page in ehr.search("Patient", params) for r in page.resources]
    return surviving(found, lambda id: ehr.read("Patient", id), name["system"])


def surviving(found: Iterable[Json], read: Callable[[str], Json], system: str) -> str:
    """The id of the record that those found lead to."""
    ends: dict[str, Json] = {}
    for one in found:
        end = _end(one, read)
        ends[end["id"]] = end
    if not ends:
        raise Nobody(f"the EHR has no patient with this business identifier ({system})")
    if len(ends) > 1:
        raise Unclear(f"the EHR has {len(ends)} patients with this business identifier ({system})")
    return next(iter(ends))


def _end(one: Json, read: Callable[[str], Json]) -> Json:
    passed = [one["id"]]
    while following := linked(one, "replaced-by"):
        if len(following) > 1:
            raise Unclear(f"a merged patient of the EHR was replaced by {len(following)} others")
        if following[0] in passed:
            raise Unclear("the merged patients of the EHR replace each other in a circle")
        if len(passed) > DEEPEST:
            raise Unclear(f"the merged patients of the EHR are linked more than {DEEPEST} deep")
        try:
            one = read(following[0])
        except Missing:
            raise Unclear("a merged patient of the EHR was replaced by one that is not there") from None
        passed.append(one["id"])
    return one


def linked(patient: Json, kind: str) -> list[str]:
    """The ids of the patients that one is linked to by links of one type."""
    found = []
    for link in patient.get("link") or ():
        reference = ((link.get("other") or {}).get("reference") or "").partition("/_history")[0]
        type, _, id = reference.rpartition("/")
        if link.get("type") == kind and type.rpartition("/")[2] == "Patient" and id not in found:
            found.append(id)
    return found


def names(patient: Json, read: Callable[[str], Json]) -> tuple[list[Json], list[Json]]:
    """Business identifiers of the record that counts, and of all that were merged into it; raises `Unclear`.

    `patient` is any of them.
    """
    end = _end(patient, read)
    merged: list[Json] = []
    waiting, passed = [(end, 0)], {end["id"]}
    if patient["id"] not in passed:
        waiting.append((patient, 0))
        passed.add(patient["id"])
    while waiting:
        one, depth = waiting.pop()
        if one is not end:
            merged += _identifiers(one)
        for id in linked(one, "replaces"):
            if id in passed or depth >= DEEPEST:
                continue
            passed.add(id)
            try:
                waiting.append((read(id), depth + 1))
            except Missing:
                continue  # gone altogether: nothing can be called by its names
    return _identifiers(end), merged


def _identifiers(patient: Json) -> list[Json]:
    listed = patient.get("identifier") or ()
    return [{"system": i["system"], "value": i["value"]} for i in listed if "system" in i and "value" in i]
