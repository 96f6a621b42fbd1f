"""Does the classifier notice images that it was not made for?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks import ood_detection_page
from isthmus.checks.ood_detection_page import spoken
from isthmus.checks.ood_images import OutImages, drawn
from isthmus.checks.ood_scores import SAMPLES, Scores, left_out, scores
from isthmus.checks.ood_sources import OutConfig, UniformNoise, VerticalFlip, named
from isthmus.checks.security_curve import share
from isthmus.checks.views import MEAN, STOCHASTIC, clean_logits, in_mode, interval, listed, percent
from isthmus.core.config import Component
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.checks.context import Context

Found = dict[str, Metric]


class Config(Component):
    """What to show the classifier, and how to measure.

    Attributes:
        outs: ``"uniform_noise"``, ``"vertical_flip"``, a data set (``"mnist"``), ``"folder:PATH"`` with image files, or
            an attack that minimises the ℓ2 norm (``"cw"``, ``"cw:100"``, ``"fmn"``); with options as mappings.
        samples: codes an image for rate and ReX; 0 for the mean of e(z|x) instead.
        attacked: how many of the first images an attack gets; 100, or 1,000 with the full budget, where None.
        resamples: of every bootstrap.
    """

    name: Literal["ood_detection"] = "ood_detection"
    outs: Annotated[tuple[OutConfig, ...], Field(min_length=1)] = (UniformNoise(), VerticalFlip())
    samples: Annotated[int, Field(ge=0)] = SAMPLES
    attacked: Annotated[int, Field(gt=0)] | None = None
    resamples: Annotated[int, Field(gt=0)] = 1000


def run(context: Context, config: Config) -> CheckResult:
    """How well each score of the classifier tells each out-distribution from the audited images.

    Scores (:mod:`isthmus.checks.ood_scores`) are larger for what is more out-of-distribution. Of each are
    measured the false positive rate at 95% true positive rate with either class as the positive one, AUROC, and AUPR In
    and Out. Warns where no score is shown to tell an out-distribution from the audited images better than chance, and
    where scores are NaN; such images are left out. Skipped where there are fewer than two images of either kind.

    Arrays, one number per image: ``in_entropy`` and so on for each score of the audited images, ``mnist_entropy`` and
    so on for those of an out-distribution, with ``stochastic_`` before those of a stochastic mode; ``mnist_index``,
    which image of its source each is (of adversarial images and flips: which audited one).

    Raises:
        DataError, ConfigError: an out-distribution cannot be had; see :func:`isthmus.checks.ood_images.drawn`.
    """
    names = named(config.outs)
    parts = len(names) + 1
    outs = [
        drawn(out, name, context, config.attacked, share(context.progress, position, 2 * parts))
        for position, (out, name) in enumerate(zip(config.outs, names, strict=True))
    ]
    known = clean_logits(context)
    missing = left_out(context, known[MEAN])
    options: dict[str, Any] = {"samples": config.samples, "batch_size": context.batch_size, "seed": context.seed}

    def scored(images: Any, keys: Any, position: int, **more: Any) -> Scores:
        progress = share(context.progress, parts + position, 2 * parts)
        found = scores(context, images, keys, progress=progress, **options, **more)
        return {name: values for name, values in found.items() if name not in missing}

    inside = scored(context.images, context.keys, 0, known=known)
    outside = {out.name: scored(out, out.keys, position) for position, out in enumerate(outs, 1)}
    measured = {
        out: {name: _detection(inside[name], of[name], context.seed, config.resamples) for name in of}
        for out, of in outside.items()
    }
    gaps = {out.said: _gaps(outside[out.name]) for out in outs} | {"the audited ones": _gaps(inside)}
    status, reason = _judge(outs, measured, {said: count for said, count in gaps.items() if count})
    return CheckResult(
        check="ood_detection",
        status=status,
        reason=reason,
        metrics=_metrics(outs, measured),
        details={
            "outs": [_facts(out, _gaps(outside[out.name])) for out in outs],
            "scores": list(inside),
            "left_out": missing,
            "samples": config.samples,
        },
        arrays=_arrays(inside, outs, outside),
    )


def _detection(inside: NDArray[np.float64], outside: NDArray[np.float64], seed: int, resamples: int) -> Found:
    kept, others = (values[~np.isnan(values)] for values in (inside, outside))
    return metrics.detection_metrics(kept, others, seed, resamples=resamples)


def _gaps(of: Scores) -> int:
    """How many images lack a score."""
    return int(np.any([np.isnan(values) for values in of.values()], axis=0).sum()) if of else 0


def _name(out: str, score: str, metric: str) -> str:
    """Name of a metric, or without ``metric`` of an array: what belongs to a stochastic mode begins with that word."""
    mode, plain = (STOCHASTIC, score.removeprefix(f"{STOCHASTIC}_")) if score.startswith(STOCHASTIC) else (MEAN, score)
    return in_mode("_".join(part for part in (out, plain, metric) if part), mode)


def _metrics(outs: list[OutImages], measured: Mapping[str, Mapping[str, Found]]) -> Found:
    found: Found = {}
    for out in outs:
        if out.success is not None:
            found[f"{out.name}_attack_success"] = out.success
        for score, of in measured[out.name].items():
            found |= {_name(out.name, score, name): metric for name, metric in of.items() if metric.value is not None}
    return found


def _facts(out: OutImages, gaps: int) -> dict[str, Any]:
    return {"name": out.name, "said": out.said, "n": len(out), "notice": out.notice, "without_score": gaps}


def _arrays(inside: Scores, outs: list[OutImages], outside: Mapping[str, Scores]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {_name("in", score, ""): values for score, values in inside.items()}
    for out in outs:
        arrays |= {_name(out.name, score, ""): values for score, values in outside[out.name].items()}
        arrays[f"{out.name}_index"] = out.indices
    return arrays


def _judge(
    outs: list[OutImages], measured: Mapping[str, Mapping[str, Found]], gaps: Mapping[str, int]
) -> tuple[Status, str]:
    said: list[str] = []
    blind: list[str] = []
    none: list[str] = []
    for out in outs:
        of = {score: found["auroc"] for score, found in measured[out.name].items() if found["auroc"].value is not None}
        if not of:
            none.append(out.said)
            continue
        best = max(of, key=lambda score: of[score].value or 0.0)
        said.append(f"{percent(of[best].value)}{interval(of[best])} for {out.said} by {spoken(best)}")
        if not any(metric.interval is not None and metric.interval.low > 0.5 for metric in of.values()):
            blind.append(out.said)
    if not said:
        return Status.SKIPPED, f"Fewer than two images have a score, of the audited ones or of {listed(none)}."
    reason = f"AUROC against the audited images, by the best of the classifier's scores: {listed(said)}"
    if none:
        reason += f"; fewer than two images have a score of {listed(none)}"
    if blind:
        reason += f"; no score is shown to tell {listed(blind)} from the audited images"
    if gaps:
        counts = listed([f"{count} of {name}" for name, count in gaps.items()])
        reason += f"; images without a score (NaN or infinite answers) are left out: {counts}"
    return Status.WARN if blind or gaps else Status.PASS, f"{reason}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """For each out-distribution ROC curves and a table of all scores; how the scores are spread."""
    return ood_detection_page.section(results)
