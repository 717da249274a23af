"""Where a bulk manifest and its files are read from: a folder, or one server and no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from mappings import MappingError
from mappings.exact_json import loads
from service.sync.retry import retry_after_s

Json = Any
LATER = (202, 429, 502, 503, 504)
"""The server is at work, or busy: it is asked again."""
LOST = {
    404: "the server does not know this export any more",
    410: "this export has expired on the server",
    500: "this export failed on the server",
}
PATIENCE_S = 24 * 3600.0
"""How long a server may work on an export that is waited for."""
MOST_WAIT_S = 60.0
MANIFEST_BYTES = 50_000_000
LINE_BYTES = 10_000_000


class SourceError(Exception):
    """The manifest or a file of it cannot be used."""


class SilentError(SourceError):
    """The server did not answer, or broke off."""


class Lost(SourceError):
    """The export is no more: it has expired, was removed, or failed on the server."""


class Source(Protocol):
    """A manifest and the files that it names."""

    def manifest(self) -> Json:
        """The manifest, waited for where the server still works on it."""

    def lines(self, url: str) -> Iterator[bytes]:
        """The lines of one of its files."""


def source_of(place: str, headers: Mapping[str, str], waiting: Callable[[str], None]) -> Source:
    """The source that a URL or a path names; `waiting` is told what the server says of its progress."""
    if place.startswith(("http://", "https://")):
        return Server(place, headers, waiting)
    return Folder(Path(place))


class Folder:
    """A manifest on the disk, its files beside it; of a URL in it only the last part counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def manifest(self) -> Json:
        try:
            return _checked(self._path.read_bytes())
        except OSError as error:
            raise SourceError(f"{self._path}: {error.strerror}") from None

    def lines(self, url: str) -> Iterator[bytes]:
        name = urlsplit(url).path.rpartition("/")[2]
        path = self._path.parent / name
        if not name or name in (".", "..") or not path.is_file():
            raise SourceError(f"{name or url} is not beside {self._path}")
        with path.open("rb") as file:
            yield from file


class Server:
    """A status or manifest URL. Its files must be of the same origin: the headers may hold a secret."""

    def __init__(self, url: str, headers: Mapping[str, str], waiting: Callable[[str], None]) -> None:
        self._url, self._waiting = url, waiting
        self._session = _session_of(headers)

    def manifest(self) -> Json:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with _got(self._session, self._url, {"Accept": "application/json"}) as answer:
                if answer.status_code == 200:
                    return _checked(answer.raw.read(MANIFEST_BYTES, decode_content=True))
                if answer.status_code in LOST:
                    raise Lost(f"{LOST[answer.status_code]} (HTTP {answer.status_code})")
                if answer.status_code not in LATER:
                    raise SourceError(f"the manifest is refused with HTTP {answer.status_code}")
                self._waiting(answer.headers.get("X-Progress", ""))
                asked = _asked_s(answer)
            time.sleep(asked)
        raise SilentError("the server has worked on this export for a day")

    def lines(self, url: str) -> Iterator[bytes]:
        absolute = urljoin(self._url, url)
        if urlsplit(absolute)[:2] != urlsplit(self._url)[:2]:
            raise SourceError(f"{urlsplit(absolute)[1]} is another server than that of the manifest")
        with _got(self._session, absolute, {"Accept": "application/fhir+ndjson"}) as answer:
            if answer.status_code in LOST:
                raise Lost(f"{LOST[answer.status_code]} (HTTP {answer.status_code})")
            if answer.status_code != 200:
                raise SourceError(f"a file is refused with HTTP {answer.status_code}")
            yield from _split(answer.iter_content(65_536))


def kick_off(url: str, headers: Mapping[str, str], waiting: Callable[[str], None]) -> str:
    """Ask a server for an export; the URL that tells its status. Waits where the server is busy (429)."""
    asked = {"Accept": "application/fhir+json", "Prefer": "respond-async", **headers}
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with _session_of(asked) as session, _got(session, url, {}) as answer:
            if answer.status_code == 202:
                where = urljoin(url, answer.headers.get("Content-Location", ""))
                if urlsplit(where)[:2] != urlsplit(url)[:2] or where == url:
                    raise SourceError(
                        "the server accepted the export, and does not say where to ask about it"
                    )
                return where
            if answer.status_code not in LATER:
                raise SourceError(f"the server refuses this export with HTTP {answer.status_code}")
            waiting("the server is busy")
            wait_s = _asked_s(answer)
        time.sleep(wait_s)
    raise SilentError("the server was busy for a day")


def _session_of(headers: Mapping[str, str]) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.update(headers)
    return session


@contextmanager
def _got(session: requests.Session, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    try:
        with session.get(url, headers=headers, stream=True, timeout=(5, 60), allow_redirects=False) as answer:
            yield answer
    except requests.RequestException as error:
        raise SilentError(f"{urlsplit(url)[1]}: {type(error).__name__}") from None


def _asked_s(answer: requests.Response) -> float:
    """How long the server asks to wait, within bounds."""
    asked = retry_after_s(answer.headers.get("Retry-After", "1"), _date(answer))
    return min(max(asked or 1.0, 0.1), MOST_WAIT_S)


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        yield from whole
        if len(held) > LINE_BYTES:
            raise SourceError(f"a line is longer than {LINE_BYTES} bytes")
    if held:
        yield held


def _date(answer: requests.Response) -> Any:
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        said = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        said = None
    return said if said is not None and said.tzinfo else datetime.fromtimestamp(time.time(), UTC)


def _checked(content: bytes) -> Json:
    """A manifest with the members that are needed."""
    try:
        found = loads(content)
    except MappingError as error:
        raise SourceError(f"the manifest is not JSON: {error.issues[0].message}") from None
    if not isinstance(found, dict) or not isinstance(found.get("transactionTime"), str):
        raise SourceError("this is no bulk manifest: it has no transactionTime")
    for member in ("output", "deleted"):
        listed = found.get(member, [])
        if not isinstance(listed, list) or not all(
            isinstance(one, dict) and isinstance(one.get("url"), str) for one in listed
        ):
            raise SourceError(f"this is no bulk manifest: {member} is not a list of files")
    if not isinstance(found.get("output"), list):
        raise SourceError("this is no bulk manifest: it has no output")
    return found
