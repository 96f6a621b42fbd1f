"""Information of a batch of codes about images and labels, per example and in nats (Fischer 2020, §2.2 to §2.5).

Everything follows from four log-densities of the same samples, log e(z|x), log b(z|y), log m(z) and log c(y|z), and
from the encoder's densities of all pairs of a batch. The papers' quantities are means over examples.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.information.codes import Codes
from isthmus.information.rates import rate_sandwich


class Measures:
    """Log-densities of a batch and the quantities that follow, without gradients, computed when first used.

    For a model with b(z|y) but no marginal, m(z) = Σ_y p(y)·b(z|y). A quantity whose densities are missing fails an
    assertion; :func:`measure` computes those that are available.

    Args:
        codes: the codes of one batch; in a hierarchy, of one level.
        labels: class indices.
        samples: number of the codes' samples to use; None means all.
        log_marginal: log m(z) of the samples, if known already.
    """

    def __init__(
        self,
        codes: Codes,
        labels: Int[Tensor, " n"],
        samples: int | None = None,
        log_marginal: Float[Tensor, "samples n"] | None = None,
    ) -> None:
        # detached copies rather than no_grad: Gaussians cache tensors that training needs with gradients
        self.labels, self.prior, self.log_probs = labels, codes.prior, codes.log_probs[:samples].detach()
        self.encoder = None if codes.encoder is None else codes.encoder.detach()
        if codes.encoder is not None and codes.noise is not None:
            self.z, self.noise = codes.exact[:samples].detach(), codes.noise[:samples]
        if self.encoder is not None and codes.below is not None:  # an upper level has an encoder for each sample
            self.encoder = self.encoder[:samples]
        self.backward = None if codes.backward is None else codes.backward.detach()
        self.marginal = None if codes.marginal is None else codes.marginal.detach()
        if log_marginal is not None:
            self.log_marginal = log_marginal.detach()

    @cached_property
    def log_encoder(self) -> Float[Tensor, "samples n"]:
        """log e(z|x), from the noise."""
        assert self.encoder is not None
        return self.encoder.log_prob_of(self.noise)

    @cached_property
    def log_classes(self) -> Float[Tensor, "samples n classes"]:
        """log b(z|y) of every class, in float64."""
        assert self.backward is not None
        return self.backward.scores(self.z)

    @cached_property
    def log_backward(self) -> Float[Tensor, "samples n"]:
        """log b(z|y) of the true class."""
        assert self.backward is not None
        if self.marginal is None:  # all classes are needed anyway
            return self._own(self.log_classes)
        return self.backward[self.labels].log_prob(self.z)

    @cached_property
    def log_marginal(self) -> Float[Tensor, "samples n"]:
        """log m(z)."""
        if self.marginal is not None:
            return self.marginal.log_prob(self.z)
        return torch.logsumexp(self.log_classes + self.prior, -1)

    @cached_property
    def log_classifier(self) -> Float[Tensor, "samples n"]:
        """log c(y|z) of the true class."""
        return self._own(self.log_probs)

    def _own(self, of_classes: Float[Tensor, "samples n classes"]) -> Float[Tensor, "samples n"]:
        index = self.labels.expand(len(of_classes), -1).unsqueeze(-1)
        return of_classes.gather(-1, index).squeeze(-1)

    @property
    def cross_entropy(self) -> Float[Tensor, " n"]:
        """−log c(y|z)."""
        return -self.log_classifier.mean(0)

    @property
    def i_yz_lower(self) -> Float[Tensor, " n"]:
        """log c(y|z) − log p(y). If labels follow p(y), its mean is H(Y) − ce, at most I(Y;Z)."""
        return self.log_classifier.mean(0) - self.prior[self.labels]

    @property
    def rate(self) -> Float[Tensor, " n"]:
        """R: log e(z|x) − log m(z), with a mean of at least I(X;Z)."""
        return (self.log_encoder - self.log_marginal).mean(0)

    @property
    def residual(self) -> Float[Tensor, " n"]:
        """ReX: log e(z|x) − log b(z|y), with a mean of at least I(X;Z|Y)."""
        return (self.log_encoder - self.log_backward).mean(0)

    @property
    def i_yz_backward(self) -> Float[Tensor, " n"]:
        """log b(z|y) − log m(z) = R − ReX, an estimate of H(Z) − H(Z|Y) = I(Y;Z), but not a bound."""
        return (self.log_backward - self.log_marginal).mean(0)

    @property
    def consistency_gap(self) -> Float[Tensor, " n"]:
        """``i_yz_backward`` − ``i_yz_lower``, two estimates of I(Y;Z) that are equal for a consistent model.

        The absolute value of its mean is the consistency metric (Fischer 2020, eq. 8). It is 0 for every code if
        c(y|z) ∝ p(y)·b(z|y) and m(z) = Σ_y p(y)·b(z|y).
        """
        return self.i_yz_backward - self.i_yz_lower

    @cached_property
    def rate_bounds(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """R_X and its leave-one-out counterpart: :func:`isthmus.information.rates.rate_sandwich` on all samples."""
        assert self.encoder is not None
        return rate_sandwich(self.encoder, self.noise)


def measure(codes: Codes, labels: Int[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
    """All quantities that can be measured on these codes, one number per example, in nats.

    Args:
        codes: the codes of one batch of n examples. In a hierarchy, quantities about Y (``cross_entropy``,
            ``i_yz_lower``, ``i_yz_backward`` and the consistency gap) are those of the highest level, which classifies.
            Quantities about X (the rates and ``residual``) are those of the lowest, whose I(X;Z) is that of all levels.
        labels: class indices.

    Returns:
        ``cross_entropy`` and ``i_yz_lower``; for a random code also ``rate_lower``, at most I(X;Z) and ln n, and
        ``rate_upper``, infinite for a single example; with b(z|y) ``residual``, ``i_yz_backward`` and
        ``consistency_gap``; with b(z|y) or m(z) ``rate``. :class:`Measures` defines them.
    """
    top = Measures(codes, labels)
    low = top if codes.below is None else Measures(codes.levels[0], labels)
    found = {"cross_entropy": top.cross_entropy, "i_yz_lower": top.i_yz_lower}
    if low.encoder is None:
        return found
    if low.backward is not None:
        found |= {"residual": low.residual}
        found |= {"i_yz_backward": top.i_yz_backward, "consistency_gap": top.consistency_gap}
    if low.backward is not None or low.marginal is not None:
        found["rate"] = low.rate
    found["rate_lower"], found["rate_upper"] = low.rate_bounds
    return found


def mni_distance(rate_lower: float, i_yz_lower: float, i_xy: float) -> float:
    """Distance of a code from the MNI point I(X;Z) = I(X;Y) = I(Y;Z) in the information plane, in nats.

    Euclidean, √((R_X − I(X;Y))² + (I(X;Y) − I(Y;Z))²), with the lower bounds for I(X;Z) and I(Y;Z).

    Args:
        rate_lower: lower bound on I(X;Z).
        i_yz_lower: lower bound on I(Y;Z).
        i_xy: I(X;Y). If images determine labels it is H(Y), or ln C for C equally frequent classes.
    """
    return math.hypot(rate_lower - i_xy, i_yz_lower - i_xy)
