"""Experiments of tables 1 and 2 and of figures 2, 3 and 6: what is trained and measured, as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isthmus.core.recipe import load_recipe
from isthmus.core.types import Coordinate, Metric
from isthmus.data.images import Examples, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.information.channel import layer_channel
from isthmus.information.discrete import independent_entropy
from isthmus.models import factory
from isthmus.studies.blocks import grouped
from isthmus.studies.measured import fraction, measured
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.rate_distortion.configs import (
    Activation,
    GradientConfig,
    Labels,
    Model,
    PlaneConfig,
    SphereConfig,
    TableConfig,
    Variant,
)
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.study import data_options
from isthmus.studies.trained_models import test_accuracy
from isthmus.training.evaluation import count_right
from isthmus.training.run import Run

_CODES = 10_000  # training images that a layer's power and noise are measured with

# --- tables 1 and 2 ---


def original(config: TableConfig, store: ResultStore) -> Stages:
    """Table 1: the choice of λ, then every model with every batch size."""
    return _table(config, store, "original")


def random(config: TableConfig, store: ResultStore) -> Stages:
    """Table 2: the same on random labels."""
    return _table(config, store, "random")


def _table(config: TableConfig, store: ResultStore, labels: Labels) -> Stages:
    config = yield from weight_decay.chosen(config, partial(_choice_run, store))
    yield [
        _accuracies(config, store, model, batch, labels, seed)
        for seed in range(config.seeds)
        for batch in config.batch_sizes
        for model in config.models
    ]


def _accuracies(
    config: TableConfig, store: ResultStore, model: Model, batch: int, labels: Labels, seed: int
) -> Experiment:
    recipe = config.recipe(model, batch, labels, seed)

    def measure() -> dict[str, Any]:
        decay = recipe["training"]["optimizer"].get("weight_decay", 0.0)
        coords = {"model": model, "batch_size": batch, "labels": labels, "seed": seed, "weight_decay": decay}
        return measured(_trained_accuracies(recipe, store), coords)

    name = f"{model}, batch {batch}, {labels} labels, seed {seed}"
    return Experiment(name, {"recipe": recipe, "measured": "accuracy"}, measure)


def _choice_run(store: ResultStore, recipe: dict[str, Any], coords: Mapping[str, Coordinate]) -> dict[str, Any]:
    """A run by which λ is chosen: its training accuracy and that of the best constant prediction."""
    train, _, constant, _ = _trained_accuracies(recipe, store)
    return measured([train.named(weight_decay.ACCURACY), constant.named(weight_decay.CONSTANT)], coords)


def _trained_accuracies(recipe: dict[str, Any], store: ResultStore) -> tuple[Metric, Metric, Metric, Metric]:
    """Training and test accuracy; training accuracy of the best constant prediction, and its test accuracy (chance).

    Training accuracy is on the labels that the model was trained on.
    """
    run = store.train(recipe)
    data, model = load(recipe["data"]), run.load()
    train, test = (int(count_right(model, split, {})) for split in (data.train, data.test))
    constant, chance = (float(split.labels.bincount().max()) / len(split) for split in (data.train, data.test))
    return (
        fraction("train_accuracy", train, len(data.train)),
        fraction("test_accuracy", test, len(data.test)),
        Metric(name="constant_accuracy", value=constant, unit="fraction", n=len(data.train)),
        Metric(name="chance", value=chance, unit="fraction", n=len(data.test)),
    )


def each_model(
    config: TableConfig,
    store: ResultStore,
    what: str,
    settings: Sequence[str],
    measure: Callable[[Run], tuple[Iterable[Metric], dict[str, Any]]],
) -> Stages:
    """The choice of λ, then an experiment for every model and seed on the original labels with the first batch size.

    Args:
        what: is measured.
        settings: options that determine the measurement, beside the recipe.
        measure: gives rows, and details that are kept for seed 0.
    """
    chosen = yield from weight_decay.chosen(config, partial(_choice_run, store))
    options = config.plain()

    def experiment(model: Model, seed: int) -> Experiment:
        recipe = chosen.recipe(model, config.batch_sizes[0], "original", seed)

        def run() -> dict[str, Any]:
            trained = store.train(recipe)
            rows, details = measure(trained)
            coords: dict[str, Coordinate] = {"model": model, "seed": seed}
            return measured([*rows, test_accuracy(trained)], coords, details=details if seed == 0 else {})

        about = {"recipe": recipe, "measured": what, **{name: options[name] for name in settings}}
        return Experiment(f"{model}, seed {seed}, {what}", about, run)

    yield [experiment(model, seed) for seed in range(config.seeds) for model in config.models]


# --- figures 2 and 3 ---


def gradients(config: GradientConfig, store: ResultStore) -> Stages:
    """Figure 2: the gradient's signal-to-noise ratio in each layer; layers are counted from the input."""
    activations: tuple[Activation, ...] = ("relu", "tanh")
    yield [
        _gradients(config, store, activation, batch_norm, seed)
        for seed in range(config.seeds)
        for activation in activations
        for batch_norm in (False, True)
    ]


