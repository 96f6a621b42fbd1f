"""Output of a bottleneck on one batch: the distributions and samples that objectives and measures use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.information.gaussians import Gaussian


class Density(Protocol):
    """Anything with a log-density over codes: a Gaussian or a mixture."""

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-density in nats."""

    def detach(self) -> Density:
        """The same density without gradients."""


Gather = Callable[[Tensor, int], Tensor]
"""From some rows of a batch, in this dimension, to those of the whole batch: what processes that share one have."""


@dataclass(frozen=True)
class Codes:
    """One batch, encoded.

    Attributes:
        samples: z, samples × batch × dim (one "sample" where the code is deterministic).
        logits: of c(y|z) for every sample, samples × batch × classes.
        encoder: e(z|x), a batch of Gaussians; None where the code is deterministic.
        log_prior: log p(y) of the classes, in nats; None means equally frequent classes.
        backward: b(z|y) for every class, a batch of as many Gaussians; None where the model has none.
        marginal: m(z); None where the model has none.
        label_noise: standard normal noise to draw codes from b(z|y) with; None where the objective draws none.
        kernel_variance: of a kernel density estimate of z whose width is fitted to other codes; None where there is
            none, NaN before it was fitted.
        below: of a hierarchy, the level whose samples this level's encoder saw; ``encoder`` then has a Gaussian for
            each of them, samples × batch. None at the lowest level, which saw the image.
        noise: standard normal, what ``samples`` were drawn from ``encoder`` with; None where there is no encoder.
            Log-densities are taken from it and from :attr:`exact`, never from ``samples``, which are rounded.
    """

    samples: Float[Tensor, "samples batch dim"]
    logits: Float[Tensor, "samples batch classes"]
    log_prior: Float[Tensor, "classes"] | None = None
    encoder: Gaussian | None = None
    backward: Gaussian | None = None
    marginal: Density | None = None
    label_noise: Float[Tensor, "samples batch dim"] | None = None
    kernel_variance: Float[Tensor, ""] | None = None
    below: Codes | None = None
    noise: Float[Tensor, "samples batch dim"] | None = None

    @property
    def levels(self) -> tuple[Codes, ...]:
        """The levels of a hierarchy, lowest first; just these codes where there is none."""
        return (self,) if self.below is None else (*self.below.levels, self)

    def whole(self, gather: Gather, marginal: Callable[[Codes], Density] | None) -> Codes:
        """The codes of a whole batch, of which these are some rows.

        Args:
            gather: gives the whole batch's rows of a tensor.
            marginal: gives m(z) where these codes have one, which may be made of the batch.
        """
        found = replace(
            self,
            samples=gather(self.samples, 1),
            logits=gather(self.logits, 1),
            encoder=self.encoder.map(lambda p: gather(p, int(self.below is not None))) if self.encoder else None,
            noise=gather(self.noise, 1) if self.noise is not None else None,
            label_noise=gather(self.label_noise, 1) if self.label_noise is not None else None,
            below=self.below.whole(gather, marginal) if self.below else None,
        )
        return found if self.marginal is None or marginal is None else replace(found, marginal=marginal(found))

    @property
    def first_draw(self) -> tuple[Gaussian, Float[Tensor, "batch dim"]]:
        """e and the noise of the first sample."""
        assert self.encoder is not None
        assert self.noise is not None
        return (self.encoder if self.below is None else self.encoder[0]), self.noise[0]

    @cached_property
    def exact(self) -> Float[Tensor, "samples batch dim"]:
        """``samples`` before rounding, in float64, with their gradients; what b, m and other encoders are taken at."""
        assert self.encoder is not None
        assert self.noise is not None
        with torch.set_grad_enabled(self.samples.requires_grad):
            return self.encoder.exact(self.noise)

    @property
    def log_encoder(self) -> Float[Tensor, "samples batch"]:
        """log e(z|x) of every sample, in nats."""
        assert self.encoder is not None
        assert self.noise is not None
        return self.encoder.log_prob_of(self.noise)

    @cached_property
    def log_probs(self) -> Float[Tensor, "samples batch classes"]:
        """log c(y|z) of every sample, in nats."""
        with torch.set_grad_enabled(self.logits.requires_grad):  # cached, so never without the gradients it should have
            return torch.log_softmax(self.logits, dim=-1)

    @property
    def prior(self) -> Float[Tensor, "classes"]:
        """log p(y), in nats."""
        classes = self.logits.shape[-1]
        return self.logits.new_full((classes,), -math.log(classes)) if self.log_prior is None else self.log_prior

    @property
    def label_entropy(self) -> Float[Tensor, ""]:
        """H(Y) of the prior, in nats; ln C for equally frequent classes."""
        return -(self.prior.exp() * self.prior).nan_to_num(0.0).sum()

    def cross_entropy(self, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """−log c(y|z) averaged over samples (not −log of the averaged probability), per example."""
        index = labels.expand(self.log_probs.shape[0], -1).unsqueeze(-1)
        return -self.log_probs.gather(-1, index).squeeze(-1).mean(0)

    def predictions(self) -> Int[Tensor, "batch"]:
        """The class with the largest probability, averaged over samples."""
        one = self.log_probs.shape[0] == 1
        return (self.log_probs[0] if one else self.log_probs.exp().mean(0)).argmax(-1)
