"""Messages of made-up pumps, an MLLP listener on a real port, and the sending end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from mappings import load_event
from mappings.exact_json import dumps, loads
from mappings.hl7v2 import SenderMap, dump, parse, write
from service.mllp.framing import Frames, framed
from service.mllp.listen import Listener
from service.settings import Settings
from service.store import events, messages
from service.store.engine import Store
from service.telemetry import make_log

SENDERS = '[[sender]]\nname = "engine-a"\napplication = "PUMPS"\nfacility = "CHILDRENS"\n'
ORIGINAL = SenderMap(sending=("PUMPS", "CHILDRENS"), accept_ack="", application_ack="")
ENHANCED = replace(ORIGINAL, accept_ack="AL", application_ack="NE")


def clock() -> datetime:
    return datetime.now(UTC)


def interrogation(pump: int, number: int, **more: Any) -> Any:
    """The `number`th reading of a pump: its dose is the number, so that an order can be seen."""
    raw = {
        "type": "interrogation",
        "source": "clinic-a",
        "id": f"I-{pump}-{number}",
        "patient": {"system": "http://hospital.invalid/mrn", "value": f"MRN{pump}"},
        "pump": f"NGP{pump}",
        "occurred_at": f"2026-01-12T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}-06:00",
        "reservoir_volume": {"value": 12.5, "unit": "mL"},
    }
    return load_event(loads(dumps(raw | more)))


def message(event: Any, how: SenderMap = ORIGINAL, control_id: str | None = None) -> bytes:
    """The event as a message of engine-a."""
    made = write(event, how)
    if control_id is not None:
        made.segments[0][10] = control_id
    return dump(made)


def with_field(data: bytes, number: int, text: str) -> bytes:
    """The message with another field of MSH."""
    made = parse(data)
    made.segments[0].extend([""] * (number + 1 - len(made.segments[0])))
    made.segments[0][number] = text
    return dump(made)


def code_of(answer: bytes) -> str:
    return parse(answer).field("MSA", 1)


def settings_in(folder: Path, **more: Any) -> Settings:
    senders = folder / "senders.toml"
    if not senders.exists():
        senders.write_text(SENDERS)
    return Settings(
        database_url=f"sqlite:///{folder}/itb.db",
        mllp_listen="127.0.0.1:0",
        mllp_senders=str(senders),
        log_level="error",
        **more,
    )


class Beside:
    """A listener in this process; `port` is where."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self.listener = Listener(store, settings, 1, clock, make_log("error"), self.registry)
        self.port = self.listener.start()

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("itb_mllp_messages_total", {"outcome": outcome}) or 0.0


class Line:
    """The sending end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames, self._found = Frames(1_000_000), [b""][:0]

    async def answer(self) -> bytes | None:
        """The next answer; None when the other end has closed."""
        while not self._found:
            try:
                data = await self.reader.read(65_536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._found += [frame.content for frame in self._frames.feed(data)]
        return self._found.pop(0)

    async def exchange(self, message: bytes) -> bytes:
        self.writer.write(framed(message))
        found = await self.answer()
        assert found is not None, "the connection was closed"
        return found


async def connect(port: int, **tls: Any) -> Line:
    return Line(*await asyncio.open_connection("127.0.0.1", port, **tls))


def within(seconds: float, work: Any) -> Any:
    """Run a coroutine; a hang is a failure."""

    async def timed() -> Any:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(timed())


def all_messages(store: Store) -> list[messages.Stored]:
    """Every message that is kept, in the order it came."""
    found: list[messages.Stored] = []
    while page := _page(store, messages.search, after_id=found[-1].id if found else 0):
        found += page
    return found


def all_events(store: Store) -> list[events.StoredEvent]:
    """The versions in the ledger, in its order."""
    found: list[events.StoredEvent] = []
    while page := _page(store, events.search, after_seq=found[-1].seq if found else 0):
        found += page
    return found


def _page(store: Store, search: Callable[..., list[Any]], **after: int) -> list[Any]:
    with store.read() as c:
        return search(c, 1, limit=1000, **after)
