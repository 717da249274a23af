"""The files that say how senders of HL7 v2 write: one, or a folder of them by name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from mappings.hl7v2 import SenderMap, sender_map
from mappings.identity import SOURCE
from mappings.paths import Json
from mappings.rows import Issue, MappingError


def table_of(path: Path) -> Json:
    """The names and values of a TOML or JSON file; raises `MappingError` where it is neither."""
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise MappingError([Issue(path.name, "format", str(error))]) from None


def sender_of(path: Path) -> SenderMap:
    """The `SenderMap` of a TOML or JSON file; raises `MappingError` with its wrong lines."""
    return sender_map(table_of(path))


def senders(folder: str) -> dict[str, SenderMap]:
    """Every sender of a folder by the name of its file; none for no folder. Raises `MappingError`."""
    if not folder:
        return {}
    found: dict[str, SenderMap] = {}
    if not Path(folder).is_dir():
        raise MappingError([Issue(folder, "format", "is not a folder")])
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in (".toml", ".json"):
            continue
        if not SOURCE.fullmatch(path.stem) or path.stem in found:
            raise MappingError([Issue(path.name, "format", "a sender's name is [a-z0-9-]{1,40}, and once")])
        try:
            found[path.stem] = sender_of(path)
        except MappingError as error:
            under = [Issue(f"{path.name}: {i.path}", i.rule, i.message) for i in error.issues]
            raise MappingError(under) from None
    return found
