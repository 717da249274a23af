"""How an instant is written in the database: UTC text of one width, so that text order is time order."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_STAMP = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}\.[0-9]{6}Z"
)


def stamp(moment: datetime) -> str:
    """`2025-02-03T18:00:00.000000Z`; `moment` carries its offset (a naive one is a bug)."""
    if moment.tzinfo is None:
        raise ValueError("a moment without an offset cannot be stored")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_stamp(text: str) -> bool:
    """Whether `stamp` can have written this."""
    return _STAMP.fullmatch(text) is not None


def moment(stamped: str) -> datetime:
    """The aware instant of a stamp."""
    return datetime.strptime(stamped, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
