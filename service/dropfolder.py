"""A folder that is watched: what is put into `in` is taken, then moved to `done`, or to `failed`.

A file is read when it is whole: its size and time have stood still for `settle_s`, and nobody holds a lock on
it. Better: write it elsewhere (or as `.NAME`, `NAME.tmp`, `NAME.part`) and rename it into `in`. It is moved
only after what it holds is on the disk, so that a kill in between takes it twice, which changes nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mappings.exact_json import dumps
from mappings.rows import Issue
from service.problems import listed

from .file_intake import Contents

UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload")
LOCK = ".itb-watch"
MOST_LISTED = 1000


class FolderError(Exception):
    """The folder cannot be watched; the message says why."""


class FolderBusy(FolderError):
    """Another process watches it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: `done`, or `failed` with what was wrong."""

    name: str
    moved_to: Path
    contents: Contents

    @property
    def ok(self) -> bool:
        return not self.contents.failures

    @property
    def issues(self) -> list[Issue]:
        """The first of what was wrong in it, a row an item."""
        return [one.issues[0] for one in self.contents.failures[:MOST_LISTED]]

    def as_json(self) -> dict[str, Any]:
        """For reports and reason files: no content, only places, rules and counts."""
        found = self.contents
        return {
            "file": self.name,
            "outcome": "done" if self.ok else "failed",
            "moved_to": f"{self.moved_to.parent.name}/{self.moved_to.name}",
            "format": found.format,
            "counts": found.counts,
            "errors": [
                {"item": one.item, **error}
                for one in found.failures[:MOST_LISTED]
                for error in listed(one.issues)
            ],
            "unlisted": max(0, len(found.failures) - MOST_LISTED),
        }


Signature = tuple[int, int, int]


@dataclass
class DropFolder:
    """The folder and what is known of the files in it; `look` once, or again and again."""

    path: Path
    take: Callable[[BinaryIO], Contents]
    settle_s: float
    monotonic: Callable[[], float]
    _seen: dict[str, tuple[Signature, float]] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make what is missing of it and keep others out."""
        try:
            for name in ("in", "done", "failed"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("wb")
        except OSError as error:
            raise FolderError(f"{self.path}: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise FolderBusy(f"{self.path} is watched by another process") from None
            yield

    def look(self) -> Iterator[Outcome]:
        """Take what stands still, the oldest first."""
        for file, signature in self._candidates():
            if self._is_whole(file, signature) and (outcome := self._take(file)) is not None:
                self._seen.pop(file.name, None)
                yield outcome

    def waiting(self) -> list[str]:
        """What is in `in` and was not taken: still being written, or not a file."""
        return sorted(p.name for p in (self.path / "in").iterdir())

    def is_settling(self) -> bool:
        """Whether any file may be taken soon."""
        return bool(self._candidates())

    def _candidates(self) -> list[tuple[Path, Signature]]:
        found = []
        for file in (self.path / "in").iterdir():
            hidden = file.name.startswith(".") or file.name.lower().endswith(UNFINISHED)
            if hidden or file.is_symlink() or not file.is_file():
                continue
            with suppress(FileNotFoundError):  # taken away again meanwhile
                found.append((file, _signature(file.stat())))
        return sorted(found, key=lambda one: (one[1][2], one[0].name))

    def _is_whole(self, file: Path, signature: Signature) -> bool:
        seen = self._seen.get(file.name)
        if seen is None or seen[0] != signature:
            self._seen[file.name] = (signature, self.monotonic())
            return self.settle_s <= 0
        return self.monotonic() - seen[1] >= self.settle_s

    def _take(self, file: Path) -> Outcome | None:
        """None while somebody holds the file, or where it was changed while it was read."""
        with file.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return None
            before = _signature(os.fstat(stream.fileno()))
            contents = self.take(stream)
            if _signature(file.stat()) != before:
                self._seen.pop(file.name, None)
                return None
            return self._moved(file, stream, contents)

    def _moved(self, file: Path, stream: BinaryIO, contents: Contents) -> Outcome:
        folder = self.path / ("failed" if contents.failures else "done")
        target = folder / file.name
        if target.exists():  # another file of that name: told apart by its content, and never replaced
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]  # type: ignore[arg-type]
            target = folder / f"{file.stem}.{digest}{file.suffix}"
        outcome = Outcome(file.name, target, contents)
        reason = target.with_name(f"{target.name}.reason.json")
        if contents.failures:
            unfinished = reason.with_name(f".{reason.name}.tmp")
            unfinished.write_bytes(dumps(outcome.as_json()) + b"\n")
            unfinished.rename(reason)
        file.rename(target)
        return outcome


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
