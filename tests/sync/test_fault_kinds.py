"""Each kind of fault by itself: what passes needs nobody, what does not pass waits for a person."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chaos import left_behind
from history import Breach, Write, check
from service.fake_ehr.faults import GENTLE_STATUSES, KINDS, plan_of
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving
from service.store import deliveries
from service.sync.ehr import HttpEhr
from service.synthetic import clinic
from site_of_tests import Site

EVENTS = list(islice(clinic(3, 1, 11), 24))
PASSING = [
    kind
    for kind, told in KINDS.items()
    if told.transient and kind not in ("status", "status-after", "partial")
]
"""`partial` is of batches, which are not sent."""
STATUSES = [f"{kind}={status}" for kind in ("status", "status-after") for status in GENTLE_STATUSES]
FOR_A_PERSON = ("status=400", "status=403", "status=410", "status=422", "status=401")


class Faulty(Site):
    """A ledger, and the fake EHR over HTTP with the patients that it needs."""

    def __init__(self, folder: Path, fake: FakeEhr, url: str) -> None:
        super().__init__(folder)
        self.fake = fake
        self.ehr = HttpEhr(url, deadline_s=3)  # type: ignore[assignment]
        for name in {event["patient"]["value"]: event["patient"] for event in EVENTS}.values():
            fake.register(name["system"], name["value"])

    def breaches(self) -> list[Breach]:
        writes = [
            Write(v.key[0], v.key[1], v.number, at, v.resource) for at, v in enumerate(self.fake.state.log)
        ]
        return check(left_behind(self.store, writes, EVENTS, Path("no log"), 0.0))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Faulty]:
    fake = FakeEhr(load("hapi"))
    with serving(fake) as url:
        made = Faulty(tmp_path, fake, url)
        yield made
        made.store.close()


def plan(fault: str, chance: int) -> Any:
    kind = KINDS[fault.partition("=")[0]]
    # A version conflict is an answer to a write.
    asked = ("transaction",) if fault.endswith(("409", "412")) else ("transaction", "search", "read")
    routes = [route for route in asked if route in kind.routes]
    return plan_of(";".join(f"{fault}@{chance}%/{route}" for route in routes), seed=3)


@pytest.mark.parametrize("fault", [*PASSING, *STATUSES])
def test_what_passes_needs_nobody(fault: str, site: Faulty) -> None:
    site.fake.replan(plan(fault, 35))
    assert set(site.send(*EVENTS)) == {"accepted"}
    came = site.push(rounds=400)
    assert came["sent"] == len(EVENTS)
    assert came.keys() <= {"sent", "pending"}
    assert sum(site.fake.faults.values()) > 0
    assert site.breaches() == []


@pytest.mark.parametrize("fault", FOR_A_PERSON)
def test_what_does_not_pass_waits_for_a_person_and_is_not_asked_for_ever(fault: str, site: Faulty) -> None:
    site.fake.replan(plan_of(f"{fault}@100%/transaction"))
    site.send(*EVENTS)
    site.push()
    held = [d for d in site.deliveries() if d.status in ("failed", "parked")]
    assert {d.lane for d in held} == {d.lane for d in site.deliveries()}
    assert all(d.attempts <= 3 and d.reason for d in held)
    asked = site.fake.calls["transaction"]
    site.push()
    assert site.fake.calls["transaction"] == asked
    site.fake.replan(plan_of(""))
    for _ in range(len(EVENTS)):
        with site.store.write() as c:
            listed = deliveries.search(c, 1, limit=100)
            ids = [d.id for d in listed if d.status in ("failed", "parked")]
            deliveries.change(c, 1, ids, "retry", now=site.now(), reason=None)
        site.push()
    assert site.breaches() == []
