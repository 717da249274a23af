"""Every way a request can fail, in one table, and how it is told: problem+json, or OperationOutcome.

| status | under /api (RFC 9457)                     | under /fhir                         |
|--------|-------------------------------------------|-------------------------------------|
| any    | type, title, status, detail, errors[]     | issue[]: severity, code, expression |

A problem names paths, rules and what is allowed; never a stack trace, never a patient's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from mappings.codes import ITB
from mappings.exact_json import SYNTAX_RULES
from mappings.rows import Issue, MappingError

from .chain import Damaged
from .store.faults import OTHER, fault_of

Json = Any
PROBLEM_JSON = "application/problem+json"
FHIR_JSON = "application/fhir+json"


class Refused(Exception):
    """A request that is refused: the status (a row of `KINDS`) and why; `extra` members go into the body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        rule: str = "",
        path: str = "$",
        issues: Sequence[Issue] = (),
        extra: Json = None,
    ) -> None:
        self.status = status
        self.issues = list(issues) or [Issue(path, rule or KINDS[status].name, message)]
        self.extra: Json = extra or {}
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one status is told: the problem's type and title, and the OperationOutcome's issue code."""

    name: str
    title: str
    code: str


KINDS = {
    400: Kind("malformed", "The request cannot be read", "structure"),
    401: Kind("unauthenticated", "A valid API key is needed", "login"),
    403: Kind("forbidden", "This key may not do that", "forbidden"),
    404: Kind("not-found", "There is no such thing here", "not-found"),
    405: Kind("method-not-allowed", "This path has no such method", "not-supported"),
    406: Kind("not-acceptable", "This cannot be given in the form asked for", "not-supported"),
    408: Kind("timeout", "The request took too long to arrive", "timeout"),
    409: Kind("conflict", "It contradicts what is stored", "conflict"),
    410: Kind("gone", "It was here and is gone", "deleted"),
    412: Kind("precondition-failed", "A condition of the request does not hold", "conflict"),
    413: Kind("too-large", "The request is too large", "too-long"),
    414: Kind("uri-too-long", "The address is too long", "too-long"),
    415: Kind("media-type", "This content type is not understood", "not-supported"),
    422: Kind("invalid", "The content is refused", "invalid"),
    428: Kind("precondition-required", "The request needs a condition", "business-rule"),
    429: Kind("too-many", "Too many requests", "throttled"),
    431: Kind("headers-too-large", "The headers are too large", "too-long"),
    500: Kind("failure", "The service failed; the request id finds it in the log", "exception"),
    501: Kind("not-implemented", "This is not supported", "not-supported"),
    503: Kind("unavailable", "The service cannot answer now; try again", "transient"),
    507: Kind("insufficient-storage", "There is no space to keep it", "no-store"),
}
"""Every status the service answers a failure with."""

TYPES = f"{ITB}/problem"


def of(error: Exception) -> Refused:
    """The refusal that an exception is told as; what is not known is a 500 that says nothing."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MappingError):
        unreadable = all(issue.rule in SYNTAX_RULES for issue in error.issues)
        return Refused(400 if unreadable else 422, summary(error.issues), issues=error.issues)
    if isinstance(error, Damaged):
        return Refused(500, f"{error}; see `itb verify`", rule="ledger-damaged")
    if isinstance(error, DBAPIError) and (fault := fault_of(error)) is not None:
        return Refused(fault.status, fault.message, rule=fault.rule)
    if isinstance(error, PoolTimeout):
        return Refused(OTHER.status, OTHER.message, rule=OTHER.rule)
    status = error.code if isinstance(error, HTTPException) and error.code else 500
    if status not in KINDS:
        status = 400 if 400 <= status < 500 else 500
    return Refused(status, KINDS[status].title)


def summary(issues: Sequence[Issue]) -> str:
    """One line about all issues."""
    first = f"{issues[0].path}: {issues[0].message}"
    return first if len(issues) == 1 else f"{first} (and {len(issues) - 1} more)"


def problem(refused: Refused) -> Json:
    """The body of an `application/problem+json` answer."""
    kind = KINDS[refused.status]
    return {
        "type": f"{TYPES}/{kind.name}",
        "title": kind.title,
        "status": refused.status,
        "detail": str(refused),
        "errors": listed(refused.issues),
        **refused.extra,
    }


def listed(issues: Sequence[Issue]) -> list[Json]:
    """Issues as JSON: `[{"path", "rule", "message"}]`."""
    return [{"path": i.path, "rule": i.rule, "message": i.message} for i in issues]


def outcome(issues: Sequence[Issue], code: str = "invalid", severity: str = "error") -> Json:
    """An OperationOutcome; `code` is of the required issue-type value set, `expression` the path."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [_outcome_issue(issue, code, severity) for issue in issues],
    }


def _outcome_issue(issue: Issue, code: str, severity: str) -> Json:
    made: Json = {
        "severity": severity,
        "code": code,
        "details": {"coding": [{"system": f"{ITB}/CodeSystem/rule", "code": issue.rule}]},
        "diagnostics": issue.message,
    }
    if issue.path != "$":
        made["expression"] = [issue.path]
    return made


def refusal_outcome(refused: Refused) -> Json:
    """The OperationOutcome of a refused request."""
    return outcome(refused.issues, KINDS[refused.status].code)
