"""`itb doctor`, `itb reconcile`, `itb cases`: what each server can take, what it holds, what is wrong."""

from __future__ import annotations

import sys
from typing import Any

import click

from mappings.exact_json import dumps
from service.opening import TENANT, now, opened, settings

Json = Any
JUDGED = 100
"""Events of each type of the ledger that a server is judged by, beside the made-up ones."""


@click.command()
@click.argument("endpoint", required=False)
@click.option("--json", "as_json", is_flag=True, help="the card as JSON")
def doctor(endpoint: str | None, as_json: bool) -> None:
    """Check settings, database, keys and each EHR; say what is wrong and what to do.

    With ENDPOINT: ask its server what it can take, and show which form each type of event gets there, what is
    left out and what would be lost (docs/servers.md). The exit status is 1 when something is.
    """
    if endpoint is not None:
        card = _card(endpoint)
        click.echo(dumps(card).decode() if as_json else "\n".join(card_lines(card)))
        from service.sync.scorecard import is_good

        sys.exit(0 if card["error"] is None and is_good(card) else 1)
    if as_json:
        raise click.UsageError("--json needs an ENDPOINT")
    from service.doctor import checks

    failed = False
    for check in checks(settings(), now):
        click.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.what}: {check.found}")
        failed = failed or not check.ok
    sys.exit(1 if failed else 0)


def named(store: Any, name: str) -> Any:
    """The endpoint of that name, or an error that says there is none."""
    from service.store import endpoints

    with store.read() as c:
        found = endpoints.find(c, TENANT, name)
    if found is None:
        raise click.ClickException(f"there is no endpoint {name}")
    return found


def readable(store: Any, name: str) -> Any:
    """The FHIR server of that name, or an error that says there is none."""
    found = named(store, name)
    if found.is_hl7v2:
        raise click.ClickException(f"{name} is a receiver of HL7 v2: nothing can be read from it")
    return found


def _card(name: str) -> Json:
    """The card of an endpoint, its server asked now; from what is known where it does not answer."""
    store = opened()
    return _asked(store, named(store, name))


def _asked(store: Any, endpoint: Any) -> Json:
    from mappings import EVENT_TYPES
    from service.store import events
    from service.sync import survey
    from service.sync.ehr import EhrError
    from service.sync.messages import map_of
    from service.sync.scorecard import message_card, scorecard
    from service.sync.worker import connect

    with store.read() as c:
        held = {t: [s.event for s in events.search(c, TENANT, limit=JUDGED, type=t)] for t in EVENT_TYPES}
    if endpoint.is_hl7v2:
        card = {"endpoint": endpoint.name, "url": endpoint.url, "error": _no_connection(endpoint)}
        return card | message_card(map_of(endpoint), held)
    error = None
    try:
        matrix = survey.refresh(store, connect(endpoint, store, now), endpoint, now)
    except EhrError as failure:
        error = f"{type(failure).__name__}: its /metadata could not be read"
        known = survey.known(store, endpoint)
        if known is None:
            return {
                "endpoint": endpoint.name,
                "url": endpoint.url,
                "error": error,
                "events": [],
                "problems": [],
            }
        matrix = known
    return {"endpoint": endpoint.name, "url": endpoint.url, "error": error, **scorecard(matrix, held)}


def _no_connection(endpoint: Any) -> str | None:
    """Why a receiver of HL7 v2 cannot be connected to; None where it can."""
    from service.sync.ehr import Unreachable
    from service.sync.worker import dial

    line = dial(endpoint)
    try:
        line.connect()
    except Unreachable as failure:
        return str(failure)
    line.close()
    return None


def introduce(store: Any, endpoint: Any) -> None:
    """What a server that was just added can take; that it did not answer is no failure yet."""
    click.echo("\n".join(card_lines(_asked(store, endpoint))), err=True)


def card_lines(card: Json) -> list[str]:
    """The card for people."""
    if "software" not in card:
        return [
            f"{card['endpoint']}\t{card['url']}",
            f"FAIL  {card['error']}; it is asked again when it is used",
        ]
    fhir = f", FHIR {card['fhir_version']}" if card["types"] else ""
    lines = [f"{card['endpoint']}\t{card['url']}\t{card['software']}{fhir}"]
    if card["error"]:
        lines.append(f"FAIL  {card['error']}{'; below is what it said before' if fhir else ''}")
    lines += [f"FAIL  {problem}" for problem in card["problems"]]
    lines += [f"note  by its options: {text}" for text in card["by_option"]]
    if card["types"]:
        offered = [name for name, there in card["system"].items() if there] or ["none"]
        lines += [f"      system: {', '.join(offered)}", "", "resource types"]
        lines += [_type_line(one) for one in card["types"]]
    lines += ["", "events"]
    for one in card["events"]:
        lines += _event_lines(one)
    return lines


