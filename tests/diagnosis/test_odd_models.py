"""Models that answer in other ways than with differentiable logits of several classes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.illusions import ILLUSIONS
from tests.diagnosis.trained_digits import (
    SMALL,
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
from isthmus import metrics
from isthmus.attacks import Linf
from isthmus.attacks.engine.inputs import examples
from isthmus.core.types import Metric
from isthmus.diagnosis import diagnose as battery
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnose import NEED_GRADIENTS
from isthmus.diagnosis.finding import Finding
from isthmus.diagnosis.verdict import verdict


def finding(found, test):
    return next(each for each in found.findings if each.test == test)


class Probabilities(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).softmax(1)


def test_probabilities_are_recognised_and_attacked_as_logits():
    found = examined(Probabilities(undefended()))
    assert finding(found, "outputs").status == "fail"
    assert found.verdict.corrected <= 0.03


class Numpy(nn.Module):
    """What a model behind numpy, ONNX or a service looks like: no gradient, and nothing to follow."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        linear = model[1]
        self.weight, self.bias = linear.weight.numpy(), linear.bias.numpy()

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(images.detach().numpy().reshape(len(images), -1) @ self.weight.T + self.bias)


def test_a_model_without_any_gradient_is_attacked_without_and_the_verdict_says_so():
    linear = fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    found = examined(Numpy(linear), eps=0.1)
    assert found.verdict.status == "undecided"
    assert "only attacks without one could be tried" in found.verdict.reason
    assert {each.test for each in found.findings if each.status == "skipped"} >= set(NEED_GRADIENTS)
    assert "without" in finding(found, "outputs").reason
    assert set(found.verdict.untested) == {name.replace("_", " ") for name in NEED_GRADIENTS}
    assert "not tested: gradients" in found.verdict.reason
    assert examined(Numpy(linear), eps=0.1, claimed=0.9).verdict.status in ("overstated", "broken")


