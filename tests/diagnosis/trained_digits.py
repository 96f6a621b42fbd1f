"""Classifiers trained on scikit-learn's digits, in a second or two each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from isthmus.attacks import Linf
from isthmus.attacks.engine.inputs import examples
from isthmus.audits.classifier import adopt
from isthmus.core.preserve_state import preserve_state
from isthmus.diagnosis.budget import QUICK, Budget
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnose import Diagnosis, diagnose
from isthmus.models.modes import AveragedDraws

EPS = 0.3
"""ε at which the undefended network is never robust."""

N = 100
SMALL = replace(QUICK, sample=40, restarts=2, steps=80, queries=400)
TINY = replace(SMALL, ensemble="apgd:20", steps=40, queries=200)
"""For sound models, on which every test runs to its end and nothing depends on the strength of any."""


@cache
def digits() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(labels)


def held_out(n: int = N) -> tuple[Tensor, Tensor]:
    images, labels = digits()
    return images[1400 : 1400 + n], labels[1400 : 1400 + n]


def fit(model: nn.Module, epochs: int = 15, eps: float = 0.0, seed: int = 0) -> nn.Module:
    """Ordinary training or, with eps > 0, adversarial training with five steps of PGD (Madry et al. 2018)."""
    images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(1400).split(100):
                x, y = images[rows], labels[rows]
                moved = x + eps * (2 * torch.rand_like(x) - 1)
                for _ in range(5 if eps else 0):
                    moved = moved.clamp(0, 1).requires_grad_()
                    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(moved), y), moved)
                    moved = (moved + 0.4 * eps * gradient.sign()).detach()
                    moved = torch.minimum(torch.maximum(moved, x - eps), x + eps)
                optimiser.zero_grad()
                functional.cross_entropy(model(moved.clamp(0, 1).detach()), y).backward()
                optimiser.step()
    return model.eval().requires_grad_(False)


def conv_net(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * width, 10),
    )


@cache
def undefended() -> nn.Module:
    return fit(conv_net())


@cache
def adversarially_trained() -> nn.Module:
    return fit(conv_net(), epochs=15, eps=0.1)


def diagnosed(
    model: nn.Module, budget: Budget = SMALL, claimed: float | None = None, n: int = N, eps: float = EPS
) -> Diagnosis:
    """The diagnosis of a model, adopted as an audit does."""
    images, labels = held_out(n)
    with preserve_state(model, images.device, 0):
        found = adopt(model, images, threat=Linf(eps))
        adopted = AveragedDraws(model, 1).eval() if isinstance(found.model, AveragedDraws) else found.model
        context = DiagnosisContext(adopted, examples(images, labels), Linf(eps), budget, stateful=found.stateful)
        return diagnose(context, claimed)
