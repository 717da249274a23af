"""JSON in and out with every digit kept.

Numbers with a fraction or an exponent become `Decimal`, whole numbers `int`; both are written back
with the digits they came with, always positionally (`1.50E-2` is kept as `0.0150`, as HAPI keeps it).
A duplicate key, NaN, trailing text or invalid UTF-8 is an error: JSON readers disagree about which of
two equal keys counts, and one of the two may be a dose (docs/fhir.md, "JSON").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec

from .rows import Issue, MappingError

Json = Any

MAX_DIGITS = 40  # FHIR promises 18 significant digits; more is kept, absurdly more is refused
MAX_EXPONENT = 30
SYNTAX_RULES = frozenset({"json", "utf-8", "duplicate-key", "number", "depth"})
"""Rules that say the text itself is not usable JSON (HTTP 400, not 422)."""


class _Unusable(ValueError):
    """A number or key the JSON grammar allows and this service does not."""

    def __init__(self, path: str, rule: str, message: str) -> None:
        self.issue = Issue(path, rule, message)
        super().__init__(message)


def _number(text: str) -> Decimal:
    if len(text) > MAX_DIGITS + 8:
        raise _Unusable("$", "number", f"a number of {len(text)} characters is not accepted")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _Unusable("$", "number", f"{text!r} is not a decimal number") from None
    if len(text) <= MAX_EXPONENT and "e" not in text and "E" not in text:
        return value  # too short to be beyond
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > MAX_EXPONENT or abs(value.adjusted()) > MAX_EXPONENT:
        raise _Unusable("$", "number", f"the exponent of {text} is beyond 10^{MAX_EXPONENT}")
    return Decimal(format(value, "f")) if "e" in text or "E" in text else value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _Unusable("$", "number", f"a number of {len(text)} digits is not accepted")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise _Unusable("$", "number", f"{text} is not a JSON number")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Unusable(key, "duplicate-key", f"the key {key!r} stands twice in one object")
            seen.add(key)
    return found


_DECODER = msgspec.json.Decoder(float_hook=_number)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_SORTING_ENCODER = msgspec.json.Encoder(decimal_format="number", order="sorted")
_EXPONENT = re.compile(rb"E[+-]\d")  # begins with a plain letter, so that the search is a quick one


def loads(data: bytes | str) -> Json:
    """Read one JSON text; raises `MappingError` with one of SYNTAX_RULES."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        value = _DECODER.decode(raw)
        if _ENCODER.encode(value) == raw:
            return value  # written again it is the same bytes: no duplicate key can hide in it
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # the careful reader below finds the words for it
    return _careful(raw)


def _careful(raw: bytes) -> Json:
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            parse_float=_number,
            parse_int=_integer,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
        _ENCODER.encode(value)  # a lone surrogate cannot be written again: refuse it here
        return value
    except _Unusable as error:
        issue = error.issue
    except UnicodeDecodeError as error:
        issue = Issue("$", "utf-8", f"invalid UTF-8 at byte {error.start}")
    except UnicodeEncodeError:
        issue = Issue("$", "utf-8", "a string holds half of a surrogate pair")
    except json.JSONDecodeError as error:
        issue = Issue("$", "json", f"{error.msg} at line {error.lineno} column {error.colno}")
    except RecursionError:
        issue = Issue("$", "depth", "nested too deeply")
    raise MappingError([issue])


def dumps(value: Json) -> bytes:
    """Write compact UTF-8 JSON; numbers positionally and with their own digits."""
    return _written(value, _ENCODER)


def copied(value: Json) -> Json:
    """A deep copy: as bytes and back, as that is the fastest way."""
    return reread(dumps(value))


def reread(written: bytes) -> Json:
    """What `dumps` wrote: our own text needs no second look."""
    return _DECODER.decode(written)


def dumps_sorted(value: Json) -> bytes:
    """`dumps` with the keys of each object in order."""
    return _written(value, _SORTING_ENCODER)


def _written(value: Json, encoder: msgspec.json.Encoder) -> bytes:
    out = encoder.encode(value)
    if _EXPONENT.search(out):
        out = encoder.encode(_positional(value))
    return out


def _positional(value: Json) -> Json:
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, dict):
        return {key: _positional(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_positional(item) for item in value]
    return value


def lines(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The non-blank lines of an NDJSON stream with their numbers, counted from 1."""
    for number, line in enumerate(stream, start=1):
        text = line.strip()
        if text:
            yield number, text
