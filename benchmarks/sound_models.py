"""Models with genuine robust accuracy, for the panel. Trained once and kept in benchmarks/.cache.

Those of :mod:`benchmarks.attack_models`, small, large and linear models of Fashion-MNIST at an ε where they are partly
robust, and a bottleneck (VIB) in mean and stochastic mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor, nn

import isthmus
from benchmarks.attack_models import CACHE, FOUR, RADII, RECIPES, build
from isthmus.core import files
from isthmus.data.images import as_float
from isthmus.data.loading import load


@dataclass(frozen=True)
class Case:
    """A model and the data and ε of its evaluation.

    Attributes:
        make: builds the model, in eval mode.
        data: data set, of which the first test images are used.
        eps: radius in ℓ∞.
    """

    make: Callable[[], nn.Module]
    data: str
    eps: float


def _of(name: str, eps: float | None = None) -> Case:
    data = RECIPES[name].data
    return Case(lambda: build(name), data, RADII[data] if eps is None else eps)


def linear() -> nn.Module:
    """Softmax regression, one epoch."""
    model, path = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), CACHE / "linear.safetensors"
    if not path.exists():
        split, generator = load("fashion_mnist").train, torch.Generator().manual_seed(0)
        nn.init.zeros_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for rows in torch.randperm(len(split), generator=generator).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(as_float(split.images[rows])), split.labels[rows]).backward()
            optimizer.step()
        files.write_bytes(path, safetensors.torch.save(model.state_dict()))
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


def exact_accuracy(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float:
    """Robust accuracy of a linear model in closed form: no other class leads anywhere in the ball and the box."""
    weight, bias = model[1].weight.detach().double(), model[1].bias.detach().double()  # type: ignore[index]
    x = images.flatten(1).double()
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    difference = weight[labels][:, None] - weight[None]
    least = (difference.clamp(min=0) * low[:, None] + difference.clamp(max=0) * high[:, None]).sum(2)
    lead = least + bias[labels][:, None] - bias[None]
    return float((lead.scatter(1, labels[:, None], torch.inf).amin(1) > 0).double().mean())


def vib() -> nn.Module:
    """VIB with a strong bottleneck, β = 0.01, three epochs."""
    recipe = {
        "name": "vib",
        "data": "fashion_mnist",
        "model": {"backbone": {"name": "mlp", "hidden": [256, 256]}, "dim": 32, "covariance": "diagonal"},
        "objective": {"name": "vib", "rate_weight": 0.01},
        "training": {"epochs": 3, "batch_size": 100, "optimizer": {"lr": 1e-3}},
    }
    return isthmus.train(recipe, out=CACHE / "vib").load()


SOUND_MODELS = {name: _of(name) for name in FOUR} | {
    "undefended, ε = 0.02": _of("undefended", 0.02),
    "small, ε = 0.02": _of("small", 0.02),
    "large, ε = 0.02": _of("large", 0.02),
    "linear, ε = 0.02": Case(linear, "fashion_mnist", 0.02),
    "VIB, ε = 0.02": Case(vib, "fashion_mnist", 0.02),
}
