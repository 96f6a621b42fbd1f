"""Diagnosis of models that do not return differentiable logits of several classes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from benchmarks.illusions import ILLUSIONS
from isthmus.attacks import APGD, PGD, Linf
from isthmus.attacks.engine.inputs import examples
from isthmus.checks import diagnosis as checks_diagnosis
from isthmus.diagnosis import follow_ups
from isthmus.diagnosis.budget import QUICK
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnose import diagnose
from isthmus.diagnosis.diagnostic_result import DiagnosticResult
from isthmus.diagnosis.follow_ups import FOLLOW_UPS, FollowUp
from isthmus.diagnosis.tests import TESTS, DiagnosticTest
from tests.diagnosis.trained_digits import SMALL, TINY, adversarially_trained, diagnosed, fit, held_out, undefended
from tests.diagnosis.unusual_models import (
    BatchNormInTraining,
    FunctionModel,
    FunctionOfLogits,
    GradientOf,
    LabelsOutsideTorch,
    LimitedService,
    NearestTrainingImage,
    NearlyUniform,
    NeverSingle,
    NoisySlopes,
    NumpyLinear,
    RejectsOffGrid,
    SometimesNaN,
    hard_binary_label,
    two_classes,
)

NEED_GRADIENTS = {name for name, test in TESTS.items() if test.needs_gradient}


def result_of(diagnosis, test):
    return next(each for each in diagnosis.tests if each.test == test)


@pytest.mark.parametrize("scale", [1, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (30, 1000))])
def test_probabilities_are_recognised_and_attacked_as_logits(scale):
    """Of large logits, most probabilities are exactly 0 or 1, and their gradients vanish."""
    found = diagnosed(FunctionOfLogits(undefended(), lambda z: (scale * z).softmax(1)))
    assert result_of(found, "outputs").status == "warn"
    assert found.verdict.corrected <= 0.03
    assert found.verdict.status == ("holds" if scale == 1 else "broken")


@pytest.mark.usefixtures("short_black_box")
def test_a_model_without_gradients_is_attacked_without_them_and_undecided():
    linear = fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    found = diagnosed(NumpyLinear(linear), TINY, n=20, eps=0.1)
    assert found.verdict.status == "undecided"
    assert result_of(found, "outputs").status == "warn"
    assert {each.test for each in found.tests if each.status == "skipped"} >= NEED_GRADIENTS
    assert set(found.verdict.untested) == {name.replace("_", " ") for name in NEED_GRADIENTS}
    assert all(name in found.verdict.reason for name in found.verdict.untested)
    claim = diagnosed(NumpyLinear(linear), replace(SMALL, passes=600), claimed=0.9, n=20, eps=0.1)
    assert claim.verdict.status in ("overstated", "broken")


NO_GRADIENT = {
    "images detached": lambda model: FunctionModel(lambda x: model(x.detach())),
    "logits detached": lambda model: FunctionModel(lambda x: model(x).detach()),
    "no_grad": lambda model: FunctionModel(torch.no_grad()(model.forward)),
    "numpy": lambda model: FunctionModel(
        lambda x: torch.from_numpy(model(torch.from_numpy(x.detach().numpy())).numpy())
    ),
    "lists": lambda model: FunctionModel(lambda x: torch.tensor(model(torch.tensor(x.tolist())).tolist())),
}
"""Models without a gradient of their own; BPDA gives one to all but the last."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_model_without_its_own_gradient_is_undecided_and_attacked_at_every_eps(name, monkeypatch):
    monkeypatch.setattr(checks_diagnosis, "QUICK", SMALL)
    images, labels = held_out(20)
    strong = [isthmus.robust_accuracy(undefended(), images, labels, Linf(eps), "fast").accuracy for eps in (0.03, 0.06)]
    model = NO_GRADIENT[name](undefended())
    checks = ["diagnosis", {"name": "robustness", "levels": 2}]
    audit = isthmus.audit(model, images, labels, "linf:0.06", checks)
    assert audit.verdict.status == "undecided"
    assert "gradient" in [caution.about for caution in audit.cautions]
    tolerance = 0.1 if name == "lists" else 0.03
    for eps, accuracy in zip((0.03, 0.06), strong, strict=True):
        found = audit.results["robustness"].metrics.one("robust_accuracy", mode="mean", norm="linf", eps=eps)
        assert accuracy - 1e-9 <= found.value <= accuracy + tolerance
    with pytest.raises(isthmus.IsthmusError, match="square"):
        isthmus.robust_accuracy(model, images, labels, "linf:0.06", "pgd")
    assert isthmus.robust_accuracy(model, images, labels, "linf:0.06", "square:300").accuracy < 0.95


@pytest.mark.usefixtures("short_black_box")
def test_two_classes():
    images, labels = held_out(60)
    model = FunctionOfLogits(undefended(), two_classes)
    found = diagnose(DiagnosisContext(model, examples(images, (labels >= 5).long()), Linf(0.1), TINY))
    assert found.verdict.status == "holds"
    assert "DLR" in result_of(found, "outputs").reason


