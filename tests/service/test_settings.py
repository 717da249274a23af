"""Settings: read once, every unusable variable named, the table complete."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, from_environment, settings_table, variable


def test_defaults_are_safe() -> None:
    found = from_environment({"HOME": "/", "ITB_PORT": " "})
    assert found == Settings()
    assert found.require_key
    assert found.host == "127.0.0.1"


def test_every_field_is_read_from_its_variable() -> None:
    for setting in fields(Settings):
        sent, wanted = {bool: ("no", False), int: ("7", 7), str: ("x", "x")}[type(setting.default)]
        assert getattr(from_environment({variable(setting.name): sent}), setting.name) == wanted


def test_every_unusable_variable_is_named() -> None:
    with pytest.raises(SettingsError) as error:
        from_environment({"ITB_REQUIRE_KEY": "maybe", "ITB_PORT": "-1", "ITB_MAX_BODY_BYTES": "10MB"})
    for name in ("ITB_REQUIRE_KEY", "ITB_PORT", "ITB_MAX_BODY_BYTES"):
        assert name in str(error.value)


def test_the_table_says_what_each_variable_is_for() -> None:
    table = settings_table()
    for setting in fields(Settings):
        assert f"| `{variable(setting.name)}` |" in table
        assert setting.metadata["help"]
    assert len(table.splitlines()) == 2 + len(fields(Settings))


def test_the_readme_holds_the_table() -> None:
    readme = Path("README.md")
    if readme.exists():
        assert settings_table() in readme.read_text()
