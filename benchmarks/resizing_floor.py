"""How robust is the average over random resizings itself? An attack on it that no noise disturbs.

    python -m benchmarks.resizing_floor [--n 500]

The panel's random resizing shrinks an image to one of eight sizes, at a random place: 204 ways in all. Their exact
average is a deterministic classifier. It is attacked here through the margins of 48 ways at a time, then of all ways,
and then through its own probabilities; what stands is read from the exact average. Needs a mirror of the hub
(ISTHMUS_DATA).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attack_models import build, test_images
from benchmarks.panel import BASE
from isthmus import metrics
from isthmus.attacks import losses

EPS, SIDE, SMALLEST = 0.1, 28, 21
TOGETHER = 25
WAYS = [
    (size, left, top)
    for size in range(SMALLEST, SIDE + 1)
    for left in range(SIDE - size + 1)
    for top in range(SIDE - size + 1)
]
CHANCES = torch.tensor([1 / (SIDE - size + 1) ** 2 for size, _, _ in WAYS]) / (SIDE - SMALLEST + 1)
"""Of each way: the size is drawn first, then the place."""


def logits(model: nn.Module, images: Tensor, ways: Tensor) -> Tensor:
    """Ways × images × classes."""
    shrunk = {
        size: functional.interpolate(images, size=(size, size), mode="bilinear")
        for size in {WAYS[way][0] for way in ways.tolist()}
    }
    views = [
        functional.pad(shrunk[size], (left, SIDE - size - left, top, SIDE - size - top))
        for size, left, top in (WAYS[way] for way in ways.tolist())
    ]
    return model(torch.cat(views)).view(len(views), len(images), -1)


def averaged(model: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities averaged over every size and place."""
    every = torch.arange(len(WAYS))
    return (CHANCES[:, None, None] * logits(model, images, every).softmax(2)).sum(0)


def through_margins(model: nn.Module, images: Tensor, labels: Tensor, ways: Tensor, chances: Tensor) -> Tensor:
    """The mean of σ(margin / 3): a draw that is won or lost by far counts for less, but not for nothing."""
    answers = logits(model, images, ways)
    margins = losses.margin_loss(answers.flatten(0, 1), labels.repeat(len(ways))).view(len(ways), -1)
    return (chances[:, None] * (margins / 3).sigmoid()).sum(0)


def through_probabilities(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """ln of the largest other mean probability less that of the label's."""
    return losses.margin_loss(averaged(model, images).log(), labels)


def ascended(images: Tensor, start: Tensor, steps: int, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Sign steps with momentum that fall linearly from ε."""
    low, high, momentum = (images - EPS).clamp(0, 1), (images + EPS).clamp(0, 1), torch.zeros_like(images)
    x = start
    for step in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(x).sum(), x)
        momentum = 0.75 * momentum + gradient / gradient.abs().flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
        x = (x.detach() + EPS * (1 - step / steps) * momentum.sign()).clamp(low, high)
    return x.detach()


def attacked(stage: int, model: nn.Module, images: Tensor, start: Tensor, labels: Tensor) -> Tensor:
    """One stage of the attack; those after the first start from what came closest before."""
    if stage == 0:
        start = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    if stage < 2:
        some = torch.full((48,), 1 / 48)
        draw = lambda: torch.multinomial(CHANCES, 48, replacement=True)  # noqa: E731
        return ascended(images, start, 60, lambda x: through_margins(model, x, labels, draw(), some))
    if stage == 2:
        every = torch.arange(len(WAYS))
        return ascended(images, start, 60, lambda x: through_margins(model, x, labels, every, CHANCES))
    return ascended(images, start, 100, lambda x: through_probabilities(model, x, labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=500, help="images")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = build(BASE).requires_grad_(False)
    images, labels = test_images(BASE, given.n)
    closest, lead = images.clone(), torch.full((given.n,), torch.inf)
    for stage in range(4):
        for rows in track((lead > 0).nonzero().squeeze(1).split(TOGETHER), description=f"stage {stage + 1}"):
            found = attacked(stage, model, images[rows], closest[rows], labels[rows])
            now = -losses.margin_loss(averaged(model, found), labels[rows])
            better = now < lead[rows]
            closest[rows[better]], lead[rows[better]] = found[better], now[better]
        left = metrics.accuracy((lead > 0).numpy())
        interval = left.interval
        assert interval is not None
        print(f"after stage {stage + 1}: {left.value:.1%} ({interval.low:.1%} to {interval.high:.1%})", flush=True)
    standing = (lead > 0).nonzero().squeeze(1)
    print(f"mean probability by which the label leads there: {[round(x, 3) for x in lead[standing].tolist()]}")


if __name__ == "__main__":
    main()
