"""How robust is the average over random resizings? A noise-free attack on the exact average.

    python -m benchmarks.resizing_floor [--n 500]

The panel's random resizing shrinks an image to one of eight sizes, at a random position: 204 outcomes in all. Their
exact average is a deterministic classifier. The attack uses the margins of 48 outcomes at a time, then of all outcomes,
and then the average probabilities; accuracy is that of the exact average. Needs a mirror of the hub (ISTHMUS_DATA).
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
BATCH_SIZE = 25
OUTCOMES = [
    (size, left, top)
    for size in range(SMALLEST, SIDE + 1)
    for left in range(SIDE - size + 1)
    for top in range(SIDE - size + 1)
]
PROBABILITIES = torch.tensor([1 / (SIDE - size + 1) ** 2 for size, _, _ in OUTCOMES]) / (SIDE - SMALLEST + 1)
"""Probability of each outcome: the size is drawn first, then the position."""


def logits(model: nn.Module, images: Tensor, outcomes: Tensor) -> Tensor:
    """Logits: outcomes × images × classes."""
    shrunk = {
        size: functional.interpolate(images, size=(size, size), mode="bilinear")
        for size in {OUTCOMES[outcome][0] for outcome in outcomes.tolist()}
    }
    views = [
        functional.pad(shrunk[size], (left, SIDE - size - left, top, SIDE - size - top))
        for size, left, top in (OUTCOMES[outcome] for outcome in outcomes.tolist())
    ]
    return model(torch.cat(views)).view(len(views), len(images), -1)


def averaged(model: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities averaged over all sizes and positions."""
    every = torch.arange(len(OUTCOMES))
    return (PROBABILITIES[:, None, None] * logits(model, images, every).softmax(2)).sum(0)


def through_margins(
    model: nn.Module, images: Tensor, labels: Tensor, outcomes: Tensor, probabilities: Tensor
) -> Tensor:
    """The mean of σ(margin / 3), in which draws with a large margin count less."""
    answers = logits(model, images, outcomes)
    margins = losses.margin_loss(answers.flatten(0, 1), labels.repeat(len(outcomes))).view(len(outcomes), -1)
    return (probabilities[:, None] * (margins / 3).sigmoid()).sum(0)


def through_probabilities(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """ln of the largest other average probability minus that of the label."""
    return losses.margin_loss(averaged(model, images).log(), labels)


def ascend(images: Tensor, start: Tensor, steps: int, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Ascend by sign steps with momentum, whose size falls linearly from ε."""
    low, high, momentum = (images - EPS).clamp(0, 1), (images + EPS).clamp(0, 1), torch.zeros_like(images)
    x = start
    for step in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(x).sum(), x)
        momentum = 0.75 * momentum + gradient / gradient.abs().flatten(1).sum(1).clamp(min=1e-30)[:, None, None, None]
        x = (x.detach() + EPS * (1 - step / steps) * momentum.sign()).clamp(low, high)
    return x.detach()


def attacked(stage: int, model: nn.Module, images: Tensor, start: Tensor, labels: Tensor) -> Tensor:
    """One stage of the attack; stages after the first start from the best images so far."""
    if stage == 0:
        start = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    if stage < 2:
        some = torch.full((48,), 1 / 48)
        draw = lambda: torch.multinomial(PROBABILITIES, 48, replacement=True)  # noqa: E731
        return ascend(images, start, 60, lambda x: through_margins(model, x, labels, draw(), some))
    if stage == 2:
        every = torch.arange(len(OUTCOMES))
        return ascend(images, start, 60, lambda x: through_margins(model, x, labels, every, PROBABILITIES))
    return ascend(images, start, 100, lambda x: through_probabilities(model, x, labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=500, help="images")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = build(BASE).requires_grad_(False)
    images, labels = test_images(BASE, given.n)
    closest, lead = images.clone(), torch.full((given.n,), torch.inf)
    for stage in range(4):
        for rows in track((lead > 0).nonzero().squeeze(1).split(BATCH_SIZE), description=f"stage {stage + 1}"):
            found = attacked(stage, model, images[rows], closest[rows], labels[rows])
            now = -losses.margin_loss(averaged(model, found), labels[rows])
            better = now < lead[rows]
            closest[rows[better]], lead[rows[better]] = found[better], now[better]
        left = metrics.accuracy((lead > 0).numpy())
        interval = left.interval
        assert interval is not None
        print(f"after stage {stage + 1}: {left.value:.1%} ({interval.low:.1%} to {interval.high:.1%})", flush=True)
    robust = (lead > 0).nonzero().squeeze(1)
    print(f"lead of the label's average probability on robust examples: {[round(x, 3) for x in lead[robust].tolist()]}")


if __name__ == "__main__":
    main()
