"""Predictions under adversarial or white noise, at falling signal-to-noise ratios.

After "A Rate-Distortion Theory of Adversarial Examples" (submitted to ICLR 2019, figure 5): no ball and no box, so that
images leave [0, 1]. The ratio of image x and noise δ is 20·log10(1 + ‖x‖₂/‖δ‖₂) dB: at 60 dB the noise is a thousandth
of the image, at 6.02 dB as large as the image, and at 0 dB there is only noise.

The paper takes steps of one size and computes the ratio. Here a step ends at the next ratio, for each image by its own
norm, so that all kinds of noise have the same ratios; one step along the gradient leads from one ratio to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from isthmus.attacks import losses
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.unbounded import DIRECTIONS, climb
from isthmus.core.errors import ConfigError, unknown
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.randomness import fold, normal

NOISES = ("l2", "linf", "white")
"""Steps along the gradient, steps along its sign, and white Gaussian noise."""

NO_ANSWER = -1
"""In place of a class if logits are NaN or infinite."""

_AT_A_TIME = 2**22  # numbers of noise


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Predictions at each ratio; the first row is the clean images.

    Attributes:
        predicted: class of each image at each ratio, :data:`NO_ANSWER` if its logits are not finite.
        size: ‖δ‖₂, in units of images in [0, 1]; 0 if an image has no gradient (or no signal) and was not moved, NaN if
            its gradient was NaN.
        forward_passes, backward_passes: in example-passes.
    """

    predicted: Int64[Tensor, "ratios n"]
    size: Float64[Tensor, "ratios n"]
    forward_passes: int
    backward_passes: int


def noise_norm(image: Float[Tensor, "*n"], snr: float) -> Float64[Tensor, "*n"]:
    """The norm of the noise at which an image of this norm has a ratio of ``snr`` dB.

    The inverse of :func:`isthmus.information.channel.decibels`, on the image's device.
    """
    return image.double() / (10 ** (snr / 20) - 1)


@dataclass(frozen=True)
class NoiseSweep:
    """One kind of noise at falling signal-to-noise ratios.

    Attributes:
        noise: one of :data:`NOISES`. White noise is drawn anew at every ratio and scaled to it.
        ratios: in dB, descending, all above 0.
        loss: what steps along the gradient ascend. ``log_odds`` has the direction of the paper's cross-entropy, which
            in float32 rounds to zero if a classifier is very sure.
        origin: the value of a pixel without signal, 0 for black: x in the ratio is the image less this. For images that
            were scaled and shifted into [0, 1], give the value that 0 became, so that ratios are those before.
        batch_size: examples at a time; affects only time and memory.

    Raises:
        ConfigError: an unknown noise or loss (with a suggestion), ratios that do not descend to above 0 dB, or a batch
            size that is not a positive whole number.
    """

    noise: str
    ratios: Sequence[float]
    loss: str = "log_odds"
    origin: float = 0.0
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise ConfigError(unknown("noise", self.noise, NOISES))
        losses.check(self.loss)
        inputs.check_whole(self.batch_size, "batch_size")
        if not self.ratios or any(not a > b for a, b in pairwise([math.inf, *self.ratios, 0.0])):
            raise ConfigError(
                f"Ratios of signal to noise, in dB, descend and are above 0, such as 40, 20, 10; got "
                f"{list(self.ratios)}."
            )

    def run(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        *,
        seed: int = 0,
        indices: Int[Tensor, " n"] | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> SweepResult:
        """Classify images under this noise at every ratio.

        Costs a forward pass an example and ratio, and one for the clean image; along a gradient also a backward pass a
        ratio. The model is left as it was.

        Args:
            model: from images to logits, also for images outside [0, 1].
            images: in [0, 1].
            labels: true classes.
            seed: of the noise, and of a random model's own, which is fresh at every ratio.
            indices: positions in the data set, so that an image gets the same noise in any selection; 0..N−1 by
                default.
            progress: called with (done, total).

        Raises:
            ModelError: the model fails, has no gradient if one is needed, or does not return N×K logits.
            DataError: images or labels of a wrong type, shape or range.
        """
        inputs.check_model(model)
        batch, ratios = inputs.examples(images, labels, seed=seed, indices=indices), len(self.ratios)
        device = device_of(model, batch.images)
        found = list[tuple[Tensor, Tensor]]()
        with preserve_state(model, device, seed):
            counted_model = CountedModel(model)
            for done, rows in enumerate(torch.split(torch.arange(len(batch)), self.batch_size)):
                part = batch.take(rows).to(device)
                if not done:
                    probe = part.take(torch.arange(1))
                    inputs.check_classes(batch, counted_model.logits(probe.images, probe.keys).shape[1])
                predicted, sizes = [], []
                for position, (x, answer) in enumerate(self._path(counted_model, part)):
                    predicted.append(torch.where(answer.finite, answer.logits.argmax(1), NO_ANSWER).cpu())
                    sizes.append((x - part.images).flatten(1).double().norm(dim=1).cpu())
                    progress(done * self.batch_size * ratios + position * len(rows), len(batch) * ratios)
                found.append((torch.stack(predicted), torch.stack(sizes)))
            progress(1, 1)
        classes, norms = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return SweepResult(classes, norms, counted_model.forward_passes, counted_model.backward_passes)

    def _path(self, counted_model: CountedModel, batch: Batch) -> Iterable[tuple[Tensor, Answer]]:
        """The images, then the images with noise at each ratio, with the model's answers."""
        norms = (batch.images.double() - self.origin).flatten(1).norm(dim=1)
        radii = [noise_norm(norms, ratio) for ratio in self.ratios]
        if self.noise == "white":
            white = enumerate(_white(batch, radii))
            return ((x, counted_model.query(x, batch.keys, None, draw=draw)) for draw, x in white)
        direction = DIRECTIONS[self.noise]

        def move(position: int, x: Tensor, gradient: Tensor) -> Tensor:
            return _onto_sphere(x, batch.images, direction.step(torch.zeros_like(x), gradient, 1.0), radii[position])

        return climb(counted_model, batch, self.loss, move, len(radii))


def _white(batch: Batch, radii: Sequence[Tensor]) -> Iterator[Tensor]:
    """The images, then the images with white noise of each size; independent of the batch."""
    yield batch.images
    shape = tuple(batch.images.shape[1:])
    at_a_time = max(1, _AT_A_TIME // math.prod(shape))
    for position, radius in enumerate(radii):
        keys = fold(batch.keys, "noise_sweep/white", position)
        drawn = torch.cat([normal(part, shape) for part in torch.split(keys, at_a_time)])
        yield batch.images + drawn * per_image((radius / drawn.flatten(1).double().norm(dim=1)).float(), drawn)


def _onto_sphere(x: Tensor, centre: Tensor, direction: Tensor, radius: Float64[Tensor, " n"]) -> Tensor:
    """Move along a direction onto a sphere around the centre: ‖x + α·u − centre‖₂ = r with α ≥ 0.

    A direction of zeros moves nothing.
    """
    delta, u = (x - centre).flatten(1).double(), direction.flatten(1).double()
    a, b = u.square().sum(1), (delta * u).sum(1)
    room = (radius.square() - delta.square().sum(1)).clamp_min(0)  # 0 where rounding left the image beyond
    root = (b.square() + a * room).sqrt()
    # the positive root of a·α² + 2b·α = room, each time without a difference of nearly equal numbers
    alpha = torch.where(b > 0, room / (b + root), (root - b) / a)
    return x + direction * per_image(torch.where(a == 0, 0.0, alpha).to(x.dtype), x)
