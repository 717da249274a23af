"""A real PostgreSQL for the tests: from Debian's package, on a free loopback port, in a folder of its own.

It refuses to run as root, so root starts it as the user `postgres` of the package. It ends with `stop`, or by
itself when the process that started it is gone.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from service.server import free_port
from service.store.engine import Store, migrate

MISSING = "missing: PostgreSQL, 15 or later; on Debian: sudo apt-get install postgresql"
TEMPLATE = "itb_template"
START_TIMEOUT_S = 60
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "America/Chicago",  # not UTC: a statement that depends on the server's zone shows itself
}


def binaries() -> Path:
    """The folder of `initdb` and `postgres`, the newest version's; `FileNotFoundError` says how to get it."""
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    found = [p for p in found if int(re.sub(r"\D.*", "", p.parent.name) or 0) >= 15]
    if not found:
        raise FileNotFoundError(MISSING)
    return max(found, key=lambda p: int(p.parent.name))


@dataclass
class PostgresqlServer:
    """A running server; `database()` makes an empty, migrated database and gives its URL."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    _names: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, name: str) -> str:
        """What goes into ITB_DATABASE_URL."""
        return f"postgresql://itb@127.0.0.1:{self.port}/{name}"

    def database(self, *, migrated: bool = True) -> str:
        """The URL of a new database, with the tables of this version or with none."""
        name = f"itb_{next(self._names)}"
        self._admin("CREATE DATABASE {} TEMPLATE {}", name, TEMPLATE if migrated else "template0")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self._admin("DROP DATABASE {} WITH (FORCE)", url.rsplit("/", 1)[1])

    @contextmanager
    def server_setting(self, name: str, value: str) -> Iterator[None]:
        """A setting of the whole server, for as long as the block lasts."""
        default = self._show(name)
        try:
            self._set(name, value)
            yield
        finally:
            self._set(name, default)

    def _show(self, name: str) -> str:
        with psycopg.connect(self.url("postgres")) as c:
            row = c.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
        assert row is not None
        return str(row[0])

    def _set(self, name: str, value: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as c:
            c.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            c.execute("SELECT pg_reload_conf()")
        while self._show(name) != value:  # the server reads its settings again in its own time
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and remove its folder."""
        self.process.send_signal(signal.SIGINT)  # its word for: end every session, then stop
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def make_template(self) -> None:
        """A database that each test's is copied from, migrated once."""
        self._admin("CREATE DATABASE {} TEMPLATE template0", TEMPLATE)
        store = Store(self.url(TEMPLATE))
        migrate(store)
        store.close()

    def _admin(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as c:
            c.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def start_postgresql() -> PostgresqlServer:
    """Make a cluster and start it; it answers when this returns."""
    programs = binaries()
    folder = Path(tempfile.mkdtemp(prefix="itb-postgresql-"))
    # The signal of a parent that is gone: a killed test run leaves no server behind.
    prefix = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix += ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    data = folder / "data"
    made = [*prefix, programs / "initdb", "--pgdata", data, "--username", "itb", "--auth", "trust"]
    made += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"]
    subprocess.run(made, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    port = free_port("127.0.0.1")
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, programs / "postgres", "-D", data, "-p", str(port), *settings],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = PostgresqlServer(port, folder, process)
    try:
        _wait_until_ready(server)
        server.make_template()
    except BaseException:
        server.stop()
        raise
    return server


def _wait_until_ready(server: PostgresqlServer) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((server.folder / "log").read_text()) from error
            time.sleep(0.05)
