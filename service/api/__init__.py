"""The JSON API under /api/v1: one module a noun, each with its blueprint."""

from . import cases, convert, deliveries, drift, endpoints, events, pumps

BLUEPRINTS = (
    events.blueprint,
    pumps.blueprint,
    convert.blueprint,
    endpoints.blueprint,
    deliveries.blueprint,
    drift.blueprint,
    cases.blueprint,
)
