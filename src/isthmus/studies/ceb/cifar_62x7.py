"""Do large Wide ResNets train on CIFAR-10 at ρ = 0, and are they then more accurate, robust and general than at ρ = 5?

The 62×7 part of figure 3 and of section 3.2 of Fischer & Alemi 2020: CEB with a linear classifier on the 448 pooled
features, batch normalisation, PGD of 20 steps, transfers from CEB5 to CEB0, CIFAR-10.1 and CIFAR-10-C. Fischer 2020
trains the same networks otherwise: ``ceb/cifar-62x7-bidirectional``.
"""

from __future__ import annotations

from typing import Any

from isthmus.core.config import Positive
from isthmus.studies.ceb import cifar, cifar_62x7_claims, cifar_62x7_page
from isthmus.studies.ceb.cifar import CifarConfig
from isthmus.studies.old.image_models import Kind
from isthmus.studies.old.study import scales

MODEL: dict[str, Any] = {
    "backbone": {"name": "wide_resnet", "depth": 62, "width": 7, "norm": True},
    "covariance": "identity",
    "classifier": "linear",
    "normalize": "dataset",
}
TRAINING: dict[str, Any] = {
    "epochs": 800,
    "batch_size": 250,
    "optimizer": {"lr": 1e-3},
    "learning_rate": {"milestones": [400, 600], "factor": 0.1},
    "augment": "autoaugment",
    "precision": "bf16",
    "channels_last": True,
    "validate_every": 10,
}
TINY: dict[str, Any] = {
    **cifar.DIGITS,
    "seeds": 2,
    "model": {**MODEL, "backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True}},
    "training": {"epochs": 3, "batch_size": 128, "optimizer": {"lr": 5e-3}},
    "steps": 5,
}
SMALL: dict[str, Any] = {
    **cifar.FIVE_THOUSAND,
    "seeds": 3,
    "model": {**MODEL, "backbone": {"name": "wide_resnet", "depth": 16, "width": 1, "norm": True}},
    "training": {
        "epochs": 15,
        "batch_size": 125,
        "optimizer": {"lr": 2e-3},
        "augment": "crop_flip",
        "channels_last": True,
        "validate_every": 5,
    },
}


class Config(CifarConfig):
    """Two values of ρ. The paper says that it shows the most accurate model of each, not of how many."""

    seeds: Positive = 3
    model: dict[str, Any] = MODEL
    training: dict[str, Any] = TRAINING
    rhos: tuple[float, ...] = (0.0, 5.0)
    shifts: tuple[str | dict[str, Any], ...] = (*cifar.CIFAR10_1, "cifar10_c")

    def models(self, seed: int) -> list[tuple[Kind, float | None]]:
        """The bottlenecks alone: the paper has no deterministic network of this size."""
        return [model for model in super().models(seed) if model[0] in self.families]


SCALES = scales(Config, tiny=TINY, small=SMALL)
cells, findings, section = cifar.cells, cifar_62x7_claims.findings, cifar_62x7_page.section
