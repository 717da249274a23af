"""What the server holds: every version of every resource, and the pages of searches that go on.

Versions are only ever added, and stamped with the time that is given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from . import search
from .personality import Personality, lossy
from .wire import Refusal, Response

Json = Any
Key = tuple[str, str]
SAVED = "urn:itb-fhir:saved-by-somebody-else"
MOST_PAGES = 500
HIGHEST_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource; `resource` is None where it was deleted."""

    key: Key
    number: int
    updated: str
    method: str
    resource: Json

    @property
    def location(self) -> str:
        return f"{self.key[0]}/{self.key[1]}/_history/{self.number}"


@dataclass(slots=True)
class Page:
    """A search that has more than one page: its entries, kept as they were found."""

    entries: list[Json]
    size: int
    total: int


class Log:
    """Every version in the order in which it was written; what is newer than a moment is found at once."""

    def __init__(self) -> None:
        self._of: dict[str | None, list[Version]] = {None: []}
        # The latest time up to each version: it never falls, even where the server's clock was set back.
        self._latest: dict[str | None, list[str]] = {None: []}

    def __len__(self) -> int:
        return len(self._of[None])

    def __iter__(self) -> Iterator[Version]:
        return iter(self._of[None])

    def add(self, version: Version) -> None:
        """Put one at the end."""
        for name in (None, version.key[0]):
            latest = self._latest.setdefault(name, [])
            latest.append(max(version.updated, latest[-1]) if latest else version.updated)
            self._of.setdefault(name, []).append(version)

    def cut(self, length: int) -> Iterator[Version]:
        """Take off those behind the first `length`, the last one first."""
        while len(self) > length:
            version = self._of[None][-1]
            for name in (None, version.key[0]):
                self._of[name].pop()
                self._latest[name].pop()
            yield version

    def since(self, type: str | None, moment: datetime | None) -> Iterator[Version]:
        """Those of a type (or all), the last one first, back to where no later one is before the moment."""
        versions = self._of.get(type, [])
        first = 0 if moment is None else bisect_left(self._latest.get(type, []), stamp(moment))
        return (versions[at] for at in range(len(versions) - 1, first - 1, -1))


