"""One row, two directions: the engine that walks a mapping's rows both ways."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One reason why an input cannot be used: where, which rule, and what to do about it."""

    path: str
    rule: str
    message: str


class MappingError(Exception):
    """The input cannot be mapped; `issues` says every reason, not only the first."""

    def __init__(self, issues: list[Issue]) -> None:
        self.issues = issues
        super().__init__("; ".join(f"{i.path}: {i.rule}: {i.message}" for i in issues))
