"""What is the classifier worth on another data set with the same classes, as it is and after one example of each?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from isthmus import metrics
from isthmus.checks import dataset_transfer_page
from isthmus.checks.transfer_target import Floats, Target, copies, judged, target_of
from isthmus.checks.views import (
    MEAN,
    STOCHASTIC,
    blamed,
    chance,
    in_mode,
    interval,
    listed,
    not_finite,
    percent,
    points,
)
from isthmus.core import config as configs
from isthmus.core.config import Component
from isthmus.core.errors import ModelError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.checks.context import Context


def _data(given: Any) -> Component:
    return configs.component("data", given)


class Config(Component):
    """Which data, and how to adapt.

    Attributes:
        data: the other data set ("mnist", "folder:PATH", with options as mappings): its test split is judged, and
            examples to adapt by are drawn from its training split.
        classes: names of the classifier's classes in the order of its logits, to match the other's labels by. Where
            None, both have the same classes in the same order.
        images: judge at most so many images, the first of a fixed shuffle in which classes take turns; as many as are
            audited where None.
        draws: adaptations, each by other examples; 0 for none.
        steps, learning_rate: of plain SGD.
        degrees: at most so far every example is turned at every step, either way.
        bins: of the margin, of equal width.
        bin_level: of the Clopper-Pearson interval of each bin's accuracy.
        threshold: an expected calibration error of the margin above it is worth a warning.
        resamples: of every bootstrap.
    """

    argument: ClassVar[str | None] = "data"
    name: Literal["dataset_transfer"] = "dataset_transfer"
    data: SerializeAsAny[Annotated[Component, BeforeValidator(_data)]]
    classes: tuple[str, ...] | None = None
    images: Annotated[int, Field(gt=0)] | None = None
    draws: Annotated[int, Field(ge=0)] = 5
    steps: Annotated[int, Field(gt=0)] = 10
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    bins: Annotated[int, Field(gt=0)] = 20
    bin_level: Annotated[float, Field(gt=0, lt=1)] = 0.90
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05
    resamples: Annotated[int, Field(gt=0)] = 1000


def run(context: Context, config: Config) -> CheckResult:
    """Accuracy on another data set zero-shot and one-shot, and whether the margin says how much of it to trust.

    After "A Rate-Distortion Theory of Adversarial Examples", appendix C and figure 7. The margin is the largest
    probability less the second largest, and is taken for confidence: ``…_margin`` is its mean, ``…_overconfidence``
    that less the accuracy, ``…_margin_error`` its expected calibration error.

    One-shot: a copy of the model takes ``config.steps`` steps of SGD on one example of each class at once, drawn from
    the other's training split and turned a little at each step (:mod:`isthmus.checks.one_shot`), in mean mode. The
    audited model is not touched. Numbers are means over ``config.draws`` such copies, with intervals for other draws
    and other images; ``one_shot_margin_error`` and the figure are of the first copy. A model that cannot be adapted is
    judged zero-shot alone, and the reason says why.

    Passes where it was measured. Warns where zero-shot accuracy is not shown to be above that of the best constant
    answer, where the whole interval of the margin's error lies above ``config.threshold``, and where logits are NaN or
    infinite: these are wrong answers without a margin.

    Arrays: ``zero_shot_correct`` bool[n] and ``zero_shot_margin`` float[n], the same with ``stochastic_`` before it;
    ``one_shot_correct`` and ``one_shot_margin``, [draws, n]; ``one_shot_examples`` int[draws, classes], positions in
    the training split; ``transfer_index`` int[n], positions in the test split.

    Raises:
        DataError: the data are missing, have other classes, or channels that cannot be converted.
        ModelError: no image has finite logits.
    """
    from isthmus.checks.one_shot import obstacle

    target = target_of(context, config)
    modes = {MEAN: context.model} | ({} if context.stochastic is None else {STOCHASTIC: context.stochastic})
    why = "" if not config.draws else obstacle(context)
    draws = 0 if why else config.draws
    parts = len(modes) + draws
    found: dict[str, Metric] = {}
    arrays: dict[str, NDArray[Any]] = {"transfer_index": target.positions.numpy()}
    bins: dict[str, Any] = {}
    missing: dict[str, int] = {}
    for position, (mode, model) in enumerate(modes.items()):
        right, margin = judged(model, target, context, position, parts)
        missing[mode] = int(np.isnan(margin).sum())
        if np.isnan(margin).all():
            raise ModelError(f"In {mode} mode no image of {target.said} has finite logits, so that nothing is judged.")
        found |= {
            in_mode(f"zero_shot_{name}", mode): m for name, m in _zero_shot(right, margin, context, config).items()
        }
        arrays |= {in_mode("zero_shot_correct", mode): right, in_mode("zero_shot_margin", mode): margin}
        bins[in_mode("zero_shot", mode)] = _bins(right, margin, config)
    if draws:
        rights, margins, examples = copies(target, context, config, len(modes), parts)
        found |= _one_shot(rights, margins, arrays["zero_shot_correct"], context, config)
        arrays |= {"one_shot_correct": rights, "one_shot_margin": margins, "one_shot_examples": examples}
        bins["one_shot"] = _bins(rights[0], margins[0], config)
        missing["one-shot"] = int(np.isnan(margins).any(axis=0).sum())
    lost = not_finite(missing, "count as wrong and have no margin")
    status, mode, reason = _verdict(found, target, context, config, why, lost)
    return CheckResult(
        check="dataset_transfer",
        status=status,
        reason=reason,
        metrics=found,
        details={
            "data": target.said,
            "notice": target.notice,
            "bins": bins,
            "draws": draws,
            "not_adapted": why,
            "modes": list(modes),
            "mode": mode,
        },
        arrays=arrays,
    )


def _zero_shot(right: NDArray[np.bool_], margin: Floats, context: Context, config: Config) -> dict[str, Metric]:
    known = ~np.isnan(margin)

    def mean(values: Floats) -> Metric:
        return metrics.mean(values, "fraction", context.seed, resamples=config.resamples)

    return {
        "accuracy": metrics.accuracy(right),
        "margin": mean(margin[known]),
        "overconfidence": mean((margin - right)[known]),
        "margin_error": _error(right, margin, context, config),
    }


def _error(right: NDArray[np.bool_], margin: Floats, context: Context, config: Config) -> Metric:
    known = ~np.isnan(margin)
    return metrics.calibration_error(margin[known], right[known], context.seed, config.bins, resamples=config.resamples)


def _one_shot(
    rights: NDArray[np.bool_], margins: Floats, before: NDArray[np.bool_], context: Context, config: Config
) -> dict[str, Metric]:
    known = ~np.isnan(margins).any(axis=0)
    hits = rights.astype(np.float64)
    accuracy = metrics.crossed_mean(hits, "fraction", least=0.0, most=1.0)
    gain = metrics.crossed_mean(hits - before, "fraction", least=-1.0, most=1.0)
    return {
        "one_shot_accuracy": _no_narrower(accuracy, metrics.accuracy(rights[0]), 0.0),
        "one_shot_gain": _no_narrower(gain, metrics.paired_difference(before, rights[0]), -1.0),
        "one_shot_margin": metrics.crossed_mean(margins[:, known], "fraction", least=0.0, most=1.0),
        "one_shot_overconfidence": metrics.crossed_mean((margins - hits)[:, known], "fraction", least=-1.0, most=1.0),
        "one_shot_margin_error": _error(rights[0], margins[0], context, config),
    }


def _no_narrower(mean: Metric, one: Metric, least: float) -> Metric:
    """A mean over copies with an interval that reaches as far as that of one copy, which is known where all agree.

    Where every copy is wrong on every image, a variance says that there is nothing to know.
    """
    if mean.value is None or mean.interval is None or one.value is None or one.interval is None:
        return mean
    low = min(mean.interval.low, max(mean.value - (one.value - one.interval.low), least))
    high = max(mean.interval.high, min(mean.value + (one.interval.high - one.value), 1.0))
    return mean.model_copy(update={"interval": mean.interval.model_copy(update={"low": low, "high": high})})


def _bins(right: NDArray[np.bool_], margin: Floats, config: Config) -> list[dict[str, Any]]:
    known = ~np.isnan(margin)
    found = metrics.reliability_bins(margin[known], right[known], config.bins, level=config.bin_level)
    return [b.model_dump() for b in found]


def _verdict(
    found: Mapping[str, Metric], target: Target, context: Context, config: Config, why: str, lost: str
) -> tuple[Status, str, str]:
    """Status, the mode that it is of, and why."""
    accuracy, most = found["zero_shot_accuracy"], chance(target.labels, context.num_classes)
    said = f"Zero-shot, {percent(accuracy.value)} of {accuracy.n} images of {target.said} are classified correctly"
    said += interval(accuracy)
    if "one_shot_accuracy" in found:
        after, gain = found["one_shot_accuracy"], found["one_shot_gain"]
        way = "more" if (gain.value or 0.0) >= 0 else "fewer"
        said += f"; after one example of each class, {percent(after.value)}{interval(after)}, "
        said += f"{points(gain.value or 0.0)} {way}{interval(gain)}"
    elif why:
        said += f"; it is not adapted, since {why}"
    signs: dict[str, list[str]] = {MEAN: [], STOCHASTIC: []}
    if accuracy.interval is None or accuracy.interval.low <= most:
        signs[MEAN].append(f"zero-shot accuracy is not shown to be above the {percent(most)} of a constant answer")
    for mode in (MEAN, STOCHASTIC):
        error = found.get(in_mode("zero_shot_margin_error", mode))
        if error and error.interval and error.interval.low > config.threshold:
            signs[mode].append(
                f"margins{'' if mode == MEAN else f' in {mode} mode'} are off by {percent(error.value)}"
                f"{interval(error)}, all of it above {percent(config.threshold)}"
            )
    told = [sign for each in signs.values() for sign in each]
    reason = f"{said}{'; ' if told else ''}{listed(told) if told else ''}{lost}."
    return Status.WARN if told or lost else Status.PASS, blamed(signs), reason


def section(results: Mapping[str, CheckResult]) -> Section:
    """Margins and accuracy over them, zero-shot and one-shot, a table, and columns for both accuracies."""
    return dataset_transfer_page.section(results)
