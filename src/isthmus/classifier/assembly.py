"""Building our classifiers: a bottleneck around any backbone, and the untrained model of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from isthmus import config, recipe, registry
from isthmus.errors import ConfigError, ModelError
from isthmus.nets.bottleneck import Bottleneck
from isthmus.nets.gaussian_heads import BackwardEncoder, Covariance, Encoder, elu_mlp, glorot_linear
from isthmus.nets.layers import Normalize
from isthmus.nets.marginals import BatchMarginal, ClassMarginal, MixtureMarginal, StandardMarginal

Statistics = tuple[Sequence[float], Sequence[float]]  # per-channel mean and standard deviation in [0, 1]


def bottleneck(
    backbone: nn.Module,
    num_classes: int,
    objective: str | Mapping[str, Any] | config.Component = "ceb",
    dim: int | None = None,
    covariance: Covariance | None = None,
    *,
    samples: int = 1,
    classifier: Literal["linear", "mlp", "consistent"] | nn.Module | None = None,
    backward: Literal["linear", "mlp"] = "linear",
    marginal: Literal["standard", "mixture", "batch", "classes"] | None = None,
    components: int = 240,
    features: int | None = None,
    normalize: nn.Module | None = None,
    class_counts: Sequence[int] | None = None,
) -> Bottleneck:
    """Wrap any backbone into an information-bottleneck classifier.

    Args:
        backbone: an ``nn.Module`` from images to features, batch × features.
        num_classes: how many classes.
        objective: "deterministic", "vib", "ceb", or one with its options: ``{"name": "ceb", "rho": 2}``.
        dim: size of the code. None makes the features themselves the code (identity covariance) or, for the other
            covariances, a code as large as the features.
        covariance: "identity", "diagonal" or "full". None means identity for CEB and deterministic models (Fischer &
            Alemi 2020) and diagonal otherwise (Alemi et al. 2017).
        samples: codes drawn per image, in training and in the stochastic mode.
        classifier: c(y|z): "linear", "mlp" (two ELU layers of 64), "consistent" (Bayes' rule on b(z|y), without
            parameters), or a module from codes to logits. None means "consistent" for objectives that learn no
            classifier (CatGen, bidirectional CEB) and "linear" otherwise.
        backward: form of b(z|y), built where the objective needs it.
        marginal: m(z): "standard" (N(0, I)), a learned "mixture", the "batch" (of e(z|x) over its images), or the
            "classes" (of b(z|y), which is then built). None builds what the objective needs: N(0, I) for VIB, nothing
            for CEB, whose rate is reported with the mixture of its classes.
        components: of a mixture marginal.
        features: number of features; read from ``backbone.features`` (or ``num_features``) where None.
        normalize: applied to images in [0, 1] first; None hands them to the backbone as they are.
        class_counts: how many training examples each class has, so that bounds use the labels' own entropy; equally
            many where None.

    Raises:
        ConfigError: an unknown objective or option, or a consistent classifier where the objective has no b(z|y).
        ModelError: the number of features is unknown.
    """
    chosen = config.component("objectives", objective)
    module = registry.find("objectives", chosen.name)
    parts: frozenset[str] = module.PARTS
    width = _features(backbone, features)
    cov: Covariance = covariance or ("diagonal" if "marginal" in parts else "identity")
    stochastic = "encoder" in parts
    encoder = Encoder(width, dim or (None if cov == "identity" else width), cov if stochastic else "identity")
    has_marginal = stochastic and (marginal is not None or "marginal" in parts)
    has_backward = "backward" in parts or (has_marginal and marginal == "classes")
    apart = "marginal" not in parts  # then it is reported, and must not move what is trained
    head = classifier if classifier is not None else recipe.default_classifier(chosen)
    if head == "consistent" and not has_backward:
        raise ConfigError(
            f"A consistent classifier is made from b(z|y), which the objective {chosen.name!r} does not have; use "
            "ceb, catgen or bidirectional, or another classifier."
        )
    return Bottleneck(
        backbone,
        encoder,
        head if isinstance(head, nn.Module) else _decoder(head, encoder.dim, num_classes),
        lambda codes, labels, rho: module.terms(chosen, codes, labels, rho),
        backward=BackwardEncoder(num_classes, encoder.dim, cov, backward) if has_backward else None,
        marginal=_marginal(marginal or "standard", encoder.dim, components, apart) if has_marginal else None,
        samples=samples,
        stochastic=stochastic,
        label_noise="label_noise" in parts,
        normalize=normalize,
        log_prior=_log_prior(class_counts, num_classes),
    )


def _log_prior(counts: Sequence[int] | None, num_classes: int) -> torch.Tensor:
    frequencies = torch.ones(num_classes) if counts is None else torch.as_tensor(counts, dtype=torch.float32)
    return (frequencies / frequencies.sum()).log()


def _features(backbone: nn.Module, given: int | None) -> int:
    for value in (given, getattr(backbone, "features", None), getattr(backbone, "num_features", None)):
        if isinstance(value, int):
            return value
    raise ModelError(
        f"How many features does {type(backbone).__name__} give? Pass features=..., or set an integer attribute "
        "'features' on the backbone."
    )


def _decoder(kind: str, dim: int, num_classes: int) -> nn.Module | None:
    if kind == "consistent":
        return None
    return glorot_linear(dim, num_classes) if kind == "linear" else elu_mlp(dim, num_classes)


def _marginal(kind: str, dim: int, components: int, apart: bool) -> nn.Module:
    if kind == "standard":
        return StandardMarginal(dim)
    if kind == "mixture":
        return MixtureMarginal(dim, components)
    return BatchMarginal(apart) if kind == "batch" else ClassMarginal(apart)


def build(
    given: recipe.Recipe,
    shape: tuple[int, int, int],
    num_classes: int,
    statistics: Statistics | None = None,
    class_counts: Sequence[int] | None = None,
) -> Bottleneck:
    """Build the untrained model of a recipe; the same seed gives the same weights, torch's global state is untouched.

    Args:
        given: the recipe.
        shape: channels, height, width of its images.
        num_classes: how many classes its data has.
        statistics: per-channel mean and standard deviation in [0, 1], for ``normalize: dataset``. None where weights
            are about to be loaded over them.
        class_counts: of the training labels; loaded with the weights likewise.
    """
    model = given.model
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(given.seed)
        return bottleneck(
            registry.find("nets", model.backbone.name).build(model.backbone, shape),
            num_classes,
            given.objective,
            model.dim,
            model.covariance,
            samples=model.samples,
            classifier=model.classifier,
            backward=model.backward,
            marginal=model.marginal,
            components=model.components,
            normalize=_normalizer(model.normalize, shape[0], statistics),
            class_counts=class_counts,
        )


def _normalizer(
    kind: Literal["symmetric", "dataset", "none"], channels: int, statistics: Statistics | None
) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "symmetric":
        return Normalize.symmetric()
    mean, std = statistics if statistics is not None else ([0.0] * channels, [1.0] * channels)
    return Normalize(mean, [deviation or 1.0 for deviation in std])  # a constant channel is only shifted
