"""How A Closer Look trains on MNIST, and smaller ways of it."""

from __future__ import annotations

from typing import Any

from isthmus.studies.image_models import ImageConfig

MNIST_MODEL: dict[str, Any] = {"backbone": {"name": "mlp", "hidden": [1024, 1024]}, "dim": 256, "samples": 12}
MNIST_TRAINING: dict[str, Any] = {
    "epochs": 200,
    "batch_size": 100,
    "optimizer": {"lr": 1e-4, "betas": [0.5, 0.999]},
    "learning_rate": {"every": 2, "factor": 0.97},
    "ema": 0.999,
}
# two hidden layers half as wide, a fortieth of the epochs, and a larger step to get somewhere in them
MNIST_SMALL: dict[str, Any] = {
    "seeds": 3,
    "images": 500,
    "model": {**MNIST_MODEL, "backbone": {"name": "mlp", "hidden": [512, 512]}},
    "training": {**MNIST_TRAINING, "epochs": 5, "optimizer": {"lr": 1e-3, "betas": [0.5, 0.999]}},
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
