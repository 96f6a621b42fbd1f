"""Robust accuracy against ε, by the suite of the diagnosis or by given attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import nn

from isthmus import metrics
from isthmus.attacks.suites import Suite, attack_of, stages_of
from isthmus.attacks.threats import Threat
from isthmus.checks.attack_curves import by_attack, warning_signs
from isthmus.checks.check import Check, arrays_of, in_mode, metrics_of
from isthmus.checks.context import MEAN, STOCHASTIC, Context, Progress, single_draw
from isthmus.checks.gallery import gallery
from isthmus.checks.security_curve import CONFIDENT, ONE_EVALUATION, Curve, Outcome, by_suite
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.format import interval, percent, threat_title
from isthmus.core.types import CheckResult, Coordinate, Metric, Metrics, Status
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.budget import FULL, QUICK
from isthmus.diagnosis.model_queries import gives_gradient

AttackConfig = SerializeAsAny[Annotated[Component, BeforeValidator(attack_of)]]

LEVELS = {"quick": 4, "full": 6}
"""Number of values of ε by budget."""
DIAGNOSIS = "diagnosis"
RULES = {ONE_EVALUATION: "robust_accuracy_one_evaluation", CONFIDENT: "robust_accuracy_confident"}
"""Metrics of random predictions besides ``robust_accuracy``."""


class Robustness(Check):
    """Robust accuracy at every ε up to the audit's, in mean and (if any) stochastic mode.

    The suite of the check ``diagnosis`` attacks all images at the audit's ε, and at each smaller ε those that are
    broken at the next larger one: balls are nested, so an image that is robust in one is robust in all smaller ones. If
    the diagnosis ran in the same audit for a mode and these images, its adversarial examples are used at the audit's ε,
    and no attack runs there. The robust accuracy is then the diagnosis's corrected one.

    For a model without gradients the attacks follow its forward pass
    (:class:`isthmus.diagnosis.bpda.model.BPDAModel`) or, if that is impossible, search at random.

    With ``attacks`` each of them runs at every ε by itself instead, and an image is robust if all of them, and the
    diagnosis at the audit's ε, failed. Warns then at a sign that the attacks were weak
    (:func:`isthmus.checks.attack_curves.warning_signs`).

    Random predictions, as those of a stochastic mode, are averaged over many draws. Beside that number,
    ``robust_accuracy``, there are ``robust_accuracy_one_evaluation``, the papers' rule, and
    ``robust_accuracy_confident``, which counts an image as broken only with 99% confidence (see
    :class:`isthmus.attacks.result.RobustResult`).

    Metrics by mode, norm and eps: ``robust_accuracy``; for given attacks also by attack; the two above for random
    predictions. By mode: ``accuracy``, on clean images. A measurement without a threshold. Its reason is about the mode
    of the verdict, or without one about the mode with the lower robust accuracy.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``robust`` bool[1 + levels, n], correct on the
    clean image and at each ε against all attacks; ``robust_fgsm`` etc., against one given attack alone; for random
    predictions ``robust_one_evaluation`` and ``robust_confident``; ``smallest_eps`` float[n], 0 if wrong on the clean
    image, inf if no adversarial example was found. And ``gallery_original`` and ``gallery_adversarial``
    uint8[up to 24, h, w, c]: the first images in the mode of the reason, ``details["mode"]``, with what is known of
    each in ``details["gallery"]`` (see :func:`isthmus.checks.gallery.gallery`).

    Options that are None follow the audit's budget.

    Attributes:
        levels: number of values of ε, evenly spaced up to the audit's (4, or 6 with the full budget).
        grid: the values themselves, in units of images in [0, 1], none above the audit's ε, which is always added.
        attacks: run one by one at every ε, independently; None for the suite of the diagnosis: ``fast``, or
            ``standard`` with the full budget, and averaged APGD for random predictions.
        modes: which modes of a bottleneck; all if None.
    """

    uses: ClassVar[tuple[str, ...]] = (DIAGNOSIS,)
    above_chance: ClassVar[bool] = True

    name: Literal["robustness"] = "robustness"
    levels: Annotated[int, Field(gt=0)] | None = None
    grid: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    attacks: Annotated[tuple[AttackConfig, ...], Field(min_length=1)] | None = None
    modes: Annotated[tuple[Literal["mean", "stochastic"], ...], Field(min_length=1)] | None = None

    def run(self, context: Context) -> CheckResult:
        """Attack every mode.

        Raises:
            ConfigError: a grid beyond the audit's ε, or none of the requested modes.
        """
        grid = self._grid(context)
        attacks = None if self.attacks is None else stages_of(list[Any](self.attacks), context.threat.name)
        known = {mode: outcome for mode in context.modes if (outcome := _diagnosed(context, mode))}

        def measured(model: nn.Module, progress: Progress) -> Curve:
            mode = MEAN if model is context.model else STOCHASTIC
            if attacks is not None:
                return by_attack(model, context, grid, attacks, progress, known.get(mode))
            model = single_draw(model, context.seed)
            source = _gradients(model, context)
            suite = stages_of(
                _suite(context, getattr(model, "takes_keys", False), source is not None), context.threat.name
            )
            return by_suite(model, context, grid, suite, progress, known.get(mode), None if source is model else source)

        curves = context.by_mode(measured, self.modes or (MEAN, STOCHASTIC))
        signs = {mode: warning_signs(curve) for mode, curve in curves.items()}
        decisive = _decisive(context, curves, signs)
        shown = curves[decisive]
        examples, pictures = gallery(
            context, decisive, shown.correct, shown.adversarial, shown.smallest_eps, shown.broken_by
        )
        found = Metrics(metrics_of({mode: _metrics(curve, context.threat) for mode, curve in curves.items()}))
        at: dict[str, Coordinate] = {"norm": context.threat.name, "eps": context.threat.eps}
        worst = found.one("robust_accuracy", mode=decisive, **at)
        status, reason = _judge(signs, context.threat, worst, decisive in known)
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=found,
            details={
                "threat": str(context.threat),
                "norm": context.threat.name,
                "eps": [threat.eps for threat in grid],
                "attacks": {stage.label: stage.attack.model_dump(mode="json") for stage in attacks or ()},
                "diagnosed": list(known),
                "modes": {mode: _details(curve) | {"warning_signs": signs[mode]} for mode, curve in curves.items()},
                "gallery": examples,
                "mode": decisive,
            },
            arrays=pictures | arrays_of({mode: _arrays(curve) for mode, curve in curves.items()}),
        )

    def _grid(self, context: Context) -> list[Threat]:
        threat, levels = context.threat, self.levels or LEVELS[context.budget]
        given = self.grid if self.grid is not None else [threat.eps * k / levels for k in range(1, levels)]
        if any(eps > threat.eps for eps in given):
            raise ConfigError(
                f"The robustness check's grid goes up to {max(given):g}, beyond the audit's threat {threat}; "
                "audit with a larger ε, or omit those values."
            )
        return [threat.with_eps(eps) for eps in sorted({*given, threat.eps})]


def _diagnosed(context: Context, mode: str) -> Outcome | None:
    """The outcome of this audit's diagnosis in one mode; None if it did not run there, or not on all images."""
    result = context.results.get(DIAGNOSIS)
    arrays = {} if result is None else result.arrays
    robust, correct, rows, images = (
        arrays.get(in_mode(name, mode)) for name in ("corrected_robust", "correct", "broken", "adversarial")
    )
    if robust is None or correct is None or rows is None or images is None or len(robust) != len(context.labels):
        return None
    adversarial = np.full(tuple(context.images.shape), np.nan, dtype=np.float32)
    adversarial[rows] = images
    broken = np.isin(np.arange(len(robust)), rows)
    rules = {rule: arrays[name] for rule in RULES if (name := in_mode(f"robust_{rule}", mode)) in arrays}
    labels = np.full(len(robust), "", dtype=object)
    labels[rows] = [str(label) for label in arrays[in_mode("broken_by", mode)]]
    return Outcome(correct, ~robust & ~broken, robust, adversarial, labels, rules)


