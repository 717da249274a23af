"""Rows that several event types share: who the record is, whose it is, and whether it still counts."""

from __future__ import annotations

from .codes import extension, sid, table
from .identity import business_value, split_value
from .rows import Codec, Group, Json, Refused, Row
from .values import PATIENT

STATUS = table({"final": "completed", "entered-in-error": "entered-in-error"})
VERSION = Row("version", extension("itb-event-version", "valuePositiveInt"))


def key(kind: str) -> Group:
    """(source, id) ⇄ the business identifier of this kind."""
    path = f"identifier[system={sid(kind)}].value"

    def read(found: Json) -> Json:
        pair = split_value(found[path]) if isinstance(found.get(path), str) else None
        if pair is None:
            raise Refused("identifier", f"needs an identifier of {sid(kind)} of the form source.id")
        del found[path]
        return {"source": pair[0], "id": pair[1]}

    return Group(
        ("source", "id"),
        (path,),
        Codec(lambda key: {path: business_value(key["source"], key["id"])}, read),
    )


SUBJECT = Row("patient", "subject", PATIENT, required=True)
