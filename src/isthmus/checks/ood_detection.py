"""Out-of-distribution detection: how well scores of the classifier separate other images from the audited ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from isthmus import metrics
from isthmus.checks.check import Check
from isthmus.checks.context import MEAN, Context, Progress, part
from isthmus.checks.ood_images import (
    OutDistribution,
    OutImages,
    UniformNoise,
    VerticalFlip,
    expanded,
    names_of,
    out_images,
)
from isthmus.checks.ood_scores import SAMPLES, SCORES, Score, Scorer, Scores, unavailable
from isthmus.checks.other_data import DataSet, known_training
from isthmus.checks.scores.fitting import FittedScores, OODScores, fit_scores
from isthmus.checks.scores.fitting import names_of as names_of_scores
from isthmus.checks.trained_on import TrainedOn
from isthmus.core.format import interval, listed, percent
from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.data.order import balanced

_POSITIVE = {
    "fpr95_in": "in-distribution is the positive class",
    "fpr95_out": "out-of-distribution is the positive class",
    "aupr_in": "in-distribution is the positive class",
    "aupr_out": "out-of-distribution is the positive class",
}

Detection = Mapping[Score, Mapping[str, Metric]]
"""Metrics of one out-distribution, by score and name."""


class OODDetection(Check):
    """How well each score (:mod:`isthmus.checks.ood_scores`) separates each out-distribution from the audited images.

    Metrics by ``data``, ``score`` and, for scores of predictions, ``mode``: ``auroc``; ``fpr95_in`` and ``fpr95_out``,
    the false positive rate at 95% true positive rate with either class as the positive one; ``aupr_in`` and
    ``aupr_out``. For an attack also ``attack_success`` by ``data``.

    A measurement; warns if no score is shown to separate an out-distribution better than chance (AUROC 0.5), and if
    scores are NaN; such images are left out. Skipped if there are fewer than two images of either kind.

    Arrays, one number per image: ``in_entropy`` and so on for each score of the audited images, ``mnist_entropy`` and
    so on for those of an out-distribution, with ``stochastic_`` before those of a stochastic mode; ``mnist_index``,
    the image's index in its source (for adversarial examples and flips: the audited image).

    Attributes:
        outs: ``"uniform_noise"``, ``"vertical_flip"``, a data set (``"mnist"``), ``"folder:PATH"`` with image files,
            ``"openood:cifar10/near"`` (:mod:`isthmus.data.openood`), ``"imagenet_o"``, or an attack
            that minimises the ℓ2 norm (``"cw"``, ``"cw:100"``, ``"fmn"``); with options as mappings.
        scores: further scores (:mod:`isthmus.checks.scores`): ``"mahalanobis"``, ``"knn"``, ``"vim"``, ``"react"``,
            ``"odin"``, ``module:function`` or ``module:Name``; with options as mappings. Of the mean mode.
        training: the data set whose training split scores are fitted on ("cifar10"), if the audit was given no training
            examples.
        fitted_on: number of training images for these, class-balanced; all if there are fewer.
        samples: codes per image for rate and ReX; 0 for the mean of e(z|x) instead.
        attacked: number of images for an attack, the first; if None 100, or 1,000 with the full budget.
        resamples: of every bootstrap.
    """

    name: Literal["ood_detection"] = "ood_detection"
    outs: Annotated[tuple[OutDistribution, ...], Field(min_length=1), BeforeValidator(expanded)] = (
        UniformNoise(),
        VerticalFlip(),
    )
    scores: tuple[OODScores, ...] = ()
    training: DataSet | None = None
    fitted_on: Annotated[int, Field(ge=2)] = 10_000
    samples: Annotated[int, Field(ge=0)] = SAMPLES
    attacked: Annotated[int, Field(gt=0)] | None = None
    resamples: Annotated[int, Field(gt=0)] = 1000

    def run(self, context: Context) -> CheckResult:
        """Measure detection.

        Raises:
            DataError, ConfigError: an out-distribution is not available; see
                :func:`isthmus.checks.ood_images.out_images`.
        """
        names = names_of(self.outs)
        sets = len(names) + 1
        progress = [part(context.progress, position, 2 * sets) for position in range(2 * sets)]
        outs = [
            out_images(out, name, context, self.attacked, own)
            for out, name, own in zip(self.outs, names, progress[1:sets], strict=True)
        ]
        clean = context.clean_logits()
        known = known_training(self.training, context) if any(score.uses_training for score in self.scores) else None
        fitted = self._fitted(context, known, progress[0])
        missing = {**unavailable(context, clean[MEAN]), **fitted.missing}
        scorer = Scorer(context, self.samples, context.batch_size, context.seed, fitted)
        given: list[tuple[Any, Any, Any]] = [
            (context.images, context.keys, clean),
            *((out, out.keys, None) for out in outs),
        ]
        inside, *others = (
            _available(scorer(images, keys, logits, own), missing)
            for (images, keys, logits), own in zip(given, progress[sets:], strict=True)
        )
        outside = dict(zip(names, others, strict=True))
        measured = {
            name: {score: self._detection(inside[score], of[score], context.seed) for score in of}
            for name, of in outside.items()
        }
        gaps = {out.title: _gaps(outside[out.name]) for out in outs} | {"the audited ones": _gaps(inside)}
        status, reason = _judge(outs, measured, {title: count for title, count in gaps.items() if count})
        for name, cause in fitted.missing.items():
            reason = f"{reason.removesuffix('.')}; the score {name} is not available: {cause}."
        return CheckResult(
            check=self.name,
            status=status,
            reason=reason,
            metrics=_metrics(outs, measured),
            thresholds={"auroc": 0.5},
            details={
                "outs": [_facts(out, _gaps(outside[out.name])) for out in outs],
                "scores": [{**score.coords, "title": score.title} for score in inside],
                "left_out": missing,
                "samples": self.samples,
                "fitted_on": fitted.fitted_on,
            }
            | self._depends_on(known),
            arrays=_arrays(inside, outs, outside),
        )

    def _fitted(self, context: Context, known: TrainedOn | None, progress: Progress) -> FittedScores:
        names = names_of_scores(self.scores, SCORES)
        examples = known.examples.select(balanced(known.examples.labels.cpu())[: self.fitted_on]) if known else None
        few = context.images[:8]
        scores = dict(zip(names, self.scores, strict=True))
        return fit_scores(scores, context.model, few, examples, context.batch_size, context.seed, progress)

    def _depends_on(self, known: TrainedOn | None) -> dict[str, Any]:
        """The hash of the audit's training examples, or None, if the result depends on them."""
        if self.training is not None or not any(score.uses_training for score in self.scores):
            return {}
        return {"trained_on": known.hash if known else None}

    def _detection(self, inside: NDArray[np.float64], outside: NDArray[np.float64], seed: int) -> dict[str, Metric]:
        kept, others = (values[~np.isnan(values)] for values in (inside, outside))
        return metrics.detection_metrics(kept, others, seed, resamples=self.resamples)


