"""What one of the tables' models is worth on another data set: what a cell of figure 7 holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.data.loading import load
from isthmus.studies.old.evidence import ends
from isthmus.studies.old.laboratory import ask, judged
from isthmus.studies.rate_distortion.printed import Model
from isthmus.studies.rate_distortion.whitened import without
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.rate_distortion.figure_7 import Config

_SOME = 100  # images of its own, which tell the check what the model takes


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every model and seed."""
    return [_cell(config, bench, model, seed) for seed in range(config.seeds) for model in config.models]


def _cell(config: Config, bench: ResultStore, model: Model, seed: int) -> Experiment:
    """``{"metrics": {name: [value, low, high] or None}, "bins": {"zero_shot", "one_shot"}, "target", "n", …}``."""
    recipe = config.recipe(model, config.batch_sizes[0], "original", seed)
    check = {
        "name": "dataset_transfer",
        "data": config.target,
        "draws": config.draws,
        "steps": config.steps,
        "learning_rate": config.learning_rate,
        "degrees": config.degrees,
    }

    def measure() -> dict[str, Any]:
        run = bench.train(recipe)
        images, labels, indices, _ = judged(config.data, config.train_limit, _SOME)
        learner, others = run.load(), load(config.target)
        if not config.whitened:
            learner, images = without(learner, images)
        whole = {**check, "images": config.images or len(others.test)}
        found = ask(learner, images, labels, indices, whole, bench.telling("on other data"))
        return {
            "model": model,
            "seed": seed,
            "target": others.name,
            "n": found.metrics["zero_shot_accuracy"].n,
            "classes": others.num_classes,
            "metrics": {name: ends(metric) for name, metric in found.metrics.items()},
            "bins": found.details["bins"],
            "test_accuracy": run.info()["result"]["test_accuracy"],
        }

    about = {"recipe": recipe, "check": check, "images": config.images, "whitened": config.whitened}
    return Experiment(f"{model}, seed {seed}, transfer", about, measure)
