"""An application on a database file of its own, a clock that stands still, and a client with a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from service.store import keys
from service.store.engine import Store, migrate


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path}/itb.db", min_free_bytes=0)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    made = Store(settings.database_url)
    migrate(made)
    yield made
    made.close()


@pytest.fixture
def make_app(settings: Settings, clock: Clock) -> Callable[..., Flask]:
    return lambda **changes: create_app(replace(settings, **changes), clock=clock)


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Iterator[Flask]:
    made = make_app()
    yield made
    made.extensions["itb"].store.close()


@pytest.fixture
def client(app: Flask, clock: Clock) -> FlaskClient:
    """A client whose every request carries a key."""
    with app.extensions["itb"].store.write() as c:
        key = keys.add(c, 1, "test", now=clock())
    made = app.test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return made
