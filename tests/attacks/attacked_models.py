"""Small models to attack, in float64: an answer does not depend on who else is in the batch."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat
from isthmus.core.randomness import normal

SHAPE = (1, 4, 4)
PIXELS = 16


class Linear(nn.Module):
    """logits = W·x + b."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.bias = nn.Parameter(torch.zeros(len(weight)).double() if bias is None else bias.double())

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() @ self.weight.T + self.bias


class Smooth(nn.Module):
    """A fixed random network of one tanh layer."""

    def __init__(self, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(24, PIXELS, generator=g, dtype=torch.float64) / 2)
        self.second = nn.Parameter(torch.randn(classes, 24, generator=g, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh((images.flatten(1).double() - 0.5) @ self.first.T) @ self.second.T


class Counting(nn.Module):
    """Counts how many images go through forward, and for how many a gradient comes back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        if images.requires_grad:
            images.register_hook(self._came_back)
        return self.model(images)

    def _came_back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Noisy(nn.Module):
    """Another model's logits plus keyed normal noise; remembers every key it was given."""

    takes_keys = True

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__()
        self.model, self.sigma, self.seen = model, sigma, []

    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        self.seen += keys.tolist()
        logits = self.model(images)
        return logits + self.sigma * normal(keys, (logits.shape[1],))


class WithoutGradient(nn.Module):
    """Finite logits whose gradient is NaN."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        nothing = (images - images).sqrt().flatten(1).sum(1)
        return self.model(images) + nothing[:, None].double()


class Shell(nn.Module):
    """Adversarial in a thin shell that every further step leaves again."""

    def forward(self, images):
        moved = images.flatten(1).sum(1)
        inside = ((moved - 8.5).abs() < 0.3).to(moved)
        return torch.stack([1 - 2 * inside + 0 * moved, 0.1 * moved - 0.8], 1)


def pictures(n: int = 48, seed: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Images whose pixels are uniform in [low, high]; over the whole box, a third are exactly 0 or 1."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.rand(n, *SHAPE, generator=g)
    if (low, high) == (0.0, 1.0):
        return ((drawn - 0.5) * 1.5 + 0.5).clamp(0, 1)
    return low + (high - low) * drawn


def subject(n: int = 48) -> tuple[Smooth, Tensor, Tensor]:
    """A model with images and labels that it gets right, but for every tenth."""
    model, images = Smooth(), pictures(n)
    labels = model(images).argmax(1)
    labels[::10] = (labels[::10] + 1) % 3
    return model, images, labels


def end_of(attack, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
    """Where an attack's first run ends on each example, success or not, without verification."""
    counted_model = CountedModel(model)
    if isinstance(attack, SingleShotAttack):
        return attack.perturb(counted_model, batch, threat)
    attack = attack.for_threat(threat, int(counted_model.logits(batch.images, batch.keys).shape[1]))
    state = attack.init(batch, torch.zeros(len(batch), dtype=torch.int64))
    while (state.step < state.budget).any():
        answer = counted_model.query(
            state.x, batch.keys, lambda logits: attack.objective(state, batch, logits), draw=state.step
        )
        attack.step(state, batch, answer)
    return state.x


class Proposing(SingleShotAttack):
    """An attack made of a function (batch, threat) -> images."""

    name: str = "test"
    restarts: int = 1
    _function: Any = PrivateAttr(None)

    def perturb(self, counted_model, batch, threat):
        """What the function returns."""
        return self._function(batch, threat)


def proposing(function, label: str = "test", **options) -> Proposing:
    """An attack made of a function (batch, threat) -> images."""
    attack = Proposing(name=label, **options)
    attack._function = function
    return attack
