"""The port to an EHR's FHIR R4 server, and the adapter over HTTP.

EhrError
├── Unreachable   nothing was sent
├── Ambiguous     sent, and no answer that can be trusted: the outcome is unknown (time-out, reset, 5xx)
├── Throttled     429 or 503: later (`retry_after_s`)
├── Busy          refused for a reason that passes (a lock, a time-out inside the server)
├── Stale         409 or 412: the resource is at another version, or a race was lost
├── Missing       404
│   └── Gone      410: it was there, and was deleted
├── Unauthorized  401
├── Forbidden     403
├── TooLarge      413
├── Declined      a message of HL7 v2 was refused as such: AR or CR, or its number was used
└── Refused       any other refusal, with the server's reasons

Which answer is which class: `retry.STATUS`, `retry.ISSUE_CODES` and, of HL7 v2, `retry.ERROR_CODES`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from mappings import MappingError
from mappings.exact_json import dumps, loads

from .retry import classify, retry_after_s

Json = Any
FHIR_JSON = "application/fhir+json"
DEADLINE_S = 30.0
MOST_BYTES = 50_000_000
CHUNK = 65_536
Answered = tuple[int, Mapping[str, str], bytes]
NO_TURNS: AbstractContextManager[object] = nullcontext()
READS = 4
"""How often a reading request is sent in a row for an answer that can be used."""


class EhrError(Exception):
    """A call to an EHR failed; `status` is its HTTP status where there was one."""

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(EhrError):
    """Nothing was sent."""


class Ambiguous(EhrError):
    """Sent, and no answer that can be trusted."""


class Stale(EhrError):
    """409 or 412."""


class Throttled(EhrError):
    """429 or 503."""


class Busy(EhrError):
    """Refused for a reason that passes."""


class Missing(EhrError):
    """404."""


class Gone(Missing):
    """410."""


class Unauthorized(EhrError):
    """401."""


class Forbidden(EhrError):
    """403."""


class TooLarge(EhrError):
    """413."""


class Declined(EhrError):
    """AR or CR of HL7 v2, or a control id that was used."""


class Refused(EhrError):
    """Any other refusal."""


CLASSES: dict[str, type[EhrError]] = {
    kind.__name__: kind
    for kind in (
        Unreachable,
        Ambiguous,
        Throttled,
        Busy,
        Stale,
        Missing,
        Gone,
        Unauthorized,
        Forbidden,
        TooLarge,
        Declined,
        Refused,
    )
}


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its resources, the server's time if it was said, and the link to the next page.

    Of a history: `resources` as they were in each version, and the ids that were `deleted`.
    """

    resources: list[Json]
    server_time: str | None
    next: str | None = None
    deleted: list[str] = field(default_factory=list)


class Ehr(Protocol):
    """What the sync needs of an EHR."""

    def metadata(self) -> Json:
        """The CapabilityStatement."""

    def read(self, type: str, id: str) -> Json:
        """The current version; raises `Missing`."""

    def search(self, type: str, params: Mapping[str, str]) -> Iterator[Page]:
        """The pages of a search, never from a cache of old results."""

    def type_history(self, type: str, since: str) -> Iterator[Page]:
        """The pages of the history of a type, the newest first."""

    def transaction(self, bundle: Json) -> list[Json]:
        """The resources as stored, one for each entry, in order."""

    def create(self, resource: Json, if_none_exist: str) -> Json:
        """The resource that is there now under that condition."""

    def write(self, entry: Json) -> Json:
        """One entry of a transaction as a request of its own; the resource as stored."""


PAGE = {"_count": "200"}
"""Where a search does not say: each of the small pages that HAPI makes costs half a second (docs/fhir.md)."""


