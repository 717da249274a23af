"""HL7 v2 text (ER7) in and out: split by the separators it names, and rebuilt to the same bytes.

`dump(parse(data)) == data`, or `parse` refuses. A field stays as it was written, escapes and all; `unescape`
and `escape` are for the text of one component. HL7 v2 chapter 2: delimiters, escapes, character sets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mappings.rows import Issue, MappingError

Segment = list[str]
"""`segment[0]` is its name and `segment[n]` its field n, MSH-1 and MSH-2 included."""


@dataclass(frozen=True, slots=True)
class Separators:
    """MSH-1 and the characters of MSH-2, in their order."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


USUAL = Separators()


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its segments, and how they are written (`codec` is Python's name of its character set)."""

    segments: list[Segment]
    separators: Separators = USUAL
    codec: str = "ascii"
    ending: str = "\r"

    def first(self, name: str) -> Segment | None:
        """The first segment of this name."""
        return next((s for s in self.segments if s[0] == name), None)

    def field(self, name: str, number: int) -> str:
        """Field `number` of the first segment `name`, as it is written; empty where there is none."""
        segment = self.first(name)
        return segment[number] if segment is not None and number < len(segment) else ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The largest message that is read."""

    bytes: int = 16_000_000
    segments: int = 20_000
    fields: int = 2_000


SIZES = Sizes()
CODECS = {
    "": "ascii",
    "ASCII": "ascii",
    "ISO IR6": "ascii",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
"""HL7 table 0211 (MSH-18, its first repetition): the character sets that are read."""
SURE = frozenset({"ascii", "utf-8", "iso8859-1"})
"""Codecs that write what they read, byte for byte."""
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")


def _refuse(path: str, rule: str, message: str) -> MappingError:
    return MappingError([Issue(path, rule, message)])


def parse(data: bytes, *, charset: str = "", sizes: Sizes = SIZES) -> Message:
    """The message of these bytes; raises `MappingError`.

    `charset` (as in MSH-18) is that of a sender who leaves MSH-18 empty; without it such a message is ASCII.
    """
    if len(data) > sizes.bytes:
        raise _refuse("$", "size", f"{len(data)} bytes; at most {sizes.bytes} are accepted")
    separators = _separators(data)
    codec = _codec(data, separators, charset)
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, LookupError):
        raise _refuse("MSH-18", "charset", f"the bytes are not {codec}") from None
    if codec not in SURE and text.encode(codec, "replace") != data:
        raise _refuse("MSH-18", "charset", f"the bytes are not written as {codec} writes them")
    ending = _ending(text)
    segments = [line.split(separators.field) for line in text.split(ending)]
    _check(segments, sizes)
    segments[0].insert(1, separators.field)
    return Message(segments, separators, codec, ending)


def head(data: bytes) -> Message | None:
    """Its MSH alone, of a message that `parse` refuses: whom to answer, and about which control id."""
    first = re.split(rb"[\r\n]", data[:4096], maxsplit=1)[0]
    try:
        separators = _separators(first)
    except MappingError:
        return None
    segment = first.decode("iso8859-1").split(
        separators.field
    )  # whatever MSH-18 says: it may be what is wrong
    return Message([["MSH", separators.field, *segment[1:]]], separators, "iso8859-1")


def dump(message: Message) -> bytes:
    """The bytes of a message; raises `MappingError` where its character set cannot hold a character."""
    mark = message.separators.field
    head = message.segments[0]
    lines = [f"{head[0]}{mark}{mark.join(head[2:])}", *(mark.join(s) for s in message.segments[1:])]
    try:
        return message.ending.join(lines).encode(message.codec)
    except UnicodeEncodeError:
        raise _refuse(
            "MSH-18", "charset", f"{message.codec} cannot hold a character of the message"
        ) from None


def _separators(data: bytes) -> Separators:
    if not data.startswith(b"MSH"):
        raise _refuse("MSH", "required", "a message begins with MSH")
    marks = data[3:4] + data[4:10].split(data[3:4] or b"|", 1)[0]
    shown = marks.decode("ascii", "replace")
    wrong = (
        len(marks) not in (5, 6)
        or len(set(marks)) != len(marks)
        or any(not 0x20 < mark < 0x7F or chr(mark).isalnum() for mark in marks)
    )
    if wrong:
        raise _refuse("MSH-2", "separators", "MSH-1 and MSH-2 must be five (or six) different marks")
    return USUAL if shown[:5] == "|^~\\&" else Separators(*shown[:5])


def _codec(data: bytes, separators: Separators, charset: str) -> str:
    fields = re.split(rb"[\r\n]", data, maxsplit=1)[0].split(separators.field.encode(), 18)
    said = fields[17].split(separators.repetition.encode())[0] if len(fields) > 17 else b""
    name = said.split(separators.component.encode())[0].decode("ascii", "replace").strip() or charset
    codec = CODECS.get(name)
    if codec is None:
        raise _refuse("MSH-18", "charset", f"unknown character set {name[:40]!r}; known: {', '.join(CODECS)}")
    return codec


def _ending(text: str) -> str:
    """What ends a segment: the standard's return; files also have line feeds, or both."""
    returns = text.count("\r")
    if not returns:
        return "\n"
    both = text.count("\r\n")
    if not both:
        return "\r"
    if both != returns:
        raise _refuse("$", "segment-end", "some segments end with CR LF and others with CR: which is it?")
    return "\r\n"


@lru_cache(maxsize=1024)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _check(segments: list[Segment], sizes: Sizes) -> None:
    if len(segments) > sizes.segments:
        raise _refuse("$", "size", f"{len(segments)} segments; at most {sizes.segments} are accepted")
    for number, segment in enumerate(segments, start=1):
        if len(segment) > sizes.fields:
            raise _refuse(f"{segment[0][:3]}[{number}]", "size", f"more than {sizes.fields} fields")
        if not _is_name(segment[0]) and (segment != [""] or number == 1):
            raise _refuse("$", "segment", f"line {number} does not begin with the name of a segment")
        if segment[0] == "MSH" and number > 1:
            raise _refuse("MSH", "segment", f"line {number} begins another message")


# --- the text of a component ----------------------------------------------------------------------------

_LINE_BREAK = ".br"


def escape(text: str, separators: Separators = USUAL) -> str:
    """`text` with separators, line breaks and control characters escaped."""
    mark = separators.escape
    if text.isalnum():
        return text
    if text == '""':  # would read as the null of HL7
        return f"{mark}X2222{mark}"
    names = {
        mark: "E",
        separators.field: "F",
        separators.component: "S",
        separators.repetition: "R",
        separators.subcomponent: "T",
        "\n": _LINE_BREAK,
    }
    if not any(c in names or c < " " for c in text):
        return text
    return "".join(
        f"{mark}{names[c]}{mark}" if c in names else f"{mark}X{ord(c):02X}{mark}" if c < " " else c
        for c in text
    )


def unescape(text: str, separators: Separators = USUAL) -> str:
    """The text of a component; an escape that is no character (highlighting, say) stays as it is."""
    mark = separators.escape
    if mark not in text:
        return text
    known = {
        "E": mark,
        "F": separators.field,
        "S": separators.component,
        "R": separators.repetition,
        "T": separators.subcomponent,
        _LINE_BREAK: "\n",
    }
    pieces = text.split(mark)
    out = [pieces[0]]
    at = 1
    while at < len(pieces):
        if at + 1 == len(pieces):  # a mark without a partner
            out.append(mark + pieces[at])
            break
        name = pieces[at]
        meant = known.get(name)
        if meant is None and re.fullmatch(r"X(?:[0-7][0-9A-Fa-f])+", name):
            meant = bytes.fromhex(name[1:]).decode("ascii")
        out.append(f"{mark}{name}{mark}" if meant is None else meant)
        out.append(pieces[at + 1])
        at += 2
    return "".join(out)
