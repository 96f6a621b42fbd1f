"""C&W: closed forms on linear models, an autograd reference, and rows that know nothing of each other."""

from functools import cache

import pytest
import torch

from isthmus.attacks import CW, PGD, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, Counting, Linear, Smooth, WithoutGradient, pictures, subject


def linear(classes, n=20):
    """A linear model, images away from the walls, and the ℓ2 distance of each to the nearest boundary."""
    weight = torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(classes)).double()
    model, images = Linear(weight), pictures(n, low=0.35, high=0.65)
    logits = model(images).detach()
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    norms = torch.linalg.vector_norm(weight[labels, None] - weight, dim=2)
    distances = (gaps / norms).scatter(1, labels[:, None], torch.inf).amin(1)
    return model, images, labels, distances


def batch_of(images, labels):
    return Batch(images, labels, example_keys(0, torch.arange(len(images))))


@cache
def minimal(classes):
    """The norms that CW finds on the linear model with this many classes, and what :func:`linear` gives."""
    model, images, labels, distances = linear(classes)
    return minimal_norms(model, images, labels, "l2", [CW(steps=300)]).sizes, model, images, labels, distances


@pytest.mark.parametrize("classes", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 5))])
def test_on_a_linear_model_the_norm_is_the_distance_to_the_boundary(classes):
    """Identity 16: margin / ‖w_y − w_t‖₂ within 5%."""
    sizes, *_, distances = minimal(classes)
    assert (sizes >= distances).all()
    assert (sizes <= 1.05 * distances).all()


@pytest.mark.parametrize("share", [0.95, 1.1, 1.5])
def test_no_successful_pgd_is_smaller(share):
    sizes, model, images, labels, distances = minimal(3)
    threat = L2(share * float(distances.median()))
    found = robust_accuracy(model, images, labels, threat, [PGD(steps=100, restarts=3)])
    assert found.broken.any()
    assert (sizes[found.broken] <= 1.05 * found.sizes[found.broken]).all()


def test_on_a_network_pgd_finds_nothing_much_smaller():
    model, images = Smooth(), pictures(20, low=0.2, high=0.8)
    labels = model(images).argmax(1)
    sizes = minimal_norms(model, images, labels, "l2", [CW(steps=300)]).sizes
    for eps in (0.1, 0.3, 0.6):
        found = robust_accuracy(model, images, labels, L2(eps), [PGD(steps=40, restarts=3)])
        assert (sizes[found.broken] <= 1.05 * eps).all()


def test_a_descent_is_adams_on_the_loss_of_the_paper():
    """Against autograd and torch's own Adam, for three different weights at once."""
    model, images = Smooth(), pictures(3, low=0.2, high=0.8)
    labels, const = model(images).argmax(1), torch.tensor([0.05, 0.5, 5.0])
    batch, attack = batch_of(images, labels), CW(abort_early=False, confidence=0.2).for_threat(L2(1.0), 2)
    runs = attack.init(batch, torch.zeros(3, dtype=torch.int64))
    runs.const = const.clone()
    start = ((2 * images.double() - 1) * 0.999999).atanh()
    shift = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([shift], lr=5e-3)
    for _ in range(60):
        x = runs.x.clone().requires_grad_()
        value = attack.objective(runs, batch, model(x))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        attack.step(runs, batch, Answer(model(x).detach(), value.detach().float(), gradient))
        seen = (torch.tanh(start + shift) + 1) / 2
        logits = model(seen)
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        short = (logits.gather(1, labels[:, None]).squeeze(1) - others + 0.2).clamp(min=0)
        away = seen - (torch.tanh(start) + 1) / 2
        adam.zero_grad()
        (away.square().flatten(1).sum(1) + const * short).sum().backward()
        adam.step()
    torch.testing.assert_close(runs.x.double(), (torch.tanh(start + shift) + 1) / 2, rtol=0, atol=2e-4)


def told(values):
    """What the model would have said: how far each row is beyond the boundary; no gradient."""
    n = len(values)
    return Answer(torch.zeros(n, 2), torch.tensor(values), torch.zeros(n, *SHAPE))


