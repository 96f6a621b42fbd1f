import pytest
import torch
from torch import nn

from isthmus.core.config import component
from isthmus.core.errors import ConfigError
from isthmus.models.backbones import MLP, Conv, WideResNet
from isthmus.models.backbones.wide_resnet import blocks_per_group

SMALL = [
    {"name": "mlp"},
    {"name": "conv"},
    {"name": "wide_resnet", "depth": 7, "width": 2},
    {"name": "wide_resnet", "depth": 10, "width": 1, "norm": True, "shortcut": "pad"},
    {"name": "preact_resnet"},
    {"name": "preact_resnet", "hidden": [24, 12]},
    {"name": "resnet"},
    {"name": "strided_conv", "hidden": [24, 12]},
    {"name": "strided_conv", "hidden": []},
    {"name": "lenet5"},
]
ids = ["mlp", "conv", "wrn", "wrn-norm-pad", "preact", "preact-mlp", "resnet", "strided", "strided-front", "lenet5"]


def build(options, shape):
    config = component("backbones", options)
    torch.manual_seed(0)
    return config.build(shape)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("options", SMALL, ids=ids)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 64)], ids=str)
def test_features_are_as_many_as_announced(options, shape):
    net = build(options, shape).eval()
    with torch.no_grad():
        features = net(torch.randn(2, *shape))
    assert features.shape == (2, net.features)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({"name": "wide_resnet", "depth": 28, "width": 10, "norm": True}, (3, 32, 32), 36_479_194 - 6_410),
        # without the 17,952 parameters of its batch norms
        ({"name": "wide_resnet", "depth": 28, "width": 10}, (3, 32, 32), 36_479_194 - 6_410 - 17_952),
        ({"name": "wide_resnet", "depth": 62, "width": 7, "norm": True}, (3, 32, 32), 46_354_138 - 4_490),
        ({"name": "wide_resnet", "depth": 7, "width": 2}, (1, 28, 28), 301_200),
        # VIB's 2,380,810 on MNIST, less 2·256 code parameters and the decoder
        ({"name": "mlp"}, (1, 28, 28), 2_380_810 - 1025 * 512 - 257 * 10),
        # the common 11,171,146 with a 10-class head, and one last batch norm
        ({"name": "preact_resnet"}, (3, 32, 32), 11_171_146 - 5_130 + 1_024),
        # and two layers of 1024 on its 512 features
        (
            {"name": "preact_resnet", "hidden": [1024, 1024]},
            (3, 32, 32),
            11_171_146 - 5_130 + 1_024 + 513 * 1024 + 1025 * 1024,
        ),
        ({"name": "conv"}, (1, 8, 8), 156_048),
        # Guess First's front, and its CNN: the conditioned model's 1,808,993 + 192 less the weights of ten labels into
        # the first layer and the one score
        ({"name": "strided_conv", "hidden": []}, (1, 28, 28), (16 + 1) * 32 + (512 + 1) * 64 + 192),
        ({"name": "strided_conv"}, (1, 28, 28), 1_808_993 + 192 - 10 * 512 - 129),
        # the usual 61,706 without its head of ten classes
        ({"name": "lenet5"}, (1, 28, 28), 61_706 - 850),
    ],
)
def test_parameter_counts(options, shape, expected):
    """Identity 27: among them VIB's MLP, 7×2 with its 0.301 million, and Guess First's network."""
    with torch.device("meta"):  # counts need shapes, not memory
        assert count(build(options, shape)) == expected


@pytest.mark.parametrize(("depth", "width", "features", "millions"), [(28, 10, 640, 36.48), (62, 7, 448, 46.35)])
def test_wide_resnets_reach_the_published_counts_with_their_head(depth, width, features, millions):
    """Identity 27: 28×10 and 62×7."""
    with torch.device("meta"):
        net = build({"name": "wide_resnet", "depth": depth, "width": width, "norm": True}, (3, 32, 32))
    assert net.features == features
    assert round((count(net) + 10 * (features + 1)) / 1e6, 2) == millions


@pytest.mark.parametrize(("depth", "blocks"), [(7, 1), (10, 1), (16, 2), (28, 4), (40, 6), (62, 10)])
def test_one_rule_turns_depth_into_blocks(depth, blocks):
    assert blocks_per_group(depth) == blocks


def test_pad_shortcuts_have_no_parameters():
    conv, pad = (
        build({"name": "wide_resnet", "depth": 7, "width": 2, "shortcut": s}, (1, 8, 8)) for s in ("conv", "pad")
    )
    assert count(conv) - count(pad) == 16 * 32 + 32 * 64 + 64 * 128


@pytest.mark.parametrize("options", SMALL, ids=ids)
def test_channels_last_changes_nothing(options):
    net, images = build(options, (3, 16, 16)).eval(), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        expected = net(images)
        other = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", SMALL, ids=ids)
def test_in_eval_mode_an_image_does_not_see_its_batch(options):
    net, images = build(options, (1, 12, 12)).eval(), torch.randn(6, 1, 12, 12)
    with torch.no_grad():
        alone = torch.cat([net(image.unsqueeze(0)) for image in images])
        torch.testing.assert_close(net(images), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shortcut", "init", "precision"),
    [
        pytest.param("conv", "he", torch.float32, marks=pytest.mark.slow),
        pytest.param("conv", "delta_orthogonal", torch.bfloat16, marks=pytest.mark.slow),  # slow without bf16 units
        pytest.param("pad", "he", torch.bfloat16, marks=pytest.mark.slow),
        ("pad", "delta_orthogonal", torch.float32),
    ],
    ids=str,
)
def test_28x10_without_norm_starts_stably(shortcut, init, precision):
    net = build({"name": "wide_resnet", "shortcut": shortcut, "init": init}, (3, 16, 16))
    head = nn.Linear(net.features, 10)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        features = net(images)
    assert features.dtype == precision
    assert 0.02 < features.float().square().mean().sqrt() < 2
    nn.functional.cross_entropy(head(features.float()), labels).backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    total = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert 1e-2 < total < 1e2


def test_every_layer_of_a_delta_orthogonal_start_has_a_gradient():
    net = build({"name": "wide_resnet", "width": 2, "init": "delta_orthogonal"}, (3, 16, 16))
    net(torch.randn(4, 3, 16, 16)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("options", SMALL[1:4], ids=ids[1:4])
def test_networks_learn(options):
    net = build(options, (1, 8, 8))
    model = nn.Sequential(net, nn.Linear(net.features, 4))
    images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.3


@pytest.mark.parametrize("options", SMALL, ids=ids)
def test_the_whole_network_is_one_graph_for_the_compiler(options):
    net, images = build(options, (1, 8, 8)).eval(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), net(images))


def test_configs_refuse_impossible_networks():
    for backbone, wrong in [(MLP, {"hidden": ()}), (Conv, {"widths": (1, 0, 1)}), (WideResNet, {"depth": 3})]:
        with pytest.raises(ConfigError):
            backbone(**wrong)
