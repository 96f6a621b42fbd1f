"""Options of the rate-distortion studies; the defaults are the paper's. ``presets.yaml`` has the smaller scales."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.config import Fraction, Positive
from isthmus.core.errors import ConfigError
from isthmus.studies.study import Data, Several, TrainedConfig, data_name, data_options

Model = Literal["A", "B", "B+", "C"]
"""A has no regulariser, B weight decay, B+ the same and more training images, C batch normalisation on top of B."""
Labels = Literal["original", "random"]
Activation = Literal["relu", "tanh"]
Noise = Literal["white", "l2", "linf"]
Variant = Literal["a", "b", "c"]
"""Of figure 6: "a" plain, "b" batch normalisation in the hidden layers, "c" the same without its scale γ."""
Space = Literal["whitened", "pixels"]
Seed = Annotated[int, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MODELS: tuple[Model, ...] = ("A", "B", "B+", "C")


_MORE: dict[str, Any] = {"extra": True}
_WHITENED: dict[str, Any] = {"name": "zca", "components": 400}


def _sgd(lr: float, weight_decay: float | None = None, **training: int) -> dict[str, Any]:
    """A part of a recipe: training with plain SGD, as in all experiments of the paper."""
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    return {**training, "optimizer": {"name": "sgd", "momentum": 0.0, "lr": lr, **decay}}


class TableConfig(TrainedConfig):
    """A CNN on whitened grey images, plain SGD, three regularisers (section 4.3, appendix B).

    SVHN's images are those of the cropped digits; with another ``data`` the page lists the departure.

    Attributes:
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
    more_data: Annotated[dict[str, Any], Field(min_length=1)] = _MORE
    models: Several[Model] = ("A", "B", "C")
    batch_sizes: Several[Positive] = (128, 64, 32)
    normalize: dict[str, Any] = _WHITENED
    width: Positive = 32
    training: dict[str, Any] = _sgd(1e-2, epochs=500)
    weight_decay: Above0 | None = None
    weight_decays: Several[Above0] = (5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
    label_seed: Seed = 0

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

    batch_sizes: Several[Positive] = (128, 32)


class OneBatchSizeConfig(TableConfig):
    """The models with one batch size.

    Attributes:
        images: number of test images, class-balanced; None for all.
    """

    batch_sizes: tuple[Positive] = (128,)
    images: Positive | None = 10_000


class PrototypesConfig(OneBatchSizeConfig):
    """Figure 4. The test images give mean, standard deviation and the classes' means.

    Attributes:
        each: prototypes of each class.
        space: where the steps are taken: in "whitened" images, as in the paper, or in "pixels".
        step_size: length of a step there.
        confidence: at which the ascent ends.
        steps: maximum number of steps.
    """

    models: Several[Model] = MODELS
    each: Positive = 1
    space: Space = "whitened"
    step_size: Above0 = 1e-2
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    steps: Positive = 1000


class NoiseConfig(OneBatchSizeConfig):
    """Figure 5.

    Attributes:
        noises: kinds of noise.
        high, low: signal-to-noise ratios in dB between which the noise grows.
        spacing: dB from one ratio to the next.
        space: where noise is added, and image and noise are compared: in "whitened" images or in "pixels".
        least_accuracy: claims are undecided for models with a lower test accuracy; the paper's have 87% and 88%.
    """

    noises: Several[Noise] = ("l2", "linf", "white")
    high: Annotated[float, Field(gt=0)] = 60.0
    low: Annotated[float, Field(gt=0)] = 1.0
    spacing: Annotated[float, Field(gt=0)] = 1.0
    space: Space = "whitened"
    least_accuracy: Fraction = 0.8


class TransferConfig(OneBatchSizeConfig):
    """Figure 7 and appendix C.

    Attributes:
        target: the other data set, with the same classes in the same order.
        images: number of its test images, class-balanced; None for all.
        whitened: whether they go through the model's whitening; in the paper they do not.
        draws: adaptations, each to other examples.
        steps, learning_rate: of plain SGD; the paper does not give the rate, and this is that of training.
        degrees: every example is rotated by at most this angle, in either direction, at every step.
    """

    models: Several[Model] = MODELS
    images: Positive | None = None
    target: str | dict[str, Any] = "mnist"
    whitened: bool = False
    draws: Positive = 5
    steps: Positive = 10
    learning_rate: Above0 = 1e-2
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0


class PairConfig(TrainedConfig):
    """A fully connected network on MNIST's threes and sevens (section 4.1); its widths are our reading.

    Attributes:
        classes: the two classes.
        hidden: widths of the hidden layers.
        every: epochs from one measurement to the next.
        label_seed: of random labels.
    """

    classes: tuple[str, str] = ("3", "7")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=2)] = (512, 256, 128, 64, 32)
    every: Positive
    label_seed: Seed = 0

    def recipe(
        self,
        seed: int,
        callback: dict[str, Any],
        activation: Activation = "relu",
        batch_norm: bool = False,
        random: bool = False,
    ) -> dict[str, Any]:
        """The recipe of one network, on random labels or the original ones, watched by a callback."""
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
            "training": {**self.training, "callbacks": [{**callback, "every": self.every}]},
        }


