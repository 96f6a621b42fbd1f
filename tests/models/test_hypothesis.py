"""Classifiers of label hypotheses: the fast path is naive concatenation, identity 11, and what can be wrong."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.recipe import load_recipe
from isthmus.models import hypothesis as module
from isthmus.models.factory import build
from isthmus.models.injection import Concatenation


def naive(model, images):
    """Concatenate the label of every hypothesis to the features of every image, and run the whole trunk."""
    features = model.features(images)
    injection = model.injection
    scores = []
    for k in range(injection.num_classes):
        label = (torch.eye(injection.num_classes) if injection.embedding is None else injection.embedding.weight)[k]
        if features.dim() == 4:
            label = label[:, None, None].expand(-1, *features.shape[2:])
        whole = torch.cat([features, label.expand(len(features), *label.shape)], 1)
        scores.append(model.trunk(injection.layer(whole)).reshape(-1))
    return torch.stack(scores, 1)


def made(front, trunk, classes, options):
    """A classifier from arguments of `isthmus.hypothesis` and its options together."""
    direct = {name: options[name] for name in ("objective", "normalize", "class_counts") if name in options}
    rest = {name: value for name, value in options.items() if name not in direct}
    return isthmus.hypothesis(front, trunk, classes, **direct, options=rest)


def dense(classes=4, label=None, **options):
    torch.manual_seed(0)
    front = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.BatchNorm1d(7), nn.ReLU())
    trunk = nn.Sequential(nn.Linear(7 + (label or classes), 9), nn.ReLU(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 1))
    return made(front, trunk, classes, options)


def convolutional(classes=4, padding=1, stride=1, label=None, **options):
    torch.manual_seed(0)
    first = nn.Conv2d(1 + (label or classes), 6, 3, stride, padding)
    trunk = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 1))
    return made(nn.Identity(), trunk, classes, options)


def normed():
    trunk = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12 + 4, 6)), nn.ReLU(), nn.Linear(6, 1))
    return isthmus.hypothesis(nn.Flatten(), trunk, 4)


CASES = {
    "dense": lambda: (dense(), (1, 3, 4)),
    "embedded": lambda: (dense(label=3, inject="embed", embedding=3), (1, 3, 4)),
    "image": lambda: (convolutional(), (1, 6, 6)),
    "strided, no padding": lambda: (convolutional(padding=0, stride=2), (1, 7, 6)),
    "image, embedded": lambda: (convolutional(label=2, inject="embed", embedding=2), (1, 5, 5)),
    "parametrized": lambda: (normed(), (1, 3, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fast_path_is_naive_concatenation(name):
    model, shape = CASES[name]()
    images = torch.rand(5, *shape)
    for each in (model.train(), model.eval()):
        again = copy.deepcopy(each)
        torch.testing.assert_close(each(images), naive(again, images), atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(model, model(images)), gradients(model, naive(model, images)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def gradients(model, scores):
    return torch.autograd.grad(scores.square().sum(), list(model.parameters()))


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000), classes=st.integers(2, 7), n=st.integers(1, 6), scale=st.sampled_from([1e-3, 1.0, 1e3])
)
def test_the_fast_path_is_exact_in_float64(seed, classes, n, scale):
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(3 + classes, 4), nn.Tanh(), nn.Linear(4, 1))
    model = isthmus.hypothesis(nn.Flatten(), trunk, classes).double()
    images = scale * torch.rand(n, 1, 1, 3, dtype=torch.float64)
    with torch.no_grad():
        whole = torch.cat(
            [images.flatten(1).repeat_interleave(classes, 0), torch.eye(classes).double().repeat(n, 1)], 1
        )
        expected = trunk[2](trunk[1](trunk[0](whole))).view(n, classes)
        torch.testing.assert_close(model(images), expected, atol=1e-12, rtol=1e-12)


def test_a_projection_to_one_number_is_a_linear_classifier():
    model = isthmus.hypothesis(
        nn.Flatten(), nn.Identity(), 5, options={"inject": "project", "width": 1, "features": 12}
    )
    linear = nn.Linear(12, 5)
    with torch.no_grad():
        linear.weight.copy_(model.injection.weight.squeeze(1))
        linear.bias.copy_(model.injection.bias.squeeze(1).uniform_())
    images = torch.rand(6, 1, 3, 4)
    torch.testing.assert_close(model(images), linear(images.flatten(1)))


def test_projections_are_each_labels_own():
    torch.manual_seed(0)
    model = isthmus.hypothesis(
        nn.Flatten(),
        nn.Sequential(nn.ReLU(), nn.Linear(3, 1)),
        4,
        options={"inject": "project", "width": 3, "features": 6},
    )
    images = torch.rand(5, 1, 2, 3)
    weight, bias = model.injection.weight, model.injection.bias
    each = [model.trunk(images.flatten(1) @ weight[k].T + bias[k]).squeeze(1) for k in range(4)]
    torch.testing.assert_close(model(images), torch.stack(each, 1))


def test_in_pieces_it_is_the_same(monkeypatch):
    model = dense(classes=11).eval()
    images = torch.rand(5, 1, 3, 4, requires_grad=True)
    whole = model(images)
    (gradient,) = torch.autograd.grad(whole.square().sum(), images)
    hidden = model.representations(images)
    monkeypatch.setattr(module, "NUMBERS", 3 * 9 * 5)  # three hypotheses at a time
    pieces = model(images)
    (again,) = torch.autograd.grad(pieces.square().sum(), images)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(again, gradient)
    torch.testing.assert_close(model.representations(images), hidden)
    with torch.no_grad():
        torch.testing.assert_close(model(images), whole)


def dropping():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(12 + 6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
    return isthmus.hypothesis(nn.Flatten(), trunk, 6)


def test_in_pieces_dropout_is_repeated_for_the_gradient(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 1)
    model = dropping().double()
    images = torch.rand(4, 1, 3, 4, dtype=torch.float64, requires_grad=True)

    def scores(each):
        torch.manual_seed(3)
        return model(each)

    assert torch.autograd.gradcheck(scores, images)


def test_in_pieces_checkpoints_know_the_device(monkeypatch):
    """torch's checkpoints restore dropout on the devices of their tensor arguments; a closure has none."""
    handed, real = [], module.checkpoint

    def recorded(function, *given, **options):
        handed.append(given)
        return real(function, *given, **options)

    monkeypatch.setattr(module, "NUMBERS", 1)
    monkeypatch.setattr(module, "checkpoint", recorded)
    dropping()(torch.rand(4, 1, 3, 4))
    assert len(handed) == 6
    assert all(any(isinstance(each, torch.Tensor) for each in given) for given in handed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_in_pieces_dropout_is_repeated_on_its_device(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 1)
    model = dropping().double().cuda()
    images = torch.rand(4, 1, 3, 4, dtype=torch.float64, device="cuda", requires_grad=True)

    def scores(each):
        torch.manual_seed(3)
        return model(each)

    assert torch.autograd.gradcheck(scores, images)


def test_batch_norm_in_the_trunk_sees_all_hypotheses_at_once(monkeypatch):
    def normalised():
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(12 + 6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        return isthmus.hypothesis(nn.Flatten(), trunk, 6)

    images = torch.rand(5, 1, 3, 4)
    whole, split = normalised(), normalised()
    expected = whole(images)
    monkeypatch.setattr(module, "NUMBERS", 1)
    torch.testing.assert_close(split(images), expected)
    torch.testing.assert_close(split.trunk[0].running_mean, whole.trunk[0].running_mean)
    torch.testing.assert_close(split.eval()(images), whole.eval()(images))


@pytest.mark.parametrize("objective", ["donsker_varadhan", "energy_based", "f_divergence"])
def test_identity_11_elimination_moves_the_regularised_layers_alone(objective):
    """With ρ so low that the elimination alone counts; its gradient is what differs from ρ = ∞."""
    torch.manual_seed(1)
    images, labels = torch.rand(20, 1, 3, 4), torch.arange(20) % 4
    model = dense(objective=objective, eliminate=4)
    names, parameters = zip(*model.named_parameters(), strict=True)
    with_it, without = (
        torch.autograd.grad(model.loss(images, labels, rho).total, parameters) for rho in (0.0, math.inf)
    )
    moved = {name for name, a, b in zip(names, with_it, without, strict=True) if (a - b).abs().max() > 1e-8}
    assert moved == {"injection.layer.weight", "injection.layer.bias", "trunk.1.weight", "trunk.1.bias"}
    assert all(bool(gradient.isfinite().all()) for gradient in with_it)


def test_what_is_reported():
    images, labels = torch.rand(40, 1, 3, 4), torch.arange(40) % 4
    model = dense(objective={"name": "donsker_varadhan", "rho": 1.0})
    terms = model.loss(images, labels)
    found = terms.scalars()
    assert found["total"] == pytest.approx(-found["bound"] + math.exp(-1.0) * found["elimination"], rel=1e-5)
    assert terms.weight == pytest.approx(math.exp(-1.0))
    assert {"bound", "elimination", "elimination_unbiased", "i_yz_lower", "ce", "accuracy"} <= set(found)
    scores = model(images)
    assert found["ce"] == pytest.approx(float(nn.functional.cross_entropy(scores, labels).detach()), rel=1e-5)
    plain = model.loss(images, labels, math.inf).scalars()
    assert "elimination" not in plain
    assert plain["total"] == -plain["bound"]


def test_energy_based_is_cross_entropy():
    images, labels = torch.rand(12, 1, 3, 4), torch.arange(12) % 4
    terms = dense(objective="energy_based").loss(images, labels)
    assert float(terms.total.detach()) == pytest.approx(float(terms.ce) - math.log(4), abs=1e-6)


def test_the_prior_is_of_the_training_labels():
    model = dense(class_counts=[30, 10, 10, 10])
    terms = model.loss(torch.rand(4, 1, 3, 4), torch.arange(4))
    entropy = -sum(p * math.log(p) for p in (0.5, 1 / 6, 1 / 6, 1 / 6))
    assert float(terms.i_yz_lower) == pytest.approx(entropy - float(terms.ce), rel=1e-5)


def test_under_bf16_autocast():
    images, labels = torch.rand(16, 1, 3, 4), torch.arange(16) % 4
    for objective in ("donsker_varadhan", "energy_based", "f_divergence"):
        model = dense(objective={"name": objective, "rho": 0.0})
        exact = model.loss(images, labels)
        with torch.autocast("cpu", torch.bfloat16):
            terms = model.loss(images, labels)
        assert terms.total.dtype == torch.float32
        assert float(terms.total.detach()) == pytest.approx(float(exact.total.detach()), abs=0.05)
        terms.total.backward()
        assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


class Twice(nn.Linear):
    def forward(self, features):
        return 2 * super().forward(features)


def behind(first, **options):
    return made(nn.Flatten(), nn.Sequential(first, nn.ReLU(), nn.Linear(4, 1)), 3, options)


def project(**options):
    return made(nn.Flatten(), nn.Identity(), 3, {"inject": "project", "features": 12, **options})


FAULTS = {
    "got num_classes='3'": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(4, 1), "3"),
    "got num_classes=3.0": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(4, 1), 3.0),
    "all images get one prediction": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(15, 1), 3),
    "Twice, has a custom forward or hooks": lambda: behind(Twice(15, 4)),
    "Linear, has a custom forward or hooks": lambda: behind(nn.utils.spectral_norm(nn.Linear(15, 4))),
    "embedding: .*got 0": lambda: behind(nn.Linear(15, 4), inject="embed", embedding=0),
    "width: .*got -1": lambda: project(width=-1),
    "width: .*got 0": lambda: project(width=0),
    "class_counts has 2 numbers for 3 classes": lambda: behind(nn.Linear(15, 4), class_counts=[1, 2]),
    "eliminate=-1 of a trunk of 3 modules: give 1 to 3": lambda: behind(nn.Linear(15, 4), eliminate=-1),
    "eliminate=4 of a trunk": lambda: behind(nn.Linear(15, 4), eliminate=4),
    "elimination_weight must be 0 .* got -1": lambda: dense(
        objective={"name": "energy_based", "elimination_weight": -1}
    ),
    "two classes": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(4, 1), 1),
    "inject: Input should be": lambda: isthmus.hypothesis(
        nn.Flatten(), nn.Linear(4, 1), 3, options={"inject": "concat"}
    ),
    "does not score label hypotheses": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(4, 1), 3, objective="ceb"),
    "begins with ReLU": lambda: isthmus.hypothesis(nn.Flatten(), nn.Sequential(nn.ReLU()), 3),
    "begins with nothing": lambda: isthmus.hypothesis(nn.Flatten(), nn.Sequential(), 3),
    "the label alone needs 3": lambda: isthmus.hypothesis(nn.Flatten(), nn.Linear(3, 1), 3),
    "one group": lambda: isthmus.hypothesis(nn.Identity(), nn.Conv2d(4, 2, 3, groups=2), 3),
    "number of features": lambda: isthmus.hypothesis(nn.Flatten(), nn.Identity(), 3, options={"inject": "project"}),
    "eliminate=9": lambda: dense(objective={"name": "energy_based", "rho": 0}, eliminate=9),
    "give only one of rho, elimination_weight": lambda: dense(
        objective={"name": "energy_based", "rho": 0, "elimination_weight": 1}
    ),
    "use isthmus.hypothesis": lambda: isthmus.bottleneck(nn.Flatten(), 4, "donsker_varadhan", features=12),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_one_sentence(message):
    with pytest.raises((ConfigError, ModelError), match=message):
        FAULTS[message]()


