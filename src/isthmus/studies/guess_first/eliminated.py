"""What the information elimination leaves of the labels in the representations of one model."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus import metrics
from isthmus.core.errors import ConfigError
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.information.fisher import fisher_information
from isthmus.information.mmd import label_information, median_distance, mmd2
from isthmus.models.hypothesis import Hypothesis
from isthmus.studies.estimates import ends
from isthmus.studies.guess_first.figure_2 import Config
from isthmus.studies.guess_first.workshop import BATCH, Workshop, about, model_of
from isthmus.studies.old.laboratory import Subject
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell

_DECIDING = {"hypothesis", "shown", "blocks", "fisher"}


def cells(config: Config, bench: ResultStore) -> Stages:
    """Every model, trained and looked into."""
    workshop = Workshop(config, bench)
    yield [_cell(config, workshop, name, seed) for seed in range(config.seeds) for name in config.models]


def _cell(config: Config, workshop: Workshop, name: str, seed: int) -> Experiment:
    settings = config.model_dump(mode="json", include=_DECIDING)
    given = about(config.recipe(name, seed), config, representations=settings)

    def make() -> dict[str, Any]:
        subject = workshop.subject(name, seed)
        return {
            **subject.facts,
            "trial": "representations",
            **measure(subject, config, workshop.bench.telling("probing")),
        }

    return Experiment(f"{name}, seed {seed}, representations", given, make)


def measure(subject: Subject, config: Config, tell: Tell) -> dict[str, Any]:
    """MMD², a linear probe and a projection of the representations under each hypothesis k.

    Returns:
        ``biased``, ``unbiased``: MMD² between images of class k and the rest, at the median width of all images.
        ``permuted``: the biased one with labels shuffled, what it is where nothing is left.
        ``in_blocks``: the unbiased one in each of some blocks of images, at the same width, for its interval.
        ``told``: images of which a linear probe tells the true class; ``own``: those of class k among them, and how
        many there are.
        ``fisher``: see :func:`fisher`.
        ``points``: [x, y, whether of the class] of some images, on the two principal components under the shown
        hypothesis, and ``explained``, the share of the variance in each.
    """
    z, labels = representations(subject), subject.labels
    if config.hypothesis >= len(z):
        raise ConfigError(f"hypothesis={config.hypothesis} is no class of {len(z)}; they are counted from 0.")
    whole = label_information(z, labels)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    told, own = [], []
    for number, under in enumerate(z):
        guessed = probe(under, labels)
        told.append(int((guessed == labels).sum()))
        of_class = labels == number
        own.append([int((guessed[of_class] == number).sum()), int(of_class.sum())])
        tell(number + 1, len(z))
    return {
        "biased": whole.biased.tolist(),
        "unbiased": whole.unbiased.tolist(),
        "permuted": label_information(z, shuffled).biased.tolist(),
        "in_blocks": _in_blocks(z, labels, config.blocks),
        "told": told,
        "own": own,
        "fisher": fisher(subject, config.fisher),
        **_projected(z[config.hypothesis], labels == config.hypothesis, config.shown),
    }


def representations(subject: Subject) -> Float[Tensor, "hypotheses n d"]:
    """Outputs of the regularised layer under each hypothesis, on the CPU."""
    model = model_of(subject)
    assert isinstance(model, Hypothesis)
    device = device_of(model, subject.images)
    with preserve_state(model, device, seed=0), torch.no_grad():
        parts = [model.representations(part.to(device)).float().cpu() for part in torch.split(subject.images, BATCH)]
    return torch.cat(parts, 1)


def fisher(subject: Subject, number: int) -> dict[str, Any]:
    """Of the Fisher information J(x) of p(y|x) about the image, on the first so many images: ln tr J and ln λ, nats.

    Logarithms as in lemma D.1, whose bound is on ½·E[ln J]; λ is the largest eigenvalue. In float64, since what a sure
    model has left of it is less than float32 can hold. ``{"n": images, "trace": [mean, low, high], "largest": …}``
    """
    model = model_of(subject)
    device = device_of(model, subject.images)
    images = subject.images[:number].to(device).double()
    with preserve_state(model, device, seed=0):
        found = fisher_information(copy.deepcopy(model).double(), images)
    least = torch.finfo(torch.float64).tiny
    logs = {name: getattr(found, name).cpu().clamp(min=least).log().numpy() for name in ("trace", "largest")}
    return {"n": len(images), **{name: ends(metrics.mean(values, "nats", seed=0)) for name, values in logs.items()}}


def _in_blocks(z: Tensor, labels: Tensor, blocks: int) -> list[list[float]]:
    """The unbiased MMD² of each hypothesis in blocks of images, but for those without two images on either side."""
    found = []
    for number, (under, width) in enumerate(zip(z, median_distance(z).tolist(), strict=True)):
        of_class = labels == number
        parts = zip(torch.tensor_split(under, blocks), torch.tensor_split(of_class, blocks), strict=True)
        found.append(
            [
                float(mmd2(part[own], part[~own], width, unbiased=True))
                for part, own in parts
                if min(int(own.sum()), int((~own).sum())) > 1
            ]
        )
    return found


def probe(features: Float[Tensor, "n d"], labels: Tensor) -> Tensor:
    """Labels that a logistic regression tells from features: each half of the examples by the other half's."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y, half = features.double().numpy(), labels.numpy(), len(labels) // 2
    guessed = torch.empty_like(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that stopped early is a probe all the same
        for fit, told in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            one = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(x[fit], y[fit])
            guessed[told] = torch.from_numpy(one.predict(x[told]))
    return guessed


def _projected(z: Float[Tensor, "n d"], matched: Tensor, shown: int) -> dict[str, Any]:
    from sklearn.decomposition import PCA

    if float(z.var(0).sum()) == 0:
        return {"points": [], "explained": [0.0, 0.0]}  # the layer is dead
    fitted = PCA(2).fit(z.double().numpy())
    places = fitted.transform(z[:shown].double().numpy())
    points = [
        [float(f"{x:.4g}"), float(f"{y:.4g}"), own] for (x, y), own in zip(places, matched.tolist(), strict=False)
    ]
    return {"points": points, "explained": fitted.explained_variance_ratio_.tolist()}
