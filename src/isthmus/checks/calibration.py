"""Calibration: does confidence match accuracy?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks.check import Check, in_mode, mode_with, not_finite
from isthmus.checks.context import MEAN, STOCHASTIC, Context, finite, spread
from isthmus.checks.halves import SCALINGS, Halves, Scaling, halved
from isthmus.core.errors import ModelError
from isthmus.core.format import interval, listed, percent
from isthmus.core.types import CheckResult, Metric, Metrics, Status

MEASURES = ("ece", "ece_equal_mass", "margin", "overconfidence", "nll", "brier")
_SCALED = ("ece", "nll", "brier", "accuracy")  # measured before and after scaling
_POINTS = 40  # of a risk–coverage curve


class Calibration(Check):
    """Expected calibration error, mean overconfidence, margin, NLL and Brier score of each mode, with intervals.

    Warns if, in either mode, the interval of the ECE (bins of equal width) lies above ``threshold``, and if logits are
    NaN or infinite: such examples have no confidence and are left out.

    Metrics by mode: ``ece``, ``ece_equal_mass``, ``ece_debiased``, ``margin`` (the largest probability less the
    second), ``overconfidence``, ``nll``, ``brier``; ``aurc`` and ``excess_aurc`` of selective classification by
    confidence (:mod:`isthmus.metrics.selective`).

    With ``split``, measured on the examples that nothing was fitted on: ``ece``, ``nll``, ``brier`` and ``accuracy``
    with the coordinate ``scaling`` ("none", "temperature", "vector" or "isotonic", :mod:`isthmus.metrics.scaling`), and
    ``coverage``, mean ``set_size`` and fraction of ``empty_sets`` of prediction sets with the coordinate ``conformal``
    ("lac" or "aps", :mod:`isthmus.metrics.conformal`); and ``temperature``. Which examples these are depends on the
    audit's seed and their positions in the data set. The interval of ``coverage`` is Wilson's, for these thresholds.

    Arrays, one number per example: ``confidence``, ``margin``, ``correct``, ``nll`` (nats) and ``brier`` (0 to 2), and
    the same with ``stochastic_`` before it; NaN (``correct``: false) if logits are not finite.

    Attributes:
        bins: number of bins, of equal width or of equal mass; 20 as in Fischer 2020.
        bin_level: level of the Clopper-Pearson interval of each bin's accuracy.
        threshold: warn above this expected calibration error. The default is the width of one bin: on average,
            confidence is off by more than the resolution of the reliability diagram.
        split: fraction of the examples that scalings and prediction sets are fitted on; they are measured on the
            others. None to skip. Short form: ``calibration:0.5``.
        scalings: those to fit.
        alpha: prediction sets are to contain the label with a probability of 1 − ``alpha``.
        resamples: of every bootstrap.
    """

    argument: ClassVar[str | None] = "split"
    name: Literal["calibration"] = "calibration"
    bins: Annotated[int, Field(gt=0)] = 20
    bin_level: Annotated[float, Field(gt=0, lt=1)] = 0.90
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05
    split: Annotated[float, Field(gt=0, lt=1)] | None = None
    scalings: tuple[Scaling, ...] = SCALINGS
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    resamples: Annotated[int, Field(gt=0)] = 1000

    def run(self, context: Context) -> CheckResult:
        """Measure calibration.

        Raises:
            ModelError: a mode has no finite logits at all, or too few for ``split``.
        """
        truth = context.truth
        arrays: dict[str, NDArray[Any]] = {}
        found: list[Metric] = []
        bins: dict[str, Any] = {}
        selective: dict[str, Any] = {}
        parts: dict[str, Any] = {}
        missing: dict[str, int] = {}
        for mode, logits in context.clean_logits().items():
            known = finite(logits)
            if not known.any():
                raise ModelError(f"In {mode} mode no image has finite logits, so calibration cannot be measured.")
            missing[mode] = int((~known).sum())
            examples = _examples(logits[known], truth[known])
            arrays |= {in_mode(name, mode): spread(values, known) for name, values in examples.items()}
            found += [metric.named(metric.name, mode=mode) for metric in self._all(examples, context.seed)]
            uncertainty, wrong = metrics.least_confidence(logits[known]), ~examples["correct"]
            areas = metrics.selective_metrics(uncertainty, wrong, context.seed, resamples=self.resamples)
            found += [area.named(name, mode=mode) for name, area in areas.items()]
            bins[mode] = self._bins(examples)
            selective[mode] = _drawn(*metrics.risk_coverage(uncertainty, wrong))
            if self.split is not None:
                halves = halved(logits[known], truth[known], context.keys[torch.from_numpy(known)], self.split)
                parts[mode] = halves.facts(self.alpha)
                others = self._measured_on_others(halves, context.seed)
                found += [metric.named(metric.name, mode=mode) for metric in others]
        whole = Metrics(found)
        status, mode, reason = self._judge(whole, not_finite(missing, "are left out"))
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=whole,
            thresholds={"ece": self.threshold},
            details={"bins": bins, "selective": selective, "mode": mode, "split": parts, "alpha": self.alpha},
            arrays=arrays,
        )

    def _all(self, examples: Mapping[str, NDArray[Any]], seed: int) -> list[Metric]:
        measured = self._measures(examples, seed)
        value = metrics.ece(examples["confidence"], examples["correct"], self.bins, debiased=True)
        ece = measured[0]
        debiased = Metric(name="ece_debiased", value=value, unit="fraction", n=ece.n, interval=ece.interval)
        return [*measured, debiased]

    def _measures(
        self, examples: Mapping[str, NDArray[Any]], seed: int, names: Sequence[str] = MEASURES
    ) -> list[Metric]:
        """Some of the measures; each costs one or two bootstraps."""
        confidence, right = examples["confidence"], examples["correct"]

        def mean(values: NDArray[Any], unit: str) -> Metric:
            return metrics.mean(values, unit, seed, resamples=self.resamples)

        def error(scheme: metrics.Scheme) -> Metric:
            return metrics.calibration_error(confidence, right, seed, self.bins, scheme, resamples=self.resamples)

        measures: dict[str, Callable[[], Metric]] = {
            "ece": lambda: error("width"),
            "ece_equal_mass": lambda: error("mass"),
            "margin": lambda: mean(examples["margin"], "fraction"),
            "overconfidence": lambda: mean(confidence - right, "fraction"),
            "accuracy": lambda: metrics.accuracy(right),
            "nll": lambda: mean(examples["nll"], "nats"),
            "brier": lambda: mean(examples["brier"], "squared distance"),
        }
        return [measures[name]().named(name) for name in names]

    def _bins(self, examples: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        def dumped(scheme: metrics.Scheme, level: str = "confidence") -> list[dict[str, Any]]:
            found = metrics.reliability_bins(examples[level], examples["correct"], self.bins, scheme, self.bin_level)
            return [b.model_dump() for b in found]

        return {"equal_width": dumped("width"), "equal_mass": dumped("mass"), "margin": dumped("width", "margin")}

    def _measured_on_others(self, halves: Halves, seed: int) -> list[Metric]:
        """Measures after each scaling, and prediction sets, on the examples that these were not fitted on."""
        count = len(halves.fitted)
        found = [
            metric.named(metric.name, scaling=name)
            for name, logits in halves.scaled(self.scalings).items()
            for metric in self._measures(_examples(logits, halves.labels), seed, _SCALED)
        ]
        for name, measured in halves.sets(self.alpha, seed, self.resamples).items():
            found += [metric.named(which, conformal=name) for which, metric in measured.items()]
        found = [metric.model_copy(update={"note": f"fitted on {count} other examples"}) for metric in found]
        if "temperature" in self.scalings:
            found.append(Metric(name="temperature", value=halves.temperature, unit="of the logits", n=count))
        return found

    def _judge(self, found: Metrics, missing: str) -> tuple[Status, str, str]:
        """Status, the mode that it is of, and the reason."""
        errors = {mode: error for mode in (MEAN, STOCHASTIC) if (error := found.get("ece", mode=mode))}
        above = {mode: e for mode, e in errors.items() if e.interval and e.interval.low > self.threshold}
        each = [
            f"{percent(error.value)}{interval(error)}{f' in {mode} mode' if len(errors) > 1 else ''}"
            for mode, error in (above or errors).items()
        ]
        errors_found, limit = f"expected calibration error is {listed(each)}", percent(self.threshold)
        if above:
            reason = f"Confidence does not match accuracy: the {errors_found}; it is above {limit}{missing}."
            return Status.WARN, mode_with(above), reason
        status = Status.WARN if missing else Status.PASS
        return status, MEAN, f"The {errors_found}, not shown to be above {limit}{missing}."


def _examples(logits: NDArray[Any], truth: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {
        "confidence": metrics.probabilities(logits).max(axis=1),
        "margin": metrics.prediction_margin(logits),
        "correct": logits.argmax(axis=1) == truth,
        "nll": metrics.nll(logits, truth),
        "brier": metrics.brier(logits, truth),
    }


def _drawn(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> dict[str, list[float]]:
    """A risk–coverage curve as at most :data:`_POINTS` points, evenly spread over coverage."""
    rows = np.unique(np.linspace(0, coverage.size - 1, min(coverage.size, _POINTS)).round().astype(np.intp))
    return {"coverage": coverage[rows].tolist(), "risk": risk[rows].tolist()}
