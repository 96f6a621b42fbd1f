"""Noise that grows along a ladder of signal-to-noise ratios, adversarial or white, and what a classifier answers.

Fault tolerance as "A Rate-Distortion Theory of Adversarial Examples" has it (submitted to ICLR 2019, figure 5): no
ball and no box, so that images leave [0, 1]. The ratio of image x and noise δ is 20·log10(1 + ‖x‖₂/‖δ‖₂) dB: 60 dB is a
thousandth of the image, 6.02 dB as much noise as image, 0 dB nothing but noise.

The paper takes steps of one size and reads the ratio off. Here a step is as long as it takes to the next rung, for each
image by its own norm: all kinds of noise are met at the same ratios, and one pass along the gradient is one rung.
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
"""In place of a class where logits are NaN or infinite."""

_AT_A_TIME = 2**22  # numbers of noise


@dataclass(frozen=True, eq=False)
class Descent:
    """What a classifier answers along the ladder; rung 0 is the image itself.

    Attributes:
        predicted: class of each image at each rung, :data:`NO_ANSWER` where its logits are not finite.
        size: ‖δ‖₂, in units of images in [0, 1]; 0 where an image has no gradient (or no signal) and so was not moved,
            NaN where its gradient was NaN.
        forward_passes, backward_passes: in example-passes.
    """

    predicted: Int64[Tensor, "rungs n"]
    size: Float64[Tensor, "rungs n"]
    forward_passes: int
    backward_passes: int


def noise_norm(image: Float[Tensor, "*n"], snr: float) -> Float64[Tensor, "*n"]:
    """The norm of the noise that brings an image of this norm to so many dB: the inverse of
    :func:`isthmus.information.channel.decibels`, on the image's device."""
    return image.double() / (10 ** (snr / 20) - 1)


