"""What an EHR holds beside what both sides agreed on: same, or in which way not, and what may be done. Pure.

A row of `KINDS` for each way to differ. Nothing is ever deleted there, and what was deleted there is not
written again: those are for a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mappings.identity import content_hash

Json = Any
Key = tuple[str, str]
RESEND, TAKE_IN, ASK, REPORT = "resend", "take in", "ask", "report"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to differ: in words, and the repair."""

    words: str
    repair: str


KINDS = {
    "missing": Kind("was delivered, and is not there", RESEND),
    "reverted": Kind("is there in an older version than was agreed", RESEND),
    "moved": Kind("is there under another id", RESEND),
    "unlinked": Kind("is there, and it was not known under which id", RESEND),
    "stale": Kind("tells the record otherwise than the ledger does", RESEND),
    "different": Kind("was edited there", TAKE_IN),
    "deleted": Kind("was deleted there", ASK),
    "duplicate": Kind("is there more than once", ASK),
    "extra": Kind("is there, and nothing of the ledger's was delivered so", REPORT),
}
"""missing, reverted and moved are what a server looks like that was restored to an older state."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What was last agreed on one identity: the resource's id there, its version and content hash."""

    remote_id: str
    version_id: str | None
    content_hash: str | None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One identity that differs; `reason` names no patient, `remote_ids` are those that the EHR uses."""

    kind: str
    type: str
    key: Key
    reason: str
    remote_ids: tuple[str, ...] = ()


def judge(
    type: str,
    key: Key,
    agreed: Agreed | None,
    held: Sequence[Json],
    *,
    gone: bool = False,
    reused: bool = False,
) -> Finding | None:
    """How what is held under an identity differs from what was agreed; None when it does not.

    `gone`: the server says that it was deleted (410), not that it never was (404). `reused`: the version that
    was agreed on was seen with another content, so that its number says nothing.
    """

    def found(kind: str, why: str = "") -> Finding:
        ids = tuple(sorted(resource["id"] for resource in held)) or ((agreed.remote_id,) if agreed else ())
        return Finding(kind, type, key, why or KINDS[kind].words, ids)

    if len(held) > 1:
        return found("duplicate", f"is there {len(held)} times")
    if not held:
        if agreed is not None and agreed.deleted:
            return None  # known, and with a person
        return found("deleted") if gone else found("missing")
    (resource,) = held
    if agreed is None:
        return found("unlinked")
    if resource["id"] != agreed.remote_id:
        return found("moved", f"is there as {resource['id']}, and was {agreed.remote_id}")
    return _content(found, agreed, resource, reused)


def _content(found: Any, agreed: Agreed, resource: Json, reused: bool) -> Finding | None:
    version = str(resource.get("meta", {}).get("versionId", ""))
    if content_hash(resource) == agreed.content_hash:
        return None
    if is_older(version, agreed.version_id):
        made: Finding = found("reverted", f"is at version {version}, and {agreed.version_id} was agreed")
        return made
    if version == agreed.version_id and not reused:
        return None  # the EHR stores it in words of its own
    different: Finding = found("different", f"was edited there, at version {version}")
    return different


def is_older(version: str, than: str | None) -> bool:
    """Whether a version comes before another: known where both are numbers."""
    return than is not None and version.isdigit() and than.isdigit() and int(version) < int(than)
