"""The pages of one type's changes since a moment, so that nothing slips between two of them.

Servers that keep a search give its pages by their `next` links, which are followed as they are. Others cut
each page anew: what changes or is deleted meanwhile moves the rest, and a resource can slip to a page that
was read. As what is asked for is sorted by time, the next search then begins where the last page ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from mappings.fields import instant

from .ehr import Ehr, Missing, Page, Refused

Json = Any
T = TypeVar("T")
PER_PAGE = "500"
KEPT = "_getpages="
"""In a `next` link of HAPI: it leads to a search that was kept."""
RESTARTS = 3


@dataclass(frozen=True, slots=True)
class Window:
    """A page, the server's time when the window was begun, and up to when all was read once it is kept.

    `reached` is None while that cannot be said: the server does not sort.
    """

    page: Page
    begun: str | None
    reached: str | None


def changes(ehr: Ehr, type: str, since: str | None) -> Iterator[Window]:
    """The pages of what changed since; a page that is no longer kept begins the search again where it was.

    Raises `EhrError`. Resources may come twice.
    """
    begun: str | None = None
    reached = since
    for attempt in range(RESTARTS + 1):
        try:
            for window in _once(ehr, type, reached, begun):
                begun = begun or window.begun
                reached = window.reached or reached
                yield window
            return
        except Missing:
            if begun is None or attempt == RESTARTS:
                raise  # not a page of the search, but the search itself


def _once(ehr: Ehr, type: str, since: str | None, begun: str | None) -> Iterator[Window]:
    sorted_by_time = True
    pages = _search(ehr, type, since, sort=True)
    while (page := next(pages, None)) is not None:
        begun = begun or page.server_time
        times = [t for r in page.resources if (t := r.get("meta", {}).get("lastUpdated")) is not None]
        ascending = len(times) == len(page.resources) and in_order([since, *times] if since else times)
        sorted_by_time = sorted_by_time and ascending
        reached = times[-1] if sorted_by_time and times else None
        yield Window(page, begun, reached)
        if page.next is None:
            return
        if KEPT not in page.next and reached is not None and is_later(reached, since):
            since = reached
            pages = _search(ehr, type, since, sort=True)


def _search(ehr: Ehr, type: str, since: str | None, *, sort: bool) -> Iterator[Page]:
    params = {"_sort": "_lastUpdated"} if sort else {}
    params["_count"] = PER_PAGE
    if since is not None:
        params["_lastUpdated"] = f"ge{since}"
    pages = ehr.search(type, params)
    try:
        first = next(pages, None)
    except Refused:
        if not sort:
            raise
        yield from _search(ehr, type, since, sort=False)  # it cannot sort: then in any order
        return
    if first is not None:
        yield first
        yield from pages


def in_order(times: list[str]) -> bool:
    """Whether the times never go back."""
    found = [instant(text) for text in times]
    return all(a <= b for a, b in zip(found, found[1:], strict=False))


def is_later(one: str, other: str | None) -> bool:
    """Whether an instant is after another, or there is no other."""
    return other is None or instant(one) > instant(other)


def before(position: str, seconds: float) -> str:
    """So many seconds before a position, as a search writes it."""
    earlier: datetime = instant(position) - timedelta(seconds=seconds)
    return earlier.isoformat(timespec="milliseconds")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, of which the next is fetched while one is worked on: never more than two are held."""
    with ThreadPoolExecutor(1, thread_name_prefix="itb-ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
