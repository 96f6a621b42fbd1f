"""Representation learners on pairs (x, x'): past and future, or an example and a noisy copy.

Two encoders of one Gaussian family, e(z|x) of examples and b(z|x') of their partners, on one level or at several time
scales. :func:`paired` builds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from isthmus.core import config
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.core.tradeoff import Rho, as_number
from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import partner_logits
from isthmus.information.gaussians import Gaussian, side_by_side
from isthmus.models.gaussian_heads import Covariance, Encoder, elu_layers, gaussians_of
from isthmus.models.learner import count_features
from isthmus.objectives.objective import number_of_levels
from isthmus.objectives.pairs import PairObjective

WIDTH = 64  # of the layers between levels
Positive = Annotated[int, Field(gt=0)]


class PairedOptions(config.Frozen):
    """Options of :func:`paired`.

    Attributes:
        covariance: "identity", "diagonal" or "full", of e and b alike; variances start at 1.
        samples: codes drawn per example in training.
        levels: number of time scales of a multi-scale objective, whose ``front`` encodes the blocks of the past that
            the lowest level sees. None means 2 for that objective, and 1 for the others.
        dilation: number of codes of a level that the next one encodes together.
    """

    covariance: Covariance = "diagonal"
    samples: Positive = 1
    levels: Positive | None = None
    dilation: Positive = 2


def paired(
    front: nn.Module,
    partner_front: nn.Module | None = None,
    objective: str | Mapping[str, Any] | config.Component = "predictive",
    dim: int = 8,
    *,
    features: int | None = None,
    partner_features: int | None = None,
    options: PairedOptions | Mapping[str, Any] | None = None,
) -> Paired:
    """Learn a representation from pairs, without labels: ``model.loss(x, partner)`` in a loop, then ``model(x)``.

    Args:
        front: an ``nn.Module`` from x to features, batch × features.
        partner_front: the same for the partner x'. None shares ``front``, for partners of the kind and shape of x.
        objective: an objective such as ``isthmus.objectives.PredictiveCEB(rho=2)``, its name, or a mapping of its
            options with its name: "predictive" (x is the past, x' the future), "multiscale" (the same at several time
            scales), or "denoising" (x' is x through a noise function, :mod:`isthmus.data.noise_functions`).
        dim: size of a code.
        features, partner_features: number of features; None reads ``features`` or ``num_features`` of the fronts.
        options: see :class:`PairedOptions`; a mapping of its fields will do.

    Raises:
        ConfigError: an unknown objective or option, or an objective that learns from labels.
        ModelError: the number of features is unknown.
    """
    chosen = config.component("objectives", objective)
    if not isinstance(chosen, PairObjective):
        raise ConfigError(
            f"The objective {chosen.name!r} learns from labels, and pairs have none; use predictive, multiscale or "
            "denoising, or isthmus.bottleneck for a classifier."
        )
    if dim < 1:
        raise ConfigError(f"dim must be 1 or more; got {dim}.")
    settings = config.options(PairedOptions, options)
    width = count_features(front, features)
    partner_width = width if partner_front is None else count_features(partner_front, partner_features)

    def encoder(inputs: int, codes: int = 1) -> Encoder:
        return Encoder(inputs, codes * dim, settings.covariance, initial_std=1.0)

    levels = number_of_levels(chosen, settings.levels)
    codes = [settings.dilation**above for above in reversed(range(levels))]  # of each level, lowest first
    lowest = (front, encoder(width), partner_front or front, encoder(partner_width, codes[0]))
    upper = [Scale(encoder(WIDTH), encoder(partner_width, many), settings.dilation) for many in codes[1:]]
    return Paired(*lowest, chosen, upper=upper, samples=settings.samples)


class Paired(nn.Module):
    """A code of x learned from what x and its partner x' have in common, without labels.

    ``forward`` is the representation of x, batch × dim: the mean of its code.

    With ``upper`` levels there are codes at several time scales. The past, batch × steps × ..., is cut into blocks of
    equal length, as many as the product of all dilations. The lowest level encodes each block with ``front``; every
    other level encodes ``dilation`` neighbouring codes of the level below into one. Z_i is the concatenation of all
    codes of level i; the highest level has a single code, of the whole past. This is the part of a stack of dilated
    convolutions that determines its last output. All levels predict the same future.

    Args:
        front: any module from x (or one block) to features, batch × features.
        encoder: e(z|x) on those features.
        partner_front: from x' to features; may be ``front`` itself.
        partner_encoder: b(z|x') on those features, of the concatenated codes of the lowest level.
        objective: the loss.
        upper: the levels above the lowest, in order.
        samples: number of codes (or chains of codes) drawn per example.
    """

    def __init__(
        self,
        front: nn.Module,
        encoder: nn.Module,
        partner_front: nn.Module,
        partner_encoder: nn.Module,
        objective: PairObjective,
        *,
        upper: Sequence[Scale] = (),
        samples: int = 1,
    ) -> None:
        super().__init__()
        self.front = front
        self.encoder = encoder
        self.partner_front = partner_front
        self.partner_encoder = partner_encoder
        self.objective = objective
        self.samples = samples
        self.upper = nn.ModuleList(upper)
        self.blocks = math.prod(scale.dilation for scale in upper)

    def encode(self, x: Float[Tensor, "n ..."]) -> Gaussian:
        """e(z|x) of the lowest level, at least in float32; with several levels, of all blocks' codes side by side.

        Raises:
            DataError: the number of steps is no multiple of the number of blocks.
        """
        if not self.upper:
            return gaussians_of(self.encoder, features(self.front, x, "front"))
        if x.dim() < 2 or x.shape[1] % self.blocks:
            raise DataError(
                f"For {len(self.upper) + 1} levels the past must be batch x steps x ..., with a multiple of "
                f"{self.blocks} steps; got {tuple(x.shape)}. Cut the windows to such a length, or use fewer levels."
            )
        blocks = x.reshape(len(x) * self.blocks, x.shape[1] // self.blocks, *x.shape[2:])
        found = features(self.front, blocks, "front").reshape(len(x), self.blocks, -1)
        return side_by_side(gaussians_of(self.encoder, found))

    def encode_partner(self, partner: Float[Tensor, "n ..."]) -> Gaussian:
        """b(z|x') of the highest level."""
        return self._backward(partner)[-1]

    def _backward(self, partner: Tensor) -> list[Gaussian]:
        """b_i(z_i|x') of each level, lowest first."""
        found = features(self.partner_front, partner, "partner front")
        upper: list[nn.Module] = [scale.get_submodule("partner_encoder") for scale in self.upper]
        return [gaussians_of(head, found) for head in (self.partner_encoder, *upper)]

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """The representation of x: the highest level's mean, each level at the mean of the one below."""
        mean = self.encode(x).mean
        for scale in self.upper:
            mean = scale(mean).mean
        return mean

    def scores(self, x: Float[Tensor, "n ..."], partners: Float[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
        """log b(E z|x'_k) of every x and every candidate, in nats and float64; the largest is the best match."""
        return self.encode_partner(partners).scores(self.forward(x))

    def codes(
        self, x: Float[Tensor, "n ..."], partner: Float[Tensor, "n ..."], noise: torch.Generator | None = None
    ) -> Codes:
        """Encode a batch of pairs and draw ``samples`` codes for each example.

        Returns:
            The highest level's codes; ``below`` leads to the others.
        """
        found: Codes | None = None
        for number, backward in enumerate(self._backward(partner)):
            encoded = self.encode(x) if found is None else self.upper[number - 1](found.samples)
            shape = (self.samples, len(x), encoded.dim)
            drawn = normal(shape, encoded, noise)
            label_noise = normal(shape, encoded, noise) if self.objective.uses_label_noise else None
            logits = partner_logits(backward, encoded.exact(drawn))
            samples = encoded.sample(drawn)
            found = Codes(samples, logits, None, encoded, backward, label_noise=label_noise, below=found, noise=drawn)
        assert found is not None
        return found

    def loss(
        self,
        x: Float[Tensor, "n ..."],
        partner: Float[Tensor, "n ..."],
        rho: float | Rho | None = None,
        noise: torch.Generator | None = None,
    ) -> Terms:
        """The objective's terms on one batch of pairs, in nats; minimise ``terms.total``.

        A batch of K pairs measures at most ln K nats.

        Args:
            x: examples, or the past of sequences.
            partner: x' of each: the future, or the example through a noise function.
            rho: overrides the objective's trade-off, for schedules.
            noise: generator of the sampling noise (None for torch's global one).

        Raises:
            DataError: not one partner per example, no example, or numbers that are not finite.
            ModelError: a front does not give batch × features.
        """
        check_pairs(x, partner)
        codes = self.codes(x, partner, noise)
        with torch.autocast(x.device.type, enabled=False):
            return self.objective.terms(codes, torch.arange(len(x), device=x.device), as_number(rho))


class Scale(nn.Module):
    """One level above another: e_i from ``dilation`` neighbouring codes below, and b_i from the future's features."""

    def __init__(self, encoder: Encoder, partner_encoder: Encoder, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.encoder = nn.Sequential(*elu_layers(dilation * encoder.dim, WIDTH), encoder)
        self.partner_encoder = partner_encoder
        self._dim = encoder.dim

    def forward(self, below: Float[Tensor, "*batch parts*dim"]) -> Gaussian:
        """e_i(z_i|z_{i−1}) of all this level's codes side by side, *batch × parts/dilation·dim."""
        groups = below.reshape(*below.shape[:-1], -1, self.dilation * self._dim)
        return side_by_side(gaussians_of(self.encoder, groups))


def normal(shape: Sequence[int], like: Gaussian, noise: torch.Generator | None) -> Float[Tensor, "..."]:
    """Standard normal noise on the device and in the dtype of ``like``."""
    return torch.randn(*shape, generator=noise, device=like.mean.device, dtype=like.mean.dtype)


def check_pairs(x: Tensor, partner: Tensor) -> None:
    """Check that there is one partner per example and that all numbers are finite."""
    if len(x) != len(partner) or len(x) == 0:
        raise DataError(
            f"Pairs need one partner for each example; got {len(x)} examples and {len(partner)} partners. Row i of the "
            "one belongs to row i of the other."
        )
    for name, given in (("The examples hold", x), ("Their partners hold", partner)):
        if not bool(torch.isfinite(given).all()):
            raise DataError(f"{name} NaN or infinities, from which no code can be learned; clean the data first.")


def features(front: nn.Module, x: Tensor, name: str) -> Float[Tensor, "n features"]:
    """The features of a front, checked.

    Raises:
        ModelError: it does not give batch × features.
    """
    found = front(x)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(x):
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(
            f"The {name} gives {given} for {len(x)} rows; a Gaussian code needs one tensor, batch x features. End it "
            "with pooling or a Flatten."
        )
    return found
