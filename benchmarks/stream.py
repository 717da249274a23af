"""`itb convert` over a long stream: peak memory, what a second process brings, and the library's import.

A made-up clinic (`itb fixtures`) of about EVENTS events goes through `itb convert to-fhir` and back. The
rival of `--jobs 2` is `--jobs 1` on the same file; that of the import is the import of `fhir.resources`'
MedicationAdministration alone.

    python benchmarks/stream.py [--events 1000000] [--jobs 2]

Exits 1 when a conversion needs 200 MiB or more, or the import 300 ms or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ITB = [str(Path(sys.executable).with_name("itb"))]
EVENTS_PER_PUMP_YEAR = 14
MOST_MIB, MOST_IMPORT_MS = 200, 300
RIVAL = "fhir.resources.R4B.medicationadministration"


def run(arguments: list[str], into: Path) -> tuple[float, float]:
    """(seconds, peak MiB of the largest process) of one command."""
    started = time.monotonic()
    with into.open("wb") as out:
        child = subprocess.Popen([*ITB, *arguments], stdout=out)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"itb {' '.join(arguments)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, used.ru_maxrss / 1024


def import_ms(module: str) -> float:
    """The median time of an import in a fresh interpreter."""
    code = f"import time; s = time.perf_counter(); import {module}; print(time.perf_counter() - s)"
    found = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(7)]
    return 1000 * statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    ours, rival = import_ms("mappings"), import_ms(RIVAL)
    print(f"import of mappings {ours:.0f} ms (bar {MOST_IMPORT_MS}); of {RIVAL} {rival:.0f} ms")
    failed = ours >= MOST_IMPORT_MS
    with tempfile.TemporaryDirectory() as folder:
        events, bundles, again, back = (
            Path(folder) / name for name in ("events", "bundles", "again", "back")
        )
        pumps = max(1, chosen.events // (5 * EVENTS_PER_PUMP_YEAR))
        run(["fixtures", "--pumps", str(pumps), "--years", "5", "--seed", "1"], events)
        with events.open("rb") as file:
            count = sum(1 for _ in file)
        alone, memory = run(["convert", "to-fhir", str(events)], bundles)
        print(
            f"to FHIR, {count} events: {count / alone:.0f} events/s, peak {memory:.0f} MiB (bar {MOST_MIB})"
        )
        failed |= memory >= MOST_MIB
        several, memory = run(["convert", "to-fhir", "--jobs", str(chosen.jobs), str(events)], again)
        same = subprocess.call(["cmp", "-s", str(bundles), str(again)]) == 0
        print(
            f"--jobs {chosen.jobs}: {count / several:.0f} events/s, {alone / several:.2f} times one, "
            f"peak {memory:.0f} MiB a process, output {'the same' if same else 'DIFFERS'}"
        )
        failed |= memory >= MOST_MIB or not same
        again.unlink()
        seconds, memory = run(["convert", "from-fhir", str(bundles)], back)
        same = subprocess.call(["cmp", "-s", str(events), str(back)]) == 0
        print(
            f"from FHIR: {count / seconds:.0f} events/s, peak {memory:.0f} MiB, "
            f"events {'byte for byte as they were' if same else 'DIFFER'}"
        )
        failed |= memory >= MOST_MIB or not same
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
