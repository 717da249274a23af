"""What can be configured: one frozen value, read from the environment once, each field documented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class SettingsError(Exception):
    """The environment says something that cannot be used; the message names the variable."""


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class Settings:
    """Field `max_body_bytes` is read from `ITB_MAX_BODY_BYTES`, and so on."""

    database_url: str = _setting(
        "sqlite:///itb.db",
        "where the ledger is kept: `sqlite:///FILE` on a local disk, or `postgresql://USER:PASSWORD@HOST/NAME`",
    )
    require_key: bool = _setting(
        True, "callers of `/api` and `/fhir` need an API key (`itb keys add NAME`); `false` only for a trial"
    )
    max_body_bytes: int = _setting(
        10_000_000, "largest request body; NDJSON is streamed and has no limit but that of a line"
    )
    max_event_bytes: int = _setting(1_000_000, "largest single event or NDJSON line")
    host: str = _setting("127.0.0.1", "address that `itb serve` listens on")
    port: int = _setting(8080, "port that `itb serve` listens on; 0 takes a free one")
    worker: bool = _setting(True, "`itb serve` also delivers to and reads from the EHRs, in the same process")
    engine: str = _setting(
        "embedded",
        "who delivers: `embedded`, the service and `itb worker` by themselves; `procrastinate`, any number "
        "of `itb worker` on any number of machines (PostgreSQL)",
    )
    log_level: str = _setting("info", "`debug`, `info`, `warning` or `error`")
    min_free_bytes: int = _setting(
        50_000_000, "`/readyz` fails when the disk of an SQLite ledger has less free space"
    )
    hl7_senders: str = _setting(
        "",
        "folder of the files that say how senders of HL7 v2 write: `NAME.toml` or `NAME.json` (docs/hl7.md)",
    )
    mllp_listen: str = _setting(
        "", "`HOST:PORT` on which `itb serve` also takes HL7 v2 over MLLP; empty: it does not"
    )
    mllp_senders: str = _setting("", "the file that says who may send over MLLP (docs/mllp.md)")
    mllp_cert: str = _setting("", "certificate (PEM) of the MLLP server: it then speaks TLS only")
    mllp_key: str = _setting("", "key (PEM) of that certificate, where it is not in the same file")
    mllp_client_ca: str = _setting("", "authorities (PEM): a sender then needs a certificate of one of them")
    mllp_plaintext: bool = _setting(
        False, "allow MLLP without TLS on an address that other machines can reach"
    )
    mllp_message_bytes: int = _setting(16_000_000, "largest HL7 v2 message")
    mllp_connections: int = _setting(500, "most MLLP connections at a time")
    mllp_idle_seconds: int = _setting(3600, "an MLLP connection without a message for so long is closed")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment; raises `SettingsError` with every unusable variable."""
    found: dict[str, Any] = {}
    problems = []
    for setting in fields(Settings):
        text = environment.get(variable(setting.name))
        if text is None or not text.strip():
            continue
        try:
            found[setting.name] = _parse(type(setting.default), text.strip())
        except ValueError as error:
            problems.append(f"{variable(setting.name)}: {error}")
    if problems:
        raise SettingsError("; ".join(problems))
    return Settings(**found)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"ITB_{name.upper()}"


def _parse(kind: type[Any], text: str) -> Any:
    if kind is bool:
        if text.lower() not in _WORDS:
            raise ValueError("must be true or false")
        return _WORDS[text.lower()]
    if kind is int:
        if not text.isascii() or not text.isdigit():
            raise ValueError("must be a whole number")
        return int(text)
    return text


def settings_table() -> str:
    """The Markdown table of the README (a test compares them)."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in fields(Settings):
        default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
        rows.append(f"| `{variable(setting.name)}` | `{default}` | {setting.metadata['help']} |")
    return "\n".join(rows) + "\n"