CALLS = {
    "takes 2 dimensions": lambda: isthmus.hypothesis(nn.Identity(), nn.Sequential(nn.Linear(15, 1), nn.ReLU()), 3)(
        torch.rand(2, 1, 3, 4)
    ),
    "takes 4 dimensions": lambda: behind(nn.Conv2d(4, 1, 3))(torch.rand(2, 1, 3, 4)),
    "second has 12": lambda: behind(nn.Linear(15, 4))(torch.rand(2, 1, 3, 3)),
    "end in one number": lambda: isthmus.hypothesis(nn.Flatten(), nn.Sequential(nn.Linear(15, 2), nn.ReLU()), 3)(
        torch.rand(2, 1, 3, 4)
    ),
    "a row for each image": lambda: isthmus.hypothesis(nn.Flatten(0), nn.Sequential(nn.Linear(15, 1), nn.ReLU()), 3)(
        torch.rand(2, 1, 3, 4)
    ),
    "projections take": lambda: isthmus.hypothesis(
        nn.Flatten(), nn.Identity(), 3, options={"inject": "project", "width": 1, "features": 5}
    )(torch.rand(2, 1, 3, 4)),
}


@pytest.mark.parametrize("message", CALLS)
def test_what_does_not_fit_is_said_when_it_runs(message):
    with pytest.raises(ModelError, match=message):
        CALLS[message]()


