"""The CNN of the SVHN study: its parameters, its start, and what batch normalisation without memory does."""

import pytest
import torch

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.models.backbones import BasicCNN


def build(shape=(1, 32, 32), **options):
    torch.manual_seed(0)
    return BasicCNN(**options).build(shape)


def test_with_ten_classes_it_has_the_papers_parameters():
    """Table 3: 2.0k + 73.7k + 102.4k + 2.6k."""
    net = build()
    assert net.features == 256
    model = isthmus.bottleneck(net, 10, "deterministic", options={"classifier_unit_norm": True})
    assert sum(p.numel() for p in model.parameters()) == 180_906
    sizes = [p.numel() for p in net.parameters() if p.ndim == 4]
    assert sizes == [2048, 73_728, 102_400]


def test_every_unit_starts_with_norm_one():
    model = isthmus.bottleneck(build(), 10, "deterministic", options={"classifier_unit_norm": True})
    for parameter in model.parameters():
        if parameter.ndim > 1:
            assert torch.allclose(parameter.flatten(1).norm(dim=1), torch.ones(len(parameter)), atol=1e-5)
        else:
            assert not parameter.any()


def test_maps_are_those_of_the_table():
    sizes = []
    net = build()
    for layer in net.maps:
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    net(torch.rand(2, 1, 32, 32))
    assert sizes == [(32, 16, 16), (64, 6, 6), (64, 2, 2)]


def test_without_running_averages_an_answer_depends_on_its_batch():
    net = build(batch_norm=True).eval()
    assert not list(net.buffers())
    images = torch.rand(8, 1, 32, 32)
    assert not torch.allclose(net(images)[:2], net(images[:2]), atol=1e-3)
    plain = build().eval()
    assert torch.allclose(plain(images)[:2], plain(images[:2]), atol=1e-5)


def test_small_images_are_refused():
    assert build((1, 28, 28)).features == 64
    with pytest.raises(ConfigError, match="28×28 pixels; these have 27×32"):
        build((1, 27, 32))
