"""Views that average: what they average, and that a call repeats from its keys."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.models.modes import AveragedDraws, seeded

IMAGES = torch.rand(5, 1, 2, 2)
KEYS = torch.arange(5)


class Noisy(nn.Module):
    """Two logits, the second one noisy from every global generator there is."""

    def __init__(self, scale=3.0):
        super().__init__()
        self.scale, self.calls = scale, 0

    def forward(self, images):
        self.calls += 1
        noise = torch.randn(len(images)) + random.random() + np.random.rand()  # noqa: NPY002
        return torch.stack([images.sum((1, 2, 3)), self.scale * noise], 1)


def test_probabilities_are_averaged_over_passes():
    model = Noisy()
    view = AveragedDraws(model, samples=12)
    answer = view(IMAGES, keys=KEYS)
    assert model.calls == 12
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(5))
    many = AveragedDraws(model, samples=4000)(IMAGES, keys=KEYS).exp()
    with seeded(0, IMAGES.device):
        expected = torch.stack([model(IMAGES).softmax(1) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(many, expected, atol=0.03, rtol=0)


def test_a_call_repeats_from_its_keys_and_leaves_the_generators_alone():
    view = AveragedDraws(Noisy())
    first = view(IMAGES, keys=KEYS)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert torch.equal(view(IMAGES, keys=KEYS), first)
    assert not torch.allclose(view(IMAGES, keys=KEYS + 1), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_without_keys_every_call_draws_anew():
    one, other = AveragedDraws(Noisy(), seed=1), AveragedDraws(Noisy(), seed=1)
    first, second = one(IMAGES), one(IMAGES)
    assert not torch.allclose(first, second)
    assert torch.equal(other(IMAGES), first)
    assert torch.equal(other(IMAGES), second)


def test_gradients_are_those_of_the_average():
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(AveragedDraws(Noisy())(images, keys=KEYS)[:, 0].sum(), images)
    assert (gradient > 0).all()


def test_draws_that_go_together_do_not_share_their_noise():
    """The number that Python draws is the same for all rows of a pass."""
    view = AveragedDraws(Noisy(), samples=2)
    keys = torch.stack([KEYS, KEYS + 1], 1)
    found = view.forward_draws(IMAGES, keys)
    for column in range(2):
        assert torch.equal(found[:, column], view(IMAGES, keys=keys[:, column]))
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_generators_are_put_back_after_an_error():
    state = torch.get_rng_state()

    def fail():
        with seeded(3, IMAGES.device):
            torch.rand(1)
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
