"""Every illusion of robustness is exposed, and sound models hold."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import isthmus
from benchmarks.illusions import ILLUSIONS
from isthmus.attacks import Linf, robust_accuracy
from isthmus.checks import diagnosis as checks_diagnosis
from isthmus.diagnosis.budget import QUICK
from isthmus.diagnosis.diagnose import Diagnosis
from isthmus.diagnosis.tests import TESTS
from tests.diagnosis.trained_digits import (
    EPS,
    SMALL,
    TINY,
    adversarially_trained,
    conv_net,
    diagnosed,
    digits,
    fit,
    held_out,
    undefended,
)

CLAIMED = {"early answers", "random noise", "random resizing", "dropout left on"}
"""Illusions that the baseline attack breaks on this model, so that only a claim can be wrong about them."""

SIMILAR = {
    *("JPEG batch", "JPEG file", "searchsorted", "points by rank", "short mantissa", "low bits off", "kthvalue votes"),
    *("random resizing", "dropout left on", "codebook", "thermometer", "bucketised", "looked up", "heaviside votes"),
    *("winners take all", "float16", "saturated logits", "flipped gradient"),
}
"""Illusions that differ little from others, tested less often."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SIMILAR else []) for name in ILLUSIONS]
)
def test_an_illusion_is_exposed(name):
    torch.manual_seed(0)
    base = robust_accuracy(undefended(), *held_out(), Linf(EPS), "fast").accuracy
    found = diagnosed(ILLUSIONS[name](undefended()), claimed=0.8 if name in CLAIMED else None)
    assert found.verdict.status in (("overstated", "broken") if found.verdict.corrected > 0.1 else ("broken",))
    assert found.verdict.corrected <= base + 0.03
    assert found.verdict.reported > found.verdict.corrected + 0.05
    if name not in CLAIMED:
        assert any(test.status == "fail" for test in found.tests)


class LinearModel(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


@pytest.mark.usefixtures("short_black_box")
def test_a_linear_model_has_the_accuracy_of_its_closed_form():
    """An example is robust if no class j can lead in the ball: z_y − z_j > ε‖w_y − w_j‖₁, apart from the box."""
    model = fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), eps=0.1)
    linear = LinearModel(model[1].weight.data, model[1].bias.data)
    images, labels = held_out()
    low, high = (images - 0.1).clamp(0, 1).flatten(1), (images + 0.1).clamp(0, 1).flatten(1)
    difference = linear.weight[labels][:, None] - linear.weight[None]  # n×10×64
    least = (difference.clamp(min=0) * low[:, None] + difference.clamp(max=0) * high[:, None]).sum(2)
    lead = least + linear.bias[labels][:, None] - linear.bias[None]
    certain = (lead.scatter(1, labels[:, None], torch.inf).amin(1) > 0).double().mean().item()
    found = diagnosed(linear.eval(), replace(TINY, ensemble="fast"), eps=0.1)
    assert found.verdict.status == "holds"
    assert found.verdict.corrected == pytest.approx(certain, abs=1e-9)


SOUND = {
    "undefended": lambda: undefended(),
    "adversarially trained": lambda: adversarially_trained(),
    "small": lambda: fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))),
    "large": lambda: fit(conv_net(64), epochs=6),
    "long training": lambda: fit(conv_net(), epochs=60),
}


@cache
def sound(name: str) -> Diagnosis:
    return diagnosed(SOUND[name](), eps=0.1)


@pytest.mark.slow  # test_budget has a short diagnosis of a sound model
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_holds(name):
    found = sound(name)
    assert found.verdict.status == "holds"
    assert {test.test for test in found.tests} == set(TESTS)


@pytest.mark.slow
@pytest.mark.parametrize(("more", "status"), [(0.2, "overstated"), (0, "holds")])
def test_a_sound_model_holds_its_corrected_accuracy_and_no_higher_one(more, status):
    model = adversarially_trained()
    accuracy = sound("adversarially trained").verdict.corrected
    assert accuracy > 0.4
    found = diagnosed(model, claimed=accuracy + more, eps=0.1).verdict
    assert (found.status, found.reported) == (status, accuracy + more)


@pytest.mark.slow
def test_a_diagnosis_costs_at_most_three_times_its_ensemble():
    found = diagnosed(adversarially_trained(), QUICK, n=200, eps=0.1)
    assert found.forward_passes + found.backward_passes <= 3 * found.ensemble_passes


def test_a_broken_example_has_an_adversarial_image_that_breaks_it():
    model = undefended()
    found = diagnosed(ILLUSIONS["quantised"](model))
    result = found.result
    images, labels = held_out()
    broken = result.broken
    assert (ILLUSIONS["quantised"](model)(result.adversarial[broken]).argmax(1) != labels[broken]).all()
    assert Linf(EPS).contains(result.adversarial[broken], images[broken]).all()


@pytest.mark.usefixtures("short_black_box")
def test_a_sound_bottleneck_holds_in_both_modes(monkeypatch):
    """VIB with a strong bottleneck (β = 0.1), whose stochastic mode averages 12 codes."""
    monkeypatch.setattr(checks_diagnosis, "QUICK", replace(SMALL, restarts=1, steps=40, queries=100, draws=2))
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
    audit = isthmus.audit(
        model, *held_out(12), "linf:0.1", [{"name": "diagnosis", "sample": 12, "ensemble": "apgd:10"}]
    )
    modes = audit.results["diagnosis"].details["modes"]
    assert set(modes) == {"mean", "stochastic"}
    assert {mode: found["verdict"]["status"] for mode, found in modes.items()} == dict.fromkeys(modes, "holds")
