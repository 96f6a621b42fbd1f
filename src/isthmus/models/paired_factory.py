"""Building representation learners on pairs (x, x'): past and future, an example and a noisy one of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from isthmus.core import config, registry
from isthmus.core.errors import ConfigError
from isthmus.models.dilated import WIDTH, Dilated, Scale
from isthmus.models.factory import count_features, levels_of
from isthmus.models.gaussian_heads import Covariance, Encoder
from isthmus.models.pairs import Objective, Paired


def paired(
    front: nn.Module,
    partner_front: nn.Module | None = None,
    objective: str | Mapping[str, Any] | config.Component = "predictive",
    dim: int = 8,
    covariance: Covariance = "diagonal",
    *,
    samples: int = 1,
    levels: int | None = None,
    dilation: int = 2,
    features: int | None = None,
    partner_features: int | None = None,
) -> Paired:
    """Learn a representation from pairs, without labels: ``model.loss(x, partner)`` in a loop, then ``model(x)``.

    Args:
        front: an ``nn.Module`` from x to features, batch × features.
        partner_front: the same for the partner x'. None shares ``front``, for partners of x's own kind and shape.
        objective: "predictive" (x is the past, x' the future), "multiscale" (the same at several time scales),
            "denoising" (x' is x through a noise function, :mod:`isthmus.data.noise_functions`), or one with its
            options: ``{"name": "predictive", "bidirectional": True, "rho": 2}``.
        dim: size of a code.
        covariance: "identity", "diagonal" or "full", of e and b alike; variances start at 1.
        samples: codes drawn per example in training.
        levels: of a multi-scale objective; its ``front`` sees the blocks of the past that the lowest level encodes
            (:class:`isthmus.models.dilated.Dilated`). None means 2 for that objective, and 1 for the others.
        dilation: how many codes of a level the next one takes together.
        features, partner_features: number of features; read from ``features`` (or ``num_features``) of the fronts
            where None.

    Raises:
        ConfigError: an unknown objective or option, or an objective that learns from labels.
        ModelError: the number of features is unknown.
    """
    chosen = config.component("objectives", objective)
    module = registry.find("objectives", chosen.name)
    if "partners" not in module.PARTS:
        raise ConfigError(
            f"The objective {chosen.name!r} learns from labels, and pairs have none; use predictive, multiscale or "
            "denoising, or isthmus.bottleneck for a classifier."
        )
    if min(dim, samples, dilation) < 1:
        raise ConfigError(f"dim, samples and dilation are 1 or more; got {dim}, {samples} and {dilation}.")
    width = count_features(front, features)
    partner_width = width if partner_front is None else count_features(partner_front, partner_features)
    number = levels_of(chosen, levels)

    def encoder(inputs: int, codes: int = 1) -> Encoder:
        return Encoder(inputs, codes * dim, covariance, initial_std=1.0)

    codes = [dilation**above for above in reversed(range(number))]  # of each level, lowest first
    lowest = (front, encoder(width), partner_front or front, encoder(partner_width, codes[0]))
    if "levels" not in module.PARTS:
        return Paired(*lowest, _terms(module, chosen), samples=samples)
    upper = [Scale(encoder(WIDTH), encoder(partner_width, many), dilation) for many in codes[1:]]
    return Dilated(*lowest, _terms(module, chosen), upper=upper, samples=samples)


def _terms(module: ModuleType, chosen: config.Component) -> Objective:
    return lambda codes, labels, rho: module.terms(chosen, codes, labels, rho)
