"""mappings/r4_types.json from HL7's own FHIR R4 4.0.1 definitions: `python -m tests.r4_definitions`.

The definitions are those of HAPI's validator (Maven: hapi-fhir-validation-resources-r4), which is in the
local Maven repository once fixtures/hapi is built. To check one more resource type, add its name below.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from zipfile import ZipFile

TYPES = (
    "Appointment",
    "Binary",
    "Bundle",
    "CapabilityStatement",
    "CareTeam",
    "ClinicalImpression",
    "Condition",
    "Device",
    "DeviceUseStatement",
    "DocumentReference",
    "Flag",
    "Goal",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "OperationOutcome",
    "Patient",
    "Procedure",
    "Provenance",
    "Task",
)
TARGET = Path(__file__).parents[1] / "mappings" / "r4_types.json"
ARTIFACT = "ca/uhn/hapi/fhir/hapi-fhir-validation-resources-r4"
INSIDE = "org/hl7/fhir/r4/model/"
F = "{http://hl7.org/fhir}"
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
PROFILED = ("SimpleQuantity", "MoneyQuantity")
OPEN_ENDED = ("mimetypes", "languages", "all-languages", "currencies", "ucum-units")
"""Required value sets that no list can hold (currencies: their code system is ISO's, not HL7's)."""


REPOSITORY = Path.home() / ".m2" / "repository"


def jar(repository: Path = REPOSITORY) -> Path | None:
    """The newest copy of the definitions in the local Maven repository."""
    found = sorted((repository / ARTIFACT).glob("*/*.jar"))
    return found[-1] if found else None


def build(path: Path) -> dict[str, Any]:
    """Elements, required codes and error-level invariants of `TYPES` and of every datatype they use."""
    with ZipFile(path) as archive:
        structures = _structures(archive)
        value_sets = ValueSets(archive)
    types: dict[str, Any] = {}
    invariants: dict[str, Any] = {}
    wanted = list(TYPES)
    while wanted:
        name = wanted.pop()
        if name not in structures or name in types or structures[name].kind == "primitive-type":
            continue
        for type_, elements in structures[name].types(value_sets, invariants).items():
            types[type_] = elements
            wanted += [t for e in elements.values() for t in e["types"]]
    return {
        "fhirVersion": "4.0.1",
        "codes": dict(sorted(value_sets.used.items())),
        "resourceTypes": sorted(n for n, s in structures.items() if s.kind == "resource" and not s.abstract),
        "invariants": {
            key: {**invariants[key], "on": sorted(invariants[key]["on"])} for key in sorted(invariants)
        },
        "types": dict(sorted(types.items())),
    }


def _structures(archive: ZipFile) -> dict[str, Structure]:
    found = {}
    for part in ("types", "resources"):
        root = ET.fromstring(archive.read(f"{INSIDE}profile/profiles-{part}.xml"))
        for node in root.iter(f"{F}StructureDefinition"):
            name = _value(node, "name")
            if _value(node, "derivation") != "constraint" or name in PROFILED:
                found[name] = Structure(name, node)
    return found


def _value(node: ET.Element, name: str) -> str:
    child = node.find(F + name)
    return child.get("value", "") if child is not None else ""


class Structure:
    """One StructureDefinition: its types are itself and its backbone elements, by path."""

    def __init__(self, name: str, node: ET.Element) -> None:
        self.name, self.node = name, node
        self.kind, self.abstract = _value(node, "kind"), _value(node, "abstract") == "true"
        self.root = _value(node, "type")

    def types(self, value_sets: ValueSets, invariants: dict[str, Any]) -> dict[str, Any]:
        snapshot = self.node.find(f"{F}snapshot")
        assert snapshot is not None
        types: dict[str, Any] = {}
        for element in snapshot.findall(f"{F}element"):
            path = _value(element, "path").replace(self.root, self.name, 1)
            parent, _, name = path.rpartition(".")
            self._add_invariants(element, path, invariants)
            if not parent or _value(element, "max") == "0" or element.find(f"{F}sliceName") is not None:
                continue
            types.setdefault(parent, {})[name] = self._element(element, path, value_sets)
        return types

    def _element(self, element: ET.Element, path: str, value_sets: ValueSets) -> dict[str, Any]:
        made: dict[str, Any] = {"types": self._types(element, path)}
        if self.kind == "resource" and path == f"{self.name}.id":
            made["types"] = ["id"]
        if (least := int(_value(element, "min"))) > 0:
            made["min"] = least
        if _value(element, "max") != "1":
            made["many"] = True
        targets = {
            target.get("value", "").rsplit("/", 1)[1]
            for type_ in element.findall(f"{F}type")
            for target in type_.findall(f"{F}targetProfile")
            if _value(type_, "code") == "Reference"
        }
        if targets and "Resource" not in targets:
            made["targets"] = sorted(targets)
        binding = element.find(f"{F}binding")
        if binding is not None and _value(binding, "strength") == "required":
            url = _value(binding, "valueSet").partition("|")[0]
            if value_sets.expand(url):
                made["codes"] = url.rsplit("/", 1)[1]
                if made["types"] == ["CodeableConcept"]:
                    made["system"] = value_sets.system(url)
        return made

    def _types(self, element: ET.Element, path: str) -> list[str]:
        if content := _value(element, "contentReference"):
            return [content[1:]]
        names = []
        for type_ in element.findall(f"{F}type"):
            code = _value(type_, "code")
            if code.startswith("http://hl7.org/fhirpath/"):
                told = [e for e in type_.findall(f"{F}extension") if e.get("url") == FHIR_TYPE]
                code = _value(told[0], "valueUrl") or _value(told[0], "valueUri") if told else "string"
            profiles = [p.get("value", "").rsplit("/", 1)[1] for p in type_.findall(f"{F}profile")]
            names += profiles if code == "Quantity" and profiles and profiles[0] in PROFILED else [code]
        return [path if n in ("BackboneElement", "Element") and "." in path else n for n in names]

    @staticmethod
    def _add_invariants(element: ET.Element, path: str, invariants: dict[str, Any]) -> None:
        for constraint in element.findall(f"{F}constraint"):
            key = _value(constraint, "key")
            if _value(constraint, "severity") != "error" or key == "ele-1":
                continue
            if key == "ext-1":
                path = "Extension"
            made = invariants.setdefault(
                key,
                {
                    "human": _value(constraint, "human"),
                    "expression": _value(constraint, "expression"),
                    "on": [],
                },
            )
            if path not in made["on"]:
                made["on"].append(path)


class ValueSets:
    """The codes of a value set; those that were asked for and can be listed are in `used`."""

    def __init__(self, archive: ZipFile) -> None:
        self.sets: dict[str, ET.Element] = {}
        self.systems: dict[str, ET.Element] = {}
        self.used: dict[str, list[str]] = {}
        for part in ("valuesets", "v3-codesystems"):
            root = ET.fromstring(archive.read(f"{INSIDE}valueset/{part}.xml"))
            for node in root.iter(f"{F}ValueSet"):
                self.sets[_value(node, "url")] = node
            for node in root.iter(f"{F}CodeSystem"):
                self.systems[_value(node, "url")] = node

    def expand(self, url: str) -> list[str]:
        name = url.rsplit("/", 1)[1]
        if name in OPEN_ENDED:
            return []
        if name not in self.used:
            codes = self._codes(url)
            if not codes:
                raise ValueError(f"required value set without codes: {url}")
            self.used[name] = sorted(codes)
        return self.used[name]

    def system(self, url: str) -> str:
        """The one code system that a value set is made of."""
        (include,) = self.sets[url].findall(f"{F}compose/{F}include")
        return _value(include, "system")

    def _codes(self, url: str) -> set[str]:
        codes: set[str] = set()
        compose = self.sets[url].find(f"{F}compose")
        assert compose is not None and compose.find(f"{F}exclude") is None, url
        for include in compose.findall(f"{F}include"):
            listed = [_value(c, "code") for c in include.findall(f"{F}concept")]
            for inner in include.findall(f"{F}valueSet"):
                listed += self._codes(inner.get("value", ""))
            if not listed:
                assert include.find(f"{F}filter") is None, url
                listed = [
                    _value(c, "code") for c in self.systems[_value(include, "system")].iter(f"{F}concept")
                ]
            codes |= set(listed)
        return codes


def dump(definitions: dict[str, Any]) -> str:
    """JSON with one code list, invariant or element a line, for reading diffs."""
    lines = []
    for key, value in definitions.items():
        if isinstance(value, dict):
            rows = [f"  {json.dumps(k)}: {_row(v)}" for k, v in value.items()]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _row(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()):
        return "{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


if __name__ == "__main__":
    source = jar()
    if source is None:
        sys.exit(f"missing: {ARTIFACT} in ~/.m2/repository; `make hapi-build` brings it")
    TARGET.write_text(dump(build(source)))
