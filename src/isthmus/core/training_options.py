"""Options of training: optimisers, schedules, augmentation, adversarial training and the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from isthmus.core.config import Component, Fraction, Frozen, Positive, component
from isthmus.core.errors import ConfigError, shown, unknown
from isthmus.core.tradeoff import Rho


def _no_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("give a number, which NaN is not")
    return value


Number = Annotated[float, AfterValidator(_no_nan)]  # or an infinity


class Optimizer(Frozen):
    """Adam or SGD with PyTorch's conventions (weight decay λ adds λ·w to the gradient).

    ``decay_norm`` false excludes scales and shifts of normalisation layers from the decay, as in Google's ResNets; all
    other biases are included.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    decay_norm: bool = True

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimizer:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class MarginalOptimizer(Optimizer):
    """Optimiser of a mixture m(z) that the objective only reports (CEB and related ones), on −E log m(z) of detached
    codes.

    The learning rate is constant. At 1e-2, after 1,000 steps with CEB at ρ = 0, the mixture is 0.03 to 0.06 nats above
    a refit, compared with 0.17 to 0.21 at 1e-3 and 0.10 to 0.12 at 3e-2 (results/benchmarks/marginal-optimizer.json);
    3e-3 is as good within 0.01, and at ρ = 3 worse by 0.01 to 0.03. VIB minimises its rate over m, too, with
    ``training.optimizer``.
    """

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2


class LearningRate(Frozen):
    """A staircase over epochs: multiply by ``factor`` at each milestone, or every ``every`` epochs.

    For the first ``warmup_epochs`` the rate rises linearly from 0, step by step (Goyal et al. 2017).
    """

    milestones: tuple[Positive, ...] = ()
    every: Positive | None = None
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _one_rule(self) -> LearningRate:
        if self.milestones and self.every:
            raise ValueError("give milestones or every, not both")
        return self


class RhoSchedule(Frozen):
    """Schedule of ρ towards the objective's ρ.

    From ``start`` to the target over ``epochs`` (or ``steps``), linearly in ρ or in the weight of the information term.
    With ``hold``, the first stage ends at ρ = ``hold`` and waits until an epoch's mean training accuracy exceeds
    ``gate``; a second stage then reaches the target over ``release`` epochs. With ``share``, the first stage takes at
    most this fraction of the run, so that a length in steps also suits shorter runs.
    """

    start: Number = 100.0
    space: Literal["rho", "weight"] = "rho"
    epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    steps: Annotated[int, Field(ge=0)] = 0
    hold: Number | None = None
    gate: Fraction = 0.0
    release: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    share: Fraction | None = None

    @model_validator(mode="after")
    def _one_length(self) -> RhoSchedule:
        if self.epochs and self.steps:
            raise ValueError("give the length of the first stage in epochs or in steps, not both")
        return self


RHO_SCHEDULES: dict[str, dict[str, Any]] = {
    # Fischer & Alemi 2020: CIFAR-10 (jump-start with a gate) and ImageNet (weight-space ramp)
    "cifar_000": {"start": 100.0, "epochs": 2, "hold": 10.0, "gate": 0.2, "release": 1},
    "imagenet_000": {"start": math.inf, "space": "weight", "steps": 12_000},
    # Korshunova et al. 2021
    "ceb_001": {"start": 100.0, "epochs": 4},
    "vib_001": {"start": Rho.from_rate_weight(1e-8).value, "space": "weight", "epochs": 100},
    # ours: bottlenecks with ρ ≤ 1 learn slowly if ρ is small from the first step
    "jump_start": {"start": 10.0, "steps": 1500, "share": 2 / 3},
}


