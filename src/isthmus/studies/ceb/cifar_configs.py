"""Options of the CEB studies on CIFAR-10; the defaults are the papers', or our reading if they do not state them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from isthmus.core.config import Positive
from isthmus.studies.ceb.configs import Curve, Families, Grid, Rhos, SweepConfig
from isthmus.studies.image_models import Eps, ModelSpec, Objective

SAME_IMAGES = "pgd on the ensemble's images"
"""Name of PGD on the images that the ensemble attacks."""
LINF: Grid = tuple(n / 255 for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))
L2: Grid = tuple(n / 255 for n in (10, 25, 50, 75, 100, 200, 400, 800, 1600))
CIFAR10_1 = ("cifar10_1:v4", "cifar10_1:v6")
MODEL_28X10: dict[str, Any] = {
    "backbone": {"name": "wide_resnet", "depth": 28, "width": 10, "norm": False},
    "covariance": "identity",
    "classifier": "linear",
    "normalize": "dataset",
}
MODEL_62X7: dict[str, Any] = {
    **MODEL_28X10,
    "backbone": {"name": "wide_resnet", "depth": 62, "width": 7, "norm": True},
}
MODEL_BIDIRECTIONAL: dict[str, Any] = {**MODEL_62X7, "classifier": "consistent"}
_COMMON: dict[str, Any] = {
    "optimizer": {"lr": 1e-3},
    "augment": "autoaugment",
    "precision": "bf16",
    "channels_last": True,
    "validate_every": 10,
}
TRAINING_28X10: dict[str, Any] = {
    **_COMMON,
    "epochs": 1500,
    "batch_size": 128,  # not stated; that of AutoAugment's networks
    "learning_rate": {"milestones": [500, 1000, 1250], "factor": 0.3},
}
TRAINING_62X7: dict[str, Any] = {
    **_COMMON,
    "epochs": 800,
    "batch_size": 250,
    "learning_rate": {"milestones": [400, 600], "factor": 0.1},
}
MADRY: dict[str, Any] = {
    "name": "pgd",
    "steps": 7,
    "threat": "linf:8/255",
    "step_size": "2/255",
    "batch_norm": "train",
}
"""Adversarial training as Madry et al. 2018 did it on CIFAR-10."""
Given = str | Mapping[str, Any]
Shifts = tuple[str | dict[str, Any], ...]


def shift_options(given: Given) -> dict[str, Any]:
    """A shifted test set by its options."""
    if not isinstance(given, str):
        return dict(given)
    name, _, version = given.partition(":")
    return {"name": name, "version": version} if version else {"name": name}


def shift_name(given: Given) -> str:
    """A set's name: "cifar10_1:v6", "cifar10_c"."""
    options = shift_options(given)
    return f"{options['name']}:{options.get('version') or 'v6'}" if options["name"] == "cifar10_1" else options["name"]


