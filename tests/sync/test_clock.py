"""The clock is set back, or forward: order and completeness rest on numbers, not on times (R9)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.store import deliveries, endpoints
from service.sync.ehr import Unreachable
from site_of_tests import HISTORY, Site
from site_of_tests import REFILL as SENT

HOUR = timedelta(hours=1)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    made.register()
    yield made
    made.store.close()


def refill(number: int) -> dict[str, Any]:
    return SENT | {"id": f"R-{number}"}


def arrived(site: Site) -> list[str]:
    """The refills in the order in which they reached the EHR."""
    found = [v[0] for (type, _), v in site.ehr.history.items() if type == "MedicationAdministration"]
    ours = [r for r in found if r["identifier"][0]["value"].startswith("clinic-a.R-")]
    return [r["identifier"][0]["value"].partition(".")[2] for r in ours]


@pytest.mark.parametrize("step", [-HOUR, HOUR, -24 * HOUR, timedelta(minutes=-10)], ids=str)
def test_what_arrives_around_a_step_of_the_clock_is_delivered_once_and_in_order(
    site: Site, step: timedelta
) -> None:
    site.send(HISTORY[0])
    for number in range(4):
        site.send(refill(number))
        if number == 1:
            site.time += step
        if number == 2:
            site.push()
    site.push()
    site.time += max(-step, HOUR)  # at worst a delivery waits until the clock is where it was
    site.push()
    assert arrived(site) == ["R-0", "R-1", "R-2", "R-3"]
    assert {d.status for d in site.deliveries()} == {"sent"}


def test_a_retry_waits_no_longer_than_the_step(site: Site) -> None:
    def down(name: str) -> None:
        raise Unreachable("down")

    site.send(HISTORY[0])
    site.ehr.before = [down]
    site.push(rounds=1)
    site.time -= HOUR
    site.push(rounds=1)
    site.time += HOUR + timedelta(minutes=5)
    site.push()
    assert {d.status for d in site.deliveries()} == {"sent"}


def test_what_a_paused_endpoint_missed_is_made_up_though_the_clock_was_set_back(site: Site) -> None:
    site.time -= HOUR
    with site.store.write() as c:
        endpoints.set_enabled(c, site.endpoint.id, False)
    site.send(*HISTORY)
    assert site.deliveries() == []
    with site.store.write() as c:
        endpoints.set_enabled(c, site.endpoint.id, True)
        assert deliveries.catch_up(c, site.endpoint, now=site.now()) == len(HISTORY)


def test_a_new_endpoint_gets_what_comes_after_it_though_the_clock_was_set_forward_before(site: Site) -> None:
    site.send(HISTORY[0])
    site.time -= HOUR
    with site.store.write() as c:
        made = endpoints.add(c, 1, "second", "http://second.invalid", {}, now=site.now())
    site.send(HISTORY[1])
    with site.store.write() as c:
        assert deliveries.catch_up(c, made, now=site.now()) == 0, "each has its delivery, or was before it"
        assert deliveries.catch_up(c, made, now=site.now(), from_the_start=True) == 1
