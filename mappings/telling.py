"""Which resource tells which event: by a code of ours at one element, or by a profile it claims."""

from __future__ import annotations

from dataclasses import dataclass

from .codes import LOCAL, definition
from .paths import Json


@dataclass(frozen=True, slots=True)
class Telling:
    """A resource `type` that tells an event when `element` holds one of the local `codes`.

    `kind` is that of its business identifier, `profile` another sign by which it is known, `milligrams`
    says that mg is the unit of its doses, not one to be shifted to ug.
    """

    type: str
    kind: str
    element: str
    codes: tuple[str, ...]
    profile: str = ""
    milligrams: bool = False

    def tells(self, resource: Json) -> bool:
        """True for a resource that tells such an event."""
        if resource.get("resourceType") != self.type:
            return False
        if self.profile and definition(self.profile) in (resource.get("meta") or {}).get("profile", []):
            return True
        for concept in _concepts(resource, self.element):
            for coding in concept.get("coding", ()):
                if coding.get("system") == LOCAL and coding.get("code") in self.codes:
                    return True
        return False


def _concepts(resource: Json, element: str) -> list[Json]:
    """The CodeableConcepts at the element's path, through lists."""
    found = [resource]
    for step in element.split("."):
        found = [one for node in found for one in _objects(node.get(step))]
    return found


def _objects(value: Json) -> list[Json]:
    if type(value) is list:
        return [one for item in value for one in _objects(item)]
    return [value] if type(value) is dict else []
