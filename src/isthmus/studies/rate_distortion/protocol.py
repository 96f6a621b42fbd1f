"""How the tables' models are trained, as plain data: a CNN on whitened grey images, plain SGD, three regularisers.

A is the network alone, B has weight decay besides, B+ is B with more images to train on, and C has batch normalisation
on top of B: without running averages, so that its answers depend on the batch. Unless it is set, the weight decay is
chosen as in the paper (:mod:`.weight_decay`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import Fraction, Positive
from isthmus.studies.old.image_models import Eps
from isthmus.studies.old.study import Data, StudyConfig, data_name, data_options
from isthmus.studies.rate_distortion.printed import Labels, Model

TRAINING: dict[str, Any] = {"epochs": 500, "optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.0}}
WHITENED: dict[str, Any] = {"name": "zca", "components": 400}
MORE: dict[str, Any] = {"extra": True}


class TableConfig(StudyConfig):
    """Section 4.3 and appendix B.

    SVHN's images are those of the cropped digits; elsewhere ``data`` names another set, and the page says so.

    Attributes:
        seeds: how often each model is trained, with seeds 0, 1, 2, ...
        data: a data set, by name or with its options.
        train_limit: train on so many images, class-balanced; None for all.
        more_data: options of the data, or ``train_limit``, that give B+ its additional images; ``{"extra": true}`` of
            svhn, as the paper's, is 604,388 in all.
        models: which of the four.
        batch_sizes: with which each is trained.
        normalize: what images go through first; part of a recipe.
        width: channels of the first convolution.
        training: part of a recipe, the same for all models but for batch size and decay.
        weight_decay: λ of B and C, on all parameters, in PyTorch's convention (λ adds λ·w to the gradient). None
            chooses it as the paper does, for the data and the training at hand (:mod:`.weight_decay`); the paper's
            choice on SVHN is 1e-2.
        weight_decays: the candidates for λ, tried from the smallest on.
        label_seed: what random labels are drawn from; the same for all models.
    """

    seeds: Positive = 5
    data: Data = "svhn"
    train_limit: Positive | None = None
    more_data: Annotated[dict[str, Any], Field(min_length=1)] = MORE
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = ("A", "B", "C")
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (128, 64, 32)
    normalize: dict[str, Any] = WHITENED
    width: Positive = 32
    training: dict[str, Any] = TRAINING
    weight_decay: Eps | None = None
    weight_decays: Annotated[tuple[Eps, ...], Field(min_length=1)] = (5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(self, model: Model, batch_size: int, labels: Labels, seed: int) -> dict[str, Any]:
        """The recipe of one model.

        Raises:
            ConfigError: a model with weight decay, and λ is neither set nor chosen yet.
        """
        if model != "A" and self.weight_decay is None:
            raise ConfigError(f"Model {model} needs a weight decay; set weight_decay, or choose one first.")
        decay = {} if model == "A" else {"weight_decay": self.weight_decay}
        random = {"random_labels": self.label_seed} if labels == "random" else {}
        optimizer = {**self.training.get("optimizer", {}), **decay}
        more = self.more_data if model == "B+" else {}
        return {
            "name": f"{data_name(self.data)}-{model}-{batch_size}-{labels}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, **{"train_limit": self.train_limit, **more, **random}),
            "model": {
                "backbone": {"name": "basic_cnn", "width": self.width, "batch_norm": model == "C"},
                "normalize": self.normalize,
                "classifier_unit_norm": True,
            },
            "objective": "deterministic",
            "training": {**self.training, "batch_size": batch_size, "optimizer": optimizer},
        }


class MarginConfig(TableConfig):
    """Those of a table, and what counts.

    Attributes:
        margin: a gap smaller by this much counts as a difference.
    """

    margin: Fraction = 0.05


SMALL: dict[str, Any] = {
    "seeds": 3,
    "data": "cifar10",
    "train_limit": 2000,
    "more_data": {"train_limit": 8000},
    "models": ("A", "B", "C"),
    "batch_sizes": (128, 32),
    # weight decay needs its time, ten thousand steps at this rate; the test set is asked at the end alone
    "training": {**TRAINING, "epochs": 150, "validate_every": 150, "optimizer": {**TRAINING["optimizer"], "lr": 3e-2}},
}
SMALL_DIGITS: dict[str, Any] = {**SMALL, "data": "mnist", "normalize": {**WHITENED, "size": 32}}
"""Of figures that are about digits, which CIFAR-10 has none of."""
TINY: dict[str, Any] = {
    "seeds": 2,
    "data": "digits",
    "train_limit": 200,
    "more_data": {"train_limit": 400},
    "models": ("A", "B", "C"),
    "batch_sizes": (50,),
    "normalize": {"name": "zca", "components": 40, "size": 32},
    "width": 8,
    # 240 steps: A then fits 200 random labels, and a weight decay of 0.1 stops it
    "training": {"epochs": 60, "validate_every": 60, "optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.0}},
    "weight_decays": (0.03, 0.1, 0.3),
}
TINY_FIGURE: dict[str, Any] = {
    **TINY,
    # too few steps to choose λ by
    "weight_decay": 1e-2,
    "training": {"epochs": 20, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}},
}


def of_one_batch(preset: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """A preset with its smallest batch size alone, in which a run makes the most steps, and other settings."""
    return {**preset, "batch_sizes": preset["batch_sizes"][-1:], **settings}