def test_integer_labels_hide_nothing():
    found = diagnosed(FunctionOfLogits(undefended(), lambda z: nn.functional.one_hot(z.argmax(1), 10)))
    assert (found.verdict.status, found.verdict.corrected) == ("broken", 0.0)
    assert found.verdict.reported > 0.8


@pytest.mark.usefixtures("short_black_box")
def test_the_decision_based_attack_runs_last_and_breaks_what_a_search_on_logits_cannot():
    base = isthmus.robust_accuracy(undefended(), *held_out(20), Linf(0.2), "fast").accuracy
    found = diagnosed(LabelsOutsideTorch(undefended()), TINY, n=20, eps=0.2)
    assert list(found.follow_ups)[-1] == "decision_based"
    assert found.follow_ups["decision_based"].value < found.follow_ups["random_search"].value
    assert found.verdict.corrected <= base + 0.03
    assert found.verdict.status == "broken"


def test_batch_norm_in_training_mode_is_noticed():
    model = BatchNormInTraining()
    fit(model, epochs=8)
    assert result_of(diagnosed(model), "batch_dependence").status == "fail"


def test_a_model_that_cannot_classify_a_single_image_is_evaluated_in_a_fixed_batch():
    model = fit(NeverSingle(), epochs=8)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(held_out(1)[0])
    found = diagnosed(model, n=40)
    result = result_of(found, "batch_dependence")
    assert result.status == "fail"
    assert "7 others" in result.reason
    assert not [each for each in found.tests if each.status == "error"]
    assert found.verdict.corrected <= 0.05


@pytest.mark.parametrize("constant", [0.0, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_a_model_that_rejects_pixels_off_the_grid_is_broken_on_the_grid(constant):
    model = RejectsOffGrid(undefended(), constant)
    images, labels = held_out(20)
    found = diagnosed(model, n=20)
    assert found.verdict.corrected <= 0.03
    assert found.follow_ups["on_grid"].value <= 0.03
    broken = found.result.broken
    adversarial = found.result.adversarial[broken]
    with torch.no_grad():
        assert (model(adversarial).argmax(1) != labels[broken]).all()
    assert Linf(0.3).contains(adversarial, images[broken]).all()


def test_a_nearest_neighbour_classifier_is_broken_by_other_images():
    found = diagnosed(NearestTrainingImage(undefended()), n=40)
    assert found.verdict.status in ("overstated", "broken")
    assert found.verdict.corrected <= 0.05


DISTORTED = {
    "one-hot": lambda z: nn.functional.one_hot(z.argmax(1), 10).float(),
    "hard and huge": lambda z: 1e9 * (2 * nn.functional.one_hot(z.argmax(1), 10).float() - 1),
    "tiny": lambda z: 1e-6 * z,
    "probabilities of probabilities": lambda z: (50 * z).softmax(1).log_softmax(1),
    "rounded": lambda z: (10 * z).round() / 10,
    "one class masked": lambda z: torch.cat([z, torch.full_like(z[:, :1], -1e9)], 1),
    "temperature": lambda z: 1e4 * z,
}
"""Functions of the logits that keep their order."""


@pytest.fixture(scope="module")
def defended():
    """A network that is partly robust, and its accuracy against strong attacks."""
    model = adversarially_trained()
    suite = [APGD(), APGD(loss="dlr", targets=3)]
    return model, isthmus.robust_accuracy(model, *held_out(), Linf(0.15), suite).accuracy


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("hard and huge", "temperature") else [])
        for name in DISTORTED
    ],
)
def test_distorted_logits_hide_nothing(name):
    assert diagnosed(FunctionOfLogits(undefended(), DISTORTED[name]), n=40).verdict.corrected == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTORTED)
def test_distorted_logits_have_the_robustness_of_the_network(name, defended):
    model, accuracy = defended
    assert 0.3 < accuracy < 0.7
    found = diagnosed(FunctionOfLogits(model, DISTORTED[name]), eps=0.15)
    assert found.verdict.corrected <= accuracy + 0.03
    if found.verdict.reported > accuracy + 0.1:
        # one-hot logits have no gradient of their own
        assert found.verdict.status == ("undecided" if name == "one-hot" else "overstated")


@pytest.mark.slow
def test_nan_gradients_have_the_robustness_of_the_network(defended):
    model, accuracy = defended
    assert diagnosed(GradientOf(model, float("nan")), eps=0.15).verdict.corrected <= accuracy + 0.03


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_hide_nothing(value):
    found = diagnosed(GradientOf(undefended(), value))
    assert result_of(found, "gradients").status == "fail"
    assert found.verdict.corrected == 0.0
    if math.isnan(value):  # infinity has a sign, and PGD a direction
        assert result_of(found, "gradients").metrics["lost"].value > 0.5
        assert found.verdict.status == "broken"
        assert found.verdict.reported > 0.8


