"""/hooks/{endpoint}: an EHR says that something changed. A hint to read, never the truth.

R4 rest-hook: PUT or DELETE {Type}/{id}, or an empty POST; the R5 backport: POST of a Bundle. The answer comes
before anything is read; what the notification carries is neither kept nor logged. The secret that
`itb endpoints subscribe` gave to the EHR comes in the header X-Itb-Hook.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from flask import Blueprint, Response, request

from mappings import MappingError
from mappings.exact_json import loads

from .problems import Refused
from .store import endpoints, hints
from .store.endpoints import Endpoint
from .sync import notification
from .sync.pull import TYPES
from .web import answer, read_body, services

Json = Any
HEADER = "X-Itb-Hook"
SECRET = "hook_secret_hash"
blueprint = Blueprint("hooks", __name__, url_prefix="/hooks")


def hashed(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _endpoint(name: str) -> Endpoint:
    """The EHR whose secret was sent; a name that is not there is refused like a wrong secret."""
    sent = hashed(request.headers.get(HEADER, ""))
    with services().store.read() as c:
        named = [one for one in endpoints.every(c) if one.name == name]
    for one in named:
        if hmac.compare_digest(sent, one.options.get(SECRET, "")):
            return one
    raise Refused(401, f"{HEADER} is not the secret of this endpoint", rule="key", path=HEADER)


def _hint(endpoint: Endpoint, about: list[tuple[str | None, str | None]]) -> Response:
    made = services()
    if endpoint.enabled and about:
        with made.store.write() as c:
            hints.add(c, endpoint, about, now=made.clock())
    return answer({})


@blueprint.route("/<name>/<type>/<id>", methods=["PUT", "DELETE"])
def changed(name: str, type: str, id: str) -> Response:
    """One resource was written or deleted."""
    endpoint = _endpoint(name)
    return _hint(endpoint, [(type, id)] if type in TYPES and len(id) <= 64 else [])


@blueprint.route("/<name>", methods=["POST"])
@blueprint.route("/<name>/", methods=["POST"])
def notified(name: str) -> Response:
    """Something changed (an empty body), or a notification says what."""
    endpoint = _endpoint(name)
    body = read_body(services().settings.max_body_bytes) if request.content_length else b""
    try:
        found = notification.read(loads(body)) if body else None
    except MappingError:
        found = None
    if found is None:
        return _hint(endpoint, [(None, None)])
    made = services()
    with made.store.write() as c:
        known = {one.remote_id: one for one in hints.subscribed(c, endpoint.id)}
        mine = known.get(found.subscription)
        last, gap = notification.heard(mine.last_event if mine else None, found)
        if mine is not None:
            hints.heard(c, endpoint.id, found.subscription, last, now=made.clock())
    about: list[tuple[str | None, str | None]] = [pair for pair in found.about if pair[0] in TYPES]
    unsaid = found.kind == "event-notification" and not found.about
    everything = unsaid or (gap if mine is not None else False)
    return _hint(endpoint, [*about, *([(None, None)] if everything else [])])
