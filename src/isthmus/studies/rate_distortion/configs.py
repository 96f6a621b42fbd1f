"""Options of the rate-distortion studies; the defaults are the paper's. The smaller scales are in ``presets.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.config import Fraction, Positive
from isthmus.core.errors import ConfigError
from isthmus.studies.study import Data, StudyConfig, data_name, data_options

Model = Literal["A", "B", "B+", "C"]
"""A has no regulariser, B weight decay, B+ the same and more training images, C batch normalisation on top of B."""
Labels = Literal["original", "random"]
Activation = Literal["relu", "tanh"]
Noise = Literal["white", "l2", "linf"]
Variant = Literal["a", "b", "c"]
"""Of figure 6: "a" plain, "b" batch normalisation in the layers before, "c" the same without its scale γ."""
Space = Literal["whitened", "pixels"]
Eps = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MODELS: tuple[Model, ...] = ("A", "B", "B+", "C")

_SGD: dict[str, Any] = {"name": "sgd", "momentum": 0.0}
MORE: dict[str, Any] = {"extra": True}
WHITENED: dict[str, Any] = {"name": "zca", "components": 400}
TABLE_TRAINING: dict[str, Any] = {"epochs": 500, "optimizer": {**_SGD, "lr": 1e-2}}
PAIR_TRAINING: dict[str, Any] = {"batch_size": 100, "optimizer": {**_SGD, "lr": 1e-3}}
GRADIENT_TRAINING: dict[str, Any] = {**PAIR_TRAINING, "epochs": 3000}
PLANE_TRAINING: dict[str, Any] = {**PAIR_TRAINING, "epochs": 10_000}
SPHERE_TRAINING: dict[str, Any] = {
    "epochs": 500,
    "batch_size": 128,
    "optimizer": {**_SGD, "lr": 1e-2, "weight_decay": 1e-3},
}


class TableConfig(StudyConfig):
    """A CNN on whitened grey images, plain SGD, three regularisers (section 4.3, appendix B).

    SVHN's images are those of the cropped digits; with another ``data`` the page lists the departure.

    Attributes:
        seeds: number of seeds, 0, 1, 2, …, that each model is trained with.
        data: a data set, by name or with its options.
        train_limit: number of training images, class-balanced; None for all.
        more_data: options of the data, or ``train_limit``, that give B+ its additional images; ``{"extra": true}`` of
            svhn gives 604,388 in all, as in the paper.
        models: which of the four.
        batch_sizes: of training.
        normalize: what images go through first; part of a recipe.
        width: channels of the first convolution.
        training: part of a recipe, the same for all models but for batch size and weight decay.
        weight_decay: λ of B and C, on all parameters, in PyTorch's convention (λ adds λ·w to the gradient). None
            chooses it as the paper does (:mod:`.weight_decay`); the paper's choice on SVHN is 1e-2.
        weight_decays: candidates for λ, tried in ascending order.
        label_seed: of random labels, the same for all models.
    """

    seeds: Positive = 5
    data: Data = "svhn"
    train_limit: Positive | None = None
    more_data: Annotated[dict[str, Any], Field(min_length=1)] = MORE
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = ("A", "B", "C")
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (128, 64, 32)
    normalize: dict[str, Any] = WHITENED
    width: Positive = 32
    training: dict[str, Any] = TABLE_TRAINING
    weight_decay: Eps | None = None
    weight_decays: Annotated[tuple[Eps, ...], Field(min_length=1)] = (5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(self, model: Model, batch_size: int, labels: Labels, seed: int) -> dict[str, Any]:
        """The recipe of one model.

        Raises:
            ConfigError: the model has weight decay, and λ is neither set nor chosen yet.
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


class Table1Config(TableConfig):
    """Table 1.

    Attributes:
        margin: a generalisation gap that is smaller by this much counts as smaller.
    """

    margin: Fraction = 0.05


class Table2Config(Table1Config):
    """Table 2."""

    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (128, 32)


class PrototypesConfig(TableConfig):
    """Figure 4, for the models with one batch size.

    Attributes:
        images: number of test images, class-balanced, that give mean, standard deviation and the classes' means; None
            for all.
        each: prototypes of each class.
        space: where the steps are taken: in "whitened" images, as in the paper, or in "pixels".
        step_size: length of a step there.
        confidence: at which the ascent ends.
        steps: at most.
    """

    models: Annotated[tuple[Model, ...], Field(min_length=1)] = MODELS
    batch_sizes: tuple[Positive] = (128,)
    images: Positive | None = 10_000
    each: Positive = 1
    space: Space = "whitened"
    step_size: Eps = 1e-2
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    steps: Positive = 1000


