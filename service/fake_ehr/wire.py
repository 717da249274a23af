"""What is asked of the server and what it answers, as values; which interaction a request is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any

REASONS = {200: "OK", 201: "Created", 204: "No Content"}
CODES = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    408: "timeout",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    422: "processing",
    429: "throttled",
    500: "exception",
    502: "transient",
    503: "transient",
    504: "timeout",
}
"""The issue code of an OperationOutcome for each status (R4 IssueType)."""


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is what follows the base URL; names of headers are in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json = None


@dataclass(frozen=True, slots=True)
class Response:
    """`body` shares its parts with the server's state: read it, do not change it."""

    status: int
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """The server says no: an HTTP status and the words of its OperationOutcome."""

    def __init__(self, status: int, diagnostics: str) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.diagnostics = diagnostics

    def response(self) -> Response:
        return Response(self.status, outcome(self.status, self.diagnostics))


def outcome(status: int, diagnostics: str) -> Json:
    """An OperationOutcome that says why."""
    severity = "error" if status >= 400 else "information"
    code = CODES.get(status, "informational" if status < 400 else "processing")
    issue = {"severity": severity, "code": code, "diagnostics": diagnostics}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


@dataclass(frozen=True, slots=True)
class Route:
    """An interaction, with the names of the FHIR specification, and what it is about."""

    name: str
    type: str | None = None
    id: str | None = None
    version: str | None = None


ROUTES = (
    "metadata",
    "read",
    "vread",
    "update",
    "delete",
    "create",
    "search",
    "page",
    "history",
    "transaction",
    "batch",
    "match",
    "subscription-status",
    "subscription-events",
)


def route(request: Request) -> Route:
    """Which interaction a request is; Refusal 400 or 405 for none of them."""
    parts = [part for part in request.path.split("/") if part]
    method, body = request.method, request.body
    if parts == ["metadata"]:
        return _only("GET", method, Route("metadata"))
    if not parts:
        if method == "GET" and any(name == "_getpages" for name, _ in request.query):
            return Route("page")
        kind = body.get("type") if isinstance(body, dict) else None
        if method == "POST" and kind in ("transaction", "batch"):
            return Route(str(kind))
        raise Refusal(400, "a Bundle of type transaction or batch is posted here")
    if parts[-1] == "_history":
        return _only("GET", method, Route("history", *parts[:-1]))
    if len(parts) == 4 and parts[2] == "_history":
        return _only("GET", method, Route("vread", parts[0], parts[1], parts[3]))
    if parts[1:] == ["_search"]:
        return _only("POST", method, Route("search", parts[0]))
    if parts == ["Patient", "$match"]:
        return _only("POST", method, Route("match", "Patient"))
    if len(parts) == 3 and parts[0] == "Subscription" and parts[2] in ("$status", "$events"):
        return _only("GET", method, Route(f"subscription-{parts[2][1:]}", "Subscription", parts[1]))
    return _of_type(method, parts)


def _of_type(method: str, parts: list[str]) -> Route:
    by_method = {
        1: {"GET": "search", "POST": "create", "PUT": "update"},
        2: {"GET": "read", "PUT": "update", "DELETE": "delete"},
    }
    if len(parts) not in by_method:
        raise Refusal(400, f"there is nothing at /{'/'.join(parts)}")
    name = by_method[len(parts)].get(method)
    if name is None:
        raise Refusal(405, f"{method} is not for /{'/'.join(parts)}")
    return Route(name, *parts)


def _only(method: str, used: str, found: Route) -> Route:
    if used != method:
        raise Refusal(405, f"{found.name} is {method}, not {used}")
    return found