def descend(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    noise: str,
    ladder: Sequence[float],
    *,
    loss: str = "log_odds",
    origin: float = 0.0,
    seed: int = 0,
    indices: Int[Tensor, " n"] | None = None,
    batch_size: int = 256,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Descent:
    """Follow one kind of noise down the ladder.

    Costs a forward pass a rung and example, and one for the clean image; along a gradient also a backward pass a rung.
    The model is afterwards as it was.

    Args:
        model: from images to logits, which it must give outside [0, 1] too.
        images: in [0, 1].
        labels: true classes.
        noise: one of :data:`NOISES`. White noise is drawn anew for every rung and scaled to the very ratio.
        ladder: ratios in dB, descending, all above 0.
        loss: what the adversarial kinds ascend. ``log_odds`` has the direction of the paper's cross-entropy, which in
            float32 would round to zero where a classifier is very sure.
        origin: the value of a pixel without signal, 0 for black: x in the ratio is an image less it. For images that
            were scaled and shifted into [0, 1] it is what 0 became, so that the ratios are those of the images before.
        seed: of the noise, and of a random model's own, which is fresh at every rung.
        indices: positions in the data set, so that an image gets the same noise in any choice of images; 0..N−1 by
            default.
        batch_size: examples at a time; changes nothing but time and memory.
        progress: called with (done, total).

    Raises:
        ModelError: the model fails, has no gradient where one is needed, or does not return N×K logits.
        DataError: images or labels of a wrong type, shape or range.
        ConfigError: an unknown noise or loss (with a suggestion), or a ladder that does not descend to above 0 dB.
    """
    inputs.check_model(model)
    if noise not in NOISES:
        raise ConfigError(unknown("noise", noise, NOISES))
    losses.check(loss)
    check_ladder(ladder)
    size = inputs.check_whole(batch_size, "batch_size")
    batch = inputs.examples(images, labels, seed=seed, indices=indices)
    device = device_of(model, batch.images)
    found = list[tuple[Tensor, Tensor]]()
    with preserve_state(model, device, seed):
        counted_model = CountedModel(model)
        for done, rows in enumerate(torch.split(torch.arange(len(batch)), size)):
            part = batch.take(rows).to(device)
            if not done:
                probe = part.take(torch.arange(1))
                inputs.check_classes(part, counted_model.logits(probe.images, probe.keys).shape[1])
            report = _counted(progress, done * size * len(ladder), len(rows), len(batch) * len(ladder))
            norms = (part.images.double() - origin).flatten(1).norm(dim=1)
            radii = [noise_norm(norms, snr) for snr in ladder]
            found.append(_down(counted_model, part, noise, radii, loss, report))
        progress(1, 1)
    predicted, sizes = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return Descent(predicted, sizes, counted_model.forward_passes, counted_model.backward_passes)


def check_ladder(ladder: Sequence[float]) -> None:
    """Raise a ConfigError where ratios in dB do not descend, or not all of them are above 0 and finite."""
    rungs = [math.inf, *ladder, 0.0]
    if not ladder or any(not a > b for a, b in pairwise(rungs)):
        raise ConfigError(
            f"A ladder of noise is a row of ratios in dB that descends and stays above 0, such as 40, 20, 10; got "
            f"{list(ladder)}."
        )


def _counted(progress: Callable[[int, int], None], before: int, rows: int, total: int) -> Callable[[int], None]:
    return lambda rung: progress(before + rung * rows, total)


def _down(
    counted_model: CountedModel,
    batch: Batch,
    noise: str,
    radii: Sequence[Tensor],
    loss: str,
    report: Callable[[int], None],
) -> tuple[Int64[Tensor, "rungs n"], Float64[Tensor, "rungs n"]]:
    """Predictions and sizes of a batch, rung by rung, whose noise has these norms."""
    step: Iterable[tuple[Tensor, Answer]]
    if noise == "white":
        step = ((x, counted_model.query(x, batch.keys, None, draw=rung)) for rung, x in enumerate(_white(batch, radii)))
    else:
        direction = DIRECTIONS[noise]

        def move(rung: int, x: Tensor, gradient: Tensor) -> Tensor:
            return _onto_sphere(x, batch.images, direction.step(torch.zeros_like(x), gradient, 1.0), radii[rung])

        step = climb(counted_model, batch, loss, move, len(radii))
    predicted, sizes = [], []
    for rung, (x, answer) in enumerate(step):
        predicted.append(torch.where(answer.finite, answer.logits.argmax(1), NO_ANSWER).cpu())
        sizes.append((x - batch.images).flatten(1).double().norm(dim=1).cpu())
        report(rung)
    return torch.stack(predicted), torch.stack(sizes)


def _white(batch: Batch, radii: Sequence[Tensor]) -> Iterator[Tensor]:
    """The images, then the images with white noise of each size, whatever the row's batch."""
    yield batch.images
    shape = tuple(batch.images.shape[1:])
    at_a_time = max(1, _AT_A_TIME // math.prod(shape))
    for rung, radius in enumerate(radii):
        keys = fold(batch.keys, "noise_sweep/white", rung)
        drawn = torch.cat([normal(part, shape) for part in torch.split(keys, at_a_time)])
        yield batch.images + drawn * per_image((radius / drawn.flatten(1).double().norm(dim=1)).float(), drawn)


def _onto_sphere(x: Tensor, centre: Tensor, direction: Tensor, radius: Float64[Tensor, " n"]) -> Tensor:
    """From inside a sphere around the centre along a direction onto the sphere: ‖x + α·u − centre‖₂ = r with α ≥ 0.

    A direction of zeros moves nothing.
    """
    delta, u = (x - centre).flatten(1).double(), direction.flatten(1).double()
    a, b = u.square().sum(1), (delta * u).sum(1)
    room = (radius.square() - delta.square().sum(1)).clamp_min(0)  # 0 where rounding left the image beyond
    root = (b.square() + a * room).sqrt()
    # the positive root of a·α² + 2b·α = room, each time without a difference of nearly equal numbers
    alpha = torch.where(b > 0, room / (b + root), (root - b) / a)
    return x + direction * per_image(torch.where(a == 0, 0.0, alpha).to(x.dtype), x)
