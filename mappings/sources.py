"""What came together: finds the resource a Reference means among the resources at hand."""

from __future__ import annotations

from collections.abc import Iterable

from .paths import Json


class Sources:
    """The resources of one Bundle (or one resource), by fullUrl, type and id, and identifier."""

    def __init__(self, entries: Iterable[tuple[str | None, Json]] = ()) -> None:
        self.resources: list[Json] = []
        self._by_url: dict[str, Json] = {}
        self._by_identifier: dict[tuple[str, str, str], Json] = {}
        self._urls: dict[int, set[str]] = {}
        for url, resource in entries:
            self.add(url, resource)

    def add(self, url: str | None, resource: Json) -> None:
        """One more; where it is misshapen what that raises, and nothing is added."""
        type = resource.get("resourceType")
        names = _identifiers(resource)
        urls = {u for u in (url, f"{type}/{resource['id']}" if "id" in resource else None) if u}
        self.resources.append(resource)
        self._urls[id(resource)] = urls
        for known in urls:
            self._by_url[known] = resource
        for name in names:
            self._by_identifier[(str(type), *name)] = resource

    def find(self, reference: Json, holder: Json) -> Json | None:
        """The resource that `reference` in `holder` means: contained, by URL, or by identifier."""
        target = reference.get("reference", "")
        if target.startswith("#"):
            return next((c for c in holder.get("contained", []) if c.get("id") == target[1:]), None)
        if target in self._by_url:
            return self._by_url[target]
        name = reference.get("identifier", {})
        key = (str(reference.get("type")), str(name.get("system")), str(name.get("value")))
        return self._by_identifier.get(key)

    def pointing_at(self, type: str, element: str, resource: Json) -> Json | None:
        """The resource of `type` whose `element` refers to `resource`."""
        names = set(_identifiers(resource))
        urls = self._urls.get(id(resource), set())
        for candidate in self.resources:
            if candidate.get("resourceType") != type:
                continue
            reference = candidate.get(element) or {}
            name = reference.get("identifier", {})
            if reference.get("reference") in urls or (name.get("system"), name.get("value")) in names:
                return candidate
        return None


def _identifiers(resource: Json) -> list[tuple[str, str]]:
    found = resource.get("identifier", [])
    if not isinstance(found, list):
        return []
    return [(str(i.get("system")), str(i.get("value"))) for i in found if isinstance(i, dict)]