class TwoClasses(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return torch.stack([logits[:, :5].logsumexp(1), logits[:, 5:].logsumexp(1)], 1)


def test_two_classes():
    images, labels = held_out(60)
    suspect = DiagnosisContext(TwoClasses(undefended()), examples(images, (labels >= 5).long()), Linf(0.1), SMALL)
    found = diagnose(suspect)
    assert found.verdict.status == "holds"
    assert "DLR is undefined" in finding(found, "outputs").reason


class Integers(nn.Module):
    """Only the class, as an integer one-hot."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(self.model(images).argmax(1), 10)


def test_labels_alone_are_seen_through():
    found = examined(Integers(undefended()))
    assert (found.verdict.status, found.verdict.corrected) == ("broken", 0.0)
    assert found.verdict.reported > 0.8


class LabelsOutside(nn.Module):
    """Only the class, from outside torch: nothing to differentiate, and no logits that a search could climb."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            labels = self.model(images.detach()).argmax(1).tolist()
        return torch.tensor([[float(label == each) for each in range(10)] for label in labels])


def test_decisions_alone_are_the_last_resort():
    """Of a network that keeps nearly nothing; searches that climb logits leave more."""
    budget = replace(SMALL, queries=400)
    base = isthmus.robust_accuracy(undefended(), *held_out(40), Linf(0.2), "fast").accuracy
    found = examined(LabelsOutside(undefended()), budget, n=40, eps=0.2)
    assert list(found.follow_ups)[-1] == "decisions"
    assert found.follow_ups["decisions"].value < found.follow_ups["search"].value
    assert found.verdict.corrected <= base + 0.03
    assert found.verdict.status == "broken"


class InTraining(nn.Module):
    """Batch norm that was told to stay in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.net = conv_net()

    def forward(self, images: Tensor) -> Tensor:
        self.norm.train()
        return self.net(self.norm(images))


def test_batch_norm_in_training_mode_is_noticed():
    model = InTraining()
    fit(model, epochs=8)
    found = examined(model)
    assert finding(found, "companions").status == "fail"


class OffGrid(nn.Module):
    """Answers images whose pixels are sixteenths, as clean ones' are, and all others with one constant."""

    def __init__(self, model: nn.Module, answer: float) -> None:
        super().__init__()
        self.model, self.answer = model, answer

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        off = ((images * 16 - (images * 16).round()).abs().flatten(1).amax(1) > 1e-3)[:, None]
        return torch.where(off, self.answer, logits)


@pytest.mark.parametrize("answer", [0.0, float("nan")])
def test_a_detector_of_attacked_pixels_is_seen_through_on_the_grid(answer):
    model = OffGrid(undefended(), answer)
    found = examined(model)
    assert found.verdict.corrected <= 0.03
    assert found.follow_ups["on_grid"].value <= 0.03
    witnesses = found.result.adversarial[found.result.broken]
    with torch.no_grad():
        assert (model(witnesses).argmax(1) != held_out()[1][found.result.broken]).all()
    assert Linf(0.3).contains(witnesses, held_out()[0][found.result.broken]).all()


class Nearest(nn.Module):
    """Looks for the nearest image it knows, and answers for that one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("known", digits()[0][:1400])

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.flatten(1), self.known.flatten(1)).argmin(1)
        return self.model(self.known[nearest])


def test_a_model_that_snaps_to_known_images_falls_to_other_images():
    found = examined(Nearest(undefended()))
    assert found.verdict.status in ("overstated", "broken")
    assert found.verdict.corrected <= 0.05


class Spoiled(nn.Module):
    """Logits that keep their order, and little else."""

    def __init__(self, model: nn.Module, spoil) -> None:
        super().__init__()
        self.model, self.spoil = model, spoil

    def forward(self, images: Tensor) -> Tensor:
        return self.spoil(self.model(images))


SPOILED = {
    "one-hot": lambda z: nn.functional.one_hot(z.argmax(1), 10).float(),
    "hard and huge": lambda z: 1e9 * (2 * nn.functional.one_hot(z.argmax(1), 10).float() - 1),
    "tiny": lambda z: 1e-6 * z,
    "probabilities of probabilities": lambda z: (50 * z).softmax(1).log_softmax(1),
    "rounded": lambda z: (10 * z).round() / 10,
    "one class masked": lambda z: torch.cat([z, torch.full_like(z[:, :1], -1e9)], 1),
    "temperature": lambda z: 1e4 * z,
}


@pytest.fixture(scope="module")
def defended():
    """A network that keeps something, and how much: the strong ensemble's word."""
    model = fit(conv_net(), epochs=30, eps=0.1)
    return model, isthmus.robust_accuracy(model, *held_out(), Linf(0.15), "standard").accuracy


def test_gradients_of_nan_hide_no_more_of_a_network_that_keeps_something(defended):
    model, left = defended
    assert examined(BadGradient(model, float("nan")), eps=0.15).verdict.corrected <= left + 0.03


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_left_of_spoiled_logits_is_what_is_left_of_the_network(name, defended):
    model, left = defended
    assert 0.3 < left < 0.7
    found = examined(Spoiled(model, SPOILED[name]), eps=0.15)
    assert found.verdict.corrected <= left + 0.03
    if found.verdict.reported > left + 0.1:
        assert found.verdict.status == "overstated"


class NeverAlone(nn.Module):
    """Batch norm over features, in training mode: a single image has no variance."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm = conv_net(), nn.BatchNorm1d(10, affine=False, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.net(images))


def test_a_model_that_cannot_answer_a_single_image_is_judged_in_constant_company():
    model = fit(NeverAlone(), epochs=8)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(held_out(1)[0])
    found = examined(model, n=40)
    assert finding(found, "companions").status == "fail"
    assert "the same 7 others" in finding(found, "companions").reason
    assert not [each for each in found.findings if each.status == "error"]
    assert found.verdict.corrected <= 0.05


class Bad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, what):
        ctx.what = what
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, ctx.what), None


class BadGradient(nn.Module):
    """A backward pass of NaN or infinity, at images that are not clean or everywhere."""

    def __init__(self, model: nn.Module, what: float) -> None:
        super().__init__()
        self.model, self.what = model, what

    def forward(self, images: Tensor) -> Tensor:
        return self.model(Bad.apply(images, self.what))


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_hide_nothing(what):
    found = examined(BadGradient(undefended(), what))
    assert finding(found, "gradients").status == "fail"
    assert found.verdict.corrected == 0.0
    if math.isnan(what):  # infinity has a sign, and PGD a direction
        assert "NaN or infinity" in finding(found, "gradients").reason
        assert found.verdict.status == "broken"
        assert found.verdict.reported > 0.8


class Silent(nn.Module):
    """NaN for three images of ten, clean ones too, and an honest answer for all others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        silent = (1000 * images.flatten(1).sum(1, keepdim=True)).sin() < -0.59
        return torch.where(silent, torch.nan, self.model(images))


def test_answers_that_are_not_finite_hide_nothing_and_are_not_right():
    model = Silent(undefended())
    with torch.no_grad():
        answered = model(held_out()[0]).isfinite().all(1)
    found = examined(model)
    assert 0.5 < answered.double().mean() < 0.9
    assert found.verdict.reported == pytest.approx(answered.double().mean().item(), abs=0.1)
    assert (found.verdict.status, found.verdict.corrected) == ("broken", 0.0)
    assert not found.usual[~answered].any()
    assert finding(found, "gradients").metrics["lost"].value > 0.5
    witnesses = found.result.adversarial[found.result.broken & answered]
    assert not witnesses.isnan().any()
    with torch.no_grad():  # a sum in another batch rounds differently
        assert model(witnesses).isfinite().all(1).double().mean() > 0.9


def test_a_test_that_fails_is_told_and_the_others_still_run(monkeypatch):
    def fails(suspect):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setitem(battery.BEFORE, "surface", fails)
    monkeypatch.setitem(battery.follow_up.FIRST, "bpda", fails)
    found = examined(ILLUSIONS["quantised"](undefended()))
    assert finding(found, "surface").status == "error"
    assert finding(found, "surface").reason == "ZeroDivisionError: by nothing"
    assert found.follow_ups["bpda"].note == "ZeroDivisionError: by nothing"
    assert "surface" in found.verdict.untested
    assert found.verdict.corrected <= 0.03


class FailsAfter(nn.Module):
    """A service that answers so many images, and no more."""

    def __init__(self, model: nn.Module, images: int) -> None:
        super().__init__()
        self.model, self.left = model, [images]

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle 'socket' object")

    def forward(self, images: Tensor) -> Tensor:
        self.left[0] -= len(images)
        if self.left[0] < 0:
            raise ConnectionError("quota exceeded")
        return self.model(images)


def test_nothing_holds_whose_tests_broke_off():
    honest = adversarially_trained()
    found = examined(FailsAfter(honest, 4_000), n=20, eps=0.1)
    assert found.verdict.status == "undecided"
    assert "ensemble" in found.verdict.untested
    assert "broke off" in found.verdict.reason
    assert examined(FailsAfter(honest, 10**9), n=20, eps=0.1).verdict.status == "holds"


class HardLabels(nn.Module):
    """One hard label of two classes, as a single number."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return (logits[:, 5:].logsumexp(1) > logits[:, :5].logsumexp(1)).float()[:, None]


def test_nothing_holds_where_no_attack_is_shown_to_work(monkeypatch):
    """All attacks are blind: many images stand even where every image can be the same grey."""
    for remedies in (battery.follow_up.FIRST, battery.follow_up.LAST):
        for name in remedies:
            monkeypatch.setitem(remedies, name, lambda suspect: None)
    monkeypatch.setitem(battery.AFTER, "black_box", lambda suspect: Finding(test="black_box", status="pass", reason=""))
    images, labels = held_out(60)
    asked = {"name": "diagnosis", "ensemble": "fgsm"}
    told = isthmus.audit(HardLabels(undefended()), images, (labels >= 5).long(), "linf:0.1", [asked]).verdict
    assert told.corrected > 0.8
    assert told.status == "undecided"
    assert "no attack broke more" in told.reason


def measured(right: int, n: int) -> Metric:
    return metrics.accuracy(np.arange(n) < right)


def test_a_report_that_surely_exceeds_what_is_left_is_overstated_whoever_made_it():
    """A digit classifier keeps 52 of 100 images against PGD and 34 against all attacks: the paired gap is certain."""
    usual, left = np.arange(100) < 52, np.arange(100) < 34
    margin = metrics.paired_difference(left, usual)
    told = verdict(None, measured(52, 100), measured(34, 100), margin, 0.1, failed=("ensemble", "restarts"))
    assert told.status == "overstated"
    assert "18.0 points more" in told.reason
    assert "failed tests: ensemble, restarts" in told.reason
    assert verdict(0.52, measured(52, 100), measured(34, 100), margin, 0.1).status == "overstated"
    same = verdict(0.40, measured(52, 100), measured(34, 100), margin, 0.1)
    assert (same.status, "not shown to differ" in same.reason) == ("holds", True)
    few = metrics.paired_difference(np.arange(100) < 50, usual)
    some = verdict(None, measured(52, 100), measured(50, 100), few, 0.1, failed=("restarts",))
    assert (some.status, "2.0 points more" in some.reason or "not shown to differ" in some.reason) == ("holds", True)


@pytest.mark.parametrize("status", ["overstated", "broken"])
def test_doubts_excuse_no_number_that_is_too_high(status):
    left = 34 if status == "overstated" else 0
    margin = metrics.paired_difference(np.arange(100) < left, np.arange(100) < 52)
    told = verdict(0.52, measured(52, 100), measured(left, 100), margin, 0.1, doubts=("restarts broke off",))
    assert told.status == status


def test_doubts_leave_a_number_that_may_be_right_undecided():
    margin = metrics.paired_difference(np.arange(100) < 34, np.arange(100) < 52)
    told = verdict(0.34, measured(52, 100), measured(34, 100), margin, 0.1, doubts=("restarts broke off",))
    assert (told.status, "restarts broke off" in told.reason) == ("undecided", True)


def test_an_audit_of_a_claim_that_does_not_hold():
    images, labels = held_out(60)
    audit = isthmus.audit(undefended(), images, labels, "linf:0.3", ["diagnosis"], claimed="60%")
    assert audit.verdict.status == "broken"
    assert (audit.verdict.reported, audit.verdict.corrected) == (0.6, 0.0)
    result = audit.results["diagnosis"]
    assert result.status == "fail"
    broken = result.arrays["broken"]
    with torch.no_grad():
        answers = undefended()(torch.from_numpy(result.arrays["adversarial"])).argmax(1).numpy()
    assert (answers != labels.numpy()[broken]).all()
    assert np.array_equal(np.flatnonzero(~result.arrays["corrected_robust"]), broken)
