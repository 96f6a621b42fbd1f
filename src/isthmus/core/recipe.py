"""The recipe: everything that determines a training run, as one frozen config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from isthmus.core.config import Component, Frozen, component, override, parse_overrides, read_yaml, validate
from isthmus.core.errors import ConfigError, shown, unknown
from isthmus.core.tradeoff import TRADE_OFF_NAMES, Rho

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
StdOffset = Annotated[float, Field(ge=-20, le=20)]
"""Of s in σ = softplus(s + offset)."""


def _folder_name(name: str) -> str:
    fits = 0 < len(name) <= 100 and name.isprintable() and len(name.encode()) <= 200
    if not fits or name in {".", ".."} or any(c in name for c in '/\\:*?"<>|'):
        raise ValueError('the name becomes a folder; give 1 to 100 printable characters without / \\ : * ? " < > |')
    return name


def _no_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("give a number, which NaN is not")
    return value


Number = Annotated[float, AfterValidator(_no_nan)]
"""A number or an infinity."""


class Optimizer(Frozen):
    """Adam or SGD with PyTorch's conventions (weight decay λ adds λ·w to the gradient).

    ``decay_norm`` false leaves scales and shifts of normalisation layers out of the decay, as Google's ResNets do;
    all other biases stay in.
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
    """What moves a mixture m(z) that the objective only reports (CEB and its kin): −E log m(z) on detached codes.

    The learning rate is constant. At 1e-2, after 1,000 steps beside CEB at ρ = 0, the mixture stays 0.03 to 0.06 nats
    above a refit, where 1e-3 leaves 0.17 to 0.21 and 3e-2 0.10 to 0.12 (results/benchmarks/marginal-optimizer.json);
    3e-3 is as good within 0.01, and at ρ = 3 behind by 0.01 to 0.03. VIB minimises its rate over m, too:
    ``training.optimizer`` moves that one.
    """

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2


class LearningRate(Frozen):
    """A staircase over epochs: multiply by ``factor`` at each milestone, or every ``every`` epochs.

    ``warmup_epochs`` is how long the rate first rises from 0, linearly and step by step (Goyal et al. 2017).
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
    """How the trade-off reaches the objective's ρ.

    From ``start`` to the target over ``epochs`` (or ``steps``), linearly in ρ or in the weight of the information term.
    With ``hold``, the first stage ends at ρ = ``hold`` instead and waits there until an epoch's mean training accuracy
    exceeds ``gate``; a second stage then goes to the target over ``release`` epochs. The first stage never takes more
    than ``share`` of the run, if that is given: a length in steps then suits shorter runs, too.
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
    # of no paper: bottlenecks with ρ ≤ 1 learn slowly where ρ is small from the first step
    "jump_start": {"start": 10.0, "steps": 1500, "share": 2 / 3},
}


def _named_schedule(given: object) -> object:
    """A name stands for its options; a mapping may start from a ``name`` and change some of them."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or "name" not in options:
        return given
    name = options["name"]
    if not isinstance(name, str) or name not in RHO_SCHEDULES:
        raise ConfigError(unknown("rho schedule", name, RHO_SCHEDULES))
    return RHO_SCHEDULES[name] | {key: value for key, value in options.items() if key != "name"}


class Augmentation(Frozen):
    """What happens to training images, in this order; a new draw for each example and epoch.

    ``resized_crop`` takes 8 to 100% of an image's area, scales it to the data's size and mirrors half of the images; of
    files it is taken before they are scaled down. ``autoaugment`` gives each image a sub-policy of AutoAugment: of the
    paper's 25 for CIFAR-10 (``published``), of the 95 of Google's code for it (``released``), or of the paper's 25 for
    ``imagenet``. ``crop_flip`` pads by 4 black pixels, crops at random and mirrors half of the images. ``cutout``
    blackens a square of that many pixels' side, 0 for none.
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


def _named_augmentation(given: object) -> object:
    """A name stands for its options; a mapping may start from a ``name`` and change some of them."""
    options = {"name": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping) or "name" not in options:
        return given
    name = options["name"]
    if not isinstance(name, str) or name not in AUGMENTATIONS:
        raise ConfigError(unknown("augmentation", name, AUGMENTATIONS))
    return AUGMENTATIONS[name] | {key: value for key, value in options.items() if key != "name"}


