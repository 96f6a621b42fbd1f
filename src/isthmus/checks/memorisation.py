"""Memorisation: are training examples classified better than new ones?"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from isthmus import metrics
from isthmus.checks.check import Check, in_mode, mode_with, not_finite
from isthmus.checks.context import MEAN, STOCHASTIC, Context, correct, finite, spread
from isthmus.checks.other_data import DataSet, known_training
from isthmus.checks.trained_on import TrainedOn
from isthmus.core.errors import DataError, ModelError
from isthmus.core.format import interval, listed, percent, points
from isthmus.core.randomness import example_keys, fold
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.data.order import balanced_like

UNKNOWN = (
    "The training examples are not known; give them as `trained_on`, or name their data set, such as "
    "memorisation:cifar10."
)

Outcomes = tuple[NDArray[np.bool_], NDArray[np.float64]]
"""Whether each image is classified correctly, and its loss, NaN if its logits are not finite."""


class Memorisation(Check):
    """Accuracy and loss on training images and on the audited ones, and how well the loss separates the two.

    There are as many training images of each class as are audited (:func:`isthmus.data.order.balanced_like`), without
    augmentation. The audited images are assumed to be new and from the same population; any other difference, such as
    their source, counts as a gap too.

    Metrics by mode: ``training_accuracy``; ``accuracy``, of the audited images; ``generalisation_gap``, their
    difference. The gap is also the advantage (true less false positive rate) of the attack that takes every correctly
    classified image for a training image (Yeom et al. 2018, theorem 2). ``loss_gap``, the audited images' mean negative
    log-likelihood less the training images', in nats. ``membership_auroc``, P(loss of an audited image > loss of a
    training image), ties half: the area under the ROC curve of the attack that takes images of small loss for training
    images (Yeom et al. 2018); 0.5 is chance.

    Warns if, in either mode, the whole interval of the gap lies above ``threshold`` or that of the AUROC above
    ``membership``, and if logits are NaN or infinite: these predictions are wrong and have no loss. Skipped if no
    training examples are known.

    Arrays: ``correct`` and ``nll`` (nats; NaN if logits are not finite) of the audited images, ``training_correct`` and
    ``training_nll``, the same with ``stochastic_`` before it, and ``training_index``, positions in the training split.

    Attributes:
        data: the data set whose training split the classifier was trained on ("cifar10", with options as mappings), if
            the audit was given no training examples. Short form: ``memorisation:cifar10``.
        images: most training images; if None, as many as are audited. Never more than that.
        threshold: warn above this generalisation gap.
        membership: warn above this AUROC of membership.
        resamples: of every bootstrap.
    """

    argument: ClassVar[str | None] = "data"
    name: Literal["memorisation"] = "memorisation"
    data: DataSet | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05
    membership: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    resamples: Annotated[int, Field(gt=0)] = 1000

    def run(self, context: Context) -> CheckResult:
        """Measure memorisation.

        Raises:
            DataError: the data set of ``data`` does not fit, or no training example has an audited class.
            ModelError: in a mode, no image of either kind has finite logits.
        """
        known = known_training(self.data, context)
        if known is None:
            return CheckResult(check=self.name, status=Status.SKIPPED, reason=UNKNOWN, details={"trained_on": None})
        positions = balanced_like(known.examples.labels, context.labels, self.images)
        if not len(positions):
            raise DataError("No training example has the class of an audited image, so there is nothing to compare.")
        truth = known.examples.labels[positions.to(known.examples.labels.device)].cpu().numpy().astype(np.int64)
        load = partial(_loaded, known, positions, context)
        trained = context.predictions(load, len(positions), progress=context.progress)
        found: list[Metric] = []
        arrays: dict[str, NDArray[Any]] = {"training_index": positions.numpy()}
        missing: dict[str, int] = {}
        for mode, logits in context.clean_logits().items():
            missing[mode] = int((~finite(logits)).sum() + (~finite(trained[mode])).sum())
            training = _outcomes(trained[mode], truth, "training", mode)
            audited = _outcomes(logits, context.truth, "audited", mode)
            found += [metric.named(metric.name, mode=mode) for metric in self._measures(training, audited, context)]
            for prefix, (right, loss) in (("training_", training), ("", audited)):
                arrays |= {in_mode(f"{prefix}correct", mode): right, in_mode(f"{prefix}nll", mode): loss}
        whole = Metrics(found)
        status, mode, reason = self._judge(whole, not_finite(missing, "count as wrong and have no loss"))
        details: dict[str, Any] = {"known": len(known.examples), "modes": list(missing), "mode": mode}
        if self.data is None:
            details["trained_on"] = known.hash
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=whole,
            thresholds=self._thresholds | {"not_finite": 0.0},
            details=details,
            arrays=arrays,
        )

    @property
    def _thresholds(self) -> dict[str, float]:
        return {"generalisation_gap": self.threshold, "membership_auroc": self.membership}

    def _measures(self, training: Outcomes, audited: Outcomes, context: Context) -> list[Metric]:
        (right_before, loss_before), (right_now, loss_now) = training, audited
        member, new = (loss[~np.isnan(loss)] for loss in (loss_before, loss_now))
        auroc = metrics.detection_metrics(member, new, context.seed, resamples=self.resamples)["auroc"]
        if auroc.value is None:
            auroc = auroc.model_copy(update={"note": "needs two images of either kind"})
        loss_gap = metrics.mean_difference(member, new, "nats", context.seed, resamples=self.resamples)
        return [
            metrics.accuracy(right_before).named("training_accuracy"),
            metrics.accuracy(right_now).named("accuracy"),
            metrics.difference(right_now, right_before).named("generalisation_gap"),
            loss_gap.named("loss_gap"),
            auroc.named("membership_auroc"),
        ]

    def _judge(self, found: Metrics, missing: str) -> tuple[Status, str, str]:
        """Status, the mode that it is of, and the reason."""
        names = {"generalisation_gap": "the gap", "membership_auroc": "the AUROC"}
        above = {
            mode: [
                f"{names[name]}{self._in_other_mode(metric, mode)} is above {percent(limit)}"
                for name, limit in self._thresholds.items()
                if (metric := found.get(name, mode=mode)) and metric.interval and metric.interval.low > limit
            ]
            for mode in (MEAN, STOCHASTIC)
        }
        before, now, gap, auroc = (
            found.one(name, mode=MEAN)
            for name in ("training_accuracy", "accuracy", "generalisation_gap", "membership_auroc")
        )
        reason = (
            f"{percent(before.value)} of {before.n} training images are classified correctly, "
            f"{points(gap.value or 0.0)} {'more' if (gap.value or 0.0) >= 0 else 'fewer'} than of {now.n} new "
            f"ones{interval(gap)}"
        )
        if auroc.value is not None:
            reason += f"; the loss separates the two with an AUROC of {percent(auroc.value)}{interval(auroc)}"
        if any(above.values()):
            signs = listed([sign for each in above.values() for sign in each])
            return Status.WARN, mode_with(above), f"{reason}; {signs}{missing}."
        below = f"the gap is not shown to be above {percent(self.threshold)}"
        if auroc.value is not None:
            below += f", nor the AUROC to be above {percent(self.membership)}"
        return Status.WARN if missing else Status.PASS, MEAN, f"{reason}; {below}{missing}."

    @staticmethod
    def _in_other_mode(metric: Metric, mode: str) -> str:
        """In another mode than the mean, the number itself, since the reason gives only the mean mode's."""
        return "" if mode == MEAN else f" in {mode} mode, {percent(metric.value)}{interval(metric)},"


def _loaded(known: TrainedOn, positions: Tensor, context: Context, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Some of the training images, and their keys."""
    images, device = known.examples.select(positions[rows]).images, context.images.device
    images = images if images.dtype == torch.uint8 else images.float()
    return images.to(device), fold(example_keys(context.seed, positions[rows].to(device)), "memorisation/example")


def _outcomes(logits: NDArray[Any], truth: NDArray[np.int64], side: str, mode: str) -> Outcomes:
    known = finite(logits)
    if not known.any():
        raise ModelError(f"In {mode} mode no {side} image has finite logits, so there is no loss to compare.")
    return correct(logits, truth), spread(metrics.nll(logits[known], truth[known]), known)
