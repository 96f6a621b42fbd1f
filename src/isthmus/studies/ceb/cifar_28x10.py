"""How do accuracy and robustness on CIFAR-10 depend on ρ for CEB's 28×10 Wide ResNets, and which ρ train at all?

Figure 2 and the 28×10 part of figure 3 of Fischer & Alemi 2020: no batch normalisation, e(z|x) of unit covariance
around the 640 pooled features, a linear classifier. Deterministic networks without and with batch normalisation stand
beside it, and what a strong ensemble leaves, which the paper did not ask.
"""

from __future__ import annotations

from typing import Any

from isthmus.core.config import Positive
from isthmus.studies.ceb import cifar, cifar_28x10_claims, cifar_28x10_page
from isthmus.studies.ceb.cifar import CifarConfig
from isthmus.studies.old.image_models import Kind
from isthmus.studies.old.study import scales

MODEL: dict[str, Any] = {
    "backbone": {"name": "wide_resnet", "depth": 28, "width": 10, "norm": False},
    "covariance": "identity",
    "classifier": "linear",
    "normalize": "dataset",
}
TRAINING: dict[str, Any] = {
    "epochs": 1500,
    "batch_size": 128,  # not said; that of AutoAugment's networks
    "optimizer": {"lr": 1e-3},
    "learning_rate": {"milestones": [500, 1000, 1250], "factor": 0.3},
    "augment": "autoaugment",
    "precision": "bf16",
    "channels_last": True,
    "validate_every": 10,
}


MADRY: dict[str, Any] = {
    "name": "pgd",
    "steps": 7,
    "threat": "linf:8/255",
    "step_size": "2/255",
    "batch_norm": "train",
}
"""Adversarial training as Madry et al. 2018 did it on CIFAR-10."""


class Config(CifarConfig):
    """The paper trained each model once; so many more at some ρ let a claim about training be judged.

    Attributes:
        normed: values of ρ at which CEB is trained with batch normalisation as well; the paper does not list them.
        adversarial: how a deterministic network with batch normalisation is trained on adversarial images, as
            ``training.adversarial`` of a recipe, with the first seed alone; None for no such network. The paper quotes
            Madry et al.'s, whose options these are.
    """

    seeds: Positive = 3
    model: dict[str, Any] = MODEL
    training: dict[str, Any] = TRAINING
    rhos: tuple[float, ...] = tuple(-1 + 0.25 * step for step in range(25))
    repeated: tuple[float, ...] | None = (1.0, 2.0, 3.0, 4.0, 5.0)
    normed: tuple[float, ...] = (1.0, 3.0, 5.0)
    adversarial: str | dict[str, Any] | None = MADRY

    def recipe(self, kind: Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model; "_pgd" is of adversarial training."""
        recipe = super().recipe(kind, knob, seed)
        if kind == "determ_pgd":
            recipe["training"] = {**self.training, "adversarial": self.adversarial}
        return recipe

    def models(self, seed: int) -> list[tuple[Kind, float | None]]:
        """Deterministic networks without and with batch normalisation, CEB over ρ, and some of them with it.

        With the first seed, the adversarially trained network is the last one.
        """
        normed: list[tuple[Kind, float | None]] = [("determ_bn", None), *(("ceb_bn", rho) for rho in self.normed)]
        trained_on_attack = seed == self.first_seed and self.adversarial is not None
        attacked: list[tuple[Kind, float | None]] = [("determ_pgd", None)] * trained_on_attack
        return [*super().models(seed), *normed, *attacked]


SCALES = scales(
    Config,
    tiny={
        **cifar.DIGITS,
        "seeds": 2,
        "rhos": (-1.0, 1.0, 3.0, 5.0),
        "repeated": None,
        "normed": (1.0, 5.0),
        "adversarial": "pgd:3 linf:0.1",
        "model": {**MODEL, "backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": False}},
        "training": {"epochs": 3, "batch_size": 128, "optimizer": {"lr": 5e-3}},
        "steps": 5,
    },
    small={
        **cifar.FIVE_THOUSAND,
        "rhos": (-1.0, 0.0, 1.0, 3.0, 5.0),
        "repeated": None,
        "normed": (1.0, 5.0),
        "model": {**MODEL, "backbone": {"name": "wide_resnet", "depth": 10, "width": 1, "norm": False}},
        "training": {
            "epochs": 15,
            "batch_size": 128,
            "optimizer": {"lr": 2e-3},
            "augment": "crop_flip",
            "channels_last": True,
            "validate_every": 5,
        },
        "shifts": cifar.CIFAR10_1,
    },
)
cells, findings, section = cifar.cells, cifar_28x10_claims.findings, cifar_28x10_page.section
