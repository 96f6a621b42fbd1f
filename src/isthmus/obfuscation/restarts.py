"""Does robust accuracy still fall with further random starts? Then one start was luck.

Restarts of the usual attack on some of what its first run left standing. A loss surface without tricks gives up to the
first run nearly all that it gives to any (the paper's figures 2 and 8: on VIB it does not).
"""

from __future__ import annotations

from isthmus import metrics
from isthmus.obfuscation.finding import FEWEST, Finding, judged
from isthmus.obfuscation.suspect import USUAL, Suspect
from isthmus.types import Status

WARN, FAIL = 0.05, 0.15  # share of what the first run left standing


def examine(suspect: Suspect) -> Finding:
    """What share of the examples that one run leaves standing falls to further ones."""
    rows, more = suspect.sample(suspect.usual.robust & suspect.clean.robust), suspect.budget.restarts
    if len(rows) < FEWEST:
        return Finding(
            test="restarts", status=Status.PASS, reason=f"The first run leaves {len(rows)} examples standing: too few"
        )
    again = USUAL.model_copy(update={"restarts": more})
    scout = suspect.usual_scout
    found = suspect.attack("restarts", [again], scout=scout, known=suspect.usual, rows=rows)
    fell = found.ledger.run[found.broken].bincount(minlength=more)[:more].cumsum(0)
    share = metrics.proportion(int(fell[-1]), len(rows))
    low = share.interval.low if share.interval else None
    left = suspect.usual.accuracy
    curve = [left, *(left * (1 - int(count) / len(rows)) for count in fell)]
    status = judged(low, WARN, FAIL)
    return Finding(
        test="restarts",
        status=status,
        reason=f"Of {len(rows)} examples that one run of PGD leaves standing, {more} more starts break {int(fell[-1])}",
        metrics={"share_broken": share},
        remedies=("restarts", "straight_through") if status != "pass" else (),
        details={"restarts": list(range(1, more + 2)), "accuracy": curve},
    )