class State:
    """The server's memory. One request at a time: who calls holds a lock."""

    def __init__(self, personality: Personality, url: str = "http://ehr.invalid/fhir") -> None:
        self.personality = personality
        self.url = url
        self.versions: dict[Key, list[Version]] = {}
        self.log = Log()
        self._by_identifier: dict[tuple[str, str, str], list[Key]] = {}
        self._of_type: dict[str, dict[Key, int]] = {}  # in the order in which they were made, with its number
        self._pages: dict[str, Page] = {}
        self._last_id = 1000
        self._made = 0
        self._last_page = 0

    # --- what is taken --------------------------------------------------------------------------------

    def check(self, type: str | None, interaction: str) -> None:
        """Refusal 404 for a type that this server has not, 405 for what it does not take."""
        if type is None:
            return
        if type not in self.personality.interactions:
            raise Refusal(404, f"there is no resource type {type} here")
        if not self.personality.takes(type, interaction):
            raise Refusal(405, f"{interaction} is not supported for {type}")

    def check_bundle(self, kind: str) -> None:
        """Refusal 405 where this server takes no such bundle, or offers no such operations."""
        if not getattr(self.personality, kind):
            raise Refusal(405, f"{kind} is not supported")

    def size_of(self, count: str) -> int:
        """How many entries a page has, by `_count`."""
        return (
            min(int(count), HIGHEST_COUNT) if count.isdigit() and int(count) else self.personality.page_size
        )

    # --- what is there --------------------------------------------------------------------------------

    def newest(self, key: Key, as_of: datetime | None = None) -> Version | None:
        """The newest version, a tombstone too; None where there never was one (or not by then)."""
        there = self.versions.get(key, ())
        if as_of is None:
            return there[-1] if there else None
        limit = stamp(as_of)
        return next((v for v in reversed(there) if v.updated <= limit), None)

    def current(self, type: str, as_of: datetime | None = None) -> Iterator[Json]:
        """The resources of a type as they are now, in the order in which they were made."""
        for key in self._of_type.get(type, ()):
            found = self.newest(key, as_of)
            if found is not None and found.resource is not None:
                yield found.resource

    def count(self, type: str) -> int:
        """How many resources of a type there have been."""
        return len(self._of_type.get(type, ()))

    def matching(self, type: str, condition: str) -> list[Key]:
        """The keys of what a condition (`identifier=system|value`) finds."""
        pairs = [(name, value) for name, value in parse_qsl(condition.lstrip("?"), keep_blank_values=True)]
        if not pairs:
            raise Refusal(400, "a condition without a parameter would match everything")
        return [(type, r["id"]) for r in self.found(type, pairs, None)]

    def found(self, type: str, pairs: list[tuple[str, str]], as_of: datetime | None) -> list[Json]:
        """The resources that have every parameter."""
        known = self.personality.searches(type)
        for name, _ in pairs:
            if name not in known and self.personality.unknown_parameter == "refused":
                raise Refusal(400, f"unknown search parameter {name!r} for {type}")
        pairs = [(name, value) for name, value in pairs if name in known]
        made = [r for r in self._candidates(type, pairs, as_of) if _has_all(r, pairs)]
        return made

    def _candidates(self, type: str, pairs: list[tuple[str, str]], as_of: datetime | None) -> Iterator[Json]:
        """By the identifier or id where one is asked, else all of the type."""
        for name, value in pairs:
            asked = search.tokens(value)
            if name == "identifier" and all("|" in one and not one.endswith("|") for one in asked):
                names = [one.rpartition("|") for one in asked]
                keys = [k for s, _, v in names for k in self._by_identifier.get((type, s, v), ())]
            elif name == "_id":
                keys = [(type, one) for one in asked]
            elif name == "_lastUpdated" and (since := search.earliest(value)) is not None:
                changed = {version.key for version in self.log.since(type, since)}
                keys = sorted(changed, key=self._of_type.get(type, {}).__getitem__)
            else:
                continue
            for key in dict.fromkeys(keys):
                found = self.newest(key, as_of)
                if found is not None and found.resource is not None:
                    yield found.resource
            return
        yield from self.current(type, as_of)

    # --- writing --------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """An id of the server's own."""
        self._last_id += 1
        return str(self._last_id)

    def write(self, key: Key, resource: Json, method: str, now: datetime) -> Version:
        """Add a version, or give the newest where it says the same already (as HAPI does)."""
        there = self.newest(key)
        meta = _meta(resource, there.resource if there else None)
        kept = lossy(self.personality, {k: v for k, v in resource.items() if k not in ("id", "meta")})
        if there is not None and there.resource is not None and _same(there.resource, kept, meta):
            return there
        number = there.number + 1 if there else 1
        updated = stamp(now)
        whole = {"versionId": str(number), "lastUpdated": updated} | meta
        stored = {"resourceType": key[0], "id": key[1], "meta": whole, **kept}
        return self._add(Version(key, number, updated, method, stored))

    def touch(self, key: Key, now: datetime) -> None:
        """A new version that says the same, but for a tag: somebody else saved the record."""
        there = self.newest(key)
        if there is None or there.resource is None:
            return
        meta = there.resource["meta"]
        number, updated = there.number + 1, stamp(now)
        saved = {"system": SAVED, "code": str(number)}
        changed = {"versionId": str(number), "lastUpdated": updated, "tag": [*meta.get("tag", ()), saved]}
        self._add(Version(key, number, updated, "PUT", there.resource | {"meta": meta | changed}))

    def remove(self, key: Key, now: datetime) -> Version | None:
        """Add a tombstone; None where nothing is there."""
        there = self.newest(key)
        if there is None or there.resource is None:
            return None
        if self.personality.references == "checked" and self._is_referred_to(key):
            raise Refusal(409, f"{key[0]}/{key[1]} is referred to by another resource")
        return self._add(Version(key, there.number + 1, stamp(now), "DELETE", None))

    def undo(self, length: int) -> None:
        """Take back every version behind the first `length` of the log: a transaction that failed."""
        for version in self.log.cut(length):
            kept = self.versions[version.key]
            kept.pop()
            if not kept:
                del self.versions[version.key]
                del self._of_type[version.key[0]][version.key]

    def _add(self, version: Version) -> Version:
        if version.key not in self.versions:
            self.versions[version.key] = []
            self._made += 1
            self._of_type.setdefault(version.key[0], {})[version.key] = self._made
        self.versions[version.key].append(version)
        self.log.add(version)
        if version.resource is not None:
            for system, value in search.identifiers(version.resource):
                # Never taken out again: `found` looks at what is there now.
                listed = self._by_identifier.setdefault((version.key[0], system, value), [])
                if version.key not in listed:
                    listed.append(version.key)
        return version

    def _is_referred_to(self, key: Key) -> bool:
        wanted = f"{key[0]}/{key[1]}"
        return any(
            wanted in literal_references(v[-1].resource)
            for v in self.versions.values()
            if v[-1].resource is not None and v[-1].key != key
        )

    # --- pages ----------------------------------------------------------------------------------------

    def page(self, entries: list[Json], size: int, kind: str, now: datetime, self_url: str) -> Response:
        """The first page, and a link to the next where there is more."""
        if len(entries) > size:
            self._last_page += 1
            token = f"p{self._last_page:08x}"
            self._pages[token] = Page(entries, size, len(entries))
            if len(self._pages) > MOST_PAGES:
                del self._pages[next(iter(self._pages))]
            return self._page(token, 0, kind, now, self_url)
        body = searchset(entries, kind, stamp(now), len(entries), [("self", self_url)])
        return Response(200, body)

    def next_page(self, query: dict[str, str], now: datetime) -> Response:
        """What a `next` link leads to; 410 when it is no longer kept."""
        token, offset, kind = (
            query["_getpages"],
            query.get("_getpagesoffset", "0"),
            query.get("_bundletype", ""),
        )
        if token not in self._pages or not offset.isdigit():
            raise Refusal(410, f"the search {token} does not exist and may have expired")
        return self._page(token, int(offset), kind or "searchset", now, self.url)

    def _page(self, token: str, offset: int, kind: str, now: datetime, self_url: str) -> Response:
        kept = self._pages[token]
        links = [("self", self_url)]
        following = offset + kept.size
        if following < len(kept.entries):
            query = {"_getpages": token, "_getpagesoffset": following, "_bundletype": kind}
            links.append(("next", f"{self.url}?{urlencode(query)}"))
        return Response(200, searchset(kept.entries[offset:following], kind, stamp(now), kept.total, links))


