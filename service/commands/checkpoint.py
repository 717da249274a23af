"""Where a job over the lines of a file stands, on disk, so that a killed one goes on where it was.

A checkpoint holds the number of lines done, a digest of those lines, how long each output was then, and
the counts. It is replaced whole, after the output is on the disk: whatever the moment of a kill, it says
no more than what is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from mappings import MappingError
from mappings.exact_json import dumps, loads

from .exits import Busy, Stopped

Item = TypeVar("Item")
FORMAT = 1
EVERY = 1000
"""Lines between two savings."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a job: `line` lines are done, `digest` is the sha256 of them."""

    line: int = 0
    digest: str = ""
    outputs: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    """What else a command must know to go on."""


def load(path: Path, job: str) -> Mark:
    """The mark of an earlier run of the same job, or the beginning; raises `Stopped` for another job's."""
    try:
        found = loads(path.read_bytes())
        if found["format"] != FORMAT or found["job"] != job:
            raise Stopped(f"{path} is the checkpoint of another job: name another file, or remove it")
        return Mark(found["line"], found["digest"], found["outputs"], found["counts"], found["more"])
    except FileNotFoundError:
        return Mark()
    except (MappingError, KeyError, TypeError):
        raise Stopped(f"{path} is not a checkpoint of this program") from None
    except OSError as error:
        raise Stopped(f"{path}: {error.strerror}") from None


def save(path: Path, job: str, mark: Mark) -> None:
    """Replace the checkpoint in one step."""
    content = {
        "format": FORMAT,
        "job": job,
        "line": mark.line,
        "digest": mark.digest,
        "outputs": mark.outputs,
        "counts": mark.counts,
        "more": mark.more,
    }
    replace(path, dumps(content) + b"\n")


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and on the disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Alone with this checkpoint, for as long as the process lives; raises `Busy`."""
    try:
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise Stopped(f"{path}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(f"another process works with {path}") from None
        yield


class Trail(Generic[Item]):
    """The lines of an input; `digest(n)` is that of its first n lines, for any n not asked before.

    Checks, as it passes the line of `mark`, that what is before it is what it was. What stands for lines (the
    messages of a stream, say) has its bytes by `said`.
    """

    def __init__(self, stream: Iterable[Item], mark: Mark, said: Callable[[Item], bytes]) -> None:
        self._stream, self._mark, self._said = stream, mark, said
        self._running = hashlib.sha256()
        self._ahead: deque[tuple[int, Any]] = deque([(0, self._running.copy())])
        self.line = 0

    def __iter__(self) -> Iterator[Item]:
        for line in self._stream:
            self.line += 1
            self._running.update(self._said(line))
            if self.line == self._mark.line:
                self._check()
            if self.line >= self._mark.line:
                self._ahead.append((self.line, self._running.copy()))
            yield line
        if self.line < self._mark.line:
            raise Stopped(f"the input ends before line {self._mark.line}, up to which it was done: {ANEW}")

    def _check(self) -> None:
        if self._running.hexdigest() != self._mark.digest:
            raise Stopped(f"lines 1 to {self.line} of the input are not those that were done: {ANEW}")

    def digest(self, line: int) -> str:
        """The sha256 of lines 1 to `line`."""
        while self._ahead[0][0] < line:
            self._ahead.popleft()
        return str(self._ahead[0][1].hexdigest())


ANEW = "remove the checkpoint to begin anew (what was taken in already is not taken in twice)"


class Output:
    """A file that grows, cut back to where the mark says it was."""

    def __init__(self, path: Path, mark: Mark) -> None:
        self.path = path
        done = mark.outputs.get(str(path))
        if mark.line and done is None:
            raise Stopped(f"{path} is not the file that was written up to the checkpoint: {ANEW}")
        try:
            self._file = path.open("r+b" if done else "wb")
            if done:
                if path.stat().st_size < done:
                    raise Stopped(f"{path} is shorter than it was at the checkpoint: {ANEW}")
                self._file.truncate(done)
                self._file.seek(done)
        except OSError as error:
            raise Stopped(f"{path}: {error.strerror}") from None

    def write(self, data: bytes, end: bytes = b"\n") -> None:
        """Add a line, or what has another end."""
        self._file.write(data + end)

    def settle(self) -> int:
        """Have all of it on the disk; its length."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
