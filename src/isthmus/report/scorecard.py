"""The scorecard: every question of an audit in a line, with each classifier's answer in one number, asked or not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.core.types import CheckResult, Headline, Section, Status
from isthmus.report import tables
from isthmus.report.subjects import Subject
from isthmus.report.tables import Cell

COLUMNS = 5
"""With more classifiers than this they stand in rows and the questions in columns, which are never many."""

WORDS = {
    Status.PASS: "pass",
    Status.WARN: "warning",
    Status.FAIL: "fail",
    Status.SKIPPED: "skipped",
    Status.ERROR: "error",
}


@dataclass(frozen=True)
class Known:
    """A question that is on every scorecard, and an example of how to ask it where the check's name is not enough."""

    text: str
    ask: str = ""


QUESTIONS: Mapping[str, Known] = {
    "diagnosis": Known("Is its robustness real?"),
    "accuracy": Known("How often is it right?"),
    "robustness": Known("How often is it right under attack?"),
    "corruptions": Known("How often is it wrong on corrupted images?"),
    "shift": Known("Does it hold on images gathered anew?", "shift:cifar10_1"),
    "calibration": Known("Does it know how sure it may be?"),
    "ood_detection": Known("Does it notice foreign images?"),
    "memorisation": Known("Does it know training images better?"),
    "information": Known("How much of an image does its code keep?"),
}
"""The page's order of checks is this one; others follow by name."""


@dataclass(frozen=True)
class Finding:
    """How one check ended for one classifier; ``status`` None means that it was not run."""

    name: str
    status: Status | None
    reason: str

    @property
    def word(self) -> str:
        """The status in a word; colour and icon only repeat it."""
        return WORDS[self.status] if self.status else "not run"


@dataclass(frozen=True)
class Answer:
    """One classifier's: how the check ended, and the number in small and large print; ``cell`` None is no number."""

    finding: Finding
    cell: Cell | None = None
    word: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A line of the scorecard; without answers nobody was asked, and ``ask`` says how.

    Attributes:
        anchor: of the check's section, which the question links to.
        small: what all its numbers are, their unit and n, where they have these in common.
    """

    text: str
    anchor: str
    small: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    ask: str = ""


def in_order(checks: set[str]) -> list[str]:
    """Names of checks in the page's order."""
    return [check for check in QUESTIONS if check in checks] + sorted(checks - set(QUESTIONS))


def anchor(check: str) -> str:
    """The id of a check's section."""
    return "check-" + re.sub(r"[^A-Za-z0-9_]", "-", check)


def findings(check: str, subjects: Sequence[Subject]) -> list[Finding]:
    """How a check ended for each classifier."""
    return [_finding(subject.name, subject.results.get(check)) for subject in subjects]


def _finding(name: str, result: CheckResult | None) -> Finding:
    if result is None:
        return Finding(name, None, "This audit has no result of this check.")
    return Finding(name, result.status, result.reason)


def questions(sections: Mapping[str, Section], subjects: Sequence[Subject]) -> list[Question]:
    """The scorecard: what was asked and what was not, in the page's order.

    Args:
        sections: of the checks that were asked, by the check's name.
    """
    lines = []
    for check in in_order({*QUESTIONS, *sections}):
        known = QUESTIONS.get(check)
        if check in sections:
            lines.append(_asked(check, sections[check], subjects, known))
        elif known is not None:
            lines.append(Question(known.text, anchor(check), ask=f"--checks {known.ask or check}"))
    return lines


def _asked(check: str, section: Section, subjects: Sequence[Subject], known: Known | None) -> Question:
    ended, given = findings(check, subjects), _headlines(section)
    # what was skipped, broke off or was not run has no answer, whatever numbers it left
    found = [
        None if finding.status in (None, Status.SKIPPED, Status.ERROR) else given.get(finding.name) for finding in ended
    ]
    labels = {headline.label for headline in found if headline}
    shared = labels.pop() if len(labels) == 1 else ""
    column = tables.column(shared, [headline.metric if headline else None for headline in found])
    answers = tuple(_answer(*each, shared) for each in zip(ended, found, column.cells, strict=True))
    text = known.text if known else section.question or section.title
    return Question(text, anchor(check), tuple(part for part in (shared, *column.small) if part), answers)


def _headlines(section: Section) -> Mapping[str, Headline]:
    """The check's own, or its first column for comparison."""
    if section.headlines or not section.columns:
        return section.headlines
    label, metrics = next(iter(section.columns.items()))
    return {name: Headline(metric, label) for name, metric in metrics.items()}


def _answer(finding: Finding, headline: Headline | None, cell: Cell, shared: str) -> Answer:
    if headline is None:
        return Answer(finding)
    notes = (headline.note, cell.note, "" if shared else headline.label)
    return Answer(finding, cell, headline.word, tuple(note for note in notes if note))
