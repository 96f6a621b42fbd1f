"""What the studies of CIFAR-10 share: figures 3 and 9 of the paper differ in the bottleneck alone.

Three questions about one set of models: what a single run of PGD leaves over the trade-off, what restarts leave at one
value of it, and what AutoPGD and MultiTargeted together leave ("AA+MT", :data:`isthmus.attacks.suites.SUITES` ``ib``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from isthmus.core.config import Positive
from isthmus.core.tradeoff import Rho
from isthmus.studies.closer_look import presets
from isthmus.studies.old import image_models
from isthmus.studies.old.image_models import Eps, ImageConfig, Pgd
from isthmus.studies.store import ResultStore, Stages

Bottleneck = Literal["vib", "ceb"]
MODEL: dict[str, Any] = {
    "backbone": {"name": "preact_resnet", "depth": 18, "hidden": [1024, 1024]},
    "dim": 256,
    "samples": 12,
    "normalize": "dataset",
}
TRAINING: dict[str, Any] = {
    "epochs": 1000,
    "batch_size": 1024,
    "optimizer": {"lr": 0.012},
    "learning_rate": {"every": 250, "factor": 0.3},
    "augment": "crop_flip",
}
# what a laptop trains in a minute: no claim about the paper's networks
SMALL: dict[str, Any] = {
    "seeds": 2,
    "train_limit": 5000,
    "images": 100,
    "model": {"backbone": {"name": "conv"}, "dim": 64, "samples": 4, "normalize": "dataset"},
    "training": {"epochs": 12, "batch_size": 128, "optimizer": {"lr": 0.002}, "augment": "crop_flip"},
    "starts": 10,
    "ensemble": [
        {"name": "apgd", "loss": "ce", "restarts": 1},
        {"name": "apgd", "loss": "dlr", "restarts": 1},
        {"name": "multitargeted", "restarts": 1, "steps": 50},
    ],
}
TINY: dict[str, Any] = {
    **presets.DIGITS_TINY,
    "eps": 0.1,
    "pgd": Pgd(steps=5, step_size=0.04),
    "starts": 3,
    "ensemble": [
        {"name": "apgd", "loss": "ce", "steps": 8},
        {"name": "apgd", "loss": "dlr", "steps": 8},
        {"name": "multitargeted", "restarts": 1, "steps": 4},
    ],
}


class CifarConfig(ImageConfig):
    """CIFAR-10 as in section 3.2.

    Attributes:
        kind: the bottleneck.
        knobs: values of ρ (CEB) or β (VIB); the paper does not list them.
        reference: the value that restarts are tried at.
        warm_up: epochs over which the trade-off comes from next to nothing to its value: linearly in ρ for CEB, from
            100; linearly in β for VIB, from 1e-8.
        eps: radius of the ℓ∞ ball.
        pgd: the weaker attack.
        starts: of PGD at ``reference`` and on the deterministic network; the others get one.
        ensemble: the suite, or the attacks, of AA+MT.
    """

    seeds: Positive = 10
    data: str = "cifar10"
    model: dict[str, Any] = MODEL
    training: dict[str, Any] = TRAINING
    modes: tuple[Literal["mean", "stochastic"], ...] = ("mean",)
    kind: Bottleneck
    knobs: tuple[float, ...]
    reference: float
    warm_up: float
    eps: Eps = 8 / 255
    pgd: Pgd = Pgd(steps=20, step_size=0.007)
    starts: Positive = 100
    ensemble: str | list[Any] = "ib"

    def recipe(self, kind: image_models.Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model, with the warm-up of its trade-off."""
        recipe = super().recipe(kind, knob, seed)
        starts: Mapping[str, Any] = {
            "ceb": {"start": 100.0, "space": "rho"},
            "vib": {"start": Rho.from_rate_weight(1e-8).value, "space": "weight"},
        }
        if kind == "determ" or not self.warm_up:
            return recipe
        schedule = {**starts[kind], "epochs": self.warm_up}
        return {**recipe, "training": {**self.training, "rho_schedule": schedule}}

    def models(self) -> list[tuple[image_models.Kind, float | None]]:
        """The deterministic network, and a bottleneck for each value of the trade-off."""
        return [("determ", None), *((self.kind, knob) for knob in self.knobs)]


def cells(config: CifarConfig, bench: ResultStore) -> Stages:
    """Every model under PGD, and under the ensemble."""
    from isthmus.studies.closer_look import attacked
    from isthmus.studies.old.laboratory import Laboratory

    laboratory, strong = Laboratory(config, bench), attacked.ensemble(config.eps, config.ensemble)
    models = [(kind, knob, seed) for seed in range(config.seeds) for kind, knob in config.models()]
    starts = {knob: config.starts if knob in (None, config.reference) else 1 for _, knob, _ in models}
    weak = {count: attacked.restarts(config.eps, config.pgd, count) for count in set(starts.values())}
    # one cell of a model far from the other, so that two processes do not wait for one training
    yield [
        *(laboratory.cell(*model, weak[starts[model[1]]]) for model in models),
        *(laboratory.cell(*model, strong) for model in models),
    ]
