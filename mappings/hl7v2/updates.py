"""Messages that tell no event of a pump and still matter to its record: joined patients, a kit, a report.

Each is a plain JSON object of one `kind` with a message of its own, both ways. They are not events: a kit
that was dispensed was not filled in, and a patient is the EHR's (docs/hl7.md, "Updates").
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError

from mappings.envelope import BusinessId, Person, Strictly
from mappings.fields import Code, Day, Line, Moment, Part, Quantity, issues_of, refuse
from mappings.paths import Json
from mappings.rows import Issue, MappingError, Refused

from .message import Message, Segment
from .ras_o17 import DRUG, drug_out
from .rows import Group
from .shared import local
from .values import (
    DAY,
    KEY,
    MOMENT,
    PATIENT,
    PERSON,
    TEXT,
    Codec,
    Context,
    amount,
    nth,
    parts,
    plain,
)

Update = dict[str, Any]
"""`{"kind", "source", "id", "patient", "occurred_at", …}`."""
BUSINESS_ID = BusinessId()


class UpdateSchema(Strictly):
    """What every update says."""

    kind = Code("patient-update", "patient-link", "patient-merge", "dispense", "report", required=True)
    source = Line(required=True, pattern=r"[a-z0-9-]{1,40}", words="must match [a-z0-9-]{1,40}")
    id = Line(required=True)
    patient = Part(BUSINESS_ID, required=True)
    occurred_at = Moment(required=True)


class JoinedSchema(UpdateSchema):
    """Two numbers of one patient: `other` was merged into `patient`, or is linked with it."""

    other = Part(BUSINESS_ID, required=True)


class DispensedDrug(Strictly):
    """What was dispensed."""

    name = Line()
    ndc = Line()
    concentration = Quantity("ug/mL", above_zero=True)
    lot = Line()
    expires_on = Day(month_enough=True)

    def whole(self, data: Any) -> None:
        if not data.keys() & {"name", "ndc"}:
            raise refuse("required", "needs a name or an NDC")


class DispenseSchema(UpdateSchema):
    """A refill kit that a pharmacy gave out."""

    drug = Part(DispensedDrug(), required=True)
    quantity = Quantity("mL", required=True, above_zero=True)
    performer = Part(Person())


class ReportSchema(UpdateSchema):
    """A document about a session: `data` is Base64."""

    title = Line(required=True)
    content_type = Code("application/pdf", "text/plain", required=True)
    data = Line(required=True, most=14_000_000, pattern=r"[A-Za-z0-9+/]+={0,2}", words="must be Base64")


SCHEMAS: dict[str, Schema] = {
    "patient-update": UpdateSchema(),
    "patient-link": JoinedSchema(),
    "patient-merge": JoinedSchema(),
    "dispense": DispenseSchema(),
    "report": ReportSchema(),
}
TRIGGERS = {
    "patient-update": "ADT^A31^ADT_A05",
    "patient-link": "ADT^A24^ADT_A24",
    "patient-merge": "ADT^A40^ADT_A39",
    "dispense": "RDS^O13^RDS_O13",
    "report": "MDM^T02^MDM_T02",
}
KINDS = {
    "ADT^A08": "patient-update",
    "ADT^A31": "patient-update",
    "ADT^A24": "patient-link",
    "ADT^A40": "patient-merge",
    "RDS^O13": "dispense",
    "MDM^T02": "report",
}
"""MSH-9 -> kind."""


def load_update(raw: Json) -> Update:
    """The checked update; raises `MappingError`."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in SCHEMAS:
        raise MappingError([Issue("kind", "code", f"unknown kind; known: {', '.join(SCHEMAS)}")])
    try:
        update: Update = SCHEMAS[str(kind)].load(raw)
    except ValidationError as error:
        raise MappingError(issues_of(error.messages)) from None
    return update


# --- reading --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Taker:
    """Takes values out of fields and collects what is wrong with them."""

    group: Group
    c: Context
    issues: list[Issue]

    def take(self, codec: Codec, name: str, *fields: int, at: int = 0, required: bool = False) -> Any:
        """The leaves of these fields, or None for each."""
        texts = tuple(self.group.text(name, number, at) for number in fields)
        where = self.c.at = f"{name}[{at + 1}]-{fields[0]}"
        if not any(texts):
            if required:
                self.issues.append(Issue(where, "required", "is required"))
            return (None, None, None)
        try:
            return codec.from_hl7(texts, self.c)
        except Refused as error:
            self.issues.append(Issue(where, error.rule, str(error)))
            return (None, None, None)

    def number(self, name: str, field: int, *, at: int = 0) -> Json:
        """A patient's number."""
        system, value = self.take(PATIENT, name, field, at=at, required=True)[:2]
        return {"system": system, "value": value} if value is not None else None


def read_update(message: Message, kind: str, c: Context) -> Update:
    """The update of a message; raises `MappingError`."""
    taker = _Taker(Group(message.segments), c, [])
    read = {"dispense": _dispense_in, "report": _report_in}.get(kind, _patient_in)
    raw = {"kind": kind, **read(taker, kind)}
    if taker.issues:
        raise MappingError(taker.issues)
    said = {name: value for name, value in raw.items() if value is not None}
    return load_update(said)


def _patient_in(t: _Taker, kind: str) -> Update:
    """The message has no number of its own but its control id."""
    if len(t.group.all("PID")) > (2 if kind == "patient-link" else 1):
        t.issues.append(Issue("PID[2]-3", "repeated", "one change of one patient a message"))
    source = t.c.sender.source or None
    if source is None:
        t.issues.append(Issue("MSH[1]-10", "source", "the sender's file names no source"))
    made: Update = {
        "source": source,
        "id": plain(t.group.text("MSH", 10), t.c),
        "patient": t.number("PID", 3),
    }
    made["occurred_at"] = t.take(MOMENT, "EVN", 6)[0] or t.take(MOMENT, "EVN", 2, required=True)[0]
    if kind == "patient-merge":
        made["other"] = t.number("MRG", 1)
    elif kind == "patient-link":
        made["other"] = t.number("PID", 3, at=1)
    return made


