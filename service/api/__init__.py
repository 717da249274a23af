"""The JSON API under /api/v1: one module a noun, each with its blueprint."""

from . import cases, conflicts, convert, deliveries, drift, endpoints, events, hl7, messages, pumps

BLUEPRINTS = (
    events.blueprint,
    pumps.blueprint,
    convert.blueprint,
    hl7.blueprint,
    endpoints.blueprint,
    deliveries.blueprint,
    drift.blueprint,
    cases.blueprint,
    messages.blueprint,
    conflicts.blueprint,
)
