"""Information of the code about the image and the label: rate, residual, bounds, distance to the MNI point.

The minimum necessary information (MNI) point is I(X;Z) = I(X;Y) = I(Y;Z) (Fischer 2020); if labels follow from images,
I(X;Y) = H(Y), the entropy of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from isthmus import metrics
from isthmus.checks.check import Check
from isthmus.checks.context import Context
from isthmus.core import randomness
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.information.codes import Codes
from isthmus.information.fisher import fisher_information
from isthmus.information.gaussians import concatenate
from isthmus.information.measures import measure

BLOCK = 1024
"""Most images in a block. Bounds compare every code with every member of its block; the lower bound cannot exceed
ln(block)."""

_ORDER = (
    "rate",
    "residual",
    "rate_lower",
    "rate_upper",
    "i_yz_lower",
    "cross_entropy",
    "excess_rate",
    "missing",
    "mni_distance",
    "i_yz_backward",
    "consistency",
    "fisher_code_trace",
    "fisher_code_largest",
    "fisher_prediction_trace",
    "fisher_prediction_largest",
)
_BOUNDS = {
    "rate": "the rate R",
    "rate_lower": "the lower bound on I(X;Z)",
    "rate_upper": "the upper bound on I(X;Z)",
    "i_yz_lower": "the lower bound on I(Y;Z)",
}
_ORDERED = (("rate_lower", "rate_upper"), ("rate_lower", "rate"), ("i_yz_lower", "rate_upper"))


class Information(Check):
    """Information quantities in nats, averaged over code samples, with intervals by bootstrap over examples.

    Metrics: ``rate`` R ≥ I(X;Z); ``residual`` ReX ≥ I(X;Z|Y); ``rate_lower`` and ``rate_upper``, bounds on I(X;Z);
    ``i_yz_lower`` ≤ I(Y;Z); ``cross_entropy``; ``excess_rate``, ``missing`` and ``mni_distance``, relative to the MNI
    point; ``i_yz_backward`` and ``consistency``, which compare two estimates of I(Y;Z); and Fisher information.

    A measurement; warns if a lower bound exceeds an upper bound beyond their intervals. Skipped for a classifier
    without a random code: its I(X;Z) is not finite, and only I(Y;Z) is bounded.

    Arrays: the quantities per example.

    Attributes:
        samples: codes drawn per image; all quantities are averages over them.
        i_xy: I(X;Y) in nats, if labels do not follow from images and it is known; H(Y) if None.
        fisher: measure the Fisher information about the image on this many images, the first: of e(z|x) if there is a
            random code, and of p(y|x) in mean mode; 0 for none. It costs a backward pass for each class and for each
            number that describes a code, up to 128 of either; above that, 164 passes estimate it.
    """

    name: Literal["information"] = "information"
    samples: Annotated[int, Field(ge=1)] = 12
    i_xy: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    fisher: Annotated[int, Field(ge=0)] = 0

    def run(self, context: Context) -> CheckResult:
        """Measure information."""
        if context.bottleneck is None or context.stochastic is None:
            arrays = {"cross_entropy": metrics.nll(context.logits.numpy(), context.truth)}
            reason = "The classifier has no random code, so I(X;Z) is not finite; only I(Y;Z) is bounded."
            return self._result(Status.SKIPPED, reason, arrays, context)
        result = self._result(Status.MEASURED, "", self._measure(context), context)
        contradictions = _contradictions(result.metrics)
        status = Status.WARN if contradictions else Status.MEASURED
        reason = "; ".join(contradictions) or "No lower bound exceeds an upper bound beyond their intervals."
        return result.model_copy(update={"status": status, "reason": reason})

    def _result(self, status: Status, reason: str, arrays: dict[str, np.ndarray], context: Context) -> CheckResult:
        average = partial(metrics.mean, unit="nats", seed=context.seed)
        entropy = _entropy(context.truth)
        i_xy = entropy if self.i_xy is None else self.i_xy
        i_yz = entropy - arrays["cross_entropy"]
        found = {name: average(values) for name, values in arrays.items()} | {"i_yz_lower": average(i_yz)}
        found |= _mni(arrays, i_yz, i_xy, average, context.seed)
        found |= _fisher(context, self.fisher)
        n = len(context.labels)
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=Metrics(found[name].named(name) for name in _ORDER if name in found),
            details={"label_entropy": entropy, "i_xy": i_xy, "block": n // _blocks(n)},
            arrays=arrays,
        )

    def _measure(self, context: Context) -> dict[str, np.ndarray]:
        """Per-example quantities; the noise of an example depends on its index alone."""
        model: Any = context.bottleneck
        count = len(context.labels)
        blocks = torch.arange(count).tensor_split(_blocks(count))
        counts = torch.bincount(context.labels, minlength=context.num_classes).double()
        log_prior = (counts / counts.sum()).log().to(context.images.device)
        parts: dict[str, list[Tensor]] = {}
        for done, block in enumerate(blocks):
            context.progress(done, len(blocks))
            index = block.to(context.images.device)
            keys = context.keys[index]
            with torch.no_grad():
                encoder = concatenate(
                    [model.encode(context.images[part].clone()) for part in torch.split(index, context.batch_size)]
                )
                codes = model.draw(encoder, randomness.normal(keys, (self.samples, model.noise_dim)).transpose(0, 1))
                found = measure(_with_prior(codes, log_prior), context.labels[index])
            del found["i_yz_lower"]  # H(Y) is that of the given labels and does not vary over examples
            for name, values in found.items():
                parts.setdefault(name, []).append(values.double().cpu())
        measured = {name: torch.cat(values).numpy() for name, values in parts.items()}
        # a single example has no others to compare with: its leave-one-out bound is infinite
        return {name: values for name, values in measured.items() if np.isfinite(values).all()}


def _entropy(labels: np.ndarray) -> float:
    p = np.bincount(labels) / len(labels)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def _mni(
    arrays: Mapping[str, np.ndarray], i_yz: np.ndarray, i_xy: float, average: Callable[[np.ndarray], Metric], seed: int
) -> dict[str, Metric]:
    """Distance of the code from I(X;Z) = I(X;Y) = I(Y;Z), and the agreement of both estimates of I(Y;Z)."""
    found: dict[str, Metric] = {}
    if "rate_lower" in arrays:
        excess, missing = arrays["rate_lower"] - i_xy, i_xy - i_yz
        found |= {"excess_rate": average(excess), "missing": average(missing)}
        found["mni_distance"] = metrics.norm_of_mean(np.stack([excess, missing], 1), "nats", seed)
    if "consistency_gap" in arrays:
        found["consistency"] = metrics.norm_of_mean(arrays["consistency_gap"], "nats", seed)
    return found


def _blocks(count: int) -> int:
    """Number of blocks for this many images; block sizes differ by one at most."""
    return math.ceil(count / BLOCK)


def _fisher(context: Context, count: int) -> dict[str, Metric]:
    """Means over the first ``count`` images of trace and largest eigenvalue; see :mod:`isthmus.information.fisher`.

    A classifier with random predictions has no p(y|x) to differentiate; then only its code is measured.
    """
    models: dict[str, Callable[[Tensor], Any]] = {}
    if count and context.bottleneck is not None and context.stochastic is not None:
        model: Any = context.bottleneck
        models["fisher_code"] = model.encode
    if count and context.draws == 1:
        models["fisher_prediction"] = context.model
    found: dict[str, Metric] = {}
    for name, of in models.items():
        measured = fisher_information(of, context.images[:count], seed=context.seed)
        for part in ("trace", "largest"):
            values = getattr(measured, part).double().cpu().numpy()
            found[f"{name}_{part}"] = metrics.mean(values, unit="nats per squared ℓ2 distance", seed=context.seed)
    return found


def _with_prior(codes: Codes, log_prior: Tensor) -> Codes:
    """The same codes, with these class frequencies in the bounds."""
    below = None if codes.below is None else _with_prior(codes.below, log_prior)
    return replace(codes, log_prior=log_prior, below=below)


def _contradictions(found: Metrics) -> list[str]:
    """Pairs of bounds in the wrong order by more than their intervals allow."""
    sentences = []
    for low, high in _ORDERED:
        lower, upper = found.get(low), found.get(high)
        if lower and upper and lower.interval and upper.interval and lower.interval.low > upper.interval.high:
            sentences.append(f"{_BOUNDS[low]} ({lower.value:.3f}) exceeds {_BOUNDS[high]} ({upper.value:.3f})")
    return sentences