class NoiseConfig(TableConfig):
    """Figure 5, for the models with one batch size.

    Attributes:
        images: number of test images, class-balanced; None for all.
        noises: kinds of noise.
        high, low: signal-to-noise ratios in dB between which the noise grows.
        spacing: dB from one ratio to the next.
        space: where noise is added, and image and noise are compared: in "whitened" images or in "pixels".
        least_accuracy: claims are undecided for models with a lower test accuracy; the paper's have 87% and 88%.
    """

    batch_sizes: tuple[Positive] = (128,)
    images: Positive | None = 10_000
    noises: Annotated[tuple[Noise, ...], Field(min_length=1)] = ("l2", "linf", "white")
    high: Annotated[float, Field(gt=0)] = 60.0
    low: Annotated[float, Field(gt=0)] = 1.0
    spacing: Annotated[float, Field(gt=0)] = 1.0
    space: Space = "whitened"
    least_accuracy: Fraction = 0.8


class TransferConfig(TableConfig):
    """Figure 7 and appendix C, for the models with one batch size.

    Attributes:
        target: the other data set, with the same classes in the same order.
        images: number of its test images, class-balanced; None for all.
        whitened: whether they go through the model's whitening; in the paper they do not.
        draws: adaptations, each to other examples.
        steps, learning_rate: of plain SGD; the paper does not give the rate, and this is that of training.
        degrees: every example is rotated by at most this angle, in either direction, at every step.
    """

    models: Annotated[tuple[Model, ...], Field(min_length=1)] = MODELS
    batch_sizes: tuple[Positive] = (128,)
    target: str | dict[str, Any] = "mnist"
    images: Positive | None = None
    whitened: bool = False
    draws: Positive = 5
    steps: Positive = 10
    learning_rate: Eps = 1e-2
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0


class PairConfig(StudyConfig):
    """A fully connected network on MNIST's threes and sevens (section 4.1); its widths are our reading.

    Attributes:
        seeds: number of seeds, 0, 1, 2, …, that each network is trained with.
        data: a data set, by name or with its options.
        classes: the two classes.
        train_limit: number of training images, class-balanced; None for all.
        hidden: widths of the hidden layers.
        training: part of a recipe, the same for all.
        label_seed: of random labels.
    """

    seeds: Positive = 3
    data: Data = "mnist"
    classes: tuple[str, str] = ("3", "7")
    train_limit: Positive | None = None
    hidden: Annotated[tuple[Positive, ...], Field(min_length=2)] = (512, 256, 128, 64, 32)
    training: dict[str, Any] = PAIR_TRAINING
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(
        self,
        seed: int,
        callback: dict[str, Any],
        activation: Activation = "relu",
        batch_norm: bool = False,
        random: bool = False,
    ) -> dict[str, Any]:
        """The recipe of one network, on random labels or on its own, watched by a callback."""
        labels = {"random_labels": self.label_seed} if random else {}
        title = f"{data_name(self.data)}-{'-'.join(self.classes)}-{activation}{'-bn' * batch_norm}"
        return {
            "name": f"{title}{'-random' * random}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, classes=self.classes, train_limit=self.train_limit, **labels),
            "model": {
                "backbone": {"name": "mlp", "hidden": self.hidden, "activation": activation, "batch_norm": batch_norm}
            },
            "objective": "deterministic",
            "training": {**self.training, "callbacks": [callback]},
        }


class GradientConfig(PairConfig):
    """Figure 2.

    Attributes:
        every: epochs from one measurement to the next.
        normalize_noise: divide the noise by the weights' norm, as the signal is. The caption does not; false takes it
            literally (:mod:`isthmus.training.callbacks.gradient_snr`).
    """

    training: dict[str, Any] = GRADIENT_TRAINING
    every: Positive = 5
    normalize_noise: bool = True


class PlaneConfig(PairConfig):
    """Figure 3.

    Attributes:
        every: epochs from one measurement to the next.
        samples: training images that the layers are measured with.
        bins: of each layer.
    """

    training: dict[str, Any] = PLANE_TRAINING
    every: Positive = 10
    samples: Annotated[int, Field(gt=1)] = 2000
    bins: Annotated[int, Field(gt=1)] = 30


class SphereConfig(StudyConfig):
    """Figure 6 and appendix A. What the paper leaves open is as in the code of Kolchinsky et al. of 2018.

    The exception is the optimiser: plain SGD, as in the paper's other experiments. The code's Adam stays at chance for
    the first ten epochs with the paper's rate of 0.01.

    Attributes:
        seeds: number of seeds, 0, 1, 2, …, that each network is trained with.
        data: a data set, by name or with its options.
        train_limit: number of training images, class-balanced; None for all.
        variants: of the network.
        hidden: widths before the layer of two neurons.
        decoder: widths after it.
        rate_weight: β of the information.
        estimate, power, kernel_points: of :mod:`isthmus.objectives.nonlinear_ib`.
        encoder_std: initial standard deviation of the noise.
        epochs: when the layer is measured; 0 is before training.
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
    training: dict[str, Any] = SPHERE_TRAINING

    def recipe(self, variant: Variant, seed: int, steps_per_epoch: int) -> dict[str, Any]:
        """The recipe of one network, which keeps its weights at the epochs."""
        normed: dict[Variant, bool | str] = {"a": False, "b": True, "c": "unscaled"}
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
            "training": {**self.training, "snapshots": [epoch * steps_per_epoch for epoch in self.epochs if epoch]},
        }
