"""The MLLP server with all that it needs, run in front (`itb mllp serve`) or beside the web server."""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.settings import Settings
from service.store.engine import Store
from service.telemetry import Log

from .intake import OUTCOMES, Taken, take
from .reading import Received, understand
from .senders import Book, Sender, SendersError
from .server import Committer, Limits, Server


class ListenError(Exception):
    """The settings do not allow to listen; the message says why and what to do."""


class Listener:
    """Opens the port, and closes it again; raises `ListenError` where the settings are not complete."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        tenant_id: int,
        clock: Callable[[], datetime],
        log: Log,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._store, self._tenant_id, self._clock, self._log = store, tenant_id, clock, log
        self._host, self._port = address(settings.mllp_listen)
        self._tls = _tls(settings)
        _check_exposure(self._host, settings)
        self._book = _book(settings)
        self._senders = self._book.senders()
        limits = Limits(settings.mllp_message_bytes, settings.mllp_connections, settings.mllp_idle_seconds)
        self._committer = Committer(self._take, log)
        self._server = Server(self._committer, limits, log, self._seen)
        registry = registry or CollectorRegistry()
        self._messages = Counter(
            "itb_mllp_messages", "HL7 v2 messages received, by outcome", ["outcome"], registry=registry
        )
        for outcome in OUTCOMES:
            self._messages.labels(outcome)
        connections = Gauge("itb_mllp_connections", "Open MLLP connections", registry=registry)
        connections.set_function(lambda: self._server.connections)

    def run(self, ready: Callable[[str, int], None]) -> None:
        """Serve in front until SIGINT or SIGTERM; `ready` is told host and port."""
        asyncio.run(self._serve(ready, in_front=True))

    def start(self) -> int:
        """Serve beside whatever else this process does, until it ends; the port."""
        opened: list[int] = []
        failed: list[OSError] = []
        done = threading.Event()

        def ready(host: str, port: int) -> None:
            opened.append(port)
            done.set()

        def serve() -> None:
            try:
                asyncio.run(self._serve(ready, in_front=False))
            except OSError as error:
                failed.append(error)
                done.set()

        threading.Thread(target=serve, name="itb-mllp-loop", daemon=True).start()
        done.wait()
        if failed:
            raise ListenError(f"ITB_MLLP_LISTEN: {failed[0].strerror}")
        return opened[0]

    async def _serve(self, ready: Callable[[str, int], None], *, in_front: bool) -> None:
        stop = asyncio.Event()
        if in_front:
            for name in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(name, stop.set)
        port = await self._server.start(self._host, self._port, self._tls)
        self._committer.start()
        ready(self._host, port)
        await stop.wait()
        await self._server.stop()
        self._committer.stop()

    def _take(self, received: Sequence[Received]) -> Sequence[Taken]:
        senders = self._known()
        read = [understand(one, senders) for one in received]
        return take(self._store, self._tenant_id, read, self._clock)

    def _known(self) -> list[Sender]:
        try:
            self._senders = self._book.senders()
        except SendersError as error:  # spoilt while running: the last good one holds
            self._log.error("mllp senders", problem=str(error))
        return self._senders

    def _seen(self, taken: Taken) -> None:
        self._messages.labels(taken.outcome).inc()
        if taken.outcome != "taken":
            rules = sorted({issue.rule for issue in taken.issues})
            self._log.info("mllp message", outcome=taken.outcome, sender=taken.sender, rules=rules)


def address(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:2575` or `[::1]:2575`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ListenError(f"ITB_MLLP_LISTEN is HOST:PORT, such as 127.0.0.1:2575, and not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_exposure(host: str, settings: Settings) -> None:
    """MLLP knows no password: beyond this machine its messages go encrypted, or by an explicit choice."""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not settings.mllp_cert and not settings.mllp_plaintext:
        raise ListenError(
            f"{host} can be reached from elsewhere, and MLLP is not encrypted: set ITB_MLLP_CERT, "
            "ITB_MLLP_KEY and ITB_MLLP_CLIENT_CA, or ITB_MLLP_PLAINTEXT=true inside a VPN"
        )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.mllp_cert:
        if settings.mllp_key or settings.mllp_client_ca:
            raise ListenError("ITB_MLLP_CERT is needed as well")
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(settings.mllp_cert, settings.mllp_key or None)
        if settings.mllp_client_ca:
            made.load_verify_locations(settings.mllp_client_ca)
            made.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ListenError(f"the certificate of ITB_MLLP_CERT cannot be used: {error}") from None
    return made


def _book(settings: Settings) -> Book:
    if not settings.mllp_senders:
        raise ListenError("ITB_MLLP_SENDERS is needed: the file that says who may send (docs/mllp.md)")
    try:
        return Book(Path(settings.mllp_senders))
    except SendersError as error:
        raise ListenError(f"ITB_MLLP_SENDERS: {error}") from None
