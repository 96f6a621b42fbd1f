"""The suspect seen in other ways, and its substitute's training data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import Linf
from isthmus.diagnosis import substitute
from isthmus.diagnosis.bpda.model import BPDAModel
from isthmus.diagnosis.views import Alone, LogProbabilities, WithoutGradient, in_double


class InPlace(nn.Module):
    """Halves the images that it is given, in their own memory."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mul_(0.5).flatten(1)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("view", [WithoutGradient, LogProbabilities, Alone])
def test_views_leave_the_images_alone(view, grad):
    images = torch.rand(3, 1, 2, 2, requires_grad=grad)
    before = images.detach().clone()
    with torch.set_grad_enabled(grad):
        answer = view(InPlace())(images)
    assert torch.equal(images, before)
    halves = before.flatten(1) / 2
    torch.testing.assert_close(answer.detach(), halves.log() if view is LogProbabilities else halves)


class Answers(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_log_probabilities_reach_as_far_as_their_dtype():
    tiny = torch.tensor([[1e-200, 1.0]], dtype=torch.float64)
    model = LogProbabilities(Answers())
    torch.testing.assert_close(model(tiny), tiny.log())
    assert model(torch.tensor([[0.0, 1.0]])).isfinite().all()
    assert model(torch.tensor([[0, 1]])).isfinite().all()


class Only(nn.Module):
    """A linear model that cannot do without what ``insists`` makes of its input."""

    def __init__(self, insists) -> None:
        super().__init__()
        self.insists, self.linear = insists, nn.Linear(4, 3)

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        return self.linear(self.insists(images.flatten(1)))


def test_double_or_nothing():
    probe = torch.rand(2, 1, 2, 2)
    model = Only(lambda x: x)
    double = in_double(model, probe, keys=torch.arange(2))
    assert double is not None
    assert double(probe).dtype == torch.float64
    assert model.linear.weight.dtype == torch.float32
    torch.testing.assert_close(double(probe).float(), model(probe))
    assert in_double(Only(lambda x: x.float()), probe) is None
    assert in_double(model, probe, unknown=1) is None
    # ... but for gradients that follow, casts are left out:
    assert in_double(BPDAModel(Only(lambda x: x.float())), probe) is not None


def test_double_leaves_the_images_alone():
    images = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    before = images.clone()
    double = in_double(InPlace(), images)
    assert double is not None
    double(images)
    assert torch.equal(images, before)


def suspect(answer, n=40, *, probabilities=False):
    """As much of a suspect as its substitute asks for."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, 1, 2, 2, generator=generator)
    return SimpleNamespace(
        examples=Batch(images, (images[:, 0, 0, 0] > 0.5).long(), torch.arange(n)),
        logits=lambda images, keys: answer(images.flatten(1)),
        probabilities=probabilities,
        substitute=None,
        classes=2,
        seed=0,
        threat=Linf(0.1),
        tell=lambda: None,
    )


def two(x):
    return torch.stack([-x[:, 0] + 0.5, x[:, 0] - 0.5], 1)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4, 1e30])
def test_targets_are_neither_uniform_nor_one_hot(scale):
    torch.manual_seed(0)
    logits = torch.randn(100, 10)
    logits[:20] *= 1e6  # a few answers that are much surer than the others
    targets = substitute._targets(scale * logits)
    assert 0.2 < targets.max(1).values.median() < 0.98
    assert (targets.max(1).values < 0.9999).all()


def test_targets_are_less_sure_where_the_answer_is():
    targets = substitute._targets(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.4]]))
    assert targets[2, 1] < targets[0, 1] - 0.1


def test_probabilities_are_taken_for_what_they_are():
    asked = suspect(lambda x: (100 * two(x)).softmax(1), probabilities=True)
    _, targets = substitute._answered(asked, asked.examples.images, asked.examples.keys)
    logits = suspect(lambda x: 100 * two(x))
    _, expected = substitute._answered(logits, asked.examples.images, asked.examples.keys)
    torch.testing.assert_close(targets, expected, atol=0.02, rtol=0)
    assert targets.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_substitute_learns_from_finite_answers_on_any_scale(scale, monkeypatch):
    monkeypatch.setattr(substitute, "STEPS", 60)

    def answer(x):
        logits = scale * two(x)
        logits[x[:, 1] < 0.3] = float("nan")
        return logits

    asked = suspect(answer, 200)
    images, _ = substitute._answered(asked, asked.examples.images, asked.examples.keys)
    assert 0 < len(images) < 200
    model = substitute.trained(asked)
    agreed = model(asked.examples.images).argmax(1) == asked.examples.labels
    assert agreed.float().mean() > 0.9


def test_a_suspect_that_never_answers_has_a_substitute_all_the_same():
    model = substitute.trained(suspect(lambda x: two(x) / 0))
    assert model(torch.rand(2, 1, 2, 2)).isfinite().all()


def test_training_leaves_the_global_generators_alone(monkeypatch):
    monkeypatch.setattr(substitute, "STEPS", 2)
    monkeypatch.setattr(torch, "manual_seed", None)  # would seed every device, and fork_rng only puts the CPU's back
    first = substitute.trained(suspect(two))
    torch.rand(3)
    before = torch.get_rng_state()
    second = substitute.trained(suspect(two))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
