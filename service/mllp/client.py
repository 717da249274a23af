"""The sending end of MLLP: one message in flight on a connection, and the answer that names it.

Blocking, for a thread of its own: the lanes of deliveries are threads. What is raised says what is known:
`Unreachable` (not sent), `Ambiguous` (sent, and no usable answer: send the same control id again).
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mappings.hl7v2 import Message, dump, parse
from mappings.rows import MappingError
from service.sync.ehr import Ambiguous, Unreachable
from service.sync.retry import ACCEPTED

from .framing import Frames, framed

MOST_ANSWER = 1_000_000
TIMEOUT_S = 30.0
CONNECT_S = 5.0
_PLACE, _CODE = re.compile(r"[A-Z][A-Z0-9]{2}(?:[\d^&~]{0,40})"), re.compile(r"\w{1,10}")
"""What is a place or a code and nothing else: the rest may hold a patient's data."""
CODES = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})


@dataclass(frozen=True, slots=True)
class Reported:
    """An ERR of an answer: where (ERR-2), its code (HL7 table 0357) and severity (0516)."""

    where: str
    code: str
    severity: str

    def __str__(self) -> str:
        return " ".join(word for word in (self.severity, self.code, self.where) if word)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to a message: its code (MSA-1), and what it reports.

    The words of the other side (ERR-7, ERR-8) may hold a patient's data and are left out.
    """

    code: str
    errors: tuple[Reported, ...]

    @property
    def is_good(self) -> bool:
        return self.code in ACCEPTED


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) for an encrypted connection, read anew for each: `authorities` ("": the system's) of the
    receiver's certificate, and our own certificate with its key, where it asks for one."""

    authorities: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises OSError where a file cannot be used."""
        made = ssl.create_default_context(cafile=self.authorities or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate:
            made.load_cert_chain(self.certificate, self.key or None)
        return made


class MllpClient:
    """A connection to `host:port` that is opened when it is needed, and again after it was lost."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Tls | None = None,
        timeout_s: float = TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s, self._monotonic = timeout_s, monotonic
        self._wait = wait  # until the next message may be sent
        self._socket: socket.socket | None = None
        self._frames = Frames(MOST_ANSWER)
        self._answers: deque[bytes] = deque()

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, message: Message) -> Acknowledged:
        """Send a message and wait for its answer, of both modes.

        Where it asks for an application acknowledgement always (MSH-16 AL), a CA is not yet the answer.
        """
        self._wait()
        connection = self.connect()
        ends_at = self._monotonic() + self._timeout_s
        control_id = message.field("MSH", 10)
        try:
            connection.settimeout(self._timeout_s)
            connection.sendall(framed(dump(message)))
            while True:
                found = acknowledged(self._answer(connection, ends_at), control_id)
                if found.code != "CA" or message.field("MSH", 16) != "AL":
                    return found
        except (OSError, Ambiguous) as error:
            self.close()  # a late answer must not be taken for that of the next message
            if isinstance(error, Ambiguous):
                raise
            raise Ambiguous(f"no answer over MLLP: {type(error).__name__}") from None

    def connect(self) -> socket.socket:
        """The connection, opened where there is none that lives; raises `Unreachable`."""
        if self._socket is not None and _is_dead(self._socket):
            self.close()
        if self._socket is None:
            try:
                self._socket = self._opened()
            except OSError as error:
                raise Unreachable(f"no MLLP connection: {_why(error)}") from None
            self._frames = Frames(MOST_ANSWER)
            self._answers.clear()
        return self._socket

    def _opened(self) -> socket.socket:
        tls = self._tls.context() if self._tls is not None else None
        plain = socket.create_connection((self._host, self._port), min(CONNECT_S, self._timeout_s))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return tls.wrap_socket(plain, server_hostname=self._host) if tls is not None else plain
        except BaseException:
            plain.close()
            raise

    def _answer(self, connection: socket.socket, ends_at: float) -> bytes:
        while not self._answers:
            left = ends_at - self._monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            data = connection.recv(65_536)
            if not data:
                raise ConnectionResetError
            for frame in self._frames.feed(data):
                if not frame.whole:
                    raise Ambiguous("the answer is too long")
                self._answers.append(frame.content)
            if self._frames.ignored > MOST_ANSWER:
                raise Ambiguous("what was answered is no MLLP")
        return self._answers.popleft()


def _why(error: OSError) -> str:
    """`ConnectionRefusedError`, or of TLS what is wrong with which certificate."""
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or ""
    return f"{type(error).__name__}{f': {said}' if said else ''}"


def _is_dead(connection: socket.socket) -> bool:
    """Closed by the other end meanwhile, or something came that nobody asked for: nothing is sent on it."""
    connection.setblocking(False)
    try:
        connection.recv(1, 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_PEEK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


def acknowledged(data: bytes, control_id: str) -> Acknowledged:
    """What an answer says; `Ambiguous` where it is not the answer to this message."""
    try:
        answer = parse(data, charset="8859/1")
    except MappingError as error:
        raise Ambiguous(f"the answer cannot be read: {error.issues[0].message}") from None
    code, about = answer.field("MSA", 1), answer.field("MSA", 2)
    if about != control_id:
        raise Ambiguous("the answer names another control id (MSA-2)")
    if code not in CODES:
        raise Ambiguous("the answer has no acknowledgement code (MSA-1)")
    errs = [segment for segment in answer.segments if segment[0] == "ERR"]
    return Acknowledged(code, tuple(_reported(err, answer.separators.component) for err in errs))


def _reported(err: list[str], separator: str) -> Reported:
    where, code, severity = (err[2:5] + ["", "", ""])[:3]
    code = code.split(separator)[0]
    return Reported(
        where if _PLACE.fullmatch(where) else "", code if _CODE.fullmatch(code) else "", severity[:1]
    )
