"""Loss surfaces of models whose cross-entropy is a formula, and the diamond that the ball is."""

import pytest
import torch
from torch import nn

from isthmus.attacks import Linf, robust_accuracy
from isthmus.attacks.loss_surface import SurfaceGrid, WorstSigns, random_signs
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys

SHAPE = (1, 4, 4)
KEYS = example_keys(0, torch.arange(3))


class Linear(nn.Module):
    """Logits (0, w·(x − ½))."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.w = nn.Parameter(scale * torch.linspace(-1, 1.3, 16))

    def forward(self, images):
        score = (images.flatten(1) - 0.5) @ self.w
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.fixture
def images():
    return 0.3 + 0.4 * torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 1])


def surface(model, images, eps=0.1, labels=LABELS, keys=None, **options):
    first, second = random_signs(KEYS, SHAPE), random_signs(KEYS, SHAPE, True)
    return SurfaceGrid(eps, **options).measure(model, images, labels, first, second, keys)


def test_the_surface_of_a_linear_model_is_its_formula(images):
    model = Linear()
    found = surface(model, images, steps=4)
    d1, d2 = random_signs(KEYS, SHAPE), random_signs(KEYS, SHAPE, True)
    assert not torch.equal(d1, d2)
    for row, i, j in ((0, 0, 3), (1, 6, 6), (2, 12, 1)):
        moved = images[row] + float(found.offsets[i]) * d1[row] + float(found.offsets[j]) * d2[row]
        score = ((moved - 0.5).flatten() @ model.w).double()
        expected = nn.functional.softplus(score if LABELS[row] == 0 else -score)
        torch.testing.assert_close(found.loss[row, i, j], expected, rtol=1e-5, atol=1e-7)
        assert found.wrong[row, i, j] == ((score > 0) != (LABELS[row] == 1))
    torch.testing.assert_close(
        found.centre, nn.functional.cross_entropy(model(images).double(), LABELS, reduction="none")
    )


def test_the_ball_is_the_diamond(images):
    found = surface(Linear(), images, steps=5, beyond=0.4)
    assert (len(found.offsets), float(found.offsets[0]), float(found.offsets[7])) == (15, pytest.approx(-0.14), 0)
    d1, d2 = random_signs(KEYS, SHAPE)[0], random_signs(KEYS, SHAPE, True)[0]
    for i, u in enumerate(found.offsets.tolist()):
        for j, v in enumerate(found.offsets.tolist()):
            norm = float((u * d1 + v * d2).abs().max())
            assert norm == pytest.approx(abs(u) + abs(v), abs=1e-7)
            assert bool(found.inside[i, j]) == (norm <= 0.1 + 1e-6)
    assert int(found.inside.sum()) == 61  # 1 + 4·(1 + … + 5)


def test_flatness_is_a_share_of_the_diamond_alone(images):
    constant = Linear(0.0)
    assert surface(constant, images).flat().tolist() == [1, 1, 1]
    model = Linear(30.0)
    wrong = 1 - model(images).argmax(1)  # where a linear model errs, its cross-entropy is a slope
    steep = surface(model, images, labels=wrong)
    assert (steep.flat() < 0.1).all()
    everywhere = steep.flat(tolerance=1e9)
    assert everywhere.tolist() == [1, 1, 1]
    assert (steep.highest >= steep.centre).all()


def test_the_loss_does_not_round_to_zero(images):
    """A logsumexp knows no cross-entropy between 0 and 1e-16 nats, in float32 none below 6e-8."""
    model = Linear(12.0)
    sure = torch.where(model.w > 0, 0.9, 0.1).view(1, *SHAPE).expand(3, -1, -1, -1).detach()
    signs = random_signs(KEYS, SHAPE)
    found = SurfaceGrid(0.05).measure(model, sure, torch.ones(3, dtype=torch.int64), signs, signs)
    assert (found.centre > 0).all()
    assert (found.centre < 1e-17).all()


def test_the_worst_perturbation_of_a_linear_model_is_its_gradients_sign(images):
    model = Linear()
    away = torch.where(LABELS == 0, 1.0, -1.0).view(-1, 1, 1, 1) * model.w.detach().sign().view(1, *SHAPE)
    for loss in ("ce", "log_odds"):
        found = WorstSigns(Linf(0.1), steps=10, restarts=2, loss=loss).find(model, images, LABELS, KEYS)
        assert torch.equal(found, away)


def test_broken_on_the_grid_means_broken_under_attack(images):
    model = Linear()
    signs = WorstSigns(Linf(0.2)).find(model, images, LABELS, KEYS)
    found = SurfaceGrid(0.2).measure(model, images, LABELS, signs, random_signs(KEYS, SHAPE))
    attacked = robust_accuracy(model, images, LABELS, Linf(0.2), ["pgd"])
    assert torch.equal(found.broken, attacked.broken)
    assert found.broken.any()


def test_points_are_clipped_to_the_box():
    class Strict(Linear):
        def forward(self, images):
            assert images.min() >= 0
            assert images.max() <= 1
            return super().forward(images)

    corner = torch.zeros(1, *SHAPE)
    ones = torch.ones(1, *SHAPE)
    found = SurfaceGrid(0.3, steps=2).measure(Strict(), corner, LABELS[:1], -ones, -ones)
    middle = len(found.offsets) // 2
    assert float(found.loss[0, -1, -1]) == pytest.approx(float(found.loss[0, middle, middle]))


def test_a_random_model_keeps_its_noise_over_the_whole_surface(images):
    class Noisy(Linear):
        takes_keys = True

        def forward(self, images, keys):
            return super().forward(images) + keys.remainder(7).unsqueeze(1) * torch.tensor([0.0, 0.1])

    model = Noisy()
    found = surface(model, images, keys=torch.tensor([3, 4, 5]), steps=2)
    expected = nn.functional.cross_entropy(model(images, torch.tensor([3, 4, 5])).double(), LABELS, reduction="none")
    torch.testing.assert_close(found.centre, expected)


def test_the_model_is_left_as_it_was(images):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    surface(model, images, steps=2)
    WorstSigns(Linf(0.1), steps=2).find(model, images, LABELS, KEYS)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_unknown_loss_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'log_odds'"):
        WorstSigns(Linf(0.1), loss="log_ods")
