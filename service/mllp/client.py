"""The sending end of MLLP: one message in flight on a connection, and the answer that names it.

Blocking, for a thread of its own: the lanes of deliveries are threads. What is raised says what is known:
`Unreachable` (not sent), `Ambiguous` (sent, and no usable answer: send the same control id again).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mappings.hl7v2 import Message, dump, parse
from mappings.rows import MappingError
from service.sync.ehr import Ambiguous, Unreachable

from .framing import Frames, framed

MOST_ANSWER = 1_000_000
TIMEOUT_S = 30.0
CODES = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to a message: its code (MSA-1), and of each ERR where, and which code (HL7 table 0357).

    The words of the other side (ERR-7, ERR-8) may hold a patient's data and are left out.
    """

    code: str
    errors: tuple[tuple[str, str], ...]

    @property
    def is_good(self) -> bool:
        return self.code in ("AA", "CA")


class MllpClient:
    """A connection to `host:port` that is opened when it is needed, and again after it was lost."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s, self._monotonic = timeout_s, monotonic
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
        connection = self._connected()
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

    def _connected(self) -> socket.socket:
        if self._socket is not None and _is_dead(self._socket):
            self.close()
        if self._socket is None:
            try:
                plain = socket.create_connection((self._host, self._port), self._timeout_s)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                tls = self._tls
                self._socket = tls.wrap_socket(plain, server_hostname=self._host) if tls else plain
            except OSError as error:
                raise Unreachable(f"no MLLP connection: {type(error).__name__}") from None
            self._frames = Frames(MOST_ANSWER)
            self._answers.clear()
        return self._socket

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
        return self._answers.popleft()


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
    separator = answer.separators.component
    return Acknowledged(code, tuple(_place_and_code(err, separator) for err in errs))


def _place_and_code(err: list[str], separator: str) -> tuple[str, str]:
    where = err[2] if len(err) > 2 else ""
    code = err[3].split(separator)[0] if len(err) > 3 else ""
    return where[:60], code[:20]
