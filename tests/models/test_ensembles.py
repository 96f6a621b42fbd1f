"""Ensembles and MC dropout: what they average, their gradients, and that a call repeats from its keys."""

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks.engine.optimized_model import wrap
from isthmus.audits.classifier import adopt
from isthmus.core.errors import ConfigError, ModelError
from isthmus.models.ensembles import MCDropout
from isthmus.models.external import title
from isthmus.models.outputs import LogProbabilities

KEYS = torch.arange(6)
IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def linear(seed, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes)).eval()


def dropout(p=0.5, classes=3, layer=nn.Dropout):
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), layer(p), nn.Linear(16, classes)).eval()


def test_an_ensemble_is_the_mean_of_probabilities():
    models = [linear(seed) for seed in range(3)]
    expected = torch.stack([model(IMAGES).softmax(1) for model in models]).mean(0)
    found = isthmus.ensemble(models)(IMAGES)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(isthmus.ensemble(models[:1])(IMAGES), models[0](IMAGES).log_softmax(1))


def test_members_may_answer_in_other_ways():
    class Named(nn.Module):
        def forward(self, images):
            return {"logits": linear(1)(images)}

    whole = isthmus.ensemble([linear(0), Named(), linear(2).half()])
    expected = torch.stack([linear(seed)(IMAGES).softmax(1) for seed in range(3)]).mean(0)
    torch.testing.assert_close(whole(IMAGES).exp(), expected, atol=1e-3, rtol=0)
    binary = isthmus.ensemble([linear(0, 1), linear(1, 1)])
    expected = torch.stack([linear(seed, 1)(IMAGES).sigmoid() for seed in range(2)]).mean(0)
    torch.testing.assert_close(binary(IMAGES).exp()[:, 1:], expected)


def test_models_are_named_as_one_ensemble():
    names = [f"torch.nn:{kind},in_features=4,out_features=3" for kind in ("Linear", "LazyLinear")]
    names[1] = names[1].replace("in_features=4,", "")
    whole = isthmus.load_model("ensemble:" + ",".join(names))
    assert [type(member.model).__name__ for member in whole.members] == ["Linear", "LazyLinear"]
    assert title("ensemble:" + ",".join(names)).startswith("ensemble-of-2-")
    assert title("ensemble:a.py:build,b.py:build") == "ensemble-a.build-b.build"
    with pytest.raises(ConfigError, match="two models or more"):
        isthmus.load_model("ensemble:torch.nn:Linear,in_features=4,out_features=3")


def test_what_cannot_be_averaged_is_refused():
    many = torch.rand(8, 1, 2, 2)
    certain = nn.Sequential(linear(0), nn.Softmax(1))
    with pytest.raises(ModelError, match=r"Model 1 of the ensemble \(from 0\) returns probabilities"):
        isthmus.ensemble([linear(0), certain])(many)
    torch.testing.assert_close(
        isthmus.ensemble([linear(0), LogProbabilities(certain)])(many), linear(0)(many).log_softmax(1)
    )
    with pytest.raises(ModelError, match="has 4 classes, and the first 3"):
        isthmus.ensemble([linear(0), linear(0, 4)])(many)
    with pytest.raises(ModelError, match="at least one model"):
        isthmus.ensemble([])


def test_an_attack_breaks_the_ensemble_where_the_closed_form_says():
    """Members with the same weights: the ensemble is linear, and robust where |margin| > ε·‖w₁ − w₀‖₁."""
    model = linear(3, 2)
    images = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    logits = model(images).detach()
    margin = (logits[:, 1] - logits[:, 0]).abs()
    whole = isthmus.ensemble([model, linear(3, 2)])
    result = isthmus.robust_accuracy(whole, images, logits.argmax(1), "linf:0.05", ["pgd"])
    assert result.accuracy == pytest.approx((margin > 0.05 * weight.abs().sum()).double().mean().item())


