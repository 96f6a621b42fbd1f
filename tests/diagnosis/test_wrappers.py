"""Wrappers of the model under diagnosis, and the substitute's training data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import Linf
from isthmus.diagnosis import black_box_attacks
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.wrappers import PerImageModel, ZeroGradientModel, in_double
from isthmus.models.outputs import log_probabilities
from tests.diagnosis.unusual_models import FunctionModel


def halved_in_place(images: Tensor) -> Tensor:
    return images.mul_(0.5).flatten(1)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("wrapper", [ZeroGradientModel, PerImageModel])
def test_wrappers_do_not_change_the_images(wrapper, grad):
    images = torch.rand(3, 1, 2, 2, requires_grad=grad)
    before = images.detach().clone()
    with torch.set_grad_enabled(grad):
        outputs = wrapper(FunctionModel(halved_in_place))(images)
    assert torch.equal(images, before)
    torch.testing.assert_close(outputs.detach(), before.flatten(1) / 2)


class LinearAfter(nn.Module):
    """A linear model after a function of the images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.linear = function, nn.Linear(4, 3)

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        return self.linear(self.function(images.flatten(1)))


def test_in_double_copies_a_model_only_if_the_copy_works_in_double_precision():
    probe = torch.rand(2, 1, 2, 2)
    model = LinearAfter(lambda x: x)
    double = in_double(model, probe, keys=torch.arange(2))
    assert double is not None
    assert double(probe).dtype == torch.float64
    assert model.linear.weight.dtype == torch.float32
    torch.testing.assert_close(double(probe).float(), model(probe))
    assert in_double(LinearAfter(lambda x: x.float()), probe) is None
    assert in_double(model, probe, unknown=1) is None
    # ... unless BPDA leaves out the cast:
    assert in_double(BPDAModel(LinearAfter(lambda x: x.float())), probe) is not None


def test_in_double_does_not_change_the_images():
    images = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    before = images.clone()
    double = in_double(FunctionModel(halved_in_place), images)
    assert double is not None
    double(images)
    assert torch.equal(images, before)


def context(function, n=40):
    """What the substitute needs of a context."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, 2, 2, generator=generator)
    return SimpleNamespace(
        examples=Batch(images, (images[:, 0, 0, 0] > 0.5).long(), torch.arange(n)),
        queries=SimpleNamespace(logits=lambda images, keys: function(images.flatten(1))),
        spending=SimpleNamespace(report=lambda: None),
        substitute=None,
        num_classes=2,
        seed=0,
        threat=Linf(0.1),
    )


def two_logits(x):
    return torch.stack([-x[:, 0] + 0.5, x[:, 0] - 0.5], 1)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4, 1e30])
def test_targets_are_neither_uniform_nor_one_hot(scale):
    torch.manual_seed(0)
    logits = torch.randn(100, 10)
    logits[:20] *= 1e6  # a few predictions much more confident than the others
    targets = black_box_attacks.soft_targets(scale * logits)
    assert 0.2 < targets.max(1).values.median() < 0.98
    assert (targets.max(1).values < 0.9999).all()


def test_targets_are_less_confident_if_the_logits_are():
    targets = black_box_attacks.soft_targets(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.4]]))
    assert targets[2, 1] < targets[0, 1] - 0.1


def test_targets_of_probabilities_are_those_of_their_logits():
    probabilities = context(lambda x: log_probabilities((100 * two_logits(x)).softmax(1)))
    logits = context(lambda x: 100 * two_logits(x))
    targets, expected = (
        black_box_attacks.labelled(each, each.examples.images, each.examples.keys)[1]
        for each in (probabilities, logits)
    )
    torch.testing.assert_close(targets, expected, atol=0.02, rtol=0)
    assert targets.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_substitute_learns_from_finite_logits_of_any_scale(scale, monkeypatch):
    monkeypatch.setattr(black_box_attacks, "STEPS", 60)

    def sometimes_nan(x):
        logits = scale * two_logits(x)
        logits[x[:, 1] < 0.3] = float("nan")
        return logits

    given = context(sometimes_nan, 200)
    images, _ = black_box_attacks.labelled(given, given.examples.images, given.examples.keys)
    assert 0 < len(images) < 200
    model = black_box_attacks.substitute(given)
    correct = model(given.examples.images).argmax(1) == given.examples.labels
    assert correct.float().mean() > 0.9


def test_a_model_without_finite_logits_has_a_substitute():
    model = black_box_attacks.substitute(context(lambda x: two_logits(x) / 0))
    assert model(torch.rand(2, 1, 2, 2)).isfinite().all()


def test_training_the_substitute_does_not_change_global_generators(monkeypatch):
    monkeypatch.setattr(black_box_attacks, "STEPS", 2)
    monkeypatch.setattr(torch, "manual_seed", None)  # seeds every device, but fork_rng only restores the CPU's
    first = black_box_attacks.substitute(context(two_logits))
    torch.rand(3)
    before = torch.get_rng_state()
    second = black_box_attacks.substitute(context(two_logits))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
