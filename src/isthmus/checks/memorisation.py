"""Does the classifier know the examples that it was trained on better than new ones?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus import metrics
from isthmus.checks import memorisation_page
from isthmus.checks.members import TrainedOn, alike, answers
from isthmus.checks.views import (
    MEAN,
    STOCHASTIC,
    blamed,
    clean_logits,
    correct,
    finite,
    in_mode,
    interval,
    labels,
    listed,
    not_finite,
    percent,
    points,
)
from isthmus.core import config as configs
from isthmus.core.config import Component
from isthmus.core.errors import DataError, ModelError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

    from isthmus.checks.context import Context

UNKNOWN = (
    "Which examples it was trained on is not known; give them as `trained_on`, or name their data set, such as "
    "memorisation:cifar10."
)


def _data(given: Any) -> Component:
    return configs.component("data", given)


class Config(Component):
    """Which training examples, and when to warn.

    Attributes:
        data: the data set whose training split the classifier was trained on ("cifar10", with options as mappings), for
            a model whose audit was given no training examples. It may stand after a colon, ``memorisation:cifar10``.
        images: show at most so many of them; as many as are audited where None, and never more.
        threshold: a generalisation gap above it is worth a warning.
        membership: an AUROC of membership above it is, too.
        resamples: of every bootstrap.
    """

    argument: ClassVar[str | None] = "data"
    name: Literal["memorisation"] = "memorisation"
    data: SerializeAsAny[Annotated[Component, BeforeValidator(_data)]] | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05
    membership: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    resamples: Annotated[int, Field(gt=0)] = 1000


def run(context: Context, config: Config) -> CheckResult:
    """Accuracy and loss on training images beside those on the audited ones, and how well the loss tells them apart.

    The training images are as many of each class as are audited (:func:`isthmus.checks.members.alike`), without
    augmentation. The audited images are taken to be new and from the same population; what else differs between the
    two, such as where they were gathered, counts as a gap too.

    ``generalisation_gap`` is training less audited accuracy; it is also the advantage (true less false positive rate)
    of whoever takes every image that is answered rightly for a training image (Yeom et al. 2018, theorem 2).
    ``loss_gap`` is the audited images' mean negative log-likelihood less the training images', in nats.
    ``membership_auroc`` is P(loss of an audited image > loss of a training image), ties half: the area under the ROC
    curve of the attack that takes images of small loss for training images (Yeom et al. 2018); 0.5 is chance.

    Warns where, in either mode, the whole interval of the gap lies above ``config.threshold`` or that of the AUROC
    above ``config.membership``, and where logits are NaN or infinite: these are wrong answers without a loss. Skipped
    where no training examples are known.

    Arrays: ``correct`` and ``nll`` (nats; NaN where logits are not finite) of the audited images, ``training_correct``
    and ``training_nll``, the same with ``stochastic_`` before it, and ``training_index``, positions in the training
    split.

    Raises:
        DataError: the data set of ``config.data`` does not fit, or no training example has an audited class.
        ModelError: in a mode, no image of either kind has finite logits.
    """
    known = _trained_on(context, config)
    if known is None:
        return CheckResult(check="memorisation", status=Status.SKIPPED, reason=UNKNOWN, details={"trained_on": None})
    positions = _chosen(known, context, config)
    before = known.examples.labels[positions.to(known.examples.labels.device)].cpu().numpy().astype(np.int64)
    now = labels(context)
    trained = answers(context, known.examples, positions, context.progress)
    found: dict[str, Metric] = {}
    arrays: dict[str, NDArray[Any]] = {"training_index": positions.numpy()}
    missing: dict[str, int] = {}
    for mode, logits in clean_logits(context).items():
        sides = {"training": (trained[mode], before), "audited": (logits, now)}
        missing[mode] = sum(int((~finite(given)).sum()) for given, _ in sides.values())
        outcomes = {side: _outcomes(*given, side, mode) for side, given in sides.items()}
        found |= {in_mode(name, mode): m for name, m in _measures(outcomes, context.seed, config.resamples).items()}
        for side, (right, loss) in outcomes.items():
            prefix = "training_" if side == "training" else ""
            arrays |= {in_mode(f"{prefix}correct", mode): right, in_mode(f"{prefix}nll", mode): loss}
    status, mode, reason = _judge(found, config, not_finite(missing, "count as wrong and have no loss"))
    details: dict[str, Any] = {"known": len(known.examples), "modes": list(missing), "mode": mode}
    if config.data is None:
        details["trained_on"] = known.hash
    return CheckResult(
        check="memorisation", status=status, reason=reason, metrics=found, details=details, arrays=arrays
    )


def _trained_on(context: Context, config: Config) -> TrainedOn | None:
    """The training examples: of the data set that is named, else those that the audit was given."""
    if config.data is None:
        return context.trained_on
    from isthmus.data.loading import load

    data = load(config.data)
    shape = tuple(context.images.shape[1:])
    if data.shape != shape or data.num_classes != context.num_classes:
        raise DataError(
            f"{data.name} has {data.num_classes} classes and images of {'×'.join(map(str, data.shape))}, and the audit "
            f"{context.num_classes} classes and images of {'×'.join(map(str, shape))} (C, H, W); name the data that "
            "the classifier was trained on, with the options it was trained with."
        )
    return TrainedOn(data.training_split(), data.fingerprint)


def _chosen(known: TrainedOn, context: Context, config: Config) -> Int64[Tensor, " k"]:
    positions = alike(known.examples.labels, context.labels, config.images)
    if not len(positions):
        raise DataError("No training example has the class of an audited image, so there is nothing to compare.")
    return positions


def _outcomes(
    logits: NDArray[Any], truth: NDArray[np.int64], side: str, mode: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each image is answered rightly, and its loss, NaN where it has no answer."""
    answered = finite(logits)
    if not answered.any():
        raise ModelError(f"In {mode} mode no {side} image has finite logits, so there is no loss to compare.")
    loss = np.full(len(truth), np.nan)
    loss[answered] = metrics.nll(logits[answered], truth[answered])
    return correct(logits, truth), loss