class CifarConfig(SweepConfig):
    """How networks are trained and attacked on CIFAR-10.

    Attributes:
        steps: of PGD, each 4/3·ε/steps long.
        direction: "none" for untargeted PGD, as in figure 3; "random" targets a random wrong class in each run (the
            text on figure 2 says "targeted" without the class).
        linf, l2: ε of the curves, ascending. The papers print no list.
        at_linf, at_l2: ε of these at which models are compared. The paper does not print its ε in ℓ2; ours is a
            reading.
        ensemble: a suite that attacks beside PGD, at ``at_linf`` and ``at_l2``.
        ensemble_images: number of evaluated images that it attacks.
        shifts: published shifted test sets, by name or with options.
        madry: run folder of an adversarially trained network for CIFAR-10, the source of transfers; None for none.
    """

    departs: ClassVar[Mapping[str, Any]] = {}

    data: str = "cifar10"
    rho_schedule: str | dict[str, Any] | None = "cifar_000"
    scheduled: float = math.inf
    steps: Positive = 20
    direction: Literal["none", "random"] = "none"
    linf: Grid = LINF
    l2: Grid = L2
    at_linf: Eps = 8 / 255
    at_l2: Eps = 200 / 255
    ensemble: str | list[Any] = "standard"
    ensemble_images: Positive = 1000
    shifts: Shifts = CIFAR10_1
    madry: str | None = None

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        for name in ("linf", "l2"):
            grid, at = getattr(self, name), getattr(self, f"at_{name}")
            if list(grid) != sorted(set(grid)):
                raise ValueError(f"{name} must ascend")
            if at not in grid:
                raise ValueError(f"at_{name}={at:g} is none of {name}; add it there")
        return self

    def at(self, norm: str) -> float:
        """ε in a norm at which models are compared."""
        return {"linf": self.at_linf, "l2": self.at_l2}[norm]

    def pgd(self) -> list[Any]:
        """The papers' attack; their step is (4/3)·ε/n."""
        step = 4 / 3 / self.steps
        return [{"name": "pgd", "steps": self.steps, "relative_step_size": step, "targets": self.direction}]

    def curves(self) -> tuple[Curve, ...]:
        """PGD on all evaluated images at every ε; the ensemble on some of them at one, and PGD on the same."""
        strong: dict[str, Any] = {"name": "ensemble", "suite": self.ensemble, "images": self.ensemble_images}
        weak: dict[str, Any] = {"name": SAME_IMAGES, "suite": self.pgd(), "images": self.ensemble_images}
        return (
            Curve(name="pgd", norm="linf", eps=self.linf, suite=self.pgd()),
            Curve(name="pgd", norm="l2", eps=self.l2, suite=self.pgd()),
            *(
                Curve(norm=norm, eps=(eps,), **attack)
                for attack in (weak, strong)
                for norm, eps in (("linf", self.at_linf), ("l2", self.at_l2))
            ),
        )

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model; "_bn" and "_pgd" add batch normalisation to its backbone."""
        recipe = super().recipe(model)
        if model.objective.endswith(("_bn", "_pgd")):
            recipe["model"] = {**self.model, "backbone": {**self.model["backbone"], "norm": True}}
        return recipe

    def objective(self, model: ModelSpec) -> Any:
        """The objective without its suffix "_bn" or "_pgd"."""
        plain: Any = model.objective.partition("_")[0]
        return super().objective(model._replace(objective=plain))


class Cifar28x10Config(CifarConfig):
    """CEB, figure 2. The paper trained each model once; several seeds at some ρ decide claims about training.

    Attributes:
        normed: values of ρ at which CEB is also trained with batch normalisation; the paper does not list them.
        adversarial: ``training.adversarial`` in the recipe of a deterministic network with batch normalisation, trained
            with the first seed alone; None for no such network. The paper quotes Madry et al.'s, with these options.
    """

    seeds: Positive = 3
    model: dict[str, Any] = MODEL_28X10
    training: dict[str, Any] = TRAINING_28X10
    rhos: Rhos = tuple(-1 + 0.25 * step for step in range(25))
    repeated: tuple[float, ...] | None = (1.0, 2.0, 3.0, 4.0, 5.0)
    normed: tuple[float, ...] = (1.0, 3.0, 5.0)
    adversarial: str | dict[str, Any] | None = MADRY

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model; "_pgd" adds adversarial training."""
        recipe = super().recipe(model)
        if model.objective == "determ_pgd":
            recipe["training"] = {**self.training, "adversarial": self.adversarial}
        return recipe

    def of_seed(self, seed: int) -> list[tuple[Objective, float | None]]:
        """Deterministic networks without and with batch normalisation, CEB over ρ, and some of them with it.

        With the first seed, the adversarially trained network is the last one.
        """
        normed: list[tuple[Objective, float | None]] = [("determ_bn", None), *(("ceb_bn", rho) for rho in self.normed)]
        with_attack = seed == self.first_seed and self.adversarial is not None
        attacked: list[tuple[Objective, float | None]] = [("determ_pgd", None)] * with_attack
        return [*super().of_seed(seed), *normed, *attacked]


class Cifar62x7Config(CifarConfig):
    """CEB, figure 3: two values of ρ. The paper shows the most accurate model of each, of an unknown number."""

    seeds: Positive = 3
    model: dict[str, Any] = MODEL_62X7
    training: dict[str, Any] = TRAINING_62X7
    rhos: Rhos = (0.0, 5.0)
    shifts: Shifts = (*CIFAR10_1, "cifar10_c")

    def of_seed(self, seed: int) -> list[tuple[Objective, float | None]]:
        """The bottlenecks alone: the paper has no deterministic network of this size."""
        return [model for model in super().of_seed(seed) if model[0] in self.families]


class BidirectionalConfig(Cifar62x7Config):
    """Entropy, figure 6. It differs from ``ceb/cifar-62x7`` in objective, classifier and the attack's steps."""

    model: dict[str, Any] = MODEL_BIDIRECTIONAL
    families: Families = ("bidirectional",)
    steps: Positive = 7
    shifts: Shifts = CIFAR10_1
