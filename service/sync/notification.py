"""What a notification of a subscription says: which resources to read, and whether some were missed. Pure.

R5 Subscriptions in R4 (the backport guide): a Bundle whose first entry is a Parameters, in R4B a
SubscriptionStatus. A notification is a hint: what it carries beside ids is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = Any
KINDS = ("handshake", "heartbeat", "event-notification", "query-status", "query-event")


@dataclass(frozen=True, slots=True)
class Notification:
    """`events` since the subscription began; the numbers of those told here, and what they are about."""

    kind: str
    subscription: str
    events: int | None
    numbers: tuple[int, ...]
    about: tuple[tuple[str, str], ...]


def read(bundle: Json) -> Notification | None:
    """The notification in a Bundle; None for anything else."""
    try:
        status = bundle["entry"][0]["resource"]
        if bundle["resourceType"] != "Bundle" or status["resourceType"] not in READ:
            return None
        found: Notification = READ[status["resourceType"]](status)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    return found if found.kind in KINDS else None


def _parameters(status: Json) -> Notification:
    values: dict[str, Json] = {}
    numbers, about = [], []
    for one in status["parameter"]:
        if one["name"] == "notification-event":
            parts = {part["name"]: part for part in one["part"]}
            numbers.append(int(parts["event-number"]["valueString"]))
            about += _reference(parts.get("focus", {}).get("valueReference"))
        else:
            values[one["name"]] = next((v for k, v in one.items() if k.startswith("value")), None)
    since = values.get("events-since-subscription-start")
    return Notification(
        kind=values["type"],
        subscription=_id(values["subscription"]),
        events=int(since) if since is not None else None,
        numbers=tuple(numbers),
        about=tuple(about),
    )


def _status(status: Json) -> Notification:
    listed = status.get("notificationEvent", [])
    since = status.get("eventsSinceSubscriptionStart")
    return Notification(
        kind=status["type"],
        subscription=_id(status["subscription"]),
        events=int(since) if since is not None else None,
        numbers=tuple(int(one["eventNumber"]) for one in listed),
        about=tuple(pair for one in listed for pair in _reference(one.get("focus"))),
    )


READ = {"Parameters": _parameters, "SubscriptionStatus": _status}


def _reference(value: Json) -> list[tuple[str, str]]:
    parts = ((value or {}).get("reference") or "").partition("/_history")[0].split("/")[-2:]
    return [(parts[0], parts[1])] if len(parts) == 2 and all(parts) else []


def _id(reference: Json) -> str:
    return str(reference["reference"]).partition("/_history")[0].rpartition("/")[2]


def heard(last: int | None, notification: Notification) -> tuple[int | None, bool]:
    """(the highest number heard so far, whether one before it never came): then all is read by a poll.

    What comes twice, or late, changes nothing.
    """
    highest = max([*notification.numbers, notification.events or 0], default=0)
    known = last or 0
    fresh = sorted({n for n in notification.numbers if n > known})
    complete = fresh == list(range(known + 1, highest + 1))
    return max(known, highest) or last, highest > known and not complete
