"""How much the code says about the image and about the label: rate, residual, bounds, distance to the MNI point.

The minimum necessary information (MNI) point is I(X;Z) = I(X;Y) = I(Y;Z) (Fischer 2020); where labels follow from
images, I(X;Y) = H(Y), the entropy of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from isthmus import metrics
from isthmus.checks import information_page
from isthmus.checks.information_page import ROWS
from isthmus.core.config import Component
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from torch import Tensor

    from isthmus.checks.context import Context
    from isthmus.information.codes import Codes

# Bounds compare every code with every member of its block; a block has at most this many images, and the lower bound
# cannot exceed its logarithm.
BLOCK = 1024


class Config(Component):
    """``samples`` codes are drawn per image; all quantities are averaged over them.

    Attributes:
        i_xy: I(X;Y) in nats, where labels do not follow from images and it is known; H(Y) where None.
        fisher: measure the Fisher information about the image on the first so many images, of e(z|x) where there is a
            random code, and of p(y|x) in mean mode; 0 for none. It costs a backward pass for each class and for each
            number that describes a code, up to 128 of either; beyond, 164 passes estimate it.
    """

    name: Literal["information"] = "information"
    samples: Annotated[int, Field(ge=1)] = 12
    i_xy: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    fisher: Annotated[int, Field(ge=0)] = 0


def run(context: Context, config: Config) -> CheckResult:
    """Measure per example, in nats, with intervals by bootstrap over examples.

    A classifier without a random code has no finite I(X;Z): only its I(Y;Z) is measured and the check is skipped.
    """
    labels = context.labels.cpu().numpy()
    entropy = _entropy(labels)
    if context.bottleneck is None or context.stochastic is None:
        arrays = {"cross_entropy": metrics.nll(context.logits.numpy(), labels)}
        reason = "The classifier has no random code, so I(X;Z) is not finite; only I(Y;Z) is bounded."
        return _result(Status.SKIPPED, reason, arrays, entropy, context, config)
    arrays = _measure(context, config)
    result = _result(Status.PASS, "", arrays, entropy, context, config)
    contradictions = _contradictions(result.metrics)
    reason = (
        "; ".join(contradictions)
        or "Within their intervals all bounds are in order: no lower bound lies above an upper one."
    )
    return result.model_copy(update={"status": Status.WARN if contradictions else Status.PASS, "reason": reason})


def _entropy(labels: np.ndarray) -> float:
    p = np.bincount(labels) / len(labels)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def _mni(
    arrays: Mapping[str, np.ndarray], i_yz: np.ndarray, i_xy: float, average: Callable[[np.ndarray], Metric], seed: int
) -> dict[str, Metric]:
    """How far the code lies from I(X;Z) = I(X;Y) = I(Y;Z), and whether both accounts of I(Y;Z) agree."""
    found: dict[str, Metric] = {}
    if "rate_lower" in arrays:
        excess, missing = arrays["rate_lower"] - i_xy, i_xy - i_yz
        found |= {"excess_rate": average(excess), "missing": average(missing)}
        found["mni_distance"] = metrics.norm_of_mean(np.stack([excess, missing], 1), "nats", seed)
    if "consistency_gap" in arrays:
        found["consistency"] = metrics.norm_of_mean(arrays["consistency_gap"], "nats", seed)
    return found


def _result(
    status: Status, reason: str, arrays: dict[str, np.ndarray], entropy: float, context: Context, config: Config
) -> CheckResult:
    average = partial(metrics.mean, unit="nats", seed=context.seed)
    i_xy = entropy if config.i_xy is None else config.i_xy
    i_yz = entropy - arrays["cross_entropy"]
    found = {name: average(values) for name, values in arrays.items()} | {"i_yz_lower": average(i_yz)}
    found |= _mni(arrays, i_yz, i_xy, average, context.seed)
    found |= _fisher(context, config.fisher)
    return CheckResult(
        check="information",
        status=status,
        reason=reason,
        metrics={name: found[name] for name in ROWS if name in found},
        details={"label_entropy": entropy, "i_xy": i_xy, "block": len(context.labels) // _blocks(len(context.labels))},
        arrays=arrays,
    )


def _blocks(count: int) -> int:
    """How many blocks so many images make; in size they differ by one at most."""
    return math.ceil(count / BLOCK)


def _measure(context: Context, config: Config) -> dict[str, np.ndarray]:
    """Per-example quantities; the noise of an example depends on its index alone."""
    import torch

    from isthmus.core import randomness
    from isthmus.information.gaussians import concatenate
    from isthmus.information.measures import measure

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
            codes = model.draw(encoder, randomness.normal(keys, (config.samples, model.noise_dim)).transpose(0, 1))
            found = measure(_judged_by(codes, log_prior), context.labels[index])
        del found["i_yz_lower"]  # H(Y) is known of the labels at hand; as a number it does not vary over examples
        for name, values in found.items():
            parts.setdefault(name, []).append(values.double().cpu())
    measured = {name: torch.cat(values).numpy() for name, values in parts.items()}
    # A single example has no others to be compared with: its leave-one-out bound is infinite, which is no number.
    return {name: values for name, values in measured.items() if np.isfinite(values).all()}


def _fisher(context: Context, count: int) -> dict[str, Metric]:
    """Means over the first ``count`` images of trace and largest eigenvalue; see :mod:`isthmus.information.fisher`.

    Of a classifier that answers at random there is no p(y|x) to differentiate; then only its code is measured.
    """
    from isthmus.information.fisher import fisher_information

    answers: dict[str, Callable[[Tensor], Any]] = {}
    if count and context.bottleneck is not None and context.stochastic is not None:
        model: Any = context.bottleneck
        answers["fisher_code"] = model.encode
    if count and context.draws == 1:
        answers["fisher_prediction"] = context.model
    found: dict[str, Metric] = {}
    for name, answer in answers.items():
        measured = fisher_information(answer, context.images[:count], seed=context.seed)
        for part in ("trace", "largest"):
            values = getattr(measured, part).double().cpu().numpy()
            found[f"{name}_{part}"] = metrics.mean(values, unit="nats per squared ℓ2 distance", seed=context.seed)
    return found


def _judged_by(codes: Codes, log_prior: Tensor) -> Codes:
    """The same codes, with these frequencies of the classes in the bounds."""
    below = None if codes.below is None else _judged_by(codes.below, log_prior)
    return replace(codes, log_prior=log_prior, below=below)


def _contradictions(found: Mapping[str, Metric]) -> list[str]:
    """Pairs of bounds that are in the wrong order by more than their intervals allow."""
    orders = [("rate_lower", "rate_upper"), ("rate_lower", "rate"), ("i_yz_lower", "rate_upper")]
    return [
        f"{ROWS[low]} ({found[low].value:.3f}) exceeds {ROWS[high]} ({found[high].value:.3f})"
        for low, high in orders
        if low in found and high in found and _low(found[low]) > _high(found[high])
    ]


def _low(metric: Metric) -> float:
    return metric.interval.low if metric.interval is not None else math.inf


def _high(metric: Metric) -> float:
    return metric.interval.high if metric.interval is not None else -math.inf


def section(results: Mapping[str, CheckResult]) -> Section:
    """The information plane with the MNI point, the bounds, and the distances to that point, all in nats."""
    return information_page.section(results)
