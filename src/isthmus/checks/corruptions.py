"""Accuracy on images that are corrupted by noise, blur, weather or compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from isthmus import metrics
from isthmus.checks.check import Check, arrays_of, metrics_of, not_finite
from isthmus.checks.context import MEAN, Context, correct, finite, part, spread
from isthmus.checks.shift import predicted, under_corruptions
from isthmus.core.errors import DataError, unknown
from isthmus.core.format import corruption_title, interval, listed, percent, points
from isthmus.core.types import CheckResult, Coordinate, Metric, Metrics, Status
from isthmus.data.corruptions import weather
from isthmus.data.corruptions.apply import corrupt, parameters_for
from isthmus.data.decode import need_pillow
from isthmus.data.shift.shifted import Shifted
from isthmus.metrics import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS, SEVERITIES
from isthmus.metrics.corruption_intervals import RELATIVE

SEVERITIES_OF: Mapping[str, tuple[int, ...]] = {"quick": (1, 3, 5), "full": SEVERITIES}
"""The severities of each budget, if the option names none."""
_IMAGENET_CLASSES = 1000
_RESAMPLES = 200  # of bootstraps for each corruption and severity, of which there are up to 75

Bools = NDArray[np.bool_]
Fraction = Annotated[float, Field(ge=0, le=1)]
Baseline = tuple[Mapping[str, Any], float | None]
"""A baseline's errors under corruption and on clean images."""


class Predictions(NamedTuple):
    """Of each image: whether it is classified correctly, its confidence, and −log p of its label in nats.

    Without finite logits an image is wrong, and the numbers are NaN.
    """

    right: Bools
    confidence: NDArray[np.float32]
    nll: NDArray[np.float32]

    @classmethod
    def of(cls, logits: NDArray[Any], truth: NDArray[np.int64]) -> Predictions:
        """Those of logits and true labels."""
        known = finite(logits)
        confidence = metrics.probabilities(logits[known]).max(axis=1).astype(np.float32)
        nll = metrics.nll(logits[known], truth[known]).astype(np.float32)
        return cls(correct(logits, truth), spread(confidence, known), spread(nll, known))


@dataclass
class Outcomes:
    """Which images are classified correctly under which corruption, and with what confidence.

    Attributes:
        found: mode -> corruption -> predictions at each severity.
        clean: mode -> bool[n] on the same images without corruption; empty if these are not available.
        missing: mode -> number of predictions with NaN or infinite logits; they count as wrong.
        skipped: corruption -> why it was not measured.
        rounded: whether the images were rounded to bytes first.
        gallery: uint8[h, w, c], the first image under each corruption at the last severity.
    """

    found: dict[str, dict[str, list[Predictions]]]
    clean: dict[str, Bools] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rounded: bool = False
    gallery: list[NDArray[np.uint8]] = field(default_factory=list)

    @property
    def right(self) -> dict[str, dict[str, Bools]]:
        """mode -> corruption -> bool[severities, n]."""
        return {
            mode: {name: np.stack([each.right for each in rows]) for name, rows in of.items()}
            for mode, of in self.found.items()
        }


