"""Follow-up attacks: what to try when a diagnostic test finds a problem. The model itself verifies what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from isthmus.attacks import APGD, PGD, RayS, Square, transfer
from isthmus.diagnosis import black_box_attacks, pixel_grid
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.wrappers import in_double

DECISION_SAMPLE = 20
"""Examples that show whether the decision-based attack breaks anything at all."""


def margin_losses(context: DiagnosisContext) -> None:
    """APGD on losses that do not saturate, in double precision if the model can be copied."""
    gradient_model = context.gradient_model
    if gradient_model is None and context.queries.has_gradient and not context.random:
        gradient_model = _in_double(context.model, context)
    losses = ("margin", "dlr" if context.num_classes > 2 else "margin")
    suite = [APGD(steps=50, loss=loss) for loss in losses]
    context.attack("margin_losses", suite, gradient_model=gradient_model or context.baseline_gradient_model)


def eot(context: DiagnosisContext) -> None:
    """PGD with gradients averaged over draws (expectation over transformation).

    The losses' averages are not dominated by the few draws that a class wins or loses by far, and the step size falls
    at a fixed rate. APGD chooses step sizes and its best iterate by the loss, so it would follow the noise.
    """
    draws = context.budget.draws
    suite = [
        PGD(steps=steps, loss=loss, eot=count, relative_step_size=1, decay=True)
        for steps, loss, count in ((40, "margin", draws), (60, "probability", 2 * draws), (60, "margin", 2 * draws))
    ]
    context.attack("eot", suite, gradient_model=context.baseline_gradient_model)


def bpda(context: DiagnosisContext) -> None:
    """APGD with gradients that follow the forward pass (BPDA), averaged over draws if the model is random.

    Examples that remain robust are attacked through a softmax that does not saturate, then in double precision, where
    fewer probabilities round to zero, and then through the softmax's logarithm.
    """
    draws = context.budget.draws if context.random else 1
    suite = [APGD(steps=50, loss=loss, eot=draws) for loss in ("margin", "ce")]
    model = context.model
    unsaturated = BPDAModel(model, unsaturated="gradients")
    gradient_models: dict[str, Callable[[], nn.Module | None]] = {
        "bpda": lambda: BPDAModel(model),
        "unsaturated": lambda: unsaturated,
        "unsaturated_double": lambda: _in_double(unsaturated, context),
        "unsaturated_values": lambda: BPDAModel(model, unsaturated="values"),
    }
    for name, make in gradient_models.items():
        robust = context.best.robust
        gradient_model = make() if robust.any() else None
        if gradient_model is not None:
            context.attack(name, suite, gradient_model=gradient_model)
            if (robust & context.best.broken).any():
                context.gradient_model = gradient_model


def _in_double(model: nn.Module, context: DiagnosisContext) -> nn.Module | None:
    context.spending.reserve(2)  # the copy classifies two images
    takes_keys = getattr(context.model, "takes_keys", False)
    options = {"keys": context.examples.keys[:2]} if takes_keys else {}
    return in_double(model, context.examples.images[:2], **options)


def on_grid(context: DiagnosisContext) -> None:
    """APGD among images with the pixel levels of the clean ones, if ε covers at least one level (ℓ∞ only)."""
    count = pixel_grid.levels(context.examples.images)
    rows = context.best.robust.nonzero().squeeze(1)
    if count is None or context.threat.name != "linf" or not pixel_grid.floor_to_grid(context.threat.eps, count):
        return
    source = context.gradient_model or context.baseline_gradient_model or context.model
    found = context.attack(
        "on_grid",
        [APGD(steps=50, loss=loss) for loss in ("margin", "ce")],
        gradient_model=pixel_grid.GridModel(source, count),
        rows=rows,
        threat=context.threat.with_eps(pixel_grid.floor_to_grid(context.threat.eps, count)),
        model=pixel_grid.GridModel(context.model, count),
    )
    context.attack("on_grid", [transfer.transferred(pixel_grid.adversarial_on_grid(found, count))], rows=rows)


def substitute(context: DiagnosisContext) -> None:
    """Adversarial examples of a smooth substitute."""
    rows = context.best.robust.nonzero().squeeze(1)
    context.attack("substitute", [black_box_attacks.substitute_transfer(context, rows)], rows=rows)


def restarts(context: DiagnosisContext) -> None:
    """PGD with many starts on a loss that does not saturate."""
    suite = [PGD(steps=50, loss="margin", restarts=context.budget.restarts)]
    gradient_model = context.gradient_model or context.baseline_gradient_model
    context.attack("many_restarts", suite, gradient_model=gradient_model)


def random_search(context: DiagnosisContext) -> None:
    """Other images as far as the ball reaches, and random search with many queries (Square)."""
    neighbours = black_box_attacks.neighbours(context.examples, most=100)
    context.attack("random_search", [neighbours, Square(queries=context.budget.queries)])


def decision_based(context: DiagnosisContext) -> None:
    """An attack that needs only the predicted class (RayS), on a few examples first and on all if it breaks one.

    Not for random models, whose single predictions mislead it, nor for ℓ1, for which RayS is not defined.
    """
    if context.random or context.threat.name == "l1":
        return
    suite = [RayS(queries=context.budget.queries)]
    sample = context.sample(context.best.robust, DECISION_SAMPLE)
    found = context.attack("decision_based", suite, rows=sample)
    if (found.broken & (found.stage > 0)).any() and context.best.robust.any():
        context.attack("decision_based", suite, rows=context.best.robust.nonzero().squeeze(1))


@dataclass(frozen=True)
class FollowUp:
    """A follow-up attack and when it runs.

    Attributes:
        run: attacks the examples that are still robust.
        late: whether it runs after all tests. Better gradients run as soon as a test suggests them, before the strong
            ensemble, which then has less to do.
        after_warning: whether a warning suggests it as well as a failure; then it costs little on a sound model.
        needs_gradient: whether it is useless for a model without gradients.
    """

    run: Callable[[DiagnosisContext], None]
    late: bool = False
    after_warning: bool = True
    needs_gradient: bool = True


FOLLOW_UPS: dict[str, FollowUp] = {
    "margin_losses": FollowUp(margin_losses),
    "eot": FollowUp(eot),
    "bpda": FollowUp(bpda),
    "on_grid": FollowUp(on_grid),
    "substitute": FollowUp(substitute, late=True, after_warning=False, needs_gradient=False),
    "restarts": FollowUp(restarts, late=True, after_warning=False),
    "random_search": FollowUp(random_search, late=True, after_warning=False, needs_gradient=False),
    "decision_based": FollowUp(decision_based, late=True, needs_gradient=False),
}
"""In the order they run. The late ones cost about 5, 500, 2,000 and 2,000 passes per image."""
