"""How one sender writes HL7 v2: what its messages leave open, from a file of its own.

Nothing in it has a default that guesses: a time without offset needs `zone`, a patient number without an
authority needs `authorities`, a foreign OBX-3 or unit needs its line. docs/hl7.md, "A sender's file".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from mappings.identity import SOURCE
from mappings.rows import Issue, MappingError

Words = Mapping[str, str]
NONE: Words = MappingProxyType({})
VERSIONS = ("2.5.1", "2.6", "2.7", "2.7.1", "2.8")


@dataclass(frozen=True, slots=True)
class SenderMap:
    """One sender (or receiver): how it is read, and how it is written to.

    `source`: whose records those without a namespace in their id are; `namespaces`: namespace of an id ->
    source; `authorities`: assigning authority -> identifier system ("" for none said); `observations`: OBX-3
    as `code^system` -> event field; `codes`: a coded value as `code^system` -> our word; `units`: unit as
    `code` or `code^system` -> UCUM; `zone`: IANA time zone of times without offset; `whole_minutes`: a time
    to the minute is meant to the second :00; `intrathecal_refill`: what to do with a refill that says route
    IT, `remap` or `park`; `reservoir_from`: mL from which such a volume is a reservoir's. `write_zone`: times
    are written as that zone's clocks show them, with its offset; `write_charset`: as in MSH-18.
    """

    source: str = ""
    namespaces: Words = field(default_factory=dict)
    authorities: Words = field(default_factory=dict)
    observations: Words = field(default_factory=dict)
    codes: Words = field(default_factory=dict)
    units: Words = field(default_factory=dict)
    zone: ZoneInfo | None = None
    charset: str = ""
    whole_minutes: bool = False
    intrathecal_refill: str = "park"
    reservoir_from: int = 5
    version: str = "2.6"
    sending: tuple[str, str] = ("ITB", "")
    receiving: tuple[str, str] = ("", "")
    accept_ack: str = "AL"
    application_ack: str = "NE"
    write_zone: ZoneInfo | None = None
    write_charset: str = "UNICODE UTF-8"
    theirs: dict[str, dict[str, str]] = field(default_factory=dict, repr=False, compare=False)
    """The word maps read backwards, for writing in the sender's own words."""


def sender_map(raw: Any) -> SenderMap:
    """The `SenderMap` of a parsed configuration file (TOML or JSON); raises `MappingError`."""
    if not isinstance(raw, dict):
        raise MappingError([Issue("$", "type", "a sender's file holds names and values")])
    issues: list[Issue] = []
    made: dict[str, Any] = {}
    for name, value in raw.items():
        check = CHECKS.get(name)
        if check is None:
            issues.append(Issue(name, "unknown-field", f"is not known; known: {', '.join(CHECKS)}"))
            continue
        try:
            made[name] = check(value)
        except (ValueError, TypeError, OSError, KeyError) as error:
            issues.append(Issue(name, "format", str(error) or "has another shape than expected"))
    if issues:
        raise MappingError(issues)
    made["theirs"] = {
        name: {word: code for code, word in made.get(name, NONE).items()} for name in ("authorities", "codes")
    }
    made["theirs"]["namespaces"] = {v: k for k, v in made.get("namespaces", NONE).items()}
    made["theirs"]["observations"] = {v: k for k, v in made.get("observations", NONE).items()}
    return SenderMap(**made)


def _words(value: Any) -> Words:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("must be a table of texts")
    return MappingProxyType(dict(value))


def _source(value: Any) -> str:
    if not isinstance(value, str) or not SOURCE.fullmatch(value):
        raise ValueError("must match [a-z0-9-]{1,40}")
    return value


def _sources(value: Any) -> Words:
    words = _words(value)
    for source in words.values():
        _source(source)
    return words


def _zone(value: Any) -> ZoneInfo:
    try:
        return ZoneInfo(value)
    except (KeyError, ValueError, TypeError, OSError):
        raise ValueError(f"{value!r} is not an IANA time zone such as America/Chicago") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _volume(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 40:
        raise ValueError("must be a whole number of mL from 1 to 40")
    return value


def _one_of(*choices: str) -> Any:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _pair(value: Any) -> tuple[str, str]:
    application, facility = value
    return _text(application), _text(facility)


CHECKS: dict[str, Any] = {
    "source": _source,
    "namespaces": _sources,
    "authorities": _words,
    "observations": _words,
    "codes": _words,
    "units": _words,
    "zone": _zone,
    "charset": _text,
    "whole_minutes": _flag,
    "intrathecal_refill": _one_of("remap", "park"),
    "reservoir_from": _volume,
    "version": _one_of(*VERSIONS),
    "sending": _pair,
    "receiving": _pair,
    "accept_ack": _one_of("AL", "NE", "ER", "SU"),
    "application_ack": _one_of("AL", "NE", "ER", "SU"),
    "write_zone": _zone,
    "write_charset": _one_of("UNICODE UTF-8", "ASCII", *(f"8859/{part}" for part in (*range(1, 10), 15))),
}
"""Every name a sender's file may have."""
