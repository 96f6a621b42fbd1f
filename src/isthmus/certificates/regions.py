"""The images that a threat allows, as sets over which linear functions have a sound minimum.

They contain every float32 image that :meth:`isthmus.attacks.threats.Threat.contains` accepts, which allows each pixel
one float32 rounding beyond ε, and are clipped to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.attacks.threats import L2, ULP, Linf, Threat
from isthmus.certificates.rounding import SPARE
from isthmus.core.errors import ConfigError

_STEPS = 8
_OUTWARD = 1 + 2.0**-26  # float64's rounding of a norm over up to 2²⁶ pixels
_EDGE = 2.0**-50  # and of a pixel


class Box(NamedTuple):
    """Bounds of tensors in float64: low ≤ x ≤ high, elementwise."""

    low: Float[Tensor, "n *shape"]
    high: Float[Tensor, "n *shape"]

    @property
    def magnitude(self) -> Float[Tensor, "n *shape"]:
        """Largest |x|."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def meet(self, other: Box) -> Box:
        """What both bounds allow."""
        return Box(torch.maximum(self.low, other.low), torch.minimum(self.high, other.high))

    def take(self, rows: slice) -> Box:
        """The bounds of some tensors."""
        return Box(self.low[rows], self.high[rows])


@dataclass(frozen=True)
class Region:
    """Allowed images around each original, for ℓ∞.

    Attributes:
        box: pixel bounds.
    """

    box: Box

    def minimum(self, rows: Float[Tensor, "n r *shape"]) -> Float[Tensor, "n r"]:
        """A lower bound on ⟨row, x⟩ over the allowed x."""
        low, high = (edge.flatten(1)[:, None] for edge in self.box)
        flat = rows.flatten(2)
        return (torch.where(flat > 0, low, high) * flat).sum(2) - self._slack(flat)

    def _slack(self, flat: Float[Tensor, "n r d"]) -> Float[Tensor, "n r"]:
        """For the rounding of coefficients and of their products with an image."""
        return 4 * SPARE * torch.einsum("nrd,nd->nr", flat.abs(), self.box.high.flatten(1))

    def take(self, rows: slice) -> Region:
        """The regions of some images."""
        return Region(self.box.take(rows))


@dataclass(frozen=True)
class Ball(Region):
    """Allowed images around each original, for ℓ2: ball and box.

    Attributes:
        originals: centres of the balls, in float64.
        radius: of the balls.
    """

    originals: Float[Tensor, "n *shape"]
    radius: float

    def minimum(self, rows: Float[Tensor, "n r *shape"]) -> Float[Tensor, "n r"]:
        """A lower bound on ⟨row, x⟩ over ball and box, by Lagrange duality.

        min ⟨a, δ⟩ over ‖δ‖ ≤ ε and l ≤ δ ≤ h is at least Σ_i min_{l ≤ δ ≤ h} (a_i δ + λδ²/2) − λε²/2 for every λ ≥ 0,
        with the inner minimum at δ = clip(−a_i / λ). The best λ spends all of ε; it is approached as in
        :func:`isthmus.attacks.balls.onto_l2`, and the largest bound on the way counts.
        """
        flat, centre = rows.flatten(2), self.originals.flatten(1)[:, None]
        low, high = (edge.flatten(1)[:, None] - centre for edge in self.box)
        base = (flat * centre).sum(2) - self._slack(flat)
        found = super().minimum(rows)
        squares = flat.square().sum(2)
        scale = (squares.sqrt() / self.radius).clamp(min=1e-30)  # λ of a ball without box
        for _ in range(_STEPS):
            wanted = -flat / scale[..., None]
            moved = torch.minimum(torch.maximum(wanted, low), high)
            gains, sizes = flat * moved, moved.square()
            penalty = 0.5 * scale * (sizes.sum(2) - self.radius**2)
            slack = SPARE * (gains.abs().sum(2) + scale * (sizes.sum(2) + self.radius**2))
            found = torch.maximum(found, base + gains.sum(2) + penalty - slack)
            clipped = moved != wanted
            room = self.radius**2 - torch.where(clipped, sizes, 0).sum(2)
            free = torch.where(clipped, 0, flat.square()).sum(2)
            next_scale = (free / room.clamp(min=1e-30)).sqrt()
            scale = torch.where((room > 0) & (next_scale > 1e-30), torch.minimum(scale, next_scale), scale / 2)
        return found

    def take(self, rows: slice) -> Ball:
        """The regions of some images."""
        return Ball(self.box.take(rows), self.originals[rows], self.radius)


def region(threat: Threat, images: Float[Tensor, "n c h w"]) -> Region:
    """The images that a threat allows around these originals.

    Raises:
        ConfigError: there are no bounds for this norm.
    """
    if not isinstance(threat, Linf | L2):
        raise ConfigError(f"Certificates are for linf and l2; got {threat}.")
    originals = images.double()
    reach = threat.eps + ULP if isinstance(threat, Linf) else threat.eps + ULP * originals[0].numel() ** 0.5
    reach = reach * _OUTWARD + _EDGE
    box = Box((originals - reach).clamp(0, 1), (originals + reach).clamp(0, 1))
    return Region(box) if isinstance(threat, Linf) else Ball(box, originals, reach)
