"""Exit codes other than 0, and what ends an audit with one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from isthmus.cli.output import echo
from isthmus.core.types import Status

if TYPE_CHECKING:
    from isthmus.report.loading import AuditedModel
    from isthmus.report.thresholds import Judged

BUG = 1
"""A fault of isthmus."""

ERROR = 2
"""A mistake that the user can correct, or a result that no script should take for a success."""

OVERSTATED, BROKEN, UNDECIDED = 3, 4, 5
"""Verdicts on a robust accuracy; :data:`UNDECIDED` also for an attack whose query budget ended it."""

BELOW = 6
"""An accuracy below a threshold of ``--fail-under``."""

REGRESSION = 7
"""A number that is worse than in an earlier audit (``isthmus compare``)."""

INTERRUPTED = 130


def stop_at_errors(subjects: Sequence[AuditedModel], checks: Sequence[str]) -> None:
    """Exit with :data:`ERROR` if one of these checks ended with an error."""
    ran = [(check, subject) for subject in subjects for check in checks if check in subject.results]
    failed = [f"{check} of {subject.name}" for check, subject in ran if subject.results[check].status is Status.ERROR]
    if failed:
        echo(
            f"Error: {', '.join(failed)} ended with an error (reasons above). All other results are kept: once the "
            "cause is removed, the same command runs these checks alone.",
            err=True,
        )
        raise typer.Exit(ERROR)


def stop_at_chance(subjects: Sequence[AuditedModel]) -> None:
    """Exit with :data:`ERROR` if a classifier is no better than a constant prediction, or collapsed in training."""
    for subject in subjects:
        errors = [caution.text for caution in subject.record.cautions if caution.level == "error"]
        if reason := subject.collapse if subject.collapsed else " ".join(errors):
            echo(f"Error: {subject.name} is at chance. {reason}", err=True)
            raise typer.Exit(ERROR)


def stop_at_verdicts(subjects: Sequence[AuditedModel], checks: Sequence[str]) -> None:
    """Exit with the code of the gravest verdict: broken, then overstated, then undecided."""
    if "diagnosis" not in checks:
        return
    results = [subject.results["diagnosis"] for subject in subjects if "diagnosis" in subject.results]
    statuses = {result.details["verdict"]["status"] for result in results if result.details}
    codes = {"broken": BROKEN, "overstated": OVERSTATED, "undecided": UNDECIDED}
    code = next((code for status, code in codes.items() if status in statuses), 0)
    if code:
        raise typer.Exit(code)


def stop_at_thresholds(judged: Sequence[Judged]) -> None:
    """Exit with :data:`BELOW` if an accuracy is below its threshold."""
    missed = [each for each in judged if each.missed]
    if missed:
        echo(f"Below --fail-under: {'; '.join(map(str, missed))}.", err=True)
        raise typer.Exit(BELOW)
