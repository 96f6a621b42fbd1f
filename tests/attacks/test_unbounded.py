"""Unbounded ascent: straight lines on linear models, and a zero gradient that gives itself away."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks import Unbounded, robust_accuracy
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError, DataError, ModelError
from tests.attacks.attacked_models import Counting, Linear, Noisy, pictures, subject


def two_classes(n=12, margin=6.0, **options):
    """A linear model, images it calls class 0, and each one's ℓ2 and ℓ∞ distance from class 1.

    Grey is ``gap`` from class 1, in units of logits.
    """
    weight = torch.randn(1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Linear(torch.cat([weight, torch.zeros(1, 16)]), torch.tensor([margin - float(weight.sum()) / 2, 0.0]))
    images = pictures(n, **options)
    gaps = model(images)[:, 0].detach()
    assert (gaps > 0).all()
    return model, images, gaps / weight.norm(), gaps / weight.abs().sum()


class Stepped(nn.Module):
    """Another model of images rounded to multiples of 1/10: right, and without a slope anywhere."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(torch.round(images * 10) / 10)


class Detached(Stepped):
    """Another model cut off from its images."""

    def forward(self, images):
        return self.model(images.detach())


class Overflowing(nn.Module):
    """Logits that leave float32 as soon as a pixel leaves [−1, 2]."""

    def forward(self, images):
        flat = images.flatten(1)
        logits = torch.cat([-flat.sum(1, keepdim=True), flat.sum(1, keepdim=True)], 1)
        return torch.where(flat.abs().amax(1, keepdim=True) > 2, torch.inf, logits)


# --- the ascent ---


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_examples_fall_at_their_distance_from_the_boundary(norm):
    model, images, far_l2, far_linf = two_classes()
    far = far_l2 if norm == "l2" else far_linf
    size = float(far.max()) / 30.5
    labels = torch.zeros(12, dtype=torch.int64)
    ascent = Unbounded(norm=norm, step_size=size, steps=40, loss="margin").ascend(model, images, labels)
    assert ascent.steps == list(range(41))
    assert ascent.accuracy == [float((far > step * size).double().mean()) for step in range(41)]
    np.testing.assert_allclose(getattr(ascent, norm), np.arange(41) * size, rtol=1e-4)
    assert (ascent.n, ascent.finite) == (12, [1.0] * 41)


def test_both_sizes_of_a_signed_step():
    model, images, *_ = two_classes()
    ascent = Unbounded(norm="linf", steps=10, loss="margin").ascend(model, images, torch.zeros(12, dtype=torch.int64))
    np.testing.assert_allclose(ascent.l2, np.asarray(ascent.linf) * 4, rtol=1e-5)


def test_nothing_is_clipped():
    model, images, *_ = two_classes()
    ascent = Unbounded(norm="linf", step_size=5, steps=2, loss="margin").ascend(
        model, images, torch.zeros(12, dtype=torch.int64)
    )
    assert ascent.linf[-1] == pytest.approx(10)


def test_a_gradient_that_is_zero_shows_as_accuracy_that_does_not_fall():
    model, images, labels = subject()
    honest = Unbounded(steps=60, step_size=0.05).ascend(model, images, labels, every=20)
    assert honest.steps == [0, 20, 40, 60]
    assert honest.accuracy[0] > 0.8
    assert honest.accuracy[-1] == 0
    masked = Stepped(model)
    hidden = Unbounded(steps=60, step_size=0.05).ascend(masked, images, labels, every=20)
    clean = float((masked(images).argmax(1) == labels).double().mean())
    assert hidden.accuracy == [clean] * 4
    assert hidden.l2 == [0.0] * 4


def test_passes_batches_and_recording_change_nothing():
    model, images, labels = subject(10)
    counting = Counting(model)
    ascent = Unbounded(steps=7).ascend(counting, images, labels, every=3, batch_size=4)
    assert ascent.steps == [0, 3, 6, 7]
    assert (counting.forwards, counting.backwards) == (1 + 10 * 8, 10 * 7)
    whole = dataclasses.asdict(Unbounded(steps=7).ascend(model, images, labels))
    for name, values in dataclasses.asdict(ascent).items():
        np.testing.assert_allclose(values, np.take(whole[name], ascent.steps) if name != "n" else whole["n"], rtol=1e-6)


def test_logits_that_overflow_are_told_from_wrong_ones():
    images = pictures(6)
    attack, labels = Unbounded(norm="linf", step_size=0.5, steps=8), torch.ones(6, dtype=torch.int64)
    ascent = attack.ascend(Overflowing(), images, labels)
    assert (ascent.finite[0], ascent.finite[-1]) == (1, 0)
    assert ascent.accuracy[-1] == 0


def test_a_random_model_repeats_with_its_seed_and_is_left_as_it_was():
    model, images, labels = subject(8)
    noisy = Noisy(model, 0.3).train()
    one, again, other = (Unbounded(steps=12).ascend(noisy, images, labels, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert noisy.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in noisy.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 1.5}, "every must be a positive whole number"),
        ({"batch_size": -1}, "batch_size"),
    ],
)
def test_options_that_make_no_sense(options, message):
    model, images, labels = subject(4)
    with pytest.raises(ConfigError, match=message):
        Unbounded().ascend(model, images, labels, **options)


def test_other_faults_are_named_too():
    model, images, labels = subject(4)
    with pytest.raises(DataError, match="with 3 classes"):
        Unbounded().ascend(model, images, labels + 3)
    with pytest.raises(ModelError, match="no gradient"):
        Unbounded(steps=1).ascend(Detached(model), images, labels)


# --- in a suite ---


@pytest.mark.parametrize("threat", [Linf(0.08), L2(0.3), L1(0.8)], ids=str)
def test_in_a_suite_only_what_is_inside_counts(threat):
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, threat, [Unbounded(steps=60, norm="linf")])
    assert threat.contains(result.adversarial[result.broken], images[result.broken]).all()
    assert result.accuracy < result.clean_accuracy


def test_on_the_way_through_the_ball_success_ends_a_run():
    model, images, far, _ = two_classes(margin=1.0, low=0.45, high=0.55)
    attack = Unbounded(steps=400, step_size=0.01, loss="margin")
    result = robust_accuracy(model, images, torch.zeros(12, dtype=torch.int64), L2(1), [attack])
    assert result.broken.all()
    torch.testing.assert_close(result.state.step, (far / 0.01).ceil().long())
    assert (result.sizes <= far + 0.01 + 1e-5).all()
