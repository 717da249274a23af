"""How one resource is created or updated: conditions, versions, client ids, references. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from .state import Key, State, Version
from .wire import Refusal

Json = Any
Targets = Mapping[str, str]
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def create(
    state: State,
    type: str | None,
    resource: Json,
    condition: str | None,
    now: datetime,
    *,
    id: str | None = None,
    targets: Targets | None = None,
) -> tuple[Version, int]:
    """The version that is there now, and 201, or 200 where the condition found it.

    `id` is given where a transaction has decided it before; `targets` are the literal references of its urns.
    """
    state.check(type, "create")
    assert type is not None
    _check_body(type, resource)
    if condition is not None and state.personality.if_none_exist == "kept":
        found = state.matching(type, condition)
        if len(found) > 1:
            raise Refusal(412, f"{len(found)} resources match the condition")
        if found and (there := state.newest(found[0])) is not None:
            return there, 200
    whole = referable(state, resource, targets or {})
    return state.write((type, id or state.new_id()), whole, "POST", now), 201


def update(
    state: State,
    type: str | None,
    id: str | None,
    resource: Json,
    match: str | None,
    now: datetime,
    *,
    condition: str | None = None,
    targets: Targets | None = None,
    made_id: bool = False,
) -> tuple[Version, int]:
    """The version that is there now, and 200, or 201 where it is new (or was deleted).

    `made_id`: the id may be the server's own, decided by the transaction.
    """
    state.check(type, "update")
    assert type is not None
    _check_body(type, resource)
    key, match = _target(state, type, id, match, condition, made_id)
    there = state.newest(key)
    _check_match(state, there, match)
    made = state.write(key, referable(state, resource, targets or {}), "PUT", now)
    return made, 201 if there is None or there.resource is None else 200


def _target(
    state: State, type: str, id: str | None, match: str | None, condition: str | None, made_id: bool
) -> tuple[Key, str | None]:
    """What is written to, and the If-Match that counts."""
    if id is None:
        found = state.matching(type, condition or "")
        if len(found) > 1:
            raise Refusal(412, f"{len(found)} resources match the condition")
        # HAPI 8.8 ignores If-Match here: a stale one was answered with 200.
        return (found[0] if found else (type, state.new_id())), None
    if state.newest((type, id)) is not None or (made_id and id.isdigit()):
        return (type, id), match
    ways = state.personality.client_ids
    if ways == "refused":
        raise Refusal(405, "ids are given by this server: create by POST")
    if ways == "rewritten":
        return (type, state.new_id()), match
    if id.isdigit() or not ID.fullmatch(id):
        raise Refusal(400, f"{id} cannot be the id of a client: it must not be a number alone")
    return (type, id), match


def _check_match(state: State, there: Version | None, match: str | None) -> None:
    make = state.personality
    if make.if_match == "ignored":
        return
    if match is None:
        if make.if_match == "required" and there is not None:
            raise Refusal(412, "If-Match is required")
        return
    newest = there.number if there is not None else None
    if match != f'W/"{newest}"':
        raise Refusal(make.stale_status, f"{match} was sent, the newest version is {newest}")


def _check_body(type: str, resource: Json) -> None:
    if not isinstance(resource, dict) or resource.get("resourceType") != type:
        raise Refusal(400, f"the body is not a {type}")


def referable(state: State, node: Json, targets: Targets) -> Json:
    """References as the server keeps them: by urn or condition made literal, without a version; a literal
    one must lead to something where the server checks that (HAPI-1094)."""
    if isinstance(node, list):
        return [referable(state, item, targets) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: referable(state, value, targets) for key, value in node.items()}
    reference = made.get("reference")
    if isinstance(reference, str) and not reference.startswith("#"):
        made["reference"] = _literal(state, reference, targets)
    return made


def _literal(state: State, reference: str, targets: Targets) -> str:
    if reference in targets:
        return targets[reference]
    type, mark, condition = reference.partition("?")
    if mark:
        found = state.matching(type, unquote(condition))
        if len(found) != 1:
            raise Refusal(404 if not found else 412, f"{len(found)} resources match {type}?…")
        return "/".join(found[0])
    local = reference.removeprefix(state.url).lstrip("/").partition("/_history/")[0]
    if state.personality.references == "free" or local in targets.values():
        return local
    if local.startswith(("http:", "https:", "urn:")):
        raise Refusal(400, f"the reference {local.partition(':')[0]}:… leads to no resource of this server")
    type, _, id = local.partition("/")
    there = state.newest((type, id))
    if there is None or there.resource is None:
        raise Refusal(400, f"{local} does not exist here")
    return local
