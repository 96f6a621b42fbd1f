"""How much do answers still tell of the labels as noise grows, worst-case noise and white noise of the same size?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from isthmus import metrics
from isthmus.checks import noise_robustness_page
from isthmus.checks.noise_curves import Curve, Told, curves
from isthmus.checks.noise_robustness_page import SPOKEN
from isthmus.checks.security_curve import share
from isthmus.checks.views import (
    MEAN,
    STOCHASTIC,
    blamed,
    chance,
    in_mode,
    interval,
    labels,
    listed,
    not_finite,
    percent,
)
from isthmus.core.config import Component
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.attacks.noise_sweep import Descent
    from isthmus.checks.context import Context

Noise = Literal["white", "l2", "linf"]

SPACING = {"quick": 2.0, "full": 1.0}
"""dB between the ratios that each budget measures, where the config names none."""

AS_MUCH_NOISE = 20 * math.log10(2)
"""At this ratio and below, ‖δ‖₂ ≥ ‖x‖₂: every image can be made black, and so all of them the same."""

_UNMOVED = 0.01  # a larger share of images without a gradient is a sign
_FALL = 0.5  # accuracy that falls by more from one ratio to the next leaves something unseen between them


class Config(Component):
    """Which noise, over which signal-to-noise ratios.

    Attributes:
        noises: "white" (Gaussian), "l2" (steps along the gradient), "linf" (along its sign). A model without gradients
            can be asked about "white" alone.
        high: ratio of the least noise, in dB. At 60 it is a thousandth of the image, less than rounding to bytes is.
        low: of the most. At 6 there is as much noise as image, and no classifier can be asked for more.
        spacing: dB from one ratio to the next; 2, or 1 with the full budget, where None. Each costs a step.
        loss: what the steps ascend; "log_odds" has the direction of the cross-entropy, without its rounding to zero.
        origin: the value of a pixel without signal, 0 for black. Images that were scaled and shifted into [0, 1], as
            whitened ones have to be, give what 0 became, so that ratios are those before.
        resamples: of the bootstraps.
    """

    name: Literal["noise_robustness"] = "noise_robustness"
    noises: Annotated[tuple[Noise, ...], Field(min_length=1)] = ("white", "l2", "linf")
    high: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    low: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 6.0
    spacing: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "log_odds"
    origin: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    resamples: Annotated[int, Field(gt=0)] = 1000

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, both in dB; got {self.low:g} and {self.high:g}")
        if len(set(self.noises)) < len(self.noises):
            raise ValueError(f"each of the noises is asked for once; got {', '.join(self.noises)}")
        return self


def run(context: Context, config: Config) -> CheckResult:
    """I(T;Y) of predicted class T and label Y against the signal-to-noise ratio, for noise that knows no bounds.

    After "A Rate-Distortion Theory of Adversarial Examples", figure 5, see :mod:`isthmus.attacks.noise_sweep`. Images
    are not clipped to [0, 1]. No answer (logits that are not finite) is a symbol of its own, and wrong.

    ``kept_l2`` and so on are one number a curve: the share of H(Y) that is transmitted, averaged over the ratios from
    ``config.high`` to ``config.low`` dB (trapezoid rule). What counts at a ratio is the least that is transmitted there
    or at any higher one, for who may make so much noise may make less. Information that returns as noise grows is not
    the image's but the adversary's, whose choice of a wrong class depends on the right one; of two classes all of it
    returns, once every answer is wrong. ``gap_l2`` is ``kept_white`` less ``kept_l2``. ``accuracy_l2`` is the same for
    accuracy: the share of the ratios at which, and at all above which, an image is right, averaged over the images.

    I(T;Y) is not measured where answers at random would seem to tell half of H(Y) already, as they do of many classes
    in few images (:func:`isthmus.metrics.transmission.expected_at_random`). Accuracy is measured all the same.

    Passes where it was measured: how much is enough is not for this check to say. Warns at signs that steps along the
    gradient are not the worst case: images right throughout although all can be made black, more than 1% of images
    without a gradient, less information lost to steps than to white noise. Warns where accuracy falls by more than half
    between two ratios: information may have fallen and come back unseen. Warns where answers are not finite.
    Skipped where all images have one label: H(Y) is 0.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``predicted_white`` etc.,
    int32[1 + ratios, n], the clean image first, −1 without an answer.

    Raises:
        ModelError: the model has no gradient, and other noise than white is asked for.
    """
    from isthmus.attacks.noise_sweep import NO_ANSWER, descend

    truth = labels(context)
    if (truth == truth[0]).all():
        said = "All images have the same label, so that there is nothing to tell of it."
        return CheckResult(check="noise_robustness", status=Status.SKIPPED, reason=said)
    ladder, told = _ladder(config, context.budget), Told.of(truth, context.num_classes)
    signal = np.asarray((context.images != config.origin).flatten(1).any(1).cpu().numpy(), dtype=np.bool_)
    modes = {MEAN: context.model} | ({} if context.stochastic is None else {STOCHASTIC: context.stochastic})
    of_modes: dict[str, dict[str, Curve]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    passes: dict[str, dict[str, list[int]]] = {}
    missing: dict[str, int] = {}
    for position, (mode, model) in enumerate(modes.items()):
        progress = share(context.progress, position, len(modes))
        found: dict[str, Descent] = {
            noise: descend(
                model,
                context.images,
                context.labels,
                noise,
                ladder,
                loss=config.loss,
                origin=config.origin,
                seed=context.seed,
                indices=context.indices,
                batch_size=context.batch_size,
                progress=share(progress, number, len(config.noises)),
            )
            for number, noise in enumerate(config.noises)
        }
        of_modes[mode] = curves(found, told, ladder, signal, context.seed, config.resamples)
        predicted = {noise: of.predicted.numpy().astype(np.int32) for noise, of in found.items()}
        arrays |= {in_mode(f"predicted_{noise}", mode): values for noise, values in predicted.items()}
        missing[mode] = int((np.concatenate(list(predicted.values())) == NO_ANSWER).any(axis=0).sum())
        passes[mode] = {noise: [of.forward_passes, of.backward_passes] for noise, of in found.items()}
    measured = {in_mode(name, mode): metric for mode, of in of_modes.items() for name, metric in _metrics(of).items()}
    by_mode = {mode: _signs(of, told, ladder) for mode, of in of_modes.items()}
    signs = [f"{sign} ({mode} mode)" for mode, of in by_mode.items() for sign in of]
    lost = not_finite(missing, "have an answer of their own, and a wrong one") + _unseen(of_modes)
    return CheckResult(
        check="noise_robustness",
        status=Status.WARN if signs or lost else Status.PASS,
        reason=_reason(measured, told, config, signs, lost),
        metrics=measured,
        details={
            "snr": ladder,
            "label_entropy_bits": told.entropy,
            "modes": {mode: {noise: _details(curve) for noise, curve in of.items()} for mode, of in of_modes.items()},
            "passes": passes,
            "mode": blamed(by_mode),
        },
        arrays=arrays,
    )


def _ladder(config: Config, budget: str) -> list[float]:
    """Ratios in dB from high to low, evenly spaced but for the last."""
    spacing = config.spacing or SPACING[budget]
    count = math.ceil((config.high - config.low) / spacing - 1e-9)
    return [*(config.high - spacing * rung for rung in range(count)), config.low]


def _metrics(of: Mapping[str, Curve]) -> dict[str, Metric]:
    found = {"transmitted_bits": next(iter(of.values())).information[0]}
    found |= {f"kept_{noise}": curve.kept for noise, curve in of.items()}
    found |= {f"gap_{noise}": curve.gap for noise, curve in of.items() if curve.gap is not None}
    return found | {f"accuracy_{noise}": curve.accuracy for noise, curve in of.items()}


def _details(curve: Curve) -> dict[str, Any]:
    return {
        "information_bits": [metric.model_dump() for metric in curve.information],
        "accuracy": [metrics.accuracy(row).model_dump() for row in curve.right],
        "unmoved": curve.unmoved,
    }


def _signs(of: Mapping[str, Curve], told: Told, ladder: list[float]) -> list[str]:
    """Signs that the adversarial noise is not the worst there is."""
    signs = []
    n, most = told.labels.size, chance(told.labels, told.classes)
    for noise, curve in of.items():
        if noise == "white":
            continue
        steps = SPOKEN[noise]
        standing = metrics.accuracy(curve.right.all(axis=0))
        if ladder[-1] <= AS_MUCH_NOISE and standing.interval and standing.interval.low > most:
            signs.append(
                f"{percent(standing.value)} stay right under {steps} down to {ladder[-1]:g} dB, where all images can "
                f"be made black and at most {percent(most)} can be right"
            )
        if curve.unmoved > _UNMOVED * n:
            signs.append(f"the gradient of {curve.unmoved} of {n} images is zero, so that {steps} leave them alone")
        if curve.gap is not None and curve.gap.interval is not None and curve.gap.interval.high < 0:
            signs.append(f"{steps} cost less information than white noise of the same size")
    return signs


def _unseen(of_modes: Mapping[str, Mapping[str, Curve]]) -> str:
    """A clause about curves that fall from one ratio to the next as if over a cliff; nothing where there are none."""
    falls = [
        f"{SPOKEN[noise]} ({mode} mode)"
        for mode, of in of_modes.items()
        for noise, curve in of.items()
        if -np.diff(curve.right.mean(axis=1)).min() > _FALL
    ]
    if not falls:
        return ""
    return (
        f"; accuracy falls by more than half between two ratios under {listed(falls)}, where information may have come "
        "back unseen: ask with a smaller spacing"
    )


def _reason(found: Mapping[str, Metric], told: Told, config: Config, signs: list[str], lost: str) -> str:
    over = f"averaged over {config.low:g} to {config.high:g} dB"
    clean = found["transmitted_bits"].value
    measured = {noise: found[f"{'accuracy' if clean is None else 'kept'}_{noise}"] for noise in config.noises}
    each = listed([f"{percent(m.value)} under {SPOKEN[noise]}{interval(m)}" for noise, m in measured.items()])
    if clean is None:
        said = f"Accuracy, {over}, is {each}; information is not measured: {told.obstacle}{lost}"
    else:
        said = (
            f"Answers to clean images tell {clean:.2f} of the labels' {told.entropy:.2f} bits; of all these, {over}, "
        )
        said += f"{each} {'is' if len(measured) == 1 else 'are'} kept{lost}"
    if signs:
        return f"{said}. But there are signs that steps along the gradient are not the worst case: {'; '.join(signs)}."
    return f"{said}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """Information and accuracy against the ratio in mean mode, the averages of both modes, a column for each noise."""
    return noise_robustness_page.section(results)
