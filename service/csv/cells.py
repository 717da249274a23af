"""What a cell of a CSV file says, by what its map states. Pure; nothing is guessed.

Each function raises `CellError` with a rule and words that do not repeat the cell: it may name a patient.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MILLIGRAM = re.compile(r"^mg(?=$|/)")
DIRECTIVES = {"Y", "y", "m", "d", "H", "I", "p", "M", "S", "z"}
"""Parts of a date format that mean the same in every language."""


class CellError(Exception):
    """A cell that is not what the map says."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule = rule
        super().__init__(message)


@cache
def number_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    """Digits with exactly these marks; groups are of three."""
    whole = r"[0-9]+" if not thousands else rf"(?:[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+|[0-9]+)"
    return re.compile(rf"(-?{whole})(?:{re.escape(decimal)}([0-9]+))?")


def number(text: str, decimal: str, thousands: str = "") -> Decimal:
    """`19,0` with `decimal` `,` is 19.0, every digit kept; anything else than those marks is refused."""
    match = number_pattern(decimal, thousands).fullmatch(text)
    if match is None:
        marks = f"{decimal!r} before the fraction"
        marks += f" and {thousands!r} between groups of three" if thousands else " and no other mark"
        raise CellError("decimal", f"is not a number with {marks}, as the map states")
    whole = match[1].replace(thousands, "") if thousands else match[1]
    return Decimal(f"{whole}.{match[2]}" if match[2] else whole)


def micrograms(value: Decimal, unit: str) -> tuple[Decimal, str]:
    """`0.5`, `mg/mL` -> `500`, `ug/mL`: an exact shift of the point."""
    return Decimal(format(value.scaleb(3), "f")), MILLIGRAM.sub("ug", unit)


@cache
def zone(name: str) -> tzinfo:
    """A zone of the IANA data, or a fixed offset such as `+01:00`; raises ValueError."""
    if fixed := re.fullmatch(r"([+-])(\d\d):(\d\d)", name):
        offset = timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return timezone(-offset if fixed[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone such as Europe/Berlin or +01:00") from None


def directives(format: str) -> list[str]:
    """The letters after % of a date format; raises ValueError for one that is not understood."""
    letters = re.findall(r"%(.?)", format)
    for letter in letters:
        if letter not in DIRECTIVES:
            raise ValueError(f"%{letter} is not understood; known: {', '.join(sorted(DIRECTIVES))}")
    return letters


def parsed(text: str, format: str, century: int | None) -> datetime:
    """The cell by its format; `%y` in the century that the map states."""
    try:
        made = datetime.strptime(text, format)
    except ValueError:
        raise CellError("date", f"is not a date of the form {format}") from None
    return made if century is None else made.replace(year=century * 100 + made.year % 100)


def with_offset(local: datetime, where: tzinfo | None) -> str:
    """ISO 8601 with offset; a local time that was twice or never is refused."""
    if local.tzinfo is not None:
        return local.isoformat()
    if where is None:
        raise CellError("time-zone", "has no offset from UTC; a time zone is never guessed")
    first, second = (local.replace(tzinfo=where, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        why = "the clocks were changed then, so this local time was twice or never: write it with its offset"
        raise CellError("time-zone", why)
    return first.isoformat()


_OFFSET = re.compile(r"(Z|[+-]\d\d:?\d\d)$")


def moment(
    text: str, format: str, where: tzinfo | None, century: int | None = None, time_of_day: str | None = None
) -> str:
    """A time with offset. `format` is `iso` or of `DIRECTIVES`; `time_of_day` is added to a bare date."""
    if format != "iso":
        whole = text if time_of_day is None else f"{text} {time_of_day}"
        return with_offset(
            parsed(whole, format if time_of_day is None else f"{format} %H:%M", century), where
        )
    if "T" in text and _OFFSET.search(text):
        return text
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", text):
            raise ValueError
        return with_offset(datetime.fromisoformat(text), where)
    except ValueError:
        raise CellError(
            "time", "is not a time such as 2025-02-03T12:00 or 2025-02-03T12:00:00-06:00"
        ) from None


def day(text: str, format: str, century: int | None = None) -> str:
    """`YYYY-MM-DD`, or `YYYY-MM` where the format has no day."""
    if format == "iso":
        return text
    made = parsed(text, format, century).date().isoformat()
    return made if "%d" in format else made[:7]
