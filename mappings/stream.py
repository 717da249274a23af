"""A stream of events to FHIR: carries each pump's last programs forward.

So a dose change closes the program before it. Memory grows with the number of pumps, not of events: the
programs are kept as JSON text, which needs a quarter of what the objects do, about 3 KiB a pump.
"""

from __future__ import annotations

from decimal import Decimal

from . import bundle, device, dose_change
from .envelope import Event, identity, is_retracted
from .exact_json import dumps, reread
from .limits import LIMITS
from .paths import Json
from .rows import Issue, MappingError

KEPT = 3
"""Programs kept for each pump: the last one, the one that it put on hold, and that one's predecessor."""


class Converter:
    """What a stream has shown so far: devices, their capacity and owner, and the last programs."""

    def __init__(self) -> None:
        self._devices: set[str] = set()
        self._capacity: dict[str, Decimal] = {}
        self._programs: dict[str, bytes] = {}

    def to_fhir(self, event: Event) -> Json:
        """The transaction Bundle of the next event; raises `MappingError` (rule R1)."""
        self._check(event)
        chain = self._chain(event["pump"]) if event["type"] == "dose-change" else []
        made = bundle.to_fhir(event, chain=chain, known=frozenset(self._known(event)))
        self._learn(event, chain)
        return made

    def _chain(self, serial: str) -> list[Event]:
        kept = self._programs.get(serial)
        return reread(kept) if kept else []

    def _known(self, event: Event) -> set[str]:
        named = {event.get("pump"), event.get("parent")}
        if event["type"] == "device":
            named.add(device.device_key(event))
        return {name for name in named if name in self._devices}

    def _check(self, event: Event) -> None:
        if event["type"] == "refill" and not is_retracted(event):
            found = capacity_issues(event, self._capacity.get(event["pump"]))
            if found:
                raise MappingError(found)

    def _learn(self, event: Event, chain: list[Event]) -> None:
        if event["type"] == "device":
            self._devices.add(device.device_key(event))
            if "reservoir_capacity" in event:
                self._capacity[event["serial"]] = event["reservoir_capacity"]["value"]
        elif event["type"] == "dose-change":
            kept = [e for e in chain if identity(e) != identity(event)]
            self._programs[event["pump"]] = dumps(dose_change.chain([*kept, event])[-KEPT:])


def capacity_issues(event: Event, capacity: Decimal | None) -> list[Issue]:
    """R1: no more goes in than the reservoir holds; of an unknown pump, than the largest one holds."""
    most = LIMITS.largest_reservoir if capacity is None else capacity
    found = []
    for name in ("volume_instilled", "volume_removed", "volume_expected"):
        volume = event.get(name, {}).get("value")
        if volume is not None and volume > most:
            what = (
                "the pump's reservoir holds" if capacity is not None else "the largest known reservoir holds"
            )
            found.append(Issue(name, "R1", f"{volume} mL is more than {what}: {most} mL"))
    return found
