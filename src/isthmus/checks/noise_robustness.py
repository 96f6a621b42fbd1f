"""Information that predictions transmit about labels under growing noise: adversarial, and white of the same size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from isthmus import metrics
from isthmus.attacks.noise_sweep import NO_ANSWER, NoiseSweep, SweepResult
from isthmus.checks.check import Check, arrays_of, chance, metrics_of, mode_with, not_finite
from isthmus.checks.context import MEAN, Context, Progress, part
from isthmus.checks.noise_curves import Curve, LabelEntropy, curves
from isthmus.core.format import interval, listed, percent
from isthmus.core.types import CheckResult, Metric, Metrics, Status

Noise = Literal["white", "l2", "linf"]
Curves = Mapping[str, Curve]
"""The curves of one mode, by kind of noise."""

NOISES = {"white": "white noise", "l2": "ℓ2 steps", "linf": "sign steps"}

SPACING = {"quick": 2.0, "full": 1.0}
"""dB between the ratios of each budget, if the option is None."""

EQUAL_SIZE = 20 * math.log10(2)
"""At this ratio and below, ‖δ‖₂ ≥ ‖x‖₂: every image can be made black, so all can become the same."""

_UNMOVED = 0.01  # a larger fraction of images without a gradient is a sign of masking
_FALL = 0.5  # a larger fall of accuracy between two ratios may hide something between them


class NoiseRobustness(Check):
    """I(T;Y) of predicted class T and label Y against the signal-to-noise ratio, for noise of unlimited range.

    After "A Rate-Distortion Theory of Adversarial Examples", figure 5, see :mod:`isthmus.attacks.noise_sweep`. Images
    are not clipped to [0, 1]. Logits that are not finite count as a symbol of their own, and as wrong.

    Metrics by mode: ``information_bits`` and ``accuracy``, on clean images, and by ``noise`` and ``snr``. By mode and
    noise: ``information_kept``, the fraction of H(Y) that is transmitted, averaged over the ratios from ``high`` to
    ``low`` dB (trapezoid rule); ``information_gap``, that of white noise less this one's; and ``accuracy``, the
    fraction of the ratios at which, and at all above which, an image is right, averaged over the images.

    ``information_kept`` uses, at each ratio, the least that is transmitted there or at any higher one, since an
    adversary may also make less noise. Information that returns as noise grows is not the image's but the adversary's,
    whose choice of a wrong class depends on the right one; with two classes, all of it returns once every prediction is
    wrong.

    I(T;Y) is not measured if random predictions would seem to transmit half of H(Y), as for many classes and few images
    (:func:`isthmus.metrics.transmission.expected_at_random`). Accuracy is always measured.

    A measurement without a threshold. Warns at signs that steps along the gradient are not the worst case: images right
    throughout although all can be made black, more than 1% of images without a gradient, less information lost to steps
    than to white noise. Warns if accuracy falls by more than half between two ratios: information may have fallen and
    returned in between. Warns if logits are not finite. Skipped if all images have one label: H(Y) is 0.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``predicted_white`` etc., int32[1 + ratios, n],
    the clean image first, −1 if logits are not finite.

    Attributes:
        noises: "white" (Gaussian), "l2" (steps along the gradient), "linf" (along its sign). A model without gradients
            supports "white" only.
        high: ratio of the least noise, in dB. At 60 it is a thousandth of the image, less than rounding to bytes.
        low: ratio of the most noise. At 6 there is as much noise as image, and no classifier can be robust.
        spacing: dB from one ratio to the next; if None 2, or 1 with the full budget. Each costs a step.
        loss: what the steps ascend; "log_odds" has the direction of the cross-entropy, without its rounding to zero.
        origin: the value of a pixel without signal, 0 for black. For images that were scaled and shifted into [0, 1],
            such as whitened ones, give the value that 0 became, so that ratios are those before.
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
            raise ValueError(f"each noise may be named once; got {', '.join(self.noises)}")
        return self

    def run(self, context: Context) -> CheckResult:
        """Measure information and accuracy under noise.

        Raises:
            ModelError: the model has no gradient, and other noise than white is requested.
        """
        truth = context.truth
        if (truth == truth[0]).all():
            reason = "All images have the same label, so no information about it can be transmitted."
            return CheckResult(check=self.name, status=Status.SKIPPED, reason=reason)
        ratios, entropy = self._ratios(context.budget), LabelEntropy.of(truth, context.num_classes)
        signal = np.asarray((context.images != self.origin).flatten(1).any(1).cpu().numpy(), dtype=np.bool_)
        sweeps = context.by_mode(lambda model, progress: self._sweeps(model, context, ratios, progress))
        by_mode = {
            mode: curves(found, entropy, ratios, signal, context.seed, self.resamples) for mode, found in sweeps.items()
        }
        predicted = {
            mode: {f"predicted_{noise}": of.predicted.numpy().astype(np.int32) for noise, of in found.items()}
            for mode, found in sweeps.items()
        }
        missing = {
            mode: int((np.concatenate(list(found.values())) == NO_ANSWER).any(axis=0).sum())
            for mode, found in predicted.items()
        }
        whole = Metrics(metrics_of({mode: _metrics(of, ratios) for mode, of in by_mode.items()}))
        signs = {mode: _signs(of, entropy, ratios) for mode, of in by_mode.items()}
        warnings = [f"{sign} ({mode} mode)" for mode, of in signs.items() for sign in of]
        lost = not_finite(missing, "count as wrong, with a symbol of their own") + _unseen(by_mode)
        return CheckResult(
            check=self.name,
            status=Status.WARN if warnings or lost else Status.MEASURED,
            reason=self._reason(whole, entropy, warnings, lost),
            metrics=whole,
            thresholds={"not_finite": 0.0, "unmoved": _UNMOVED, "information_gap": 0.0},
            details={
                "snr": ratios,
                "noises": {noise: NOISES[noise] for noise in self.noises},
                "label_entropy_bits": entropy.bits,
                "unmoved": {
                    mode: {noise: curve.unmoved for noise, curve in of.items()} for mode, of in by_mode.items()
                },
                "passes": {
                    mode: {noise: [of.forward_passes, of.backward_passes] for noise, of in found.items()}
                    for mode, found in sweeps.items()
                },
                "mode": mode_with(signs),
            },
            arrays=arrays_of(predicted),
        )

    def _sweeps(
        self, model: nn.Module, context: Context, ratios: Sequence[float], progress: Progress
    ) -> dict[str, SweepResult]:
        return {
            noise: NoiseSweep(noise, ratios, self.loss, self.origin, context.batch_size).run(
                model,
                context.images,
                context.labels,
                seed=context.seed,
                indices=context.indices,
                progress=part(progress, number, len(self.noises)),
            )
            for number, noise in enumerate(self.noises)
        }

    def _ratios(self, budget: str) -> list[float]:
        """Ratios in dB from high to low, evenly spaced but for the last."""
        spacing = self.spacing or SPACING[budget]
        count = math.ceil((self.high - self.low) / spacing - 1e-9)
        return [*(self.high - spacing * step for step in range(count)), self.low]

    def _reason(self, found: Metrics, entropy: LabelEntropy, warnings: list[str], lost: str) -> str:
        over = f"averaged over {self.low:g} to {self.high:g} dB"
        clean = found.one("information_bits", mode=MEAN).value
        name = "accuracy" if clean is None else "information_kept"
        measured = {noise: found.one(name, mode=MEAN, noise=noise) for noise in self.noises}
        each = listed([f"{percent(m.value)} under {NOISES[noise]}{interval(m)}" for noise, m in measured.items()])
        if clean is None:
            reason = f"Accuracy, {over}, is {each}; information is not measured: {entropy.obstacle}{lost}"
        else:
            reason = (
                f"Predictions for clean images transmit {clean:.2f} of the labels' {entropy.bits:.2f} bits; of the "
            )
            reason += f"latter, {over}, {each} {'is' if len(measured) == 1 else 'are'} kept{lost}"
        if warnings:
            return f"{reason}. But steps along the gradient may not be the worst case: {'; '.join(warnings)}."
        return f"{reason}."


