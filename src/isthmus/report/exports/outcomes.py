"""What an audit says about a model in single outcomes: one for each check and each threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from isthmus.core.types import Status
from isthmus.report import scorecard
from isthmus.report.headlines import diagnosed
from isthmus.report.loading import AuditedModel
from isthmus.report.thresholds import CHECKS, Judged

Level = Literal["passed", "warning", "failed", "skipped", "error"]

_LEVELS: dict[Status, Level] = {
    Status.MEASURED: "passed",
    Status.PASS: "passed",
    Status.WARN: "warning",
    Status.FAIL: "failed",
    Status.SKIPPED: "skipped",
    Status.ERROR: "error",
}


class Outcome(NamedTuple):
    """One outcome.

    Attributes:
        name: the check, "fail-under-robust" and so on for a threshold, or "classifier" for one that is at chance.
        check: the check whose stored result shows it.
    """

    name: str
    check: str
    level: Level
    reason: str
    seconds: float = 0.0


def outcomes(model: AuditedModel, judged: Sequence[Judged]) -> Iterator[Outcome]:
    """The outcomes of a model; whatever ends ``isthmus audit`` with an exit code other than 0 is failed or an error."""
    errors = [caution.text for caution in model.record.cautions if caution.level == "error"]
    if reason := model.collapse if model.collapsed else " ".join(errors):
        yield Outcome("classifier", "accuracy", "failed", f"At chance: {reason}")
    for check in scorecard.in_order({*model.record.checks, *model.results}):
        result = model.results.get(check)
        if result is None:
            yield Outcome(check, check, "error", model.unfinished)
            continue
        level = _LEVELS[result.status]
        if check == "diagnosis" and diagnosed(model) and result.details["verdict"]["status"] == "undecided":
            level = "failed"  # the command ends with an exit code of its own
        yield Outcome(check, check, level, result.reason, result.seconds)
    for each in judged:
        if each.model == model.name:
            level = "failed" if each.missed else "passed"
            yield Outcome(f"fail-under-{each.kind}", CHECKS[each.kind], level, f"{each}.")
