"""Looking at the layer of two neurons of one network while it trains: what a cell of figure 6 holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isthmus.core.recipe import load_recipe
from isthmus.data.images import Examples, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.information.channel import layer_channel
from isthmus.models import factory
from isthmus.studies.old.study import data_options
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.rate_distortion.figure_6 import Config, Variant

JUDGED = 10_000
"""Training images that the layer's power and noise are taken from."""


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every variant and seed."""
    data = load(data_options(config.data, train_limit=config.train_limit))
    steps = math.ceil(len(data.train) / int(config.training.get("batch_size", 128)))
    return [_cell(config, bench, variant, seed, steps) for seed in range(config.seeds) for variant in config.variants]


def _cell(config: Config, bench: ResultStore, variant: Variant, seed: int, steps: int) -> Experiment:
    """``{"looks": [{"epoch", "codes": [[x, y], …], "power", "noise", "capacity_bits", "roundness", …}, …], …}``."""
    recipe = config.recipe(variant, seed, steps)

    def measure() -> dict[str, Any]:
        run = bench.train(recipe)
        whole = load(recipe["data"])
        chosen = whole.train.select(balanced(whole.train.labels)[:JUDGED])
        untrained = factory.build(load_recipe(recipe), whole.shape, whole.num_classes, whole)
        looks = []
        for epoch in config.epochs:
            model = run.load(epoch * steps) if epoch else untrained.eval()
            looks.append({"epoch": epoch, **_look(model, chosen, config.drawn)})
        return {
            "variant": variant,
            "seed": seed,
            "labels": chosen.labels[: config.drawn].tolist(),
            "looks": looks,
            "test_accuracy": run.info()["result"]["test_accuracy"],
        }

    about = {"recipe": recipe, "measured": "spheres", "epochs": config.epochs, "drawn": config.drawn}
    return Experiment(f"variant {variant}, seed {seed}", about, measure)


@torch.no_grad()
def _look(model: Any, chosen: Examples, drawn: int) -> dict[str, Any]:
    means, right = [], 0
    for images, labels in zip(
        torch.split(as_float(chosen.images), 1000), torch.split(chosen.labels, 1000), strict=True
    ):
        encoded = model.encode(images)
        means.append(encoded.mean)
        right += int((model.decode(encoded.mean).argmax(1) == labels).sum())
    codes = torch.cat(means)
    channel = layer_channel(codes.numpy(), chosen.labels.numpy())
    return {
        "codes": [[round(float(x), 3) for x in point] for point in codes[:drawn]],
        "power": channel.power,
        "noise": channel.noise,
        "capacity_bits": None if math.isinf(channel.capacity_bits) else channel.capacity_bits,
        "noise_std": float(model.encoder.log_std.exp()),
        "roundness": roundness(codes, chosen.labels),
        "accuracy": right / len(codes),
    }


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