class GradientConfig(PairConfig):
    """Figure 2.

    Attributes:
        normalize_noise: divide the noise by the weights' norm, as the signal is. The caption does not; false takes it
            literally (:mod:`isthmus.training.callbacks.gradient_snr`).
    """

    training: dict[str, Any] = _sgd(1e-3, epochs=3000, batch_size=100)
    every: Positive = 5
    normalize_noise: bool = True


class PlaneConfig(PairConfig):
    """Figure 3.

    Attributes:
        samples: training images that the layers are measured with.
        bins: of each layer.
    """

    training: dict[str, Any] = _sgd(1e-3, epochs=10_000, batch_size=100)
    every: Positive = 10
    samples: Annotated[int, Field(gt=1)] = 2000
    bins: Annotated[int, Field(gt=1)] = 30


class SphereConfig(TrainedConfig):
    """Figure 6 and appendix A. What the paper leaves open is as in the code of Kolchinsky et al. of 2018.

    The exception is the optimiser: plain SGD, as in the paper's other experiments. The code's Adam stays at chance for
    the first ten epochs with the paper's rate of 0.01.

    Attributes:
        variants: of the network.
        hidden: widths before the layer of two neurons.
        decoder: widths after it.
        rate_weight: β of the information.
        estimate, power, kernel_points: of :mod:`isthmus.objectives.nonlinear_ib`.
        encoder_std: initial standard deviation of the noise.
        epochs: when the layer is measured; 0 is before training.
        drawn: training images whose codes are kept for the figure.
    """

    variants: Several[Variant] = ("a", "b", "c")
    hidden: tuple[Positive, ...] = (392, 196)
    decoder: tuple[Positive, ...] = (49,)
    rate_weight: Annotated[float, Field(gt=0, lt=1)] = 5e-2
    estimate: Literal["upper", "kde"] = "kde"
    power: Literal[1, 2] = 1
    kernel_points: Annotated[int, Field(ge=0)] = 1000
    encoder_std: Above0 = 6.738e-3
    epochs: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)] = (0, 20, 30, 50, 500)
    drawn: Positive = 1000
    training: dict[str, Any] = _sgd(1e-2, weight_decay=1e-3, epochs=500, batch_size=128)

    def recipe(self, variant: Variant, seed: int, steps_per_epoch: int) -> dict[str, Any]:
        """The recipe of one network, which keeps its weights at the epochs."""
        batch_norm: dict[Variant, bool | str] = {"a": False, "b": True, "c": "unscaled"}
        return {
            "name": f"{data_name(self.data)}-spheres-{variant}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, train_limit=self.train_limit),
            "model": {
                "backbone": {"name": "mlp", "hidden": self.hidden, "batch_norm": batch_norm[variant]},
                "dim": 2,
                "covariance": "isotropic",
                "encoder_std": self.encoder_std,
                "classifier": "mlp",
                "classifier_hidden": self.decoder,
            },
            "objective": {
                "name": "nonlinear_ib",
                **self.model_dump(include={"rate_weight", "estimate", "power", "kernel_points"}),
            },
            "training": {**self.training, "snapshots": [epoch * steps_per_epoch for epoch in self.epochs if epoch]},
        }
