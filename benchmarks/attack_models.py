"""Small classifiers for attack benchmarks, from undefended to adversarially trained; kept in benchmarks/.cache.

    python -m benchmarks.attack_models [NAME ...]

Trains missing models, a few minutes each on one core. Needs a mirror of the hub (ISTHMUS_DATA).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from rich.progress import track
from safetensors import safe_open
from torch import Tensor, nn

from isthmus.core import files
from isthmus.data.images import Split, as_float
from isthmus.data.loading import load

CACHE = Path(__file__).parent / ".cache"


@dataclass(frozen=True)
class Recipe:
    """Training of a model, ordinary or adversarial with PGD (Madry et al. 2018, arXiv:1706.06083).

    Attributes:
        eps: radius of the ℓ∞ ball of adversarial training; 0 for clean images.
        steps: PGD steps of each epoch; early epochs need only a weak attack. Zeros if eps is 0.
        reach: total length of all PGD steps in units of ε; a step is reach·ε / steps, at most 1.25 ε.
        warm_up: epochs over which ε grows to its value; training with a large ε from the start fails.
        peak: highest learning rate of Adam, reached linearly after 3/10 of the training; then linear to 0.
    """

    data: str
    eps: float
    steps: tuple[int, ...]
    reach: float = 2.5
    warm_up: float = 0.0
    batch: int = 128
    peak: float = 3e-3
    width: int = 32
    seed: int = 0


RECIPES = {
    "undefended": Recipe("fashion_mnist", eps=0.0, steps=(0, 0, 0)),
    "trained-53": Recipe("fashion_mnist", eps=0.038, steps=(2, 2)),
    "trained-74": Recipe("fashion_mnist", eps=0.1, steps=(2, 3, 4, 5, 5, 5, 5), warm_up=1.0),
    "mnist-03": Recipe("mnist", eps=0.3, steps=(2, 3, 4, 5, 7, 7, 7, 7), warm_up=2.0),
    "small": Recipe("fashion_mnist", eps=0.0, steps=(0, 0), width=8),
    "large": Recipe("fashion_mnist", eps=0.0, steps=(0, 0), width=64),
}
"""``undefended`` is trained for three epochs: AutoAttack breaks all of the first 1,000 test images (after one epoch all
but 13, after two all but 2).
"""

FOUR = ("undefended", "trained-53", "trained-74", "mnist-03")
"""Models on which attacks are compared; the others are for the panel of verdicts."""

RADII = {"fashion_mnist": 0.1, "mnist": 0.3}
"""ε in ℓ∞ at which the models of each data set are attacked."""


class ConvNet(nn.Module):
    """Two strided convolutions with batch norm and two linear layers, from 1×28×28 images in [0, 1] to 10 logits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolution(1, width), *_convolution(width, 2 * width))
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(2 * width * 7 * 7, 120), nn.ReLU(inplace=True), nn.Linear(120, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _convolution(before: int, after: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)


def build(name: str) -> ConvNet:
    """The named model in eval mode, from the cache or, if its recipe has changed, trained."""
    recipe = RECIPES[name]
    path = CACHE / f"{name}.safetensors"
    model = ConvNet(recipe.width)
    if _recipe_of(path) != _described(recipe):
        _train(model, recipe, name)
        files.write_bytes(path, safetensors.torch.save(model.state_dict(), {"recipe": _described(recipe)}))
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.eval()


def test_images(name: str, n: int) -> tuple[Tensor, Tensor]:
    """The first n test images of a model's data set, as floats in [0, 1], and their labels."""
    test = load(RECIPES[name].data).test
    return as_float(test.images[:n]), test.labels[:n]


def _described(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe))


def _recipe_of(path: Path) -> str | None:
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("recipe")


def _train(model: ConvNet, recipe: Recipe, name: str) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    model.train().to(memory_format=torch.channels_last)
    split = load(recipe.data).train
    total = len(recipe.steps) * (len(split) // recipe.batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.peak)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min((t + 1) / (0.3 * total), (1 - t / total) / 0.7)
    )
    batches = track(_batches(split, recipe, generator), description=f"training {name}", total=total)
    for position, (images, labels, steps) in enumerate(batches):
        grown = position / total * len(recipe.steps) / recipe.warm_up if recipe.warm_up else 1.0
        eps = recipe.eps * min(1.0, grown)
        attacked = _pgd(model, images, labels, eps, steps, recipe.reach, generator) if eps else images
        optimizer.zero_grad()
        _loss(model, attacked, labels).backward()
        optimizer.step()
        schedule.step()
    model.to(memory_format=torch.contiguous_format)


def _batches(split: Split, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, int]]:
    for steps in recipe.steps:
        order = torch.randperm(len(split), generator=generator)
        for rows in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            yield as_float(split.images[rows]), split.labels[rows], steps


def _pgd(
    model: ConvNet, images: Tensor, labels: Tensor, eps: float, steps: int, reach: float, generator: torch.Generator
) -> Tensor:
    start = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    attacked = (images + start).clamp_(0, 1)
    step = eps * min(reach / max(steps, 1), 1.25)
    for _ in range(steps):
        attacked.requires_grad_()
        (gradient,) = torch.autograd.grad(_loss(model, attacked, labels), attacked)
        moved = attacked.detach() + step * gradient.sign()
        attacked = moved.clamp_(images - eps, images + eps).clamp_(0, 1)
    return attacked.detach()


@cache
def _has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _loss(model: ConvNet, images: Tensor, labels: Tensor) -> Tensor:
    # bf16 halves the time where the processor has it, and takes 20 times as long elsewhere; weights are float32
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda or _has_bf16()):
        logits = model(images)
    return nn.functional.cross_entropy(logits.float(), labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(RECIPES)}; default: all")
    for name in parser.parse_args().names or RECIPES:
        build(name)
        print(f"{name}: {CACHE / name}.safetensors", flush=True)


if __name__ == "__main__":
    main()
