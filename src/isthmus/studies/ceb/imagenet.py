"""What the two studies of ImageNet share: they differ in the depth of the ResNet, and in what is claimed of it.

Section 3.3 and A.2 of Fischer & Alemi 2020: a deterministic network and CEB at ten values of ρ, trained in each of
three ways; their errors on clean images, under 15 corruptions, on ImageNet-A, and under PGD towards random classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.studies.old.image_models import Eps, title
from isthmus.studies.old.study import StudyConfig
from isthmus.studies.store import ResultStore, Stages

Variant = Literal["plain", "autoaugment", "wide"]
VARIANTS: dict[str, str] = {
    "plain": "without AutoAugment",
    "autoaugment": "AutoAugment",
    "wide": "AutoAugment, twice as wide",
}
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


class ImageNetConfig(StudyConfig):
    """The recipe is that of ``examples/recipes/imagenet-ceb.yaml``, which says what the paper leaves open.

    Attributes:
        depth: of the ResNet.
        variants: ways of training, of ``plain`` (random crops alone), ``autoaugment``, and ``wide`` (with it, and twice
            the channels in every layer).
        rhos: values of ρ for CEB, in each of them.
        tie: the chosen ρ is the lowest whose clean accuracy is within this of the best.
        seeds: how often everything is trained, with seeds 0, 1, …; the paper has one run of each.
        data: "textures" makes a few images of its own, to see that everything runs.
        path: the folder with ``train/<class>/`` and ``val/<class>/`` (:mod:`isthmus.data.imagenet`).
        imagenet_c, imagenet_a: folders of ImageNet-C and ImageNet-A; by default those in ``ISTHMUS_DATA``. What is not
            there is not measured.
        size, interpolation, train_limit: of the data set ``imagenet``.
        corrupted_size: height and width of the images of ImageNet-C.
        images: attack so many validation images, class-balanced; None for all.
        corrupted: test on so many images of each corruption and severity, and of ImageNet-A; None for all.
        steps, linf, l2: of PGD directed at a random wrong class. The literal ℓ2 ball is tiny, see the tutorial.
        kl: see :class:`isthmus.studies.ceb.configs.FamilyConfig`.
        jump_start: steps over which the weight e^−ρ of the information term rises to its value, from e^−100.
        devices, accumulate: GPUs that train one model together, and parts in which each sees its share of a batch.
        training: part of a recipe, the same for every model.
    """

    depth: Literal[50, 101, 152]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("plain", "autoaugment", "wide")
    rhos: Annotated[tuple[float, ...], Field(min_length=1)] = tuple(float(rho) for rho in range(1, 11))
    tie: Annotated[float, Field(ge=0, lt=1)] = 0.001
    seeds: Positive = 1
    data: Literal["imagenet", "textures"] = "imagenet"
    path: Annotated[str, Field(min_length=1)] | None = None
    imagenet_c: Annotated[str, Field(min_length=1)] | None = None
    imagenet_a: Annotated[str, Field(min_length=1)] | None = None
    size: Positive = 224
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    train_limit: Positive | None = None
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

    def recipe(self, variant: Variant, rho: float | None, seed: int, path: str) -> dict[str, Any]:
        """The recipe of one model.

        Args:
            rho: None for the deterministic network.
            path: of the images.
        """
        kind: Literal["determ", "ceb"] = "determ" if rho is None else "ceb"
        own: dict[str, Any] = {
            "augment": "imagenet" if variant == "plain" else "imagenet_autoaugment",
            "devices": self.devices,
            "accumulate": self.accumulate,
        }
        if rho is not None:
            own["rho_schedule"] = {"start": 100.0, "space": "weight", "steps": self.jump_start}
        data = {"size": self.size, "interpolation": self.interpolation, "train_limit": self.train_limit}
        return {
            "name": f"resnet{self.depth}-{variant}-{title(kind, rho)}-seed{seed}".replace(" ", ""),
            "seed": seed,
            "data": {"name": "imagenet", "path": path, **data},
            "model": {
                "backbone": {"name": "resnet", "depth": self.depth, "width": 2 if variant == "wide" else 1},
                "classifier_std": 0.01,
                "normalize": "dataset",
            },
            "objective": "deterministic" if rho is None else {"name": "ceb", "rho": rho, "kl": self.kl},
            "training": {**own, **self.training},
        }

    def models(self) -> Iterator[tuple[Variant, float | None, int]]:
        """Way of training, ρ and seed of every model; all of one way stand together, and all of the first seed."""
        for seed in range(self.seeds):
            for variant in self.variants:
                yield from ((variant, rho, seed) for rho in (None, *self.rhos))

    def attack(self, norm: Literal["linf", "l2"]) -> list[dict[str, Any]]:
        """PGD in a norm, as a suite."""
        step_size = getattr(self, norm).step_size
        return [{"name": "pgd", "steps": self.steps, "step_size": step_size, "targets": "random"}]


ON_ONE: dict[str, Any] = {"devices": 1, "accumulate": 1}
TINY: dict[str, Any] = {
    **ON_ONE,
    "depth": 50,
    "variants": ("autoaugment",),
    "rhos": (1.0, 5.0),
    "data": "textures",
    "size": 32,
    "corrupted_size": 32,
    "images": 4,
    "corrupted": 4,
    "steps": 2,
    "jump_start": 4,
    "training": {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 1e-3}},
}
# a short training of the real network on small photographs: no claim about the paper's
SMALL: dict[str, Any] = {
    **ON_ONE,
    "depth": 50,
    "variants": ("plain", "autoaugment"),
    "rhos": (1.0, 5.0, 10.0),
    "size": 64,
    "train_limit": 5000,
    "images": 200,
    "corrupted": 20,
    "jump_start": 60,
    "training": {"epochs": 5, "batch_size": 128, "optimizer": {"lr": 1e-3}, "channels_last": True},
}


def cells(config: ImageNetConfig, bench: ResultStore) -> Stages:
    """Every model, trained and tested."""
    from isthmus.studies.ceb import imagenet_measuring

    yield imagenet_measuring.cells(config, bench)
