"""The fake EHR: it takes what its CapabilityStatement says, and misbehaves as its plan says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from fakes import EHRS
from mappings.exact_json import dumps, loads
from service.cli import main
from service.fake_ehr import faults, personality
from service.fake_ehr.damage import AFTER, BEFORE, WIRE, answer, sending
from service.fake_ehr.faults import KINDS, Call, Fault, Plan, PlanError, draw, plan_of
from service.fake_ehr.interactions import ANSWERS, apply
from service.fake_ehr.personality import INTERACTIONS, NAMES, OF_FHIR, load
from service.fake_ehr.server import FakeEhr, serving
from service.fake_ehr.state import State
from service.fake_ehr.wire import ROUTES, Request, Response
from service.sync import capability
from service.sync.ehr import Ambiguous, EhrError, HttpEhr

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MRN = "http://hospital.invalid/mrn"
SLOW = {"seconds": 0.0}


def state(make: str = "hapi") -> State:
    return State(load(make))


def patient(value: str = "1", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": MRN, "value": value}], **more}


def ask(ehr: State, method: str, url: str, body: Any = None, at: datetime = NOW, **headers: str) -> Response:
    path, _, query = url.partition("?")
    pairs = tuple(tuple(p.split("=", 1)) for p in query.split("&") if p)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return apply(ehr, Request(method, path, pairs, named, body), at)  # type: ignore[arg-type]


def bundle(*entries: Any, kind: str = "transaction") -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def entry(method: str, url: str, resource: Any = None, **request: str) -> dict[str, Any]:
    return {"request": {"method": method, "url": url, **request}, "resource": resource}


# --- what it takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", NAMES)
def test_it_takes_exactly_what_its_capability_statement_says(make: str) -> None:
    ehr = state(make)
    (rest,) = ask(ehr, "GET", "metadata").body["rest"]
    of_fhir = {code: name for name, code in OF_FHIR.items()}
    said = {
        r["type"]: {of_fhir.get(i["code"], i["code"]) for i in r["interaction"]} for r in rest["resource"]
    }
    for type in {*load("hapi").interactions, *said}:
        body = {"resourceType": type}
        made = ehr.write((type, "x1"), body, "POST", NOW)
        etag = f'W/"{made.number}"'
        tried = {
            "read": ask(ehr, "GET", f"{type}/x1"),
            "vread": ask(ehr, "GET", f"{type}/x1/_history/1"),
            "search": ask(ehr, "GET", type),
            "history": ask(ehr, "GET", f"{type}/_history"),
            "create": ask(ehr, "POST", type, body),
            "update": ask(ehr, "PUT", f"{type}/x1", body | {"language": "de"}, if_match=etag),
            "delete": ask(ehr, "DELETE", f"{type}/x1"),
        }
        assert tried.keys() == set(INTERACTIONS)
        assert {name for name, got in tried.items() if got.status < 300} == said.get(type, set()), type
    for kind in ("transaction", "batch"):
        listed = kind in {i["code"] for i in rest["interaction"]}
        assert (ask(ehr, "POST", "", bundle(kind=kind)).status == 200) is listed


@pytest.mark.parametrize("make", NAMES)
def test_it_searches_by_what_its_capability_statement_says(make: str) -> None:
    ehr = state(make)
    (rest,) = ask(ehr, "GET", "metadata").body["rest"]
    for described in rest["resource"]:
        listed = {p["name"] for p in described["searchParam"]}
        assert listed <= personality.PARAMETER_KINDS.keys()
        for name in personality.PARAMETER_KINDS if ehr.personality.takes(described["type"], "search") else ():
            value = "ge2026-01-01" if name == "_lastUpdated" else "nothing"
            found = ask(ehr, "GET", f"{described['type']}?{name}={value}")
            refused = ehr.personality.unknown_parameter == "refused" and name not in listed
            assert found.status == (400 if refused else 200), (described["type"], name)


@pytest.mark.parametrize("make", ["hapi", "epic-like", "oracle-like"])
def test_it_takes_what_the_recorded_statement_of_its_kind_says(make: str) -> None:
    """fixtures/ehr says what such servers take, of the types that we read or write; PATCH is not played."""
    recorded = capability.read(loads((EHRS / f"{make}.json").read_bytes()))
    played = capability.read(ask(state(make), "GET", "metadata").body)
    for type in capability.READ:
        said = recorded.of(type)
        wanted = said.interactions & {"create", "read", "search-type", "update"}
        assert played.of(type).interactions & {*wanted, "create", "update"} == wanted, type
        assert played.of(type).search_params <= said.search_params or make == "hapi", type
    assert played.transactions is recorded.transactions


def test_every_interaction_is_answered() -> None:
    assert ANSWERS.keys() == set(ROUTES)


def test_versions_conditions_and_deletes_are_those_of_hapi() -> None:
    ehr = state()
    made = ask(ehr, "POST", "Patient", patient(), if_none_exist=f"identifier={MRN}|1")
    again = ask(ehr, "POST", "Patient", patient(active=True), if_none_exist=f"identifier={MRN}|1")
    id = made.body["id"]
    assert (made.status, again.status, again.body) == (201, 200, made.body)
    changed = ask(ehr, "PUT", f"Patient/{id}", patient(active=True), if_match='W/"1"')
    assert changed.body["meta"]["versionId"] == "2"
    assert ask(ehr, "PUT", f"Patient/{id}", patient(), if_match='W/"1"').status == 409
    assert ask(ehr, "PUT", f"Patient/{id}", patient(active=True)).body["meta"]["versionId"] == "2"
    assert ask(ehr, "DELETE", f"Patient/{id}").status == 200
    assert ask(ehr, "GET", f"Patient/{id}").status == 410
    assert ask(ehr, "GET", f"Patient?identifier={MRN}|1").body["entry"] == []
    assert ask(ehr, "PUT", f"Patient/{id}", patient()).status == 201  # HAPI brings it back
    told = ask(ehr, "GET", f"Patient/{id}/_history").body["entry"]
    assert [e["request"]["method"] for e in told] == ["PUT", "DELETE", "PUT", "POST"]
    assert ask(ehr, "GET", f"Patient/{id}/_history/1").body == made.body
    assert ask(ehr, "PUT", "Patient/77", patient("2")).status == 400
    assert ask(ehr, "PUT", "Patient/mine", patient("2")).status == 201


def test_digits_count_as_content() -> None:
    ehr = state()
    dose = {"resourceType": "Observation", "valueQuantity": loads(b'{"value": 19.0}')}
    ask(ehr, "PUT", "Observation/o1", dose)
    finer = ask(ehr, "PUT", "Observation/o1", dose | {"valueQuantity": loads(b'{"value": 19.00}')})
    assert dumps(finer.body["valueQuantity"]) == b'{"value":19.00}'
    assert finer.body["meta"]["versionId"] == "2"


def test_a_transaction_is_undone_as_a_whole() -> None:
    ehr = state()
    made = ask(ehr, "POST", "Patient", patient()).body
    before = (len(ehr.log), ask(ehr, "GET", "Patient").body["total"])
    url = f"Patient/{made['id']}"
    refused = ask(
        ehr,
        "POST",
        "",
        bundle(entry("POST", "Patient", patient("2")), entry("PUT", url, patient(), ifMatch='W/"9"')),
    )
    assert refused.status == 409
    assert (len(ehr.log), ask(ehr, "GET", "Patient").body["total"]) == before
    assert ask(ehr, "GET", f"Patient?identifier={MRN}|2").body["entry"] == []


def test_a_batch_goes_on_after_a_refused_entry() -> None:
    ehr = state()
    sent = bundle(entry("PUT", "Patient/5", patient()), entry("POST", "Patient", patient("2")), kind="batch")
    first, second = ask(ehr, "POST", "", sent).body["entry"]
    assert first["response"]["status"].startswith("400")
    assert second["response"]["status"] == "201 Created"


def test_references_by_urn_and_by_condition_become_literal() -> None:
    ehr = state()
    ask(ehr, "POST", "Patient", patient())
    pump = {"resourceType": "Device", "patient": {"reference": f"Patient?identifier={MRN}|1"}}
    use = {"resourceType": "DeviceUseStatement", "device": {"reference": "urn:uuid:a"}}
    sent = bundle(
        entry("POST", "DeviceUseStatement", use), entry("POST", "Device", pump) | {"fullUrl": "urn:uuid:a"}
    )
    made = [e["resource"] for e in ask(ehr, "POST", "", sent, prefer="return=representation").body["entry"]]
    assert made[0]["device"]["reference"] == f"Device/{made[1]['id']}"
    assert made[1]["patient"]["reference"] == "Patient/1001"
    lost = {"resourceType": "Device", "patient": {"reference": f"Patient?identifier={MRN}|2"}}
    assert ask(ehr, "POST", "Device", lost).status == 404
    assert ask(ehr, "DELETE", "Patient/1001").status == 409


def test_pages_follow_opaque_links_and_expire() -> None:
    ehr = state()
    for number in range(5):
        ask(ehr, "POST", "Patient", patient(str(number)), at=NOW + timedelta(seconds=number))
    seen, url = [], "Patient?_count=2&_sort=-_lastUpdated"
    while url:
        body = ask(ehr, "GET", url).body
        seen += [e["resource"]["identifier"][0]["value"] for e in body["entry"]]
        following = [link["url"] for link in body["link"] if link["relation"] == "next"]
        url = "?" + following[0].partition("?")[2] if following else ""
    assert seen == ["4", "3", "2", "1", "0"]
    assert ask(ehr, "GET", "?_getpages=gone&_getpagesoffset=2").status == 410


def test_searches_by_time_identifiers_references_and_codes() -> None:
    ehr = state()
    for number in (1, 2, 3):
        ask(ehr, "POST", "Patient", patient(str(number)), at=NOW + timedelta(seconds=number))
    pump = {"resourceType": "Device", "status": "active", "patient": {"reference": "Patient/1001"}}
    ask(ehr, "POST", "Device", pump)

    def ids(url: str) -> list[str]:
        return [e["resource"]["id"] for e in ask(ehr, "GET", url).body["entry"]]

    assert ids(f"Patient?identifier={MRN}|3,{MRN}|1") == ["1003", "1001"]
    assert ids("Patient?identifier=2") == ["1002"]
    assert ids("Patient?_lastUpdated=ge2026-03-01T12:00:02Z") == ["1002", "1003"]
    assert ids("Patient?_lastUpdated=gt2026-03-01T12:00:02Z&_lastUpdated=le2026-03-01T12:00:03Z") == ["1003"]
    assert ids("Device?patient=1001") == ids("Device?patient=Patient/1001") == ["1004"]
    assert ids("Device?patient=1002") == []
    assert ids("Device?status=active") == ["1004"]
    assert ids("Patient?_id=1001,1003") == ["1001", "1003"]
    recent = ask(ehr, "GET", "_history?_since=2026-03-01T12:00:02Z").body["entry"]
    assert [e["fullUrl"].rpartition("/")[2] for e in recent] == ["1003", "1002"]


def test_what_is_found_by_time_is_what_a_look_at_everything_finds() -> None:
    """Also where the clock was set back, and where a transaction was undone."""
    ehr = state()
    times = [NOW + timedelta(seconds=n) for n in (0, 5, 5, 9, 2, 3, 9, 12)]
    for number, at in enumerate(times):
        ask(ehr, "PUT", f"Patient/p{number % 5}", patient(str(number)), at)
    torn = bundle(entry("PUT", "Patient/p9", patient("9")), entry("PUT", "Patient/p1/x", patient("1")))
    assert ask(ehr, "POST", "", torn, times[-1]).status >= 400
    assert len(ehr.log) == len(times)
    newest = {version.key: version for version in ehr.log}
    for at in times:
        url = f"Patient?_lastUpdated=ge{at.isoformat()}"
        found = [e["resource"]["id"] for e in ask(ehr, "GET", url).body["entry"]]
        assert found == [key[1] for key, v in newest.items() if datetime.fromisoformat(v.updated) >= at]
        history = ask(ehr, "GET", f"Patient/_history?_since={at.isoformat()}").body["entry"]
        assert len(history) == sum(datetime.fromisoformat(v.updated) >= at for v in ehr.log)


def test_a_patient_is_matched_by_a_business_identifier() -> None:
    ehr = state()
    ask(ehr, "POST", "Patient", patient())
    named = {"parameter": [{"name": "resource", "resource": patient()}]}
    (found,) = ask(ehr, "POST", "Patient/$match", {"resourceType": "Parameters", **named}).body["entry"]
    assert found["search"]["extension"][0]["valueCode"] == "certain"


def test_a_lossy_server_keeps_less_and_says_yes() -> None:
    ehr = state("silent-lossy")
    sent = {
        "resourceType": "Observation",
        "extension": [{"url": "http://a.invalid", "valueCode": "b"}],
        "valueQuantity": loads(b'{"value": 0.1750}'),
    }
    made = ask(ehr, "PUT", "Observation/ours", sent)
    assert made.status == 201
    assert made.body["id"] != "ours"
    assert "extension" not in made.body
    assert dumps(made.body["valueQuantity"]) == b'{"value":0.175}'


def test_oracle_like_wants_if_match_and_answers_without_a_body() -> None:
    ehr = state("oracle-like")
    made = ask(ehr, "POST", "Observation", {"resourceType": "Observation"})
    assert (made.status, made.body) == (201, None)
    path = made.headers["location"].removeprefix(ehr.url + "/").partition("/_history")[0]
    body = {"resourceType": "Observation", "status": "final"}
    assert ask(ehr, "PUT", path, body).status == 412
    assert ask(ehr, "PUT", path, body, if_match='W/"1"').status == 200


# --- what goes wrong ------------------------------------------------------------------------------------


def test_every_kind_does_something_and_is_described() -> None:
    shown = BEFORE.keys() | AFTER.keys() | WIRE.keys() | {"status", "status-after", "other"}
    assert shown == KINDS.keys()


@contextmanager
def misbehaving(plan: str, make: str = "hapi") -> Iterator[tuple[HttpEhr, FakeEhr]]:
    fake = FakeEhr(load(make), plan_of(plan))
    fake.register(MRN, "1")
    with serving(fake) as url:
        yield HttpEhr(url, deadline_s=2), fake


def two(value: str = "2") -> dict[str, Any]:
    made = [
        {
            "fullUrl": f"urn:uuid:{n}",
            "resource": patient(f"{value}-{n}"),
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={MRN}|{value}-{n}"},
        }
        for n in (1, 2, 3)
    ]
    return bundle(*made)


AMBIGUOUS = (
    "reset-before",
    "reset-after",
    "lost",
    "hang=1",
    "truncated",
    "invalid-json",
    "html",
    "empty",
    "length-long",
    "length-short",
    "status=408",
    "status=500",
    "status-after=500",
)


@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_an_answer_that_cannot_be_trusted_is_ambiguous(fault: str) -> None:
    """And it was done or not, as the kind says."""
    with misbehaving(f"{fault}@#1/transaction") as (ehr, fake):
        with pytest.raises(Ambiguous):
            ehr.transaction(two())
        done = KINDS[fault.partition("=")[0]].applies
        assert len(fake.state.versions) == (4 if done else 1)
        # Not over the same connection: one that was cut may fail once more, which is fair too.
        assert len(HttpEhr(ehr.url).transaction(two())) == 3
        assert len(fake.state.versions) == 4
        assert sum(fake.faults.values()) == 1


@pytest.mark.parametrize("status", faults.STATUSES)
@pytest.mark.parametrize("outcome", ["true", "false"])
def test_every_status_comes_with_and_without_an_operation_outcome(status: int, outcome: str) -> None:
    with misbehaving(f"status={status},outcome={outcome},retry_after=7@100%/read") as (ehr, _):
        with pytest.raises(EhrError) as failed:
            ehr.read("Patient", "1001")
        assert failed.value.status == status
        assert failed.value.retry_after_s == 7
        assert ("error" in str(failed.value)) is (outcome == "true")


def test_retry_after_may_be_a_date() -> None:
    with misbehaving("status=429,retry_after=date@#1/read") as (ehr, _):
        answer = requests.get(f"{ehr.url}/Patient/1001", timeout=5)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"].endswith("GMT")


@pytest.mark.parametrize(
    ("fault", "names"),
    [("swapped", ["2-2", "2-3", "2-1"]), ("short", ["2-1", "2-2"]), ("doubled", ["2-1", "2-2", "2-1"])],
)
def test_a_transactions_answers_may_be_mixed_up(fault: str, names: list[str]) -> None:
    with misbehaving(f"{fault}@#1/transaction") as (ehr, _):
        assert [r["identifier"][0]["value"] for r in ehr.transaction(two())] == names


def test_an_answer_that_comes_twice_is_not_taken_for_the_next_one() -> None:
    with misbehaving("duplicate@#1/read") as (ehr, fake):
        fake.register(MRN, "2")
        assert ehr.read("Patient", "1001")["id"] == "1001"
        assert ehr.read("Patient", "1002")["id"] == "1002"


def test_the_answer_to_another_request_is_given() -> None:
    with misbehaving("other@#2/read") as (ehr, fake):
        fake.register(MRN, "2")
        ehr.read("Patient", "1001")
        assert requests.get(f"{ehr.url}/Patient/1002", timeout=5).json()["id"] == "1001"


def test_a_torn_transaction_leaves_half() -> None:
    with misbehaving("torn@#1/transaction") as (ehr, fake):
        with pytest.raises(Ambiguous):
            ehr.transaction(two())
        assert len(fake.state.versions) == 2


def test_a_batch_may_be_done_in_part() -> None:
    with misbehaving("partial@#1/batch") as (ehr, fake):
        answer = requests.post(ehr.url, json=two() | {"type": "batch"}, timeout=5).json()
        assert [e["response"]["status"][:3] for e in answer["entry"]] == ["201", "503", "201"]
        assert len(fake.state.versions) == 3


def test_a_race_is_lost_to_somebody_who_changed_nothing() -> None:
    with misbehaving("race@#1/update") as (ehr, _):
        body = ehr.read("Patient", "1001")
        url, match = f"{ehr.url}/Patient/1001", {"If-Match": 'W/"1"'}
        assert requests.put(url, json=body | {"active": True}, headers=match, timeout=5).status_code == 409
        there = ehr.read("Patient", "1001")
        assert there | {"meta": body["meta"]} == body
        assert (there["meta"]["versionId"], len(there["meta"]["tag"])) == ("2", 1)


def test_an_old_cache_shows_what_was_there_before() -> None:
    ehr = state()
    stale = Fault("stale", {"seconds": 5})
    ask(ehr, "POST", "Patient", patient(), at=NOW)
    ask(ehr, "PUT", "Patient/1001", patient(active=True), at=NOW + timedelta(seconds=8))
    read = Request("GET", "Patient/1001")
    assert answer(ehr, read, NOW + timedelta(seconds=3), stale).status == 404
    assert "active" not in answer(ehr, read, NOW + timedelta(seconds=10), stale).body
    assert answer(ehr, read, NOW + timedelta(seconds=14), stale).body["active"] is True


def test_a_server_may_be_changed_by_the_plan() -> None:
    plan = {
        "server": {
            "read_only": ["Device"],
            "no_last_updated": True,
            "no_transactions": True,
            "clock_skew_s": 3600,
        }
    }
    fake = FakeEhr(load("hapi"), plan_of(dumps(plan).decode()), clock=lambda: NOW)
    assert fake.now() == NOW + timedelta(hours=1)
    assert ask(fake.state, "POST", "Device", {"resourceType": "Device"}).status == 405
    assert ask(fake.state, "GET", "Patient?_lastUpdated=ge2026-01-01").status == 400
    assert ask(fake.state, "POST", "", bundle()).status == 405
    (rest,) = ask(fake.state, "GET", "metadata").body["rest"]
    assert rest["interaction"] == []


def test_extensions_may_be_forgotten_once() -> None:
    extended = patient("2", extension=[{"url": "http://a.invalid", "valueCode": "b"}])
    ehr = state()
    made = answer(ehr, Request("POST", "Patient", body=extended), NOW, Fault("drop-extensions", {}))
    assert "extension" not in made.body
    assert "extension" in ask(ehr, "POST", "Patient", extended | {"active": True}).body


def test_drops_and_delays_take_the_time_they_say() -> None:
    made = Response(200, {"resourceType": "Patient"})
    dripping = sending(made, NOW, Fault("drip", {"seconds": 8.0}))
    assert dripping.pause_s * len(dripping.chunks) == pytest.approx(8.0)
    assert b"".join(dripping.chunks) == sending(made, NOW).chunks[0]
    assert sending(made, NOW, Fault("delay", {"seconds": 3.0})).wait_s == 3.0


def test_a_client_does_not_wait_longer_than_its_deadline() -> None:
    with misbehaving("hang=30@#1/read;drip=30@#2/read") as (ehr, _):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(Ambiguous):
                ehr.read("Patient", "1001")
            assert time.monotonic() - began < 10  # the deadline is 2 s


# --- plans ----------------------------------------------------------------------------------------------


def struck(plan: Plan, number: int = 2000, route: str = "transaction") -> list[str | None]:
    drawn = [draw(plan, Call(n, n, route, None)) for n in range(1, number + 1)]
    return [fault.kind if fault else None for fault in drawn]


def test_a_plan_draws_the_same_faults_for_the_same_seed() -> None:
    assert struck(plan_of("20%", 1)) == struck(plan_of("20%", 1))
    assert struck(plan_of("20%", 1)) != struck(plan_of("20%", 2))


def test_one_call_in_five_goes_wrong_in_every_way_that_a_client_should_get_over() -> None:
    drawn = [kind for kind in struck(plan_of("20%", 1)) if kind]
    assert 0.16 < len(drawn) / 2000 < 0.24
    assert set(drawn) == {k for k, kind in KINDS.items() if kind.transient and "transaction" in kind.routes}


def test_some_kinds_may_be_left_out() -> None:
    assert not {"drip", "delay"} & set(struck(plan_of("50%,without=drip+delay", 1)))


def test_calls_are_counted_over_all_or_for_a_route() -> None:
    assert struck(plan_of("lost@#2-3"), 5) == [None, "lost", "lost", None, None]
    assert struck(plan_of("lost@#4+/transaction"), 5) == [None, None, None, "lost", "lost"]
    assert struck(plan_of("lost@#1+/read"), 2) == [None, None]
    assert draw(plan_of("lost@100%/Patient"), Call(1, 1, "read", "Device")) is None


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "lost",
        "losst@5%",
        "lost@5%/nowhere",
        "torn@5%/read",
        "status=299@5%",
        "lost=1@5%",
        "drip,speed=1@5%",
        '{"fault": []}',
        '{"faults": [{"chance": 1}]}',
        "{",
    ],
)
def test_a_plan_that_cannot_be_read_says_why(text: str) -> None:
    with pytest.raises(PlanError):
        plan_of(text)


def test_the_example_plans_can_be_read() -> None:
    listed = list(resources.files("service.fake_ehr").joinpath("plans").iterdir())
    assert len(listed) >= 3
    for file in listed:
        plan = plan_of(file.read_text())
        FakeEhr(load("hapi"), plan)
        assert plan.rules or plan.any_chance


# --- the tool -------------------------------------------------------------------------------------------


def test_it_tells_what_was_asked_and_takes_another_plan() -> None:
    with misbehaving("") as (ehr, _):
        ehr.read("Patient", "1001")
        control = ehr.url.removesuffix("/fhir") + "/_fake"
        assert requests.get(control, timeout=5).json()["calls"] == {"read": 1}
        assert requests.put(f"{control}/faults", data="status=503@100%", timeout=5).status_code == 200
        with pytest.raises(EhrError):
            ehr.read("Patient", "1001")
        assert requests.get(control, timeout=5).json()["faults"] == {"status=503": 1}
        assert requests.put(f"{control}/faults", data="what?", timeout=5).status_code == 400


@pytest.mark.parametrize("option", [["--faults", "what?"], ["--patient", "nobody"], ["--faults", "no.json"]])
def test_the_command_says_what_is_wrong(option: list[str]) -> None:
    done = CliRunner().invoke(main, ["fake-ehr", *option])
    assert done.exit_code == 2
    assert done.output
