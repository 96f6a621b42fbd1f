"""The usual attack once more, harder, on some of what it left standing: what restarts and steps ask alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isthmus import metrics
from isthmus.attacks.result import RobustResult
from isthmus.core.types import Status
from isthmus.diagnosis.context import USUAL, DiagnosisContext
from isthmus.diagnosis.finding import FEWEST, Finding, judged

WARN, FAIL = 0.05, 0.15  # share of what the usual attack left standing

Curve = Callable[[RobustResult], dict[str, Any]]


def examine(
    suspect: DiagnosisContext, test: str, options: dict[str, Any], than: str, harder: str, curve: Curve
) -> Finding:
    """What share of the examples that the usual attack leaves standing falls to the same with other options.

    Args:
        than: the usual attack, in words that go with "leave standing".
        harder: the harder one, in words that go with "break".
        curve: what the page draws, from what the harder attack found.
    """
    rows = suspect.sample(suspect.usual.robust & suspect.clean.robust)
    if len(rows) < FEWEST:
        few = f"The usual attack leaves {len(rows)} examples standing: too few"
        return Finding(test=test, status=Status.PASS, reason=few)
    attack = USUAL.model_copy(update=options)
    found = suspect.attack(test, [attack], scout=suspect.usual_scout, known=suspect.usual, rows=rows)
    fell = int(found.broken.sum())
    share = metrics.proportion(fell, len(rows))
    status = judged(share.interval.low if share.interval else None, WARN, FAIL)
    return Finding(
        test=test,
        status=status,
        reason=f"Of {len(rows)} examples that {than} of PGD leave standing, {harder} break {fell}",
        metrics={"share_broken": share},
        remedies=("restarts", "bpda") if status != Status.PASS else (),
        details=curve(found),
    )
