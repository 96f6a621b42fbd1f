"""Training one of the tables' models: what its cell holds."""

from __future__ import annotations

from typing import Any

from isthmus.studies.rate_distortion.printed import Labels, Model
from isthmus.studies.rate_distortion.protocol import TableConfig
from isthmus.studies.store import Experiment, ResultStore


def cells(config: TableConfig, bench: ResultStore, labels: Labels) -> list[Experiment]:
    """A cell for every model, batch size and seed; all of the first seed come first."""
    return [
        _cell(config, bench, model, batch, labels, seed)
        for seed in range(config.seeds)
        for batch in config.batch_sizes
        for model in config.models
    ]


def _cell(config: TableConfig, bench: ResultStore, model: Model, batch: int, labels: Labels, seed: int) -> Experiment:
    """:func:`rightness`, with what was trained: the model, its λ, batch size, labels and seed."""
    recipe = config.recipe(model, batch, labels, seed)

    def measure() -> dict[str, Any]:
        decay = recipe["training"]["optimizer"].get("weight_decay", 0.0)
        facts = {"model": model, "weight_decay": decay, "batch_size": batch, "labels": labels, "seed": seed}
        return {**facts, **rightness(recipe, bench)}

    about = {"recipe": recipe, "measured": "rightness"}
    return Experiment(f"{model}, batch {batch}, {labels} labels, seed {seed}", about, measure)


def rightness(recipe: dict[str, Any], bench: ResultStore) -> dict[str, Any]:
    """``{"train": [right, of], "test": [right, of], "constant", "chance", "classes", "parameters", "fingerprint"}``.

    Training accuracy is of the trained model on the labels it was trained on. ``constant`` is how many of these the
    best constant answer has right, ``chance`` the share of test images that it has.
    """
    from isthmus.data.loading import load
    from isthmus.training.evaluation import count_right

    run = bench.train(recipe)
    data, trained = load(recipe["data"]), run.load()
    right = {part: int(count_right(trained, split, {})) for part, split in (("train", data.train), ("test", data.test))}
    return {
        "train": [right["train"], len(data.train)],
        "test": [right["test"], len(data.test)],
        "constant": int(data.train.labels.bincount().max()),
        "chance": float(data.test.labels.bincount().max()) / len(data.test),
        "classes": data.num_classes,
        "parameters": run.info()["result"]["parameters"],
        "fingerprint": data.fingerprint,
    }
