"""What a command of `itb` begins with: tenant, clock, settings, and the store that they name."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import click

from .settings import Settings, SettingsError, from_environment

TENANT = 1
"""The one tenant there is so far; the first migration makes it."""


def now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


class Commands(click.Group):
    """Commands that end with one line when the database fails, however far they have come."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Imported only now: `itb convert` needs no database, and starts at once.
            from sqlalchemy.exc import DBAPIError

            from .store.engine import StoreError
            from .store.faults import fault_of

            fault = fault_of(error) if isinstance(error, DBAPIError) else None
            if fault is None and not isinstance(error, StoreError):
                raise
            raise click.ClickException(fault.message if fault else str(error)) from None


def settings() -> Settings:
    """The settings, or a usage error that names the bad variable."""
    try:
        return from_environment(os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def opened() -> Any:
    """The migrated store of the settings."""
    from .doctor import UNUSABLE, why
    from .store.engine import Store, migrate

    try:
        store = Store(settings().database_url)
        migrate(store)
        return store
    except UNUSABLE as error:
        raise click.ClickException(why(error)) from None
