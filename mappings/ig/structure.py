"""StructureDefinitions from the rows of the mappings: one profile a resource, one definition an extension.

Differentials only: a server or validator works out the snapshot from HL7's R4 definitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mappings.codes import ITB, LOCAL, definition
from mappings.identity import OWN
from mappings.paths import Json, Step
from mappings.r4_table import table
from mappings.rows import Codec, Mapping

from .catalogue import EXTENSIONS, MANY, Place, Profile, Steps

HL7 = "http://hl7.org/fhir/StructureDefinition/"


def places(mapping: Mapping) -> Iterator[Place]:
    """The places of a mapping's rows, without `resourceType`."""
    for always, steps in mapping.always:
        if steps[0].element not in ("resourceType", "meta"):
            yield Place(steps, holds=always.value, required=True)
    for row, _, path in mapping.rows:
        yield Place(path.steps, row.event, row.codec.holds, row.codec, row.required)
    for group, _, targets in mapping.groups:
        for _, steps in targets:
            yield Place(steps, ", ".join(group.events), required=_is_own_identifier(steps))
    for _, path in mapping.derived:
        yield Place(path.steps, note="follows from the rest", required=_is_own_identifier(path.steps))


def _is_own_identifier(steps: Steps) -> bool:
    where = steps[0].where
    return steps[0].element == "identifier" and bool(where and str(where[1]).startswith(OWN))


def of_profile(profile: Profile) -> list[Place]:
    """Every place of a profile, those of its own declarations behind those of its mappings."""
    found = [place for mapping in profile.mappings for place in places(mapping)]
    found += profile.more
    inside: list[Place] = []
    for place in found:
        head, rest = place.steps[0], place.steps[1:]
        if profile.inside:
            if head.element == "contained" and head.where == ("id", profile.inside) and rest:
                inside.append(Place(rest, place.event, place.holds, place.codec, place.required, place.note))
        elif head.element != "contained":
            inside.append(place)
    return [place for place in inside if place.steps[0].element != "resourceType"]


Order = tuple[tuple[int, int], ...]
"""Where an element stands: at each level its place in R4's definition, and the number of its slice."""


@dataclass
class Differential:
    """The elements that a profile says something about, in R4's order."""

    type: str
    elements: dict[Order, Json] = field(default_factory=dict)
    slices: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: Place) -> None:
        """Walk a place's path and note what it says of each element on it."""
        order: Order = ()
        owner, id, path = self.type, self.type, self.type
        for at, step in enumerate(place.steps):
            name, spec, chosen = element(owner, step.element)
            position = list(table()["types"][owner]).index(name)
            id, path = f"{id}.{name}", f"{path}.{name}"
            last = at == len(place.steps) - 1
            plain = self._element((*order, (position, 0)), id, path)
            if name.endswith("[x]"):
                self._choose(plain, chosen, place.target)
            slice = _slice(step, last, place)
            if slice is None:
                made = plain
                order = (*order, (position, 0))
            else:
                plain.setdefault("slicing", {"discriminator": [slice.discriminator], "rules": "open"})
                _at_least(plain, place.required)
                known = self.slices.setdefault(id, [])
                if slice.name not in known:
                    known.append(slice.name)
                order = (*order, (position, 1 + known.index(slice.name)))
                id = f"{id}:{slice.name}"
                made = self._element(order, id, path)
                made["sliceName"] = slice.name
                if slice.most:
                    made["max"] = slice.most
                if slice.element:
                    self._fix(order, id, path, chosen, slice)
            _at_least(made, place.required)
            made["mustSupport"] = True
            if step.element in ("extension", "modifierExtension") and step.where:
                made["type"] = [{"code": "Extension", "profile": [step.where[1]]}]
                return self._say(made, place)
            if last:
                return self._value(made, chosen, place)
            if not chosen.startswith(f"{self.type}.") and chosen not in ("Dosage", "Identifier"):
                return self._say(made, place)
            owner = chosen

    def listed(self) -> list[Json]:
        """The elements, root first, each slicing before its slices."""
        return [{"id": self.type, "path": self.type}, *(self.elements[key] for key in sorted(self.elements))]

    def _element(self, order: Order, id: str, path: str) -> Json:
        return self.elements.setdefault(order, {"id": id, "path": path})

    def _fix(self, order: Order, id: str, path: str, owner: str, slice: Slice) -> None:
        name, _, chosen = element(owner, slice.element)
        position = list(table()["types"][owner]).index(name)
        fixed = self._element((*order, (position, 0)), f"{id}.{name}", f"{path}.{name}")
        fixed |= {"min": 1, f"pattern{chosen[0].upper()}{chosen[1:]}": _bare(slice.holds)}

    @staticmethod
    def _choose(made: Json, chosen: str, target: str) -> None:
        types = {t["code"]: t for t in made.setdefault("type", [])}
        if chosen not in types:
            types[chosen] = {"code": chosen}
            made["type"].append(types[chosen])
        if target:
            types[chosen]["targetProfile"] = [definition(target)]

    def _value(self, made: Json, chosen: str, place: Place) -> None:
        if place.holds is not None and "sliceName" not in made:
            type = {"SimpleQuantity": "Quantity"}.get(chosen, chosen)
            made[f"pattern{type[0].upper()}{type[1:]}"] = _bare(place.holds)
        elif place.holds is not None and made["sliceName"] == "itb":
            made["patternCodeableConcept"] = _bare(place.holds)
        if place.codec is not None and place.codec.value_set:
            made["binding"] = binding(place.codec)
        self._say(made, place)

    @staticmethod
    def _say(made: Json, place: Place) -> None:
        if place.event:
            mapped = {"identity": "event", "map": place.event.replace("event.", "")}
            if mapped not in made.setdefault("mapping", []):
                made["mapping"].append(mapped)
        elif place.note and "mapping" not in made:
            made.setdefault("comment", place.note.capitalize() + ".")