def _metrics(of: Curves, ratios: Sequence[float]) -> list[Metric]:
    """Averages first, then each ratio."""
    first = next(iter(of.values()))
    found = [
        first.information[0].named("information_bits"),
        metrics.accuracy(first.right[0]).named("accuracy"),
    ]
    found += [curve.kept.named("information_kept", noise=noise) for noise, curve in of.items()]
    found += [curve.gap.named("information_gap", noise=noise) for noise, curve in of.items() if curve.gap]
    found += [curve.accuracy.named("accuracy", noise=noise) for noise, curve in of.items()]
    for noise, curve in of.items():
        for snr, bits, right in zip(ratios, curve.information[1:], curve.right[1:], strict=True):
            found.append(bits.named("information_bits", noise=noise, snr=snr))
            found.append(metrics.accuracy(right).named("accuracy", noise=noise, snr=snr))
    return found


def _signs(of: Curves, entropy: LabelEntropy, ratios: Sequence[float]) -> list[str]:
    """Signs that the adversarial noise is not the worst case."""
    signs = []
    n, most = entropy.labels.size, chance(entropy.labels, entropy.classes)
    for noise, curve in of.items():
        if noise == "white":
            continue
        steps = NOISES[noise]
        robust = metrics.accuracy(curve.right.all(axis=0))
        if ratios[-1] <= EQUAL_SIZE and robust.interval and robust.interval.low > most:
            signs.append(
                f"{percent(robust.value)} stay right under {steps} down to {ratios[-1]:g} dB, where all images can be "
                f"made black and at most {percent(most)} can be right"
            )
        if curve.unmoved > _UNMOVED * n:
            signs.append(f"the gradient of {curve.unmoved} of {n} images is zero, so that {steps} do not change them")
        if curve.gap is not None and curve.gap.interval is not None and curve.gap.interval.high < 0:
            signs.append(f"{steps} cost less information than white noise of the same size")
    return signs


def _unseen(by_mode: Mapping[str, Curves]) -> str:
    """A clause about curves that fall steeply from one ratio to the next; "" if there are none."""
    falls = [
        f"{NOISES[noise]} ({mode} mode)"
        for mode, of in by_mode.items()
        for noise, curve in of.items()
        if -np.diff(curve.right.mean(axis=1)).min() > _FALL
    ]
    if not falls:
        return ""
    return (
        f"; accuracy falls by more than half between two ratios under {listed(falls)}, where information may have "
        "returned in between: use a smaller spacing"
    )
