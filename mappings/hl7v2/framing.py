"""A stream of bytes to messages, whatever holds them: MLLP blocks, text back to back, or JSON strings.

Which it is says the first byte that is no white space. Memory holds one message at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from mappings.exact_json import dumps, loads
from mappings.rows import Issue, MappingError

from .message import SIZES, Message, Sizes, dump

BLANK = b"\r\n \t"  # bytes.strip() would also take the start of an MLLP block
START, END = b"\x0b", b"\x1c"
"""MLLP: start and end of a block (HL7 MLLP release 1; the end is followed by a return)."""
Framed = tuple[int, bytes | MappingError]
_NEXT = re.compile(rb"[\r\n](?=(?:MSH|FHS|BHS|BTS|FTS)[^A-Za-z0-9\s])")
_BATCH = (b"FHS", b"BHS", b"BTS", b"FTS")


def is_hl7(head: bytes) -> bool:
    """Whether a stream that begins so holds messages (and not, say, a JSON object a line)."""
    return head.lstrip(BLANK).startswith((START, b"MSH", *_BATCH, b'"'))


def messages(stream: Iterable[bytes], *, sizes: Sizes = SIZES) -> Iterator[Framed]:
    """(number from 1, the bytes of a message or why it is none), without the envelope of a batch."""
    chunks = iter(stream)
    head = b""
    for chunk in chunks:
        head += chunk.lstrip(BLANK) if not head else chunk
        if head:
            break
    cut: Callable[[Iterator[bytes], int], Iterator[bytes | MappingError]] = _text
    if head.startswith(START):
        cut = _blocks
    elif head.startswith((b'"', b"{", b"[")):
        cut = _lines
    yield from enumerate(cut(_chained(head, chunks), sizes.bytes), start=1)


def _chained(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _too_large(most: int) -> MappingError:
    return MappingError([Issue("$", "size", f"more than {most} bytes without the end of a message")])


def _split(
    chunks: Iterator[bytes],
    most: int,
    end: Callable[[bytearray, int], tuple[int, int] | None],
    unended: Callable[[bytes], bytes | MappingError] = bytes,
) -> Iterator[bytes | MappingError]:
    """Pieces up to where `end` says (its end, begin of the next); one that is too large is skipped.

    `unended` makes of what is left at the end of the stream a piece, or why it is none.
    """
    buffer = bytearray()
    looked, skipping = 0, False
    for chunk in chunks:
        buffer += chunk
        while (found := end(buffer, looked)) is not None:
            piece, rest = bytes(buffer[: found[0]]), found[1]
            del buffer[:rest]
            if not skipping:
                yield piece
            looked, skipping = 0, False
        looked = max(0, len(buffer) - 8)
        if len(buffer) > most:
            if not skipping:
                yield _too_large(most)
            skipping = True
            del buffer[: len(buffer) - 8]
            looked = 0
    if buffer and not skipping:
        yield unended(bytes(buffer))


def _blocks(chunks: Iterator[bytes], most: int) -> Iterator[bytes | MappingError]:
    def end(buffer: bytearray, looked: int) -> tuple[int, int] | None:
        at = buffer.find(END, looked)
        return (at, at + 1) if at >= 0 else None

    for piece in _split(chunks, most, end, _cut_short):
        if isinstance(piece, MappingError):
            yield piece
            continue
        block = piece.lstrip(BLANK)
        if block.startswith(START):
            yield block[1:]
        elif block:
            yield MappingError([Issue("$", "framing", "bytes outside an MLLP block")])


def _cut_short(rest: bytes) -> bytes | MappingError:
    """A block without its end may lack its last segments, or the end of a number: it is no message."""
    if not rest.lstrip(BLANK).startswith(START):
        return rest
    return MappingError([Issue("$", "framing", "an MLLP block without its end: it was cut short")])


def _text(chunks: Iterator[bytes], most: int) -> Iterator[bytes | MappingError]:
    def end(buffer: bytearray, looked: int) -> tuple[int, int] | None:
        found = _NEXT.search(buffer, looked)
        return (found.end(), found.end()) if found else None

    for piece in _split(chunks, most, end):
        if isinstance(piece, MappingError):
            yield piece
            continue
        text = piece.lstrip(BLANK)
        if text and not text.startswith(_BATCH):
            yield text


def _lines(chunks: Iterator[bytes], most: int) -> Iterator[bytes | MappingError]:
    def end(buffer: bytearray, looked: int) -> tuple[int, int] | None:
        at = buffer.find(b"\n", looked)
        return (at, at + 1) if at >= 0 else None

    for piece in _split(chunks, most, end):
        if isinstance(piece, MappingError) or not piece.strip():
            if isinstance(piece, MappingError):
                yield piece
            continue
        try:
            value = loads(piece)
            if not isinstance(value, str):
                raise MappingError([Issue("$", "type", "a line must be one message as a JSON string")])
            yield value.encode("utf-8")
        except MappingError as error:
            yield error


FRAMES = ("text", "mllp", "ndjson")


def framed(message: Message, frame: str) -> bytes:
    """A message as it stands in a stream; raises `MappingError` for a JSON line of one that is not UTF-8."""
    data = dump(message)
    if frame == "mllp":
        return START + data + END + b"\r"
    if frame == "ndjson":
        if message.codec not in ("ascii", "utf-8"):
            raise MappingError([Issue("MSH[1]-18", "charset", "only UTF-8 and ASCII go into a JSON line")])
        return dumps(data.decode()) + b"\n"
    return data if data.endswith((b"\r", b"\n")) else data + message.ending.encode()
