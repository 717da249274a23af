"""Resources on their way in, in a file of their own: sorted by patient, and how far they were taken in.

The files of a bulk export are sorted by type, and an event needs several types. The spool holds patients'
data: it is readable by its owner alone, and goes when the import has ended.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mappings.exact_json import loads

Json = Any
SCHEMA = """
CREATE TABLE IF NOT EXISTS manifest (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (url TEXT PRIMARY KEY, lines INTEGER NOT NULL, refused INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS resources (
    type TEXT NOT NULL, id TEXT NOT NULL, patient TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (type, id));
CREATE INDEX IF NOT EXISTS by_patient ON resources (patient);
CREATE TABLE IF NOT EXISTS done (patient TEXT PRIMARY KEY);
"""


class Spool:
    """One import's resources."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._c = sqlite3.connect(path, isolation_level=None)
        self._c.executescript(SCHEMA)

    def belongs_to(self, digest: str) -> bool:
        """True for the spool of this manifest, or a new one."""
        held = self._c.execute("SELECT digest FROM manifest").fetchone()
        if held is None:
            self._c.execute("INSERT INTO manifest VALUES (?)", (digest,))
        return held is None or held[0] == digest

    def file(self, url: str) -> tuple[int, int] | None:
        """(lines, refused) of a file that is here whole."""
        held = self._c.execute("SELECT lines, refused FROM files WHERE url = ?", (url,)).fetchone()
        return None if held is None else (held[0], held[1])

    def add(self, url: str, found: Iterable[tuple[str, str, str, bytes] | None]) -> tuple[int, int]:
        """Take a whole file or nothing of it: (type, id, patient, content) a line, None for a refused one."""
        lines = refused = 0
        self._c.execute("BEGIN")
        try:
            for one in found:
                lines += 1
                if one is None:
                    refused += 1
                else:
                    self._c.execute("INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?)", one)
            self._c.execute("INSERT INTO files VALUES (?, ?, ?)", (url, lines, refused))
        except BaseException:
            self._c.execute("ROLLBACK")
            raise
        self._c.execute("COMMIT")
        return lines, refused

    def patients(self) -> Iterator[str]:
        """The patients that are not done yet; the resources of nobody are not among them."""
        query = "SELECT DISTINCT patient FROM resources WHERE patient <> '' AND patient > ? " + (
            "AND patient NOT IN (SELECT patient FROM done) ORDER BY patient LIMIT 500"
        )
        last = ""
        while page := self._c.execute(query, (last,)).fetchall():
            yield from (row[0] for row in page)
            last = page[-1][0]

    def of(self, patient: str) -> list[Json]:
        """Every resource of one patient."""
        query = "SELECT content FROM resources WHERE patient = ? ORDER BY type, id"
        return [loads(row[0]) for row in self._c.execute(query, (patient,))]

    def find(self, type: str, id: str) -> Json | None:
        """One resource."""
        query = "SELECT content FROM resources WHERE type = ? AND id = ?"
        held = self._c.execute(query, (type, id)).fetchone()
        return None if held is None else loads(held[0])

    def set_done(self, patient: str) -> None:
        """All of this patient is in the ledger."""
        self._c.execute("INSERT OR IGNORE INTO done VALUES (?)", (patient,))

    def close(self) -> None:
        self._c.close()

    def remove(self) -> None:
        """The import has ended."""
        self.close()
        self.path.unlink(missing_ok=True)