class Corruptions(Check):
    """Error under the corruptions of Hendrycks & Dietterich 2019, with intervals over images.

    The audited images are corrupted here, or a published set is read. Every image counts with all its corrupted
    versions.

    Metrics, each by mode: ``mean_error`` over corruptions and severities, and by ``corruption``; ``added_error``, that
    less the error on clean images, and by ``corruption``; ``mce`` and ``relative_mce`` if there is a baseline;
    ``accuracy`` on clean images, by ``severity`` (mean over corruptions), and by ``corruption`` and ``severity``;
    ``accuracy_loss``, ``ece`` (20 bins of equal width) and ``nll`` in nats by ``corruption`` and ``severity``, ``nll``
    also by ``severity`` (mean over corruptions). A published set has no clean images, so what needs them is
    absent.

    A measurement without a threshold. Warns if logits are NaN or infinite; these count as wrong. Skipped if the images
    have a size that no published parameters fit.

    Arrays, in mean mode and again with ``stochastic_`` before the name: for each corruption ``correct_NAME``
    bool[severities, n], and ``confidence_NAME`` and ``nll_NAME`` float[severities, n], NaN without finite logits;
    ``clean_correct`` bool[n], not for a published set. And ``gallery`` uint8[corruptions, h, w, c], the first image
    under each corruption.

    Attributes:
        corruptions: those to measure; an mCE over fewer than all 15 is not the benchmark's.
        severities: 1 to 5; if None, (1, 3, 5) with the quick budget and all with the full one. An mCE needs all.
        parameters: "cifar10_c", "imagenet_c" or "mnist_c", for images of another size than theirs.
        frost: the folder with the photographs for frost; if None, those of the package ``imagecorruptions``.
        benchmark: a published set, "cifar10_c", "cifar100_c" or "imagenet_c", instead of the audited images.
        path: its folder, unless that is in ``ISTHMUS_DATA``.
        limit: number of its images.
        classes: names of the classifier's classes, in the order of its logits; ImageNet-C needs them.
        baseline: whose errors an mCE divides by: "alexnet", "none", or errors in [0, 1] of each corruption (five, by
            severity, or their mean). If None, AlexNet for a classifier of 1,000 classes under ImageNet-C's
            corruptions, otherwise none.
        baseline_clean: the baseline's error on clean images, for the relative mCE.
    """

    name: Literal["corruptions"] = "corruptions"
    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] = CORRUPTIONS
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] | None = None
    parameters: Literal["cifar10_c", "imagenet_c", "mnist_c"] | None = None
    frost: Annotated[str, Field(min_length=1)] | None = None
    benchmark: Literal["cifar10_c", "cifar100_c", "imagenet_c"] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    classes: tuple[str, ...] | None = None
    baseline: Literal["alexnet", "none"] | dict[str, Fraction | tuple[Fraction, ...]] | None = None
    baseline_clean: Fraction | None = None

    @field_validator("corruptions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CORRUPTIONS:
                raise ValueError(unknown("corruption", name, CORRUPTIONS))
        return tuple(name for name in CORRUPTIONS if name in value)

    @field_validator("severities")
    @classmethod
    def _ascending(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if value is None else tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _of_one_source(self) -> Self:
        ours = [name for name in ("severities", "parameters", "frost") if getattr(self, name) is not None]
        theirs = [name for name in ("path", "limit", "classes") if getattr(self, name) is not None]
        if self.benchmark and ours:
            raise ValueError(f"{ours[0]} is for corruptions applied here; a benchmark's images are already corrupted")
        if not self.benchmark and theirs:
            raise ValueError(f"{theirs[0]} is an option of a published benchmark; name one as benchmark")
        if isinstance(self.baseline, dict):
            metrics.corruption_errors(self.baseline, None, self.corruptions)  # says what does not fit
        return self

    def run(self, context: Context) -> CheckResult:
        """Measure the error under corruption.

        Raises:
            DataError: files of a published set or of frost are missing or damaged.
        """
        severities: tuple[int, ...]
        parameters: str
        if self.benchmark:
            outcomes, severities, parameters = self._published(context), SEVERITIES, self.benchmark
        else:
            try:
                parameters = parameters_for(context.images.shape[1:], self.parameters)
            except DataError as error:
                return CheckResult(check=self.name, status=Status.SKIPPED, reason=str(error))
            severities = self.severities or SEVERITIES_OF[context.budget]
            outcomes = self._applied(context, parameters, severities)
        baseline = self._baseline(parameters, context)
        by_mode = {
            mode: [
                *_metrics(right, outcomes.clean.get(mode), severities, context.seed, baseline),
                *_calibration(outcomes.found[mode], severities, context.seed),
            ]
            for mode, right in outcomes.right.items()
        }
        found = Metrics(metrics_of(by_mode))
        missing = not_finite(outcomes.missing, "count as wrong")
        return CheckResult(
            check=self.name,
            status=Status.WARN if missing else Status.MEASURED,
            reason=_reason(outcomes, found, severities, missing),
            metrics=found,
            thresholds={"not_finite": 0.0},
            details={
                "corruptions": list(outcomes.right[MEAN]),
                "severities": list(severities),
                "parameters": parameters,
                "benchmark": self.benchmark,
                "skipped": outcomes.skipped,
                "rounded": outcomes.rounded,
                "modes": list(outcomes.right),
                "errors": {mode: _errors(right) for mode, right in outcomes.right.items()},
            },
            arrays=_arrays(outcomes),
        )

    def _baseline(self, parameters: str, context: Context) -> Baseline | None:
        imagenet = parameters == "imagenet_c" and context.num_classes == _IMAGENET_CLASSES
        given = self.baseline or ("alexnet" if imagenet else "none")
        if isinstance(given, dict):
            return given, self.baseline_clean
        return (ALEXNET, ALEXNET_CLEAN) if given == "alexnet" else None

    def _applied(self, context: Context, parameters: str, severities: Sequence[int]) -> Outcomes:
        """Corrupt the audited images, batch by batch, and classify them in all modes."""
        pixels = context.images * 255.0
        levels = pixels.round()
        photographs, skipped = _needs(parameters, self.corruptions, len(context.images[0]), self.frost)
        measured = [name for name in self.corruptions if name not in skipped]
        if not measured:
            raise DataError(f"No corruption can be measured: {' '.join(skipped.values())}")
        outcomes = Outcomes(
            found={mode: {} for mode in context.modes},
            clean={mode: correct(logits, context.truth) for mode, logits in context.clean_logits().items()},
            missing=dict.fromkeys(context.modes, 0),
            skipped=skipped,
            rounded=bool((pixels - levels).abs().max() > 1e-3),
        )

        def load(name: str, severity: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            keys = context.rows(rows)[1]
            return corrupt(levels[rows].byte(), name, severity, keys, parameters, photographs), keys

        for number, name in enumerate(measured):
            for of in outcomes.found.values():
                of[name] = []
            for place, severity in enumerate(severities):
                progress = part(context.progress, number * len(severities) + place, len(measured) * len(severities))
                logits = context.predictions(partial(load, name, severity), progress=progress)
                for mode, found in logits.items():
                    outcomes.found[mode][name].append(Predictions.of(found, context.truth))
                    outcomes.missing[mode] += int((~finite(found)).sum())
            first, _ = load(name, severities[-1], torch.arange(1))
            outcomes.gallery.append(first[0].permute(1, 2, 0).cpu().numpy())
        return outcomes

    def _published(self, context: Context) -> Outcomes:
        """Classify a published set of corrupted images in all modes, at its five severities."""
        source = {"name": self.benchmark, "path": self.path, "limit": self.limit}

        def measured(model: nn.Module, shifted: Shifted) -> Predictions:
            logits, labels = (
                torch.cat(parts).numpy()
                for parts in zip(*predicted(model, shifted, context.batch_size, context.seed), strict=True)
            )
            right = shifted.predictions(torch.from_numpy(logits)).numpy() == labels
            return Predictions.of(logits, labels)._replace(right=right)

        return Outcomes(
            context.by_mode(
                lambda model, progress: under_corruptions(
                    source, self.classes, self.corruptions, partial(measured, model), progress
                )
            )
        )


def _needs(
    parameters: str, corruptions: Sequence[str], channels: int, frost: str | None
) -> tuple[tuple[Tensor, ...] | None, dict[str, str]]:
    """Photographs for frost, if needed and available, and corruptions that lack files or Pillow, with the reason."""
    skipped = {}
    try:
        need_pillow()
    except DataError as error:
        skipped = {name: str(error) for name in ("frost", "jpeg_compression") if name in corruptions}
    if "frost" not in corruptions or "frost" in skipped:
        return None, skipped
    folder = frost or weather.frost_folder()
    if folder is None:
        skipped["frost"] = (
            "Frost is added from photographs that are not part of isthmus; name their folder in the option frost. "
            f"{weather.GET}"
        )
        return None, skipped
    return weather.load_frost(folder, channels, shrunk=parameters == "cifar10_c"), skipped


def _metrics(
    right: Mapping[str, Bools], clean: Bools | None, severities: tuple[int, ...], seed: int, baseline: Baseline | None
) -> list[Metric]:
    """All metrics of one mode."""

    def errors(of: Mapping[str, Bools], **coords: Coordinate) -> Iterator[Metric]:
        yield metrics.measured_error(of, seed).named("mean_error", **coords)
        if clean is not None:
            yield metrics.measured_error(of, seed, clean).named("added_error", **coords)

    found = [*errors(right), *_relative(right, clean, severities, seed, baseline)]
    if clean is not None:
        found.append(metrics.accuracy(clean).named("accuracy"))
    stacked = np.stack(list(right.values()))
    for place, severity in enumerate(severities):
        over = metrics.mean(stacked[:, place].mean(axis=0), "fraction", seed)
        found.append(over.named("accuracy", severity=severity))
    for name, rows in right.items():
        found += errors({name: rows}, corruption=name)
        for severity, row in zip(severities, rows, strict=True):
            at: dict[str, Coordinate] = {"corruption": name, "severity": severity}
            found.append(metrics.accuracy(row).named("accuracy", **at))
            if clean is not None:
                found.append(metrics.paired_difference(row, clean).named("accuracy_loss", **at))
    return found


def _calibration(found: Mapping[str, list[Predictions]], severities: Sequence[int], seed: int) -> Iterator[Metric]:
    """Calibration error and loss, by corruption and severity; the loss also by severity, over all corruptions."""
    for place, severity in enumerate(severities):
        losses = np.stack([rows[place].nll for rows in found.values()]).mean(axis=0, dtype=np.float64)
        yield _mean_loss(losses, seed).named("nll", severity=severity)
    for name, rows in found.items():
        for severity, each in zip(severities, rows, strict=True):
            known = ~np.isnan(each.nll)
            at: dict[str, Coordinate] = {"corruption": name, "severity": severity}
            error = metrics.calibration_error(each.confidence[known], each.right[known], seed, resamples=_RESAMPLES)
            yield error.named("ece", **at)
            yield _mean_loss(each.nll, seed).named("nll", **at)


def _mean_loss(losses: NDArray[Any], seed: int) -> Metric:
    return metrics.mean(losses[~np.isnan(losses)], "nats", seed, resamples=_RESAMPLES)


def _relative(
    right: Mapping[str, Bools], clean: Bools | None, severities: tuple[int, ...], seed: int, baseline: Baseline | None
) -> Iterator[Metric]:
    """The errors relative to a baseline's."""
    if baseline is None:
        return
    errors, clean_error = baseline
    names = list(right)
    mce = partial(metrics.measured_mce, right, seed, errors, names)
    yield _over_baseline(severities, right, mce).named("mce")
    if clean_error is not None and clean is not None:
        relative = partial(metrics.measured_relative_mce, right, clean, seed, (errors, clean_error), names)
        yield _over_baseline(severities, right, relative).named("relative_mce")


def _over_baseline(severities: tuple[int, ...], right: Mapping[str, Bools], measure: Callable[[], Metric]) -> Metric:
    """A mean relative to the baseline, with a note if it is not the benchmark's or cannot be formed."""
    n = next(iter(right.values())).shape[1]
    if severities != SEVERITIES:
        return Metric(value=None, unit=RELATIVE, n=n, note="needs all five severities")
    try:
        found = measure()
    except ValueError as error:  # the baseline makes no errors, or corruption adds none
        return Metric(value=None, unit=RELATIVE, n=n, note=str(error))
    part = "" if len(right) == len(CORRUPTIONS) else f"of {len(right)} corruptions: not the benchmark's"
    return found.model_copy(update={"note": part})


def _errors(right: Mapping[str, Bools]) -> dict[str, list[float]]:
    """Errors by severity, in the form that the option ``baseline`` takes if there are five."""
    return {name: [float(error) for error in errors] for name, errors in metrics.errors_by_severity(right).items()}


def _arrays(outcomes: Outcomes) -> dict[str, NDArray[Any]]:
    named: dict[str, dict[str, NDArray[Any]]] = {
        mode: {f"correct_{name}": rows for name, rows in right.items()} for mode, right in outcomes.right.items()
    }
    for mode, of in outcomes.found.items():
        for name, rows in of.items():
            named[mode][f"confidence_{name}"] = np.stack([each.confidence for each in rows])
            named[mode][f"nll_{name}"] = np.stack([each.nll for each in rows])
    clean = {mode: {"clean_correct": right} for mode, right in outcomes.clean.items()}
    return arrays_of(named) | arrays_of(clean) | ({"gallery": np.stack(outcomes.gallery)} if outcomes.gallery else {})


def _reason(outcomes: Outcomes, found: Metrics, severities: tuple[int, ...], missing: str) -> str:
    right, error = outcomes.right[MEAN], found.one("mean_error", mode=MEAN)
    wrong = {name: percent(1 - float(rows.mean())) for name, rows in right.items()}
    most = percent(1 - min(float(rows.mean()) for rows in right.values()))
    worst = listed([corruption_title(name) for name in wrong if wrong[name] == most])
    reason = (
        f"Over {len(right)} corruptions at severities {listed([str(s) for s in severities])}, {percent(error.value)} "
        f"of the predictions for {error.n} images are wrong{interval(error)}"
    )
    if added := found.get("added_error", mode=MEAN):
        difference = added.value or 0.0
        reason += f", {points(difference)} {'more' if difference >= 0 else 'fewer'} than for the clean images"
    reason += f"; most under {worst}, {most}{missing}."
    if outcomes.rounded:
        reason += " The images were rounded to bytes before they were corrupted."
    for name, why in outcomes.skipped.items():
        reason += f" Not measured: {corruption_title(name)}. {why}"
    return reason