def _gradients(model: nn.Module, context: Context) -> nn.Module | None:
    """What attacks take gradients from: the model, or without its own gradient BPDA of it; None if neither has one."""
    keys = context.keys[:2] if getattr(model, "takes_keys", False) else None
    return next((each for each in (model, BPDAModel(model)) if gives_gradient(each, context.images[:2], keys)), None)


def _suite(context: Context, random: bool, differentiable: bool) -> Suite:
    """The strong suite of the diagnosis, also of one with another ``ensemble``."""
    budget, result = QUICK if context.budget == "quick" else FULL, context.results.get(DIAGNOSIS)
    ensemble = None if result is None else result.options.get("ensemble")
    return replace(budget, ensemble=ensemble or budget.ensemble).strong_suite(
        context.num_classes, random, differentiable
    )


def _decisive(context: Context, curves: Mapping[str, Curve], signs: Mapping[str, Sequence[str]]) -> str:
    """The mode of the verdict; without one, the first with signs of weak attacks, else the least robust one."""
    result = context.results.get(DIAGNOSIS)
    if result is not None and result.details.get("mode") in curves:
        return str(result.details["mode"])
    warned = [mode for mode, found in signs.items() if found]
    return min(warned[:1] or curves, key=lambda mode: curves[mode].worst[-1].sum())


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
    return found


def _details(curve: Curve) -> dict[str, Any]:
    return {
        "passes": {label: list(counts) for label, counts in curve.passes.items()},
        "invalid": curve.invalid,
        "rules": list(curve.rules),
    }


def _arrays(curve: Curve) -> dict[str, NDArray[Any]]:
    clean = curve.correct[None]
    arrays: dict[str, NDArray[Any]] = {"robust": np.concatenate([clean, curve.worst])}
    arrays |= {f"robust_{label}": np.concatenate([clean, rows]) for label, rows in curve.alone.items()}
    arrays |= {f"robust_{rule}": np.concatenate([clean, rows]) for rule, rows in curve.rules.items()}
    return arrays | {"smallest_eps": curve.smallest_eps}


def _judge(signs: Mapping[str, Sequence[str]], at: Threat, worst: Metric, diagnosed: bool) -> tuple[Status, str]:
    mode = f" in {worst.coords['mode']} mode" if len(signs) > 1 else ""
    measured = f"{percent(worst.value)} of {worst.n} images are robust to every attack at {threat_title(str(at))}{mode}"
    measured += interval(worst)
    found = [f"{sign} ({mode} mode)" for mode, each in signs.items() for sign in each]
    open_question = "Whether gradients are masked is not decided by this check"
    if diagnosed:
        open_question = "The check diagnosis decides whether this is genuine"
    if found:
        return Status.WARN, f"{measured}, but the attacks look weak: {'; '.join(found)}. {open_question}."
    return Status.MEASURED, f"{measured}. {open_question}."
