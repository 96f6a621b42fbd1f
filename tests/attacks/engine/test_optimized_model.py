"""Optimised models: faster models of the same function, which attacks use and verification does not."""

import pytest
import torch
from torch import nn

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.engine import optimized_model, probes
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.inputs import examples
from isthmus.core.errors import ModelError
from tests.attacks.attacked_models import Counting, Smooth, pictures


def conv_net(channels: int = 1, **options) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1, **options),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    for norm in (net[1], net[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.uniform_(-1, 1)
    return net.eval()


def images_of(channels: int = 1, n: int = 30, size: int = 9) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def answer(counted_model: CountedModel, images):
    keys = torch.zeros(len(images), dtype=torch.int64)
    return counted_model.query(images, keys, lambda logits: (logits * torch.arange(1.0, 5.0)).sum(1))


@pytest.mark.parametrize(
    ("channels", "options"),
    [(1, {}), (3, {}), (1, {"stride": 2}), (3, {"bias": False}), (1, {"padding": 0}), (3, {"dilation": 2}), (9, {})],
    ids=str,
)
def test_an_optimized_model_has_the_models_logits_and_gradient(channels, options):
    options = {"padding": 1, **options}
    torch.manual_seed(0)
    model = conv_net(channels)
    model[0] = nn.Conv2d(channels, 8, 3, **options)
    images = images_of(channels, size=11)
    counted_model = optimized_model.wrap(model, False, images[:4])
    assert counted_model.optimized_model is not model
    assert not any(isinstance(module, nn.BatchNorm2d) for module in counted_model.optimized_model.modules())
    expected, said = answer(CountedModel(model), images), answer(counted_model, images)
    torch.testing.assert_close(said.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.gradient, expected.gradient, rtol=1e-3, atol=1e-4)


def test_features_are_flattened_as_they_lie_in_memory():
    from isthmus.attacks.engine.optimized_model import FlattenChannelsLast

    model, images = conv_net(), images_of()
    flat = optimized_model.wrap(model, False, images[:4]).optimized_model
    assert sum(isinstance(module, FlattenChannelsLast) for module in flat.modules()) == 1
    twice = nn.Sequential(model[0], model[6], flatten := nn.Flatten(), linear := nn.Linear(32, 32), flatten, linear)
    kept = optimized_model.wrap(twice.eval(), False, images[:4]).optimized_model
    assert not any(isinstance(module, FlattenChannelsLast) for module in kept.modules()), "the layer serves twice"


class InPlace(nn.Module):
    """Normalises its images where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, images):
        return self.net(images.mul_(2).sub_(1))


def test_a_model_that_works_in_place_is_attacked_and_changes_nothing_of_ours():
    model, images = InPlace().eval(), images_of()
    before = images.clone()
    result = robust_accuracy(model, images, model(images.clone()).argmax(1), Linf(0.1), "pgd:5")
    assert torch.equal(images, before)
    assert result.threat.contains(result.adversarial[result.broken], images[result.broken]).all()


def test_the_model_itself_is_left_alone():
    model, images = conv_net(), images_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    robust_accuracy(model, images, model(images).argmax(1), Linf(0.1), ["apgd:5", "square:20"])
    assert [type(module) for module in model][:3] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.is_contiguous()
    assert all(parameter.grad is None for parameter in model.parameters())


class Forked(nn.Module):
    """Takes another way where the image is dark: it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def forward(self, images):
        if images.mean() < 0.5:
            return self.net(images)
        return self.net(images * 1.0)


class Twice(nn.Module):
    """One convolution in two places: batch norm must not be folded into it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.norm.running_mean.fill_(0.3)
        self.head = nn.Linear(81, 3)

    def forward(self, images):
        return self.head(self.norm(self.conv(self.conv(images))).flatten(1))


class Moody(nn.Module):
    """Keeps its answers apart from copies of itself."""

    def __init__(self):
        super().__init__()
        self.net = conv_net()

    def __deepcopy__(self, memo):
        raise RuntimeError("cannot be copied")

    def forward(self, images):
        return self.net(images)


class Viewed(nn.Module):
    """Flattens with view, as most tutorials do."""

    def __init__(self, columns: bool = False) -> None:
        super().__init__()
        self.net, self.columns = conv_net()[:6], columns

    def forward(self, images):
        features = self.net(images)
        flat = features.view(-1, 200) if self.columns else features.view(features.size(0), -1)
        return flat.view_as(flat)[:, :4] + flat.view(torch.float32)[:, 4:8]


@pytest.mark.parametrize("columns", [False, True])
def test_a_model_that_flattens_with_view_has_a_faster_copy(columns, capfd, caplog):
    model, images = Viewed(columns).eval(), images_of()
    counted_model = optimized_model.wrap(model, False, images[:4])
    assert not counted_model.exact
    assert not any(isinstance(module, nn.BatchNorm2d) for module in counted_model.optimized_model.modules())
    expected, said = answer(CountedModel(model), images), answer(counted_model, images)
    torch.testing.assert_close(said.gradient, expected.gradient, rtol=1e-3, atol=1e-4)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_wrong_number_of_channels_is_one_sentence_and_no_traceback(capfd, caplog):
    with pytest.raises(ModelError, match="expected input"):
        robust_accuracy(conv_net(1), images_of(3), torch.zeros(30, dtype=torch.int64), Linf(0.1), "fgsm")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


class ViewedAndForked(Viewed):
    """Can neither be traced nor laid out otherwise."""

    def forward(self, images):
        return super().forward(images if images.mean() < 0.5 else images * 1.0)


def test_a_model_without_a_faster_copy_is_named_once(capfd, caplog):
    model, images = ViewedAndForked().eval(), images_of()
    for _ in range(2):
        assert optimized_model.wrap(model, False, images[:4]).exact
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "No faster copy of ViewedAndForked could be made"
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("make", [Forked, Twice, Moody], ids=lambda make: make.__name__)
def test_models_that_cannot_be_rewritten_are_attacked_all_the_same(make):
    model, images = make().eval(), images_of()
    labels = model(images).argmax(1)
    result = robust_accuracy(model, images, labels, Linf(0.2), ["apgd:10"])
    assert (model(result.adversarial[result.broken]).argmax(1) != labels[result.broken]).all()
    assert result.clean_accuracy == 1


def test_an_optimized_model_with_other_logits_is_not_used(monkeypatch):
    model, images = conv_net(), images_of()
    monkeypatch.setattr(optimized_model, "_rewritten", lambda model, probe: conv_net(padding_mode="circular"))
    monkeypatch.setattr(optimized_model.copy, "deepcopy", lambda model: conv_net(padding_mode="circular"))
    assert optimized_model.wrap(model, False, images[:4]).exact


def test_what_breaks_a_wrong_optimized_model_alone_does_not_count(monkeypatch):
    """Even an optimized model that got past the check: the model itself verifies its successes."""
    model, images = conv_net(), images_of()
    labels = model(images).argmax(1)

    class Wrong(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 4).index_fill(1, torch.tensor([0]), -1) + 0 * images.sum((1, 2, 3))[:, None]

    monkeypatch.setattr(optimized_model, "_optimized", lambda counted, model, probe: Wrong())
    result = robust_accuracy(model, images, labels, Linf(1e-5), ["pgd:5", "square:10"])
    assert result.accuracy == 1


def test_passes_of_optimized_models_are_counted_too():
    counting = Counting(conv_net())
    images = images_of()
    result = robust_accuracy(counting, images, counting(images).argmax(1), Linf(0.05), ["pgd:3"])
    assert counting.forwards - len(images) <= result.forward_passes  # a copy's passes are not the model's own


@pytest.mark.parametrize(("free", "expected"), [(2**40, 256), (2**22, None), (1, 1)])
def test_the_batch_is_what_fits_into_memory(monkeypatch, free, expected):
    monkeypatch.setattr(probes, "_free_memory", lambda device: free)
    model, images = conv_net(), images_of()
    batch = examples(images, torch.zeros(30, dtype=torch.int64))
    size = probes.batch_size(CountedModel(model), batch, torch.device("cpu"))
    assert size == expected or (expected is None and 1 < size < 256)
    assert size & (size - 1) == 0


def test_more_activations_mean_a_smaller_batch(monkeypatch):
    monkeypatch.setattr(probes, "_free_memory", lambda device: 2**22)
    sizes = []
    for pixels in (9, 36):
        images = images_of(size=pixels)
        batch = examples(images, torch.zeros(30, dtype=torch.int64))
        sizes.append(probes.batch_size(CountedModel(conv_net()), batch, torch.device("cpu")))
    assert sizes[1] <= sizes[0] / 8


def test_randomness_is_seen_and_rounding_is_not_taken_for_it():
    images = pictures(8)
    batch = examples(images, torch.zeros(8, dtype=torch.int64))

    class Shaky(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.inner, self.size = Smooth(), size

        def forward(self, images):
            logits = self.inner(images)
            return logits + self.size * torch.randn_like(logits)

    assert probes.is_random(CountedModel(Shaky(0.01)), batch, torch.device("cpu"))
    assert not probes.is_random(CountedModel(Shaky(1e-7)), batch, torch.device("cpu"))
    assert not probes.is_random(CountedModel(Smooth()), batch, torch.device("cpu"))
