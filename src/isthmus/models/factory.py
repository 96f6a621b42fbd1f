"""Building our classifiers: a bottleneck around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from isthmus.core import config, recipe, registry
from isthmus.core.errors import ConfigError, ModelError
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.gaussian_heads import (
    BackwardEncoder,
    BackwardKind,
    Covariance,
    Encoder,
    elu_layers,
    elu_mlp,
    glorot_linear,
    relu_mlp,
)
from isthmus.models.hierarchy import Hierarchy, Level
from isthmus.models.learner import Normalizer
from isthmus.models.marginals import BatchMarginal, ClassMarginal, MixtureMarginal, StandardMarginal

LEVEL_WIDTH = 64  # of the layers between the levels of a hierarchy


def bottleneck(
    backbone: nn.Module,
    num_classes: int,
    objective: str | Mapping[str, Any] | config.Component = "ceb",
    dim: int | None = None,
    covariance: Covariance | None = None,
    *,
    samples: int = 1,
    classifier: Literal["linear", "mlp", "consistent"] | nn.Module | None = None,
    backward: BackwardKind = "linear",
    marginal: Literal["standard", "mixture", "batch", "classes"] | None = None,
    components: int = 240,
    features: int | None = None,
    normalize: Normalizer | None = None,
    class_counts: Sequence[int] | None = None,
    levels: int | None = None,
    classifier_std: float | None = None,
    classifier_unit_norm: bool = False,
    classifier_hidden: Sequence[int] | None = None,
    encoder_std: float | None = None,
    encoder_std_offset: float | None = None,
) -> Bottleneck:
    """Wrap any backbone into an information-bottleneck classifier.

    Args:
        backbone: an ``nn.Module`` from images to features, batch × features.
        num_classes: how many classes.
        objective: "deterministic", "vib", "ceb", another of ``isthmus list objectives``, or one with its options:
            ``{"name": "ceb", "rho": 2}``.
        dim: size of the code. None makes the features themselves the code (identity or isotropic covariance) or, for
            the other covariances, a code as large as the features.
        covariance: "identity", "isotropic" (one trained standard deviation for all codes), "diagonal" or "full". None
            means identity for CEB and deterministic models (Fischer & Alemi 2020), isotropic for the nonlinear IB, and
            diagonal otherwise (Alemi et al. 2017), also for hierarchies.
        samples: codes drawn per image, in training and in the stochastic mode.
        classifier: c(y|z): "linear", "mlp" (two ELU layers of 64), "consistent" (Bayes' rule on b(z|y), without
            parameters), or a module from codes to logits. None means "consistent" for objectives that learn no
            classifier (CatGen, bidirectional CEB) and "linear" otherwise.
        backward: form of b(z|y), built where the objective needs it: "linear" in the one-hot label, a "table" with a
            row for each class and no bias that all share, or an "mlp" of two ELU layers.
        marginal: m(z): "standard" (N(0, I)), a learned "mixture", the "batch" (of e(z|x) over its images), or the
            "classes" (of b(z|y), which is then built). None builds what the objective needs: N(0, I) for VIB, nothing
            for CEB, whose rate is reported with the mixture of its classes.
        components: of a mixture marginal.
        features: number of features; read from ``backbone.features`` (or ``num_features``) where None.
        normalize: applied to images in [0, 1] first: a module, or (mean, std) with one number per channel each; None
            hands them to the backbone as they are.
        class_counts: how many training examples each class has, so that bounds use the labels' own entropy; equally
            many where None.
        levels: how many codes follow one another, image → z_1 → ... → z_L, each with its own c and b; see
            :class:`isthmus.models.hierarchy.Hierarchy`. None means 2 for a hierarchical objective, and 1 for the
            others.
        classifier_std: the weights of a linear classifier start from N(0, classifier_std²); Glorot-uniform where None.
        classifier_unit_norm: each class's weights start as a normal's draws, scaled to norm 1.
        classifier_hidden: widths of hidden ReLU layers for an "mlp" classifier, in place of its two ELU layers.
        encoder_std: standard deviation that e(z|x) starts with, whatever the features; the covariance's own where None.
        encoder_std_offset: σ of e(z|x) is softplus(s + encoder_std_offset), where s is what the encoder's layer gives;
            of a full covariance, the diagonal of L. None means −5 for a diagonal covariance (Alemi et al. 2017, on
            MNIST) and softplus⁻¹(1) = 0.54 for a full one; 0 is the plain softplus. From −20 to 20.

    Raises:
        ConfigError: an unknown objective or option, one that learns from pairs, levels that the objective does not
            have, a consistent classifier where it has no b(z|y), or an offset where σ is no softplus.
        ModelError: the number of features is unknown.
    """
    chosen = config.component("objectives", objective)
    module = registry.find("objectives", chosen.name)
    parts: frozenset[str] = module.PARTS
    if "partners" in parts:
        raise ConfigError(
            f"The objective {chosen.name!r} learns from pairs without labels; use isthmus.paired, or an objective for "
            "classifiers such as ceb."
        )
    if "hypotheses" in parts:
        raise ConfigError(
            f"The objective {chosen.name!r} verifies label hypotheses; use isthmus.hypothesis (in a recipe: "
            "model.hypothesis), or an objective for bottlenecks such as ceb."
        )
    number = levels_of(chosen, levels)
    width = count_features(backbone, features)
    usual: Covariance = "isotropic" if "one_noise" in parts else "identity"
    cov: Covariance = covariance or ("diagonal" if parts & {"marginal", "levels"} else usual)
    if "one_noise" in parts and cov not in ("identity", "isotropic"):
        raise ConfigError(
            f"The objective {chosen.name!r} compares codes under noise that is the same for all images; use covariance "
            f"isotropic or identity, not {cov}."
        )
    stochastic = "encoder" in parts
    code = dim or (None if cov in ("identity", "isotropic") else width)
    # as a level's b starts, since every level pays for what its code says beyond b
    start = 1.0 if number > 1 and code is not None else encoder_std
    if encoder_std_offset is not None:
        _check_offset(encoder_std_offset, cov if stochastic else None, encoder_std, number)
    encoder = Encoder(width, code, cov if stochastic else "identity", start, encoder_std_offset)
    has_marginal = stochastic and (marginal is not None or "marginal" in parts)
    has_backward = "backward" in parts or (has_marginal and marginal == "classes")
    apart = "marginal" not in parts  # then it is reported, and must not move what is trained
    head = classifier if classifier is not None else recipe.default_classifier(chosen)
    if head == "consistent" and not has_backward:
        raise ConfigError(
            f"A consistent classifier is made from b(z|y), which the objective {chosen.name!r} does not have; use "
            "ceb, catgen or bidirectional, or another classifier."
        )

    def decoder(lowest: bool = True) -> nn.Module | None:
        if isinstance(head, nn.Module):
            return head if lowest else copy.deepcopy(head)
        if classifier_hidden is not None and head != "mlp":
            raise ConfigError(f"classifier_hidden is for an mlp classifier; this one is {head!r}.")
        if head == "mlp" and classifier_hidden is not None:
            return relu_mlp(encoder.dim, classifier_hidden, num_classes)
        return _decoder(head, encoder.dim, num_classes, classifier_std, classifier_unit_norm)

    def backward_encoder() -> BackwardEncoder:
        return BackwardEncoder(num_classes, encoder.dim, "diagonal" if cov == "isotropic" else cov, backward)

    upper = [Level(_above(encoder, cov), decoder(lowest=False), backward_encoder()) for _ in range(number - 1)]
    model = (partial(Hierarchy, upper) if upper else Bottleneck)(
        backbone,
        encoder,
        decoder(),
        lambda codes, labels, rho: module.terms(chosen, codes, labels, rho),
        backward=backward_encoder() if has_backward else None,
        marginal=_marginal(marginal or "standard", encoder.dim, components, apart) if has_marginal else None,
        samples=samples,
        stochastic=stochastic,
        label_noise="label_noise" in parts,
        kernel_points=getattr(chosen, "kernel_points", 0),
        normalize=normalize,
        log_prior=log_prior_of(class_counts, num_classes),
    )
    model.configured = getattr(chosen, "configured", "")
    return model


def log_prior_of(counts: Sequence[int] | None, num_classes: int) -> torch.Tensor:
    """log p(y) in nats from how often each class occurs; of equally frequent ones where not told.

    Raises:
        ConfigError: not one number for each class.
    """
    if counts is not None and len(counts) != num_classes:
        raise ConfigError(f"class_counts has {len(counts)} numbers for {num_classes} classes; give one for each.")
    frequencies = torch.ones(num_classes) if counts is None else torch.as_tensor(counts, dtype=torch.float32)
    return (frequencies / frequencies.sum()).log()


def levels_of(objective: config.Component, given: int | None) -> int:
    """How many levels a model of this objective has.

    Raises:
        ConfigError: there are none such, or the objective's offsets are of another number of levels.
    """
    several = "levels" in registry.find("objectives", objective.name).PARTS
    number = given if given is not None else 2 if several else 1
    if number < 1 or (number > 1 and not several):
        what = "hierarchical and multiscale have several levels" if number > 1 else "there is one at least"
        raise ConfigError(f"levels = {number} does not go with the objective {objective.name!r}; {what}.")
    offsets = getattr(objective, "offsets", None)
    if offsets is not None and len(offsets) != number:
        raise ConfigError(
            f"The objective has {len(offsets)} offsets of ρ for {number} levels; give one for each level."
        )
    return number


def count_features(backbone: nn.Module, given: int | None) -> int:
    """How many features a backbone gives, as told or as it says itself.

    Raises:
        ModelError: neither says.
    """
    for value in (given, getattr(backbone, "features", None), getattr(backbone, "num_features", None)):
        if isinstance(value, int):
            return value
    raise ModelError(
        f"How many features does {type(backbone).__name__} give? Pass features=..., or set an integer attribute "
        "'features' on the backbone."
    )


def _check_offset(offset: float, covariance: Covariance | None, std: float | None, levels: int) -> None:
    """Raise a ConfigError for an offset that would have no effect; ``covariance`` is None for deterministic codes."""
    if not -20 <= offset <= 20:
        raise ConfigError(f"encoder_std_offset lies between -20 and 20; got {offset}.")
    if covariance not in ("diagonal", "full"):
        kind = "a deterministic code has no σ" if covariance is None else f"covariance {covariance!r} has none"
        raise ConfigError(
            f"encoder_std_offset is the offset in σ = softplus(s + offset), and {kind}; use covariance diagonal or "
            "full with a stochastic objective such as vib, or leave it out."
        )
    if std is not None or levels > 1:
        other = f"encoder_std={std:g}" if std is not None else f"levels={levels}, whose σ start at 1"
        raise ConfigError(f"encoder_std_offset does not go with {other}; give one of them.")


def _above(below: Encoder, covariance: Covariance) -> nn.Module:
    return nn.Sequential(
        *elu_layers(below.dim, LEVEL_WIDTH), Encoder(LEVEL_WIDTH, below.dim, covariance, initial_std=1.0)
    )


def _decoder(kind: str, dim: int, num_classes: int, std: float | None, unit_norm: bool) -> nn.Module | None:
    given = f"classifier_std={std}" if std is not None else "classifier_unit_norm" if unit_norm else ""
    if given and kind != "linear":
        raise ConfigError(f"{given} is for a linear classifier; this one is {kind!r}.")
    if kind == "consistent":
        return None
    if kind == "mlp":
        return elu_mlp(dim, num_classes)
    layer = glorot_linear(dim, num_classes)
    if given:
        nn.init.normal_(layer.weight, std=1.0 if std is None else std)
    if unit_norm:
        with torch.no_grad():
            layer.weight.div_(layer.weight.norm(dim=1, keepdim=True))
    return layer


def _marginal(kind: str, dim: int, components: int, apart: bool) -> nn.Module:
    if kind == "standard":
        return StandardMarginal(dim)
    if kind == "mixture":
        return MixtureMarginal(dim, components)
    return BatchMarginal(apart) if kind == "batch" else ClassMarginal(apart)
