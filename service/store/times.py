"""How an instant is written in the database: UTC text of one width, so that text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """`2025-02-03T18:00:00.000000Z`; `moment` carries its offset (a naive one is a bug)."""
    if moment.tzinfo is None:
        raise ValueError("a moment without an offset cannot be stored")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(stamped: str) -> datetime:
    """The aware instant of a stamp."""
    return datetime.strptime(stamped, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
