"""Models that change their input, end the program, or change torch's settings: no number is wrong, no exit is 0."""

import os
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks import Linf
from isthmus.attacks.engine import probes
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.core.errors import ModelError
from isthmus.core.types import Status
from isthmus.data import Digits
from isthmus.data.images import as_float

CHECKS = [
    {"name": "diagnosis", "passes": 120},
    "accuracy",
    {"name": "robustness", "levels": 2, "attacks": ["fgsm"]},
    "calibration",
    {"name": "ood_detection", "attacked": 5},
    {"name": "noise_robustness"},
    {"name": "class_prototypes", "steps": 3},
]
CHECKS_OF_CODES = ["information", {"name": "ood_detection", "attacked": 5}]


@pytest.fixture(scope="module")
def data():
    images = as_float(Digits().load().test.images[:24])
    labels = Normalised(False)(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 10
    return images, labels


class Normalised(nn.Module):
    """A linear classifier of normalised images, ``x − 0.5`` over 0.5; in place, as many a model does it, or not."""

    def __init__(self, in_place, noise=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(64, 10, generator=generator) / 8)
        self.in_place, self.noise = in_place, noise

    def forward(self, images):
        x = images.sub_(0.5).div_(0.5) if self.in_place else (images - 0.5) / 0.5
        return x.flatten(1) @ self.weight + self.noise * torch.randn(len(x), 10)


@pytest.mark.parametrize("noise", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_a_model_that_changes_its_input_gets_the_numbers_of_one_that_does_not(data, noise):
    images, labels = data
    given = images.clone()
    checks = CHECKS[1:4] if noise else CHECKS
    one, other = (
        isthmus.audit(Normalised(in_place, noise), images, labels, "linf:0.1", checks) for in_place in (True, False)
    )
    assert torch.equal(images, given)
    for name, result in one.results.items():
        assert result.status == other.results[name].status, name
        assert result.metrics == other.results[name].metrics, name


def test_a_backbone_that_changes_its_input_gets_the_numbers_of_one_that_does_not(data):
    images, labels = data
    given, found = images.clone(), []
    for in_place in (True, False):
        torch.manual_seed(0)
        model = isthmus.bottleneck(Normalised(in_place), 10, objective="vib", dim=4, features=10)
        found.append(isthmus.audit(model, images, labels, "linf:0.1", CHECKS_OF_CODES))
    assert torch.equal(images, given)
    assert found[0].results["information"].metrics == found[1].results["information"].metrics
    assert found[0].results["ood_detection"].metrics == found[1].results["ood_detection"].metrics


class Quits(nn.Module):
    """Ends the program when it has been asked about so many images."""

    def __init__(self, how, after):
        super().__init__()
        self.model, self.how, self.after = Normalised(False), how, after

    def forward(self, images):
        self.after -= len(images)
        if self.after < 0:
            self.how(0)
        return self.model(images)


@pytest.mark.parametrize("how", [sys.exit, lambda code: os._exit(code)], ids=["sys.exit", "os._exit"])
def test_a_model_that_ends_the_program_is_an_error(data, how):
    with pytest.raises(ModelError, match="ends the program"):
        isthmus.audit(Quits(how, 10), *data, "linf:0.1", ["accuracy"])
    with pytest.raises(ModelError, match="ends the program"):
        isthmus.robust_accuracy(Quits(how, 10), *data, "linf:0.1", "fgsm")
    late = isthmus.audit(Quits(how, 300), *data, "linf:0.1", ["accuracy", CHECKS[2]]).results["robustness"]
    assert late.status == Status.ERROR
    assert "ends the program" in late.reason


class Meddler(nn.Module):
    """Changes its own weights and torch's settings whenever it is asked."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        with torch.no_grad():
            self.linear.weight.mul_(1.01)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.backends.cudnn.benchmark = True
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_grad_enabled(True)
        return self.linear(images.to(self.linear.weight.dtype).flatten(1))


def test_weights_and_settings_are_as_before(data):
    def settings():
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.backends.cudnn.benchmark,
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )

    model, before = Meddler(), settings()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    isthmus.robust_accuracy(model, *data, "linf:0.1", "fgsm")
    assert settings() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


class Behaves(Normalised):
    """Does something else besides classifying."""

    def __init__(self, act):
        super().__init__(False)
        self.act = act

    def forward(self, images):
        self.act()
        return super().forward(images)


class Untamed(nn.Sequential):
    """Puts its dropout back into training mode at every call."""

    def forward(self, images):
        self[1].train()
        return super().forward(images)


SIDE_EFFECTS = {
    "input": (lambda: Normalised(True), "in place"),
    "settings": (lambda: Behaves(lambda: torch.set_num_threads(torch.get_num_threads() + 1)), "torch.set_num_threads"),
    "settings cudnn": (lambda: Behaves(lambda: setattr(torch.backends.cudnn, "benchmark", True)), "cudnn.benchmark"),
    "seeds": (lambda: Behaves(lambda: torch.manual_seed(0)), "torch.manual_seed"),
    "seeds numpy": (lambda: Behaves(lambda: np.random.seed(0)), "numpy.random.seed"),  # noqa: NPY002
    "seeds python": (lambda: Behaves(lambda: random.seed(0)), "random.seed"),
    "training_mode": (lambda: Untamed(Normalised(False), nn.Dropout(0.01)), "is still in training mode"),
    "training_mode given": (
        lambda: nn.Sequential(Normalised(False), nn.Dropout()).train(),
        "was given in training mode",
    ),
    "state": (lambda: Cache(), "fresh copy"),
    "random": (lambda: Normalised(False, noise=0.1), "random"),
}


@pytest.mark.parametrize("name", SIDE_EFFECTS)
def test_what_a_model_does_besides_is_said(data, name):
    make, said = SIDE_EFFECTS[name]
    cautions = isthmus.audit(make(), *data, "linf:0.1", ["accuracy"]).cautions
    assert any(caution.about == name.split()[0] and said in caution.text for caution in cautions)
    assert all(caution.level != "error" for caution in cautions)


def test_a_model_that_does_nothing_besides_raises_no_caution(data):
    model = nn.Sequential(Normalised(False), nn.Dropout()).eval()
    assert isthmus.audit(model, *data, "linf:0.1", ["accuracy"]).cautions == ()


class Cache(nn.Module):
    """Answers an image near one of the first 100 it was asked about as it answered that one."""

    def __init__(self):
        super().__init__()
        self.model, self.asked, self.answers = Normalised(False), torch.empty(0, 64), torch.empty(0, 10)

    def forward(self, images):
        logits, flat = self.model(images), images.flatten(1)
        if len(self.asked):
            distance, nearest = torch.cdist(flat, self.asked, p=torch.inf).min(1)
            logits = torch.where((distance < 0.3)[:, None], self.answers[nearest], logits)
        if len(self.asked) < 100:
            self.asked = torch.cat([self.asked, flat.detach()])
            self.answers = torch.cat([self.answers, logits.detach()])
        return logits


def test_a_model_with_a_cache_gets_the_numbers_of_one_without(data):
    images, _ = data
    labels = Normalised(False)(images).argmax(1)
    checks = [CHECKS[0], "accuracy", CHECKS[2]]
    one, other = (isthmus.audit(model, images, labels, "linf:0.1", checks) for model in (Cache(), Normalised(False)))
    assert one.verdict.corrected == other.verdict.corrected < 0.5
    assert one.results["robustness"].metrics == other.results["robustness"].metrics
    tests = {each["test"]: each for each in one.results["diagnosis"].details["modes"]["mean"]["tests"]}
    assert tests["statefulness"]["status"] == "fail"
    assert one.results["diagnosis"].status != Status.PASS


def test_an_attack_on_a_model_with_a_cache_asks_fresh_copies(data):
    images, _ = data
    labels = Normalised(False)(images).argmax(1)
    model = Cache()
    with pytest.warns(UserWarning, match="The model is stateful"):
        found = isthmus.robust_accuracy(model, images, labels, "linf:0.1", "fgsm")
    assert found.accuracy == isthmus.robust_accuracy(Normalised(False), images, labels, "linf:0.1", "fgsm").accuracy < 1
    assert len(model.asked) == 0
    with pytest.warns(UserWarning, match="The model is stateful"):
        assert isthmus.verify(found, model).agrees


class Metered(Normalised):
    """Counts the images that it, or any copy of it, is shown."""

    shown = 0

    def forward(self, images):
        type(self).shown += len(images)
        return super().forward(images)


@pytest.mark.parametrize("budget", [250, 600])
def test_queries_of_copies_count_too(data, budget):
    Metered.shown = 0
    result = isthmus.robust_accuracy(
        Metered(False), *data, "linf:0.1", "square", options=RunOptions(max_queries=budget)
    )
    assert result.exhausted
    assert Metered.shown <= budget


class OwnGenerator(nn.Module):
    """Random, by a generator of its own, whose state is no memory."""

    def __init__(self):
        super().__init__()
        self.model, self.generator = Normalised(False), random.Random(0)

    def forward(self, images):
        return self.model(images) + self.generator.random() * torch.eye(10)[0]


def test_a_generator_of_its_own_is_no_memory(data):
    assert probes.is_stateful(OwnGenerator(), data[0], Linf(0.1)) is False
    assert probes.is_stateful(Normalised(True, noise=1.0), data[0], Linf(0.1)) is False
    assert probes.is_stateful(Cache(), data[0], Linf(0.1)) is True


class Uncopyable(Normalised):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle 'connection' object")


def test_a_model_that_cannot_be_copied_is_not_said_to_be_without_memory(data):
    audit = isthmus.audit(Uncopyable(False), *data, "linf:0.1", [CHECKS[0]])
    tests = {each["test"]: each for each in audit.results["diagnosis"].details["modes"]["mean"]["tests"]}
    assert tests["statefulness"]["status"] == "skipped"
    assert "statefulness" in audit.verdict.untested
