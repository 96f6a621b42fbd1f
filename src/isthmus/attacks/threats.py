"""Threat models: the perturbations an attacker may add, and the geometry that attacks need of them.

Images lie in the box [0, 1] and ε is in the same units (8/255, not 8). Every method works row by row: row i
of the result depends on row i of the arguments alone.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.attacks import balls
from isthmus.attacks.engine.batch import per_image
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.randomness import fold, normal, uniform

ULP = 2.0**-23
"""How far one pixel may be off after float32 has rounded originals + perturbation."""


SPARSITY = 0.01
"""Share of the pixels that one ℓ1 step moves; at least one (Tramèr & Boneh 2019, SLIDE with q = 99%)."""


@dataclass(frozen=True)
class Threat(ABC):
    """Perturbations δ with ‖δ‖ ≤ ε that keep the image in the box. A value: equal threats hash alike.

    Attributes:
        eps: the radius ε, in units of images in [0, 1].

    Raises:
        ConfigError: ε is not a positive finite number.
    """

    eps: float
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.eps, bool) or not isinstance(self.eps, int | float):
            raise ConfigError(f"ε of {self.name} must be a number such as 8 / 255, not text; got {self.eps!r}.")
        if not math.isfinite(self.eps) or self.eps <= 0:
            raise ConfigError(
                f"ε of {self.name} must be positive and finite; got {self.eps}. Without a "
                "perturbation, clean accuracy is the answer."
            )
        object.__setattr__(self, "eps", float(self.eps))

    def __str__(self) -> str:
        """The form that :func:`parse` reads back to an equal threat: ``linf:8/255``."""
        short, levels = f"{self.eps:g}", round(self.eps * 255)
        if float(short) == self.eps:
            return f"{self.name}:{short}"
        return f"{self.name}:{levels}/255" if levels / 255 == self.eps else f"{self.name}:{self.eps!r}"

    def with_eps(self, eps: float) -> Self:
        """The same norm with another radius."""
        return dataclasses.replace(self, eps=eps)

    def project(
        self, images: Float[Tensor, "n c h w"], originals: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The nearest images (in ℓ2) that are within ε of the originals and in the box at once."""
        return (originals + self._nearest(images - originals, -originals, 1 - originals)).clamp(0, 1)

    def random_start(self, originals: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """Originals plus a perturbation drawn uniformly from the ball, clipped to the box."""
        return (originals + self.sample(fold(keys, "threats/start"), originals.shape[1:])).clamp(0, 1)

    def contains(self, images: Float[Tensor, "n c h w"], originals: Float[Tensor, "n c h w"]) -> Bool[Tensor, " n"]:
        """Whether images are in the box, exactly, and in the ball, up to float32's rounding.

        The norm is computed in float64; the slack is what a rounding of :data:`ULP` in every pixel could add.
        """
        flat = images.flatten(1)
        in_box = ((flat >= 0) & (flat <= 1)).all(1)
        slack = self._norm(torch.full_like(flat[:1], ULP).double())
        return in_box & (self.norm(images.double() - originals.double()) <= self.eps + slack)

    def norm(self, perturbation: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Size of each perturbation in this threat's norm."""
        return self._norm(perturbation.flatten(1))

    @abstractmethod
    def sample(self, keys: Int[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
        """One perturbation of the given shape per key, uniform in the ball, ignoring the box."""

    def step(
        self, images: Float[Tensor, "n c h w"], gradient: Float[Tensor, "n c h w"], size: float | Float[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """Move images by ``size`` (one for all or one for each), in this threat's norm, along the steepest ascent.

        Does not project. Only the gradient's direction matters, not its scale. A gradient of zeros moves
        nothing; a pixel whose gradient is NaN becomes NaN, so that the verifier sees it.
        """
        direction = self._steepest(images, gradient)
        if not gradient.sum().isfinite():  # sign() and the like would turn NaN into 0, silently
            direction = torch.where(gradient.isnan(), gradient, direction)
        return images + (per_image(size, images) if isinstance(size, Tensor) else size) * direction

    @abstractmethod
    def _steepest(self, images: Tensor, gradient: Tensor) -> Tensor: ...

    @abstractmethod
    def _nearest(self, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor: ...

    @abstractmethod
    def _norm(self, flat: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Linf(Threat):
    """‖δ‖_∞ ≤ ε: every pixel may move by ε. An ε above 1 is taken for a slip of units."""

    name: ClassVar[str] = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise ConfigError(
                f"ε of linf is in units of images in [0, 1]; got {self.eps:g}. Did you mean {self.eps:g}/255?"
            )

    def sample(self, keys: Int[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
        """Each pixel uniform in [−ε, ε]."""
        return (2 * uniform(keys, tuple(shape)) - 1) * self.eps

    def _steepest(self, images: Tensor, gradient: Tensor) -> Tensor:
        """sign g (Goodfellow et al. 2015)."""
        return gradient.sign()

    def _nearest(self, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return balls.onto_linf(wanted, self.eps, low, high)

    def _norm(self, flat: Tensor) -> Tensor:
        return flat.abs().amax(1)


@dataclass(frozen=True)
class L2(Threat):
    """‖δ‖₂ ≤ ε over all channels and pixels."""

    name: ClassVar[str] = "l2"

    def sample(self, keys: Int[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
        """A direction from the normal distribution and a radius ε·u^(1/d), u uniform."""
        direction = normal(fold(keys, "l2/direction"), (math.prod(shape),))
        radius = self.eps * uniform(fold(keys, "l2/radius"), (1,)) ** (1 / direction.shape[1])
        return (radius * _unit(direction)).view(-1, *shape)

    def _steepest(self, images: Tensor, gradient: Tensor) -> Tensor:
        """g/‖g‖₂ (Madry et al. 2018)."""
        return _unit(gradient.flatten(1)).view_as(gradient)

    def _nearest(self, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return balls.onto_l2(wanted, self.eps, low, high)

    def _norm(self, flat: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return lengths


@dataclass(frozen=True)
class L1(Threat):
    """‖δ‖₁ ≤ ε over all channels and pixels: few pixels may change a lot."""

    name: ClassVar[str] = "l1"

    def sample(self, keys: Int[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
        """Exponentials over their sum and one more, with random signs (Barthe et al. 2005)."""
        count = math.prod(shape)
        exponentials = -torch.log1p(-uniform(fold(keys, "l1/sizes"), (count + 1,)))
        signs = torch.where(uniform(fold(keys, "l1/signs"), (count,)) < 0.5, -1.0, 1.0)
        sizes = exponentials[:, :count] / exponentials.sum(1, keepdim=True)
        return (self.eps * signs * sizes).view(-1, *shape)

    def _steepest(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Equal shares for the pixels of largest |g|, zero elsewhere (Tramèr & Boneh 2019).

        Pixels at the wall of the box that the gradient pushes against are passed over: the largest one would
        otherwise be chosen, and clipped back, for ever.
        """
        free = torch.where(gradient > 0, images < 1, images > 0)
        useful = (gradient * free).flatten(1)
        count = max(1, round(SPARSITY * useful.shape[1]))
        chosen = useful.abs().topk(count, dim=1).indices
        shares = useful.gather(1, chosen).sign() / count
        return torch.zeros_like(useful).scatter(1, chosen, shares).view_as(gradient)

    def linear_optimum(
        self, gradient: Float[Tensor, "n c h w"], originals: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The images in ball and box where ⟨gradient, image⟩ is largest: on a linear model, the best there are.

        A pixel whose gradient is NaN becomes NaN, so that it is seen.
        """
        moved = originals + balls.linear_optimum_l1(gradient, self.eps, -originals, 1 - originals)
        return torch.where(gradient.isnan(), gradient, moved.clamp(0, 1))

    def _nearest(self, wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return balls.onto_l1(wanted, self.eps, low, high)

    def _norm(self, flat: Tensor) -> Tensor:
        return flat.abs().sum(1)


def _unit(flat: Tensor) -> Tensor:
    """Rows over their ℓ2 norm; rows of zeros stay. Scaled first, lest squares of 1e-30 vanish."""
    scaled = flat / _or_one(flat.abs().amax(1, keepdim=True))
    unit: Tensor = scaled / _or_one(torch.linalg.vector_norm(scaled, dim=1, keepdim=True))
    return unit


def _or_one(sizes: Tensor) -> Tensor:
    return torch.where(sizes == 0, 1.0, sizes)


THREATS: dict[str, type[Threat]] = {kind.name: kind for kind in (Linf, L2, L1)}


def parse(text: str) -> Threat:
    """Read one threat: ``linf:8/255``, ``l2:0.5``, ``l1:12``.

    Raises:
        ConfigError: an unknown norm (with a suggestion), or an ε that is no positive number.
    """
    grid = parse_grid(text)
    if len(grid) > 1:
        raise ConfigError(f"One ε is expected here; {text!r} names {len(grid)}.")
    return grid[0]


def parse_grid(text: str) -> tuple[Threat, ...]:
    """Read a norm with several radii, ``linf:0.1,0.2`` or ``l2:1/2,1``; ascending, each once.

    Raises:
        ConfigError: an unknown norm (with a suggestion), or an ε that is no positive number.
    """
    name, colon, radii = text.partition(":")
    name = name.strip().lower()
    if not colon:
        raise ConfigError(f"A threat is written norm:ε, such as linf:8/255; got {text!r}.")
    if name not in THREATS:
        raise ConfigError(unknown("threat", name, THREATS))
    return tuple(THREATS[name](eps) for eps in sorted({_number(radius, text) for radius in radii.split(",")}))


def _number(written: str, text: str) -> float:
    over, slash, under = written.partition("/")
    try:
        return float(over) / float(under) if slash else float(over)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"ε must be a number or a fraction such as 8/255; got {written!r} in {text!r}.") from None
