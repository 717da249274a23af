"""Who may send over MLLP, from where, and by which file it is read: the file of senders."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mappings.hl7v2 import SenderMap
from mappings.identity import SOURCE
from mappings.rows import MappingError
from service.senders import sender_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK = ("127.0.0.0/8", "::1/128")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
NAMES = frozenset({"name", "application", "facility", "addresses", "certificates", "processing", "map"})


class SendersError(Exception):
    """The file of senders cannot be used; the message says which entry, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection; `names` and `fingerprint` are those of its verified certificate."""

    address: str
    names: frozenset[str] = frozenset()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Sender:
    """One sending system: MSH-3 and MSH-4 as they are written there, and where it may send from.

    `certificates`: subject or DNS names, or `sha256:…` of the certificate; with them the address counts only
    where `addresses` are given as well. `processing` is the MSH-11 that is taken: a test message must not
    become a record.
    """

    name: str
    application: str
    facility: str
    addresses: tuple[Network, ...]
    certificates: frozenset[str] = frozenset()
    processing: str = "P"
    map: SenderMap = field(default_factory=SenderMap)

    def is_peer(self, peer: Peer) -> bool:
        """Whether it may be this sender who speaks."""
        if self.certificates and not self.certificates & {*peer.names, peer.fingerprint}:
            return False
        if not self.addresses:
            return True
        try:
            address = ipaddress.ip_address(peer.address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self.addresses)


def find(senders: Sequence[Sender], application: str, facility: str, peer: Peer) -> Sender | None:
    """The sender that MSH-3 and MSH-4 name, if this peer may be it.

    An entry without components is compared with the first component (HD.1, the namespace).
    """
    for one in senders:
        same = _same(one.application, application) and _same(one.facility, facility)
        if same and one.is_peer(peer):
            return one
    return None


def anywhere(sender: Sender) -> Sender:
    """The same sender without a question of where from: for what did not come over a connection."""
    return replace(sender, addresses=(), certificates=frozenset())


def named(senders: Sequence[Sender], name: str) -> Sender | None:
    """The sender of that name."""
    return next((one for one in senders if one.name == name), None)


def _same(wanted: str, said: str) -> bool:
    return wanted == (said if "^" in wanted else said.partition("^")[0])


def load(path: Path) -> list[Sender]:
    """The senders of a TOML file: a `[[sender]]` each, `map` the sender's own file beside it."""
    try:
        raw = tomllib.loads(path.read_text())
        entries = raw.pop("sender", [])
        if raw or not isinstance(entries, list) or not entries:
            raise SendersError(f"{path.name}: holds one or more [[sender]] and nothing else")
        made = [_sender(entry, number, path.parent) for number, entry in enumerate(entries, start=1)]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SendersError(f"{path.name}: {error}") from None
    for one in made:
        twin = next(o for o in made if _key(o) == _key(one) or o.name == one.name)
        if twin is not one:
            raise SendersError(f"{path.name}: {twin.name} and {one.name} are not told apart")
    return made


def _key(one: Sender) -> tuple[object, ...]:
    return one.application, one.facility, one.addresses, one.certificates


def _sender(entry: Any, number: int, folder: Path) -> Sender:
    def wrong(why: str) -> SendersError:
        return SendersError(f"sender {number}: {why}")

    if not isinstance(entry, dict) or (unknown := set(entry) - NAMES):
        raise wrong(f"not known: {', '.join(sorted(unknown))}" if isinstance(entry, dict) else "no table")
    texts = {n: entry.get(n, "") for n in ("name", "application", "facility", "map")}
    texts["processing"] = entry.get("processing", "P")
    if not all(isinstance(text, str) for text in texts.values()):
        raise wrong("name, application, facility, processing and map are texts")
    if not SOURCE.fullmatch(texts["name"]):
        raise wrong("name must match [a-z0-9-]{1,40}")
    if not texts["application"] and not texts["facility"]:
        raise wrong("application (MSH-3) or facility (MSH-4) is needed")
    lists = {n: entry.get(n, []) for n in ("addresses", "certificates")}
    if not all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in lists.values()):
        raise wrong("addresses and certificates are lists of texts")
    bad = [t for t in lists["certificates"] if t.startswith("sha256:") and not _FINGERPRINT.fullmatch(t)]
    if bad or "" in lists["certificates"]:
        raise wrong("a certificate is a name, or sha256: and 64 hexadecimal digits in lower case")
    try:
        given = lists["addresses"] or ([] if lists["certificates"] else LOOPBACK)
        addresses = tuple(ipaddress.ip_network(text) for text in given)
        read_by = sender_of(folder / texts["map"]) if texts["map"] else SenderMap()
    except MappingError as error:
        raise wrong("; ".join(f"{texts['map']}: {i.path}: {i.message}" for i in error.issues)) from None
    except ValueError as error:
        raise wrong(str(error)) from None
    return Sender(
        texts["name"],
        texts["application"],
        texts["facility"],
        addresses,
        frozenset(lists["certificates"]),
        texts["processing"],
        read_by,
    )


class Book:
    """The senders of a file, read again when the file or a sender's own file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._now()
        self._senders = load(path)

    def senders(self) -> list[Sender]:
        """As the file says now; raises `SendersError` when it was spoilt since."""
        if (stamp := self._now()) != self._stamp:
            self._senders = load(self._path)
            self._stamp = stamp
        return self._senders

    def _now(self) -> tuple[tuple[str, int, int], ...]:
        files = sorted({self._path, *self._path.parent.glob("*.toml")})
        return tuple((f.name, s.st_mtime_ns, s.st_size) for f in files if f.is_file() for s in [f.stat()])
