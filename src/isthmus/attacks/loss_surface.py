"""The cross-entropy on a plane through an image, CE(x + u·d₁ + v·d₂) (Qin et al. 2019; Korshunova et al. 2021).

With directions of ±1 in every pixel the plane shows the ℓ∞ ball exactly: if the signs of d₁ and d₂ agree in some pixel
and differ in another, ‖u·d₁ + v·d₂‖_∞ = |u| + |v|, so the ball of radius ε is the diamond |u| + |v| ≤ ε. If the surface
is flat in most of the diamond and high somewhere, gradients cannot find the high loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks.engine.batch import per_image
from isthmus.attacks.losses import LOSSES, check, log_odds
from isthmus.attacks.threats import Threat
from isthmus.core.errors import DataError
from isthmus.core.format import number, percent, size
from isthmus.core.notebook import Summarized
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import fold, uniform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLAT = 0.01
"""Largest change of the loss, in nats, that counts as flat."""

_BATCH = 512


@dataclass(frozen=True, repr=False)
class Surface(Summarized):
    """The cross-entropy around N images, on a grid of their planes.

    Attributes:
        eps: radius of the ball that the diamond is.
        offsets: u, and likewise v, ascending; 0, −ε and ε are among them.
        loss: in nats; the first grid axis is u.
        wrong: whether the model errs there.
    """

    eps: float
    offsets: Float[Tensor, " points"]
    loss: Float[Tensor, "n points points"]
    wrong: Bool[Tensor, "n points points"]

    @property
    def inside(self) -> Bool[Tensor, "points points"]:
        """The diamond |u| + |v| ≤ ε."""
        size = self.offsets.abs()
        return size[:, None] + size[None] <= self.eps * (1 + 1e-9)

    @property
    def centre(self) -> Float[Tensor, " n"]:
        """The loss at the image itself."""
        middle = len(self.offsets) // 2
        return self.loss[:, middle, middle]

    @property
    def highest(self) -> Float[Tensor, " n"]:
        """The highest loss on the grid inside the diamond."""
        return self.loss[:, self.inside].amax(1)

    @property
    def broken(self) -> Bool[Tensor, " n"]:
        """Whether the model errs anywhere on the grid inside the diamond."""
        return self.wrong[:, self.inside].any(1)

    def flat(self, tolerance: float = FLAT) -> Float[Tensor, " n"]:
        """Share of the diamond where the loss is within ``tolerance`` nats of the image's own, in [0, 1]."""
        change = (self.loss - per_image(self.centre, self.loss)).abs()
        return (change[:, self.inside] <= tolerance).double().mean(1)

    def plot(self, image: int = 0, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot the loss around one image as a heat map, with the diamond that the ball is.

        Args:
            image: position of the image.
            ax: axes to draw into; None for a new figure.

        Returns:
            The figure and the axes of the map; the colour bar has axes of its own.

        Raises:
            DataError: there is no such image.
        """
        from isthmus.core import plots

        if not 0 <= image < len(self.loss):
            raise DataError(f"The surface has images 0 to {len(self.loss) - 1}; got {image}.")
        found = "an adversarial image" if self.broken[image] else "no adversarial image"
        title = f"Image {image}: {found} within ε = {self.eps:.4g}"
        return plots.draw_surface(self.loss[image].numpy(), self.offsets.numpy(), self.eps, title, ax)

    def _summary(self) -> dict[str, str]:
        highest, centre = (number(float(each.mean())) for each in (self.highest, self.centre))
        return {
            "Surface": f"ℓ∞ {self.eps:.4g}, {size(len(self.loss))}, {len(self.offsets)}×{len(self.offsets)} points",
            "loss": f"{centre} nats at the image, at most {highest} in the ball, means over images",
            "examples": f"{int(self.broken.sum())} broken; {percent(float(self.flat().mean()))} of the ball is flat",
        }


@dataclass(frozen=True)
class SurfaceGrid:
    """A grid on the plane that two directions span.

    Attributes:
        eps: radius of the ℓ∞ ball, in units of images in [0, 1].
        steps: grid steps from the image to the diamond's corner.
        beyond: how far the grid reaches outside the diamond, as a fraction of ε.
    """

    eps: float
    steps: int = 16
    beyond: float = 0.5

    def measure(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        first: Float[Tensor, "n c h w"],
        second: Float[Tensor, "n c h w"],
        keys: Int[Tensor, " n"] | None = None,
    ) -> Surface:
        """Compute the cross-entropy at every point of the grid.

        The cross-entropy is softplus(log-odds) in float64 of the model's own logits, so that it does not round to 0 if
        the model is sure. Every point is clipped to the box [0, 1], as in an attack. The model is left as it was.

        Args:
            model: from images in [0, 1] to logits.
            first, second: d₁ and d₂, usually ±1 in every pixel; see :func:`random_signs` and :class:`WorstSigns`.
            keys: of the noise of a model with ``takes_keys``, one for each image and the same at all its points;
                0..N−1 if None. Other models ignore them.
        """
        keys = torch.arange(len(images)) if keys is None else keys
        reach = math.ceil(self.steps * (1 + self.beyond))
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) * (self.eps / self.steps)
        device = device_of(model, images)
        u, v = (axis.flatten().to(device) for axis in torch.meshgrid(offsets, offsets, indexing="ij"))
        losses, wrongs = [], []
        with preserve_state(model, device, seed=0), torch.no_grad():
            for row in range(len(images)):
                x, d1, d2 = (part[row : row + 1].to(device) for part in (images, first, second))
                found = []
                for some in torch.split(torch.arange(len(u)), _BATCH):
                    points = (x + per_image(u[some].float(), x) * d1 + per_image(v[some].float(), x) * d2).clamp(0, 1)
                    found.append(_logits(model, points, keys[row].to(device).expand(len(some))).double().cpu())
                logits = torch.cat(found)
                label = labels[row].cpu().expand(len(logits))
                losses.append(_exact_ce(logits, label))
                wrongs.append(logits.argmax(1) != label)
        shape = (len(images), len(offsets), len(offsets))
        return Surface(self.eps, offsets, torch.stack(losses).view(shape), torch.stack(wrongs).view(shape))


def random_signs(keys: Int[Tensor, " n"], shape: tuple[int, ...], second: bool = False) -> Float[Tensor, "n c h w"]:
    """A direction of ±1 in every pixel for each key; another one with ``second``."""
    drawn = uniform(fold(keys, "loss_surface/second" if second else "loss_surface/first"), shape)
    return torch.where(drawn < 0.5, -1.0, 1.0)


@dataclass(frozen=True)
class WorstSigns:
    """PGD for the signs of the worst perturbation: that of highest cross-entropy over all iterates.

    Unlike an attack it does not stop at the first success.

    Attributes:
        threat: the ℓ∞ ball.
        steps, step_size, restarts: of PGD; the step is 2.5·ε/steps if None.
        loss: what to ascend, from :mod:`isthmus.attacks.losses`.

    Raises:
        ConfigError: an unknown loss.
    """

    threat: Threat
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    loss: str = "ce"

    def __post_init__(self) -> None:
        check(self.loss)

    def find(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        keys: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """The signs; 0 where the perturbation is 0, at the wall of the box.

        Args:
            keys: of the examples; random starts derive from them.
        """
        device, threat = device_of(model, images), self.threat
        images, labels, keys = images.to(device), labels.to(device), keys.to(device)
        size = threat.eps * 2.5 / self.steps if self.step_size is None else self.step_size
        worst, height = torch.zeros_like(images), images.new_full((len(images),), -torch.inf, dtype=torch.float64)
        with preserve_state(model, device, seed=0):
            for restart in range(self.restarts):
                x = threat.random_start(images, fold(keys, "loss_surface/start", restart))
                for step in range(self.steps + 1):
                    x = x.detach().requires_grad_()
                    logits = _logits(model, x, fold(keys, "loss_surface/pass", restart, step))
                    reached = _exact_ce(logits.detach().double(), labels)
                    higher = reached > height
                    height = torch.where(higher, reached, height)
                    worst = torch.where(per_image(higher, x), x.detach() - images, worst)
                    if step < self.steps:
                        (gradient,) = torch.autograd.grad(LOSSES[self.loss](logits, labels).sum(), x)
                        x = threat.project(threat.step(x.detach(), gradient, size), images)
        return worst.sign().cpu()


def _exact_ce(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.softplus(log_odds(logits, labels), threshold=700.0)


def _logits(model: nn.Module, images: Tensor, keys: Tensor) -> Tensor:
    logits: Tensor = model(images.clone(), **({"keys": keys} if getattr(model, "takes_keys", False) else {}))
    return logits.float()
