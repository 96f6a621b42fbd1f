"""Does an attack without gradients break what attacks with gradients did not? Then gradients mislead.

Random search (Square), points drawn uniformly in the ball, other images as far as the ball reaches, and images that
fool a substitute which was trained on the model's own answers (Papernot et al. 2017, arXiv:1602.02697), on some of what
the strong ensemble's gradients left.
"""

from __future__ import annotations

from isthmus import metrics
from isthmus.attacks import square, uniform
from isthmus.core.types import Status
from isthmus.diagnosis import neighbours, substitute
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.finding import FEWEST, Finding, judged

WARN, FAIL = 0.02, 0.1  # share of what gradients left standing
QUERIES, POINTS = 500, 50


def examine(suspect: DiagnosisContext) -> Finding:
    """What share of the examples that attacks with gradients leave standing falls to attacks without."""
    strong = suspect.strong
    searched = [at for at, label in enumerate(strong.attacks) if "search" in label or "square" in label]
    left = strong.robust.clone()
    for at in searched:  # what the ensemble's own random search broke, gradients had left
        left |= strong.broken & (strong.stage == at) & (strong.stage > 0)
    rows = suspect.sample(left)
    if len(rows) < FEWEST:
        return Finding(
            test="black_box", status=Status.PASS, reason=f"Attacks with gradients leave {len(rows)} examples: too few"
        )
    fell = strong.broken[rows]
    open_rows = rows[~fell]
    by: dict[str, int] = {"search": int(fell.sum())}
    for name, suite in (
        ("random search", [square.Config(queries=QUERIES)]),
        ("uniform points", [uniform.Config(samples=POINTS)]),
        ("other images", [neighbours.attack(suspect.examples)]),
        ("substitute", [substitute.transferred(suspect, rows)]),
    ):
        standing = open_rows[suspect.best.robust[open_rows]]
        if len(standing):
            found = suspect.attack(f"black_box/{name}", suite, rows=standing)
            by[name] = int(found.broken.sum())
    total = sum(by.values())
    share = metrics.proportion(total, len(rows))
    status = judged(share.interval.low if share.interval else None, WARN, FAIL)
    named = ", ".join(f"{name} {count}" for name, count in by.items() if count)
    return Finding(
        test="black_box",
        status=status,
        reason=f"Of {len(rows)} examples that gradients leave standing, attacks without break {total}"
        + (f" ({named})" if named else ""),
        metrics={"share_broken": share},
        remedies=("search", "substitute", "bpda", "decisions") if status != "pass" else (),
        details={"by": by},
    )