@dataclass(frozen=True, slots=True)
class Slice:
    """How one item of a list is told from the others."""

    name: str
    discriminator: Json
    element: str = ""
    holds: Json = None
    most: str = ""


def _slice(step: Step, last: bool, place: Place) -> Slice | None:
    if step.where is None:
        if step.index is not None and last and isinstance(place.holds, dict) and "coding" in place.holds:
            return Slice("itb", {"type": "pattern", "path": "$this"})
        return None
    key, value = step.where
    if step.element == "extension":
        return Slice(
            _tail(value), {"type": "value", "path": "url"}, most="*" if _tail(value) in MANY else "1"
        )
    if isinstance(value, dict):
        code = value["coding"][0]["code"]
        return Slice(code, {"type": "pattern", "path": key}, key, value)
    return Slice(_tail(value), {"type": "value", "path": key}, key, value, "1")


def _tail(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _at_least(made: Json, required: bool) -> None:
    if required:
        made["min"] = 1


def _bare(value: Json) -> Json:
    """A pattern without the words: displays and shown units may differ."""
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if key not in ("display", "text", "unit")}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def element(owner: str, name: str) -> tuple[str, Json, str]:
    """(its name in the definitions, what they say, its type), e.g. `effective[x]`, {…}, `Period`."""
    known = table()["types"][owner]
    if name in known:
        return name, known[name], known[name]["types"][0]
    for choice, spec in known.items():
        if choice.endswith("[x]") and name.startswith(choice[:-3]):
            for type in spec["types"]:
                if name == f"{choice[:-3]}{type[0].upper()}{type[1:]}":
                    return choice, spec, type
    raise KeyError(f"{owner}.{name}")


def binding(codec: Codec) -> Json:
    """Required of our own codes; extensible where others stand among them, which a server may not know."""
    own = all(c["system"] == LOCAL for concept in codec.concepts for c in concept["coding"])
    return {"strength": "required" if own else "extensible", "valueSet": value_set_url(codec.value_set)}


def value_set_url(id: str) -> str:
    return f"{ITB}/ValueSet/{id}"


