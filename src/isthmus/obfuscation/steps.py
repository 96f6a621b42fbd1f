"""Does robust accuracy still fall with further steps? Then the attack stopped too early.

A run of several times as many steps on some of what the usual attack left standing.
"""

from __future__ import annotations

import torch

from isthmus import metrics
from isthmus.obfuscation.finding import FEWEST, Finding, judged
from isthmus.obfuscation.suspect import USUAL, Suspect
from isthmus.types import Status

WARN, FAIL = 0.05, 0.15  # share of what the usual number of steps left standing


def examine(suspect: Suspect) -> Finding:
    """What share of the examples that the usual attack leaves standing falls to a longer run."""
    rows, steps = suspect.sample(suspect.usual.robust & suspect.clean.robust), suspect.budget.steps
    if len(rows) < FEWEST:
        return Finding(
            test="steps", status=Status.PASS, reason=f"The usual attack leaves {len(rows)} examples standing: too few"
        )
    longer = USUAL.model_copy(update={"steps": steps})
    found = suspect.attack("steps", [longer], scout=suspect.usual_scout, known=suspect.usual, rows=rows)
    share = metrics.proportion(int(found.broken.sum()), len(rows))
    grid = torch.linspace(0, steps, 11).long()
    fell = [int((found.broken & (found.ledger.look <= at)).sum()) / len(rows) for at in grid]
    status = judged(share.interval.low if share.interval else None, WARN, FAIL)
    return Finding(
        test="steps",
        status=status,
        reason=f"Of {len(rows)} examples that {USUAL.steps} steps of PGD leave standing, {steps} steps break "
        f"{int(found.broken.sum())}",
        metrics={"share_broken": share},
        remedies=("restarts", "straight_through") if status != "pass" else (),
        details={"steps": grid.tolist(), "accuracy": [suspect.usual.accuracy * (1 - share) for share in fell]},
    )
