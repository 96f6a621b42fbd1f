"""Every planted illusion is seen through, and no honest model is accused."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from benchmarks.illusions import ILLUSIONS
from tests.diagnosis.trained_digits import (
    EPS,
    adversarially_trained,
    conv_net,
    digits,
    examined,
    fit,
    held_out,
    undefended,
)
from torch import Tensor, nn

import isthmus
from isthmus.attacks import Linf, robust_accuracy
from isthmus.diagnosis.context import QUICK
from isthmus.diagnosis.diagnose import TESTS, Diagnosis

CLAIMED = {"early answers", "random noise", "random resizing", "dropout left on"}
"""Illusions that the usual attack, on this model, sees through by itself: only a claim can be wrong about them."""

SELDOM = {"JPEG batch", "searchsorted", "points by rank", "short mantissa", "low bits off", "kthvalue votes"}
"""Illusions that differ little from others here."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SELDOM else []) for name in ILLUSIONS]
)
def test_an_illusion_is_seen_through(name):
    torch.manual_seed(0)
    base = robust_accuracy(undefended(), *held_out(), Linf(EPS), "fast").accuracy
    found = examined(ILLUSIONS[name](undefended()), claimed=0.8 if name in CLAIMED else None)
    assert found.verdict.status in (("overstated", "broken") if found.verdict.corrected > 0.1 else ("broken",))
    assert found.verdict.corrected <= base + 0.03
    assert found.verdict.reported > found.verdict.corrected + 0.05
    if name not in CLAIMED:
        assert any(finding.status == "fail" for finding in found.findings)


class LinearModel(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def test_a_linear_model_keeps_what_its_closed_form_says():
    """The label y holds in the whole ball if no other class can lead: z_y − z_j > ε‖w_y − w_j‖₁, but for the box."""
    model = fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), eps=0.1)
    linear = LinearModel(model[1].weight.data, model[1].bias.data)
    images, labels = held_out()
    low, high = (images - 0.1).clamp(0, 1).flatten(1), (images + 0.1).clamp(0, 1).flatten(1)
    difference = linear.weight[labels][:, None] - linear.weight[None]  # n×10×64
    least = (difference.clamp(min=0) * low[:, None] + difference.clamp(max=0) * high[:, None]).sum(2)
    lead = least + linear.bias[labels][:, None] - linear.bias[None]
    certain = (lead.scatter(1, labels[:, None], torch.inf).amin(1) > 0).double().mean().item()
    found = examined(linear.eval(), eps=0.1)
    assert found.verdict.status == "holds"
    assert found.verdict.corrected == pytest.approx(certain, abs=1e-9)


HONEST = {
    "undefended": lambda: undefended(),
    "adversarially trained": lambda: adversarially_trained(),
    "small": lambda: fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))),
    "large": lambda: fit(conv_net(64), epochs=6),
    "long training": lambda: fit(conv_net(), epochs=60),
}


OFTEN = ("undefended", "adversarially trained")


@cache
def honest(name: str) -> Diagnosis:
    return examined(HONEST[name](), eps=0.1)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow) for name in HONEST]
)
def test_an_honest_model_holds(name):
    found = honest(name)
    assert found.verdict.status == "holds"
    assert {finding.test for finding in found.findings} == set(TESTS)


def test_an_honest_model_is_believed_its_own_number_and_no_higher_one():
    model = adversarially_trained()
    left = honest("adversarially trained").verdict.corrected
    assert left > 0.4
    assert examined(model, claimed=left, eps=0.1).verdict.status == "holds"
    boast = examined(model, claimed=left + 0.2, eps=0.1).verdict
    assert (boast.status, boast.reported) == ("overstated", left + 0.2)


def test_the_battery_costs_at_most_three_times_its_ensemble():
    found = examined(adversarially_trained(), QUICK, n=200, eps=0.1)
    assert found.forwards + found.backwards <= 3 * found.ensemble


def test_what_is_broken_has_a_witness_that_breaks_it():
    model = undefended()
    found = examined(ILLUSIONS["quantised"](model))
    result = found.result
    images, labels = held_out()
    broken = result.broken
    assert (ILLUSIONS["quantised"](model)(result.adversarial[broken]).argmax(1) != labels[broken]).all()
    assert Linf(EPS).contains(result.adversarial[broken], images[broken]).all()


def test_an_honest_bottleneck_holds_in_both_modes():
    """VIB with a strong bottleneck (β = 0.1), whose stochastic mode answers from 12 codes."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())
    model = isthmus.bottleneck(backbone, 10, objective="vib", dim=16, features=128)
    images, labels = digits()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(20):
        for rows in torch.randperm(1400).split(100):
            optimiser.zero_grad()
            model.loss(images[rows], labels[rows], rho=-math.log(0.1)).total.backward()
            optimiser.step()
    audit = isthmus.audit(model, *held_out(60), "linf:0.1", [{"name": "diagnosis", "sample": 30}])
    modes = audit.results["diagnosis"].details["modes"]
    assert set(modes) == {"mean", "stochastic"}
    assert {mode: found["verdict"]["status"] for mode, found in modes.items()} == dict.fromkeys(modes, "holds")
