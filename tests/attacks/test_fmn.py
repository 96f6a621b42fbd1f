"""FMN: distances to the boundaries of linear models, and balls that follow the boundary."""

import pytest
import torch

from isthmus.attacks import FMN, PGD, fmn, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import L1, L2, THREATS, Linf
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, Noisy, Smooth, WithoutGradient, pictures, subject
from tests.attacks.linear_models import DUAL, least, linear


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize(("classes", "low"), [(2, 0.35), (3, 0.0), pytest.param(5, 0.35, marks=pytest.mark.slow)])
def test_on_a_linear_model_the_norm_is_the_distance_to_the_boundary(classes, norm, low):
    """Margin over the dual norm of w_y − w_t (identity 16), or the optimum within the box, for the best class t."""
    model, images, labels, distances = linear(classes, norm, low=low, high=1 - low)
    sizes = minimal_norms(model, images, labels, norm, [FMN(steps=150, restarts=classes - 1)]).sizes
    assert (sizes >= distances * (1 - 1e-5)).all()  # pixels are float32
    assert (sizes <= 1.05 * distances).all()


@pytest.mark.parametrize("norm", DUAL)
def test_least_is_the_margin_over_the_dual_norm_away_from_the_walls(norm):
    uphill = torch.randn(PIXELS, generator=torch.Generator().manual_seed(0)).double()
    image = torch.full((PIXELS,), 0.5).double()
    expected = 0.3 / float(torch.linalg.vector_norm(uphill, ord=DUAL[norm]))
    assert least(norm, uphill, image, 0.3) == pytest.approx(expected)


@pytest.mark.parametrize("norm", DUAL)
def test_pgd_finds_nothing_much_smaller(norm):
    model, images, labels = subject(n=20)
    sizes = minimal_norms(model, images, labels, norm, ["fmn:200"]).sizes
    for eps in {"linf": (0.03, 0.1), "l2": (0.1, 0.4), "l1": (0.3, 1.0)}[norm]:
        found = robust_accuracy(model, images, labels, THREATS[norm](eps), [PGD(steps=60, restarts=2)])
        assert (sizes[found.broken] <= 1.05 * eps).all()


def batch_of(images):
    n = len(images)
    return Batch(images, torch.zeros(n, dtype=torch.int64), example_keys(0, torch.arange(n)))


@pytest.mark.parametrize("norm", DUAL)
def test_the_first_ball_reaches_a_little_beyond_the_linearised_boundary(norm):
    images = pictures(5, low=0.3, high=0.7)
    attack = FMN().for_threat(THREATS[norm](1.0), 2)
    batch = batch_of(images)
    runs = attack.init(batch, torch.zeros(5, dtype=torch.int64))
    gradient = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    short = torch.linspace(0.1, 0.5, 5)
    attack.step(runs, batch, Answer(torch.tensor([[1.0, 0.0]] * 5), -short, gradient))
    expected = 1.05 * short / torch.linalg.vector_norm(gradient.flatten(1), dim=1, ord=DUAL[norm])
    torch.testing.assert_close(runs.radius, expected)
    assert (THREATS[norm](1.0).norm(runs.x - images) <= expected * (1 + 1e-5)).all()


def test_the_ball_shrinks_after_success_and_grows_after_failure():
    images = pictures(2, low=0.3, high=0.7)
    attack, batch = FMN(steps=1000).for_threat(L2(1.0), 2), batch_of(images)
    runs = attack.init(batch, torch.zeros(2, dtype=torch.int64))
    runs.radius, runs.best = torch.full((2,), 0.2), torch.full((2,), 0.3)
    gradient = torch.zeros(2, *SHAPE)
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # of the label 0: the first row has succeeded
    runs.x = images + 0.25 / PIXELS**0.5
    attack.step(runs, batch, Answer(logits, torch.tensor([1.0, -1.0]), gradient))
    torch.testing.assert_close(runs.radius, torch.tensor([0.2 * 0.95, 0.2 * 1.05]))
    torch.testing.assert_close(runs.best, torch.tensor([0.25, 0.3]))


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_rows_are_projected_each_to_its_own_ball(kind):
    images, far = pictures(6), pictures(6, seed=2)
    radii = torch.tensor([0.01, 0.05, 0.1, 0.3, 0.7, 1.0])
    together = fmn.within(kind.name, images, far - images, radii)
    for row, radius in enumerate(radii.tolist()):
        alone = kind(radius).project(far[row : row + 1], images[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", [pytest.param(norm, marks=[] if norm == "l2" else pytest.mark.slow) for norm in DUAL])
def test_restarts_never_hurt_and_sometimes_help(norm):
    model, images = Smooth(classes=5), pictures(30)
    labels = model(images).argmax(1)
    counts = (1, 4, 6)  # the paper's run; each wrong class but the likeliest; from random points
    one, each, more = (
        minimal_norms(model, images, labels, norm, [FMN(steps=40, restarts=restarts)]).sizes for restarts in counts
    )
    assert (each <= one).all()
    assert (each < 0.98 * one).any()
    assert (more <= each).all()
    assert (more < each).any()


def test_nothing_depends_on_batch_mates():
    model, images, labels = subject(n=20)
    alone, together = (
        minimal_norms(model, images, labels, "l2", ["fmn:15"], options=RunOptions(batch_size=size)) for size in (1, 20)
    )
    torch.testing.assert_close(alone.sizes, together.sizes, rtol=0, atol=1e-6)
    assert alone.backward_passes == together.backward_passes


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("attack", [FMN(steps=5), FMN(steps=5, restarts=2)], ids=repr)
def test_a_gradient_of_nan_sets_the_example_aside(attack, norm):
    model, images, labels = subject(n=6)
    result = robust_accuracy(WithoutGradient(model), images, labels, THREATS[norm](0.3), [attack])
    assert torch.equal(result.invalid, result.correct)


def test_a_random_models_norms_are_confirmed_on_fresh_draws():
    model, images, labels = subject(n=12)
    plain = minimal_norms(model, images, labels, "l2", ["fmn:40"]).sizes
    noisy = minimal_norms(Noisy(model, sigma=0.05), images, labels, "l2", [FMN(steps=40, eot=2)]).sizes
    clear = (plain > 0) & (noisy > 0)
    assert clear.sum() > 6
    assert (noisy[clear] >= 0.8 * plain[clear]).all()
    found = clear & noisy.isfinite()  # an image at the very boundary is not surely adversarial: some find none
    assert found.sum() >= clear.sum() / 2
    assert (noisy[found] <= 2 * plain[found]).all()
