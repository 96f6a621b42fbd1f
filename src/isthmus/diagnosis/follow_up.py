"""What an expert would try next, by name; each breaks further examples of the suspect, or none.

Every one is judged like any attack, by the suspect itself.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from isthmus.attacks import apgd, pgd, rays, square, transfer
from isthmus.diagnosis import grid, neighbours, substitute
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.views import LogProbabilities, in_double

FEW = 20
"""Examples that show whether decisions break anything at all."""


def bpda(suspect: DiagnosisContext) -> None:
    """Gradients that follow the forward pass (BPDA), averaged over draws where the model is random.

    What they leave is attacked through a softmax that does not saturate, in double precision, where probabilities that
    are rounded to zero have no gradient to follow, and through its logarithm.
    """
    draws = suspect.budget.draws if suspect.random else 1
    suite = [apgd.Config(steps=50, loss=loss, eot=draws) for loss in ("margin", "ce")]
    seen = LogProbabilities(suspect.model) if suspect.probabilities else suspect.model
    unsaturated = BPDAModel(seen, unsaturated="gradients")
    ways: dict[str, Callable[[], nn.Module | None]] = {
        "bpda": lambda: BPDAModel(seen),
        "unsaturated": lambda: unsaturated,
        "unsaturated_double": lambda: _in_double(unsaturated, suspect),
        "unsaturated_values": lambda: BPDAModel(suspect.model, unsaturated="values"),
    }
    for called, make in ways.items():
        before = suspect.best.robust
        scout = make() if before.any() else None
        if scout is not None:
            suspect.attack(called, suite, scout=scout)
            if (before & suspect.best.broken).any():
                suspect.guide = scout


def on_grid(suspect: DiagnosisContext) -> None:
    """Images with no more levels than clean ones have, where ε is some of them (ℓ∞ alone)."""
    count = grid.levels(suspect.examples.images)
    rows = suspect.best.robust.nonzero().squeeze(1)
    if count is None or suspect.threat.name != "linf" or not grid.within(suspect.threat.eps, count):
        return
    seen = grid.OnGrid(suspect.model, count)
    scout = grid.OnGrid(suspect.guide or suspect.usual_scout or suspect.model, count)
    suite = [apgd.Config(steps=50, loss=loss) for loss in ("margin", "ce")]
    threat = suspect.threat.with_eps(grid.within(suspect.threat.eps, count))
    found = suspect.attack("on_grid", suite, scout=scout, rows=rows, threat=threat, judge=seen)
    suspect.attack("on_grid", [transfer.transferred(grid.on_grid(found, count))], rows=rows)


def averaged(suspect: DiagnosisContext) -> None:
    """Expectation over transformation: gradients averaged over draws.

    Of losses whose average is not dominated by the few draws that a class wins or loses by far, with steps that become
    smaller at a fixed rate: APGD, which chooses step sizes and its best iterate by the loss, follows the noise instead.
    """
    draws = suspect.budget.draws
    suite = [
        pgd.Config(steps=steps, loss=loss, eot=eot, relative_step_size=1, decay=True)
        for steps, loss, eot in (
            (40, "margin", draws),
            (60, "probability", 2 * draws),
            (60, "margin", 2 * draws),
        )
    ]
    suspect.attack("averaged", suite, scout=suspect.usual_scout)


def _in_double(model: nn.Module, suspect: DiagnosisContext) -> nn.Module | None:
    suspect.book(2)  # the copy's probe
    keyed = getattr(suspect.model, "takes_keys", False)
    options = {"keys": suspect.examples.keys[:2]} if keyed else {}
    return in_double(model, suspect.examples.images[:2], **options)


def rescaled(suspect: DiagnosisContext) -> None:
    """Losses that do not saturate, in double precision where the model can be copied."""
    scout = suspect.guide or (
        _in_double(suspect.model, suspect) if suspect.has_gradient and not suspect.random else None
    )
    suite = [apgd.Config(steps=50, loss=loss) for loss in ("margin", "dlr" if suspect.classes > 2 else "margin")]
    suspect.attack("rescaled", suite, scout=scout or suspect.usual_scout)


def restarts(suspect: DiagnosisContext) -> None:
    """Many starts, on a loss that does not saturate."""
    suite = [pgd.Config(steps=50, loss="margin", restarts=suspect.budget.restarts)]
    suspect.attack("many_restarts", suite, scout=suspect.guide or suspect.usual_scout)


def search(suspect: DiagnosisContext) -> None:
    """Without gradients: other images as far as the ball reaches, and random search with many queries."""
    others = neighbours.attack(suspect.examples, neighbours.Neighbours(most=100))
    suspect.attack("search", [others, square.Config(queries=suspect.budget.queries)])


def from_substitute(suspect: DiagnosisContext) -> None:
    """Images that fool a smooth substitute."""
    rows = suspect.best.robust.nonzero().squeeze(1)
    suspect.attack("transferred", [substitute.transferred(suspect, rows)], rows=rows)


def decisions(suspect: DiagnosisContext) -> None:
    """By decisions alone (RayS), the last resort: on a few examples first, and on all where one of these falls.

    Not of random models, whose single answers mislead it, nor in ℓ1, where it has no directions.
    """
    if suspect.random or suspect.threat.name == "l1":
        return
    suite = [rays.Config(queries=suspect.budget.queries)]
    first = suspect.sample(suspect.best.robust, FEW)
    found = suspect.attack("decisions", suite, rows=first)
    if (found.broken & (found.stage > 0)).any() and suspect.best.robust.any():
        suspect.attack("decisions", suite, rows=suspect.best.robust.nonzero().squeeze(1))


FIRST: dict[str, Callable[[DiagnosisContext], None]] = {
    "rescaled": rescaled,
    "averaged": averaged,
    "bpda": bpda,
    "on_grid": on_grid,
}
"""Better gradients: tried before the strong ensemble, which then has less to do."""

LAST: dict[str, Callable[[DiagnosisContext], None]] = {
    "substitute": from_substitute,
    "restarts": restarts,
    "search": search,
    "decisions": decisions,
}
"""What is left to try where gradients fail, the cheapest first: about 5, 500, 2,000 and 2,000 passes for each image."""

AFTER_WARNINGS = (*FIRST, "decisions")
"""What a test that only warns suggests, too: it costs little where nothing is wrong."""
