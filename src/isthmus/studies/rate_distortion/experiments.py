"""Experiments of the rate-distortion studies: what is trained and measured, as rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.checks.class_prototypes import Population, cosine
from isthmus.core.recipe import load_recipe
from isthmus.core.types import CheckResult, Coordinate, Metric
from isthmus.data.images import Examples, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.information.channel import layer_channel
from isthmus.information.discrete import independent_entropy
from isthmus.models import factory
from isthmus.models.learner import Learner
from isthmus.report.sections.class_prototypes import enlarged
from isthmus.studies.blocks import packed
from isthmus.studies.measured import fraction, measured
from isthmus.studies.rate_distortion import weight_decay
from isthmus.studies.rate_distortion.configs import (
    Activation,
    GradientConfig,
    Labels,
    Model,
    NoiseConfig,
    PlaneConfig,
    PrototypesConfig,
    SphereConfig,
    TableConfig,
    TransferConfig,
    Variant,
)
from isthmus.studies.rate_distortion.whitened import inside, without
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.study import data_options
from isthmus.studies.trained_models import EvaluationImages, evaluation_images, run_check, test_accuracy
from isthmus.training.evaluation import count_right
from isthmus.training.run import Run

_CODES = 10_000  # training images that a layer's power and noise are measured with
_OWN = 100  # images of a model's own data, from which an audit learns what it takes
_SHOTS = ("zero_shot", "one_shot")

Coords = Mapping[str, Coordinate]


def original(config: TableConfig, store: ResultStore) -> Stages:
    """Table 1: the choice of λ, then every model with every batch size."""
    return _table(config, store, "original")


def random(config: TableConfig, store: ResultStore) -> Stages:
    """Table 2: the same on random labels."""
    return _table(config, store, "random")


def _table(config: TableConfig, store: ResultStore, labels: Labels) -> Stages:
    config = yield from weight_decay.chosen(config, partial(choice, store))
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
        train, test, constant, chance = _counted(recipe, store)
        return measured([train, test, constant, chance], coords)

    name = f"{model}, batch {batch}, {labels} labels, seed {seed}"
    return Experiment(name, {"recipe": recipe, "measured": "accuracy"}, measure)


def choice(store: ResultStore, recipe: dict[str, Any], coords: Coords) -> dict[str, Any]:
    """A run by which λ is chosen: its training accuracy beside that of the best constant prediction."""
    train, _, constant, _ = _counted(recipe, store)
    return measured([train.named(weight_decay.ACCURACY), constant.named(weight_decay.CONSTANT)], coords)


def _counted(recipe: dict[str, Any], store: ResultStore) -> tuple[Metric, Metric, Metric, Metric]:
    """Training and test accuracy; training accuracy of the best constant prediction, and its test accuracy (chance).

    Training accuracy is on the labels that the model was trained on.
    """
    run = store.train(recipe)
    data, trained = load(recipe["data"]), run.load()
    train, test = (int(count_right(trained, split, {})) for split in (data.train, data.test))
    constant, chance = (float(split.labels.bincount().max()) / len(split) for split in (data.train, data.test))
    return (
        fraction("train_accuracy", train, len(data.train)),
        fraction("test_accuracy", test, len(data.test)),
        Metric(name="constant_accuracy", value=constant, unit="fraction", n=len(data.train)),
        Metric(name="chance", value=chance, unit="fraction", n=len(data.test)),
    )


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
    callback = {"name": "gradient_snr", "every": config.every, "normalize_noise": config.normalize_noise}
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


def _observed(run: Run, callback: str) -> Iterable[tuple[int, dict[str, Any]]]:
    """Epochs, counted from 1, with what a callback recorded."""
    return ((line["epoch"] + 1, line["observed"][callback]) for line in run.metrics() if "observed" in line)


def plane(config: PlaneConfig, store: ResultStore) -> Stages:
    """Figure 3: I(X;T) and I(T;Y) of each layer, counted from the input; the last is the logits."""
    yield [_plane(config, store, seed, random) for seed in range(config.seeds) for random in (False, True)]


def _plane(config: PlaneConfig, store: ResultStore, seed: int, random: bool) -> Experiment:
    callback = {"name": "information_plane", "every": config.every, "samples": config.samples, "bins": config.bins}
    recipe = config.recipe(seed, callback, random=random)
    labels = "random" if random else "original"

    def measure() -> dict[str, Any]:
        run = store.train(recipe)
        pixels = load(recipe["data"]).train.images.flatten(1).numpy()
        observed = list(_observed(run, "information_plane"))
        n = observed[0][1]["samples"]
        rows = [
            Metric(name=name, value=values[at], unit="bits", n=n, coords={"layer": layer, "epoch": epoch})
            for epoch, found in observed
            for layer, values in enumerate(found["layers"].values(), 1)
            for at, name in enumerate(("i_xt", "i_ty"))
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


def _each_model(
    config: TableConfig,
    store: ResultStore,
    what: str,
    settings: Sequence[str],
    measure: Callable[[Model, int, Run], Any],
) -> Stages:
    """The choice of λ, then an experiment for every model and seed, determined by the recipe and these options."""
    chosen = yield from weight_decay.chosen(config, partial(choice, store))
    options = config.plain()
    experiments = []
    for seed in range(config.seeds):
        for model in config.models:
            recipe = chosen.recipe(model, config.batch_sizes[0], "original", seed)

            def run(model: Model = model, seed: int = seed, recipe: dict[str, Any] = recipe) -> dict[str, Any]:
                found: dict[str, Any] = measure(model, seed, store.train(recipe))
                return found

            about = {"recipe": recipe, "measured": what, **{name: options[name] for name in settings}}
            experiments.append(Experiment(f"{model}, seed {seed}, {what}", about, run))
    yield experiments


def prototypes(config: PrototypesConfig, store: ResultStore) -> Stages:
    """Figure 4: images that a model assigns to a class with full confidence, grown from noise."""
    settings = ("images", "each", "space", "step_size", "confidence", "steps")

    def measure(model: Model, seed: int, run: Run) -> dict[str, Any]:
        data, learner, unit = evaluation_images(config.data, config.train_limit, config.images), run.load(), 1.0
        if config.space == "whitened":
            seen = inside(learner, data.images)
            learner, data, unit = seen.model, replace(data, images=seen.images), seen.unit
        check = {
            "name": "class_prototypes",
            "each": config.each,
            "confidence": config.confidence,
            "step_size": config.step_size / unit,
            "steps": config.steps,
        }
        found = run_check(learner, data, check, store.telling("growing prototypes"))
        population = Population.of(data.images.numpy(), data.labels.numpy())
        reached = found.arrays["prototype_steps"] >= 0
        own, count = _own_class(found, population, reached), len(reached)
        names = ("steps", "relative_distance", "similarity", "image_similarity")
        rows = [
            fraction("reached", int(reached.sum()), count),
            fraction("own_class", own, count),
            *_rows(found.metrics.get(name, mode="mean") or found.metrics.one(name) for name in names),
            test_accuracy(run),
        ]
        details = {"pictures": _pictures(found, learner, data, population)} if seed == 0 else {}
        return measured(rows, {"model": model, "seed": seed}, details=details)

    return _each_model(config, store, "prototypes", settings, measure)


def _rows(found: Iterable[Metric]) -> list[Metric]:
    """The measured ones, without the coordinates of the check."""
    return [metric.model_copy(update={"coords": {}}) for metric in found if metric.value is not None]


def _own_class(found: CheckResult, population: Population, reached: np.ndarray) -> int:
    """How many prototypes at full confidence are nearer, as a cosine, to the mean of their class than to any other."""
    names = np.unique(population.labels)
    means = population.class_means(names)
    grown = population.around(found.arrays["prototypes"][reached])
    right = 0
    for pattern, label in zip(grown, found.arrays["prototype_class"][reached], strict=True):
        alike = cosine(np.broadcast_to(pattern, means.shape), means)
        right += int(not np.isnan(alike).all() and names[np.nanargmax(alike)] == label)
    return right


@torch.no_grad()
def _pictures(
    found: CheckResult, model: Learner, data: EvaluationImages, population: Population
) -> dict[str, list[list[str]]]:
    """Rows of pictures with captions, one a class: the first image, the first prototype, the mean."""
    rows: dict[str, list[list[str]]] = {"image": [], "prototype": [], "mean of the class": []}
    images, classes, mean = data.images, data.classes, population.mean.tolist()
    device = next(model.parameters()).device
    for label in np.unique(population.labels).tolist():
        image = images[(data.labels == label).nonzero()[0]]
        # C's predictions depend on the batch, so it is as large as in the audit
        probabilities = model(torch.cat([image, images[:255]]).to(device))[0].softmax(0).cpu()
        predicted = f"{classes[int(probabilities.argmax())]}, {float(probabilities.max()):.3f}"
        rows["image"].append([packed(enlarged(image[0].numpy(), mean)[0]), predicted])
        own = int((found.arrays["prototype_class"] == label).argmax())
        steps = int(found.arrays["prototype_steps"][own])
        grown = enlarged(found.arrays["prototypes"][own], mean)[0]
        caption = f"{classes[label]}, {steps} steps" if steps >= 0 else "not reached"
        rows["prototype"].append([packed(grown), caption])
        centred = population.class_means(np.array([label]))[0].reshape(population.shape)
        whole = (centred + population.mean[:, None, None]).astype(np.float32)
        rows["mean of the class"].append([packed(enlarged(whole, mean)[0]), classes[label]])
    return rows


def noise(config: NoiseConfig, store: ResultStore) -> Stages:
    """Figure 5: information and accuracy over the signal-to-noise ratio; those of the clean image are rows of their "
    "own."""
    settings = ("images", "space", "noises", "high", "low", "spacing")

    def measure(model: Model, seed: int, run: Run) -> dict[str, Any]:
        data, learner, origin = evaluation_images(config.data, config.train_limit, config.images), run.load(), 0.0
        if config.space == "whitened":
            seen = inside(learner, data.images)
            learner, data, origin = seen.model, replace(data, images=seen.images), seen.origin
        options = {name: getattr(config, name) for name in ("high", "low", "spacing")}
        check = {"name": "noise_robustness", "noises": list(config.noises), **options, "origin": origin}
        found = run_check(learner, data, check, store.telling("adding noise"))
        entropy, n = found.details["label_entropy_bits"], len(data)
        rows = [
            Metric(name="label_entropy", value=entropy, unit="bits", n=n),
            Metric(name="chance", value=2**-entropy, unit="fraction", n=n),
            test_accuracy(run),
        ]
        for kind in config.noises:
            kept = found.metrics.one("information_kept", mode="mean", noise=kind)
            rows.append(kept.model_copy(update={"name": "kept", "coords": {"noise": kind}}))
            rows += _noisy(kind, found, n)
        return measured(rows, {"model": model, "seed": seed})

    return _each_model(config, store, "noise", settings, measure)


