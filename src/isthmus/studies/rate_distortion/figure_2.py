"""Does the stochastic gradient's signal-to-noise ratio settle, when, and at one level for all layers?

Figure 2 of "A Rate-Distortion Theory of Adversarial Examples", after Shwartz-Ziv & Tishby 2017: six layers on MNIST's
threes and sevens, ReLU or tanh, with and without batch normalisation after all hidden layers.
"""

from __future__ import annotations

from typing import Any

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.rate_distortion import digits_pair, snr_claims, snr_page
from isthmus.studies.store import Experiment, ResultStore, Stages

TRAINING: dict[str, Any] = {**digits_pair.TRAINING, "epochs": 3000}


class Config(digits_pair.PairConfig):
    """Figure 2's.

    Attributes:
        every: the ratio is told at the end of every so many epochs.
        normalize_noise: divide the noise by the weights' norm, as the signal is. The caption does not; false takes it
            literally (:mod:`isthmus.training.callbacks.gradient_snr`).
    """

    training: dict[str, Any] = TRAINING
    every: Positive = 5
    normalize_noise: bool = True


SCALES = scales(
    Config,
    tiny={**digits_pair.TINY, "every": 1},
    small={"seeds": 2, "training": {**digits_pair.TRAINING, "epochs": 300}},
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """A cell for every network."""
    yield [
        _cell(config, bench, activation, batch_norm, seed)
        for seed in range(config.seeds)
        for activation in ("relu", "tanh")
        for batch_norm in (False, True)
    ]


def _cell(config: Config, bench: ResultStore, activation: Any, batch_norm: bool, seed: int) -> Experiment:
    """``{"epochs": [...], "layers": {"1": {"signal", "noise", "snr": [...]}, …}, "test_accuracy", …}``, from the input
    on."""
    observe = {"name": "gradient_snr", "every": config.every, "normalize_noise": config.normalize_noise}
    recipe = config.recipe(seed, observe, activation, batch_norm)

    def measure() -> dict[str, Any]:
        run = bench.train(recipe)
        lines = [line for line in run.metrics() if "observed" in line]
        said = [line["observed"]["gradient_snr"] for line in lines]
        layers = {
            f"{number}": {part: [each[name][part] for each in said] for part in ("signal", "noise", "snr")}
            for number, name in enumerate(said[0], 1)
        }
        return {
            "activation": activation,
            "batch_norm": batch_norm,
            "seed": seed,
            "epochs": [line["epoch"] + 1 for line in lines],
            "layers": layers,
            "test_accuracy": run.info()["result"]["test_accuracy"],
        }

    name = f"{activation}{', batch norm' * batch_norm}, seed {seed}"
    return Experiment(name, {"recipe": recipe, "measured": "gradient SNR"}, measure)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return snr_claims.findings(record)


def section(record: StudyRecord) -> Section:
    """A panel a network."""
    return snr_page.section(record)
