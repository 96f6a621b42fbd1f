"""Two encoders of one Gaussian family for pairs (x, x'): e(z|x) of examples, b(z|x') of their partners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import DataError, ModelError
from isthmus.core.tradeoff import Rho, as_number
from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import partner_logits
from isthmus.information.gaussians import Gaussian

Objective = Callable[[Codes, Tensor, float | None], Terms]


class Paired(nn.Module):
    """Learns a code of x from what x and its partner x' have in common, without labels.

    ``forward`` is the representation of x: the mean of its code, batch × dim.

    Args:
        front: any module from x to features, batch × features.
        encoder: e(z|x) on those features.
        partner_front: the same for x'; may be ``front`` itself.
        partner_encoder: b(z|x') on those features.
        objective: from codes, the partners' indices and an optional ρ to the terms of the loss.
        samples: how many codes are drawn per example.
    """

    def __init__(
        self,
        front: nn.Module,
        encoder: nn.Module,
        partner_front: nn.Module,
        partner_encoder: nn.Module,
        objective: Objective,
        *,
        samples: int = 1,
    ) -> None:
        super().__init__()
        self.front = front
        self.encoder = encoder
        self.partner_front = partner_front
        self.partner_encoder = partner_encoder
        self.objective = objective
        self.samples = samples

    def encode(self, x: Float[Tensor, "n ..."]) -> Gaussian:
        """e(z|x). Densities leave in float32 at least, whatever autocast does in the front."""
        return gaussians(self.encoder, features(self.front, x, "front"))

    def encode_partner(self, partner: Float[Tensor, "n ..."]) -> Gaussian:
        """b(z|x')."""
        return gaussians(self.partner_encoder, features(self.partner_front, partner, "partner front"))

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n dim"]:
        """The representation of x, E z."""
        return self.encode(x).mean

    def scores(self, x: Float[Tensor, "n ..."], partners: Float[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
        """log b(E z|x'_k) of every x and every candidate, in nats and float64; the largest is the best match."""
        return self.encode_partner(partners).scores(self.forward(x))

    def codes(
        self, x: Float[Tensor, "n ..."], partner: Float[Tensor, "n ..."], noise: torch.Generator | None = None
    ) -> Codes:
        """Encode a batch of pairs and draw ``samples`` codes for each, and noise for as many of its partner."""
        encoded, backward = self.encode(x), self.encode_partner(partner)
        shape = (self.samples, *encoded.mean.shape)
        drawn, label_noise = normal(shape, encoded, noise), normal(shape, encoded, noise)
        logits = partner_logits(backward, encoded.exact(drawn))
        return Codes(encoded.sample(drawn), logits, None, encoded, backward, label_noise=label_noise, noise=drawn)

    def loss(
        self,
        x: Float[Tensor, "n ..."],
        partner: Float[Tensor, "n ..."],
        rho: float | Rho | None = None,
        noise: torch.Generator | None = None,
    ) -> Terms:
        """The objective's terms on one batch of pairs, in nats; minimise ``terms.total``.

        A batch of K pairs can tell ln K nats at most.

        Args:
            x: examples, or the past of sequences.
            partner: x' of each: the future, or the example through a noise function.
            rho: overrides the objective's own trade-off, for schedules.
            noise: generator of the sampling noise (torch's global one where None).

        Raises:
            DataError: as many partners as examples are needed, at least one, and all numbers finite.
            ModelError: a front does not give batch × features.
        """
        check_pairs(x, partner)
        codes = self.codes(x, partner, noise)
        with torch.autocast(x.device.type, enabled=False):
            return self.objective(codes, torch.arange(len(x), device=x.device), as_number(rho))


def normal(shape: Sequence[int], like: Gaussian, noise: torch.Generator | None) -> Float[Tensor, "..."]:
    """Standard normal noise, with the device and the dtype of these Gaussians."""
    return torch.randn(*shape, generator=noise, device=like.mean.device, dtype=like.mean.dtype)


def check_pairs(x: Tensor, partner: Tensor) -> None:
    """One partner for each example, and numbers throughout."""
    if len(x) != len(partner) or len(x) == 0:
        raise DataError(
            f"Pairs need one partner for each example; got {len(x)} examples and {len(partner)} partners. Row i of the "
            "one belongs to row i of the other."
        )
    for name, given in (("The examples hold", x), ("Their partners hold", partner)):
        if not bool(torch.isfinite(given).all()):
            raise DataError(f"{name} NaN or infinities, of which no code can be learned; clean the data first.")


def features(front: nn.Module, x: Tensor, name: str) -> Float[Tensor, "n features"]:
    """What a front gives, checked.

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


def gaussians(head: nn.Module, found: Float[Tensor, "*batch features"]) -> Gaussian:
    """A head's Gaussians from features, in float32 at least."""
    with torch.autocast(found.device.type, enabled=False):
        encoded: Gaussian = head(found.float() if found.dtype.itemsize < 4 else found)
    return encoded
