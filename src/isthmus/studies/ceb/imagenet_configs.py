"""Options of the CEB studies on ImageNet: section 3.3 and A.2 of Fischer & Alemi 2020."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.studies.ceb.configs import Rhos
from isthmus.studies.image_models import Eps, ModelSpec
from isthmus.studies.study import TrainedConfig

Variant = Literal["plain", "autoaugment", "wide"]
Norm = Literal["linf", "l2"]
Folder = Annotated[str, Field(min_length=1)]
VARIANTS: dict[Variant, str] = {
    "plain": "without AutoAugment",
    "autoaugment": "AutoAugment",
    "wide": "AutoAugment, twice as wide",
}
"""Ways of training, in the order of the paper's tables from right to left."""
TRAINING: dict[str, Any] = {
    "epochs": 270,
    "batch_size": 8192,
    "optimizer": {
        "name": "sgd",
        "lr": 1.6,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-4,
        "decay_norm": False,
    },
    "learning_rate": {"milestones": [90, 180, 240], "factor": 0.1, "warmup_epochs": 5},
    "precision": "bf16",
    "channels_last": True,
    "log_every": 20,
}


class Ball(Frozen):
    """A ball and PGD's step in it, in units of images in [0, 1]; the paper's 16 and 2 are on the scale 0 to 255."""

    eps: Eps = 16 / 255
    step_size: Eps = 2 / 255


class ImageNetConfig(TrainedConfig):
    """The recipe is that of ``examples/recipes/imagenet-ceb.yaml``, which lists what the paper leaves open.

    Attributes:
        depth: of the ResNet.
        variants: ways of training: ``plain`` (random crops alone), ``autoaugment``, and ``wide`` (with AutoAugment and
            twice the channels in every layer).
        rhos: values of ρ for CEB, in each of them.
        tie: the chosen ρ is the lowest whose clean accuracy is within this of the best.
        seeds: the paper has one run of each model.
        data: "textures" generates a few images, for a dry run.
        path: the folder with ``train/<class>/`` and ``val/<class>/`` (:mod:`isthmus.data.imagenet`).
        imagenet_c, imagenet_a: folders of ImageNet-C and ImageNet-A; by default those in ``ISTHMUS_DATA``. A set that
            is absent is not measured.
        size, interpolation: of the data set ``imagenet``.
        corrupted_size: height and width of the images of ImageNet-C.
        images: attack this many validation images, class-balanced; None for all.
        corrupted: test on this many images of each corruption and severity, and of ImageNet-A; None for all.
        steps, linf, l2: of PGD that targets a random wrong class. The literal ℓ2 ball is tiny, see the tutorial.
        kl: see :class:`isthmus.studies.ceb.configs.FamilyConfig`.
        jump_start: steps over which the weight e^−ρ of the information term rises to its value, from e^−100.
        devices, accumulate: GPUs that train one model together, and parts in which each sees its share of a batch.
    """

    depth: Literal[50, 101, 152] = 50
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("plain", "autoaugment", "wide")
    rhos: Rhos = tuple(float(rho) for rho in range(1, 11))
    tie: Annotated[float, Field(ge=0, lt=1)] = 0.001
    seeds: Positive = 1
    data: Literal["imagenet", "textures"] = "imagenet"
    path: Folder | None = None
    imagenet_c: Folder | None = None
    imagenet_a: Folder | None = None
    size: Positive = 224
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    corrupted_size: Positive = 224
    images: Positive | None = None
    corrupted: Positive | None = None
    steps: Positive = 20
    linf: Ball = Ball()
    l2: Ball = Ball()
    kl: Literal["closed", "sampled"] = "sampled"
    jump_start: Positive = 12_000
    devices: Positive = 8
    accumulate: Positive = 4
    training: dict[str, Any] = TRAINING

    def recipe(self, model: ModelSpec, path: str) -> dict[str, Any]:
        """The recipe of one model.

        Args:
            path: of the images.
        """
        own: dict[str, Any] = {
            "augment": "imagenet" if model.variant == "plain" else "imagenet_autoaugment",
            "devices": self.devices,
            "accumulate": self.accumulate,
        }
        objective: Any = "deterministic"
        if model.parameter is not None:
            objective = {"name": "ceb", "rho": model.parameter, "kl": self.kl}
            own["rho_schedule"] = {"start": 100.0, "space": "weight", "steps": self.jump_start}
        data = {"size": self.size, "interpolation": self.interpolation, "train_limit": self.train_limit}
        width = 2 if model.variant == "wide" else 1
        return {
            "name": f"resnet{self.depth}-{model.variant}-{model.title}-seed{model.seed}".replace(" ", ""),
            "seed": model.seed,
            "data": {"name": "imagenet", "path": path, **data},
            "model": {
                "backbone": {"name": "resnet", "depth": self.depth, "width": width},
                "classifier_std": 0.01,
                "normalize": "dataset",
            },
            "objective": objective,
            "training": {**own, **self.training},
        }

    def models(self) -> list[ModelSpec]:
        """Every model: seed by seed, and variant by variant."""
        return [
            ModelSpec("determ" if rho is None else "ceb", rho, seed, variant)
            for seed in range(self.seeds)
            for variant in self.variants
            for rho in (None, *self.rhos)
        ]

    def ball(self, norm: Norm) -> Ball:
        """The ball of a norm."""
        return self.linf if norm == "linf" else self.l2

    def attack(self, norm: Norm) -> list[dict[str, Any]]:
        """PGD in a norm, as a suite."""
        return [{"name": "pgd", "steps": self.steps, "step_size": self.ball(norm).step_size, "targets": "random"}]


class ImageNet152Config(ImageNetConfig):
    """Table 2: ResNet-152."""

    depth: Literal[50, 101, 152] = 152
