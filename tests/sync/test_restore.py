"""A ledger restored from a backup while the EHR has gone on: nothing is doubled, both come to the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mappings.identity import content_hash
from service import verify
from service.store import backup
from service.store.engine import Store
from site_of_tests import HISTORY, Site, event, program

# --- after a restore ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.register()
    yield made
    made.store.close()


def restore(site: Site, copy: Path) -> None:
    """What docs/operations.md says: stop, put the copy in place of the three files, start."""
    site.store.close()
    ledger = Path(site.url.removeprefix("sqlite:///"))
    for name in ("", "-wal", "-shm"):
        Path(f"{ledger}{name}").unlink(missing_ok=True)
    shutil.copy(copy, ledger)
    site.store = Store(site.url)


def copies(site: Site) -> dict[tuple[str, str], int]:
    return {key: len(versions) for key, versions in site.ehr.history.items()}


def settle(site: Site) -> None:
    """Read and deliver until nothing is left to do."""
    for _ in range(5):
        site.pull()
        site.push()


LATER = event(
    "dose-change", "P-9", occurred_at="2025-03-07T12:00:00-06:00", before=program(125), after=program(140)
)


def told(site: Site) -> dict[tuple[str, str], str]:
    """What the EHR says now, of everything but when we recorded it."""
    return {
        key: content_hash(versions[-1])
        for key, versions in site.ehr.history.items()
        if key[0] not in ("Provenance", "Patient")
    }


@pytest.mark.parametrize("kept", range(len(HISTORY) + 1))
def test_a_ledger_restored_to_an_older_state_doubles_nothing_and_comes_to_the_same(
    site: Site, tmp_path: Path, kept: int
) -> None:
    """`kept` events were accepted when the backup was made, none of them delivered yet as far as it knows."""
    site.send(*HISTORY[:kept])
    backup.back_up(site.store, tmp_path / "itb.bak", verify.verified, lambda step: None)
    site.send(*HISTORY[kept:])
    site.push()
    before, resources, written = told(site), set(site.ehr.history), copies(site)
    restore(site, tmp_path / "itb.bak")
    site.send(*HISTORY)
    settle(site)
    assert set(site.ehr.history) == resources, "one resource more is a double"
    assert told(site) == before
    again = {key for key, number in copies(site).items() if number > written[key]}
    assert {type for type, _ in again} <= {"Provenance"}, "a program that was replaced showed as active again"
    assert site.running() == ["clinic-a.P-3"]
    assert {d.status for d in site.deliveries()} == {"sent"}
    assert [len(site.versions("clinic-a", e["id"])) for e in HISTORY] == [1] * len(HISTORY)
    site.send(LATER)
    site.push()
    assert site.running() == ["clinic-a.P-9"], "and the therapy goes on"


def test_what_was_delivered_before_the_backup_is_not_sent_again(site: Site, tmp_path: Path) -> None:
    site.send(*HISTORY)
    site.push()
    backup.back_up(site.store, tmp_path / "itb.bak", verify.verified, lambda step: None)
    before = copies(site)
    restore(site, tmp_path / "itb.bak")
    site.send(*HISTORY)
    settle(site)
    assert copies(site) == before


def test_what_an_ehr_s_user_changed_since_the_backup_is_read_and_not_overwritten(
    site: Site, tmp_path: Path
) -> None:
    site.send(*HISTORY)
    site.push()
    backup.back_up(site.store, tmp_path / "itb.bak", verify.verified, lambda step: None)
    site.pull()
    edited = site.one("refill", "R-1") | {"note": [{"text": "entered in the EHR"}]}
    site.ehr.update(edited)
    restore(site, tmp_path / "itb.bak")
    site.send(*HISTORY)
    settle(site)
    assert site.one("refill", "R-1")["note"] == [{"text": "entered in the EHR"}]
    assert site.versions("clinic-a", "R-1")[-1]["note"] == "entered in the EHR"
