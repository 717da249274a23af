"""What an EHR holds of what we want there, read after a try whose outcome is not known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from mappings import identity
from mappings.bundle import is_telling
from mappings.exact_json import dumps, loads
from mappings.identity import content_hash, resource_identity
from mappings.weave import over, says_all
from service.store.endpoints import Endpoint
from service.store.links import Link, is_past_caches

from .ehr import Busy, Ehr, Gone, Missing
from .shape import Doubled, Key, Parcel, Unresolved, Wanted

Json = Any
LOOKS = 3
TOKENS = 20
"""Identifiers in one search: its address stays short."""


class Changed(Exception):
    """The EHR's users edited or deleted (`resource` None) something of ours that was not read yet."""

    def __init__(self, type: str, id: str, resource: Json) -> None:
        super().__init__(f"{type}/{id}")
        self.type, self.id, self.resource = type, id, resource


def read_back(
    ehr: Ehr, endpoint: Endpoint, parcels: list[Parcel], patients: Mapping[Key, str], now: datetime
) -> tuple[list[Parcel], list[Any]]:
    """The parcels with what the EHR holds now, and (parcel, error) of those that need a person or a look.

    `patients` as in `find`.
    """
    unknown = [one for parcel in parcels for one in parcel.wanted if one.link is None]
    types = {one.key: one.resource["resourceType"] for one in unknown}
    found = find(ehr, [one.key for one in unknown], types, patients)
    ready, stuck = [], []
    for parcel in parcels:
        try:
            ready.append(parcel.with_wanted(_agreed(ehr, endpoint, one, found, now) for one in parcel.wanted))
        except (Unresolved, Changed, Busy) as error:
            stuck.append((parcel, error))
    return ready, stuck


def _agreed(
    ehr: Ehr, endpoint: Endpoint, one: Wanted, found: Mapping[Key, list[Json]], now: datetime
) -> Wanted:
    """It, linked to what the EHR holds now; Changed where somebody edited or deleted it there."""
    before = one.link
    if before is not None and before.deleted_at is not None:
        return one
    remote = _linked(ehr, one, now) if before is not None else _only(one, found.get(one.key, []))
    if remote is None:
        return one
    if not _is_known(one, remote):
        raise Changed(remote["resourceType"], remote["id"], remote)
    hashed = content_hash(remote)
    link = link_of(endpoint, one.key, remote, hashed)
    if before is None or before.ours is None or hashed == one.hash:
        return replace(one, link=link, seen=True)
    woven = over(loads(before.ours), clothed(endpoint, one.resource), remote)
    if _holds(one, woven, remote):
        return replace(one, link=replace(link, ours=dumps(one.resource).decode()), seen=True)
    return replace(one, link=replace(link, ours=before.ours), seen=True, woven=woven)


def _is_known(one: Wanted, remote: Json) -> bool:
    """Whether it is as was agreed, or as we want it."""
    agreed = one.link
    if agreed is None:
        return not is_telling(remote) or _is_as_created(one, remote)
    return (
        agreed.version_id == remote["meta"]["versionId"]
        or content_hash(remote) in (agreed.content_hash, one.hash)
        or _was_woven(one, agreed, remote)
    )


def _is_as_created(one: Wanted, remote: Json) -> bool:
    """Whether nobody has edited what a try may have created, nor the server: it may have left something out.

    An earlier version of the record, as it was created, is known too.
    """
    return str(remote["meta"]["versionId"]) == "1" or says_all(remote, one.resource)


def _was_woven(one: Wanted, agreed: Link, remote: Json) -> bool:
    """Whether it holds ours and what others added before: then it is our own write. Not asked of a record.

    A record is read in instead: what was added to it may be one of its fields.
    """
    if agreed.ours is None or is_telling(remote):
        return False
    return _holds(one, over(loads(agreed.ours), one.resource, remote), remote)


def _holds(one: Wanted, woven: Json, remote: Json) -> bool:
    """Whether nothing would change there: all that we say is said, what we say no more is gone."""
    return content_hash(woven) == content_hash(remote) and says_all(one.resource, remote)


def _linked(ehr: Ehr, one: Wanted, now: datetime) -> Json:
    """What is there; an edit is believed when it was seen `LOOKS` times: a cache may be old.

    A deletion is believed on 410, and on 404 once no cache can be older than the resource; until then Busy.
    """
    assert one.link is not None
    type, id = one.link.resource_type, one.link.remote_id
    for left in range(LOOKS - 1, -1, -1):
        try:
            found = ehr.read(type, id)
        except Gone as error:
            raise Changed(type, id, None) from error
        except Missing as error:
            if left:
                continue
            if not is_past_caches(one.link, now):
                raise Busy(f"{type}/{id} is not found, and was there a moment ago", error.status) from error
            raise Changed(type, id, None) from error
        if not left or _is_known(one, found):
            break
    return found


def _only(one: Wanted, held: list[Json]) -> Json | None:
    if len(held) > 1:
        raise Doubled(one.resource["resourceType"], one.key, [resource["id"] for resource in held])
    return held[0] if held else None


def find(
    ehr: Ehr, keys: Collection[Key], types: Mapping[Key, str], patients: Mapping[Key, str] | None = None
) -> dict[Key, list[Json]]:
    """What the EHR holds under each identity; a few searches for many.

    `patients` names `Patient/id` of the identities that are found among their patient's resources: those of
    types that the server cannot search by identifier.
    """
    found: dict[Key, list[Json]] = {}
    among = {key: patient for key in keys if (patient := (patients or {}).get(key))}
    for type, patient in sorted({(types[key], patient) for key, patient in among.items()}):
        for page in ehr.search(type, {"patient": patient}):
            for remote in page.resources:
                for key in _names(remote) & {key for key in among if types[key] == type}:
                    found.setdefault(key, []).append(remote)
    left = [key for key in keys if key not in among]
    for type in sorted({types[key] for key in left}):
        wanted = sorted(key for key in left if types[key] == type)
        for at in range(0, len(wanted), TOKENS):
            some = wanted[at : at + TOKENS]
            for page in ehr.search(type, _params(type, some)):
                for remote in page.resources:
                    for key in _names(remote) & set(some):
                        found.setdefault(key, []).append(remote)
    return found


def _params(type: str, keys: list[Key]) -> dict[str, str]:
    if type == "Provenance":  # R4 gives it no identifier: its id is ours
        return {"_id": ",".join(value for _, value in keys)}
    return {"identifier": ",".join(identity.search_token(*key) for key in keys)}


def _names(remote: Json) -> set[Key]:
    """Every identity that a resource carries."""
    if remote["resourceType"] == "Provenance":
        return {resource_identity(remote)}
    listed = remote.get("identifier", [])
    every = [listed] if isinstance(listed, dict) else listed
    return {(one.get("system", ""), one.get("value", "")) for one in every}


def link_of(endpoint: Endpoint, key: Key, remote: Json, hashed: str) -> Link:
    """The link of our identity to a resource as the EHR answered with it."""
    return Link(
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
        system=key[0],
        value=key[1],
        resource_type=remote["resourceType"],
        remote_id=remote["id"],
        version_id=remote["meta"]["versionId"],
        content_hash=hashed,
    )


def clothed(endpoint: Endpoint, resource: Json) -> Json:
    """The resource as this EHR takes it: with our profiles or without."""
    if endpoint.options.get("claim_profiles", True):
        return resource
    return {name: value for name, value in resource.items() if name != "meta"}
