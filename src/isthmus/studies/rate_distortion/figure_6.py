"""How does a layer of two neurons come to hold the classes apart, under an information bottleneck and weight decay?

Figure 6 of "A Rate-Distortion Theory of Adversarial Examples": a nonlinear information bottleneck on MNIST, (a) plain,
(b) with batch normalisation before the layer, (c) with that but its scale; snapshots over 500 epochs. Beside them stand
the layer's power, its capacity as a Gaussian channel, and how round its clusters are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.recipe import Positive
from isthmus.core.types import Section
from isthmus.studies.old.evidence import ClaimResult
from isthmus.studies.old.image_models import Eps
from isthmus.studies.old.study import Data, StudyConfig, StudyRecord, data_name, data_options, scales
from isthmus.studies.rate_distortion import sphere_claims, sphere_page
from isthmus.studies.store import ResultStore, Stages

Variant = Literal["a", "b", "c"]
TRAINING: dict[str, Any] = {
    "epochs": 500,
    "batch_size": 128,
    "optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.0, "weight_decay": 1e-3},
}


class Config(StudyConfig):
    """Appendix A. What it leaves open is as in the code of Kolchinsky et al. of 2018, except for the optimiser.

    That is plain SGD, as in the paper's other experiments: the code's Adam stays at chance for the first ten
    epochs with the paper's rate of 0.01.

    Attributes:
        seeds: how often each network is trained, with seeds 0, 1, 2, ...
        data: a data set, by name or with its options.
        train_limit: train on so many images, class-balanced; None for all.
        variants: "a" plain, "b" batch normalisation in the layers before, "c" the same without its scale γ.
        hidden: widths before the layer of two neurons.
        decoder: widths after it.
        rate_weight: β of the information.
        estimate, power, kernel_points: of :mod:`isthmus.objectives.nonlinear_ib`.
        encoder_std: the noise's standard deviation in the beginning.
        epochs: when the layer is looked at; 0 is before training.
        drawn: training images whose codes are kept for the figure.
        training: part of a recipe.
    """

    seeds: Positive = 3
    data: Data = "mnist"
    train_limit: Positive | None = None
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)] = ("a", "b", "c")
    hidden: tuple[Positive, ...] = (392, 196)
    decoder: tuple[Positive, ...] = (49,)
    rate_weight: Annotated[float, Field(gt=0, lt=1)] = 5e-2
    estimate: Literal["upper", "kde"] = "kde"
    power: Literal[1, 2] = 1
    kernel_points: Annotated[int, Field(ge=0)] = 1000
    encoder_std: Eps = 6.738e-3
    epochs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)] = (0, 20, 30, 50, 500)
    drawn: Positive = 1000
    training: dict[str, Any] = TRAINING

    def recipe(self, variant: Variant, seed: int, steps_per_epoch: int) -> dict[str, Any]:
        """The recipe of one network, which keeps its weights at the epochs."""
        normed: dict[Variant, bool | str] = {"a": False, "b": True, "c": "unscaled"}
        steps = [epoch * steps_per_epoch for epoch in self.epochs if epoch]
        return {
            "name": f"{data_name(self.data)}-spheres-{variant}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, train_limit=self.train_limit),
            "model": {
                "backbone": {"name": "mlp", "hidden": self.hidden, "batch_norm": normed[variant]},
                "dim": 2,
                "covariance": "isotropic",
                "encoder_std": self.encoder_std,
                "classifier": "mlp",
                "classifier_hidden": self.decoder,
            },
            "objective": {
                "name": "nonlinear_ib",
                "rate_weight": self.rate_weight,
                "estimate": self.estimate,
                "power": self.power,
                "kernel_points": self.kernel_points,
            },
            "training": {**self.training, "snapshots": steps},
        }


SCALES = scales(
    Config,
    tiny={
        "seeds": 2,
        "data": "digits",
        "hidden": (32, 16),
        "epochs": (0, 2, 8),
        "drawn": 100,
        # a hundred steps, which need a higher rate
        "training": {**TRAINING, "epochs": 8, "optimizer": {**TRAINING["optimizer"], "lr": 0.1}},
    },
    small={
        "seeds": 2,
        "train_limit": 10_000,
        "epochs": (0, 2, 5, 20, 100),
        "training": {**TRAINING, "epochs": 100},
    },
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """A cell for every network."""
    from isthmus.studies.rate_distortion import spheres

    yield spheres.cells(config, bench)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of the figure."""
    return sphere_claims.findings(record)


def section(record: StudyRecord) -> Section:
    """The codes at each epoch, and what they take of the plane."""
    return sphere_page.section(record)