def _by_name(augmentation: Augmentation) -> str | dict[str, Any]:
    """As a recipe would give it, so that what runs of an earlier version keep still reads the same."""
    content = augmentation.model_dump()
    return next((name for name, options in AUGMENTATIONS.items() if Augmentation(**options) == augmentation), content)


def named_augmentation(given: Augmentation | str) -> Augmentation:
    """An augmentation from its name in :data:`AUGMENTATIONS`; a ready one as it is.

    Raises:
        ConfigError: there is no such name.
    """
    return given if isinstance(given, Augmentation) else Augmentation.model_validate(_named_augmentation(given))


def _fraction(given: object) -> object:
    """``"2/255"`` as a number; anything else as it is."""
    if not isinstance(given, str) or "/" not in given:
        return given
    over, _, under = given.partition("/")
    try:
        return float(over) / float(under)
    except (ValueError, ZeroDivisionError):
        raise ValueError("give a number or a fraction such as 2/255") from None


class Adversarial(Frozen):
    """Adversarial training (Madry et al. 2018, arXiv:1706.06083): the model learns from adversarial images alone.

    ``pgd:7`` is short for 7 steps, ``pgd:7 linf:8/255`` for a threat besides. Each image is attacked where training
    sees it, after augmentation, by PGD on the model's own logits; see :mod:`isthmus.training.adversarial`.

    Attributes:
        name: the attack; PGD is the only one (with one step, it is FGSM from a random start).
        steps: gradient steps for each image of each batch. A training step costs ``steps`` more forward and backward
            passes.
        threat: norm and ε for images in [0, 1], such as "linf:8/255" (Madry et al. on CIFAR-10) or "l2:0.5".
        step_size: size of a step in the threat's norm, a number or a fraction such as "2/255" (Madry et al. on
            CIFAR-10); 2.5·ε/steps where None.
        random_start: start uniformly in the ball rather than at the image itself.
        loss: what the attack ascends, from :mod:`isthmus.attacks.losses`; the cross-entropy of the prediction as in the
            paper.
        mode: which prediction of a stochastic bottleneck is attacked: "mean", c(y|E z), as evaluations do by default;
            or "stochastic", the average of c(y|z) over ``model.samples`` codes, drawn anew at every step of the attack.
        batch_norm: "eval" attacks the network with its running statistics, and without dropout, as it is evaluated;
            "train" with the statistics of the attacked batch, as Madry et al. The attack changes running statistics in
            neither.
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
    """``pgd``, ``pgd:7`` or ``pgd:7 linf:8/255``; the ``name`` of a mapping may be such a text, too."""
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


def _callback(given: object) -> Component:
    return component("callbacks", given)


class Training(Frozen):
    """The loop: how long, how fast, by whom, and what is kept.

    ``devices`` processes on each of ``nodes`` machines share every batch of ``batch_size`` images evenly; each takes
    its share in ``accumulate`` parts, one after another, before the optimiser's step. With ``adversarial`` the model
    learns from adversarial images, of which the accuracy in training is then, too. The weights after each step in
    ``snapshots`` stay beside the final ones. Callbacks in ``callbacks`` say at the end of epochs what they saw.
    ``marginal_optimizer`` is for a mixture beside objectives that do not minimise over it.
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
    log_every: Positive = 50
    checkpoint_every: Positive = 500
    validate_every: Positive = 1
    snapshots: tuple[Positive, ...] = ()
    callbacks: tuple[SerializeAsAny[Annotated[Component, BeforeValidator(_callback)]], ...] = ()
    tensorboard: bool = False

    @property
    def parts(self) -> int:
        """In how many parts a batch is seen, over all processes."""
        return self.devices * self.nodes * self.accumulate

    @field_validator("callbacks")
    @classmethod
    def _each_once(cls, callbacks: tuple[Component, ...]) -> tuple[Component, ...]:
        names = [each.name for each in callbacks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each callback can be used once; {', '.join(twice)} is there more often")
        return callbacks

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


class HypothesisInjection(Frozen):
    """How a label hypothesis enters a network.

    Attributes:
        inject: "concatenate" one-hot labels to the features (the paper's way), "embed" labels as learned vectors (for
            many classes) that are concatenated, or "project" the features by a matrix for each label. A projection to
            one number with nothing after it is an ordinary linear classifier.
        embedding: size of a learned label vector, for ``inject: embed``.
    """

    inject: Literal["concatenate", "embed", "project"] = "concatenate"
    embedding: Positive = 32


class HypothesisLayers(HypothesisInjection):
    """Layers after the backbone that are conditioned on label hypotheses; see :func:`isthmus.hypothesis`.

    Attributes:
        hidden: sizes of fully connected layers with ReLU, before the one that ends in a number. Without any, and with
            ``inject: project``, the model is an ordinary linear classifier.
        eliminate: number of hidden layers after which label information is eliminated; None means all but the last.
    """

    hidden: tuple[Positive, ...] = (512, 256, 128)
    eliminate: Positive | None = None

    @property
    def eliminated(self) -> int:
        """Number of hidden layers after which label information is eliminated."""
        return max(1, len(self.hidden) - 1) if self.eliminate is None else self.eliminate

    @model_validator(mode="after")
    def _depends_on_the_image(self) -> HypothesisLayers:
        if not self.hidden and self.inject != "project":
            raise ValueError(
                f"without hidden layers, inject={self.inject} adds each label's number to the image's, so that all "
                "images get one prediction; give hidden, or inject: project"
            )
        return self

    @model_validator(mode="after")
    def _one_of_the_layers(self) -> HypothesisLayers:
        if self.eliminate is not None and self.eliminate > len(self.hidden):
            raise ValueError(f"eliminate={self.eliminate} exceeds the {len(self.hidden)} hidden layers")
        return self


class Whiten(Frozen):
    """Grey images, whitened by the principal components of the training images; see
    :class:`isthmus.models.whitening.Whitening`.

    Attributes:
        components: how many are kept.
        epsilon: added to every eigenvalue.
        size: scale images to so many pixels a side first; None to leave them.
    """

    name: Literal["zca"] = "zca"
    components: Positive = 400
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-5
    size: Positive | None = None


def _whitening(given: object) -> object:
    return Whiten() if given == "zca" else given


class BottleneckOptions(Frozen):
    """The densities of a bottleneck; see :func:`isthmus.bottleneck`.

    Attributes:
        dim: size of the code. With None the features are the code (identity or isotropic covariance), or the code is as
            large as the features (diagonal or full covariance).
        covariance: of e(z|x): "identity", "isotropic" (one trained standard deviation for all codes), "diagonal" or
            "full". None means identity for CEB and deterministic models (Fischer & Alemi 2020), isotropic for the
            nonlinear IB, and diagonal for VIB (Alemi et al. 2017) and hierarchies.
        encoder_std: initial standard deviation of e(z|x), independent of the features; None means the covariance's
            default.
        encoder_std_offset: σ of e(z|x) is softplus(s + encoder_std_offset), where s is an output of the encoder; for a
            full covariance, the diagonal of L. None means −5 for a diagonal covariance (Alemi et al. 2017, on MNIST)
            and softplus⁻¹(1) = 0.54 for a full one; 0 is the plain softplus.
        samples: codes drawn per image, in training and in the stochastic mode.
        classifier: c(y|z): "linear", "mlp" (two ELU layers of 64), or "consistent" (Bayes' rule on b(z|y), without
            parameters). None means "consistent" for objectives that learn no classifier (CatGen, bidirectional CEB)
            and "linear" otherwise.
        classifier_std: initial weights of a linear classifier are N(0, classifier_std²); None means Glorot-uniform.
        classifier_unit_norm: initial weights of each class are normal and scaled to norm 1.
        classifier_hidden: widths of hidden ReLU layers of an "mlp" classifier, in place of its two ELU layers.
        backward: b(z|y), if the objective needs it: "linear" in the one-hot label, a "table" with a row for each class
            and no shared bias, or an "mlp" of two ELU layers.
        marginal: m(z): "standard" (N(0, I)), a learned "mixture", the "batch" (of e(z|x) over its images), or the
            "classes" (of b(z|y), which is then built). None builds what the objective needs: N(0, I) for VIB, nothing
            for CEB, whose rate is reported with the mixture of its classes.
        components: of a mixture marginal.
        levels: number of codes in a chain image → z_1 → ... → z_L, each with its own c and b; see
            :class:`isthmus.models.hierarchy.Hierarchy`. None means 2 for a hierarchical objective, and 1 otherwise.
    """

    dim: Positive | None = None
    covariance: Literal["identity", "isotropic", "diagonal", "full"] | None = None
    encoder_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    encoder_std_offset: StdOffset | None = None
    samples: Positive = 1
    classifier: Literal["linear", "mlp", "consistent"] | None = None
    classifier_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    classifier_unit_norm: bool = False
    classifier_hidden: tuple[Positive, ...] | None = None
    backward: Literal["linear", "table", "mlp"] = "linear"
    marginal: Literal["standard", "mixture", "batch", "classes"] | None = None
    components: Positive = 240
    levels: Positive | None = None


class Model(BottleneckOptions):
    """A backbone and the bottleneck around it.

    With ``hypothesis``: a backbone and layers that are conditioned on label hypotheses, without a bottleneck.
    """

    backbone: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("backbones", v))]]
    normalize: Annotated[Literal["symmetric", "dataset", "none"] | Whiten, BeforeValidator(_whitening)] = "symmetric"
    hypothesis: HypothesisLayers | None = None

    @model_validator(mode="after")
    def _bottleneck_or_hypothesis(self) -> Model:
        names = self.model_fields_set & BottleneckOptions.model_fields.keys()
        given = sorted(name for name in names if getattr(self, name) != BottleneckOptions.model_fields[name].default)
        if self.hypothesis is not None and given:
            raise ValueError(f"{', '.join(given)}: options of a bottleneck, which a hypothesis model does not have")
        return self


