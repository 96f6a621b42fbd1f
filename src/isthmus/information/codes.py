"""Outputs of models on one batch, for objectives and measures: codes of a bottleneck, or scores of label hypotheses."""

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
"""Collects the rows of a whole batch, along a dimension, from the processes that share it."""


@dataclass(frozen=True)
class Codes:
    """The codes of one batch.

    Attributes:
        samples: z, samples × batch × dim (one sample if the code is deterministic).
        logits: logits of c(y|z) for every sample, samples × batch × classes.
        log_prior: log p(y) of the classes, in nats; None means equally frequent classes.
        encoder: e(z|x), a batch of Gaussians; None if the code is deterministic.
        backward: b(z|y), one Gaussian for each class; None if the model has none.
        marginal: m(z); None if the model has none.
        label_noise: standard normal noise for codes from b(z|y); None if the objective draws none.
        kernel_variance: of a kernel density estimate of z whose width is fitted to other codes; NaN until it is fitted,
            None if there is no such estimate.
        below: in a hierarchy, the codes of the level below, which this level encodes; ``encoder`` then has a Gaussian
            for each of their samples, samples × batch. None at the lowest level.
        noise: the standard normal noise of ``samples``; None without an encoder. Log-densities are computed from it and
            from :attr:`exact`, never from ``samples``, which are rounded.
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
        """The levels of a hierarchy, lowest first; without a hierarchy, these codes alone."""
        return (self,) if self.below is None else (*self.below.levels, self)

    def whole(self, gather: Gather, marginal: Callable[[Codes], Density] | None) -> Codes:
        """The codes of the whole batch, of which these are some rows.

        Args:
            gather: collects the rows of the whole batch.
            marginal: gives m(z) of the whole batch, for codes that have a marginal.
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
        """The encoder and the noise of the first sample."""
        assert self.encoder is not None
        assert self.noise is not None
        return (self.encoder if self.below is None else self.encoder[0]), self.noise[0]

    @cached_property
    def exact(self) -> Float[Tensor, "samples batch dim"]:
        """``samples`` before rounding, in float64 with gradients. b, m and other encoders are evaluated at these."""
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
        with torch.set_grad_enabled(self.logits.requires_grad):  # cached, so it must have gradients from the start
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


@dataclass(frozen=True)
class Hypotheses:
    """Scores of one batch under every hypothesis about its labels.

    Attributes:
        scores: v(x, y) of every image and label, at least in float32; softmax_y v is the posterior.
        representations: computes a hidden layer's outputs under each hypothesis, hypotheses × n × d. Their gradient
            only reaches the conditioned layers up to that one. Called only by objectives that use them.
        log_prior: log p(y) of the training labels, in nats; None means equally frequent classes.
    """

    scores: Float[Tensor, "n classes"]
    representations: Callable[[], Float[Tensor, "hypotheses n d"]]
    log_prior: Float[Tensor, " classes"] | None = None

    def whole(self, gather: Gather) -> Hypotheses:
        """The scores of the whole batch, of which these are some rows."""
        return Hypotheses(gather(self.scores, 0), lambda: gather(self.representations(), 1), self.log_prior)

    @property
    def label_entropy(self) -> Float[Tensor, ""]:
        """H(Y) of the prior, in nats."""
        if self.log_prior is None:
            return self.scores.new_tensor(math.log(self.scores.shape[1]))
        return -(self.log_prior.exp() * self.log_prior).nan_to_num(0.0).sum()
