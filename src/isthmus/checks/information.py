"""How much the code says about the image and about the label: rate, residual, bounds, distance to the MNI point.

The minimum necessary information (MNI) point is I(X;Z) = I(X;Y) = I(Y;Z) (Fischer 2020); where labels follow from
images, I(X;Y) = H(Y), the entropy of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from isthmus import metrics
from isthmus.checks.views import listed
from isthmus.config import Component
from isthmus.types import CheckResult, Figure, Mark, Metric, Section, Series, Status, Table

if TYPE_CHECKING:
    from torch import Tensor

    from isthmus.checks.context import Context
    from isthmus.information.codes import Codes

# Bounds compare every code with every member of its block; a block has at most this many images, and the lower bound
# cannot exceed its logarithm.
BLOCK = 1024

ROWS = {
    "rate": "rate R, at least I(X;Z)",
    "residual": "residual information ReX, at least I(X;Z|Y)",
    "rate_lower": "I(X;Z), lower bound",
    "rate_upper": "I(X;Z), upper bound",
    "i_yz_lower": "I(Y;Z), lower bound",
    "cross_entropy": "cross-entropy = H(Y) − that bound",
    "excess_rate": "I(X;Z) lower bound − H(Y)",
}


class Config(Component):
    """``samples`` codes are drawn per image; all quantities are averaged over them."""

    name: Literal["information"] = "information"
    samples: Annotated[int, Field(ge=1)] = 12


def run(context: Context, config: Config) -> CheckResult:
    """Measure per example, in nats, with intervals by bootstrap over examples.

    A classifier without a random code has no finite I(X;Z): only its I(Y;Z) is measured and the check is skipped.
    """
    labels = context.labels.cpu().numpy()
    entropy = _entropy(labels)
    if context.bottleneck is None or context.stochastic is None:
        arrays = {"cross_entropy": metrics.nll(context.logits.numpy(), labels)}
        reason = "The classifier has no random code, so I(X;Z) is not finite; only I(Y;Z) is bounded."
        return _result(Status.SKIPPED, reason, arrays, entropy, context)
    arrays = _measure(context, config)
    result = _result(Status.PASS, "", arrays, entropy, context)
    contradictions = _contradictions(result.metrics)
    reason = (
        "; ".join(contradictions)
        or "Within their intervals all bounds are in order: no lower bound lies above an upper one."
    )
    return result.model_copy(update={"status": Status.WARN if contradictions else Status.PASS, "reason": reason})


def _entropy(labels: np.ndarray) -> float:
    p = np.bincount(labels) / len(labels)
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def _result(
    status: Status, reason: str, arrays: dict[str, np.ndarray], entropy: float, context: Context
) -> CheckResult:
    found = {name: metrics.mean(values, "nats", context.seed) for name, values in arrays.items()}
    found["i_yz_lower"] = metrics.mean(entropy - arrays["cross_entropy"], "nats", context.seed)
    if "rate_lower" in arrays:
        found["excess_rate"] = metrics.mean(arrays["rate_lower"] - entropy, "nats", context.seed)
    return CheckResult(
        check="information",
        status=status,
        reason=reason,
        metrics={name: found[name] for name in ROWS if name in found},
        details={"label_entropy": entropy, "block": len(context.labels) // _blocks(len(context.labels))},
        arrays=arrays,
    )


def _blocks(count: int) -> int:
    """How many blocks so many images make; in size they differ by one at most."""
    return math.ceil(count / BLOCK)


def _measure(context: Context, config: Config) -> dict[str, np.ndarray]:
    """Per-example quantities; the noise of an example depends on its index alone."""
    import torch

    from isthmus import randomness
    from isthmus.information.gaussians import concatenate
    from isthmus.information.rates import rate_sandwich

    model: Any = context.bottleneck
    count = len(context.labels)
    blocks = torch.arange(count).tensor_split(_blocks(count))
    parts: dict[str, list[Tensor]] = {}
    for done, block in enumerate(blocks):
        context.progress(done, len(blocks))
        index = block.to(context.images.device)
        keys = context.keys[index]
        with torch.no_grad():
            encoder = concatenate(
                [model.encode(context.images[part]) for part in torch.split(index, context.batch_size)]
            )
            codes = model.draw(encoder, randomness.normal(keys, (config.samples, model.noise_dim)).transpose(0, 1))
            found = _terms(codes, context.labels[index])
            found["rate_lower"], found["rate_upper"] = rate_sandwich(encoder, codes.levels[0].samples)
        for name, values in found.items():
            parts.setdefault(name, []).append(values.double().cpu())
    measured = {name: torch.cat(values).numpy() for name, values in parts.items()}
    # A single example has no others to be compared with: its leave-one-out bound is infinite, which is no number.
    return {name: values for name, values in measured.items() if np.isfinite(values).all()}


def _terms(codes: Codes, labels: Tensor) -> dict[str, Tensor]:
    import torch

    from isthmus.information.mixtures import Mixture

    found = {"cross_entropy": codes.cross_entropy(labels)}
    codes = codes.levels[0]  # the highest level of a hierarchy decides, and the lowest has I(X;Z) of them all
    assert codes.encoder is not None
    log_e = codes.encoder.log_prob(codes.samples)
    if codes.backward is not None:
        found["residual"] = (log_e - codes.backward[labels].log_prob(codes.samples)).mean(0)
    marginal = codes.marginal
    if marginal is None and codes.backward is not None:  # CEB's free marginal: its own classes, as often as they occur
        counts = torch.bincount(labels, minlength=codes.logits.shape[-1])
        marginal = Mixture(codes.backward, (counts / counts.sum()).log())
    if marginal is not None:
        found["rate"] = (log_e - marginal.log_prob(codes.samples)).mean(0)
    return found


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
    """The information plane with the MNI point, and a table of all quantities in nats."""
    plane = {name: result for name, result in results.items() if "rate_lower" in result.metrics}
    columns = {
        "rate R (nats)": {n: r.metrics["rate"] for n, r in results.items() if "rate" in r.metrics},
        "I(Y;Z) ≥ (nats)": {n: r.metrics["i_yz_lower"] for n, r in results.items()},
    }
    blocks = (_plane(plane),) if plane else ()
    return Section(
        title="Information",
        question="How much does the code say about the image, and how much of that about the label?",
        blocks=(*blocks, _table(results)),
        columns={title: cells for title, cells in columns.items() if cells},
    )


def _plane(results: Mapping[str, CheckResult]) -> Figure:
    entropies = _by_detail(results, "label_entropy")
    blocks = _by_detail(results, "block")
    series = []
    for name, result in results.items():
        lower, i_yz = _value(result, "rate_lower"), _value(result, "i_yz_lower")
        upper = min(_value(result, "rate_upper"), _value(result, "rate"))
        series.append(Series(name, (lower, max(lower, upper)), (i_yz, i_yz), group=name))
    marks = []
    for entropy, names in entropies.items():
        whose = f" of {listed(names)}" if len(entropies) > 1 else ""
        marks += [Mark(f"MNI{whose}", x=entropy, y=entropy), Mark(f"H(Y){whose}", y=entropy)]
    ceiling = _each({f"ln {block:.0f} = {math.log(block):.2f}": names for block, names in blocks.items()})
    return Figure(
        title="Information plane",
        reading=(
            f"{_nearest(results, entropies)} Each line runs from the lower to the upper bound on I(X;Z); the lower one "
            f"cannot exceed {ceiling}."
        ),
        x_label="I(X;Z), nats",
        y_label="I(Y;Z), lower bound, nats",
        series=tuple(series),
        marks=tuple(marks),
    )


def _nearest(results: Mapping[str, CheckResult], entropies: Mapping[float, list[str]]) -> str:
    """Who lies nearest to the MNI point, where all have the same one."""
    if len(entropies) > 1:
        each = _each({f"{entropy:.2f} nats": names for entropy, names in entropies.items()})
        return f"Their labels differ, and so do their MNI points (H(Y) = {each}): distances to them are not compared."
    entropy = next(iter(entropies))
    nearest = min(results, key=lambda name: _distance(results[name], entropy))
    return f"{nearest} lies nearest to the MNI point ({entropy:.2f} nats on both axes)."


def _by_detail(results: Mapping[str, CheckResult], key: str) -> dict[float, list[str]]:
    """The classifiers by the value of one detail, such as the entropy of the labels they were judged on."""
    found: dict[float, list[str]] = {}
    for name, result in results.items():
        found.setdefault(round(float(result.details[key]), 9), []).append(name)
    return found


def _each(words: Mapping[str, list[str]]) -> str:
    """What holds for all as it is, else with the names it holds for: "0.69 for a and b and 2.30 for c"."""
    if len(words) == 1:
        return next(iter(words))
    return listed([f"{word} for {listed(names)}" for word, names in words.items()])


def _value(result: CheckResult, name: str) -> float:
    metric = result.metrics.get(name)
    return math.inf if metric is None or metric.value is None else metric.value


def _distance(result: CheckResult, entropy: float) -> float:
    distance = math.hypot(_value(result, "rate_lower") - entropy, _value(result, "i_yz_lower") - entropy)
    return math.inf if math.isnan(distance) else distance


def _table(results: Mapping[str, CheckResult]) -> Table:
    shown = [name for name in ROWS if any(name in result.metrics for result in results.values())]
    entropies = _by_detail(results, "label_entropy")
    each = _each({f"{entropy:.3f} nats": names for entropy, names in entropies.items()})
    return Table(
        title="Information in nats",
        reading=(
            f"H(Y) = {each}. At the MNI point residual information, cross-entropy and excess are all 0. "
            "Intervals: 95%, bootstrap over examples."
        ),
        columns=("classifier", *(ROWS[name] for name in shown)),
        rows=tuple((name, *(result.metrics.get(row) for row in shown)) for name, result in results.items()),
    )
