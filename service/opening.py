"""What a command of `itb` begins with: the settings of its environment, the store that they name."""

from __future__ import annotations

import os
from typing import Any

import click

from .settings import Settings, SettingsError, from_environment


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
