"""Golden pairs: `make golden` writes the missing ones, `FORCE=1` all of them (then read the diff).

`fixtures/golden/<type>/<case>.event.json` is one event, or a list whose last one is converted after the
others; beside it stand its transaction Bundle, its HL7 v2 message and for some the resources of its chart.
`fixtures/refused/` pairs an input with its issues.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mappings import Issue, MappingError, chart, hl7v2, load_event, read_fhir
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
    return listed(issues)


def listed(issues: list[Issue]) -> list[dict[str, str]]:
    return [{"path": i.path, "rule": i.rule, "message": i.message} for i in issues]


HL7 = sorted(FIXTURES.glob("hl7v2/*/*.hl7"))
"""Messages of a made-up hospital: those that are read, and those that are refused."""


def sender() -> hl7v2.SenderMap:
    """The hospital's file."""
    return hl7v2.sender_map(tomllib.loads((FIXTURES / "hl7v2" / "sender.toml").read_text()))


def message(path: Path) -> hl7v2.Message:
    """The message of one of its files."""
    return hl7v2.parse(path.read_bytes(), charset=sender().charset)


def reading(found: hl7v2.Reading) -> dict[str, Any]:
    """What was read, as it stands in a golden file."""
    told = {"updates": found.updates} if found.updates else {"events": found.events}
    return {**told, "notes": listed(found.notes)}


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
    for p in HL7:
        read = hl7v2.read(message(p), sender())
        refused = p.parent.name == "refused"
        suffix, made = (".problem.json", None) if refused else (".read.json", reading(read))
        pairs.append((sibling(p, suffix), lambda made=made, read=read: made or listed(read.errors)))
    files = [(target, lambda make=make: pretty(make()).encode()) for target, make in pairs]
    files += [(sibling(p, ".hl7"), lambda p=p: hl7v2.dump(hl7v2.write(events(p)[-1]))) for p in GOLDEN]
    for target, make in files:
        if target.exists() and not force:
            continue
        target.write_bytes(make())
        print(f"wrote {target.relative_to(FIXTURES.parent)}")


if __name__ == "__main__":
    main(force="--force" in sys.argv)