def test_logits_that_are_not_finite_hide_nothing_and_count_as_errors():
    model = SometimesNaN(undefended())
    with torch.no_grad():
        valid = model(held_out()[0]).isfinite().all(1)
    found = diagnosed(model)
    assert 0.5 < valid.double().mean() < 0.9
    assert 0.4 < found.verdict.reported <= valid.double().mean()  # PGD loses most examples to NaN
    assert (found.verdict.status, found.verdict.corrected) == ("broken", 0.0)
    assert not found.baseline_robust[~valid].any()
    assert result_of(found, "gradients").metrics["lost"].value > 0.5
    adversarial = found.result.adversarial[found.result.broken & valid]
    assert not adversarial.isnan().any()
    with torch.no_grad():  # a sum in another batch rounds differently
        assert model(adversarial).isfinite().all(1).double().mean() > 0.9


def test_averaged_gradients_come_close_to_the_best_perturbation_of_a_noisy_model():
    """A perturbation must reach 84% of the largest possible one; APGD on averaged draws breaks 5 of the 8 examples."""
    labels, eps = torch.zeros(8, dtype=torch.int64), 0.1
    model = NoisySlopes(needed=0.84 * eps)
    context = DiagnosisContext(model, examples(torch.full((8, 1, 8, 8), 0.5), labels), Linf(eps), QUICK)
    follow_ups.eot(context)
    assert context.best.robust.sum() <= 1


@pytest.mark.parametrize("options", [{"noise": 1e-6}, {"takes_keys": True}], ids=["noise", "keys"])
def test_a_random_model_with_nearly_uniform_probabilities_is_no_more_robust(options):
    suite, (images, labels) = [PGD(steps=20, loss="margin")], held_out(20)
    expected = isthmus.robust_accuracy(undefended(), images, labels, Linf(0.08), suite)
    assert 0 < expected.accuracy < 1
    found = isthmus.robust_accuracy(NearlyUniform(undefended(), **options), images, labels, Linf(0.08), suite)
    assert found.random
    assert found.accuracy == expected.accuracy


def test_if_a_test_raises_an_error_the_others_still_run(monkeypatch):
    def fails(context):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setitem(TESTS, "loss_surface", DiagnosticTest(fails, "cheap"))
    monkeypatch.setitem(FOLLOW_UPS, "bpda", FollowUp(fails))
    found = diagnosed(ILLUSIONS["quantised"](undefended()), n=40)
    assert result_of(found, "loss_surface").status == "error"
    assert result_of(found, "loss_surface").reason == "ZeroDivisionError: by nothing"
    assert found.follow_ups["bpda"].note == "ZeroDivisionError: by nothing"
    assert "loss surface" in found.verdict.untested
    assert found.verdict.corrected <= 0.03


@pytest.mark.usefixtures("short_black_box")
def test_a_model_whose_tests_raise_errors_is_undecided():
    model = adversarially_trained()
    found = diagnosed(LimitedService(model, 4_000), n=20, eps=0.1)
    assert found.verdict.status == "undecided"
    assert "ensemble" in found.verdict.untested
    assert diagnosed(LimitedService(model, 10**9), TINY, n=20, eps=0.1).verdict.status == "holds"


def test_a_model_on_which_no_attack_is_shown_to_work_is_undecided(monkeypatch):
    """No follow-up attack runs, and most examples are robust even at the ε that can turn every image grey."""
    for name in FOLLOW_UPS:
        monkeypatch.setitem(FOLLOW_UPS, name, replace(FOLLOW_UPS[name], run=lambda context: None))
    passes = DiagnosticTest(lambda context: DiagnosticResult(test="black_box", status="pass", reason=""), "ensembles")
    monkeypatch.setitem(TESTS, "black_box", passes)
    images, labels = held_out(60)
    model, check = FunctionOfLogits(undefended(), hard_binary_label), {"name": "diagnosis", "ensemble": "fgsm"}
    verdict = isthmus.audit(model, images, (labels >= 5).long(), "linf:0.1", [check]).verdict
    assert verdict.corrected > 0.8
    assert verdict.status == "undecided"


def test_an_audit_of_a_claim_that_does_not_hold():
    images, labels = held_out(60)
    audit = isthmus.audit(undefended(), images, labels, "linf:0.3", ["diagnosis"], claimed="60%")
    assert audit.verdict.status == "broken"
    assert (audit.verdict.reported, audit.verdict.corrected) == (0.6, 0.0)
    result = audit.results["diagnosis"]
    assert result.status == "fail"
    broken = result.arrays["broken"]
    with torch.no_grad():
        predictions = undefended()(torch.from_numpy(result.arrays["adversarial"])).argmax(1).numpy()
    assert (predictions != labels.numpy()[broken]).all()
    assert np.array_equal(np.flatnonzero(~result.arrays["corrected_robust"]), broken)