def _dispense_in(t: _Taker, kind: str) -> Update:
    for name in ("RXD", "PID"):
        if len(t.group.all(name)) > 1:
            t.issues.append(Issue(f"{name}[2]", "repeated", "one kit a message"))
    source, id = t.take(KEY, "ORC", 3, 2, required=True)[:2]
    ndc, drug = t.take(DRUG, "RXD", 2, required=True)[:2]
    system, value, who = t.take(PERSON, "RXD", 10)
    drug_said = {
        "name": drug,
        "ndc": ndc,
        "concentration": t.take(amount("ug/mL"), "RXD", 16, 17)[0],
        "lot": t.take(TEXT, "RXD", 18)[0],
        "expires_on": t.take(DAY, "RXD", 19)[0],
    }
    performer = {"system": system, "value": value, "name": who}
    return {
        "source": source,
        "id": id,
        "patient": t.number("PID", 3),
        "occurred_at": t.take(MOMENT, "RXD", 3, required=True)[0],
        "drug": _there(drug_said),
        "quantity": t.take(amount("mL"), "RXD", 4, 5, required=True)[0],
        "performer": _there(performer) or None,
    }


def _report_in(t: _Taker, kind: str) -> Update:
    source, id = t.take(KEY, "TXA", 12, 14, required=True)[:2]
    made: Update = {"source": source, "id": id, "patient": t.number("PID", 3)}
    made["occurred_at"] = t.take(MOMENT, "TXA", 4, required=True)[0]
    documents = [s for s in t.group.all("OBX") if len(s) > 5 and s[2] == "ED"]
    if len(documents) != 1:
        t.issues.append(Issue("OBX[1]-5", "repeated", "a report is one document (ED)"))
        return made
    found = parts(documents[0][5], t.c)
    type, subtype, encoding, data = (nth(found, n, t.c) for n in (2, 3, 4, 5))
    if encoding != "Base64":
        t.issues.append(Issue("OBX[1]-5.4", "code", "the encoding of the document must be Base64"))
    made["title"] = nth(parts(documents[0][3], t.c), 2, t.c) or None
    made["content_type"] = f"{type.lower()}/{subtype.lower()}"
    made["data"] = data
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        t.issues.append(Issue("OBX[1]-5.5", "format", "is not Base64"))
    return made


def _there(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}


# --- writing --------------------------------------------------------------------------------------------


def update_segments(update: Update, c: Context) -> list[Segment]:
    """The segments after MSH."""
    at = MOMENT.to_hl7((update["occurred_at"],), c)[0]
    pid = _pid(update["patient"], c)
    kind = update["kind"]
    if kind == "dispense":
        return [pid, *_dispense_out(update, at, c)]
    if kind == "report":
        return [["EVN", "", at], pid, ["PV1", "", "U"], *_report_out(update, at, c)]
    evn = ["EVN", "", at]
    if kind == "patient-merge":
        return [evn, pid, ["MRG", _number(update["other"], c)]]
    if kind == "patient-link":
        return [evn, pid, _pid(update["other"], c)]
    return [evn, pid, ["PV1", "", "U"]]


def _number(who: Json, c: Context) -> str:
    return PATIENT.to_hl7((who["system"], who["value"]), c)[0]


def _pid(who: Json, c: Context) -> Segment:
    return ["PID", "", "", _number(who, c), "", "^^^^^^U".replace("^", c.separators.component)]


def _dispense_out(update: Update, at: str, c: Context) -> list[Segment]:
    drug, who = update["drug"], update.get("performer", {})
    rxd = ["RXD"] + [""] * 19
    rxd[1], rxd[3], rxd[7] = "1", at, TEXT.to_hl7((update["id"],), c)[0]
    rxd[2] = drug_out((drug.get("ndc"), drug.get("name")), c)[0]
    rxd[4:6] = amount("mL").to_hl7((update["quantity"],), c)
    rxd[10] = PERSON.to_hl7((who.get("system"), who.get("value"), who.get("name")), c)[0]
    if "concentration" in drug:
        rxd[16:18] = amount("ug/mL").to_hl7((drug["concentration"],), c)
    rxd[18] = TEXT.to_hl7((drug["lot"],), c)[0] if "lot" in drug else ""
    rxd[19] = DAY.to_hl7((drug["expires_on"],), c)[0] if "expires_on" in drug else ""
    orc = ["ORC", "RE", "", KEY.to_hl7((update["source"], update["id"]), c)[0]]
    return [orc, rxd, ["RXR", local("pump-reservoir").replace("^", c.separators.component)]]


def _report_out(update: Update, at: str, c: Context) -> list[Segment]:
    mark = c.separators.component
    txa = ["TXA", "1", "PN", "TX", at] + [""] * 13
    txa[12], txa[17] = KEY.to_hl7((update["source"], update["id"]), c)[0], "AU"
    type, _, subtype = update["content_type"].partition("/")
    title = TEXT.to_hl7((update["title"],), c)[0]
    document = mark.join(("", type, subtype, "Base64", update["data"]))
    return [
        txa,
        ["OBX", "1", "ED", f"report{mark}{title}{mark}99ITB", "1", document, "", "", "", "", "", "F"],
    ]


__all__ = ["KINDS", "SCHEMAS", "TRIGGERS", "Update", "load_update", "read_update", "update_segments"]
