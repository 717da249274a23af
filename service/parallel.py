"""Converts a stream on several processes, with the output in the order of the input.

A dose change needs the programs before it, so all lines of one pump go to one process. What a device
event says (that a pump is known, what it holds) every process must know, so each reads those, and one of
them answers. Memory is bounded: no more than a few batches are on their way at a time.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from itertools import islice

import msgspec

from mappings.exact_json import lines
from mappings.stream import Converter

from .conversion import Converted, line_from_fhir, line_to_fhir, teaches

BATCH = 1000
"""Lines of the stream that are spread at a time."""
AHEAD = 3
"""Batches on their way at a time."""

Share = list[tuple[int, bytes, bool]]
"""(line number, line, whether this process answers for it)."""


class _Peek(msgspec.Struct):
    """What decides where a line goes; whatever else is wrong with it, its process finds out."""

    type: str = ""
    pump: str = ""
    serial: str = ""
    parent: str = ""


_peek = msgspec.json.Decoder(_Peek).decode


def to_fhir(stream: Iterable[bytes], jobs: int, after: int = 0) -> Iterator[Converted]:
    """`conversion.to_fhir` on `jobs` processes; the same results in the same order."""
    wanted = ((n, line) for n, line in lines(stream) if n > after or teaches(line))
    return _spread(wanted, jobs, partial(_shares_by_pump, after=after), _to_fhir)


def from_fhir(stream: Iterable[bytes], source: str, jobs: int, after: int = 0) -> Iterator[Converted]:
    """`conversion.from_fhir` on `jobs` processes; the same results in the same order."""
    wanted = ((n, line) for n, line in lines(stream) if n > after)
    return _spread(wanted, jobs, _shares_in_turn, partial(_from_fhir, source))


def _spread(
    numbered: Iterator[tuple[int, bytes]],
    jobs: int,
    shared: Callable[[list[tuple[int, bytes]], int], list[Share]],
    work: Callable[[Share], list[Converted]],
) -> Iterator[Converted]:
    # Not forked: a progress bar's thread may hold a lock at that moment.
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        # A pool of one each: a process keeps what it has learned of its pumps.
        pools = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(jobs)]
        waiting: deque[list[Future[list[Converted]]]] = deque()
        while batch := list(islice(numbered, BATCH)):
            shares = shared(batch, jobs)
            waiting.append([pool.submit(work, share) for pool, share in zip(pools, shares, strict=True)])
            if len(waiting) == AHEAD:
                yield from _in_order(waiting.popleft())
        for sent in waiting:
            yield from _in_order(sent)


def _in_order(sent: list[Future[list[Converted]]]) -> list[Converted]:
    return sorted((one for future in sent for one in future.result()), key=lambda one: one.line)


def _shares_by_pump(batch: list[tuple[int, bytes]], jobs: int, after: int = 0) -> list[Share]:
    shares: list[Share] = [[] for _ in range(jobs)]
    for number, line in batch:
        try:
            seen = _peek(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            seen = _Peek()
        pump = seen.pump or seen.serial or seen.parent
        home = zlib.crc32(pump.encode("utf-8", "replace")) % jobs if pump else number % jobs
        for at, share in enumerate(shares):
            if at == home or seen.type == "device":
                share.append((number, line, at == home and number > after))
    return shares


def _shares_in_turn(batch: list[tuple[int, bytes]], jobs: int) -> list[Share]:
    return [[(number, line, True) for number, line in batch[at::jobs]] for at in range(jobs)]


# --- in the other processes -----------------------------------------------------------------------------


@cache
def _converter() -> Converter:
    """The one converter of this process."""
    return Converter()


def _to_fhir(share: Share) -> list[Converted]:
    done = [(line_to_fhir(_converter(), number, line), answers) for number, line, answers in share]
    return [one for one, answers in done if answers]


def _from_fhir(source: str, share: Share) -> list[Converted]:
    return [line_from_fhir(source, number, line) for number, line, _ in share]
