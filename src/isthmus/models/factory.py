"""Builds classifiers: a bottleneck around any backbone, and the untrained model of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isthmus.core import config, recipe
from isthmus.core.errors import ConfigError, ModelError, brief
from isthmus.core.model_options import BottleneckOptions, Whiten
from isthmus.data.images import Examples, ImageData, as_float
from isthmus.models.backbones.backbone import Backbone
from isthmus.models.backbones.layers import Normalize
from isthmus.models.bottleneck import Bottleneck, Heads
from isthmus.models.gaussian_heads import (
    BackwardEncoder,
    Covariance,
    Encoder,
    elu_layers,
    elu_mlp,
    glorot_linear,
    relu_mlp,
)
from isthmus.models.given import GivenBackbone, measured_features
from isthmus.models.hierarchy import Hierarchy, Level
from isthmus.models.hypothesis import hypothesis_of_recipe
from isthmus.models.learner import Learner, Normalizer, count_features, log_prior_of
from isthmus.models.marginals import BatchMarginal, ClassMarginal, MixtureMarginal, StandardMarginal
from isthmus.models.whitening import Whitening
from isthmus.objectives.label_hypotheses import HypothesisObjective
from isthmus.objectives.objective import BottleneckObjective, LevelObjective, number_of_levels
from isthmus.objectives.pairs import PairObjective

LEVEL_WIDTH = 64  # width of the layers between the levels of a hierarchy
_BATCH = 1000  # images per batch when fitting the normalisation


def bottleneck(
    backbone: nn.Module,
    num_classes: int,
    objective: str | Mapping[str, Any] | config.Component = "ceb",
    dim: int | None = None,
    *,
    classifier: nn.Module | None = None,
    features: int | None = None,
    normalize: Normalizer | None = None,
    class_counts: Sequence[int] | None = None,
    options: BottleneckOptions | Mapping[str, Any] | None = None,
) -> Bottleneck:
    """Wrap any backbone into an information-bottleneck classifier.

    Args:
        backbone: an ``nn.Module`` from images to features, batch × features.
        num_classes: number of classes.
        objective: an objective such as ``isthmus.objectives.CEB(rho=2)``, its name ("deterministic", "vib", "ceb", or
            another of ``isthmus list objectives``), or a mapping such as ``{"name": "ceb", "rho": 2}``.
        dim: size of the code; overrides ``options.dim``. With None the features are the code (identity or isotropic
            covariance), or the code is as large as the features (diagonal or full covariance).
        classifier: a module from codes to logits for c(y|z), in place of ``options.classifier``.
        features: number of features; None reads ``backbone.features`` or ``backbone.num_features``.
        normalize: applied to images in [0, 1] first: a module, or (mean, std) with one number per channel each. None
            passes images to the backbone unchanged.
        class_counts: number of training examples of each class, so that bounds use the entropy of the labels. None
            means equally frequent classes.
        options: the densities e(z|x), c(y|z), b(z|y) and m(z): :class:`isthmus.core.model_options.BottleneckOptions`,
            or a mapping of its fields such as ``{"covariance": "full"}``.

    Raises:
        ConfigError: an unknown objective or option, an objective for pairs or label hypotheses, or options that do not
            fit the objective or one another.
        ModelError: the number of features is unknown.
    """
    chosen = _bottleneck_objective(objective)
    settings = config.options(BottleneckOptions, options)
    if dim is not None:
        settings = settings.model_copy(update={"dim": dim})
    builder = _HeadBuilder(chosen, settings, count_features(backbone, features), num_classes, classifier)
    upper = builder.upper_levels()
    samples, log_prior = settings.samples, log_prior_of(class_counts, num_classes)
    if upper:
        return Hierarchy(
            backbone, builder.heads(), upper, chosen, samples=samples, normalize=normalize, log_prior=log_prior
        )
    return Bottleneck(backbone, builder.heads(), chosen, samples=samples, normalize=normalize, log_prior=log_prior)


def _bottleneck_objective(objective: str | Mapping[str, Any] | config.Component) -> BottleneckObjective:
    chosen = config.component("objectives", objective)
    if isinstance(chosen, PairObjective):
        raise ConfigError(
            f"The objective {chosen.name!r} learns from pairs without labels; use isthmus.paired, or an objective for "
            "classifiers such as ceb."
        )
    if isinstance(chosen, HypothesisObjective):
        raise ConfigError(
            f"The objective {chosen.name!r} verifies label hypotheses; use isthmus.hypothesis (in a recipe: "
            "model.hypothesis), or an objective for bottlenecks such as ceb."
        )
    return config.instance("objectives", chosen, BottleneckObjective)


class _HeadBuilder:
    """Builds the densities of one model, always in the same order, so that a seed determines the weights."""

    def __init__(
        self,
        objective: BottleneckObjective,
        options: BottleneckOptions,
        width: int,
        num_classes: int,
        classifier: nn.Module | None,
    ) -> None:
        self.objective, self.options, self.num_classes = objective, options, num_classes
        self.levels = number_of_levels(objective, options.levels)
        self.covariance = _covariance(objective, options.covariance)
        self.has_marginal = objective.stochastic and (options.marginal is not None or objective.uses_marginal)
        self.has_backward = objective.uses_backward_encoder or (self.has_marginal and options.marginal == "classes")
        self.classifier: nn.Module | str = classifier or options.classifier or objective.default_classifier
        if self.classifier == "consistent" and not self.has_backward:
            raise ConfigError(
                f"A consistent classifier is made from b(z|y), which the objective {objective.name!r} does not have; "
                "use ceb, catgen or bidirectional, or another classifier."
            )
        self.encoder = self._encoder(width)

    def heads(self) -> Heads:
        """The densities of the lowest level."""
        return Heads(
            self.encoder,
            self._decoder(),
            self._backward() if self.has_backward else None,
            self._marginal() if self.has_marginal else None,
        )

    def upper_levels(self) -> list[Level]:
        """The levels of a hierarchy above the lowest."""
        return [self._upper_level() for _ in range(self.levels - 1)]

    def _encoder(self, width: int) -> Encoder:
        options, covariance = self.options, self.covariance
        code = options.dim or (None if covariance in ("identity", "isotropic") else width)
        # information beyond b is penalised at every level, so encoders start as wide as b
        std = 1.0 if self.levels > 1 and code is not None else options.encoder_std
        stochastic = self.objective.stochastic
        if options.encoder_std_offset is not None:
            _check_offset(covariance if stochastic else None, options.encoder_std, self.levels)
        return Encoder(width, code, covariance if stochastic else "identity", std, options.encoder_std_offset)

    def _upper_level(self) -> Level:
        below, dim = LEVEL_WIDTH, self.encoder.dim
        encoder = nn.Sequential(*elu_layers(dim, below), Encoder(below, dim, self.covariance, initial_std=1.0))
        given = self.classifier
        decoder = copy.deepcopy(given) if isinstance(given, nn.Module) else self._decoder()
        return Level(encoder, decoder, self._backward())

    def _decoder(self) -> nn.Module | None:
        kind, dim, options = self.classifier, self.encoder.dim, self.options
        if isinstance(kind, nn.Module):
            return kind
        if options.classifier_hidden is not None and kind != "mlp":
            raise ConfigError(f"classifier_hidden is for an mlp classifier; this one is {kind!r}.")
        std, unit_norm = options.classifier_std, options.classifier_unit_norm
        given = f"classifier_std={std}" if std is not None else "classifier_unit_norm" if unit_norm else ""
        if given and kind != "linear" and options.classifier_hidden is None:
            raise ConfigError(f"{given} is for a linear classifier; this one is {kind!r}.")
        if kind == "consistent":
            return None
        if kind == "mlp":
            hidden = options.classifier_hidden
            return elu_mlp(dim, self.num_classes) if hidden is None else relu_mlp(dim, hidden, self.num_classes)
        return _linear(dim, self.num_classes, std, unit_norm)

    def _backward(self) -> BackwardEncoder:
        covariance: Covariance = "diagonal" if self.covariance == "isotropic" else self.covariance
        return BackwardEncoder(self.num_classes, self.encoder.dim, covariance, self.options.backward)

    def _marginal(self) -> nn.Module:
        kind, dim = self.options.marginal or "standard", self.encoder.dim
        detached = not self.objective.uses_marginal  # a rate that is only reported must not train the encoder
        if kind == "standard":
            return StandardMarginal(dim)
        if kind == "mixture":
            return MixtureMarginal(dim, self.options.components)
        return BatchMarginal(detached) if kind == "batch" else ClassMarginal(detached)


def _covariance(objective: BottleneckObjective, given: Covariance | None) -> Covariance:
    shared = objective.uses_shared_noise
    usual: Covariance = "isotropic" if shared else "identity"
    widest = objective.uses_marginal or isinstance(objective, LevelObjective)
    found: Covariance = given or ("diagonal" if widest else usual)
    if shared and found not in ("identity", "isotropic"):
        raise ConfigError(
            f"The objective {objective.name!r} compares codes under noise that is the same for all images; use "
            f"covariance isotropic or identity, not {found}."
        )
    return found


def _check_offset(covariance: Covariance | None, std: float | None, levels: int) -> None:
    """Raise a ConfigError for an offset without effect; ``covariance`` is None for deterministic codes."""
    if covariance not in ("diagonal", "full"):
        kind = "a deterministic code has no σ" if covariance is None else f"covariance {covariance!r} has none"
        raise ConfigError(
            f"encoder_std_offset is the offset in σ = softplus(s + offset), and {kind}; use covariance diagonal or "
            "full with a stochastic objective such as vib, or leave it out."
        )
    if std is not None or levels > 1:
        other = f"encoder_std={std:g}" if std is not None else f"levels={levels}, whose σ start at 1"
        raise ConfigError(f"encoder_std_offset does not go with {other}; give one of them.")


def _linear(dim: int, num_classes: int, std: float | None, unit_norm: bool) -> nn.Linear:
    layer = glorot_linear(dim, num_classes)
    if std is not None or unit_norm:
        nn.init.normal_(layer.weight, std=1.0 if std is None else std)
    if unit_norm:
        with torch.no_grad():
            layer.weight.div_(layer.weight.norm(dim=1, keepdim=True))
    return layer


def build(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    data: ImageData | None = None,
    class_counts: Sequence[int] | None = None,
) -> Learner:
    """Build the untrained model of a recipe. The seed determines the weights; torch's global state does not change.

    Args:
        given: the recipe.
        shape: channels, height and width of the images.
        num_classes: number of classes.
        data: its training images fit ``normalize: dataset`` and whitening. None if weights will be loaded afterwards,
            which include the fit.
        class_counts: number of training examples of each class; None if weights will be loaded afterwards.

    Raises:
        ConfigError, ModelError: options that do not fit one another or the images, or a model too large for memory.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(given.seed)
            return _build(given, shape, num_classes, data, class_counts)
    except (RuntimeError, MemoryError) as error:  # torch's errors for sizes that overflow or exceed memory
        raise ModelError(
            f"The recipe's model cannot be built for images of {'×'.join(map(str, shape))} and {num_classes} classes "
            f"({brief(error)}); give smaller sizes."
        ) from error