def _type_line(one: Json) -> str:
    says = "written" if one["written"] else f"not written: {one['why']}"
    found = f"; found by {one['found_by']}" if one["found_by"] else ""
    return f"  {one['type']:<26}{says}{found}"


def _event_lines(one: Json) -> list[str]:
    form = ", ".join(one["sends"]) or "nothing"
    lines = [f"  {one['type']:<16}{one['rung']:<13}{form}"]
    if one["left_out"]:
        lines.append(f"{'':<18}left out: {', '.join(one['left_out'])}")
    if one["lost"]:
        lines.append(f"{'':<18}LOST: {', '.join(one['lost'])}")
    if one["rung"] in ("chart", "none"):
        lines += [f"{'':<18}because {text}" for text in one["why"]]
    return lines


@click.command()
@click.argument("endpoint")
@click.option(
    "--fix", is_flag=True, help="mend what may be mended: sent again, read into the ledger, or asked"
)
@click.option("--json", "as_json", is_flag=True, help="the findings as JSON, one a line, then the summary")
def reconcile(endpoint: str, fix: bool, as_json: bool) -> None:
    """Compare everything that ENDPOINT should hold with what it holds, by identifier and content.

    With --fix what is missing or older there is due for delivery again, in the order of its lane, and what
    was edited there is read into the ledger; what was deleted there, or is there twice, waits for a person.
    Nothing is ever deleted there. The exit status is 1 when something differs and was not mended.
    """
    from service.progress import advancing
    from service.store import drift
    from service.sync.ehr import EhrError
    from service.sync.reconcile import Comparison
    from service.sync.reconcile import reconcile as compare
    from service.sync.survey import refresh
    from service.sync.worker import connect

    store = opened()
    of = readable(store, endpoint)
    ehr = connect(of, store, now)
    try:
        comparison = Comparison(store, ehr, of, refresh(store, ehr, of, now), now, fix)
        with store.read() as c:
            total = drift.count_settled(c, of)
        with advancing(f"comparing {endpoint}", total) as advance:
            run = compare(comparison, "cli", advance)
    except EhrError as error:
        raise click.ClickException(f"{type(error).__name__}: {endpoint} could not be read") from None
    whole = _show(store, run, as_json)
    click.echo(_summary(run, as_json))
    sys.exit(0 if whole else 1)


def _show(store: Any, run: Any, as_json: bool) -> bool:
    """Print every finding; whether all of them were mended (so also when there is none)."""
    from service.api.drift import shown
    from service.store import drift

    after, whole = 0, True
    while True:
        with store.read() as c:
            found = drift.of_run(c, TENANT, run.id, limit=500, after_id=after)
        if not found:
            return whole
        for one in found:
            whole = whole and one.repaired is not None and one.kind != "duplicate"
            named_as = f"{one.resource_type} {one.system.rpartition('/')[2]} {one.value}"
            done = f" -> {one.repaired}" if one.repaired else ""
            line = f"{one.kind:<10}{named_as}: {one.reason}{done}"
            click.echo(dumps(shown(one)).decode() if as_json else line)
        after = found[-1].id


def _summary(run: Any, as_json: bool) -> str:
    from service.api.drift import summary

    if as_json:
        return dumps(summary(run)).decode()
    said = ", ".join(f"{number} {kind}" for kind, number in run.counts.items()) or "no difference"
    return f"{run.compared} records compared: {said}"


@click.group()
def cases() -> None:
    """What a person must sort out in an EHR, such as a record that it holds twice."""


@cases.command("list")
@click.option("--all", "every", is_flag=True, help="closed ones too")
def cases_list(every: bool) -> None:
    """Each case: number, endpoint, what it is about, and the ids that the EHR uses."""
    from service.store import drift, endpoints

    after = 0
    with opened().read() as c:
        names = {one.id: one.name for one in endpoints.every(c, TENANT)}
        while page := drift.search_cases(
            c, TENANT, limit=500, after_id=after, status=None if every else "open"
        ):
            for one in page:
                about = f"{one.resource_type} {one.system.rpartition('/')[2]} {one.value}"
                ids = ", ".join(one.remote_ids)
                click.echo(f"{one.id}\t{names[one.endpoint_id]}\t{one.kind}\t{about}\t{ids}\t{one.status}")
            after = page[-1].id


@cases.command("close")
@click.argument("number", type=int)
@click.option("--reason", required=True, help="what was done about it")
def cases_close(number: int, reason: str) -> None:
    """Close case NUMBER; a later comparison opens it again where it was not sorted out."""
    from service.store import audit, drift
    from service.store.times import stamp

    with opened().write() as c:
        if not drift.close_case(c, TENANT, number, reason, now=now()):
            raise click.ClickException(f"there is no open case {number}")
        audit.write(c, TENANT, at=stamp(now()), actor="cli", action="close", subject=f"case/{number}")
    click.echo(f"{number} closed")


COMMANDS = (doctor, reconcile, cases)
