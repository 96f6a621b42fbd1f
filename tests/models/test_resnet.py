import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isthmus.core.config import component
from isthmus.core.errors import ConfigError
from isthmus.models.backbones.resnet import PostActivationBlock, ResNet


def on_meta(depth, width=1, channels=3):
    with torch.device("meta"):
        return ResNet(depth=depth, width=width).build((channels, 224, 224))


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("depth", "published"), [(50, 25_557_032), (101, 44_549_160), (152, 60_192_808)])
def test_counts_are_torchvisions_with_a_head_of_1000_classes(depth, published):
    net = on_meta(depth)
    assert net.features == 2048
    assert count(net) + 1000 * (2048 + 1) == published


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(50, 1, 24), (50, 2, 94), (101, 1, 43), (101, 2, 170), (152, 1, 58), (152, 2, 233)],
)
def test_widths_have_the_sizes_of_simclr_v2(depth, width, millions):
    """Its table fits with the running statistics counted: https://github.com/google-research/simclr."""
    net = on_meta(depth, width)
    assert net.features == 2048 * width
    running = sum(2 * norm.num_features for norm in net.modules() if isinstance(norm, nn.BatchNorm2d))
    assert round((count(net) + running) / 1e6) == millions


def test_twice_as_wide_is_twice_the_channels_of_every_layer():
    one, two = on_meta(152).state_dict(), on_meta(152, 2).state_dict()
    assert list(one) == list(two)
    for name, weight in one.items():
        images = name == "conv1.weight"  # whose inputs stay three
        channels = [size * (1 if images and axis else 2) for axis, size in enumerate(weight.shape[:2])]
        assert list(two[name].shape) == [*channels, *weight.shape[2:]], name


def torchvision_names(blocks):
    """The parameters and buffers of torchvision's ResNets of bottlenecks, without the head."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    yield from ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for layer, repeats in enumerate(blocks, 1):
        for block in range(repeats):
            place = f"layer{layer}.{block}"
            for i in (1, 2, 3):
                yield from [f"{place}.conv{i}.weight", *(f"{place}.bn{i}.{part}" for part in norm)]
            if block == 0:
                yield from [f"{place}.downsample.0.weight", *(f"{place}.downsample.1.{part}" for part in norm)]


@pytest.mark.parametrize(("depth", "blocks", "entries"), [(50, (3, 4, 6, 3), 318), (152, (3, 8, 36, 3), 930)])
def test_weights_are_named_as_torchvisions(depth, blocks, entries):
    names = list(on_meta(depth).state_dict())
    assert names == list(torchvision_names(blocks))
    assert len(names) == entries  # 320 and 932 with the head's two


def reference(weights, images, blocks):
    """ResNet v1.5 in eval mode, written from the names of its weights."""

    def convolve(x, conv, norm, stride=1, padding=0):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=padding)
        statistics = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics)

    x = F.max_pool2d(convolve(images, "conv1", "bn1", 2, 3).relu(), 3, 2, 1)
    for layer, repeats in enumerate(blocks, 1):
        for block in range(repeats):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = convolve(x, f"{at}.conv1", f"{at}.bn1").relu()
            y = convolve(y, f"{at}.conv2", f"{at}.bn2", stride, 1).relu()
            y = convolve(y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = convolve(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = (x + y).relu()
    return x.mean((2, 3))


def test_loaded_weights_compute_what_their_names_say():
    torch.manual_seed(0)
    net = ResNet(depth=50).build((3, 64, 64)).eval()
    weights = net.state_dict()
    for name, weight in weights.items():
        if name.endswith(("running_var", "bn3.weight", "downsample.1.weight")):
            weights[name] = 0.5 + torch.rand_like(weight)
        elif name.endswith(("running_mean", "bias")):
            weights[name] = 0.1 * torch.randn_like(weight)
    head = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    net.load_state_dict({name: w for name, w in (weights | head).items() if not name.startswith("fc.")})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), reference(weights, images, (3, 4, 6, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("depth", "size", "zero_init"), [(50, 224, True), (152, 64, True), (152, 224, True), (50, 64, False)]
)
def test_training_starts_sanely(depth, size, zero_init):
    torch.manual_seed(0)
    net = ResNet(depth=depth, zero_init=zero_init).build((3, size, size))
    features = net(torch.randn(2, 3, size, size))
    assert features.shape == (2, net.features)
    assert 0.05 < features.square().mean().sqrt() < 20
    nn.functional.cross_entropy(nn.Linear(2048, 10)(features), torch.arange(2)).backward()
    gradients = torch.stack([parameter.grad.norm() for parameter in net.parameters()])
    assert gradients.isfinite().all()
    assert 1e-2 < gradients.norm() < 1e3


def test_zero_init_starts_every_block_as_its_shortcut():
    torch.manual_seed(0)
    block = next(b for b in ResNet().build((3, 64, 64)).layer2[1:] if isinstance(b, PostActivationBlock))
    x = torch.rand(2, 512, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_a_depth_that_is_not_there_is_explained():
    with pytest.raises(ConfigError, match=r"backbone resnet: depth: Input should be 50, 101 or 152 \(got 18\)"):
        component("backbones", {"name": "resnet", "depth": 18})
