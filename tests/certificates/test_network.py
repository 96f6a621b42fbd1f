"""Reading a classifier: what can be bounded is read exactly, and everything else is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import isthmus
from isthmus.attacks.threats import Linf
from isthmus.certificates.network import CannotCertify, read
from isthmus.certificates.regions import Box
from isthmus.models.backbones.layers import Normalize
from tests.certificates.small_networks import KINDS, all_bounds, make, margins_of, pictures


class Functions(nn.Module):
    """A network of functions and methods instead of modules."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.shift = nn.Parameter(torch.randn(4, 1, 1))
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = functional.conv2d((x - 0.5) / 0.25, self.weight, stride=1, padding=1)
        x = functional.max_pool2d(functional.relu(x, inplace=True), 2) * 0.5 + self.shift
        x = functional.dropout(functional.avg_pool2d(x, kernel_size=2, ceil_mode=False), 0.5, self.training)
        x = 1 - torch.tanh(x).view(x.size(0), -1)
        x = functional.linear(x, self.linear.weight, self.linear.bias)
        return functional.leaky_relu(x, 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_computes_the_models_logits(kind):
    model, images = make(kind, 1), pictures(5, 1)
    exact = images.double()
    low, high = read(model, images).intervals(Box(exact, exact))[-1]
    assert torch.allclose((low + high) / 2, model(images).double(), atol=1e-5)


def test_functions_are_read_as_modules_are():
    torch.manual_seed(0)
    model, images = Functions().eval(), pictures(5, 1)
    exact = images.double()
    low, high = read(model, images).intervals(Box(exact, exact))[-1]
    assert torch.allclose((low + high) / 2, model(images).double(), atol=1e-5)


def test_normalisation_in_front_of_a_model_is_read():
    model = isthmus.normalized(make("convolutions", 0), 0.13, 0.31)
    images = pictures(4, 0)
    labels = model(images).argmax(1)
    found = all_bounds(model, images, labels, Linf(1e-4))
    assert torch.allclose(found["crown"], margins_of(model(images), labels), atol=1e-2)


@pytest.mark.parametrize("objective", ["deterministic", {"name": "vib", "rho": 1}, {"name": "ceb", "rho": 1}])
def test_the_mean_mode_of_a_bottleneck_is_read(objective):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU())
    options = {"dim": 5, "classifier": "linear"}
    model = isthmus.bottleneck(backbone, 3, objective, features=8, normalize=((0.5,), (0.5,)), options=options).eval()
    images = pictures(4, 0)
    labels = model(images).argmax(1)
    found = all_bounds(model, images, labels, Linf(1e-4))["crown"]
    reached = margins_of(model(images), labels)
    assert torch.allclose(found, reached, atol=1e-2)
    assert bool((found <= reached).all())


class Reused(nn.Module):
    """Changes a value in place that it uses again."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(36, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.last(torch.relu_(x) + x)


class Aliased(nn.Module):
    """Changes a value in place through a view of it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(36, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.last(functional.relu(x.view(-1, 8), inplace=True) + x)


class Gated(nn.Module):
    """Multiplies two values of the images."""

    def forward(self, x):
        return x.flatten(1)[:, :3] * x.flatten(1)[:, 3:6]


class Branching(nn.Module):
    """Depends on the images by control flow."""

    def forward(self, x):
        return x.flatten(1)[:, :3] if x.sum() > 0 else -x.flatten(1)[:, :3]


class Counting(nn.Module):
    """Depends on a value that torch.fx does not see."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(36, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x.flatten(1)) * self.calls


class MyLinear(nn.Linear):
    """A subclass with another forward pass."""

    def forward(self, x):
        return torch.erf(super().forward(x))


def sequence(*layers):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), *layers)


def hooked():
    model = make("dense", 0)
    model[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def spectral():
    return sequence(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3)))


REFUSED = [
    (lambda: sequence(nn.Softmax(1)), r"2 \(Softmax\)"),
    (lambda: sequence(nn.ELU()), r"2 \(ELU\)"),
    (lambda: sequence(nn.LayerNorm(8)), r"2 \(LayerNorm\)"),
    (lambda: sequence(nn.LeakyReLU(1.5)), r"2 \(LeakyReLU\)"),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()), r"0 \(Conv2d\)"),
    (lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=-3), nn.Flatten()), r"0 \(AvgPool2d\)"),
    (lambda: nn.Sequential(nn.MaxPool2d(4, ceil_mode=True), nn.Flatten()), r"0 \(MaxPool2d\)"),
    (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36, track_running_stats=False)), r"1 \(BatchNorm1d\)"),
    (lambda: sequence(MyLinear(8, 3)), "erf"),
    (spectral, r"ParametrizedLinear"),
    (hooked, "forward hook"),
    (Reused, "in place"),
    (Aliased, "in place"),
    (Gated, "getitem"),
    (Branching, "cannot trace"),
    (Counting, "not those of its traced layers"),
    (lambda: sequence(nn.Linear(8, 1)), "two logits"),
    (lambda: make("dense", 0).half(), "float16"),
    (lambda: make("dense", 0).double(), "float64"),
    (lambda: isthmus.mc_dropout(sequence(nn.Dropout(), nn.Linear(8, 3))), "random"),
]


@pytest.mark.parametrize(("build", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_bounded_is_refused_by_name(build, reason):
    torch.manual_seed(0)
    model = build().eval()
    with pytest.raises(CannotCertify, match=f"cannot certify: .*{reason}"):
        read(model, pictures(4, 0))


def test_a_consistent_classifier_is_refused():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(36, 8))
    model = isthmus.bottleneck(backbone, 3, "ceb", features=8, options={"dim": 4, "classifier": "consistent"}).eval()
    with pytest.raises(CannotCertify, match="backward encoder"):
        read(model, pictures(4, 0))


def test_reading_leaves_a_model_as_it_was():
    model = nn.Sequential(Normalize([0.5], [0.5]), *make("batch norm", 0)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    read(model, pictures(4, 0))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
