"""How much one of the tables' models transmits under noise: what a cell of figure 5 holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.studies.old.evidence import ends
from isthmus.studies.old.laboratory import ask, judged
from isthmus.studies.rate_distortion.printed import Model
from isthmus.studies.rate_distortion.whitened import inside
from isthmus.studies.store import Experiment, ResultStore

if TYPE_CHECKING:
    from isthmus.studies.rate_distortion.figure_5 import Config


def cells(config: Config, bench: ResultStore) -> list[Experiment]:
    """A cell for every model and seed."""
    return [_cell(config, bench, model, seed) for seed in range(config.seeds) for model in config.models]


def _cell(config: Config, bench: ResultStore, model: Model, seed: int) -> Experiment:
    """``{"snr": ratios in dB, "label_entropy_bits", "noises": {noise: {"information_bits", "accuracy": over the ratios,
    the clean image first, "kept": [value, low, high]}}, …}``.
    """
    recipe = config.recipe(model, config.batch_sizes[0], "original", seed)
    check: dict[str, Any] = {
        "name": "noise_robustness",
        "noises": list(config.noises),
        "high": config.high,
        "low": config.low,
        "spacing": config.spacing,
    }

    def measure() -> dict[str, Any]:
        run = bench.train(recipe)
        images, labels, indices, _ = judged(config.data, config.train_limit, config.images)
        learner, origin = run.load(), 0.0
        if config.space == "whitened":
            seen = inside(learner, images)
            learner, images, origin = seen.model, seen.images, seen.origin
        whole = {**check, "origin": origin}
        found = ask(learner, images, labels, indices, whole, bench.telling("adding noise"))
        mean = found.details["modes"]["mean"]
        noises = {}
        for noise in config.noises:
            noises[noise] = {
                "information_bits": [each["value"] for each in mean[noise]["information_bits"]],
                "accuracy": [each["value"] for each in mean[noise]["accuracy"]],
                "kept": ends(found.metrics[f"kept_{noise}"]),
            }
        return {
            "model": model,
            "seed": seed,
            "n": len(labels),
            "space": config.space,
            "snr": found.details["snr"],
            "label_entropy_bits": found.details["label_entropy_bits"],
            "noises": noises,
            "test_accuracy": run.info()["result"]["test_accuracy"],
        }

    about = {"recipe": recipe, "images": config.images, "space": config.space, "check": check}
    return Experiment(f"{model}, seed {seed}, noise", about, measure)
