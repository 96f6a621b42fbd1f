"""Does robust accuracy still fall with further steps? Then the attack stopped too early.

A run of several times as many steps on some of what the usual attack left standing.
"""

from __future__ import annotations

from typing import Any

import torch

from isthmus.attacks.result import RobustResult
from isthmus.diagnosis import harder
from isthmus.diagnosis.context import USUAL, DiagnosisContext
from isthmus.diagnosis.finding import Finding


def examine(suspect: DiagnosisContext) -> Finding:
    """What share of the examples that the usual attack leaves standing falls to a longer run."""
    steps, left = suspect.budget.steps, suspect.usual.accuracy

    def curve(found: RobustResult) -> dict[str, Any]:
        grid = torch.linspace(0, steps, 11).long().tolist()
        fell = [int((found.broken & (found.state.step <= at)).sum()) / len(found) for at in grid]
        return {"steps": grid, "accuracy": [left * (1 - share) for share in fell]}

    return harder.examine(suspect, "steps", {"steps": steps}, f"{USUAL.steps} steps", f"{steps} steps", curve)
