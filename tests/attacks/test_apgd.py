"""APGD on linear models, where the best perturbation is known; its step sizes, and its sparse steps in ℓ1."""

import pytest
import torch

from isthmus.attacks import APGD
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L1, Linf
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, pictures
from tests.attacks.linear_models import THREATS, check_binary_accuracy, check_margin_drop


@pytest.mark.parametrize("threat", THREATS[:2], ids=str)
def test_the_margin_drops_by_eps_times_the_dual_norm(threat):
    check_margin_drop(APGD(steps=200, loss="margin"), threat)


@pytest.mark.parametrize("threat", THREATS[:2], ids=str)
def test_robust_accuracy_of_a_binary_model_is_the_closed_form(threat):
    check_binary_accuracy(APGD(loss="margin"), threat)


def started(threat, steps=100):
    images = pictures(1, low=0.3, high=0.7)
    batch = Batch(images, torch.tensor([0]), example_keys(0, torch.arange(1)))
    attack = APGD(steps=steps).for_threat(threat, 2)
    return attack, attack.init(batch, torch.zeros(1, dtype=torch.int64)), batch


def answer(loss):
    gradient = torch.linspace(-1, 1, PIXELS).view(1, *SHAPE)
    return Answer(torch.tensor([[1.0, 0.0]]), torch.tensor([loss]), gradient)


@pytest.mark.parametrize(("rising", "size"), [(True, 0.2), (False, 0.1)])
def test_the_step_halves_after_a_window_whose_loss_does_not_rise(rising, size):
    attack, runs, batch = started(Linf(0.1))
    for step in range(23):  # the first window is 22 of 100 steps
        attack.step(runs, batch, answer(float(step if rising else -step)))
    assert float(runs.size) == pytest.approx(size)


def test_a_step_in_l1_moves_a_fifth_of_the_pixels_at_first():
    attack, runs, batch = started(L1(0.1))
    before = runs.x.clone()
    attack.step(runs, batch, answer(0.0))
    moved = (runs.x - before).flatten(1).abs() > 1e-6
    assert 1 <= int(moved.sum()) <= 4 + int(((before - batch.images) != 0).sum())
    assert [float(ball.eps) for ball in attack.balls] == pytest.approx([0.3, 0.2, 0.1])
