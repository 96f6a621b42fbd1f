"""Uniform sampling: so many samples, each a new one, with the success that shares of the ball predict."""

import pytest
import torch
from scipy import stats

from isthmus.attacks import PGD, Uniform, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import Counting, Linear, pictures, subject

THREATS = [Linf(0.1), L2(0.5), L1(1)]


def one_pixel(level):
    """Class 1 where the first pixel is above a level."""
    weight = torch.zeros(2, 16)
    weight[1, 0] = 1
    return Linear(weight, torch.tensor([level, 0.0]))


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_every_sample_is_a_new_one_inside_the_ball(threat):
    images = pictures(6)
    batch = Batch(images, torch.zeros(6, dtype=torch.int64), example_keys(0, torch.arange(6)))
    search = Uniform(samples=20).for_threat(threat, 3)
    runs = search.init(batch, torch.zeros(6, dtype=torch.int64))
    seen = [runs.x]
    for _ in range(int(runs.budget[0])):
        search.step(runs, batch, None)
        seen.append(runs.x)
    assert len(seen) == 20
    assert all(threat.contains(x, images).all() for x in seen)
    assert len({x[0].numpy().tobytes() for x in seen}) == 20
    assert len({x.numpy().tobytes() for x in seen[3]}) == 6


@pytest.mark.parametrize("samples", [2, 9])
def test_every_sample_is_one_forward_pass(samples):
    counting, images = Counting(one_pixel(2.0)), pictures(5)
    labels = torch.zeros(5, dtype=torch.int64)
    result = robust_accuracy(counting, images, labels, Linf(0.1), [Uniform(samples=samples)], batch_size=3)
    assert result.accuracy == 1
    assert result.forward_passes == counting.forwards
    assert result.state.forwards.tolist() == [1 + samples] * 5
    assert result.state.backwards.sum() == 0


def test_success_is_as_likely_as_the_ball_says():
    """The first pixel passes the level with chance 1/4 in one sample, so with 1 − (3/4)³ in three."""
    n, images = 400, torch.full((400, 1, 4, 4), 0.5)
    labels = torch.zeros(n, dtype=torch.int64)
    result = robust_accuracy(one_pixel(0.55), images, labels, Linf(0.1), ["uniform:3"])
    low, high = stats.binom.interval(0.9999, n, 1 - 0.75**3)
    assert low <= int(result.broken.sum()) <= high


def test_noise_does_less_than_gradients_and_more_samples_never_do_less():
    model, images, labels = subject()
    few, many = (robust_accuracy(model, images, labels, L2(0.6), [f"uniform:{count}"]) for count in (5, 60))
    assert not (few.broken & ~many.broken).any()
    assert many.accuracy < many.clean_accuracy
    assert robust_accuracy(model, images, labels, L2(0.6), [PGD(steps=10)]).accuracy < many.accuracy


def test_a_single_sample_is_refused():
    model, images, labels = subject(4)
    with pytest.raises(ConfigError, match="uniform: samples"):
        robust_accuracy(model, images, labels, Linf(0.1), ["uniform:1"])
