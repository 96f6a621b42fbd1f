"""How often is the classifier right on images that noise, blur, weather or compression has changed?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from isthmus import metrics
from isthmus.checks import corruptions_page
from isthmus.checks.corruption_outcomes import Bools, Outcomes, applied, published
from isthmus.checks.views import MEAN, in_mode, interval, listed, not_finite, percent, points
from isthmus.core.config import Component
from isthmus.core.errors import DataError, unknown
from isthmus.core.types import CheckResult, Metric, Section, Status
from isthmus.metrics import ALEXNET, ALEXNET_CLEAN, CORRUPTIONS, SEVERITIES
from isthmus.metrics.corruption_intervals import RELATIVE

if TYPE_CHECKING:
    from isthmus.checks.context import Context

SEVERITIES_OF: Mapping[str, tuple[int, ...]] = {"quick": (1, 3, 5), "full": SEVERITIES}
"""Which severities each budget measures where the config names none."""
_IMAGENET_CLASSES = 1000

Share = Annotated[float, Field(ge=0, le=1)]


class Config(Component):
    """Which corruptions, and of which images.

    Attributes:
        corruptions: those to measure; an mCE over fewer than all 15 is not the benchmark's.
        severities: 1 to 5; (1, 3, 5) with the quick budget where None and all with the full one. An mCE needs all.
        parameters: "cifar10_c", "imagenet_c" or "mnist_c", for images of another size than theirs.
        frost: the folder with the photographs for frost; where None, the package ``imagecorruptions`` is looked for.
        benchmark: a published set, "cifar10_c" or "imagenet_c", in place of the audited images.
        path: its folder, where that is not in ``ISTHMUS_DATA``.
        limit: of its images.
        classes: names of the classifier's classes, in the order of its logits; ImageNet-C needs them.
        baseline: whose errors an mCE divides by: "alexnet", "none", or errors in [0, 1] of each corruption (five, by
            severity, or their mean). Where None, AlexNet for a classifier of 1,000 classes under ImageNet-C's
            corruptions, otherwise none.
        baseline_clean: the baseline's error on clean images, for the relative mCE.
    """

    name: Literal["corruptions"] = "corruptions"
    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] = CORRUPTIONS
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] | None = None
    parameters: Literal["cifar10_c", "imagenet_c", "mnist_c"] | None = None
    frost: Annotated[str, Field(min_length=1)] | None = None
    benchmark: Literal["cifar10_c", "imagenet_c"] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    classes: tuple[str, ...] | None = None
    baseline: Literal["alexnet", "none"] | dict[str, Share | tuple[Share, ...]] | None = None
    baseline_clean: Share | None = None

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


def run(context: Context, config: Config) -> CheckResult:
    """Accuracy under each corruption at each severity, the mean error, and an mCE where there is a baseline.

    Passes where it was measured: how much is enough is not for this check to say. Warns where logits are NaN or
    infinite, which counts as wrong. Skipped where corruptions are not defined for images of this size.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``correct_fog`` etc., bool[severities, n];
    ``clean_correct``, bool[n], on the same images, which a published set does not come with. And ``gallery``
    uint8[corruptions, h, w, c], the first image under each corruption.

    Raises:
        DataError: files of a published set or of frost are missing or damaged.
    """
    from isthmus.data.corruptions.apply import parameters_for

    parameters: str
    severities: tuple[int, ...]
    if config.benchmark:
        source = {key: getattr(config, key) for key in ("path", "limit")} | {"name": config.benchmark}
        outcomes = published(context, source, config.classes, config.corruptions)
        severities, parameters = SEVERITIES, config.benchmark
    else:
        try:
            parameters = parameters_for(context.images.shape[1:], config.parameters)
        except DataError as error:
            return CheckResult(check="corruptions", status=Status.SKIPPED, reason=str(error))
        severities = config.severities or SEVERITIES_OF[context.budget]
        outcomes = applied(context, parameters, config.corruptions, severities, config.frost)
    found: dict[str, Metric] = {}
    for mode, right in outcomes.right.items():
        summed = _summary(right, outcomes.clean.get(mode), severities, context, _baseline(config, parameters, context))
        found |= {in_mode(name, mode): metric for name, metric in summed.items()}
    missing = not_finite(outcomes.missing, "count as wrong") if any(outcomes.missing.values()) else ""
    return CheckResult(
        check="corruptions",
        status=Status.WARN if missing else Status.PASS,
        reason=_reason(outcomes, found, severities, missing),
        metrics=found,
        details={
            "severities": list(severities),
            "parameters": parameters,
            "benchmark": config.benchmark,
            "skipped": outcomes.skipped,
            "rounded": outcomes.rounded,
            "shown": list(outcomes.right[MEAN]) if outcomes.gallery is not None else [],
            "modes": {
                mode: _details(right, outcomes.clean.get(mode), context.seed) for mode, right in outcomes.right.items()
            },
            "errors": {mode: _errors(right) for mode, right in outcomes.right.items()},
        },
        arrays=_arrays(outcomes),
    )


def _baseline(config: Config, parameters: str, context: Context) -> tuple[Mapping[str, Any], float | None] | None:
    """The baseline's errors under corruption and on clean images."""
    imagenet = parameters == "imagenet_c" and context.num_classes == _IMAGENET_CLASSES
    given = config.baseline or ("alexnet" if imagenet else "none")
    if isinstance(given, dict):
        return given, config.baseline_clean
    return (ALEXNET, ALEXNET_CLEAN) if given == "alexnet" else None