def _gradients(
    config: GradientConfig, store: ResultStore, activation: Activation, batch_norm: bool, seed: int
) -> Experiment:
    callback = {"name": "gradient_snr", "normalize_noise": config.normalize_noise}
    recipe = config.recipe(seed, callback, activation, batch_norm)
    network = f"{'ReLU' if activation == 'relu' else 'tanh'}{', batch norm' * batch_norm}"

    def measure() -> dict[str, Any]:
        run = store.train(recipe)
        rows = [test_accuracy(run)]
        for epoch, observed in _observed(run, "gradient_snr"):
            for layer, parts in enumerate(observed.values(), 1):
                for part in ("signal", "noise", "snr"):
                    value, coords = parts[part], {"layer": layer, "epoch": epoch}
                    rows.append(Metric(name=f"gradient_{part}", value=value, unit="", n=1, coords=coords))
        return measured(rows, {"model": network, "seed": seed})

    return Experiment(f"{network}, seed {seed}", {"recipe": recipe, "measured": "gradient SNR"}, measure)


def _observed(run: Run, callback: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Epochs, counted from 1, with what a callback recorded."""
    return ((line["epoch"] + 1, line["observed"][callback]) for line in run.metrics() if "observed" in line)


def plane(config: PlaneConfig, store: ResultStore) -> Stages:
    """Figure 3: I(X;T) and I(T;Y) of each layer, counted from the input; the last layer is the logits."""
    yield [_plane(config, store, seed, random) for seed in range(config.seeds) for random in (False, True)]


def _plane(config: PlaneConfig, store: ResultStore, seed: int, random: bool) -> Experiment:
    callback = {"name": "information_plane", "samples": config.samples, "bins": config.bins}
    recipe = config.recipe(seed, callback, random=random)
    labels = "random" if random else "original"

    def measure() -> dict[str, Any]:
        run = store.train(recipe)
        pixels = load(recipe["data"]).train.images.flatten(1).numpy()
        observed = list(_observed(run, "information_plane"))
        n = observed[0][1]["samples"]
        rows = [
            Metric(name=name, value=value, unit="bits", n=n, coords={"layer": layer, "epoch": epoch})
            for epoch, found in observed
            for layer, values in enumerate(found["layers"].values(), 1)
            for name, value in zip(("i_xt", "i_ty"), values, strict=False)
        ]
        bound = independent_entropy(pixels) / math.log(2.0)
        result = run.info()["result"]
        rows += [
            Metric(name="label_entropy", value=observed[0][1]["label_entropy_bits"], unit="bits", n=n),
            Metric(name="pixel_entropy", value=bound, unit="bits", n=len(pixels)),
            Metric(name="train_accuracy", value=result["epoch_accuracy"], unit="fraction", n=len(pixels)),
            test_accuracy(run),
        ]
        return measured(rows, {"labels": labels, "seed": seed})

    return Experiment(f"{labels} labels, seed {seed}", {"recipe": recipe, "measured": "information plane"}, measure)


# --- figure 6 ---


def spheres(config: SphereConfig, store: ResultStore) -> Stages:
    """Figure 6: power, noise, capacity and roundness of a layer of two neurons over training."""
    data = load(data_options(config.data, train_limit=config.train_limit))
    steps = math.ceil(len(data.train) / int(config.training.get("batch_size", 128)))
    yield [_spheres(config, store, variant, seed, steps) for seed in range(config.seeds) for variant in config.variants]


def _spheres(config: SphereConfig, store: ResultStore, variant: Variant, seed: int, steps: int) -> Experiment:
    recipe = config.recipe(variant, seed, steps)

    def measure() -> dict[str, Any]:
        run = store.train(recipe)
        whole = load(recipe["data"])
        chosen = whole.train.select(balanced(whole.train.labels)[:_CODES])
        untrained = factory.build(load_recipe(recipe), whole.shape, whole.num_classes, whole)
        rows, drawn = [test_accuracy(run)], {}
        for epoch in config.epochs:
            model = run.load(epoch * steps) if epoch else untrained.eval()
            codes, right = _codes(model, chosen)
            rows += [each.named(each.name, epoch=epoch) for each in _layer(model, codes, chosen.labels, right)]
            drawn[f"epoch {epoch:,}"] = _by_class(codes[: config.drawn], chosen.labels[: config.drawn])
        return measured(rows, {"model": variant, "seed": seed}, details={"points": drawn} if seed == 0 else {})

    about = {"recipe": recipe, "measured": "spheres", "epochs": config.epochs, "drawn": config.drawn}
    return Experiment(f"variant {variant}, seed {seed}", about, measure)


@torch.no_grad()
def _codes(model: Any, chosen: Examples) -> tuple[Tensor, int]:
    """Means of the codes, images × 2, and how many of them are classified correctly."""
    means = torch.cat([model.encode(images).mean for images in torch.split(as_float(chosen.images), 1000)])
    return means, int((model.decode(means).argmax(1) == chosen.labels).sum())


def _layer(model: Any, codes: Tensor, labels: Tensor, right: int) -> Iterator[Metric]:
    """Numbers of the layer; its capacity is that of two uses of a Gaussian channel, unless it is infinite."""
    n, channel = len(codes), layer_channel(codes.numpy(), labels.numpy())
    yield fraction("accuracy", right, n)
    yield Metric(name="power", value=channel.power, unit="", n=n)
    yield Metric(name="within_class_power", value=channel.noise, unit="", n=n)
    yield Metric(name="noise_std", value=float(model.encoder.log_std.detach().exp()), unit="", n=n)
    yield Metric(name="roundness", value=roundness(codes, labels), unit="ratio", n=n)
    if not math.isinf(channel.capacity_bits):
        yield Metric(name="capacity", value=2 * channel.capacity_bits, unit="bits", n=n)


def _by_class(codes: Tensor, labels: Tensor) -> dict[str, list[list[float]]]:
    order = labels.argsort(stable=True)
    places = [[round(value, 3) for value in code] for code in codes[order].tolist()]
    return grouped(places, map(str, labels[order].tolist()))


def roundness(codes: Tensor, labels: Tensor) -> float:
    """Mean over classes of the smaller standard deviation over the larger, along a cluster's own axes; 1 for circles.

    0 for a class that lies in a line, or in one point.
    """
    found = []
    for label in sorted(set(labels.tolist())):
        values = torch.linalg.eigvalsh(codes[labels == label].double().T.cov(correction=0)).clamp_min(0.0).sqrt()
        found.append(float(values[0] / values[-1]) if float(values[-1]) > 0 else 0.0)
    return sum(found) / len(found)
