"""Models that answer in other ways than with differentiable logits of several classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from trained_digits import SMALL, conv_net, examined, fit, held_out, undefended

import isthmus
from isthmus.attacks import Linf
from isthmus.attacks.inputs import examples
from isthmus.obfuscation.battery import NEED_GRADIENTS, diagnose
from isthmus.obfuscation.suspect import Suspect


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
    assert found.verdict.status == "holds"
    assert {each.test for each in found.findings if each.status == "skipped"} >= set(NEED_GRADIENTS)
    assert "without" in finding(found, "outputs").reason
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
    suspect = Suspect(TwoClasses(undefended()), examples(images, (labels >= 5).long()), Linf(0.1), SMALL)
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


def test_labels_alone_give_no_gradient_and_no_score_but_a_verdict():
    found = examined(Integers(undefended()))
    assert found.verdict.status in ("overstated", "broken", "holds")
    assert found.verdict.corrected < found.verdict.reported_metric.n


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


def test_an_audit_of_a_claim_that_does_not_hold():
    images, labels = held_out(60)
    audit = isthmus.audit(undefended(), images, labels, "linf:0.3", ["obfuscation"], claimed="60%", data="digits")
    assert audit.verdict.status == "broken"
    assert (audit.verdict.reported, audit.verdict.corrected) == (0.6, 0.0)
    result = audit.results["obfuscation"]
    assert result.status == "fail"
    broken = result.arrays["broken"]
    with torch.no_grad():
        answers = undefended()(torch.from_numpy(result.arrays["witnesses"])).argmax(1).numpy()
    assert (answers != labels.numpy()[broken]).all()
    assert np.array_equal(np.flatnonzero(~result.arrays["corrected_standing"]), broken)