def _named(what: str, known: Mapping[str, dict[str, Any]], given: object) -> object:
    """Options from a name in ``known``, or from a mapping with a ``name`` that overrides some of them."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or "name" not in options:
        return given
    name = options["name"]
    if not isinstance(name, str) or name not in known:
        raise ConfigError(unknown(what, name, known))
    return known[name] | {key: value for key, value in options.items() if key != "name"}


_named_schedule = partial(_named, "rho schedule", RHO_SCHEDULES)


class Augmentation(Frozen):
    """Augmentation of training images, in this order, drawn for each example and epoch.

    Attributes:
        resized_crop: crop 8 to 100% of an image's area, scale it to the data's size and mirror half of the images;
            image files are cropped before they are scaled down.
        autoaugment: a sub-policy of AutoAugment per image: of the paper's 25 for CIFAR-10 (``published``), of the 95 of
            Google's code for it (``released``), or of the paper's 25 for ``imagenet``.
        crop_flip: pad by 4 black pixels, crop at random and mirror half of the images.
        cutout: side in pixels of a black square; 0 for none.
    """

    resized_crop: bool = False
    autoaugment: Literal["published", "released", "imagenet"] | None = None
    crop_flip: bool = False
    cutout: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_crop(self) -> Augmentation:
        if self.resized_crop and self.crop_flip:
            raise ValueError("give resized_crop or crop_flip, not both: each of them crops and mirrors")
        return self


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "crop_flip": {"crop_flip": True},
    # Cubuk et al. 2019 for CIFAR-10
    "autoaugment": {"autoaugment": "published", "crop_flip": True, "cutout": 16},
    # as usual for ImageNet, and Cubuk et al. 2019 for it
    "imagenet": {"resized_crop": True},
    "imagenet_autoaugment": {"resized_crop": True, "autoaugment": "imagenet"},
}


_named_augmentation = partial(_named, "augmentation", AUGMENTATIONS)


def _by_name(augmentation: Augmentation) -> str | dict[str, Any]:
    """The name of an augmentation, or else its options, as recipes store it."""
    content = augmentation.model_dump()
    return next((name for name, options in AUGMENTATIONS.items() if Augmentation(**options) == augmentation), content)


def named_augmentation(given: Augmentation | str) -> Augmentation:
    """An augmentation from its name in :data:`AUGMENTATIONS`, or unchanged.

    Raises:
        ConfigError: the name is unknown.
    """
    return given if isinstance(given, Augmentation) else Augmentation.model_validate(_named_augmentation(given))


def _fraction(given: object) -> object:
    """Convert ``"2/255"`` to a number; return anything else unchanged."""
    if not isinstance(given, str) or "/" not in given:
        return given
    over, _, under = given.partition("/")
    try:
        return float(over) / float(under)
    except (ValueError, ZeroDivisionError):
        raise ValueError("give a number or a fraction such as 2/255") from None


class Adversarial(Frozen):
    """Adversarial training (Madry et al. 2018, arXiv:1706.06083): the model learns only from adversarial images.

    ``pgd:7`` is short for 7 steps, ``pgd:7 linf:8/255`` for 7 steps and a threat. Each image is attacked after
    augmentation by PGD on the model's logits; see :mod:`isthmus.training.adversarial`.

    Attributes:
        name: the attack; only PGD (with one step, it is FGSM from a random start).
        steps: gradient steps for each image of each batch. A training step costs ``steps`` more forward and backward
            passes.
        threat: norm and ε for images in [0, 1], such as "linf:8/255" (Madry et al. on CIFAR-10) or "l2:0.5".
        step_size: size of a step in the threat's norm, a number or a fraction such as "2/255" (Madry et al. on
            CIFAR-10); 2.5·ε/steps where None.
        random_start: start uniformly in the ball rather than at the image itself.
        loss: what the attack ascends, from :mod:`isthmus.attacks.losses`; the cross-entropy of the prediction as in the
            paper.
        mode: which prediction of a stochastic bottleneck is attacked: "mean", c(y|E z), as in evaluations by default;
            or "stochastic", the average of c(y|z) over ``model.samples`` codes, drawn at every step of the attack.
        batch_norm: "eval" attacks the network with its running statistics, and without dropout, as it is evaluated;
            "train" with the statistics of the attacked batch, as in Madry et al. Neither changes running statistics.
    """

    name: Literal["pgd"] = "pgd"
    steps: Positive = 7
    threat: str = "linf:8/255"
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_fraction)] | None = None
    random_start: bool = True
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"
    mode: Literal["mean", "stochastic"] = "mean"
    batch_norm: Literal["eval", "train"] = "eval"


def _short_adversarial(given: object) -> object:
    """``pgd``, ``pgd:7`` or ``pgd:7 linf:8/255``; the ``name`` of a mapping may have this form, too."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        return given
    attack, *threat = options["name"].split() or [""]
    name, colon, steps = attack.partition(":")
    if name != "pgd":
        raise ConfigError(unknown("attack to train with", name, ["pgd"]))
    if len(threat) > 1:
        raise ConfigError(
            f"Adversarial training is written pgd:STEPS NORM:EPS, as in pgd:7 linf:8/255; got {shown(options['name'])}."
        )
    short = {"name": name, **({"steps": steps} if colon else {}), **({"threat": threat[0]} if threat else {})}
    return short | {key: value for key, value in options.items() if key != "name"}


