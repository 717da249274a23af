"""HL7 v2 messages out of a file: framed as on the wire, or one after the other as text. Pure.

A message of a text file begins at a line that begins with MSH; lines end in CR, LF or both. The segments of
batches (FHS, BHS, BTS, FTS) tell nothing of their messages and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .framing import START, Frame, Frames

_BEGINS = re.compile(rb"(?:\A|(?<=[\r\n]))(?=MSH[^A-Za-z0-9\r\n])")
_BATCH = re.compile(rb"(?:\A|(?<=[\r\n]))(?:FHS|BHS|BTS|FTS)[^\r\n]*[\r\n]*")
MARKS = (START, b"MSH", b"FHS", b"BHS")
"""How a file of messages begins."""


def messages_in(chunks: Iterable[bytes], most: int) -> Iterator[Frame]:
    """The messages of a file, given in pieces; one that is longer than `most` is not whole."""
    pieces = iter(chunks)
    first = next((piece for piece in pieces if piece.strip(b" \t\r\n")), b"")
    if first.lstrip(b" \t\r\n").startswith(START):
        yield from _framed(first, pieces, most)
    else:
        yield from _plain(first, pieces, most)


def _framed(first: bytes, pieces: Iterator[bytes], most: int) -> Iterator[Frame]:
    frames = Frames(most)
    yield from frames.feed(first)
    for piece in pieces:
        yield from frames.feed(piece)
    if frames.inside:
        yield frames.rest()


def _plain(first: bytes, pieces: Iterator[bytes], most: int) -> Iterator[Frame]:
    held = first
    while True:
        begins = [found.start() for found in _BEGINS.finditer(held)]
        for start, end in zip([0, *begins], begins, strict=False):
            yield from _frame(held[start:end], most)
        held = held[begins[-1] :] if begins else held
        if len(held) > 2 * most:
            yield Frame(held[:4096], whole=False)
            return
        piece = next(pieces, b"")
        if not piece:
            yield from _frame(held, most)
            return
        held += piece


def _frame(text: bytes, most: int) -> Iterator[Frame]:
    message = _BATCH.sub(b"", text).strip(b"\r\n \t")
    if message:
        yield Frame(message[:most], whole=len(message) <= most)
