"""The JSON API under /api/v1: one module a noun, each with its blueprint."""

from . import convert, deliveries, endpoints, events, messages, pumps

BLUEPRINTS = (
    events.blueprint,
    pumps.blueprint,
    convert.blueprint,
    endpoints.blueprint,
    deliveries.blueprint,
    messages.blueprint,
)
