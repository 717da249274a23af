"""The tables of the pages that are made from code: `make docs` writes them, a test compares them."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import golden
from mappings.codes import DISPLAY, ITB
from mappings.event import MAPPINGS
from mappings.hl7v2 import oru_r01
from mappings.hl7v2.catalogue import ORU_R40, ORU_R42, RAS_O17, RDE_O11, SIU_S12
from mappings.hl7v2.rows import MessageMap
from mappings.ig import pages
from service import guide
from service.commands import exits
from service.fake_ehr import faults, personality
from service.flat import tables as flat
from service.settings import settings_table

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "ig"
PAGES = ("README.md", "docs/fhir.md", "docs/hl7.md", "docs/fake-ehr.md", "docs/jobs.md", "docs/tables.md")
MARK = re.compile(r"(<!-- table:([a-z0-9-]+) -->\n).*?(<!-- /table -->)", re.S)


def mapping_table(event_type: str) -> str:
    """Event path and FHIR path of every row, as the mapping declares them."""
    rows: dict[tuple[str, str], None] = {}
    for resource, prefix, mapping in MAPPINGS[event_type].MAPPED:
        for name, place in mapping.places():
            rows[f"`{prefix}{name}`", f"`{resource}.{place.replace(ITB, '{ITB}')}`"] = None
    lines = ["| event | FHIR |", "|---|---|", *(f"| {name} | {place} |" for name, place in rows)]
    return "\n".join(lines) + "\n"


def codes_table() -> str:
    """The local code system."""
    rows = [f"| `{code}` | {display} |" for code, display in DISPLAY.items()]
    return "\n".join(["| local code | display |", "|---|---|", *rows]) + "\n"


def validators_table() -> str:
    """Where our validator and HAPI's differ."""
    told = tomllib.loads((ROOT / "tests/contract/validator_beside_hapi.toml").read_text())
    says = {"stricter": "refused here only", "missed": "refused by HAPI only"}
    rows = [f"| {row['what']} | {says[side]} | {row['why']} |" for side in says for row in told[side]]
    return "\n".join(["| what | verdict | why |", "|---|---|---|", *rows]) + "\n"


def faults_table() -> str:
    """Every way in which the fake EHR can misbehave."""
    lines = ["| kind | what the server does | parameters (default) |", "|---|---|---|"]
    for name, kind in faults.KINDS.items():
        parameters = ", ".join(f"`{k}` ({json.dumps(v)})" for k, v in kind.parameters.items())
        only = "" if kind.routes == faults.ROUTES else f" (only {', '.join(kind.routes)})"
        hard = "" if kind.transient else "; not among those of `N%`"
        lines.append(f"| `{name}` | {kind.says}{only}{hard} | {parameters} |")
    return "\n".join(lines) + "\n"


def personalities_table() -> str:
    """What each personality of the fake EHR takes."""
    makes = [personality.load(name) for name in personality.NAMES]
    fields = (
        "transaction",
        "client_ids",
        "if_none_exist",
        "if_match",
        "stale_status",
        "references",
        "unknown_parameter",
        "returns",
        "loses",
    )
    lines = ["| | " + " | ".join(f"`{m.name}`" for m in makes) + " |", "|---|" + "---|" * len(makes)]
    for name in fields:
        cells = [", ".join(v) if isinstance(v := getattr(m, name), tuple) else str(v).lower() for m in makes]
        lines.append(f"| `{name}` | " + " | ".join(cell or "-" for cell in cells) + " |")
    for type in (
        "Patient",
        "Device",
        "MedicationAdministration",
        "MedicationRequest",
        "Observation",
        "Procedure",
    ):
        cells = [
            "all"
            if len(listed := m.interactions.get(type, ())) == len(personality.INTERACTIONS)
            else ", ".join(listed)
            for m in makes
        ]
        lines.append(f"| {type} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def message_table(m: MessageMap) -> str:
    """Event path and field of every row of a message, and what is written beside them."""
    rows = [f"| `{name}` | {row.text.replace(',', ', ')} |" for row in m.rows for name in row.events]
    rows += [f"| always `{one.text}` | {one.place.segment}-{one.place.fields[0]} |" for one in m.always]
    return "\n".join(["| event | field |", "|---|---|", *rows]) + "\n"


def observation_codes() -> str:
    """OBX-3 of an interrogation's values."""
    rows = [f"| `{leaf}` | `{code}` |" for leaf, code in oru_r01.CODES.items()]
    return "\n".join(["| event | OBX-3 |", "|---|---|", *rows]) + "\n"


MESSAGES = {
    "ras-o17": RAS_O17,
    "rde-o11": RDE_O11,
    "oru-r01": oru_r01.ORU_R01["interrogation"],
    "oru-r40": ORU_R40,
    "oru-r42": ORU_R42,
    "siu-s12": SIU_S12,
}

TABLES = {
    "exits": exits.exits_table,
    "flat": flat.columns_table,
    "hl7-codes": observation_codes,
    **{f"hl7-{name}": (lambda m=m: message_table(m)) for name, m in MESSAGES.items()},
    "faults": faults_table,
    "personalities": personalities_table,
    "validators": validators_table,
    "settings": settings_table,
    "codes": codes_table,
    **{name: (lambda name=name: mapping_table(name)) for name in MAPPINGS},
}


def guide_pages() -> dict[str, str]:
    """The pages of the implementation guide, with an example of each profile out of the golden files."""
    examples: dict[str, str] = {}
    for resource in golden.resources():
        (claimed,) = resource["meta"]["profile"]
        examples.setdefault(claimed.rsplit("/", 1)[1], golden.pretty(resource))
        for inside in resource.get("contained", ()):
            name = {"fill": "itb-fill", "lot-2": "itb-fill-lot"}.get(inside["id"])
            if name:
                examples.setdefault(name, golden.pretty(inside))
    return pages(guide.definitions(), examples)


def filled(page: str) -> str:
    """The page with its tables as the code says; KeyError for a table that nothing makes."""
    return MARK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[3]}", page)


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text()))
        print(page, file=sys.stderr)
    GUIDE.mkdir(exist_ok=True)
    made = guide_pages()
    for old in GUIDE.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (GUIDE / name).write_text(text)
    print(f"docs/ig: {len(made)} pages", file=sys.stderr)


if __name__ == "__main__":
    main()