def test_weights_grow_tenfold_until_one_suffices_and_are_bisected_then():
    batch = batch_of(pictures(3, low=0.3, high=0.7), torch.zeros(3, dtype=torch.int64))
    attack = CW(steps=1, binary_search_steps=6).for_threat(L2(1.0), 2)
    runs = attack.init(batch, torch.zeros(3, dtype=torch.int64))
    outcomes = [[-1, -1, 1], [-1, -1, 1], [-1, 1, -1], [-1, 1, -1], [-1, -1, 1], [-1, 1, 1]]
    tried = []
    for outcome in outcomes:
        tried.append(runs.const.clone())
        attack.step(runs, batch, told([float(v) for v in outcome]))
    expected = [
        [0.01, 0.1, 1, 10, 100, 1000],
        [0.01, 0.1, 1, 0.55, 0.325, 0.4375],
        [0.01, 0.005, 0.0025, 0.00375, 0.004375, 0.0040625],
    ]
    torch.testing.assert_close(torch.stack(tried, 1), torch.tensor(expected))
    assert (runs.step >= runs.budget).all()


def test_each_weight_begins_anew_at_the_image():
    model, images = Smooth(), pictures(4)
    labels = model(images).argmax(1)
    batch, attack = batch_of(images, labels), CW(steps=3, abort_early=False).for_threat(L2(1.0), 2)
    runs = attack.init(batch, torch.zeros(4, dtype=torch.int64))
    first = runs.x.clone()
    torch.testing.assert_close(first, images, rtol=0, atol=2e-6)
    for step in range(6):
        assert torch.equal(runs.x, first) == (step % 3 == 0)
        attack.step(runs, batch, Answer(torch.zeros(4, 3), torch.full((4,), -1.0), torch.ones(4, *SHAPE)))
    assert (runs.mean == 0).all()
    assert (runs.square == 0).all()


def test_a_row_that_stalls_goes_on_alone_to_the_next_weight():
    batch = batch_of(pictures(2, low=0.3, high=0.7), torch.zeros(2, dtype=torch.int64))
    attack = CW(steps=50).for_threat(L2(1.0), 2)
    runs = attack.init(batch, torch.zeros(2, dtype=torch.int64))
    for step in range(6):  # a loss that stays, and one that falls
        attack.step(runs, batch, told([-1.0, -1.0 / (step + 1)]))
    assert runs.tried.tolist() == [1, 0]
    assert runs.adam_step.tolist() == [0, 6]


def test_nothing_depends_on_batch_mates():
    model, images, labels = subject(n=6)
    suite = [CW(steps=20, learning_rate=0.02)]
    alone = minimal_norms(model, images, labels, "l2", suite, options=RunOptions(batch_size=1))
    together = minimal_norms(model, images, labels, "l2", suite, options=RunOptions(batch_size=6))
    torch.testing.assert_close(alone.sizes, together.sizes, rtol=0, atol=1e-6)
    assert alone.backward_passes == together.backward_passes


def test_aborting_early_saves_passes_and_little_is_lost():
    model, images, labels, _ = linear(3, n=8)
    stop, go_on = (
        minimal_norms(model, images, labels, "l2", [CW(steps=150, abort_early=early)]) for early in (True, False)
    )
    assert stop.backward_passes < 8 * 5 * 150 <= go_on.backward_passes
    assert (stop.sizes <= 1.05 * go_on.sizes).all()


def test_in_a_ball_it_ends_at_the_first_success_inside():
    model, images, labels, distances = linear(3)
    threat = L2(1.3 * float(distances.max()))
    counting = Counting(model)
    result = robust_accuracy(counting, images, labels, threat, [CW(steps=100)])
    assert result.accuracy == 0
    assert threat.contains(result.adversarial, images).all()
    whole = minimal_norms(model, images, labels, "l2", [CW(steps=100)])
    assert result.backward_passes < 0.8 * whole.backward_passes


@pytest.mark.parametrize("threat", [Linf(0.1), L1(3.0)], ids=str)
def test_other_norms_are_refused(threat):
    model, images, labels = subject(n=4)
    with pytest.raises(ConfigError, match="works in l2"):
        robust_accuracy(model, images, labels, threat, ["cw:5"])


def test_a_gradient_of_nan_sets_the_example_aside():
    model, images, labels = subject(n=6)
    result = robust_accuracy(WithoutGradient(model), images, labels, L2(0.3), ["cw:5"])
    assert torch.equal(result.invalid, result.correct)
