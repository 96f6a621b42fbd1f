"""RayS: closed forms on linear models, decisions alone, and the field's decision-based attack as a yardstick."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from benchmarks import peers
from isthmus.attacks import RayS, minimal_norms, robust_accuracy
from isthmus.attacks.threats import L1, Linf
from isthmus.core.errors import ConfigError
from tests.attacks.attacked_models import PIXELS, Counting, Linear, pictures, subject


class Labels(nn.Module):
    """Another model's decisions: one-hot, without a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits = self.model(images)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double()


def linear(n=16):
    """Two classes, images far from the walls, labels, and margins over ‖w‖₁."""
    weight = torch.randn(2, PIXELS, generator=torch.Generator().manual_seed(2)).double()
    model, images = Linear(weight), pictures(n, low=0.4, high=0.6)
    logits = model(images).detach()
    labels = logits.argmax(1)
    return model, images, labels, (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()


@pytest.mark.parametrize(
    ("norm", "length"), [("linf", 1.0), pytest.param("l2", math.sqrt(PIXELS), marks=pytest.mark.slow)]
)
def test_on_a_linear_model_the_best_signs_are_found(norm, length):
    """In ℓ∞ the distance to the boundary, margin/‖w‖₁; in ℓ2 that of the best direction of signs, √d times as much."""
    model, images, labels, distances = linear()
    sizes = minimal_norms(Labels(model), images, labels, norm, [RayS(queries=500)]).sizes
    assert (sizes >= length * distances * (1 - 1e-6)).all()
    assert (sizes <= 1.03 * length * distances).all()


def test_decisions_are_all_it_asks_for():
    model, images, labels = subject()
    threat, suite = Linf(0.15), [RayS(queries=100)]
    whole, decided = (robust_accuracy(each, images, labels, threat, suite) for each in (model, Labels(model)))
    assert torch.equal(whole.broken, decided.broken)
    assert decided.accuracy < 0.7 * decided.clean_accuracy
    assert decided.backward_passes == 0


def test_no_run_asks_more_than_its_queries():
    model, images, labels = subject()
    counting = Counting(Labels(model))
    robust_accuracy(counting, images, labels, Linf(1e-4), [RayS(queries=50)])
    clean = len(images)
    assert counting.forwards <= clean + 50 * clean + 3 * 8  # and the probes whether the model is random


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_comes_nearer_than_hop_skip_jump_with_as_many_queries():
    """Foolbox's HopSkipJumpAttack (Chen et al. 2020) in ℓ∞, from its own starts."""
    if find_spec("foolbox") is None:
        pytest.skip("compares with foolbox, which is not installed; 'make setup' installs it")
    foolbox = peers.foolbox()
    model, images, labels = subject()
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)
    images, labels = images[right], labels[right]
    counting = Counting(Labels(model))
    asked = foolbox.PyTorchModel(counting.eval(), bounds=(0, 1))
    torch.manual_seed(0)
    hop = foolbox.attacks.HopSkipJumpAttack(steps=6, max_gradient_eval_steps=60, constraint="linf")
    _, found, _ = hop(asked, images, labels, epsilons=None)
    queries = counting.forwards // len(images)
    theirs = (found - images).abs().flatten(1).amax(1)
    ours = minimal_norms(Labels(model), images, labels, "linf", [RayS(queries=min(queries, 1000))]).sizes
    assert ours.median() < theirs.median()


def test_it_says_which_norms_it_knows():
    model, images, labels = subject(n=4)
    with pytest.raises(ConfigError, match="linf and l2"):
        robust_accuracy(model, images, labels, L1(1.0), [RayS()])
