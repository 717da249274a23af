"""Which call goes wrong, and how: a plan of rules, read from JSON or a short text, and drawn by a seed. Pure.

A short text is rules separated by `;`, each `KIND[=VALUE][,NAME=VALUE…]@WHEN[/ROUTE][/TYPE]`:

    status=503@10%                     one call in ten
    status=429,retry_after=2@#3        the third call
    reset-after@#2+/transaction        from the second transaction on
    stale@5%/search/Observation        one search of Observations in twenty
    20%                                one call in five, by any of the kinds that a client should get over

`docs/fake-ehr.md` has the table of kinds.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .wire import ROUTES

READING = ("read", "vread", "search", "page", "history")
WRITING = ("create", "update", "delete", "transaction", "batch")
BUNDLES = ("transaction", "batch")
STATUSES = (400, 401, 403, 404, 408, 409, 410, 412, 422, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to misbehave: what it does, on which routes, and the parameters that it may have."""

    says: str
    routes: tuple[str, ...] = ROUTES
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Names and defaults; `=VALUE` of the short form sets the first."""
    applies: bool = True
    """Whether the request has its effect on what the server holds."""
    transient: bool = True
    """Whether a client should get over it without a person."""


KINDS: dict[str, Kind] = {
    "status": Kind(
        "answers with that status, and does nothing",
        parameters={"status": 503, "outcome": True, "retry_after": None},
        applies=False,
    ),
    "status-after": Kind(
        "does it, and answers with that status all the same",
        parameters={"status": 504, "outcome": False, "retry_after": None},
    ),
    "reset-before": Kind("breaks the connection, and does nothing", applies=False),
    "reset-after": Kind("does it, and breaks the connection"),
    "lost": Kind("does it, and ends the connection without an answer"),
    "hang": Kind("does it, and answers nothing for that long", parameters={"seconds": 60.0}, transient=False),
    "delay": Kind("answers later", parameters={"seconds": 0.2}),
    "drip": Kind("sends the answer in drops, over that time", parameters={"seconds": 0.3}),
    "truncated": Kind("ends the connection in the middle of the answer"),
    "invalid-json": Kind("answers with half of the JSON, and the length of that half"),
    "html": Kind("answers 200 with a web page"),
    "empty": Kind("answers 200 with nothing"),
    "content-type": Kind("says that the answer is text/plain"),
    "length-long": Kind("says that the answer is longer than it is, then ends the connection"),
    "length-short": Kind("says that the answer is shorter than it is"),
    "duplicate": Kind("sends the answer twice"),
    "other": Kind("answers with its answer to another request"),
    "swapped": Kind("answers with the entries in another order", BUNDLES),
    "short": Kind("leaves the last entry out of its answer", BUNDLES),
    "doubled": Kind("answers the last entry with the first one's answer", BUNDLES),
    "torn": Kind("does the first half of the entries, and answers 500", BUNDLES),
    "partial": Kind("refuses every second entry of a batch with 503", ("batch",)),
    "stale": Kind("answers with what was there before", READING, {"seconds": 5.0}),
    "race": Kind("lets somebody else save the same record first", ("update", "transaction", "batch")),
    "drop-extensions": Kind("forgets the extensions of what is written", WRITING, transient=False),
}
GENTLE_STATUSES = (408, 409, 412, 429, 500, 502, 503, 504)
"""After these a client tries again; after the others of `STATUSES` a person looks."""


class PlanError(ValueError):
    """A fault plan that cannot be read; the message says which part and what is allowed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of fault, its parameters, and when: by chance, or by the number of the call."""

    kind: str
    parameters: Mapping[str, Any]
    chance: float = 0.0
    first: int | None = None
    last: int | None = None
    route: str | None = None
    type: str | None = None

    def is_about(self, call: Call) -> bool:
        return (
            call.route in KINDS[self.kind].routes
            and self.route in (None, call.route)
            and self.type in (None, call.type)
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A request, counted from 1 among all, and among those of its route."""

    number: int
    of_route: int
    route: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call."""

    kind: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules, in order: the first that strikes counts. `server` changes the server itself."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    any_chance: float = 0.0
    without: tuple[str, ...] = ()
    server: Mapping[str, Any] = field(default_factory=dict)


NO_FAULTS = Plan()


def draw(plan: Plan, call: Call) -> Fault | None:
    """What goes wrong with this call: the same plan and call, the same fault."""
    rng = random.Random(f"{plan.seed}/{call.number}/{call.route}")
    for rule in plan.rules:
        if not rule.is_about(call):
            continue
        if rule.first is not None:
            # Counted among the calls of the route where one is named.
            number = call.of_route if rule.route else call.number
            if rule.first <= number and (rule.last is None or number <= rule.last):
                return Fault(rule.kind, rule.parameters)
        elif rng.random() < rule.chance:
            return Fault(rule.kind, rule.parameters)
    if rng.random() < plan.any_chance:
        return _any(call, plan.without, rng)
    return None


def _any(call: Call, without: Sequence[str], rng: random.Random) -> Fault | None:
    fitting = [
        k for k, kind in KINDS.items() if kind.transient and call.route in kind.routes and k not in without
    ]
    if not fitting:
        return None
    kind = rng.choice(fitting)
    parameters = dict(KINDS[kind].parameters)
    if "status" in parameters:
        parameters["status"] = rng.choice(GENTLE_STATUSES)
        parameters["outcome"] = rng.random() < 0.5
        if parameters["status"] in (429, 503):
            parameters["retry_after"] = rng.choice((None, 0, 1, "date"))
    return Fault(kind, parameters)


# --- reading a plan -------------------------------------------------------------------------------------

_RULE = re.compile(
    r"(?P<kind>[a-z-]+)(?:=(?P<value>[^,@]+))?(?P<more>(?:,[a-z_]+=[^,@]+)*)"
    r"@(?:(?P<percent>\d+(?:\.\d+)?)%|#(?P<first>\d+)(?:(?P<on>\+)|-(?P<last>\d+))?)"
    r"(?P<where>(?:/[A-Za-z]+){0,2})"
)
_ANY = re.compile(r"(\d+(?:\.\d+)?)%(?:,without=([a-z+-]+))?")


def plan_of(text: str, seed: int = 0) -> Plan:
    """A plan from a JSON text, or from a short one; raises `PlanError`."""
    if text.lstrip().startswith("{"):
        try:
            return _from_json(json.loads(text), seed)
        except json.JSONDecodeError as error:
            raise PlanError(f"the plan is not JSON: {error.msg} at line {error.lineno}") from None
    rules, chance, without = [], 0.0, ()
    for part in filter(None, (one.strip() for one in text.split(";"))):
        if any_of := _ANY.fullmatch(part):
            chance, without = float(any_of[1]) / 100, tuple((any_of[2] or "").split("+"))
        else:
            rules.append(_short_rule(part))
    return Plan(tuple(rules), seed, chance, without)


def _short_rule(part: str) -> Rule:
    match = _RULE.fullmatch(part)
    if match is None:
        raise PlanError(f"{part!r} is not KIND[=VALUE]@N%[/ROUTE][/TYPE] or KIND@#N")
    given: dict[str, Any] = {}
    kind = _kind(match["kind"])
    if match["value"] is not None:
        if not kind.parameters:
            raise PlanError(f"{match['kind']} has no value")
        given[next(iter(kind.parameters))] = _value(match["value"])
    for one in filter(None, match["more"].split(",")):
        name, _, value = one.partition("=")
        given[name] = _value(value)
    where = match["where"].strip("/").split("/") if match["where"] else []
    first = int(match["first"]) if match["first"] else None
    last = None if match["on"] else int(match["last"] or match["first"] or 0)
    return _rule(
        match["kind"],
        given,
        chance=float(match["percent"] or 0) / 100,
        first=first,
        last=last if first is not None else None,
        where=where,
    )


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return float(text) if re.fullmatch(r"\d+\.\d+", text) else int(text) if text.isdigit() else text


def _from_json(raw: Any, seed: int) -> Plan:
    allowed = {"seed", "any", "without", "faults", "server"}
    if not isinstance(raw, dict) or raw.keys() - allowed:
        raise PlanError(f"a plan is an object of {', '.join(sorted(allowed))}")
    rules = []
    for one in raw.get("faults", []):
        unknown = one.keys() - {"kind", "chance", "first", "last", "route", "type", "parameters"}
        if unknown or "kind" not in one:
            raise PlanError(f"a fault has kind, chance or first and last, route, type and parameters: {one}")
        where = [one[name] for name in ("route", "type") if one.get(name)]
        first, last = one.get("first"), one.get("last", one.get("first"))
        chance = float(one.get("chance", 0))
        rules.append(
            _rule(one["kind"], one.get("parameters", {}), chance=chance, first=first, last=last, where=where)
        )
    return Plan(
        tuple(rules),
        int(raw.get("seed", seed)),
        float(raw.get("any", 0)),
        tuple(raw.get("without", ())),
        raw.get("server", {}),
    )


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise PlanError(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
    return KINDS[name]


def _rule(
    name: str,
    given: Mapping[str, Any],
    *,
    chance: float,
    first: int | None,
    last: int | None,
    where: Sequence[str],
) -> Rule:
    kind = _kind(name)
    if unknown := given.keys() - kind.parameters.keys():
        raise PlanError(f"{name} has no parameter {', '.join(sorted(unknown))}")
    parameters = {**kind.parameters, **given}
    if parameters.get("status") not in (None, *STATUSES):
        raise PlanError(f"status is one of {', '.join(map(str, STATUSES))}")
    route = next((part for part in where if part in ROUTES), None)
    type = next((part for part in where if part[:1].isupper()), None)
    if len(where) != (route is not None) + (type is not None):
        raise PlanError(f"{'/'.join(where)} is no route ({', '.join(ROUTES)}) and no resource type")
    if route is not None and route not in kind.routes:
        raise PlanError(f"{name} is not for {route}: it is for {', '.join(kind.routes)}")
    return Rule(name, parameters, chance, first, last, route, type)
