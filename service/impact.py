"""What a change of the map does to stored events: their FHIR by an older revision beside their FHIR now."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mappings.exact_json import dumps, loads

ROOT = Path(__file__).resolve().parent.parent
CONVERT = """
import sys
from mappings import load_event, resources
from mappings.exact_json import dumps, loads
from mappings.identity import resource_identity
for line in sys.stdin.buffer:
    try:
        made = resources(load_event(loads(line)))
        told = {f"{r['resourceType']} {'|'.join(resource_identity(r))}": r for r in made}
    except Exception as error:
        told = {"refused": {"because": str(error)}}
    sys.stdout.buffer.write(dumps(told) + b"\\n")
"""
"""Runs with the `mappings` package of either revision; both have these names."""
IDENTIFYING = ("identifier", "id", "fullUrl")
WORDS = ("text", "display", "div")


class ImpactError(Exception):
    """The comparison cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One element that differs: `kind` is identifier, clinical, words or refused."""

    line: int
    resource: str
    path: str
    kind: str
    before: Any
    after: Any


def changes(old_ref: str, lines: list[bytes]) -> Iterator[Change]:
    """Every difference over the events of an NDJSON file; raises `ImpactError`."""
    with tempfile.TemporaryDirectory(prefix="itb-impact-") as folder:
        _check_out(old_ref, Path(folder))
        before, after = _converted(Path(folder), lines), _converted(ROOT, lines)
    for number, (old, new) in enumerate(zip(before, after, strict=True), start=1):
        yield from compared(number, old, new)


def _check_out(ref: str, folder: Path) -> None:
    """The `mappings` package of a revision, into a folder."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", ref, "mappings"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise ImpactError("git is needed to read the older revision") from None
    except subprocess.CalledProcessError as error:
        raise ImpactError(f"no such revision here: {error.stderr.decode().strip()}") from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _converted(root: Path, lines: list[bytes]) -> list[Any]:
    """What the package under `root` makes of each line."""
    environment = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CONVERT],
        input=b"\n".join(lines) + b"\n",
        capture_output=True,
        env=environment,
        cwd=root,
    )
    if done.returncode:
        said = done.stderr.decode().strip().splitlines()
        raise ImpactError(f"the map under {root.name} could not be run: {said[-1] if said else 'no reason'}")
    return [loads(line) for line in done.stdout.splitlines()]


def compared(line: int, old: Any, new: Any) -> Iterator[Change]:
    """The differences of one event's resources, each named by type and identity."""
    for name in [*old, *(n for n in new if n not in old)]:
        was, now = dict(_leaves(old.get(name))), dict(_leaves(new.get(name)))
        for path in [*was, *(p for p in now if p not in was)]:
            if dumps(was.get(path)) != dumps(now.get(path)):
                yield Change(line, name, path, _kind(name, path), was.get(path), now.get(path))


def _leaves(node: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(node, dict):
        return [x for k, v in node.items() for x in _leaves(v, f"{path}.{k}" if path else k)]
    if isinstance(node, list):
        return [x for i, v in enumerate(node) for x in _leaves(v, f"{path}[{i}]")]
    return [(path, node)] if path else []


def _kind(name: str, path: str) -> str:
    if name == "refused":
        return "refused"
    if path.split(".")[0].partition("[")[0] in IDENTIFYING:
        return "identifier"
    return "words" if path.rpartition(".")[2].partition("[")[0] in WORDS else "clinical"
