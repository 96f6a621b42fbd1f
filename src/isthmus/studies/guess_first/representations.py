"""The experiment of figure 2: the label information in the representations of one model, as rows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus import metrics
from isthmus.core.errors import ConfigError
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.types import Interval, Metric
from isthmus.information.fisher import fisher_information
from isthmus.information.mmd import label_information, median_distance, mmd2
from isthmus.models.hypothesis import Hypothesis
from isthmus.studies.blocks import grouped
from isthmus.studies.estimates import half_width
from isthmus.studies.guess_first.configs import RepresentationsConfig
from isthmus.studies.guess_first.experiments import experiment_on
from isthmus.studies.measured import fraction
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell
from isthmus.studies.trained_models import TrainedModel, test_accuracy

_DECIDING = {"hypothesis", "shown", "blocks", "fisher"}
_BATCH = 500


def representations(config: RepresentationsConfig, store: ResultStore) -> Stages:
    """Figure 2: MMD² and a linear probe under each hypothesis, a projection, and Fisher information."""
    yield [_experiment(config, store, (name, seed)) for seed in range(config.seeds) for name in config.models]


def _experiment(config: RepresentationsConfig, store: ResultStore, model: tuple[str, int]) -> Experiment:
    def measure(found: TrainedModel, _: dict[str, Any]) -> tuple[list[Metric], dict[str, Any]]:
        z, labels = _representations(found), found.data.labels
        if config.hypothesis >= len(z):
            raise ConfigError(f"hypothesis={config.hypothesis} is no class of {len(z)}; they are counted from 0.")
        rows = [
            test_accuracy(found.run),
            *mmd_rows(_discrepancies(z, labels, config.blocks), len(labels)),
            *_probed(z, labels, found.data.chance, store.telling("probing")),
            *_fisher(found, config.fisher),
        ]
        points = _projected(z[config.hypothesis], labels, config) if model[1] == 0 else {}
        return rows, {"points": points} if points else {}

    settings = {"representations": config.model_dump(mode="json", include=_DECIDING)}
    return experiment_on(config, store, model, "representations", settings, measure)


def _representations(found: TrainedModel) -> Float[Tensor, "hypotheses n d"]:
    """Outputs of the regularised layer under each hypothesis, on the CPU."""
    model, images = found.modes["mean"], found.data.images
    assert isinstance(model, Hypothesis)
    device = device_of(model, images)
    with preserve_state(model, device, seed=0), torch.no_grad():
        parts = [model.representations(part.to(device)).float().cpu() for part in torch.split(images, _BATCH)]
    return torch.cat(parts, 1)


def _discrepancies(z: Float[Tensor, "hypotheses n d"], labels: Tensor, blocks: int) -> dict[str, Any]:
    """MMD² between images of class k and the rest under each hypothesis k, at the median width of all images.

    ``{"unbiased", "biased", "shuffled": biased, with labels shuffled, "in_blocks": unbiased in blocks of images}``
    """
    whole = label_information(z, labels)
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return {
        "unbiased": whole.unbiased.tolist(),
        "biased": whole.biased.tolist(),
        "shuffled": label_information(z, shuffled).biased.tolist(),
        "in_blocks": _in_blocks(z, labels, blocks),
    }


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


def mmd_rows(found: dict[str, Any], n: int) -> Iterator[Metric]:
    """Rows of MMD² under each hypothesis and of its sum over them; intervals of the unbiased one are over blocks."""
    blocks, names = found["in_blocks"], {"unbiased": "mmd2", "biased": "mmd2_biased", "shuffled": "mmd2_shuffled"}
    for kind, name in names.items():
        for k, value in enumerate(found[kind]):
            spread = blocks[k] if kind == "unbiased" else ()
            yield _mmd2(name, value, spread, n).named(name, hypothesis=k)
    sums = [sum(under[at] for under in blocks) for at in range(min(map(len, blocks)))]
    for kind, name in names.items():
        yield _mmd2(f"{name}_sum", sum(found[kind]), sums if kind == "unbiased" else (), n)


def _mmd2(name: str, value: float, blocks: Iterable[float], n: int) -> Metric:
    reach = half_width(tuple(blocks), 0.95)
    interval = Interval(low=value - reach, high=value + reach, method="t over blocks") if reach else None
    return Metric(name=name, value=value, unit="MMD²", n=n, interval=interval)


def _probed(z: Float[Tensor, "hypotheses n d"], labels: Tensor, chance: float, tell: Tell) -> Iterator[Metric]:
    """Accuracy of a linear probe under each hypothesis k, and its recall of the images of class k."""
    for k, under in enumerate(z):
        right, own = probe(under, labels) == labels, labels == k
        yield fraction("probe_accuracy", int(right.sum()), len(labels), hypothesis=k)
        yield fraction("own_class_recall", int(right[own].sum()), int(own.sum()), hypothesis=k)
        yield Metric(name="chance", value=chance, unit="fraction", n=len(labels), coords={"hypothesis": k})
        tell(k + 1, len(z))


def probe(features: Float[Tensor, "n d"], labels: Tensor) -> Tensor:
    """Labels that a logistic regression predicts from features: each half of the examples by the other half's."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first, second = torch.arange(len(labels)).tensor_split([len(labels) // 2])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = [(fit.numpy(), rest.numpy()) for fit, rest in ((first, second), (second, first))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that stopped early is still a probe
        return torch.from_numpy(cross_val_predict(model, features.double().numpy(), labels.numpy(), cv=folds))


def _fisher(found: TrainedModel, number: int) -> Iterator[Metric]:
    """Of the Fisher information J(x) of p(y|x) about the image, on the first images: ln tr J and ln λ, nats.

    Logarithms as in lemma D.1, whose bound is on ½·E[ln J]; λ is the largest eigenvalue. In float64, since a confident
    model has less of it than float32 can hold.
    """
    model = found.modes["mean"]
    device = device_of(model, found.data.images)
    images = found.data.images[:number].to(device).double()
    with preserve_state(model, device, seed=0):
        information = fisher_information(copy.deepcopy(model).double(), images)
    least = torch.finfo(torch.float64).tiny
    for name in ("trace", "largest"):
        logs = getattr(information, name).cpu().clamp(min=least).log().numpy()
        yield metrics.mean(logs, "nats", seed=0).named(f"log_fisher_{name}")


def _projected(z: Float[Tensor, "n d"], labels: Tensor, config: RepresentationsConfig) -> dict[str, Any]:
    """Some images on the two principal components, by whether they are of the hypothesis's class; none if z is 0."""
    from sklearn.decomposition import PCA

    if float(z.var(0).sum()) == 0:
        return {}
    fitted = PCA(2).fit(z.double().numpy())
    places = fitted.transform(z[: config.shown].double().numpy()).tolist()
    own = (labels == config.hypothesis).tolist()
    return points(config.hypothesis, zip(places, own, strict=False), fitted.explained_variance_ratio_.tolist())


def points(
    hypothesis: int, places: Iterable[tuple[tuple[float, float], bool]], explained: tuple[float, float]
) -> dict[str, Any]:
    """Details for :class:`isthmus.studies.blocks.Scatter`, from places and whether each is of the class."""
    labelled = [(place, f"label is {hypothesis}" if own else "other labels") for place, own in places]
    shown = [[float(f"{value:.4g}") for value in place] for place, _ in labelled]
    title = f"hypothesis {hypothesis}, components with {explained[0]:.1%} and {explained[1]:.1%} of the variance"
    return {title: grouped(shown, (label for _, label in labelled))}
