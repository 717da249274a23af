"""Every command that runs as a job; `service/cli.py` registers them."""

from __future__ import annotations

from . import convert, import_csv, ledger_files, mllp, sync, watch

COMMANDS = (
    convert.convert,
    ledger_files.import_,
    ledger_files.export,
    import_csv.import_csv,
    sync.sync,
    mllp.mllp,
    watch.watch,
)
