"""Does robust accuracy still fall with further random starts? Then one start was luck.

Restarts of the usual attack on some of what its first run left standing. A loss surface without tricks gives up to the
first run nearly all that it gives to any (the paper's figures 2 and 8: on VIB it does not).
"""

from __future__ import annotations

from typing import Any

from isthmus.attacks.result import RobustResult
from isthmus.diagnosis import harder
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import Finding


def examine(suspect: DiagnosisContext) -> Finding:
    """What share of the examples that one run leaves standing falls to further ones."""
    more, left = suspect.budget.restarts, suspect.usual.accuracy

    def curve(found: RobustResult) -> dict[str, Any]:
        fell = found.state.run[found.broken].bincount(minlength=more)[:more].cumsum(0)
        accuracy = [left, *(left * (1 - count / len(found)) for count in fell.tolist())]
        return {"restarts": list(range(1, more + 2)), "accuracy": accuracy}

    return harder.examine(suspect, "restarts", {"restarts": more}, "one run", f"{more} more starts", curve)