def _noisy(kind: str, found: CheckResult, n: int) -> Iterable[Metric]:
    """Rows of one kind of noise; those of the clean image are named ``clean_...``."""
    for name, short in (("information_bits", "information"), ("accuracy", "accuracy")):
        clean = found.metrics.one(name, mode="mean")
        yield Metric(name=f"clean_{short}", value=clean.value, unit=clean.unit, n=n, coords={"noise": kind})
        for metric in found.metrics.select(name, mode="mean", noise=kind):
            if "snr" not in metric.coords:
                continue
            coords: dict[str, Coordinate] = {"noise": kind, "snr": metric.coords["snr"]}
            if name == "accuracy":
                yield fraction(short, round((metric.value or 0.0) * n), n, **coords)
            else:
                yield Metric(name=short, value=metric.value, unit=metric.unit, n=n, coords=coords)


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
    means, right = [], 0
    for images, labels in zip(
        torch.split(as_float(chosen.images), 1000), torch.split(chosen.labels, 1000), strict=True
    ):
        encoded = model.encode(images)
        means.append(encoded.mean)
        right += int((model.decode(encoded.mean).argmax(1) == labels).sum())
    return torch.cat(means), right


def _layer(model: Any, codes: Tensor, labels: Tensor, right: int) -> Iterable[Metric]:
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
    found: dict[str, list[list[float]]] = {f"{label}": [] for label in sorted(set(labels.tolist()))}
    for code, label in zip(codes.tolist(), labels.tolist(), strict=True):
        found[f"{label}"].append([round(value, 3) for value in code])
    return found