class EarlyStopping(Frozen):
    """Stop when the validation split no longer improves, and keep the weights of the best epoch.

    Epochs count once ρ has reached its target. The test split has no influence.

    Attributes:
        patience: number of validations in a row that may be no better than the best one.
        metric: "accuracy", or "ce", the cross-entropy in nats; of the prediction in mean mode.
        min_delta: a validation is better if the metric improves by more than this.
    """

    patience: Positive = 5
    metric: Literal["accuracy", "ce"] = "accuracy"
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def _callback(given: object) -> Component:
    return component("callbacks", given)


def _logger(given: object) -> Component:
    return component("loggers", given)


class Training(Frozen):
    """Options of the training loop.

    ``devices`` processes on each of ``nodes`` machines share every batch of ``batch_size`` images evenly; each splits
    its share into ``accumulate`` parts before the optimiser's step. ``gradient_checkpointing`` computes the blocks of
    the backbone again in the backward pass, for less memory. With ``adversarial`` the model learns from
    adversarial images, and the training accuracy is that on them. The weights after each step in ``snapshots`` are
    kept, too. ``validation`` is the share of each class of the training split that is held out and measured every
    ``validate_every`` epochs, for ``early_stopping``; None for data with a validation split of their own. ``callbacks``
    report at the end of epochs. ``loggers`` get all metrics, beside ``metrics.jsonl``. ``marginal_optimizer`` is for a
    mixture that the objective does not minimise over.
    """

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Optimizer = Optimizer()
    marginal_optimizer: MarginalOptimizer = MarginalOptimizer()
    learning_rate: LearningRate = LearningRate()
    rho_schedule: Annotated[RhoSchedule | None, BeforeValidator(_named_schedule)] = None
    augment: Annotated[Augmentation, BeforeValidator(_named_augmentation), PlainSerializer(_by_name)] = Augmentation()
    adversarial: Annotated[Adversarial | None, BeforeValidator(_short_adversarial)] = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Positive = 1
    nodes: Positive = 1
    accumulate: Positive = 1
    gradient_checkpointing: bool = False
    log_every: Positive = 50
    checkpoint_every: Positive = 500
    validate_every: Positive = 1
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    early_stopping: EarlyStopping | None = None
    snapshots: tuple[Positive, ...] = ()
    callbacks: tuple[SerializeAsAny[Annotated[Component, BeforeValidator(_callback)]], ...] = ()
    loggers: tuple[SerializeAsAny[Annotated[Component, BeforeValidator(_logger)]], ...] = ()

    @property
    def parts(self) -> int:
        """Number of parts of a batch, over all processes."""
        return self.devices * self.nodes * self.accumulate

    @model_validator(mode="before")
    @classmethod
    def _loggers_instead(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "tensorboard" in given:
            instead = "write loggers: [tensorboard]" if given["tensorboard"] else "leave it out"
            raise ValueError(f"tensorboard is no option any more; {instead}")
        return given

    @field_validator("callbacks", "loggers")
    @classmethod
    def _each_once(cls, given: tuple[Component, ...], info: ValidationInfo) -> tuple[Component, ...]:
        names = [each.name for each in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            what = (info.field_name or "").removesuffix("s")
            raise ValueError(f"each {what} can be used once; {', '.join(twice)} is given more than once")
        return given

    @field_validator("snapshots")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(steps)):
            raise ValueError(f"snapshots are steps in ascending order; got {list(steps)}")
        return steps

    @model_validator(mode="after")
    def _even_parts(self) -> Training:
        if self.batch_size % self.parts:
            raise ValueError(
                f"batch_size={self.batch_size} has no {self.parts} equal parts (devices={self.devices}, "
                f"nodes={self.nodes}, accumulate={self.accumulate})"
            )
        return self