class HttpEhr:
    """An EHR over HTTP: no proxies or netrc from the environment, no redirects, bounded answers."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
        wait: Callable[[], None] = lambda: None,
        turns: AbstractContextManager[object] = NO_TURNS,
    ) -> None:
        self.url = url.rstrip("/")
        self._deadline_s = deadline_s
        self._wait = wait  # until the next request may be sent
        self._turns = turns  # a call is made within one
        self._session = requests.Session()
        self._session.trust_env = False
        self._date: str | None = None
        self._session.headers.update({"Accept": FHIR_JSON, **(headers or {})})

    def metadata(self) -> Json:
        return self._get(f"{self.url}/metadata")

    def read(self, type: str, id: str) -> Json:
        def check(found: Json) -> None:
            if (found["resourceType"], found.get("id")) != (type, id):
                raise Ambiguous("the answer is about another resource", 200)

        return self._get(f"{self.url}/{type}/{id}", check)

    def search(self, type: str, params: Mapping[str, str]) -> Iterator[Page]:
        def check(found: Json) -> None:
            if any(one["resourceType"] != type for one in _matches(_bundle(found, "searchset"))):
                raise Ambiguous("the answer is to another search", 200)

        params = {**PAGE, **params}
        yield from self._pages(f"{self.url}/{type}?{urlencode(params, safe='|:,')}", check)

    def type_history(self, type: str, since: str) -> Iterator[Page]:
        def check(found: Json) -> None:
            _bundle(found, "history")

        params = {"_since": since} | PAGE
        yield from self._pages(f"{self.url}/{type}/_history?{urlencode(params, safe='|:,')}", check)

    def _pages(self, url: str | None, check: Callable[[Json], None]) -> Iterator[Page]:
        while url is not None:
            bundle = self._get(url, check)
            links = bundle.get("link", [])
            url = self._same_origin(next((li["url"] for li in links if li.get("relation") == "next"), None))
            server_time = bundle.get("meta", {}).get("lastUpdated") or self._date
            yield Page(_matches(bundle), server_time, url, _deleted(bundle))

    def transaction(self, bundle: Json) -> list[Json]:
        answer = self._call("POST", self.url, bundle, {"Prefer": "return=representation"})
        return [self._stored(entry) for entry in _bundle(answer, "transaction-response").get("entry", [])]

    def create(self, resource: Json, if_none_exist: str) -> Json:
        headers = {"If-None-Exist": if_none_exist, "Prefer": "return=representation"}
        made = self._call("POST", f"{self.url}/{resource['resourceType']}", resource, headers)
        if made["resourceType"] != resource["resourceType"]:
            raise Ambiguous("the answer is about another resource", 200)
        return made

    def write(self, entry: Json) -> Json:
        request, resource = entry["request"], entry["resource"]
        headers = {"Prefer": "return=representation"}
        headers |= {"If-None-Exist": request["ifNoneExist"]} if "ifNoneExist" in request else {}
        headers |= {"If-Match": request["ifMatch"]} if "ifMatch" in request else {}
        url = f"{self.url}/{request['url']}"
        status, answered, content = self._exchange(request["method"], url, resource, headers)
        found = _resource(status, content) if content.strip() else None
        if found is not None and found["resourceType"] == resource["resourceType"]:
            return found
        location = answered.get("Location") or answered.get("Content-Location") or url
        return self._located(location if request["method"] == "POST" else url)

    def save(self, resource: Json) -> Json:
        """A resource written under its id, or where it has none under one of the server's; as it is there."""
        type, id = resource["resourceType"], resource.get("id")
        url = f"{self.url}/{type}/{id}" if id else f"{self.url}/{type}"
        return self._call("PUT" if id else "POST", url, resource, {"Prefer": "return=representation"})

    def operation(self, path: str, params: Mapping[str, str]) -> Json:
        """What an operation that only reads answers, such as `Subscription/1/$status`."""
        return self._get(f"{self.url}/{path}?{urlencode(params)}")

    def _stored(self, entry: Json) -> Json:
        """The resource of a transaction's answer; read by its location where the server gave none."""
        if "resource" in entry:
            return entry["resource"]
        return self._located(entry.get("response", {}).get("location", ""))

    def _located(self, location: str) -> Json:
        """What is there now, at the address that an answer gave."""
        place = location.partition("/_history")[0]
        type, _, id = place.removeprefix(self.url).strip("/").rpartition("/")
        if not type or not id:
            raise Ambiguous("an entry of the answer names no resource")
        return self.read(type.rpartition("/")[2], id)

    def _same_origin(self, url: str | None) -> str | None:
        if url is None:
            return None
        absolute = urljoin(self.url + "/", url)
        if urlsplit(absolute)[:2] != urlsplit(self.url)[:2]:
            raise Refused("the next link of a search leads to another server")
        return absolute

    def _get(self, url: str, check: Callable[[Json], None] | None = None) -> Json:
        """Reading does nothing, so an answer that cannot be used (or that `check` refuses) is asked for again
        at once, within the deadline.

        What a delivery must read back takes many answers: if any of them failed it, few would be resolved.
        """
        with self._turns:
            end = time.monotonic() + self._deadline_s
            for left in range(READS - 1, -1, -1):
                try:
                    fresh = {"Cache-Control": "no-cache"}
                    status, _, content = self._request("GET", url, None, fresh, end)
                    found = _resource(status, content)
                    if check is not None:
                        check(found)
                    return found
                except Ambiguous:
                    if not left or time.monotonic() > end:
                        raise
            raise AssertionError("not reached")

    def _call(
        self, method: str, url: str, body: Json = None, headers: Mapping[str, str] | None = None
    ) -> Json:
        """The resource of an answer."""
        status, _, content = self._exchange(method, url, body, headers)
        return _resource(status, content)

    def _exchange(
        self, method: str, url: str, body: Json = None, headers: Mapping[str, str] | None = None
    ) -> Answered:
        """Status, headers and content of an answer that is no refusal."""
        data = None if body is None else dumps(body)
        with self._turns:
            return self._request(method, url, data, headers or {})

    def _request(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: Mapping[str, str],
        end: float | None = None,
    ) -> Answered:
        self._wait()
        sent = {"X-Request-ID": str(uuid.uuid4()), **headers}
        if data is not None:
            sent["Content-Type"] = FHIR_JSON
        end = end or time.monotonic() + self._deadline_s
        try:
            with self._session.request(
                method,
                url,
                data=data,
                headers=sent,
                timeout=(5, self._deadline_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = self._content(answer, end)
                self._refused(answer, content)
                return answer.status_code, answer.headers, content
        except requests.exceptions.ConnectTimeout as error:
            raise Unreachable(type(error).__name__) from None
        except requests.exceptions.ConnectionError as error:
            # A connection that could not be made sent nothing; one that broke later may have.
            refused = "NewConnectionError" in repr(error) or "NameResolution" in repr(error)
            raise (Unreachable if refused else Ambiguous)(type(error).__name__) from None
        except (requests.RequestException, HTTPError) as error:
            raise Ambiguous(type(error).__name__) from None

    def _content(self, answer: requests.Response, end: float) -> bytes:
        found = bytearray()
        # What has come, as it comes: reading a whole chunk would wait for it as long as drops keep coming.
        while chunk := answer.raw.read1(CHUNK, decode_content=True):
            found += chunk
            if len(found) > MOST_BYTES:
                raise Ambiguous(f"the answer is longer than {MOST_BYTES} bytes", answer.status_code)
            if time.monotonic() > end:
                raise Ambiguous(f"the answer took longer than {self._deadline_s:.0f} s", answer.status_code)
        return bytes(found)

    def _refused(self, answer: requests.Response, content: bytes) -> None:
        status = answer.status_code
        self._date = _date(answer.headers)
        if status >= 300:
            kind = CLASSES[classify(status, codes(content))]
            raise kind(reasons(content) or f"HTTP {status}", status, _retry_after(answer.headers))


def _resource(status: int, content: bytes) -> Json:
    try:
        found = loads(content)
    except MappingError as error:
        raise Ambiguous(f"the answer is not JSON: {error.issues[0].message}", status) from None
    if not isinstance(found, dict) or "resourceType" not in found:
        raise Ambiguous("the answer is not a FHIR resource", status)
    return found


def _bundle(answer: Json, type: str) -> Json:
    """The Bundle of that type; Ambiguous where the answer is something else."""
    if answer["resourceType"] != "Bundle" or answer.get("type") != type:
        raise Ambiguous(f"the answer is not a {type}", 200)
    return answer


def _matches(bundle: Json) -> list[Json]:
    """The resources that a search found, without those that only come with them.

    A server that withholds some says so in an entry of mode `outcome`: what is not here is not gone.
    """
    entries = bundle.get("entry", [])
    return [
        e["resource"]
        for e in entries
        if "resource" in e and e.get("search", {}).get("mode", "match") == "match"
    ]


def _deleted(bundle: Json) -> list[str]:
    """The ids of a history's entries that tell of a deletion."""
    urls = [
        e["request"].get("url", "")
        for e in bundle.get("entry", [])
        if (e.get("request") or {}).get("method") == "DELETE"
    ]
    return [url.partition("/_history")[0].rstrip("/").rpartition("/")[2] for url in urls]


def _date(headers: Mapping[str, str]) -> str | None:
    """The server's time as it says it beside each answer."""
    try:
        return parsedate_to_datetime(headers.get("Date", "")).isoformat()
    except ValueError:
        return None


def reasons(content: bytes) -> str:
    """Codes and expressions of an OperationOutcome; its free text may hold a patient's data and stays out."""
    return "; ".join(
        " ".join([str(i.get("severity")), str(i.get("code")), *map(str, i.get("expression") or [])])
        for i in _issues(content)
    )


def codes(content: bytes) -> list[str]:
    """The codes of an OperationOutcome's issues that are errors."""
    return [str(i.get("code")) for i in _issues(content) if i.get("severity") in ("error", "fatal")]


def _issues(content: bytes) -> list[Json]:
    try:
        found = loads(content)
    except MappingError:
        return []
    listed = found.get("issue") if isinstance(found, dict) else None
    return [i for i in listed if isinstance(i, dict)] if isinstance(listed, list) else []


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds; a date is seen from the server's own clock where it tells it."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        there = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        there = datetime.fromtimestamp(time.time(), UTC)
    return retry_after_s(asked, there if there.tzinfo else datetime.fromtimestamp(time.time(), UTC))
