"""What an advisory check may look at: one pump's state, how it came about, and the records behind it."""

from __future__ import annotations

from dataclasses import dataclass

from mappings.envelope import Event

from .models import Model
from .reservoir import Thresholds
from .run import Run
from .service_life import ServiceLife
from .state import PumpState


@dataclass(frozen=True, slots=True)
class View:
    """A pump at `state.at`; `worst` is the run with every patient bolus, `events` those that count, in order.

    The events are of the pump, and of its patient where they name no pump.
    """

    state: PumpState
    run: Run
    worst: Run
    events: tuple[Event, ...]
    model: Model | None
    life: ServiceLife
    other_pumps: tuple[tuple[str, bool], ...]
    """The serials of the patient's other pumps, and whether each is in use."""
    thresholds: Thresholds

    def of_type(self, *types: str) -> list[Event]:
        """The events of these types."""
        return [event for event in self.events if event["type"] in types]
