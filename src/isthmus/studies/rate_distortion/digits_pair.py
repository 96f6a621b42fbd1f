"""The network of figures 2 and 3, as plain data: a fully connected one on MNIST's threes and sevens, plain SGD."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.studies.old.study import Data, StudyConfig, data_name, data_options

Activation = Literal["relu", "tanh"]
WIDTHS = (512, 256, 128, 64, 32)
TRAINING: dict[str, Any] = {"batch_size": 100, "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.0}}
TINY: dict[str, Any] = {
    "seeds": 2,
    "data": "digits",
    "hidden": (32, 16, 8),
    "training": {"epochs": 8, "batch_size": 40, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.0}},
}


class PairConfig(StudyConfig):
    """Section 4.1. The paper says neither widths nor how weights begin.

    Attributes:
        seeds: how often each network is trained, with seeds 0, 1, 2, ...
        data: a data set, by name or with its options.
        classes: the two classes.
        train_limit: train on so many images, class-balanced; None for all.
        hidden: widths of the hidden layers.
        training: part of a recipe, the same for all.
        label_seed: what random labels are drawn from.
    """

    seeds: Positive = 3
    data: Data = "mnist"
    classes: tuple[str, str] = ("3", "7")
    train_limit: Positive | None = None
    hidden: Annotated[tuple[Positive, ...], Field(min_length=2)] = WIDTHS
    training: dict[str, Any] = TRAINING
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(
        self,
        seed: int,
        observe: dict[str, Any],
        activation: Activation = "relu",
        batch_norm: bool = False,
        random: bool = False,
    ) -> dict[str, Any]:
        """The recipe of one network.

        Args:
            observe: what is watched.
            random: whether labels are drawn at random.
        """
        normed, labels = "-bn" * batch_norm, {"random_labels": self.label_seed} if random else {}
        title = f"{data_name(self.data)}-{'-'.join(self.classes)}-{activation}"
        return {
            "name": f"{title}{normed}{'-random' * random}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, classes=self.classes, train_limit=self.train_limit, **labels),
            "model": {
                "backbone": {"name": "mlp", "hidden": self.hidden, "activation": activation, "batch_norm": batch_norm}
            },
            "objective": "deterministic",
            "training": {**self.training, "callbacks": [observe]},
        }