def _summary(
    right: Mapping[str, Bools],
    clean: Bools | None,
    severities: tuple[int, ...],
    context: Context,
    baseline: tuple[Mapping[str, Any], float | None] | None,
) -> dict[str, Metric]:
    found = {"mean_error": metrics.measured_error(right, context.seed)}
    if clean is not None:
        found["added_error"] = metrics.measured_error(right, context.seed, clean)
    if baseline is None:
        return found
    errors, clean_error = baseline
    names = list(right)
    found["mce"] = _over_baseline(severities, right, lambda: metrics.measured_mce(right, context.seed, errors, names))
    if clean_error is not None and clean is not None:
        pair = errors, clean_error
        found["relative_mce"] = _over_baseline(
            severities, right, lambda: metrics.measured_relative_mce(right, clean, context.seed, pair, names)
        )
    return found


def _over_baseline(severities: tuple[int, ...], right: Mapping[str, Bools], measure: Callable[[], Metric]) -> Metric:
    """A mean relative to the baseline, with a note where it is not the benchmark's or cannot be formed."""
    n = next(iter(right.values())).shape[1]
    if severities != SEVERITIES:
        return Metric(value=None, unit=RELATIVE, n=n, note="needs all five severities")
    try:
        found = measure()
    except ValueError as error:  # the baseline makes no errors, or corruption adds none
        return Metric(value=None, unit=RELATIVE, n=n, note=str(error))
    part = "" if len(right) == len(CORRUPTIONS) else f"of {len(right)} corruptions: not the benchmark's"
    return found.model_copy(update={"note": part})


def _details(right: Mapping[str, Bools], clean: Bools | None, seed: int) -> dict[str, Any]:
    """Numbers of each corruption, and the mean accuracy over corruptions at each severity, clean images first."""
    each = {}
    for name, rows in right.items():
        each[name] = {
            "accuracy": [metrics.accuracy(row).model_dump() for row in rows],
            "error": metrics.measured_error({name: rows}, seed).model_dump(),
        }
        if clean is not None:
            each[name]["lost"] = [metrics.paired_difference(row, clean).model_dump() for row in rows]
            each[name]["added"] = metrics.measured_error({name: rows}, seed, clean).model_dump()
    stacked = np.stack(list(right.values()))
    over = [metrics.mean(stacked[:, place].mean(axis=0), "fraction", seed) for place in range(stacked.shape[1])]
    return {
        "corruptions": each,
        "by_severity": [metric.model_dump() for metric in over],
        "clean": None if clean is None else metrics.accuracy(clean).model_dump(),
    }


def _errors(right: Mapping[str, Bools]) -> dict[str, list[float]]:
    """Errors by severity, in the form that the option ``baseline`` takes where there are five."""
    return {name: [float(error) for error in errors] for name, errors in metrics.errors_by_severity(right).items()}


def _arrays(outcomes: Outcomes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for mode, right in outcomes.right.items():
        arrays |= {in_mode(f"correct_{name}", mode): rows for name, rows in right.items()}
        if mode in outcomes.clean:
            arrays[in_mode("clean_correct", mode)] = outcomes.clean[mode]
    return arrays if outcomes.gallery is None else arrays | {"gallery": outcomes.gallery}


def _reason(outcomes: Outcomes, found: Mapping[str, Metric], severities: tuple[int, ...], missing: str) -> str:
    right, error = outcomes.right[MEAN], found["mean_error"]
    wrong = {name: percent(1 - float(rows.mean())) for name, rows in right.items()}
    most = percent(1 - min(float(rows.mean()) for rows in right.values()))
    worst = listed([corruptions_page.spoken(name) for name in wrong if wrong[name] == most])
    said = (
        f"Over {len(right)} corruptions at severities {listed([str(s) for s in severities])}, {percent(error.value)} "
        f"of the answers to {error.n} images are wrong{interval(error)}"
    )
    if "added_error" in found:
        added = found["added_error"].value or 0.0
        said += f", {points(added)} {'more' if added >= 0 else 'fewer'} than of the clean images"
    said += f"; most under {worst}, {most}{missing}."
    if outcomes.rounded:
        said += " The images were rounded to bytes before they were corrupted."
    for name, why in outcomes.skipped.items():
        said += f" Not measured: {corruptions_page.spoken(name)}. {why}"
    return said


def section(results: Mapping[str, CheckResult]) -> Section:
    """Accuracy against severity, a table by corruption, the summary, and how the corruptions look."""
    return corruptions_page.section(results)
