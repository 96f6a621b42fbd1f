"""A dilated hierarchy over time: each level's codes look at windows wider than those below, as in WaveNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import DataError
from isthmus.information.codes import Codes
from isthmus.information.contrast import partner_logits
from isthmus.information.gaussians import Gaussian, side_by_side
from isthmus.models.gaussian_heads import Encoder, elu_layers
from isthmus.models.pairs import Objective, Paired, features, gaussians, normal

WIDTH = 64  # of the layers between levels


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
        return side_by_side(gaussians(self.encoder, groups))


class Dilated(Paired):
    """Codes of sequences at several time scales, each level aggregated from the one below.

    The past, batch × steps × ..., is cut into dilation^(levels − 1) blocks of equal length. The lowest level encodes
    each of them with ``front``; every other level encodes ``dilation`` neighbouring codes of the level below into one.
    Z_i is all codes of level i together; the highest level has a single one, of the whole past. It is the part of a
    stack of dilated convolutions that its last output depends on. All levels tell the same future.

    Args:
        front, encoder: e_1 of one block.
        partner_front: from the future to features.
        partner_encoder: b_1(z_1|future) of all blocks' codes together.
        objective: as in :class:`isthmus.models.pairs.Paired`.
        upper: the other levels, lowest first.
        samples: how many chains of codes are drawn per sequence.
    """

    def __init__(
        self,
        front: nn.Module,
        encoder: nn.Module,
        partner_front: nn.Module,
        partner_encoder: nn.Module,
        objective: Objective,
        *,
        upper: Sequence[Scale],
        samples: int = 1,
    ) -> None:
        super().__init__(front, encoder, partner_front, partner_encoder, objective, samples=samples)
        self.upper = nn.ModuleList(upper)
        self.blocks = 1
        for scale in upper:
            self.blocks *= scale.dilation

    def encode(self, x: Float[Tensor, "n steps ..."]) -> Gaussian:
        """e_1(Z_1|x) of all blocks' codes side by side.

        Raises:
            DataError: the steps cannot be cut into so many blocks.
        """
        if x.dim() < 2 or x.shape[1] % self.blocks:
            raise DataError(
                f"For {len(self.upper) + 1} levels the past must be batch x steps x ..., with a multiple of "
                f"{self.blocks} steps; got {tuple(x.shape)}. Cut the windows to such a length, or use fewer levels."
            )
        blocks = x.reshape(len(x) * self.blocks, x.shape[1] // self.blocks, *x.shape[2:])
        found = features(self.front, blocks, "front").reshape(len(x), self.blocks, -1)
        return side_by_side(gaussians(self.encoder, found))

    def encode_partner(self, partner: Float[Tensor, "n ..."]) -> Gaussian:
        """b_L(z_L|future), of the highest level."""
        return self._backward(partner)[-1]

    def forward(self, x: Float[Tensor, "n steps ..."]) -> Float[Tensor, "n dim"]:
        """The representation of the past: the highest level's mean, each level at the mean of the one below."""
        mean = self.encode(x).mean
        for scale in self.upper:
            mean = scale(mean).mean
        return mean

    def codes(
        self, x: Float[Tensor, "n steps ..."], partner: Float[Tensor, "n ..."], noise: torch.Generator | None = None
    ) -> Codes:
        """The highest level's codes; ``below`` leads to the others."""
        found: Codes | None = None
        for number, backward in enumerate(self._backward(partner)):
            encoded = self.encode(x) if found is None else self.upper[number - 1](found.samples)
            shape = (self.samples, len(x), encoded.dim)
            drawn = normal(shape, encoded, noise)
            logits = partner_logits(backward, encoded.exact(drawn))
            found = Codes(encoded.sample(drawn), logits, None, encoded, backward, below=found, noise=drawn)
        assert found is not None
        return found

    def _backward(self, partner: Tensor) -> list[Gaussian]:
        found = features(self.partner_front, partner, "partner front")
        upper: list[nn.Module] = [scale.get_submodule("partner_encoder") for scale in self.upper]
        return [gaussians(head, found) for head in (self.partner_encoder, *upper)]
