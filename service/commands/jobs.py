"""Every command that runs as a job; `service/cli.py` registers them."""

from __future__ import annotations

from . import convert, export_table, import_bulk, import_csv, ledger_files, mllp, sync, watch

COMMANDS = (
    convert.convert,
    ledger_files.import_,
    ledger_files.export,
    export_table.export_table,
    import_csv.import_csv,
    import_bulk.import_bulk,
    sync.sync,
    mllp.mllp,
    watch.watch,
)
