"""What the sync relies on in an EHR: one class of tests, on the EHR in memory and on a real HAPI."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from fakes import MemoryEhr
from service.sync.ehr import HttpEhr, Missing, Refused, Stale

SYSTEM = "http://hospital.invalid/mrn"
ORDERS = "http://hospital.invalid/order"


def patient(value: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value}], **more}


def post(resource: dict[str, Any], url: str | None = None) -> dict[str, Any]:
    name = resource["identifier"][0]
    condition = f"identifier={name['system']}|{name['value']}"
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": condition}
    return {"fullUrl": url or f"urn:uuid:{uuid.uuid4()}", "resource": resource, "request": request}


def put(resource: dict[str, Any], version: str) -> dict[str, Any]:
    url = f"{resource['resourceType']}/{resource['id']}"
    request = {"method": "PUT", "url": url, "ifMatch": f'W/"{version}"'}
    return {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": resource, "request": request}


def bundle(*entries: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


def found(ehr: Any, type: str, **params: str) -> list[dict[str, Any]]:
    return [resource for page in ehr.search(type, params) for resource in page.resources]


class EhrContract:
    """Inherited by a class for each EHR."""

    @pytest.fixture
    def mrn(self) -> str:
        return uuid.uuid4().hex

    def test_it_is_r4(self, ehr: Any) -> None:
        assert ehr.metadata()["fhirVersion"] == "4.0.1"

    def test_a_conditional_create_makes_one_and_answers_with_it_again(self, ehr: Any, mrn: str) -> None:
        (first,) = ehr.transaction(bundle(post(patient(mrn))))
        (second,) = ehr.transaction(bundle(post(patient(mrn))))
        assert (first["id"], first["meta"]["versionId"]) == (second["id"], "1")
        assert [r["id"] for r in found(ehr, "Patient", identifier=f"{SYSTEM}|{mrn}")] == [first["id"]]

    def test_create_outside_a_transaction_is_conditional_too(self, ehr: Any, mrn: str) -> None:
        condition = f"identifier={SYSTEM}|{mrn}"
        assert ehr.create(patient(mrn), condition)["id"] == ehr.create(patient(mrn), condition)["id"]

    def test_what_was_written_is_found_at_once(self, ehr: Any, mrn: str) -> None:
        assert found(ehr, "Patient", identifier=f"{SYSTEM}|{mrn}") == []
        ehr.transaction(bundle(post(patient(mrn))))
        assert len(found(ehr, "Patient", identifier=f"{SYSTEM}|{mrn}")) == 1

    def test_an_update_names_the_version_it_replaces(self, ehr: Any, mrn: str) -> None:
        (made,) = ehr.transaction(bundle(post(patient(mrn))))
        (changed,) = ehr.transaction(bundle(put(made | {"active": True}, "1")))
        assert changed["meta"]["versionId"] == "2"
        with pytest.raises(Stale):
            ehr.transaction(bundle(put(made | {"active": False}, "1")))
        assert ehr.read("Patient", made["id"])["active"] is True

    def test_the_same_content_again_makes_no_version(self, ehr: Any, mrn: str) -> None:
        (made,) = ehr.transaction(bundle(post(patient(mrn, active=True))))
        (again,) = ehr.transaction(bundle(put(made, "1")))
        assert again["meta"]["versionId"] == "1"

    def test_a_transaction_is_all_or_nothing(self, ehr: Any, mrn: str) -> None:
        (made,) = ehr.transaction(bundle(post(patient(mrn))))
        with pytest.raises(Stale):
            ehr.transaction(bundle(post(patient(f"{mrn}-2")), put(made | {"active": True}, "7")))
        assert found(ehr, "Patient", identifier=f"{SYSTEM}|{mrn}-2") == []

    def test_references_between_entries_are_resolved(self, ehr: Any, mrn: str) -> None:
        url = f"urn:uuid:{uuid.uuid4()}"
        device = {"resourceType": "Device", "identifier": [{"system": ORDERS, "value": mrn}]}
        device["patient"] = {"reference": url}
        who, what = ehr.transaction(bundle(post(patient(mrn), url), post(device)))
        assert what["patient"]["reference"] == f"Patient/{who['id']}"

    def test_answers_come_in_the_order_of_the_entries(self, ehr: Any, mrn: str) -> None:
        (made,) = ehr.transaction(bundle(post(patient(mrn))))
        entries = [put(made | {"active": True}, "1"), *(post(patient(f"{mrn}-{n}")) for n in range(3))]
        answered = ehr.transaction(bundle(*entries))
        names = [r["identifier"][0]["value"] for r in answered]
        assert names == [mrn, f"{mrn}-0", f"{mrn}-1", f"{mrn}-2"]

    def test_a_resource_of_ours_keeps_its_client_id(self, ehr: Any, mrn: str) -> None:
        provenance = {
            "resourceType": "Provenance",
            "id": f"itb-{uuid.uuid4()}",
            "target": [{"type": "Patient", "identifier": {"system": SYSTEM, "value": mrn}}],
            "recorded": "2026-01-01T00:00:00.123Z",
            "agent": [{"who": {"display": "itb-fhir"}}],
        }
        request = {"method": "PUT", "url": f"Provenance/{provenance['id']}"}
        for _ in range(2):
            (stored,) = ehr.transaction(bundle({"resource": provenance, "request": request}))
            assert (stored["id"], stored["meta"]["versionId"]) == (provenance["id"], "1")
        assert ehr.read("Provenance", provenance["id"])["recorded"] == provenance["recorded"]

    def test_a_reference_into_nothing_is_refused(self, ehr: Any, mrn: str) -> None:
        device = {"resourceType": "Device", "identifier": [{"system": ORDERS, "value": mrn}]}
        device["patient"] = {"reference": "Patient/does-not-exist"}
        with pytest.raises((Refused, Missing)):
            ehr.transaction(bundle(post(device)))

    def test_a_logical_reference_needs_no_target(self, ehr: Any, mrn: str) -> None:
        device = {"resourceType": "Device", "identifier": [{"system": ORDERS, "value": mrn}]}
        device["patient"] = {"type": "Patient", "identifier": {"system": SYSTEM, "value": "nobody"}}
        (stored,) = ehr.transaction(bundle(post(device)))
        assert stored["patient"] == device["patient"]

    def test_reading_what_is_not_there_says_so(self, ehr: Any) -> None:
        with pytest.raises(Missing):
            ehr.read("Patient", uuid.uuid4().hex)

    def test_changes_are_found_by_the_servers_own_time(self, ehr: Any, mrn: str) -> None:
        (made,) = ehr.transaction(bundle(post(patient(mrn))))
        since = {"_lastUpdated": f"ge{made['meta']['lastUpdated']}", "_sort": "_lastUpdated"}
        pages = list(ehr.search("Patient", since))
        assert made["id"] in [r["id"] for page in pages for r in page.resources]
        assert pages[0].server_time is not None


class TestMemoryEhr(EhrContract):
    @pytest.fixture
    def ehr(self) -> MemoryEhr:
        return MemoryEhr()


class TestHapi(EhrContract):
    @pytest.fixture
    def ehr(self, hapi: str) -> HttpEhr:
        return HttpEhr(hapi)