def _build(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    data: ImageData | None,
    class_counts: Sequence[int] | None,
) -> Learner:
    model = given.model
    normalizer = _normalizer(model.normalize, shape, data)
    entering = normalizer.shape if isinstance(normalizer, Whitening) else shape
    backbone = config.instance("backbones", model.backbone, Backbone).build(entering)
    features = measured_features(backbone, entering) if isinstance(model.backbone, GivenBackbone) else None
    if model.hypothesis is not None:
        return hypothesis_of_recipe(
            backbone, num_classes, given.objective, model.hypothesis, normalizer, class_counts, features
        )
    return bottleneck(
        backbone,
        num_classes,
        given.objective,
        features=features,
        normalize=normalizer,
        class_counts=class_counts,
        options=model,
    )


def _normalizer(
    kind: Literal["symmetric", "dataset", "none"] | Whiten, shape: tuple[int, int, int], data: ImageData | None
) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "symmetric":
        return Normalize.symmetric()
    if isinstance(kind, Whiten):
        whitening = Whitening(shape, kind.components, kind.epsilon, kind.size)
        return whitening if data is None else whitening.fit(lambda: _batches(data.train))
    mean, std = ((0.0,) * shape[0], (1.0,) * shape[0]) if data is None else (data.mean, data.std)
    return Normalize(mean, [deviation or 1.0 for deviation in std])  # a constant channel is only shifted


def _batches(examples: Examples) -> Iterator[Tensor]:
    """All images in [0, 1], batch by batch; images in files are decoded as needed."""
    for part in torch.split(torch.arange(len(examples)), _BATCH):
        yield as_float(examples.select(part).images)
