"""DDN: distances to the boundaries of linear models."""

import pytest
import torch

from isthmus.attacks import DDN, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import L2, Linf
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import SHAPE, WithoutGradient, pictures, subject
from tests.attacks.linear_models import linear


def batch_of(images):
    n = len(images)
    return Batch(images, torch.zeros(n, dtype=torch.int64), example_keys(0, torch.arange(n)))


def test_it_finds_the_distance_in_l2():
    model, images, labels, distances = linear(2, "l2")
    sizes = minimal_norms(model, images, labels, "l2", ["ddn:300"]).sizes
    assert (sizes >= distances * (1 - 1e-5)).all()  # pixels are float32
    assert (sizes <= 1.05 * distances).all()


def test_other_norms_are_refused():
    model, images, labels = subject(n=4)
    with pytest.raises(ConfigError, match="works in l2"):
        robust_accuracy(model, images, labels, Linf(0.1), ["ddn"])


def test_it_leaves_a_plateau_in_a_random_direction():
    images = pictures(3, low=0.3, high=0.7)
    attack, batch = DDN(initial_norm=0.2).for_threat(L2(1.0), 2), batch_of(images)
    runs = attack.init(batch, torch.zeros(3, dtype=torch.int64))
    attack.step(runs, batch, Answer(torch.tensor([[1.0, 0.0]] * 3), torch.zeros(3), torch.zeros(3, *SHAPE)))
    steps = (runs.x - images).flatten(1)
    torch.testing.assert_close(steps.norm(dim=1), torch.full((3,), 0.2 * 1.05))
    assert torch.linalg.matrix_rank(steps) == 3


def test_nothing_depends_on_batch_mates():
    model, images, labels = subject(n=20)
    alone, together = (
        minimal_norms(model, images, labels, "l2", ["ddn:15"], options=RunOptions(batch_size=size)) for size in (1, 20)
    )
    torch.testing.assert_close(alone.sizes, together.sizes, rtol=0, atol=1e-6)
    assert alone.backward_passes == together.backward_passes


def test_a_gradient_of_nan_makes_the_example_invalid():
    model, images, labels = subject(n=6)
    result = robust_accuracy(WithoutGradient(model), images, labels, L2(0.3), [DDN(steps=5)])
    assert torch.equal(result.invalid, result.correct)
