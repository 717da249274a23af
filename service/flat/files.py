"""Flat tables written as files, CSV or Parquet, each whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .tables import Column, Row, text

DIGITS, SCALE = 38, 18
"""decimal128: what an event may hold, up to 18 digits after the point."""
ROWS = 10_000
"""Rows of a Parquet row group: what is kept in memory of one table."""


class Unfit(Exception):
    """A value that the format cannot hold exactly."""


class TableFile(Protocol):
    """One table that is being written."""

    def add(self, row: Row) -> None:
        """Add a row; raises `Unfit`, and then nothing of it is written."""

    def close(self) -> None:
        """All of it is there."""


class CsvFile:
    """UTF-8, a header, RFC 4180; decimals with the digits they came with."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._names = [c.name for c in columns]
        self._out = csv.writer(self._file)
        self._out.writerow(self._names)

    def add(self, row: Row) -> None:
        self._out.writerow([text(row[name]) for name in self._names])

    def close(self) -> None:
        self._file.close()


class ParquetFile:
    """Decimals as decimal128(38, 18), instants as UTC microseconds, nothing as a floating point number."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        import pyarrow  # type: ignore[import-untyped]  # it has no types
        from pyarrow import parquet

        kinds = {
            "decimal": pyarrow.decimal128(DIGITS, SCALE),
            "integer": pyarrow.int64(),
            "offset": pyarrow.int64(),
            "boolean": pyarrow.bool_(),
            "utc": pyarrow.timestamp("us", tz="UTC"),
        }
        self._decimals = [c.name for c in columns if c.kind == "decimal"]
        self._schema = pyarrow.schema([(c.name, kinds.get(c.kind, pyarrow.string())) for c in columns])
        self._writer: Any = parquet.ParquetWriter(path, self._schema)
        self._batch: Any = pyarrow.RecordBatch
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        for name in self._decimals:
            value = row[name]
            if value is not None and (
                -value.as_tuple().exponent > SCALE or value.adjusted() >= DIGITS - SCALE
            ):
                raise Unfit(f"{name} has digits beyond decimal128({DIGITS}, {SCALE}); CSV keeps them")
        self._rows.append(row)
        if len(self._rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(self._batch.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


FORMATS: dict[str, Any] = {"csv": CsvFile, "parquet": ParquetFile}
