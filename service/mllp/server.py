"""The MLLP server: connections in, frames to the committer, answers back in the order of the messages.

The event loop only moves bytes. One thread, the committer, reads and stores: it takes whatever has arrived
meanwhile in one transaction, so that a slow disk is waited for once by many, and in the order of arrival, so
that what one sender sends over one connection stays in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from service.telemetry import Log, where

from .framing import Frames
from .intake import Taken
from .reading import Received
from .senders import Peer

Take = Callable[[Sequence[Received]], Sequence[Taken]]
PER_TRANSACTION = 64
PENDING = 100
"""Messages of one connection that may wait for their answer; then it is not read from."""
MOST_GARBAGE = 65_536
CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a message, connections at a time, and how long a connection or a message may stand still."""

    message_bytes: int = 16_000_000
    connections: int = 500
    idle_s: float = 3600.0
    frame_s: float = 30.0


class Line:
    """A connection as the committer sees it: once a message of it could not be stored, no later one is.

    Else the message that is sent again would come after those that it came before.
    """

    __slots__ = ("broken",)

    def __init__(self) -> None:
        self.broken = False


Waiting = tuple[Line, Received, "asyncio.Future[Taken]"]


class Committer:
    """The one thread that stores; `submit` from the event loop, in the order of arrival."""

    def __init__(self, take: Take, log: Log) -> None:
        self._take, self._log = take, log
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="itb-mllp", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Store what was submitted, then end."""
        self._queue.put(None)
        self._thread.join()

    def submit(self, line: Line, received: Received) -> asyncio.Future[Taken]:
        """What comes of the message, once that is on the disk."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._queue.put((line, received, future))
        return future

    def _run(self) -> None:
        while (batch := self._batch())[0] is not None:
            waiting = [one for one in batch if one is not None]
            self._settle(waiting)
            if len(waiting) < len(batch):
                return

    def _batch(self) -> list[Waiting | None]:
        batch = [self._queue.get()]
        while batch[-1] is not None and len(batch) < PER_TRANSACTION:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _settle(self, waiting: Sequence[Waiting]) -> None:
        going = [one for one in waiting if not one[0].broken]
        try:
            taken = self._take([received for _, received, _ in going]) if going else ()
        except Exception as error:  # nothing is stored, nothing is answered: the senders will send again
            self._log.error("mllp failed", **where(error))
            taken = [UNSTORED] * len(going)
        done = dict(zip((id(future) for _, _, future in going), taken, strict=True))
        for line, _, future in going:
            line.broken = line.broken or done[id(future)].outcome == UNSTORED.outcome
        try:
            loop = waiting[0][2].get_loop()
            loop.call_soon_threadsafe(_settled, [(f, done.get(id(f), UNSTORED)) for _, _, f in waiting])
        except RuntimeError:  # the loop is closed: its connections are gone, and what is stored is stored
            return


UNSTORED = Taken("unavailable", b"")


def _settled(done: Sequence[tuple[asyncio.Future[Taken], Taken]]) -> None:
    for future, taken in done:
        if not future.done():  # else its connection is gone
            future.set_result(taken)


class Server:
    """Listens, and gives every connection a reader and a writer of its own."""

    def __init__(self, committer: Committer, limits: Limits, log: Log, seen: Callable[[Taken], None]) -> None:
        self._committer, self._limits, self._log, self._seen = committer, limits, log, seen
        self._open: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        return len(self._open)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; the port (that was free, for 0)."""
        self._server = await asyncio.start_server(
            self._connected, host, port, ssl=tls, backlog=512, limit=CHUNK
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more; what was being answered gets its answer."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._limits.connections:
            self._log.warning("mllp", outcome="too many connections")
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await _Connection(reader, writer, self._committer, self._limits, self._log, self._seen).run()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            pass  # what was not answered will be sent again
        except asyncio.CancelledError:
            pass
        finally:
            self._open.discard(task)
            writer.close()


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        committer: Committer,
        limits: Limits,
        log: Log,
        seen: Callable[[Taken], None],
    ) -> None:
        self._reader, self._writer, self._committer = reader, writer, committer
        self._limits, self._log, self._seen = limits, log, seen
        self._peer, self._line = peer_of(writer), Line()
        self._answers: asyncio.Queue[asyncio.Future[Taken] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(PENDING)
        self._pending = 0

    async def run(self) -> None:
        """Until the peer closes, stands still or cannot be understood; then the last answers are given."""
        answering = asyncio.create_task(self._answer())
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when the server stops
            reading.cancel()
            self._answers.put_nowait(None)
            await asyncio.wait({answering, reading}, timeout=self._limits.frame_s)
            answering.cancel()
        for task in (reading, answering):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _read(self) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        frames = Frames(limits.message_bytes)
        ends_at = loop.time() + limits.idle_s
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    data = await self._reader.read(CHUNK)
            except TimeoutError:
                if frames.inside or not self._pending:
                    self._log.info("mllp", outcome="idle", inside=frames.inside)
                    return
                ends_at = loop.time() + limits.idle_s
                continue
            was_inside, found = frames.inside, frames.feed(data)
            for frame in found:
                await self._submit(Received(frame.content, self._peer, frame.whole))
            if not frames.inside:
                ends_at = loop.time() + limits.idle_s
            elif found or not was_inside:
                ends_at = loop.time() + limits.frame_s
            if frames.ignored > MOST_GARBAGE:
                self._log.warning("mllp", outcome="garbage")
            if not data or frames.ignored > MOST_GARBAGE:
                return

    async def _submit(self, received: Received) -> None:
        await self._room.acquire()
        self._pending += 1
        self._answers.put_nowait(self._committer.submit(self._line, received))

    async def _answer(self) -> None:
        while (future := await self._answers.get()) is not None:
            taken = await future
            self._seen(taken)
            if taken.answer:
                self._writer.write(taken.answer)
                async with asyncio.timeout(self._limits.frame_s):
                    await self._writer.drain()
            if taken.outcome == UNSTORED.outcome:
                return  # and the connection ends: its sender begins again with this message
            self._pending -= 1
            self._room.release()


def peer_of(writer: asyncio.StreamWriter) -> Peer:
    """Address and verified certificate of the other end."""
    name = writer.get_extra_info("peername") or ("",)
    tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    binary = tls.getpeercert(binary_form=True) if tls is not None else None
    if tls is None or not binary:
        return Peer(name[0])
    found: dict[str, Any] = tls.getpeercert() or {}
    names = {value for part in found.get("subject", ()) for key, value in part if key == "commonName"}
    names |= {value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"}
    return Peer(name[0], frozenset(names), f"sha256:{hashlib.sha256(binary).hexdigest()}")
