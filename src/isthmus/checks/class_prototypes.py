"""What does the classifier send back, from a label to an image? A prototype of each class, grown out of noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks import class_prototypes_page
from isthmus.checks.prototype_search import Population, Prototypes, cosine, grow
from isthmus.checks.security_curve import share
from isthmus.checks.views import MEAN, STOCHASTIC, in_mode, labels, listed, percent
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from isthmus.checks.context import Context

SHOWN = 20
"""Prototypes that the page shows, at most."""

_NAMED = 5  # classes that the reason names
_UNIT = "of an image's"


class Config(Component):
    """Which prototypes, and how far to go.

    Attributes:
        each: prototypes of each class, from different noise.
        classes: whose; all where None.
        confidence: that ends the ascent; 0.9995 is 1.000 to three decimals.
        step_size: length of a step, in units of images in [0, 1].
        steps: at most so many.
        noise: standard deviation of the noise to start from, as a share of the images'.
        loss: what the steps descend; "log_odds" has the direction of the cross-entropy, without its rounding to zero.
    """

    name: Literal["class_prototypes"] = "class_prototypes"
    each: Annotated[int, Field(gt=0)] = 1
    classes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    steps: Annotated[int, Field(gt=0)] = 1000
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "log_odds"


def run(context: Context, config: Config) -> CheckResult:
    """From X ~ N(μ, (σ/100)²), descend the cross-entropy of a class in X until it is predicted with full confidence.

    After "A Rate-Distortion Theory of Adversarial Examples", figure 4, where a model of little excess capacity gives
    legible digits in about 100 steps. μ and σ are mean and standard deviation of each channel, over all pixels of the
    audited images: as in the paper, whose images are whitened, the start has no shape of its own. Steps have one length
    along the gradient, and nothing holds a prototype x in [0, 1].

    Means over the prototypes that got there: ``steps``; ``distance`` ‖x − μ‖₂; ``relative_distance``, that over the
    mean of the audited images'; ``similarity``, the cosine of x − μ with m − μ, m being the mean of the class's audited
    images. ``image_similarity`` is that of the audited images, each with the mean of the others of its class. A
    prototype near to the start and unlike its class is an image that fools (Nguyen et al. 2015, arXiv:1412.1897).

    Passes where all got there: how much a prototype is to look like its class is not for this check to say. Warns where
    some did not within ``config.steps``.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``prototypes`` float32[k, c, h, w];
    ``prototype_steps`` int[k], −1 where they were not enough; ``prototype_confidence`` float[k], NaN where logits are
    not finite. And ``prototype_class`` int[k]; ``class_means`` float32[up to 20, c, h, w], of the classes that the page
    shows, NaN where no image of one was audited.

    Raises:
        ConfigError: a class that the classifier does not have.
        ModelError: the model has no gradient.
    """
    classes = _classes(config, context.num_classes)
    population = Population.of(context.images.cpu().numpy(), labels(context))
    modes = {MEAN: context.model} | ({} if context.stochastic is None else {STOCHASTIC: context.stochastic})
    found: dict[str, Metric] = {}
    arrays: dict[str, NDArray[Any]] = {"prototype_class": classes}
    grown: dict[str, Prototypes] = {}
    for position, (mode, model) in enumerate(modes.items()):
        progress = share(context.progress, position, len(modes))
        own = grown[mode] = grow(model, context, config, classes, population, progress)
        found |= {in_mode(name, mode): m for name, m in _metrics(own, classes, population, context.seed).items()}
        arrays[in_mode("prototypes", mode)] = own.images
        arrays[in_mode("prototype_steps", mode)] = own.steps
        arrays[in_mode("prototype_confidence", mode)] = own.confidence
    found["image_similarity"] = metrics.mean(_known(population.similarities()), "cosine", context.seed)
    means = population.class_means(classes[:SHOWN]).reshape(-1, *population.shape) + population.mean[:, None, None]
    arrays["class_means"] = means.astype(np.float32)
    return CheckResult(
        check="class_prototypes",
        status=Status.PASS if all(of.reached.all() for of in grown.values()) else Status.WARN,
        reason=_reason(found, grown, classes, config),
        metrics=found,
        details={
            "mean": population.mean.tolist(),
            "passes": {mode: [of.forward_passes, of.backward_passes] for mode, of in grown.items()},
        },
        arrays=arrays,
    )


def _classes(config: Config, classes: int) -> NDArray[np.int64]:
    """The class of each prototype: one of every class before the second of any."""
    chosen = config.classes or tuple(range(classes))
    if max(chosen) >= classes:
        raise ConfigError(f"The classifier has the classes 0 to {classes - 1}; there is no class {max(chosen)}.")
    return np.tile(np.array(sorted(set(chosen)), dtype=np.int64), config.each)


def _metrics(own: Prototypes, classes: NDArray[np.int64], population: Population, seed: int) -> dict[str, Metric]:
    there = own.reached
    away = population.around(own.images[there])
    distance = np.linalg.norm(away, axis=1)
    usual = float(np.linalg.norm(population.centred, axis=1).mean())
    similarity = cosine(away, population.class_means(classes[there])) if there.any() else np.empty(0)
    found = {
        "reached": metrics.accuracy(there),
        "steps": metrics.mean(own.steps[there], "steps", seed),
        "distance": metrics.mean(distance, "ℓ2", seed),
        "relative_distance": metrics.mean(distance / usual if usual else [], _UNIT, seed),
        "similarity": metrics.mean(_known(similarity), "cosine", seed),
    }
    return {
        name: m if m.value is not None else m.model_copy(update={"note": "none to measure"})
        for name, m in found.items()
    }


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _reason(
    found: Mapping[str, Metric], grown: Mapping[str, Prototypes], classes: NDArray[np.int64], config: Config
) -> str:
    reached, steps, near, alike, images = (
        found[name] for name in ("reached", "steps", "relative_distance", "similarity", "image_similarity")
    )
    said = f"{int(grown[MEAN].reached.sum())} of {reached.n} prototypes grow out of noise to a confidence of "
    said += f"{config.confidence:g}"
    if steps.value is not None:
        said += f", in {steps.value:.0f} steps of {config.step_size:g} on average"
    if near.value is not None:
        said += f"; they are {percent(near.value)} as far from the mean as images are"
    if alike.value is not None:
        said += f", and their cosine with the mean of their class is {alike.value:.2f}"
        said += "" if images.value is None else f" (of images: {images.value:.2f})"
    for mode, own in grown.items():
        short = [str(label) for label in np.unique(classes[~own.reached])]
        if short:
            which = (
                listed(short) if len(short) <= _NAMED else f"{len(short)} classes, such as {', '.join(short[:_NAMED])}"
            )
            said += f"; {config.steps} steps are not enough in {mode} mode for {which}"
    return f"{said}."


def section(results: Mapping[str, CheckResult]) -> Section:
    """The prototypes as they are and enlarged, beside the means of their classes; a table; two columns."""
    return class_prototypes_page.section(results)
