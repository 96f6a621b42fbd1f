"""Does the classifier's confidence match its accuracy?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks import calibration_page
from isthmus.checks.views import (
    MEAN,
    STOCHASTIC,
    blamed,
    clean_logits,
    finite,
    in_mode,
    interval,
    labels,
    listed,
    not_finite,
    percent,
)
from isthmus.core.config import Component
from isthmus.core.errors import ModelError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.checks.context import Context


MEASURES = ("ece", "ece_equal_mass", "margin", "overconfidence", "nll", "brier")
SCALED = ("ece", "nll", "brier")
"""What is told of examples before and after their logits were scaled."""
_FEWEST = 2


class Config(Component):
    """How to bin, and when to warn.

    Attributes:
        bins: of equal width or of equal mass; 20 of 5% as in Fischer 2020.
        bin_level: of the Clopper-Pearson interval of each bin's accuracy.
        threshold: an expected calibration error above it is worth a warning. The default is the width of one
            bin: on average, confidence is off by more than the diagram's resolution.
        temperature: fit a temperature on this share of the examples and judge it on the others, before and after; None
            for neither.
        resamples: of every bootstrap.
    """

    name: Literal["calibration"] = "calibration"
    bins: Annotated[int, Field(gt=0)] = 20
    bin_level: Annotated[float, Field(gt=0, lt=1)] = 0.90
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.05
    temperature: Annotated[float, Field(gt=0, lt=1)] | None = None
    resamples: Annotated[int, Field(gt=0)] = 1000


def run(context: Context, config: Config) -> CheckResult:
    """Expected calibration error, mean overconfidence, margin, NLL and Brier score of each mode, with intervals.

    Warns where, in either mode, the interval of the ECE (equal-width bins) lies above ``config.threshold``, and where
    logits are NaN or infinite: such examples have no confidence and are left out.

    With ``config.temperature`` also, for the examples that it was not fitted on, ``ece_before``, ``ece_after``,
    ``nll_before`` and ``nll_after`` the scaling, likewise ``brier``, and ``temperature`` itself. Which examples these
    are depends on the audit's seed and their places in the data set.

    Arrays, one per example: ``confidence``, ``margin`` (the largest probability less the second), ``correct``, ``nll``
    (nats) and ``brier`` (0 to 2), and the same with ``stochastic_`` before it; NaN (``correct``: false) where logits
    are not finite.

    Raises:
        ModelError: a mode has no finite logits at all, or too few of them to fit a temperature and judge it.
    """
    truth = labels(context)
    arrays: dict[str, NDArray[Any]] = {}
    found: dict[str, Metric] = {}
    bins: dict[str, Any] = {}
    missing: dict[str, int] = {}
    for mode, logits in clean_logits(context).items():
        answered = finite(logits)
        if not answered.any():
            raise ModelError(f"In {mode} mode no image has finite logits, so there is no confidence to judge.")
        missing[mode] = int((~answered).sum())
        examples = _examples(logits[answered], truth[answered])
        arrays |= {in_mode(name, mode): _spread(values, answered) for name, values in examples.items()}
        measured = _metrics(examples, context.seed, config)
        measured["ece_debiased"] = _debiased(examples, measured["ece"], config)
        found |= {in_mode(name, mode): metric for name, metric in measured.items()}
        bins[mode] = _bins(examples, config)
        if config.temperature is not None:
            fitted = _held_out(context, answered, config.temperature)
            scaled = _scaled(logits[answered], truth[answered], fitted, context.seed, config)
            found |= {in_mode(name, mode): metric for name, metric in scaled.items()}
    status, mode, reason = _judge(found, config.threshold, not_finite(missing, "are left out"))
    return CheckResult(
        check="calibration",
        status=status,
        reason=reason,
        metrics=found,
        details={"bins": bins, "mode": mode},
        arrays=arrays,
    )


def _examples(logits: NDArray[Any], truth: NDArray[Any]) -> dict[str, NDArray[Any]]:
    chances = np.sort(metrics.probabilities(logits), axis=1)
    return {
        "confidence": chances[:, -1],
        "margin": chances[:, -1] - chances[:, -2],
        "correct": logits.argmax(axis=1) == truth,
        "nll": metrics.nll(logits, truth),
        "brier": metrics.brier(logits, truth),
    }


def _spread(values: NDArray[Any], answered: NDArray[np.bool_]) -> NDArray[Any]:
    """Values of the answered examples as an array over all of them."""
    spread = np.full(answered.size, False if values.dtype == bool else np.nan, dtype=values.dtype)
    spread[answered] = values
    return spread


def _metrics(
    examples: Mapping[str, NDArray[Any]], seed: int, config: Config, names: Sequence[str] = MEASURES
) -> dict[str, Metric]:
    """Some of the measures; each costs a bootstrap or two."""
    confidence, correct = examples["confidence"], examples["correct"]

    def mean(values: NDArray[Any], unit: str) -> Metric:
        return metrics.mean(values, unit, seed, resamples=config.resamples)

    def error(scheme: metrics.Scheme) -> Metric:
        return metrics.calibration_error(confidence, correct, seed, config.bins, scheme, resamples=config.resamples)

    measures: dict[str, Callable[[], Metric]] = {
        "ece": lambda: error("width"),
        "ece_equal_mass": lambda: error("mass"),
        "margin": lambda: mean(examples["margin"], "fraction"),
        "overconfidence": lambda: mean(confidence - correct, "fraction"),
        "nll": lambda: mean(examples["nll"], "nats"),
        "brier": lambda: mean(examples["brier"], "squared distance"),
    }
    return {name: measures[name]() for name in names}


def _debiased(examples: Mapping[str, NDArray[Any]], ece: Metric, config: Config) -> Metric:
    value = metrics.ece(examples["confidence"], examples["correct"], config.bins, debiased=True)
    return Metric(value=value, unit="fraction", n=ece.n, interval=ece.interval)


def _bins(examples: Mapping[str, NDArray[Any]], config: Config) -> dict[str, Any]:
    def dumped(scheme: metrics.Scheme, level: str = "confidence") -> list[dict[str, Any]]:
        found = metrics.reliability_bins(examples[level], examples["correct"], config.bins, scheme, config.bin_level)
        return [b.model_dump() for b in found]

    return {"equal_width": dumped("width"), "equal_mass": dumped("mass"), "margin": dumped("width", "margin")}


def _held_out(context: Context, answered: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Which of the answered examples a temperature is fitted on: a fixed share of them, drawn by their keys."""
    from isthmus.core.randomness import fold, uniform

    draws = uniform(fold(context.keys, "calibration/fitted"), (1,)).squeeze(1).cpu().numpy()[answered]
    count = min(max(round(share * draws.size), _FEWEST), draws.size)
    if draws.size - count < _FEWEST:
        raise ModelError(
            f"{draws.size} images have finite logits; a temperature is fitted on {_FEWEST} of them at least, and "
            f"judged on as many others. Audit more images, or leave temperature out."
        )
    fitted: NDArray[np.bool_] = draws <= np.partition(draws, count - 1)[count - 1]
    return fitted


