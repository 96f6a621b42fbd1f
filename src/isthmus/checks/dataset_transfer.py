"""Zero-shot and one-shot accuracy on another data set with the same classes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks.adaptation import Adaptation, Floats, Target, adapted_copies, classified, obstacle, target_of
from isthmus.checks.check import Check, chance, in_mode, mode_with, not_finite
from isthmus.checks.context import MEAN, STOCHASTIC, Context
from isthmus.checks.other_data import DataSet
from isthmus.core.errors import ModelError
from isthmus.core.format import interval, listed, percent, points
from isthmus.core.types import CheckResult, Metric, Metrics, Status


class DatasetTransfer(Check):
    """Accuracy on another data set zero-shot and one-shot, and the calibration of the prediction margin there.

    After "A Rate-Distortion Theory of Adversarial Examples", appendix C and figure 7. The margin is the largest
    probability less the second, and is taken for confidence.

    Metrics by ``mode`` and ``shots`` (0 or 1): ``accuracy``; ``margin``, its mean; ``overconfidence``, that less the
    accuracy; ``margin_error``, its expected calibration error; and, for one shot, ``gain`` in accuracy.

    One-shot: a copy of the model takes ``steps`` steps of SGD on one example of each class at once, drawn from the
    other's training split and rotated a little at each step (:mod:`isthmus.checks.adaptation`), in mean mode. The
    audited model is not changed. Numbers are means over ``draws`` such copies, with intervals for other draws and other
    images; the one-shot ``margin_error`` and the figure are of the first copy. A model that cannot be adapted is
    measured zero-shot only, and the reason explains it.

    Warns if zero-shot accuracy is not shown to be above that of the best constant prediction, if the whole interval of
    the margin's error lies above ``threshold``, and if logits are NaN or infinite: these predictions are wrong and have
    no margin.

    Arrays: ``zero_shot_correct`` bool[n] and ``zero_shot_margin`` float[n], the same with ``stochastic_`` before it;
    ``one_shot_correct`` and ``one_shot_margin``, [draws, n]; ``one_shot_examples`` int[draws, classes], positions in
    the training split; ``transfer_index`` int[n], positions in the test split.

    Attributes:
        data: the other data set ("mnist", "folder:PATH", with options as mappings): its test split is classified, and
            examples for adaptation are drawn from its training split.
        classes: names of the classifier's classes in the order of its logits, to match the other's labels. If None,
            both have the same classes in the same order.
        images: number of images, the first of a fixed shuffle in which classes take turns; if None, as many as are
            audited.
        draws: adaptations, each on other examples; 0 for none.
        steps, learning_rate: of plain SGD.
        degrees: every example is rotated by up to this angle at every step, in either direction.
        bins: of the margin, of equal width.
        bin_level: of the Clopper-Pearson interval of each bin's accuracy.
        threshold: warn above this expected calibration error of the margin.
        resamples: of every bootstrap.
    """

    argument: ClassVar[str | None] = "data"
    name: Literal["dataset_transfer"] = "dataset_transfer"
    data: DataSet
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

    def run(self, context: Context) -> CheckResult:
        """Measure the transfer.

        Raises:
            DataError: the data are missing, have other classes, or channels that cannot be converted.
            ModelError: no image has finite logits.
        """
        target = target_of(context, self.data, self.classes, self.images, adapt=self.draws > 0)
        why = "" if not self.draws else obstacle(context)
        draws = 0 if why else self.draws
        parts = len(context.modes) + draws
        found: list[Metric] = []
        arrays: dict[str, NDArray[Any]] = {"transfer_index": target.positions.numpy()}
        bins: dict[str, Any] = {}
        missing: dict[str, int] = {}
        for position, (mode, model) in enumerate(context.modes.items()):
            right, margin = classified(model, target, context, position, parts)
            missing[mode] = int(np.isnan(margin).sum())
            if np.isnan(margin).all():
                raise ModelError(f"In {mode} mode no image of {target.name} has finite logits.")
            found += [m.named(m.name, mode=mode, shots=0) for m in self._zero_shot(right, margin, context.seed)]
            arrays |= {in_mode("zero_shot_correct", mode): right, in_mode("zero_shot_margin", mode): margin}
            bins[in_mode("zero_shot", mode)] = self._bins(right, margin)
        if draws:
            adaptation = Adaptation(draws, self.steps, self.learning_rate, self.degrees)
            rights, margins, examples = adapted_copies(target, context, adaptation, len(context.modes), parts)
            one_shot = self._one_shot(rights, margins, arrays["zero_shot_correct"], context.seed)
            found += [m.named(m.name, mode=MEAN, shots=1) for m in one_shot]
            arrays |= {"one_shot_correct": rights, "one_shot_margin": margins, "one_shot_examples": examples}
            bins["one_shot"] = self._bins(rights[0], margins[0])
            missing["one-shot"] = int(np.isnan(margins).any(axis=0).sum())
        lost = not_finite(missing, "count as wrong and have no margin")
        whole, constant = Metrics(found), chance(target.labels, context.num_classes)
        status, mode, reason = self._judge(whole, target, constant, why, lost)
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=whole,
            thresholds={"accuracy": constant, "margin_error": self.threshold, "not_finite": 0.0},
            details={
                "data": target.name,
                "notice": target.notice,
                "bins": bins,
                "draws": draws,
                "not_adapted": why,
                "modes": list(context.modes),
                "mode": mode,
            },
            arrays=arrays,
        )

    def _zero_shot(self, right: NDArray[np.bool_], margin: Floats, seed: int) -> list[Metric]:
        known = ~np.isnan(margin)

        def mean(values: Floats) -> Metric:
            return metrics.mean(values, "fraction", seed, resamples=self.resamples)

        return [
            metrics.accuracy(right).named("accuracy"),
            mean(margin[known]).named("margin"),
            mean((margin - right)[known]).named("overconfidence"),
            self._error(right, margin, seed),
        ]

    def _error(self, right: NDArray[np.bool_], margin: Floats, seed: int) -> Metric:
        known = ~np.isnan(margin)
        error = metrics.calibration_error(margin[known], right[known], seed, self.bins, resamples=self.resamples)
        return error.named("margin_error")

    def _one_shot(
        self, rights: NDArray[np.bool_], margins: Floats, before: NDArray[np.bool_], seed: int
    ) -> list[Metric]:
        known = ~np.isnan(margins).any(axis=0)
        hits = rights.astype(np.float64)
        accuracy = metrics.crossed_mean(hits, "fraction", least=0.0, most=1.0)
        gain = metrics.crossed_mean(hits - before, "fraction", least=-1.0, most=1.0)
        margin = metrics.crossed_mean(margins[:, known], "fraction", least=0.0, most=1.0)
        excess = metrics.crossed_mean((margins - hits)[:, known], "fraction", least=-1.0, most=1.0)
        return [
            _no_narrower(accuracy, metrics.accuracy(rights[0]), 0.0).named("accuracy"),
            _no_narrower(gain, metrics.paired_difference(before, rights[0]), -1.0).named("gain"),
            margin.named("margin"),
            excess.named("overconfidence"),
            self._error(rights[0], margins[0], seed),
        ]

    def _bins(self, right: NDArray[np.bool_], margin: Floats) -> list[dict[str, Any]]:
        known = ~np.isnan(margin)
        found = metrics.reliability_bins(margin[known], right[known], self.bins, level=self.bin_level)
        return [b.model_dump() for b in found]

    def _judge(self, found: Metrics, target: Target, constant: float, why: str, lost: str) -> tuple[Status, str, str]:
        """Status, the mode that it is of, and the reason."""
        accuracy = found.one("accuracy", mode=MEAN, shots=0)
        reason = (
            f"Zero-shot, {percent(accuracy.value)} of {accuracy.n} images of {target.name} are classified correctly"
        )
        reason += interval(accuracy)
        if after := found.get("accuracy", mode=MEAN, shots=1):
            gain = found.one("gain", mode=MEAN, shots=1)
            way = "more" if (gain.value or 0.0) >= 0 else "fewer"
            reason += f"; after one example of each class, {percent(after.value)}{interval(after)}, "
            reason += f"{points(gain.value or 0.0)} {way}{interval(gain)}"
        elif why:
            reason += f"; it is not adapted, since {why}"
        signs: dict[str, list[str]] = {MEAN: [], STOCHASTIC: []}
        if accuracy.interval is None or accuracy.interval.low <= constant:
            limit = f"the {percent(constant)} of a constant prediction"
            signs[MEAN].append(f"zero-shot accuracy is not shown to be above {limit}")
        for mode in signs:
            error = found.get("margin_error", mode=mode, shots=0)
            if error and error.interval and error.interval.low > self.threshold:
                signs[mode].append(
                    f"the calibration error of the margin{'' if mode == MEAN else f' in {mode} mode'} is "
                    f"{percent(error.value)}{interval(error)}, above {percent(self.threshold)}"
                )
        warnings = [sign for each in signs.values() for sign in each]
        reason = f"{reason}{'; ' if warnings else ''}{listed(warnings)}{lost}."
        return Status.WARN if warnings or lost else Status.PASS, mode_with(signs), reason


def _no_narrower(mean: Metric, one: Metric, least: float) -> Metric:
    """A mean over copies whose interval is at least as wide as that of one copy.

    If every copy is wrong on every image, the variance over copies is 0, whatever would happen on other images.
    """
    if mean.value is None or mean.interval is None or one.value is None or one.interval is None:
        return mean
    low = min(mean.interval.low, max(mean.value - (one.value - one.interval.low), least))
    high = max(mean.interval.high, min(mean.value + (one.interval.high - one.value), 1.0))
    return mean.model_copy(update={"interval": mean.interval.model_copy(update={"low": low, "high": high})})
