"""Decision-based attacks: how near do RayS and foolbox's HopSkipJump come with as many queries?

    python -m benchmarks.decisions [--n 60] [--norm linf|l2]

On illusions over a convolutional network trained on scikit-learn's digits, in a few minutes. Prints rows of Markdown.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import peers
from benchmarks.illusions import ILLUSIONS
from isthmus.attacks import RayS, minimal_norms

NAMES = ("ranks", "one-hot by argmin", "quantised")
EFFORTS = ((4, 100), (8, 200), (14, 400))
"""HopSkipJump's steps, and evaluations of each gradient at most."""


class Counted(nn.Module):
    """Counts the images that a model is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.queries = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.queries += len(images)
        answer: Tensor = self.model(images)
        return answer


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network without any defence, and images that it has not seen."""
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(digits)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(15):
        for rows in torch.randperm(1400).split(100):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False), images[1400:], labels[1400:]


def hop_skip_jump(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, effort: tuple[int, int]
) -> tuple[int, Tensor]:
    """Queries per image, and the distances that foolbox's HopSkipJump reaches."""
    foolbox = peers.foolbox()
    counted = Counted(model).eval()
    torch.manual_seed(0)
    attack = foolbox.attacks.HopSkipJumpAttack(steps=effort[0], max_gradient_eval_steps=effort[1], constraint=norm)
    _, found, _ = attack(foolbox.PyTorchModel(counted, bounds=(0, 1)), images, labels, epsilons=None)
    delta = (found - images).flatten(1)
    return counted.queries // len(images), delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=60, help="images")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    given = parser.parse_args()
    base, images, labels = trained()
    right = (base(images).argmax(1) == labels).nonzero().squeeze(1)[: given.n]
    images, labels = images[right], labels[right]
    print(f"| model, {given.norm}, n = {len(images)} | queries | median distance, HopSkipJump | RayS |")
    print("|---|---|---|---|")
    for name in NAMES:
        model = ILLUSIONS[name](base).eval()
        for effort in EFFORTS:
            queries, theirs = hop_skip_jump(model, images, labels, given.norm, effort)
            ours = minimal_norms(model, images, labels, given.norm, [RayS(queries=queries)])
            print(f"| {name} | {queries:,} | {float(theirs.median()):.3f} | {ours.median:.3f} |", flush=True)


if __name__ == "__main__":
    main()
