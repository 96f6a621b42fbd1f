import math

import pytest
import torch
from torch import nn

from isthmus.models.backbones.layers import Normalize, conv3x3, delta_orthogonal_, glorot_, he_


def test_symmetric_normalisation_is_2x_minus_1():
    images = torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(Normalize.symmetric()(images), 2 * images - 1)


def test_per_channel_normalisation_standardises_and_travels_with_the_weights():
    images = torch.rand(64, 3, 8, 8)
    layer = Normalize(images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist())
    out = layer(images)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    other = Normalize([0.0] * 3, [1.0] * 3)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(images), out)
    assert not list(layer.parameters())


def test_normalisation_keeps_the_dtype_and_refuses_nonsense():
    assert Normalize.symmetric()(torch.rand(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ValueError, match="positive"):
        Normalize([0.5], [0.0])
    with pytest.raises(ValueError, match="as many"):
        Normalize([0.5, 0.5], [1.0])


def test_initialisers_have_their_scale_and_zero_biases():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 200), nn.Conv2d(32, 64, 3))
    glorot_(net)
    limit = math.sqrt(6 / 500)
    assert net[0].weight.abs().max() <= limit
    assert net[0].weight.detach().std() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    he_(net)
    assert net[1].weight.detach().std() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.02)
    assert not any(layer.bias.any() for layer in net)


def test_delta_orthogonal_convolutions_keep_norms_and_start_as_1x1():
    torch.manual_seed(0)
    widening, narrowing = conv3x3(5, 8, bias=True), conv3x3(8, 5)
    delta_orthogonal_(nn.Sequential(widening, narrowing))
    images = torch.randn(4, 5, 6, 6)
    wide = widening(images)
    torch.testing.assert_close(wide.norm(dim=1), images.norm(dim=1))
    assert (narrowing(wide).norm(dim=1) <= wide.norm(dim=1) + 1e-5).all()
    centre = narrowing.weight[:, :, 1, 1]
    torch.testing.assert_close(centre @ centre.T, torch.eye(5), atol=1e-5, rtol=0)
    assert narrowing.weight.count_nonzero() == centre.numel()
    assert not widening.bias.any()
    assert widening.weight.requires_grad