def test_elimination_weight_is_e_to_the_minus_rho():
    model = dense(objective={"name": "energy_based", "elimination_weight": 0.1})
    assert model.loss(torch.rand(12, 1, 3, 4), torch.arange(12) % 4).weight == pytest.approx(0.1)
    none = dense(objective={"name": "energy_based", "elimination_weight": 0})
    assert none.loss(torch.rand(12, 1, 3, 4), torch.arange(12) % 4).elimination is None


def test_the_layer_keeps_its_place():
    """Layers of the trunk keep their identity."""
    layer = nn.Linear(12 + 3, 4)
    model = behind(layer)
    assert isinstance(model.injection, Concatenation)
    assert model.injection.layer is layer


def of_recipe(objective="energy_based", **options):
    recipe = {"name": "a", "data": "digits", "model": {"backbone": {"name": "mlp", "hidden": [10]}}}
    recipe["model"]["hypothesis"] = options
    return build(load_recipe(recipe | {"objective": objective}), (1, 8, 8), 3)


@pytest.mark.parametrize("inject", ["concatenate", "embed", "project"])
@pytest.mark.parametrize(
    ("hidden", "eliminate", "width"),
    [([8], None, 8), ([8, 6], None, 8), ([8, 6, 4], None, 6), ([8, 6, 4], 1, 8), ([8, 6, 4], 3, 4)],
)
def test_a_recipe_eliminates_from_the_layer_it_names(inject, hidden, eliminate, width):
    """After its ReLU."""
    model = of_recipe(inject=inject, hidden=hidden, eliminate=eliminate)
    images = torch.rand(12, 1, 8, 8)
    found = model.representations(images)
    assert found.shape == (3, 12, width)
    assert bool((found >= 0).all())
    assert bool((found == 0).any())
    assert model(images).shape == (12, 3)
    linear = [layer for layer in model.trunk if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*hidden[1:], 1]


def test_a_recipe_without_hidden_layers_is_a_linear_classifier():
    model = of_recipe(inject="project", hidden=[])
    images = torch.rand(5, 1, 8, 8)
    features = model.features(images)
    torch.testing.assert_close(model(images), features @ model.injection.weight[:, 0].T + model.injection.bias.T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": []}, "inject=concatenate adds each label's number .* all images get one prediction"),
        ({"hiden": [3]}, "no key 'hiden'. Did you mean 'hidden'"),
        ({"hidden": [4], "eliminate": 2}, "eliminate=2 exceeds the 1 hidden"),
        ({"hidden": [], "inject": "project", "objective": {"name": "ceb", "rho": 2}}, "'ceb' does not score"),
        ({"hidden": [], "inject": "project", "objective": {"name": "energy_based", "rho": 2}}, "hidden has none"),
    ],
)
def test_faults_of_recipes_are_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        of_recipe(**options)
