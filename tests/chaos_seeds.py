"""`make chaos` and `make chaos-hapi`: many seeds, one run after the other; the last line sums up."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import chaos
from chaos import FakeTarget, Outcome, Run, Target
from chaos_bugs import BUGS
from chaos_hapi import WITHOUT, HapiTarget
from crash_points import POINTS
from history import Breach, summary
from postgresql_server import start_postgresql
from service.sync.spread import EMBEDDED, PROCRASTINATE

RESTARTS = 3
EACH_POINT = 5
"""At each crash point so many processes die at least, in a run of full size."""
SHOWN = 20


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/itb.db"
        return
    server = start_postgresql()
    try:
        yield server.database(migrated=False)
    finally:
        server.stop()


def told(what: str) -> Callable[[str], None]:
    """Progress, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: print(f"\r\033[K{what}: {text}", end="", file=sys.stderr, flush=True)


def one(plan: Run, kind: str, hapi: bool) -> Outcome:
    """One run on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, database(kind, Path(name)) as url:
        folder = Path(name)
        target: Target = (
            HapiTarget(folder, plan.faults, plan.seed, RESTARTS)
            if hapi
            else FakeTarget(plan.faults, plan.seed)
        )
        try:
            return chaos.run(plan, url, folder, target, told(f"seed {plan.seed}, {kind}"))
        finally:
            target.stop()


def line(plan: Run, kind: str, done: Outcome) -> str:
    """A run in a few lines: its figures, and how many died at each crash point."""
    points = ", ".join(f"{name} {done.fired[name]}" for name in POINTS)
    return (
        f"seed {plan.seed}, {kind}: {plan.events} events, {done.kills} kills ({done.killed} by SIGKILL), "
        f"{done.faults.total()} faults, {done.seconds:.0f} s, quiet after {done.quiet_after_s:.1f} s: "
        f"{summary(done.breaches)}\n  at crash points: {points}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument(
        "--hapi", action="store_true", help="a real HAPI, killed and started again, as the EHR"
    )
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"])
    parser.add_argument("--events", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--engine", choices=[EMBEDDED, PROCRASTINATE], default=EMBEDDED)
    parser.add_argument("--bug", choices=BUGS, help="with a bug on purpose, to see it seen")
    given = parser.parse_args()
    events, kills = given.events or (2_000 if given.hapi else 10_000), given.kills
    breaches: list[Breach] = []
    total: Counter[str] = Counter()
    kinds = given.database or (["sqlite"] if given.hapi else ["sqlite", "postgresql"])
    if given.engine == PROCRASTINATE:
        kinds = ["postgresql"]
    for seed in range(given.first, given.first + given.seeds):
        for kind in kinds:
            plan = Run(
                events=events,
                pumps=max(1, events // 50),
                kills=kills if kills is not None else events // (20 if given.hapi else 10),
                faults=f"10%,without={WITHOUT}" if given.hapi else "20%",
                seed=seed,
                every_point=EACH_POINT if events >= 2_000 else 0,
                engine=given.engine,
                bug=given.bug,
            )
            done = one(plan, kind, given.hapi)
            print(f"\r{line(plan, kind, done)}", flush=True)
            for breach in done.breaches[:SHOWN]:
                print(f"  {breach.invariant} {breach.what}", flush=True)
            breaches += done.breaches
            total += Counter(runs=1, events=plan.events, kills=done.kills, faults=done.faults.total())
    print(
        f"{total['runs']} runs, {total['events']} events, {total['kills']} kills, {total['faults']} faults: "
        f"{summary(breaches)}"
    )
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