def _scaled(
    logits: NDArray[Any], truth: NDArray[Any], fitted: NDArray[np.bool_], seed: int, config: Config
) -> dict[str, Metric]:
    """The temperature, and what it does to examples that it has not seen."""
    temperature = metrics.fit_temperature(logits[fitted], truth[fitted])
    note = f"fitted on {int(fitted.sum())} other examples"
    found = {"temperature": Metric(value=temperature, unit="of the logits", n=int(fitted.sum()))}
    for when, scale in (("before", 1.0), ("after", temperature)):
        examples = _examples(logits[~fitted] / scale, truth[~fitted])
        measured = _metrics(examples, seed, config, SCALED)
        found |= {f"{name}_{when}": metric.model_copy(update={"note": note}) for name, metric in measured.items()}
    return found


def _judge(found: Mapping[str, Metric], threshold: float, missing: str) -> tuple[Status, str, str]:
    """Status, the mode that it is of, and why."""
    errors = {mode: found[name] for mode in (MEAN, STOCHASTIC) if (name := in_mode("ece", mode)) in found}
    above = {mode: e for mode, e in errors.items() if e.interval and e.interval.low > threshold}
    each = [
        f"{percent(error.value)}{interval(error)}{f' in {mode} mode' if len(errors) > 1 else ''}"
        for mode, error in (above or errors).items()
    ]
    said = f"the expected calibration error is {listed(each)}"
    if above:
        reason = f"Confidence does not match accuracy: {said}, all of it above {percent(threshold)}{missing}."
        return Status.WARN, blamed(above), reason
    status = Status.WARN if missing else Status.PASS
    return status, MEAN, f"{said[0].upper()}{said[1:]}, not shown to be above {percent(threshold)}{missing}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """The reliability diagram in mean mode, accuracy over the margin, all measures in both modes, the column "ECE"."""
    return calibration_page.section(results)
