"""The guide's pages for people, in Markdown: a page a profile, one for the extensions, one for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mappings.codes import ITB
from mappings.paths import Json

Pages = dict[str, str]
"""Text by file name."""


def pages(definitions: Sequence[Json], examples: Mapping[str, str]) -> Pages:
    """The pages of the guide; `examples` holds the JSON of a resource by the id of its profile."""
    by_kind: dict[str, list[Json]] = {}
    for one in definitions:
        name = one["resourceType"]
        if name == "StructureDefinition":
            name = "Extension" if one["type"] == "Extension" else "Profile"
        by_kind.setdefault(name, []).append(one)
    made = {f"{one['id']}.md": profile_page(one, examples) for one in by_kind["Profile"]}
    made["extensions.md"] = extensions_page(by_kind["Extension"])
    made["README.md"] = front_page(by_kind)
    return made


def front_page(by_kind: Mapping[str, list[Json]]) -> str:
    """What there is, with links."""
    profiles = [
        f"| [{one['id']}]({one['id']}.md) | {one['type']} | {one['description']} |"
        for one in by_kind["Profile"]
    ]
    sets = [f"| `{one['id']}` | {one['title']} | {', '.join(_codes(one))} |" for one in by_kind["ValueSet"]]
    searches = [
        f"| `{one['code']}` | {', '.join(one['base'])} | {one['type']} | {one['description']} |"
        for one in by_kind["SearchParameter"]
    ]
    return "\n".join(
        [
            "# The ITB implementation guide",
            "",
            "FHIR's own description of what itb-fhir writes and reads. Written by `make docs` from the rows "
            "of the mappings: change those, not this page.",
            "",
            f"Canonical base: `{ITB}`. `itb ig build` writes the guide as a FHIR NPM package.",
            "",
            "## Profiles",
            "",
            "| profile | resource | what it is |",
            "|---|---|---|",
            *profiles,
            "",
            "All [extensions](extensions.md). The code system is listed in [fhir.md](../fhir.md).",
            "",
            "## Value sets",
            "",
            "| id | title | codes |",
            "|---|---|---|",
            *sets,
            "",
            "## Search parameters",
            "",
            "For an EHR that loads the guide; R4 lacks them.",
            "",
            "| code | on | type | what it finds |",
            "|---|---|---|---|",
            *searches,
            "",
        ]
    )


def _codes(value_set: Json) -> list[str]:
    return [f"`{one['code']}`" for part in value_set["compose"]["include"] for one in part["concept"]]


def profile_page(one: Json, examples: Mapping[str, str]) -> str:
    """A profile: its differential, and an example where there is one."""
    lines = [
        f"# {one['title']}",
        "",
        one["description"],
        "",
        f"`{one['url']}`, on {one['type']}. What is not listed here is as R4 has it.",
        "",
        *_table(one["differential"]["element"], one["type"]),
        "",
    ]
    if one["id"] in examples:
        lines += ["## Example", "", "```json", examples[one["id"]].rstrip(), "```", ""]
    return "\n".join(lines)


def _table(elements: Sequence[Json], root: str) -> list[str]:
    rows = ["| element | card. | what it holds | event |", "|---|---|---|---|"]
    for one in elements[1:]:
        name = one["id"].removeprefix(f"{root}.")
        least, most = one.get("min"), one.get("max")
        card = f"{'' if least is None else least}..{most or ''}" if (least, most) != (None, None) else ""
        event = ", ".join(f"`{said['map']}`" for said in one.get("mapping", ()))
        rows.append(f"| `{name}` | {card} | {_holds(one)} | {event} |")
    return rows


def _holds(one: Json) -> str:
    said = []
    if "slicing" in one:
        (by,) = one["slicing"]["discriminator"]
        said.append(f"told apart by `{by['path']}`")
    for type in one.get("type", ()):
        profile = (type.get("profile") or type.get("targetProfile") or [""])[0]
        name = profile.rsplit("/", 1)[-1]
        if type["code"] == "Extension":
            said.append(f"[{name}](extensions.md#{name})" if profile.startswith(ITB) else f"`{profile}`")
        else:
            said.append(f"{type['code']} to [{name}]({name}.md)" if name else type["code"])
    if "binding" in one:
        said.append(f"from `{one['binding']['valueSet'].rsplit('/', 1)[-1]}`")
    said += [_pattern(value) for key, value in one.items() if key.startswith(("pattern", "fixed"))]
    if "comment" in one:
        said.append(one["comment"].rstrip(".").lower())
    return "; ".join(said)


def _pattern(value: Json) -> str:
    if isinstance(value, str):
        return f"`{value.replace(ITB, '{ITB}')}`"
    if "coding" in value:
        return ", ".join(f"`{c['system'].replace(ITB, '{ITB}')}#{c['code']}`" for c in value["coding"])
    if "numerator" in value:
        return f"`{value['numerator']['code']}` to 1 `{value['denominator']['code']}`"
    return f"`{value['code']}`" if "code" in value else "a UCUM unit"


def extensions_page(known: Sequence[Json]) -> str:
    """Every extension: where it stands, and what it holds."""
    lines = [
        "# Extensions",
        "",
        "Written by `make docs`. None is a modifier: who ignores them reads nothing wrong.",
        "",
    ]
    for one in known:
        where = ", ".join(f"`{context['expression']}`" for context in one["context"])
        lines += [f"## {one['id']}", "", f"{one['description']} On {where}.", ""]
        rows = []
        for element in one["differential"]["element"]:
            if element["id"].endswith(".value[x]") and element.get("max") != "0":
                part = element["id"].removeprefix("Extension").split(".")[1].partition(":")[2]
                rows.append(f"| {f'`{part}`' if part else 'value'} | {_holds(element)} |")
        lines += ["| part | type |", "|---|---|", *rows, ""]
    return "\n".join(lines)