def roundness(codes: Tensor, labels: Tensor) -> float:
    """Mean over classes of the smaller standard deviation over the larger, along a cluster's own axes; 1 for circles.

    0 for a class that lies in a line, or in one point.
    """
    found = []
    for label in sorted(set(labels.tolist())):
        own = codes[labels == label].double()
        own = own - own.mean(0)
        values = torch.linalg.eigvalsh(own.T @ own / len(own)).clamp_min(0.0).sqrt()
        found.append(float(values[0] / values[-1]) if float(values[-1]) > 0 else 0.0)
    return sum(found) / len(found)


def transfer(config: TransferConfig, store: ResultStore) -> Stages:
    """Figure 7: accuracy and margins on another data set, as it is and after one example of each class."""
    settings = ("target", "images", "whitened", "draws", "steps", "learning_rate", "degrees")

    def measure(model: Model, seed: int, run: Run) -> dict[str, Any]:
        data = evaluation_images(config.data, config.train_limit, _OWN)
        learner, others = run.load(), load(config.target)
        if not config.whitened:
            learner, images = without(learner, data.images)
            data = replace(data, images=images)
        options = {name: getattr(config, name) for name in ("draws", "steps", "learning_rate", "degrees")}
        number = config.images or len(others.test)
        check = {"name": "dataset_transfer", "data": config.target, "images": number, **options}
        found = run_check(learner, data, check, store.telling("on other data"))
        by_shots = found.metrics.select(mode="mean")
        named = (m.model_copy(update={"name": f"{_SHOTS[int(m.coords['shots'])]}_{m.name}"}) for m in by_shots)
        rows = [_signed(metric) for metric in _rows(named)]
        details = {"bins": found.details["bins"]} if seed == 0 else {}
        return measured([*rows, test_accuracy(run)], {"model": model, "seed": seed}, details=details)

    return _each_model(config, store, "transfer", settings, measure)


def _signed(metric: Metric) -> Metric:
    """Differences of fractions in points, which may be negative."""
    signed = metric.name.endswith(("gain", "overconfidence"))
    return metric.model_copy(update={"unit": "points"}) if signed else metric