def _available(found: Scores, missing: Mapping[str, str]) -> Scores:
    return {score: values for score, values in found.items() if score.name not in missing}


def _gaps(of: Scores) -> int:
    """Number of images without a score."""
    return int(np.any([np.isnan(values) for values in of.values()], axis=0).sum()) if of else 0


def _metrics(outs: Sequence[OutImages], measured: Mapping[str, Detection]) -> Metrics:
    found = []
    for out in outs:
        if out.success is not None:
            found.append(out.success.named("attack_success", data=out.name))
        for score, of in measured[out.name].items():
            found += [
                metric.model_copy(update={"note": _POSITIVE.get(name, "")}).named(name, data=out.name, **score.coords)
                for name, metric in of.items()
                if metric.value is not None
            ]
    return Metrics(found)


def _facts(out: OutImages, gaps: int) -> dict[str, Any]:
    return {"name": out.name, "title": out.title, "n": len(out), "notice": out.notice, "without_score": gaps}


def _arrays(inside: Scores, outs: Sequence[OutImages], outside: Mapping[str, Scores]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {score.array("in"): values for score, values in inside.items()}
    for out in outs:
        arrays |= {score.array(out.name): values for score, values in outside[out.name].items()}
        arrays[f"{out.name}_index"] = out.indices
    return arrays


def _judge(outs: Sequence[OutImages], measured: Mapping[str, Detection], gaps: Mapping[str, int]) -> tuple[Status, str]:
    best_areas: list[str] = []
    undetected: list[str] = []
    too_few: list[str] = []
    for out in outs:
        areas = {score: found["auroc"] for score, found in measured[out.name].items()}
        areas = {score: area for score, area in areas.items() if area.value is not None}
        if not areas:
            too_few.append(out.title)
            continue
        best = max(areas, key=lambda score: areas[score].value or 0.0)
        best_areas.append(f"{percent(areas[best].value)}{interval(areas[best])} for {out.title} by {best.title}")
        if not any(area.interval is not None and area.interval.low > 0.5 for area in areas.values()):
            undetected.append(out.title)
    if not best_areas:
        return Status.SKIPPED, f"Fewer than two images have a score, of the audited ones or of {listed(too_few)}."
    reason = f"AUROC against the audited images, by the best of the classifier's scores: {listed(best_areas)}"
    if too_few:
        reason += f"; fewer than two images have a score of {listed(too_few)}"
    if undetected:
        reason += f"; no score is shown to separate {listed(undetected)} from the audited images"
    if gaps:
        counts = listed([f"{count} of {title}" for title, count in gaps.items()])
        reason += f"; images without a score (NaN or infinite logits) are left out: {counts}"
    return Status.WARN if undetected or gaps else Status.MEASURED, f"{reason}."