def test_attacks_use_a_faster_copy_of_convolutional_members():
    def member(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
        return net.eval().requires_grad_(False)

    whole = isthmus.ensemble([member(0), member(1)]).eval()
    traced = torch.fx.symbolic_trace(whole)
    torch.testing.assert_close(traced(IMAGES), whole(IMAGES))
    faster = wrap(whole, False, IMAGES[:4]).optimized_model
    assert faster is not whole
    assert not any(isinstance(module, nn.BatchNorm2d) for module in faster.modules()), "folded"


def test_mc_dropout_averages_over_masks():
    model = dropout()
    many = isthmus.mc_dropout(model, samples=1500)(IMAGES, keys=KEYS)
    torch.testing.assert_close(many.exp().sum(1), torch.ones(6))
    for module in model.modules():
        module.train(isinstance(module, nn.Dropout))
    with torch.random.fork_rng():
        expected = torch.stack([model(IMAGES).softmax(1) for _ in range(1500)]).mean(0)
    model.eval()
    torch.testing.assert_close(many.exp(), expected, atol=0.03, rtol=0)
    assert not torch.allclose(many, model(IMAGES).log_softmax(1), atol=1e-3)


def test_masks_belong_to_images_and_not_to_the_batch():
    view = isthmus.mc_dropout(dropout(), samples=4)
    whole = view(IMAGES, keys=KEYS)
    torch.testing.assert_close(
        torch.cat([view(IMAGES[row : row + 1], keys=KEYS[row : row + 1]) for row in range(6)]), whole
    )
    assert not torch.allclose(view(IMAGES, keys=KEYS + 1), whole)
    first = view(IMAGES)
    assert not torch.allclose(view(IMAGES), first), "without keys every call draws anew"
    assert not any(module._forward_hooks for module in view.modules())


def test_channels_are_dropped_whole():
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Dropout2d(0.5))
    seen = []
    model = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model[1].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    isthmus.mc_dropout(model, samples=1)(IMAGES, keys=KEYS)
    zero = seen[0] == 0
    assert torch.equal(zero.flatten(2).all(2), zero.flatten(2).any(2))
    assert 0 < zero.double().mean() < 1
    kept = net[0](IMAGES) * 2
    np.testing.assert_allclose(seen[0][~zero].detach(), kept[~zero].detach(), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear(0), "no layer nn.Dropout"),
        (dropout(p=0.0), "no layer nn.Dropout"),
        (dropout(layer=nn.AlphaDropout), "has AlphaDropout"),
    ],
)
def test_models_without_dropout_are_refused(model, message):
    with pytest.raises(ModelError, match=message):
        isthmus.mc_dropout(model)
    with pytest.raises(ModelError, match="at least one sample"):
        isthmus.mc_dropout(dropout(), samples=0)


class Sequence(nn.Module):
    """Dropout over the parts of an image as rows."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(images.reshape(-1, 2)).reshape(len(images), 4)


def test_rows_that_are_no_images_are_refused():
    with pytest.raises(ModelError, match="sees 12 rows for 6 images"):
        isthmus.mc_dropout(Sequence())(IMAGES)


def test_an_audit_takes_them_as_one_model_each():
    images = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(2))
    model = dropout(p=0.3)
    view = isthmus.mc_dropout(model, samples=4)
    assert isinstance(adopt(view, images).model, MCDropout)
    labels = model(images).argmax(1)
    checks = ["accuracy", {"name": "calibration", "resamples": 20}]
    for given in (view, isthmus.ensemble([view, linear(0)])):
        one, again = (isthmus.audit(given, images, labels, "linf:0.02", checks, progress=False) for _ in range(2))
        assert not {result.status.value for result in one.results.values()} & {"error", "skipped"}
        assert again.results["calibration"].metrics == one.results["calibration"].metrics
    result = isthmus.robust_accuracy(view, images[:5], labels[:5], "linf:0.02", ["pgd:3"])
    assert result.one_evaluation.n == 5, "three robust accuracies, as of every random model"
