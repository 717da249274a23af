"""Scores of tone, function, pain and goals, as a screening trial and an assessment hold them.

Modified Ashworth and GMFCS are ordinal: their grades are codes, never numbers (`1+` lies between 1 and 2
and has no value). Sources of scales and ranges: docs/clinical.md, "Scores".
"""

from __future__ import annotations

from dataclasses import dataclass

from .codes import LOINC, OBSERVATION_CATEGORY, SNOMED, bare, coded, concepts, local
from .envelope import Event, Strictly
from .fields import Code, Line, Moment, Whole
from .members import Members, numbered
from .paths import Json
from .rows import Always, Codec, Group, Issue, Mapping, Refused, Row
from .shared_rows import MEMBER_OBSERVED, MEMBER_SUBJECT, claim
from .values import read_ucum, ucum


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale: its concept, and either ordinal grades (word to local code) or a range of whole numbers."""

    concept: Json
    grades: dict[str, str]
    least: int = 0
    most: int = 0


MAS = {"0": "mas-0", "1": "mas-1", "1+": "mas-1plus", "2": "mas-2", "3": "mas-3", "4": "mas-4"}
GMFCS = {"I": "gmfcs-1", "II": "gmfcs-2", "III": "gmfcs-3", "IV": "gmfcs-4", "V": "gmfcs-5"}
SCALES = {
    "mas": Scale(coded(SNOMED, "765771006", "Modified Ashworth Scale"), MAS),
    "gmfcs": Scale(local("gmfcs-level"), GMFCS),
    "bad": Scale(local("barry-albright-dystonia"), {}, 0, 32),
    "pain": Scale(coded(LOINC, "72514-3", "Pain severity - 0-10 verbal numeric rating"), {}, 0, 10),
    "gas": Scale(local("goal-attainment"), {}, -2, 2),
}
SIDES = ("left", "right")


class ScoreSchema(Strictly):
    """One score: `grade` of an ordinal scale, `score` of a numeric one."""

    scale = Code(*SCALES, required=True)
    grade = Code(*MAS, *GMFCS)
    score = Whole(-2, 32)
    muscle = Line()
    side = Code(*SIDES)
    goal = Line()
    scored_at = Moment()


SCORE_SCHEMA = ScoreSchema()


def issues(event: Event) -> list[Issue]:
    """What does not fit together in the event's scores."""
    found = []
    for index, score in enumerate(event.get("scores", ())):
        found += _issues(score, f"scores[{index}]")
    return found


def _issues(score: Json, path: str) -> list[Issue]:
    name, scale = score["scale"], SCALES[score["scale"]]
    wanted, other = ("grade", "score") if scale.grades else ("score", "grade")
    found = []
    if wanted not in score:
        found.append(Issue(f"{path}.{wanted}", "required", f"is required of scale {name}"))
    elif scale.grades and score["grade"] not in scale.grades:
        known = ", ".join(scale.grades)
        found.append(Issue(f"{path}.grade", "code", f"is no grade of scale {name}; known: {known}"))
    elif not scale.grades and not scale.least <= score["score"] <= scale.most:
        found.append(Issue(f"{path}.score", "range", f"must be from {scale.least} to {scale.most}"))
    if other in score:
        found.append(Issue(f"{path}.{other}", "kind", f"has no place in scale {name}"))
    for field, owner in (("muscle", "mas"), ("side", "mas"), ("goal", "gas")):
        if field in score and name != owner:
            found.append(Issue(f"{path}.{field}", "kind", f"belongs to scale {owner}"))
    if score.get("muscle", "").startswith(tuple(f"{side} " for side in SIDES)):
        found.append(Issue(f"{path}.muscle", "kind", "names a side: that belongs into `side`"))
    if name == "mas" and "muscle" not in score:
        found.append(Issue(f"{path}.muscle", "required", "each grade of mas is of one muscle (group)"))
    return found


def _value_out(found: Json) -> Json:
    scale = SCALES[found["scale"]]
    made = {"code": SCALE.to_fhir(found["scale"])}
    if scale.grades:
        return made | {"valueCodeableConcept": local(scale.grades[found["grade"]])}
    if scale.least < 0:
        return made | {"valueInteger": found["score"]}
    return made | {"valueQuantity": ucum(found["score"], "{score}")}


def _value_in(found: Json) -> Json:
    made = {"scale": SCALE.from_fhir(found.pop("code"))}
    grades = SCALES[made["scale"]].grades
    if grades:
        concept = found.pop("valueCodeableConcept")
        made["grade"] = concepts({word: local(code) for word, code in grades.items()}).from_fhir(concept)
    elif "valueInteger" in found:
        made["score"] = found.pop("valueInteger")
    else:
        number = read_ucum(found.pop("valueQuantity"), "{score}")["value"]
        if number != int(number):
            raise Refused("type", "a score is a whole number")
        made["score"] = int(number)
    return made


SCALE = concepts({name: scale.concept for name, scale in SCALES.items()}, "itb-scale")
VALUES = ("code", "valueCodeableConcept", "valueInteger", "valueQuantity")


def _site_out(found: Json) -> Json:
    side = f"{found['side']} " if "side" in found else ""
    return {"bodySite": {"text": f"{side}{found['muscle']}"}} if "muscle" in found else {}


def _site_in(found: Json) -> Json:
    text = found.pop("bodySite", {}).get("text")
    if text is None:
        return {}
    side, _, rest = text.partition(" ")
    return {"muscle": rest, "side": side} if side in SIDES and rest else {"muscle": text}


def _scored_out(found: Json) -> Json:
    return {"effectiveDateTime": found.get("scored_at", found["event.occurred_at"])}


def _scored_in(found: Json) -> Json:
    return {"scored_at": found.pop("effectiveDateTime")}


SCORE = Mapping(
    Always("resourceType", "Observation"),
    claim("itb-score"),
    numbered("score"),
    MEMBER_OBSERVED,
    Always("category[0]", bare(OBSERVATION_CATEGORY, "survey")),
    Group(("scale", "grade", "score"), VALUES, Codec(_value_out, _value_in)),
    MEMBER_SUBJECT,
    Group(("scored_at", "event.occurred_at"), ("effectiveDateTime",), Codec(_scored_out, _scored_in)),
    Group(("side", "muscle"), ("bodySite",), Codec(_site_out, _site_in)),
    Row("goal", "note[0].text"),
)


SCORES = Members("scores", "Observation", "score", "hasMember", SCORE)


def tidy(event: Event) -> None:
    """Leave out `scored_at` where it repeats the event's own time."""
    for score in event.get("scores", ()):
        if score.get("scored_at") == event["occurred_at"]:
            del score["scored_at"]
