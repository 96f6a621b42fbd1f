"""Noise sweeps: known decibels, ratios that are met exactly, closed forms of linear models."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.attacks.noise_sweep import NO_ANSWER, NOISES, NoiseSweep, _onto_sphere, noise_norm
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.information.channel import decibels
from tests.attacks.attacked_models import Counting, Linear, Noisy, pictures, subject
from tests.attacks.test_unbounded import Detached, Overflowing, Stepped, two_classes

RATIOS = [40.0, 25.0, 12.0, 6.0]


class Squeezed(torch.nn.Module):
    """A model behind u ↦ scale·(u − origin)."""

    def __init__(self, model, scale, origin):
        super().__init__()
        self.model, self.scale, self.origin = model, scale, origin

    def forward(self, images):
        return self.model((images - self.origin) * self.scale)


def test_decibels():
    ratios = torch.tensor([1.0, 10.0, 1000.0, 0.0])
    np.testing.assert_allclose(decibels(ratios, torch.ones(4)), [6.0206, 20.8279, 60.0087, 0.0], atol=1e-4)
    assert decibels(torch.tensor(2.0), torch.tensor(0.0)) == torch.inf
    norms = torch.tensor([0.5, 3.0])
    np.testing.assert_allclose(decibels(norms, noise_norm(norms, 17.0)), 17.0, rtol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
def test_every_ratio_is_met(noise):
    model, images, labels = subject(20)
    images[3] *= 0.01  # a faint image gets faint noise
    found = NoiseSweep(noise, RATIOS).run(model, images, labels)
    met = decibels(images.flatten(1).norm(dim=1), found.size)
    np.testing.assert_allclose(met[1:], torch.tensor(RATIOS)[:, None].expand(4, 20), atol=1e-2)
    np.testing.assert_array_equal(found.size[0], 0)
    np.testing.assert_array_equal(found.predicted[0], model(images).argmax(1))


@pytest.mark.parametrize("noise", NOISES)
def test_images_squeezed_into_the_unit_interval_keep_their_ratios(noise):
    """u = x/b + o with the model behind u ↦ b·(u − o): equal answers at equal ratios, and noise b times smaller."""
    model, images, labels = subject(20)
    scale, origin = 4.0, 0.375
    behind = Squeezed(model, scale, origin)
    found = NoiseSweep(noise, RATIOS).run(model, images, labels)
    squeezed = NoiseSweep(noise, RATIOS, origin=origin).run(behind, images / scale + origin, labels)
    np.testing.assert_allclose(squeezed.size * scale, found.size, rtol=1e-4)
    np.testing.assert_array_equal(squeezed.predicted, found.predicted)
    shifted = NoiseSweep(noise, RATIOS).run(behind, images / scale + origin, labels)
    assert (shifted.size[1:] > 1.5 * squeezed.size[1:]).all()  # what takes the shift for signal makes more noise


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 4.0), st.sampled_from([1.0, -1.0]))
def test_the_sphere_is_met_on_the_ray(seed, radius, sign):
    g = torch.Generator().manual_seed(seed)
    centre, delta, u = (torch.randn(3, 2, 2, 2, generator=g, dtype=torch.float64) for _ in range(3))
    delta = delta / delta.flatten(1).norm(dim=1).view(3, 1, 1, 1) * torch.rand(3, 1, 1, 1, generator=g)
    u[0] = sign * delta[0]  # straight out, or straight back through the centre
    u[1] = 0
    met = _onto_sphere(centre + delta, centre, u, torch.full((3,), radius, dtype=torch.float64))
    norms = (met - centre).flatten(1).norm(dim=1)
    np.testing.assert_allclose(norms[[0, 2]], radius, rtol=1e-9)
    torch.testing.assert_close(met[1], centre[1] + delta[1])
    moved = (met - centre - delta).flatten(1)
    alpha = (moved * u.flatten(1)).sum(1) / u.flatten(1).square().sum(1).clamp_min(1e-12)
    assert (alpha[[0, 2]] >= 0).all()
    torch.testing.assert_close(moved, alpha[:, None] * u.flatten(1))


@pytest.mark.parametrize("noise", ["l2", "linf"])
def test_a_linear_model_falls_where_its_boundary_is(noise):
    model, images, far_l2, far_linf = two_classes(24)
    ratios = np.arange(40.0, 5.0, -1.5).tolist()
    found = NoiseSweep(noise, ratios).run(model, images, torch.zeros(24, dtype=torch.int64))
    radii = torch.stack([noise_norm(images.flatten(1).norm(dim=1), snr) for snr in ratios])
    distance = far_l2 if noise == "l2" else far_linf * 4  # a step of s in all of 16 pixels has the norm 4s
    np.testing.assert_array_equal(found.predicted[1:], (radii > distance).long())
    assert 0 < found.predicted[1:].double().mean() < 1


def test_white_noise_is_white_and_new_at_every_ratio():
    """Uniform images: no direction is preferred, and the noise of two ratios has nothing in common."""
    seen = []

    class Sees(Linear):
        def forward(self, images):
            seen.append(images.detach().flatten(1).double())
            return super().forward(images)

    images = torch.full((2000, 1, 4, 4), 0.5)
    sweep = NoiseSweep("white", [12.0, 6.0], batch_size=2000)
    sweep.run(Sees(torch.ones(2, 16)), images, torch.zeros(2000, dtype=torch.int64))
    first, second = (x - 0.5 for x in seen[-2:])
    for noise in (first, second):
        covariance = noise.T @ noise / 2000
        scale = covariance.diagonal().mean()
        torch.testing.assert_close(covariance, scale * torch.eye(16, dtype=torch.float64), atol=0.15 * scale, rtol=0)
    assert torch.nn.functional.cosine_similarity(first, second).mean().abs() < 0.05


@pytest.mark.parametrize("noise", NOISES)
def test_nothing_is_clipped(noise):
    model, images, labels = subject(8)
    reach = []
    model.register_forward_hook(lambda module, given, out: reach.append(given[0].detach().aminmax()))
    NoiseSweep(noise, [6.0]).run(model, images, labels)
    assert min(low for low, _ in reach) < 0
    assert max(high for _, high in reach) > 1


@pytest.mark.parametrize("noise", NOISES)
def test_passes_are_counted_and_batches_change_nothing(noise):
    model, images, labels = subject(10)
    counting = Counting(model)
    progress = []
    sweep = NoiseSweep(noise, RATIOS, batch_size=4)
    found = sweep.run(counting, images, labels, progress=lambda done, of: progress.append(done / of))
    assert (counting.forwards, counting.backwards) == (found.forward_passes, found.backward_passes)
    assert (found.forward_passes, found.backward_passes) == (1 + 10 * 5, 0 if noise == "white" else 10 * 4)
    assert progress == sorted(progress)
    assert progress[-1] == 1
    whole = NoiseSweep(noise, RATIOS).run(model, images, labels)
    np.testing.assert_array_equal(found.predicted, whole.predicted)
    np.testing.assert_allclose(found.size, whole.size, rtol=1e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_an_image_gets_its_own_noise_in_any_company(noise):
    model, images, labels = subject(12)
    noisy = Noisy(model, 0.3)
    whole = NoiseSweep(noise, RATIOS).run(noisy, images, labels, seed=5)
    some = torch.tensor([7, 2, 10])
    part = NoiseSweep(noise, RATIOS).run(noisy, images[some], labels[some], seed=5, indices=some)
    np.testing.assert_array_equal(part.predicted, whole.predicted[:, some])
    other = NoiseSweep(noise, RATIOS).run(noisy, images, labels, seed=6)
    assert (other.predicted != whole.predicted).any()


def test_the_model_is_left_as_it_was():
    model, images, labels = subject(4)
    noisy = Noisy(model, 0.1).train()
    NoiseSweep("l2", RATIOS).run(noisy, images, labels)
    assert noisy.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in noisy.parameters())


def test_an_image_without_gradient_or_signal_stays():
    model, images, labels = subject(6)
    still = NoiseSweep("linf", RATIOS).run(Stepped(model), images, labels)
    np.testing.assert_array_equal(still.size, 0)
    assert (still.predicted == still.predicted[0]).all()
    images[2] = 0
    for noise in NOISES:
        size = NoiseSweep(noise, RATIOS).run(model, images, labels).size
        assert ((size[1:] > 0) == (torch.arange(6) != 2)).all()


def test_an_answer_that_is_not_finite_is_none():
    images = pictures(6)
    found = NoiseSweep("linf", [12.0, 1.0]).run(Overflowing(), images, torch.ones(6, dtype=torch.int64))
    assert (found.predicted[-1] == NO_ANSWER).all()
    assert (found.predicted[0] >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "wite"}, "Did you mean 'white'"),
        ({"loss": "cee"}, "Did you mean 'ce'"),
        ({"ratios": []}, "descend and are above 0"),
        ({"ratios": [10.0, 20.0]}, "descend"),
        ({"ratios": [10.0, 0.0]}, "above 0"),
        ({"ratios": [float("inf"), 1.0]}, "descend"),
        ({"ratios": [float("nan")]}, "descend"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        NoiseSweep(**{"noise": "l2", "ratios": RATIOS} | options)


def test_other_faults_are_named_too():
    model, images, labels = subject(4)
    with pytest.raises(DataError, match="with 3 classes"):
        NoiseSweep("white", RATIOS).run(model, images, labels + 3)
    with pytest.raises(ModelError, match="no gradient"):
        NoiseSweep("l2", RATIOS).run(Detached(model), images, labels)
    assert dataclasses.is_dataclass(NoiseSweep("white", RATIOS).run(Detached(model), images, labels))
