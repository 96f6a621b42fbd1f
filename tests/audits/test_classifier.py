"""Adopting anybody's model: what fits the contract, and one clear sentence for what does not."""

import pytest
import torch
from torch import nn

import isthmus
from isthmus.audits import classifier
from isthmus.core.errors import ModelError
from isthmus.models.modes import AveragedDraws, StochasticMode

IMAGES = torch.rand(4, 1, 8, 8)


def vib() -> nn.Module:
    return isthmus.bottleneck(nn.Flatten(), 10, "vib", dim=3, features=64)


def linear(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        return self.value(images)


def fails(error):
    raise error


def test_a_plain_model_is_adopted():
    found = classifier.adopt(linear().train(), IMAGES)
    assert (found.num_classes, found.bottleneck, found.stochastic) == (10, None, None)
    assert not found.model.training


def test_a_bottleneck_brings_its_stochastic_mode():
    model = isthmus.bottleneck(nn.Flatten(), 10, "vib", dim=3, features=64, options={"samples": 20})
    found = classifier.adopt(model, IMAGES)
    assert found.bottleneck is model
    assert found.stochastic.samples == 20
    assert (
        classifier.adopt(isthmus.bottleneck(nn.Flatten(), 10, "deterministic", features=64), IMAGES).stochastic is None
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, "is an nn.Module"),
        (Returns(lambda x: (x, x)), "returned tuple"),
        (Returns(lambda x: x), r"shape \(2, 1, 8, 8\) for 2 images; expected \(2, classes\)"),
        (Returns(lambda x: x.flatten(1)[:, :0]), "binary classifier"),
        (Returns(lambda x: x.flatten(1) * float("nan")), "NaN or infinities"),
        (nn.Linear(3, 3), "fails on images of shape"),
        (Returns(lambda x: x.flatten(1) if len(x) == 2 else fails(ValueError("a batch is 2"))), "a batch is 2"),
        (Returns(lambda x: fails(AssertionError("only 32x32"))), "fails on images of .*only 32x32"),
        (Returns(lambda x: fails(KeyError("x"))), "fails on images of .*KeyError"),
    ],
)
def test_misfits_are_explained(model, message):
    with pytest.raises(ModelError, match=message):
        classifier.adopt(model, IMAGES)


def test_fingerprints_see_weights_buffers_and_class():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    before = classifier.fingerprint(model)
    assert classifier.fingerprint(model) == before
    model[1].running_mean += 1
    assert classifier.fingerprint(model) != before


def test_fingerprints_take_extra_state():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"scale": 3}

        def set_extra_state(self, state):
            pass

    assert len(classifier.fingerprint(Extra(2, 2))) == 64


def test_structure_sees_layers_but_no_addresses():
    relu, tanh = (nn.Sequential(nn.Flatten(), act) for act in (nn.ReLU(), nn.Tanh()))
    assert classifier.fingerprint(relu) == classifier.fingerprint(tanh)
    assert classifier.structure(relu) != classifier.structure(tanh)

    class Printed(nn.Module):
        def extra_repr(self):
            return repr(object())

    one, other = Printed(), Printed()
    one.kept, other.kept = object(), object()
    assert classifier.structure(one) == classifier.structure(other)


class TestAnswers:
    logits = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))

    def same(self, other):
        return classifier.same_answers(classifier.answers(self.logits), classifier.answers(other))

    def test_rounding_does_not_change_them(self):
        assert self.same(self.logits + 1e-6 * torch.randn(500, 10))

    def test_a_temperature_a_single_answer_and_an_order_do(self):
        assert not self.same(self.logits * 1.001)
        one = self.logits.clone()
        one[17] = one[17].flip(0)
        assert not self.same(one)
        one = self.logits.clone()
        one[17] = torch.nan
        assert not self.same(one)
        assert not self.same(self.logits.flip(1))
        assert not classifier.same_answers((), ())


class Tossing(nn.Module):
    """One coin a pass decides between two answers."""

    def forward(self, images):
        return images.flatten(1)[:, :3] * (1.0 if torch.rand(()) < 0.5 else 2.0)


class TestModelsThatAnswerAtRandom:
    @pytest.mark.parametrize(
        "model",
        [
            nn.Sequential(nn.Flatten(), Returns(lambda x: torch.dropout(x, 0.5, True))),
            nn.Sequential(nn.Flatten(), Returns(lambda x: x + 1e-2 * torch.randn_like(x))),
            Tossing(),
        ],
    )
    def test_they_are_seen_and_averaged(self, model):
        before = torch.get_rng_state()
        found = classifier.adopt(model, IMAGES)
        assert torch.equal(torch.get_rng_state(), before)
        assert isinstance(found.model, AveragedDraws)
        assert found.draws == found.model.samples == 12
        assert not found.model.training
        assert found.fingerprint == classifier.fingerprint(model)

    def test_others_are_left_as_they_are(self):
        for model in (linear(), nn.Sequential(linear(), nn.Dropout()).train(), StochasticMode(vib(), 12).eval()):
            found = classifier.adopt(model, IMAGES)
            assert found.model is model
            assert found.draws == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("freeze", [False, True])
def test_script_modules_are_audited(freeze):
    model = torch.jit.script(linear().eval())
    model = torch.jit.freeze(model) if freeze else model
    audit = isthmus.audit(model, IMAGES, [0, 1, 2, 3], "linf:0.1", ["accuracy", "robustness"])
    assert audit.results["robustness"].metrics


class OfShape(nn.Module):
    """Takes images with this many channels only."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, 3, 1)

    def forward(self, images):
        return self.layer(images).mean((2, 3))


@pytest.mark.parametrize(
    ("channels", "shape", "remedy"),
    [
        (1, (2, 3, 4, 4), "It works with one channel; a folder of grey images takes the option channels: 1."),
        (3, (2, 1, 4, 4), "It works with three channels: images.expand"),
        (3, (2, 4, 4, 3), "It works with channels before height and width: images.permute"),
        (2, (2, 4, 4, 3), r"to have 2 channels, but got 4 channels instead \(RuntimeError\)\.$"),
    ],
)
def test_images_of_another_layout_are_recognised(channels, shape, remedy):
    with pytest.raises(ModelError, match=remedy):
        classifier.adopt(OfShape(channels), torch.rand(shape))
