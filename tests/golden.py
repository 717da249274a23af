"""Golden pairs: `make golden` writes the missing ones, `FORCE=1` all of them (then read the diff).

`fixtures/golden/<type>/<case>.event.json` is one event, or a list whose last one is converted after the
others; beside it stands its transaction Bundle, and for some the resources of its chart. `fixtures/refused/`
pairs an input with its issues.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mappings import MappingError, chart, load_event, read_fhir
from mappings.exact_json import dumps, loads
from mappings.stream import Converter

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
GOLDEN = sorted(FIXTURES.glob("golden/*/*.event.json"))
CHARTED = [
    FIXTURES / "golden" / case
    for case in ("refill/everything.event.json", "dose-change/flex-with-bridge.event.json")
]
REFUSED = [p for p in sorted(FIXTURES.glob("refused/*/*.json")) if not p.name.endswith(".problem.json")]


def case(path: Path) -> str:
    return f"{path.parent.name}/{path.name.split('.')[0]}"


def sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.split(".")[0] + suffix)


def events(path: Path) -> list[dict[str, Any]]:
    """The canonical events of a golden case."""
    raw = loads(path.read_bytes())
    return [load_event(one) for one in (raw if isinstance(raw, list) else [raw])]


def bundle(path: Path) -> dict[str, Any]:
    """The Bundle of the case's last event, after those before it."""
    converter = Converter()
    return [converter.to_fhir(event) for event in events(path)][-1]


def resources() -> Iterator[dict[str, Any]]:
    """Every golden resource: those of the Bundles, then those of the charts."""
    for path in GOLDEN:
        for entry in bundle(path)["entry"]:
            yield entry["resource"]
    for path in CHARTED:
        yield from chart.encode(events(path)[-1])


def problem(path: Path) -> list[dict[str, str]]:
    """The issues of a refused case; an empty list where it is not refused at all."""
    try:
        raw = loads(path.read_bytes())
        if path.parent.name == "fhir":
            issues = read_fhir(raw).errors
        else:
            load_event(raw)
            issues = []
    except MappingError as error:
        issues = error.issues
    return [{"path": i.path, "rule": i.rule, "message": i.message} for i in issues]


def pretty(value: Any) -> str:
    """Indented JSON with every digit."""
    return _indent(value, "") + "\n"


def _indent(value: Any, pad: str) -> str:
    inner = pad + " "
    if isinstance(value, dict) and value:
        rows = (f"{inner}{json.dumps(k)}: {_indent(v, inner)}" for k, v in value.items())
        return "{\n" + ",\n".join(rows) + "\n" + pad + "}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(inner + _indent(v, inner) for v in value) + "\n" + pad + "]"
    return dumps(value).decode()


def main(force: bool) -> None:
    pairs = [(sibling(p, ".fhir.json"), lambda p=p: bundle(p)) for p in GOLDEN]
    pairs += [(sibling(p, ".chart.json"), lambda p=p: chart.encode(events(p)[-1])) for p in CHARTED]
    pairs += [(sibling(p, ".problem.json"), lambda p=p: problem(p)) for p in REFUSED]
    for target, make in pairs:
        if target.exists() and not force:
            continue
        target.write_text(pretty(make()), encoding="utf-8")
        print(f"wrote {target.relative_to(FIXTURES.parent)}")


if __name__ == "__main__":
    main(force="--force" in sys.argv)
