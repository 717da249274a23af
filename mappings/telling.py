"""Which resource tells which event: by a code of ours at one element, or by a profile it claims."""

from __future__ import annotations

from collections.abc import Iterator
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
        return any(
            coding.get("system") == LOCAL and coding.get("code") in self.codes
            for concept in _concepts(resource, self.element.split("."))
            for coding in concept.get("coding", [])
        )


def _concepts(node: Json, steps: list[str]) -> Iterator[Json]:
    """The CodeableConcepts at the path, through lists."""
    if isinstance(node, list):
        for item in node:
            yield from _concepts(item, steps)
    elif isinstance(node, dict) and not steps:
        yield node
    elif isinstance(node, dict) and steps[0] in node:
        yield from _concepts(node[steps[0]], steps[1:])
