"""Every conformance resource of the guide."""

from __future__ import annotations

from collections.abc import Iterable

from mappings.codes import DISPLAY, ITB, LOCAL
from mappings.paths import Json

from .catalogue import CONFORMANCE, PROFILES, SEARCHES, VALUE_SETS, Search
from .structure import (
    camel,
    extension_definition,
    extensions,
    of_profile,
    profile_definition,
    value_set_url,
)

NAME = "itb-fhir"


def definitions(version: str, capability: Json | None = None) -> list[Json]:
    """Profiles, extensions, terminology, search parameters, and the guide that lists them.

    `capability` is the CapabilityStatement of a server of this version, which is turned into what such a
    server must offer.
    """
    common = {"version": version, "status": "active", "experimental": False, **CONFORMANCE}
    made = [profile_definition(profile, common) for profile in PROFILES]
    known = extensions(PROFILES)
    made += [extension_definition(id, known[id], common) for id in sorted(known)]
    made.append(code_system(common))
    made += value_sets(common)
    made += [search_parameter(search, common) for search in SEARCHES]
    if capability is not None:
        made.append(requirements(capability, common))
    return [*made, implementation_guide(made, common)]


def code_system(common: Json) -> Json:
    """The local codes, all of them."""
    return {
        "resourceType": "CodeSystem",
        "id": "itb",
        "url": LOCAL,
        **common,
        "name": "Itb",
        "title": "Intrathecal baclofen therapy",
        "description": "Concepts of intrathecal baclofen therapy for which no standard code was verified.",
        "caseSensitive": True,
        "content": "complete",
        "count": len(DISPLAY),
        "concept": [{"code": code, "display": display} for code, display in DISPLAY.items()],
    }


def value_sets(common: Json) -> list[Json]:
    """A ValueSet for every codec that names one, with the concepts that it reads and writes."""
    found: dict[str, dict[str, dict[str, Json]]] = {}
    for profile in PROFILES:
        for place in of_profile(profile):
            if place.codec is None or not place.codec.value_set:
                continue
            systems = found.setdefault(place.codec.value_set, {})
            for coding in (c for concept in place.codec.concepts for c in concept["coding"]):
                shown = {"display": coding["display"]} if "display" in coding else {}
                systems.setdefault(coding["system"], {})[coding["code"]] = {"code": coding["code"], **shown}
    return [
        {
            "resourceType": "ValueSet",
            "id": id,
            "url": value_set_url(id),
            **common,
            "name": camel(id),
            "title": VALUE_SETS[id],
            "compose": {
                "include": [
                    {"system": system, "concept": list(codes.values())} for system, codes in found[id].items()
                ]
            },
        }
        for id in sorted(found)
    ]


def search_parameter(search: Search, common: Json) -> Json:
    """A search that R4 lacks."""
    return {
        "resourceType": "SearchParameter",
        "id": search.id,
        "url": f"{ITB}/SearchParameter/{search.id}",
        **common,
        "name": camel(search.id),
        "description": search.description,
        "code": search.id,
        "base": list(search.bases),
        "type": search.type,
        "expression": search.expression,
    }


def requirements(capability: Json, common: Json) -> Json:
    """What a server of this kind offers, from the statement of one that runs."""
    named: dict[str, list[str]] = {}
    for profile in PROFILES:
        if not profile.inside:
            named.setdefault(profile.type, []).append(f"{ITB}/StructureDefinition/{profile.id}")
    (rest,) = capability["rest"]
    resources = [
        {**one, "supportedProfile": named[one["type"]]} if one["type"] in named else one
        for one in rest["resource"]
    ]
    return {
        "resourceType": "CapabilityStatement",
        "id": NAME,
        "url": f"{ITB}/CapabilityStatement/{NAME}",
        **common,
        "name": camel(NAME),
        "title": "Server of intrathecal baclofen pump records",
        "description": "The FHIR side of itb-fhir: what can be read, searched, sent and validated.",
        "kind": "requirements",
        "fhirVersion": capability["fhirVersion"],
        "format": capability["format"],
        "rest": [{**rest, "resource": resources}],
    }


def implementation_guide(made: Iterable[Json], common: Json) -> Json:
    """The list of what belongs to the guide."""
    return {
        "resourceType": "ImplementationGuide",
        "id": NAME,
        "url": f"{ITB}/ImplementationGuide/{NAME}",
        **common,
        "name": camel(NAME),
        "title": "Intrathecal baclofen pump therapy",
        "packageId": NAME,
        "license": "Apache-2.0",
        "fhirVersion": ["4.0.1"],
        "definition": {
            "resource": [
                {
                    "reference": {"reference": f"{one['resourceType']}/{one['id']}"},
                    "name": one.get("title", one["name"]),
                }
                for one in made
            ]
        },
    }
