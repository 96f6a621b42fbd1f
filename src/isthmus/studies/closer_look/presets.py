"""How A Closer Look trains on MNIST, and smaller ways of it."""

from __future__ import annotations

from typing import Any

from isthmus.studies.old.image_models import ImageConfig

MNIST_MODEL: dict[str, Any] = {"backbone": {"name": "mlp", "hidden": [1024, 1024]}, "dim": 256, "samples": 12}
MNIST_TRAINING: dict[str, Any] = {
    "epochs": 200,
    "batch_size": 100,
    "optimizer": {"lr": 1e-4, "betas": [0.5, 0.999]},
    "learning_rate": {"every": 2, "factor": 0.97},
    "ema": 0.999,
}
# Two hidden layers half as wide and a fifth of the epochs, with a larger step. No fewer: what the figures are about,
# gradients that vanish where the cross-entropy saturates, appears between 10 and 35 epochs; after 5 nothing is masked.
MNIST_SMALL: dict[str, Any] = {
    "seeds": 3,
    "images": 500,
    "model": {**MNIST_MODEL, "backbone": {"name": "mlp", "hidden": [512, 512]}},
    "training": {**MNIST_TRAINING, "epochs": 40, "optimizer": {"lr": 1e-3, "betas": [0.5, 0.999]}},
}
DIGITS_TINY: dict[str, Any] = {
    "seeds": 2,
    "data": "digits",
    "images": 60,
    "model": {"backbone": {"name": "mlp", "hidden": [32]}, "dim": 8, "samples": 4},
    "training": {"epochs": 4, "batch_size": 64, "optimizer": {"lr": 3e-3}},
}


class MnistConfig(ImageConfig):
    """MNIST as in the appendix; ten seeds."""

    seeds: int = 10
    data: str = "mnist"
    model: dict[str, Any] = MNIST_MODEL
    training: dict[str, Any] = MNIST_TRAINING