def _measures(
    outcomes: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float64]]], seed: int, resamples: int
) -> dict[str, Metric]:
    (right_before, loss_before), (right_now, loss_now) = outcomes["training"], outcomes["audited"]
    member, new = (loss[~np.isnan(loss)] for loss in (loss_before, loss_now))
    auroc = metrics.detection_metrics(member, new, seed, resamples=resamples)["auroc"]
    if auroc.value is None:
        auroc = auroc.model_copy(update={"note": "needs two images of either kind"})
    return {
        "training_accuracy": metrics.accuracy(right_before),
        "accuracy": metrics.accuracy(right_now),
        "generalisation_gap": metrics.difference(right_now, right_before),
        "loss_gap": metrics.mean_difference(member, new, "nats", seed, resamples=resamples),
        "membership_auroc": auroc,
    }


def _judge(found: Mapping[str, Metric], config: Config, missing: str) -> tuple[Status, str, str]:
    """Status, the mode that it is of, and why."""
    limits = {"generalisation_gap": config.threshold, "membership_auroc": config.membership}
    words = {"generalisation_gap": "the gap", "membership_auroc": "that AUROC"}
    above = {
        mode: [
            f"{words[name]} in {mode} mode is above {percent(limit)}: {percent(metric.value)}{interval(metric)}"
            if mode != MEAN
            else f"{words[name]} is above {percent(limit)}"
            for name, limit in limits.items()
            if (metric := found.get(in_mode(name, mode))) and metric.interval and metric.interval.low > limit
        ]
        for mode in (MEAN, STOCHASTIC)
    }
    before, gap, auroc = (found[name] for name in ("training_accuracy", "generalisation_gap", "membership_auroc"))
    said = (
        f"{percent(before.value)} of {before.n} images that it was trained on are classified correctly, "
        f"{points(gap.value or 0.0)} {'more' if (gap.value or 0.0) >= 0 else 'fewer'} than of {found['accuracy'].n} "
        f"new ones{interval(gap)}"
    )
    if auroc.value is not None:
        said += f"; by their loss the ones are told from the others with an AUROC of {percent(auroc.value)}"
        said += interval(auroc)
    if any(above.values()):
        return Status.WARN, blamed(above), f"{said}; {listed([each for of in above.values() for each in of])}{missing}."
    status = Status.WARN if missing else Status.PASS
    held = f"the gap is not shown to be above {percent(config.threshold)}"
    if auroc.value is not None:
        held += f", nor that AUROC to be above {percent(config.membership)}"
    return status, MEAN, f"{said}; {held}{missing}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """Who is told by the loss, how the losses are spread, all measures in both modes, and two columns."""
    return memorisation_page.section(results)
