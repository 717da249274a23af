"""The adapter to an EHR over HTTP: which answers it believes, and how long it waits for one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.fake_ehr.faults import plan_of
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving
from service.sync import ehr as port
from service.sync.ehr import Ambiguous, HttpEhr, Throttled

MRN = "http://hospital.invalid/mrn"


@contextmanager
def misbehaving(plan: str, deadline_s: float = 10) -> Iterator[tuple[HttpEhr, FakeEhr]]:
    """An EHR with the patients 1001 and 1002."""
    fake = FakeEhr(load("hapi"), plan_of(plan))
    for value in ("1", "2"):
        fake.register(MRN, value)
    with serving(fake) as url:
        yield HttpEhr(url, deadline_s=deadline_s), fake


def one(value: str) -> Any:
    patient = {"resourceType": "Patient", "identifier": [{"system": MRN, "value": value}]}
    request = {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={MRN}|{value}"}
    entry = {"resource": patient, "request": request}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


def test_an_answer_about_another_resource_is_not_believed() -> None:
    """Else a record is linked to, and later written over, another one."""
    with misbehaving(f"other@#2-{1 + port.READS}/read") as (ehr, _):
        ehr.read("Patient", "1001")
        with pytest.raises(Ambiguous, match="another resource"):
            ehr.read("Patient", "1002")
        assert ehr.read("Patient", "1002")["id"] == "1002"


def test_an_answer_to_another_kind_of_request_is_not_believed() -> None:
    with misbehaving("other@#1-9/search;other@#1/transaction;other@#1/create") as (ehr, _):
        ehr.read("Patient", "1001")
        with pytest.raises(Ambiguous, match="not a searchset"):
            list(ehr.search("Patient", {"identifier": f"{MRN}|1"}))
        with pytest.raises(Ambiguous, match="not a transaction-response"):
            ehr.transaction(one("3"))
        device = {"resourceType": "Device", "identifier": [{"system": MRN, "value": "9"}]}
        with pytest.raises(Ambiguous, match="another resource"):
            ehr.create(device, f"identifier={MRN}|9")


def test_an_answer_to_a_search_of_another_type_is_not_believed() -> None:
    with misbehaving("other@#2-9/search") as (ehr, _):
        assert len(list(ehr.search("Patient", {"identifier": f"{MRN}|1"}))) == 1
        with pytest.raises(Ambiguous, match="another search"):
            list(ehr.search("Device", {"identifier": f"{MRN}|1"}))


@pytest.mark.parametrize("fault", ["reset-after", "html", "empty", "truncated", "status=500", "lost"])
def test_reading_is_tried_again_at_once(fault: str) -> None:
    with misbehaving(f"{fault}@#1-{port.READS - 1}/read") as (ehr, fake):
        assert ehr.read("Patient", "1001")["id"] == "1001"
        assert fake.calls["read"] == port.READS


def test_reading_is_not_tried_for_ever_nor_against_the_servers_word() -> None:
    with misbehaving("html@#1+/read;status=503@#1+/search") as (ehr, fake):
        with pytest.raises(Ambiguous):
            ehr.read("Patient", "1001")
        assert fake.calls["read"] == port.READS
        with pytest.raises(Throttled):
            list(ehr.search("Patient", {"identifier": f"{MRN}|1"}))
        assert fake.calls["search"] == 1


def test_writing_is_sent_once() -> None:
    with misbehaving("html@#1/transaction") as (ehr, fake):
        with pytest.raises(Ambiguous):
            ehr.transaction(one("3"))
        assert fake.calls["transaction"] == 1


def test_an_answer_in_drops_ends_at_the_deadline() -> None:
    """Drops that come faster than the time-out of each would be waited for without end."""
    with misbehaving("drip=16@#1+/read", deadline_s=2.5) as (ehr, _):
        began = time.monotonic()
        with pytest.raises(Ambiguous, match="longer than"):
            ehr.read("Patient", "1001")
        assert time.monotonic() - began < 9