class Recipe(Frozen):
    """A training run. ``isthmus train recipe.yaml objective.rho=2 seed=3`` reads one and overrides parts of it."""

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("data", v))]]
    model: Model
    objective: SerializeAsAny[Annotated[Component, BeforeValidator(lambda v: component("objectives", v))]]
    training: Training = Training()

    @model_validator(mode="after")
    def _whole_batches(self) -> Recipe:
        across = getattr(self.objective, "compares_examples", False)
        if self.training.accumulate > 1 and (across or self.model.marginal == "batch"):
            what = f"the objective {self.objective.name!r}" if across else "model.marginal=batch"
            raise ValueError(
                f"{what} compares the examples of a batch with one another, so that a batch cannot be seen in "
                f"{self.training.accumulate} parts one after another; set training.accumulate to 1 (several "
                "training.devices are fine: they see the codes of the whole batch)"
            )
        return self

    @model_validator(mode="after")
    def _a_marginal_to_optimize(self) -> Recipe:
        default = Training.model_fields["marginal_optimizer"].default
        if self.training.marginal_optimizer != default and self.model.marginal != "mixture":
            raise ValueError(
                f"training.marginal_optimizer is for a learned m(z), and model.marginal is {self.model.marginal}; set "
                "model.marginal to mixture, or leave the optimizer out"
            )
        return self

    @model_validator(mode="after")
    def _resolve_classifier(self) -> Recipe:
        if self.model.classifier is None and self.model.hypothesis is None:
            resolved = self.model.model_copy()
            # past the freeze, and past what counts as given
            object.__setattr__(resolved, "classifier", getattr(self.objective, "default_classifier", "linear"))
            object.__setattr__(self, "model", resolved)
        return self


def load_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """Read a recipe from a YAML file or a mapping, and apply dotted overrides.

    A file without a name takes its own stem for one.

    Raises:
        FileError: the file cannot be read.
        ConfigError: a key, a name or a value is wrong; the message says which and what is allowed.
    """
    if isinstance(source, Recipe):
        given: dict[str, Any] = source.model_dump()
    elif isinstance(source, Mapping):
        given = dict(source)
    else:
        given = {"name": Path(source).stem, **read_yaml(source)}
    settings = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    try:
        return validate(Recipe, override(_without_other_names(given, settings), settings), where="recipe")
    except RecursionError:
        raise ConfigError(
            "An override goes too deep; a key has as many dots as there are mappings around it."
        ) from None


def _without_other_names(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the recipe's trade-off if an override sets it, perhaps under another name."""
    objective = given.get("objective")
    if not isinstance(objective, Mapping) or not any(f"objective.{name}" in settings for name in TRADE_OFF_NAMES):
        return dict(given)
    return {**given, "objective": {key: value for key, value in objective.items() if key not in TRADE_OFF_NAMES}}
