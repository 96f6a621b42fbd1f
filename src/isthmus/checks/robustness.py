"""Robust accuracy against ε, under the worst case of several attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus import metrics
from isthmus.attacks.suites import stages_of
from isthmus.attacks.threats import Threat
from isthmus.checks.check import Check, arrays_of, metrics_of, mode_with
from isthmus.checks.context import MEAN, Context
from isthmus.checks.gallery import gallery
from isthmus.checks.security_curve import Curve, measure, warning_signs
from isthmus.core.config import Component, component
from isthmus.core.errors import ConfigError
from isthmus.core.format import interval, percent, threat_title
from isthmus.core.types import CheckResult, Coordinate, Metric, Metrics, Status

AttackConfig = SerializeAsAny[Annotated[Component, BeforeValidator(lambda given: component("attacks", given))]]

# Defaults of each budget: levels of ε, attacks, examples of the unbounded attack.
_BUDGETS: dict[str, tuple[int, tuple[dict[str, Any], ...], int]] = {
    "quick": (4, ({"name": "fgsm"}, {"name": "pgd", "steps": 40, "restarts": 2, "loss": "log_odds"}), 200),
    "full": (6, ({"name": "fgsm"}, {"name": "pgd", "steps": 100, "restarts": 5, "loss": "log_odds"}), 1000),
}
RULES = {"one_evaluation": "robust_accuracy_one_evaluation", "confident": "robust_accuracy_confident"}
"""Metrics of random predictions besides ``robust_accuracy``."""


class Robustness(Check):
    """Robust accuracy at every ε under the worst case of all attacks, in mean and (if any) stochastic mode.

    Random predictions, as those of a stochastic mode, are averaged over many draws. Beside that number,
    ``robust_accuracy``, there are ``robust_accuracy_one_evaluation``, the papers' rule, and
    ``robust_accuracy_confident``, which counts an image as broken only with 99% confidence (see
    :class:`isthmus.attacks.result.RobustResult`).

    Metrics by mode, norm and eps: ``robust_accuracy``, also by attack; the two above for random predictions;
    ``unbounded_accuracy`` at an ε that reaches uniform grey. By mode: ``accuracy``, on clean images.

    A measurement without a threshold. Warns at a sign that the attacks were weak
    (:func:`isthmus.checks.security_curve.warning_signs`).

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``robust`` bool[1 + levels, n], correct on the
    clean image and at each ε against all attacks; ``robust_fgsm`` etc., against one attack alone; for random
    predictions ``robust_one_evaluation`` and ``robust_confident``; ``smallest_eps`` float[n], 0 if wrong on the clean
    image, inf if no adversarial example was found. And ``gallery_original`` and ``gallery_adversarial``
    uint8[up to 24, h, w, c]: the first images in mean mode, with what is known of each in ``details["gallery"]`` (see
    :func:`isthmus.checks.gallery.gallery`).

    Options that are None follow the audit's budget.

    Attributes:
        levels: number of values of ε, evenly spaced up to the audit's (4, or 6 with the full budget).
        grid: the values themselves, in units of images in [0, 1], none above the audit's ε, which is always added.
        attacks: run one by one at every ε, independently. Quick: FGSM, and PGD of 40 steps from two random starts;
            full: FGSM, and PGD of 100 steps from five. PGD ascends ``log_odds``: the direction of the cross-entropy,
            without its rounding to zero, which would make a confident classifier look robust. Further starts cost only
            examples that survived the first. In stochastic mode, attacks average over codes at every step and draw new
            ones for the next.
        unbounded: number of examples on which the last attack runs again at an ε that reaches uniform grey (200, or
            1000); 0 for none.
    """

    name: Literal["robustness"] = "robustness"
    levels: Annotated[int, Field(gt=0)] | None = None
    grid: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    attacks: Annotated[tuple[AttackConfig, ...], Field(min_length=1)] | None = None
    unbounded: Annotated[int, Field(ge=0)] | None = None

    def run(self, context: Context) -> CheckResult:
        """Attack every mode.

        Raises:
            ConfigError: a grid beyond the audit's ε.
        """
        levels, attacks, unbounded = self._plan(context)
        suite, grid = stages_of(attacks), self._grid(context.threat, levels)
        curves = context.by_mode(lambda model, progress: measure(model, context, grid, suite, unbounded, progress))
        signs = {mode: warning_signs(curve) for mode, curve in curves.items()}
        shown = curves[MEAN]
        examples, pictures = gallery(context, shown.correct, shown.adversarial, shown.smallest_eps, shown.broken_by)
        found = Metrics(metrics_of({mode: _metrics(curve, context.threat) for mode, curve in curves.items()}))
        at: dict[str, Coordinate] = {"norm": context.threat.name, "eps": context.threat.eps}
        status, reason = _judge(signs, context.threat, found.one("robust_accuracy", mode=MEAN, **at))
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=found,
            thresholds={"unbounded_accuracy": grey.constant} if (grey := curves[MEAN].unbounded) else {},
            details={
                "threat": str(context.threat),
                "norm": context.threat.name,
                "eps": [threat.eps for threat in grid],
                "attacks": {stage.label: stage.attack.model_dump(mode="json") for stage in suite},
                "modes": {mode: _details(curve) | {"warning_signs": signs[mode]} for mode, curve in curves.items()},
                "gallery": examples,
                "mode": mode_with(signs),
            },
            arrays=pictures | arrays_of({mode: _arrays(curve) for mode, curve in curves.items()}),
        )

    def _plan(self, context: Context) -> tuple[int, Sequence[Any], int]:
        levels, attacks, unbounded = _BUDGETS[context.budget]
        return (
            self.levels or levels,
            self.attacks or attacks,
            unbounded if self.unbounded is None else self.unbounded,
        )

    def _grid(self, threat: Threat, levels: int) -> list[Threat]:
        given = self.grid if self.grid is not None else [threat.eps * k / levels for k in range(1, levels)]
        if any(eps > threat.eps for eps in given):
            raise ConfigError(
                f"The robustness check's grid goes up to {max(given):g}, beyond the audit's threat {threat}; "
                "audit with a larger ε, or omit those values."
            )
        return [threat.with_eps(eps) for eps in sorted({*given, threat.eps})]


def _metrics(curve: Curve, threat: Threat) -> list[Metric]:
    """Robust accuracy at the largest ε first; clean errors count as broken."""
    found = [metrics.accuracy(curve.correct).named("accuracy")]
    for level in reversed(range(len(curve.eps))):
        at: dict[str, Coordinate] = {"norm": threat.name, "eps": curve.eps[level]}
        found.append(metrics.accuracy(curve.worst[level]).named("robust_accuracy", **at))
        for rule, rows in curve.rules.items():
            found.append(metrics.accuracy(rows[level]).named(RULES[rule], **at))
        for attack, rows in curve.alone.items():
            found.append(metrics.accuracy(rows[level]).named("robust_accuracy", attack=attack, **at))
    if grey := curve.unbounded:
        found.append(grey.accuracy.named("unbounded_accuracy", norm=threat.name, eps=grey.eps))
    return found


def _details(curve: Curve) -> dict[str, Any]:
    grey = curve.unbounded
    return {
        "passes": {label: list(counts) for label, counts in curve.passes.items()},
        "invalid": curve.invalid,
        "rules": list(curve.rules),
        "unbounded": None if grey is None else {"eps": grey.eps, "constant": grey.constant},
    }


def _arrays(curve: Curve) -> dict[str, NDArray[Any]]:
    clean = curve.correct[None]
    arrays: dict[str, NDArray[Any]] = {"robust": np.concatenate([clean, curve.worst])}
    arrays |= {f"robust_{label}": np.concatenate([clean, rows]) for label, rows in curve.alone.items()}
    arrays |= {f"robust_{rule}": np.concatenate([clean, rows]) for rule, rows in curve.rules.items()}
    return arrays | {"smallest_eps": curve.smallest_eps}


def _judge(signs: Mapping[str, Sequence[str]], at: Threat, worst: Metric) -> tuple[Status, str]:
    measured = f"{percent(worst.value)} of {worst.n} images are robust to every attack at {threat_title(str(at))}"
    measured += interval(worst)
    found = [f"{sign} ({mode} mode)" for mode, each in signs.items() for sign in each]
    open_question = "whether gradients are masked is not decided by this check"
    if found:
        return Status.WARN, f"{measured}, but the attacks look weak: {'; '.join(found)}. Even so, {open_question}."
    return Status.MEASURED, f"{measured}. There is no cheap sign that the attacks were weak; {open_question}."
