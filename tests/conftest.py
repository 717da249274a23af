"""One real HAPI and one real PostgreSQL for the whole run, each started when the first test asks for it.

`ITB_TEST_HAPI_URL` names a server that runs already, so that one need not wait for it while developing.

Property tests draw the same examples in every run, so that a red suite is red for a change and not by
chance; `make fuzz` (`ITB_FUZZ=1`) draws others each time and keeps what it found.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from postgresql_server import PostgresqlServer, start_postgresql
from service.hapi_server import start_hapi
from site_of_hapi import validator_of

settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("fuzz" if os.environ.get("ITB_FUZZ") else "same")

MEMORY = Path("/dev/shm")
ROOM = 4 << 30


def pytest_configure() -> None:
    """Databases of tests lie in memory where there is room: most of a run would be waiting for fsync.

    What a kill leaves is the same there. `TMPDIR` says otherwise.
    """
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


@pytest.fixture(scope="session")
def hapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a real HAPI FHIR R4 server."""
    running = os.environ.get("ITB_TEST_HAPI_URL")
    if running:
        yield running.rstrip("/")
        return
    log: Path = tmp_path_factory.mktemp("hapi") / "hapi.log"
    server = start_hapi(log_path=log)
    yield server.base_url
    server.stop()


@pytest.fixture(scope="session")
def hapi_validate(hapi: str) -> Callable[[Any], list[Any]]:
    """`hapi_validate(resource)`: the errors that HAPI's `$validate` finds."""
    return validator_of(hapi)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A real PostgreSQL; `postgresql.database()` makes a database in it."""
    server = start_postgresql()
    yield server
    server.stop()


@pytest.fixture
def postgresql_url(postgresql: PostgresqlServer) -> Iterator[str]:
    """A database of the test's own on PostgreSQL, with the tables of this version."""
    url = postgresql.database()
    yield url
    postgresql.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own; a test that asks for it runs on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/itb.db"
    made: str = request.getfixturevalue("postgresql_url")
    return made
