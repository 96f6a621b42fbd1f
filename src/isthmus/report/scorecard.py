"""The scorecard: a line for every question of an audit, with each classifier's answer in one number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.core.display import Headline, Section
from isthmus.core.format import STATUSES
from isthmus.core.types import CheckResult, Status
from isthmus.report import tables
from isthmus.report.loading import AuditedModel
from isthmus.report.tables import Cell

COLUMNS = 5
"""With more classifiers, they form the rows and the questions the columns."""


@dataclass(frozen=True)
class Known:
    """A question that is on every scorecard, and what to pass to ``--checks`` if the check's name is not enough."""

    text: str
    option: str = ""


QUESTIONS: Mapping[str, Known] = {
    "diagnosis": Known("Is its robustness genuine?"),
    "accuracy": Known("How accurate is it on clean images?"),
    "robustness": Known("How accurate is it under attack?"),
    "corruptions": Known("How often does it misclassify corrupted images?"),
    "shift": Known("How much accuracy does it lose on shifted test sets?", "shift:cifar10_1"),
    "calibration": Known("Is its confidence calibrated?"),
    "ood_detection": Known("Does it detect out-of-distribution images?"),
    "memorisation": Known("Does it memorise training images?"),
    "information": Known("How much information does its code contain?"),
}
"""The page's order of checks is this one; others follow by name."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check for one classifier; ``status`` None means that it was not run."""

    name: str
    status: Status | None
    reason: str

    @property
    def word(self) -> str:
        """The status in a word; colour and icon only repeat it."""
        return STATUSES[self.status] if self.status else "not run"


@dataclass(frozen=True)
class Answer:
    """One classifier's answer: the outcome, the number, and notes; ``cell`` None is no number."""

    outcome: Outcome
    cell: Cell | None = None
    word: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A line of the scorecard. Without answers the check was not run, and ``option`` is the option that adds it.

    Attributes:
        anchor: of the check's section, which the question links to.
        small: what all its numbers have in common: meaning, unit and n.
    """

    text: str
    anchor: str
    small: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    option: str = ""


def in_order(checks: set[str]) -> list[str]:
    """Names of checks in the page's order."""
    return [check for check in QUESTIONS if check in checks] + sorted(checks - set(QUESTIONS))


def anchor(check: str) -> str:
    """The id of a check's section."""
    return "check-" + re.sub(r"[^A-Za-z0-9_]", "-", check)


def outcomes(check: str, models: Sequence[AuditedModel]) -> list[Outcome]:
    """The outcome of a check for each classifier."""
    return [_outcome(model.name, model.results.get(check)) for model in models]


def _outcome(name: str, result: CheckResult | None) -> Outcome:
    if result is None:
        return Outcome(name, None, "This audit has no result of this check.")
    return Outcome(name, result.status, result.reason)


def questions(sections: Mapping[str, Section], models: Sequence[AuditedModel]) -> list[Question]:
    """All lines of the scorecard, in the page's order.

    Args:
        sections: of the checks that were run, by the check's name.
    """
    lines = []
    for check in in_order({*QUESTIONS, *sections}):
        known = QUESTIONS.get(check)
        if check in sections:
            lines.append(_answered(check, sections[check], models, known))
        elif known is not None:
            lines.append(Question(known.text, anchor(check), option=f"--checks {known.option or check}"))
    return lines


def _answered(check: str, section: Section, models: Sequence[AuditedModel], known: Known | None) -> Question:
    ended, given = outcomes(check, models), _headlines(section)
    # a check that was skipped, not run or ended by an error has no answer, even if it stored numbers
    found = [
        None if outcome.status in (None, Status.SKIPPED, Status.ERROR) else given.get(outcome.name) for outcome in ended
    ]
    labels = {headline.label for headline in found if headline}
    shared = labels.pop() if len(labels) == 1 else ""
    column = tables.column(shared, [headline.metric if headline else None for headline in found])
    answers = tuple(_answer(*each, shared) for each in zip(ended, found, column.cells, strict=True))
    text = known.text if known else section.question or section.title
    return Question(text, anchor(check), tuple(part for part in (shared, *column.small) if part), answers)


def _headlines(section: Section) -> Mapping[str, Headline]:
    """The section's headlines, or else its first column."""
    if section.headlines or not section.columns:
        return section.headlines
    label, metrics = next(iter(section.columns.items()))
    return {name: Headline(metric, label) for name, metric in metrics.items()}


def _answer(outcome: Outcome, headline: Headline | None, cell: Cell, shared: str) -> Answer:
    if headline is None:
        return Answer(outcome)
    notes = (headline.note, cell.note, "" if shared else headline.label)
    return Answer(outcome, cell, headline.word, tuple(note for note in notes if note))
