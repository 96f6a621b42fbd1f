"""Accuracy on clean images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.verifier import Verifier
from isthmus.checks.check import Check, chance, in_mode, not_finite
from isthmus.checks.context import MEAN, STOCHASTIC, Context, finite
from isthmus.core.format import interval, percent
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.models.modes import AveragedDraws


class Accuracy(Check):
    """Accuracy with its Wilson interval, in mean mode and, if there is one, in stochastic mode.

    Metrics: ``accuracy`` by mode and by mode and class; ``stochastic_gain``, the difference of the modes;
    ``not_finite`` by mode, the fraction of images with NaN or infinite logits, which count as wrong; and ``ties``, the
    fraction of images whose two largest logits are equal. The last two only if there are any.

    Fails if the lower end of the interval in mean mode does not exceed the accuracy of the best constant prediction,
    which is the fraction of the most frequent label (1/C if all examples have the same label). An audit names the
    likely cause in its cautions (:mod:`isthmus.audits.sanity`). Warns at ``not_finite`` and at ``ties``.

    Arrays: ``label``, ``predicted`` (−1 if logits are not finite) and ``correct`` (and ``stochastic_...``), one per
    example; ``confusion``, counts of (true, predicted), C×C, of predictions with finite logits.

    Attributes:
        level: confidence level of every interval.
    """

    name: Literal["accuracy"] = "accuracy"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95

    def run(self, context: Context) -> CheckResult:
        """Measure accuracy."""
        truth = context.truth
        arrays: dict[str, NDArray[Any]] = {"label": truth}
        missing: dict[str, int] = {}
        for mode, logits in _logits(context).items():
            with_logits = finite(logits)
            predicted = np.where(with_logits, logits.argmax(axis=1), -1)
            missing[mode] = int((~with_logits).sum())
            arrays[in_mode("predicted", mode)] = predicted
            arrays[in_mode("correct", mode)] = predicted == truth
        arrays["confusion"] = _confusion(truth, arrays["predicted"], context.num_classes)
        ties = _ties(context.logits.numpy())
        found = self._metrics(context, arrays, missing, ties)
        constant = chance(truth, context.num_classes)
        status, reason = _judge(found.one("accuracy", mode=MEAN), constant, not_finite(missing, "count as wrong"))
        warnings = [_tied(ties)] if ties else []
        if status is Status.MEASURED and warnings:
            status = Status.WARN
        remark = [_averaged(context.draws)] if context.draws > 1 else []
        return CheckResult(
            check=self.name,
            status=status,
            reason=" ".join([reason, *warnings, *remark]),
            metrics=found,
            thresholds={"accuracy": constant, "not_finite": 0.0, "ties": 0.0},
            details={"chance": constant, "draws": context.draws},
            arrays=arrays,
        )

    def _metrics(
        self, context: Context, arrays: dict[str, NDArray[Any]], missing: dict[str, int], ties: int
    ) -> Metrics:
        truth, n = arrays["label"], len(arrays["label"])
        found = [
            metrics.accuracy(arrays[in_mode("correct", mode)], self.level).named("accuracy", mode=mode)
            for mode in missing
        ]
        if STOCHASTIC in missing:
            gain = metrics.paired_difference(arrays["correct"], arrays["stochastic_correct"], self.level)
            found.append(gain.named("stochastic_gain"))
        found += [
            metrics.proportion(count, n, self.level).named("not_finite", mode=mode)
            for mode, count in missing.items()
            if count
        ]
        if ties:
            found.append(metrics.proportion(ties, n, self.level).named("ties", mode=MEAN))
        classes = context.num_classes
        right, of = np.bincount(truth[arrays["correct"]], minlength=classes), np.bincount(truth, minlength=classes)
        for label in np.flatnonzero(of):
            recall = metrics.proportion(int(right[label]), int(of[label]), self.level)
            found.append(recall.named("accuracy", mode=MEAN, **{"class": int(label)}))
        return Metrics(found)


def _logits(context: Context) -> dict[str, NDArray[Any]]:
    """Logits of each mode; for an external model with random predictions, ln of probabilities averaged over many draws.

    As many draws as are needed to know the class that leads on average (:mod:`isthmus.attacks.engine.averages`), as
    for images under attack.
    """
    found: dict[str, NDArray[Any]] = dict(context.clean_logits())
    if isinstance(context.model, AveragedDraws):
        single = AveragedDraws(context.model.model, 1, context.seed).eval()
        verifier = Verifier(CountedModel(single), context.threat)
        batch = Batch(context.images, context.labels, context.keys)
        parts = torch.split(torch.arange(len(batch), device=batch.images.device), context.batch_size)
        found[MEAN] = np.concatenate([verifier.clean(batch.take(rows)).cpu().numpy() for rows in parts])
    return found


def _ties(logits: NDArray[np.float32]) -> int:
    """Number of images whose two largest logits are equal."""
    top = np.partition(logits[finite(logits)], -2, axis=1)[:, -2:]
    return int((top[:, 0] == top[:, 1]).sum())


def _tied(ties: int) -> str:
    return (
        f"The two largest logits of {ties} images are equal: argmax takes the first class, on clean and attacked "
        "images alike."
    )


def _averaged(draws: int) -> str:
    return (
        f"The classifier's predictions are random. Other checks average {draws} draws; this one averages until the "
        "leading class is known."
    )


def _confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    known = predicted >= 0
    counts = np.bincount((truth * classes + predicted)[known], minlength=classes * classes)
    return counts.reshape(classes, classes)


def _judge(accuracy: Metric, constant: float, missing: str) -> tuple[Status, str]:
    assert accuracy.interval is not None
    measured = f"{percent(accuracy.value)} of {accuracy.n} clean images are classified correctly{interval(accuracy)}"
    if accuracy.interval.low <= constant:
        return Status.FAIL, f"{measured}, not above the {percent(constant)} of a constant prediction{missing}."
    status = Status.WARN if missing else Status.MEASURED
    return status, f"{measured}; a constant prediction would reach {percent(constant)}{missing}."