def profile_definition(profile: Profile, common: Json) -> Json:
    """The StructureDefinition of a profile; `common` is what all conformance resources share."""
    differential = Differential(profile.type)
    for place in of_profile(profile):
        differential.add(place)
    return {
        "resourceType": "StructureDefinition",
        "id": profile.id,
        "url": definition(profile.id),
        **common,
        "name": camel(profile.id),
        "title": profile.title,
        "description": profile.description,
        "fhirVersion": "4.0.1",
        "mapping": [{"identity": "event", "name": "The event JSON of itb-fhir"}],
        "kind": "resource",
        "abstract": False,
        "type": profile.type,
        "baseDefinition": f"{HL7}{profile.type}",
        "derivation": "constraint",
        "differential": {"element": differential.listed()},
    }


def camel(id: str) -> str:
    """`itb-refill` -> `ItbRefill`."""
    return "".join(part.capitalize() for part in id.split("-"))


@dataclass
class _Extension:
    """What the profiles together say of one extension."""

    contexts: set[str] = field(default_factory=set)
    values: dict[str, list[Place]] = field(default_factory=dict)
    """The places of its value (``""``) or of each of its parts."""


def extensions(profiles: Iterable[Profile]) -> dict[str, _Extension]:
    """Our extensions by id, with the elements that carry them."""
    found: dict[str, _Extension] = {}
    for profile in profiles:
        for place in of_profile(profile):
            trail = [profile.type]
            for at, step in enumerate(place.steps):
                if step.element == "extension" and step.where and step.where[1].startswith(ITB):
                    one = found.setdefault(_tail(step.where[1]), _Extension())
                    one.contexts.add(".".join(trail))
                    one.values.setdefault(_part(place.steps[at + 1 :]), []).append(place)
                    break
                trail.append(step.element)
    return found


def _part(rest: Steps) -> str:
    inner = rest[0]
    return str(inner.where[1]) if inner.element == "extension" and inner.where else ""


def extension_definition(id: str, one: _Extension, common: Json) -> Json:
    """The StructureDefinition of an extension: a value, or parts that each have one."""
    title, description = EXTENSIONS[id]
    elements: list[Json] = [{"id": "Extension", "path": "Extension", "max": "*" if id in MANY else "1"}]
    url = {"id": "Extension.url", "path": "Extension.url", "fixedUri": definition(id)}
    if "" in one.values:
        elements += [{"id": "Extension.extension", "path": "Extension.extension", "max": "0"}, url]
        elements.append(_value_element("Extension", one.values[""]))
    else:
        by_url = {"discriminator": [{"type": "value", "path": "url"}], "rules": "open"}
        elements.append({"id": "Extension.extension", "path": "Extension.extension", "slicing": by_url})
        for name, held in one.values.items():
            inner = f"Extension.extension:{name}"
            elements += [
                {
                    "id": inner,
                    "path": "Extension.extension",
                    "sliceName": name,
                    "min": 0,
                    "max": "1",
                },
                {"id": f"{inner}.extension", "path": "Extension.extension.extension", "max": "0"},
                {"id": f"{inner}.url", "path": "Extension.extension.url", "fixedUri": name},
                _value_element(inner, held),
            ]
        elements += [url, {"id": "Extension.value[x]", "path": "Extension.value[x]", "max": "0"}]
    return {
        "resourceType": "StructureDefinition",
        "id": id,
        "url": definition(id),
        **common,
        "name": camel(id),
        "title": title,
        "description": description,
        "fhirVersion": "4.0.1",
        "kind": "complex-type",
        "abstract": False,
        "context": [{"type": "element", "expression": c} for c in sorted(one.contexts)],
        "type": "Extension",
        "baseDefinition": f"{HL7}Extension",
        "derivation": "constraint",
        "differential": {"element": elements},
    }


def _value_element(inner: str, held: list[Place]) -> Json:
    types = {element("Extension", place.steps[-1].element)[2]: None for place in held}
    made: Json = {
        "id": f"{inner}.value[x]",
        "path": f"{inner.split(':')[0]}.value[x]",
        "min": 1,
        "type": [{"code": type} for type in types],
    }
    first = held[0]
    if first.holds is not None:
        (type,) = types
        made[f"pattern{type[0].upper()}{type[1:]}"] = _bare(first.holds)
    bound = [place.codec for place in held if place.codec is not None and place.codec.value_set]
    if bound:
        made["binding"] = binding(max(bound, key=lambda codec: len(codec.concepts)))
    return made
