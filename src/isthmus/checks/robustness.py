"""How much accuracy is left when images may be perturbed? What attacks leave standing, over a grid of ε."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus import metrics
from isthmus.checks import robustness_page
from isthmus.checks.context import answer
from isthmus.checks.security_curve import Curve, measure, share
from isthmus.checks.views import MEAN, STOCHASTIC, blamed, in_mode, interval, percent
from isthmus.checks.warning_signs import telltales
from isthmus.core.config import Component, component
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.attacks.threats import Threat
    from isthmus.checks.context import Context

AttackConfig = SerializeAsAny[Annotated[Component, BeforeValidator(lambda given: component("attacks", given))]]

# What each budget runs, where the config names nothing else: levels of ε, attacks, examples of the
# unbounded attack.
_BUDGETS: dict[str, tuple[int, tuple[dict[str, Any], ...], int]] = {
    "quick": (4, ({"name": "fgsm"}, {"name": "pgd", "steps": 40, "restarts": 2, "loss": "log_odds"}), 200),
    "full": (6, ({"name": "fgsm"}, {"name": "pgd", "steps": 100, "restarts": 5, "loss": "log_odds"}), 1000),
}
_WITNESSES_SHOWN = 8
_NO_VERDICT = "whether gradients are masked is not decided by this check"


class Config(Component):
    """What to run. Fields left at None follow the audit's budget.

    Attributes:
        levels: how many values of ε, evenly spaced up to the audit's (4, or 6 with the full budget).
        grid: the values themselves, in units of images in [0, 1], none above the audit's ε, which is always
            added.
        attacks: run one by one, each by itself, at every ε. Quick: FGSM, and PGD of 40 steps from two random
            starts; full: FGSM, and PGD of 100 steps from five. PGD ascends ``log_odds``: the direction of the
            cross-entropy, but without the rounding to zero that would pass a confident classifier for robust.
            Further starts cost only what survived the first. On a stochastic mode attacks average over its
            codes at every step and draw new ones for the next.
        unbounded: how many examples the last of the attacks gets once more, at an ε that reaches uniform grey
            (200, or 1000); 0 for none.
    """

    name: Literal["robustness"] = "robustness"
    levels: Annotated[int, Field(gt=0)] | None = None
    grid: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    attacks: Annotated[tuple[AttackConfig, ...], Field(min_length=1)] | None = None
    unbounded: Annotated[int, Field(ge=0)] | None = None


def run(context: Context, config: Config) -> CheckResult:
    """Robust accuracy at every ε against the worst of all attacks, in mean and (if any) stochastic mode.

    A random model's answers, as those of a stochastic mode, are judged by their average over many draws. Beside that
    number, which is ``robust_accuracy``, stand ``robust_accuracy_one_evaluation``, the papers' rule, and
    ``robust_accuracy_confident``, which leaves out only what is wrong with 99% confidence (see
    :class:`isthmus.attacks.result.RobustResult`).

    Passes where it was measured: how much robustness is enough is not for this check to say. Warns at a
    cheap sign that the attacks, rather than the classifier, are weak (:mod:`isthmus.checks.warning_signs`).

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``standing`` bool[1 + levels, n],
    right on the clean image and at each ε against all attacks; ``standing_fgsm`` etc., against one attack
    alone; of random answers ``standing_one_evaluation`` and ``standing_confident``; ``smallest_eps`` float[n], 0 where
    wrong on the clean image, inf where nothing was found. And
    ``gallery_original`` and ``gallery_adversarial`` uint8[up to 8, h, w, c]: the first examples that are
    right on the clean image and broken under attack, in mean mode, rounded to 8 bits for show.

    Raises:
        ConfigError: a grid beyond the audit's ε.
    """
    from isthmus.attacks.api import ready

    levels, attacks, unbounded = _plan(config, context)
    suite, grid = ready(attacks), _grid(config, context.threat, levels)
    modes = {MEAN: context.model}
    if context.stochastic is not None:
        modes[STOCHASTIC] = context.stochastic
    curves = {}
    for position, (mode, model) in enumerate(modes.items()):
        progress = share(context.progress, position, len(modes))
        curves[mode] = measure(model, context, grid, suite, unbounded, progress)
    gallery, pictures = _gallery(curves[MEAN], context)
    found = {in_mode(n, mode): m for mode, curve in curves.items() for n, m in _metrics(curve).items()}
    status, reason = _judge(curves, context.threat, found["robust_accuracy"])
    return CheckResult(
        check="robustness",
        status=status,
        reason=reason,
        metrics=found,
        details={
            "threat": str(context.threat),
            "norm": context.threat.name,
            "eps": [0.0, *(threat.eps for threat in grid)],
            "attacks": {attack.label: attack.config.model_dump(mode="json") for attack in suite},
            "modes": {mode: _details(curve) for mode, curve in curves.items()},
            "gallery": gallery,
            "mode": blamed({mode: telltales(curve) for mode, curve in curves.items()}),
        },
        arrays=pictures | {in_mode(n, mode): a for mode, curve in curves.items() for n, a in _arrays(curve).items()},
    )


def _plan(config: Config, context: Context) -> tuple[int, Sequence[Any], int]:
    levels, attacks, unbounded = _BUDGETS[context.budget]
    return (
        config.levels or levels,
        config.attacks or attacks,
        unbounded if config.unbounded is None else config.unbounded,
    )


def _grid(config: Config, threat: Threat, levels: int) -> list[Threat]:
    given = config.grid if config.grid is not None else [threat.eps * k / levels for k in range(1, levels)]
    if any(eps > threat.eps for eps in given):
        raise ConfigError(
            f"The robustness check's grid goes up to {max(given):g}, beyond the audit's threat {threat}; "
            "audit with a larger ε, or leave those values out."
        )
    return [threat.with_eps(eps) for eps in sorted({*given, threat.eps})]


def _metrics(curve: Curve) -> dict[str, Metric]:
    """Robust accuracy at the largest ε first, then at the others; clean errors count as broken.

    Of random answers it is that of the average prediction; one evaluation and 99% confidence stand beside it.
    """
    named = {"robust_accuracy": metrics.accuracy(curve.worst[-1])}
    for eps, standing in zip(curve.eps[:-1], curve.worst[:-1], strict=True):
        named[f"robust_accuracy_at_{eps:.4g}"] = metrics.accuracy(standing)
    return named | {f"robust_accuracy_{name}": metrics.accuracy(rows[-1]) for name, rows in curve.readings.items()}


def _details(curve: Curve) -> dict[str, Any]:
    def dumped(rows: NDArray[np.bool_]) -> list[dict[str, Any]]:
        return [metrics.accuracy(row).model_dump() for row in np.vstack([curve.correct, rows])]

    unbounded = curve.unbounded
    return {
        "worst": dumped(curve.worst),
        "alone": {label: dumped(rows) for label, rows in curve.alone.items()},
        "passes": {label: list(counts) for label, counts in curve.passes.items()},
        "invalid": curve.invalid,
        "readings": {name: dumped(rows) for name, rows in curve.readings.items()},
        "telltales": telltales(curve),
        "unbounded": unbounded
        and {
            "eps": unbounded.eps,
            "standing": unbounded.standing.model_dump(),
            "constant": unbounded.constant,
        },
    }


def _arrays(curve: Curve) -> dict[str, NDArray[Any]]:
    clean = curve.correct[None]
    arrays: dict[str, NDArray[Any]] = {"standing": np.concatenate([clean, curve.worst])}
    arrays |= {f"standing_{label}": np.concatenate([clean, rows]) for label, rows in curve.alone.items()}
    arrays |= {f"standing_{name}": np.concatenate([clean, rows]) for name, rows in curve.readings.items()}
    return arrays | {"smallest_eps": curve.smallest_eps}


def _judge(curves: Mapping[str, Curve], threat: Threat, left: Metric) -> tuple[Status, str]:
    place = robustness_page.spoken(str(threat))
    said = f"{percent(left.value)} of {left.n} images hold against every attack at {place}{interval(left)}"
    signs = [f"{sign} ({mode} mode)" for mode, curve in curves.items() for sign in telltales(curve)]
    if signs:
        found = "; ".join(signs)
        return Status.WARN, f"{said}, but there are signs of weak attacks: {found}. Even so, {_NO_VERDICT}."
    return Status.PASS, f"{said}. There was no cheap sign that the attacks were weak; {_NO_VERDICT}."


def _gallery(curve: Curve, context: Context) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.uint8]]]:
    import torch

    found = curve.correct & np.isfinite(curve.witnesses).all(axis=(1, 2, 3))
    shown = np.flatnonzero(found)[:_WITNESSES_SHOWN]
    witnesses = torch.from_numpy(curve.witnesses[shown])
    predicted: list[int] = []
    if len(shown):
        keys = context.keys[torch.from_numpy(shown).to(context.keys.device)]
        predicted = answer(context.model, witnesses.to(context.images.device), keys).argmax(1).tolist()
    labels = context.labels.cpu().numpy()[shown]
    facts = [
        {"index": int(i), "label": int(label), "predicted": int(guess), "eps": float(curve.smallest_eps[i])}
        for i, label, guess in zip(shown, labels, predicted, strict=True)
    ]
    pictures = {
        "gallery_original": _as_bytes(context.images.cpu().float().numpy()[shown]),
        "gallery_adversarial": _as_bytes(witnesses.numpy()),
    }
    return facts, pictures


def _as_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def section(results: Mapping[str, CheckResult]) -> Section:
    """Robust accuracy against ε, a table by attack, and adversarial images."""
    return robustness_page.section(results)