def stamp(now: datetime) -> str:
    """An instant as HAPI writes it: milliseconds and an offset."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds")


def _has_all(resource: Json, pairs: list[tuple[str, str]]) -> bool:
    return all(search.is_match(resource, name, value) for name, value in pairs)


def _meta(resource: Json, there: Json) -> dict[str, Json]:
    """Profiles are replaced, tags and security labels add up (HAPI 8.8)."""
    sent = resource.get("meta", {})
    old = there.get("meta", {}) if there else {}
    made: dict[str, Json] = {"profile": sent["profile"]} if "profile" in sent else {}
    for name in ("tag", "security"):
        both = [*old.get(name, ()), *(one for one in sent.get(name, ()) if one not in old.get(name, ()))]
        if both:
            made[name] = both
    return made


def _same(there: Json, kept: Json, meta: dict[str, Json]) -> bool:
    old = {k: v for k, v in there.items() if k not in ("resourceType", "id", "meta")}
    old_meta = {k: v for k, v in there["meta"].items() if k not in ("versionId", "lastUpdated")}
    new = {k: v for k, v in kept.items() if k != "resourceType"}
    return old_meta == meta and old == new and _exactly(old) == _exactly(new)


def _exactly(node: Json) -> Json:
    """Compared digit for digit: 20.0 and 20.00 are equal as numbers and not as records."""
    if isinstance(node, dict):
        return {k: _exactly(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_exactly(item) for item in node]
    return (type(node).__name__, str(node))


def literal_references(node: Json) -> set[str]:
    """Every `reference` in a resource."""
    found: set[str] = set()
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            found.add(node["reference"])
        for value in node.values():
            if isinstance(value, (dict, list)):
                found |= literal_references(value)
    elif isinstance(node, list):
        for item in node:
            found |= literal_references(item)
    return found


def searchset(entries: list[Json], kind: str, now: str, total: int, links: list[tuple[str, str]]) -> Json:
    """A Bundle of what was found; `kind` is its type."""
    return {
        "resourceType": "Bundle",
        "meta": {"lastUpdated": now},
        "type": kind,
        "total": total,
        "link": [{"relation": name, "url": url} for name, url in links],
        "entry": entries,
    }
