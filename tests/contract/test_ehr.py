"""What the sync relies on in an EHR: one class of tests, on the fake EHR (with sockets too) and on HAPI."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import requests

from fakes import MemoryEhr
from mappings.exact_json import dumps
from service.fake_ehr.personality import load
from service.fake_ehr.server import FakeEhr, serving
from service.sync.ehr import HttpEhr, Missing, Refused, Stale

SYSTEM = "http://hospital.invalid/mrn"
ORDERS = "http://hospital.invalid/order"
FHIR = {
    "Content-Type": "application/fhir+json",
    "Cache-Control": "no-cache",
    "Prefer": "return=representation",
}


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

    def test_an_entry_alone_does_what_it_does_in_a_transaction(self, ehr: Any, mrn: str) -> None:
        first = ehr.write(post(patient(mrn)))
        assert ehr.write(post(patient(mrn)))["id"] == first["id"]
        changed = ehr.write(put(first | {"active": True}, "1"))
        assert (changed["meta"]["versionId"], changed["active"]) == ("2", True)
        with pytest.raises(Stale):
            ehr.write(put(first | {"active": False}, "1"))
        assert ehr.read("Patient", first["id"])["active"] is True

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


class TestFakeEhr(EhrContract):
    @pytest.fixture
    def ehr(self) -> Iterator[HttpEhr]:
        with serving(FakeEhr(load("hapi"))) as url:
            yield HttpEhr(url)


class TestHapi(EhrContract):
    @pytest.fixture
    def ehr(self, hapi: str) -> HttpEhr:
        return HttpEhr(hapi)


class HttpContract:
    """What the fake EHR says that HAPI does, beyond what the sync asks of an EHR."""

    @pytest.fixture
    def mrn(self) -> str:
        return uuid.uuid4().hex

    def call(self, url: str, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, f"{url}/{path}", json=body, headers=FHIR | named, timeout=30)

    def test_an_old_if_match_is_409_and_a_missing_one_overwrites(self, url: str, mrn: str) -> None:
        made = self.call(url, "POST", "Patient", patient(mrn)).json()
        path = f"Patient/{made['id']}"
        assert self.call(url, "PUT", path, made | {"active": True}, If_Match='W/"1"').status_code == 200
        assert self.call(url, "PUT", path, made | {"active": False}, If_Match='W/"1"').status_code == 409
        assert self.call(url, "PUT", path, made | {"active": False}).json()["meta"]["versionId"] == "3"

    def test_a_deleted_resource_is_410_and_comes_back_by_put(self, url: str, mrn: str) -> None:
        made = self.call(url, "POST", "Patient", patient(mrn)).json()
        path = f"Patient/{made['id']}"
        assert self.call(url, "DELETE", path).status_code == 200
        assert self.call(url, "GET", path).status_code == 410
        assert self.call(url, "GET", f"{path}/_history/1").status_code == 200
        again = self.call(url, "PUT", path, made | {"active": True})
        assert (again.status_code, again.json()["meta"]["versionId"]) == (201, "3")
        told = self.call(url, "GET", f"{path}/_history").json()["entry"]
        assert [e["request"]["method"] for e in told] == ["PUT", "DELETE", "POST"]

    def test_what_is_referred_to_is_not_deleted(self, url: str, mrn: str) -> None:
        who = self.call(url, "POST", "Patient", patient(mrn)).json()
        pump = {"resourceType": "Device", "patient": {"reference": f"Patient/{who['id']}"}}
        assert self.call(url, "POST", "Device", pump).status_code == 201
        assert self.call(url, "DELETE", f"Patient/{who['id']}").status_code == 409

    def test_a_client_may_choose_an_id_that_is_no_number(self, url: str, mrn: str) -> None:
        assert (
            self.call(url, "PUT", "Patient/4711471147", patient(mrn) | {"id": "4711471147"}).status_code
            == 400
        )
        named = patient(mrn) | {"id": f"a-{mrn}"}
        assert self.call(url, "PUT", f"Patient/a-{mrn}", named).status_code == 201

    def test_two_of_one_identifier_are_412(self, url: str, mrn: str) -> None:
        for _ in range(2):
            assert self.call(url, "POST", "Patient", patient(mrn)).status_code == 201
        condition = f"identifier={SYSTEM}|{mrn}"
        assert self.call(url, "POST", "Patient", patient(mrn), If_None_Exist=condition).status_code == 412
        assert self.call(url, "PUT", f"Patient?{condition}", patient(mrn)).status_code == 412

    def test_an_unknown_search_parameter_is_400(self, url: str) -> None:
        assert self.call(url, "GET", "Patient?shoe-size=44").status_code == 400

    def test_a_search_goes_on_by_an_opaque_link_that_ends(self, url: str, mrn: str) -> None:
        for number in range(5):
            self.call(url, "POST", "Patient", patient(mrn) | {"birthDate": f"200{number}-01-01"})
        seen, page = 0, self.call(url, "GET", f"Patient?identifier={SYSTEM}|{mrn}&_count=2").json()
        while page:
            seen += len(page["entry"])
            following = [link["url"] for link in page["link"] if link["relation"] == "next"]
            page = requests.get(following[0], headers=FHIR, timeout=30).json() if following else None
        assert seen == 5
        assert self.call(url, "GET", f"?_getpages={uuid.uuid4()}&_getpagesoffset=2").status_code == 410

    def test_digits_and_offsets_are_kept_and_tags_add_up(self, url: str, mrn: str) -> None:
        body = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "x"},
            "identifier": [{"system": ORDERS, "value": mrn}],
            "effectiveDateTime": "2026-01-02T03:04:05-06:00",
            "valueQuantity": {"value": Decimal("0.1750")},
            "meta": {"tag": [{"system": "http://a.invalid", "code": "one"}]},
        }
        made = requests.post(f"{url}/Observation", data=dumps(body), headers=FHIR, timeout=30)
        assert '"value":0.1750' in made.text.replace(" ", "")
        assert made.json()["effectiveDateTime"] == "2026-01-02T03:04:05-06:00"
        stored = made.json() | {"meta": {"tag": [{"system": "http://a.invalid", "code": "two"}]}}
        changed = self.call(url, "PUT", f"Observation/{stored['id']}", stored | {"status": "amended"})
        assert {t["code"] for t in changed.json()["meta"]["tag"]} == {"one", "two"}

    def test_a_batch_goes_on_after_a_refused_entry(self, url: str, mrn: str) -> None:
        wrong = {"resource": patient(mrn), "request": {"method": "PUT", "url": "Patient/4711471147"}}
        sent = bundle(wrong, post(patient(mrn))) | {"type": "batch"}
        first, second = self.call(url, "POST", "", sent).json()["entry"]
        assert first["response"]["status"].startswith("400")
        assert second["response"]["status"].startswith("201")


class TestFakeEhrOverHttp(HttpContract):
    @pytest.fixture
    def url(self) -> Iterator[str]:
        with serving(FakeEhr(load("hapi"))) as url:
            yield url


class TestHapiOverHttp(HttpContract):
    @pytest.fixture
    def url(self, hapi: str) -> str:
        return hapi
