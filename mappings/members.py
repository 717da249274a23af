"""Items of an event that are resources of their own: goals, scores, medicines tried.

Each carries the event's identifier with its number behind it (`clinic-a.E-1/2`), and the primary resource
refers to it, so that whoever reads the primary finds them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import identity
from .codes import sid
from .envelope import Event
from .paths import Json, parse
from .rows import Codec, Group, Issue, Mapping, MappingError, Refused
from .sources import Sources

AT_MOST = 200


def numbered(kind: str) -> Group:
    """(source, id, number) of the item ⇄ its business identifier."""
    path = f"identifier[system={sid(kind)}].value"

    def read(found: Json) -> Json:
        value, slash, number = str(found.pop(path, "")).rpartition("/")
        pair = identity.split_value(value)
        if pair is None or not number.isdecimal():
            raise Refused("identifier", f"needs an identifier of {sid(kind)} of the form source.id/number")
        return {"event.source": pair[0], "event.id": pair[1], "event.number": int(number)}

    def write(key: Json) -> Json:
        value = identity.business_value(key["event.source"], key["event.id"])
        return {path: f"{value}/{key['event.number']}"}

    return Group(("event.source", "event.id", "event.number"), (path,), Codec(write, read))


def parted(primary: Json, element: str, kind: str, sources: Sources) -> Json:
    """Take the reference of `kind` out of the list `element`, and give the resource it means.

    Raises `MappingError` when there is none, or it did not come with the primary resource.
    """
    listed = primary.get(element, [])
    wanted = next((r for r in listed if (r.get("identifier") or {}).get("system") == sid(kind)), None)
    found = sources.find(wanted, primary) if wanted is not None else None
    if found is None:
        why = f"the resource with the identifier {sid(kind)} did not come with it"
        raise MappingError([Issue(f"{primary.get('resourceType', '')}.{element}", "reference", why)])
    primary[element] = [reference for reference in listed if reference is not wanted]
    return found


def same_patient(part: Json, event: Event, type: str) -> Json:
    """What a part says, without the patient, who must be the event's; raises `MappingError` (P4)."""
    if part.pop("patient", event["patient"]) != event["patient"]:
        raise MappingError([Issue(f"{type}.subject", "P4", "is another patient than the event's")])
    return part


@dataclass(frozen=True, slots=True)
class Members:
    """The items of `field`, each a `type` with an identifier of `kind`, referred to in the list `link`.

    The rows of `mapping` see an item with the event's own fields under `event.`.
    """

    field: str
    type: str
    kind: str
    link: str
    mapping: Mapping

    def encode(self, event: Event) -> list[Json]:
        """The resource of each item."""
        whole = {"status": "final", **event}
        return [
            self.mapping.encode({**item, "event": {**whole, "number": number}})
            for number, item in enumerate(event.get(self.field, ()), start=1)
        ]

    def references(self, event: Event) -> list[Json]:
        """A Reference to each item's resource."""
        value = identity.business_value(event["source"], event["id"])
        count = len(event.get(self.field, ()))
        return [identity.own(self.type, self.kind, f"{value}/{n}") for n in range(1, count + 1)]

    def decode(self, primary: Json, sources: Sources, event: Event) -> None:
        """Put the items that `primary` refers to into the event; raises `MappingError`."""
        items = []
        kept = []
        (step,) = parse(self.link)
        for reference in primary.get(step.element, []):
            if (reference.get("identifier") or {}).get("system") != sid(self.kind):
                kept.append(reference)
                continue
            found = sources.find(reference, primary)
            if found is None:
                why = f"the {self.type} it refers to did not come with it"
                raise MappingError([Issue(self.link, "reference", why)])
            items.append(self._item(found, event))
        if step.element in primary:
            primary[step.element] = kept
        if items:
            event[self.field] = [item for _, item in sorted(items, key=lambda pair: pair[0])]

    def _item(self, resource: Json, event: Event) -> tuple[int, Json]:
        """(its number, what it says); it must be of the event's patient."""
        item = self.mapping.read(resource)
        own = same_patient(item.pop("event"), event, self.type)
        return own["number"], item
