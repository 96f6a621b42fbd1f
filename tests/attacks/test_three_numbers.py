"""A random model's three robust accuracies, on models whose probabilities are known in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from isthmus.attacks import PGD, Linf, RobustResult, curve, robust_accuracy
from isthmus.attacks.engine import averages
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.verify import verify
from isthmus.core.randomness import example_keys, normal, uniform
from isthmus.metrics import wilson
from tests.attacks.attacked_models import Linear, Noisy, Smooth, pictures, proposing, subject

STILL = [proposing(lambda batch, threat: batch.images)]
"""An attack that moves nothing: every image is its own adversarial example."""


def phi(x: float) -> float:
    """The distribution function of N(0, 1)."""
    return (1 + math.erf(x / math.sqrt(2))) / 2


class Margin(nn.Module):
    """Two classes; the logit of class 0 leads by m + σ·N(0, 1), where m is the first pixel less one half, times ten.

    The average prediction is class 0 exactly where m > 0, since the noise is symmetric; one evaluation is wrong with
    probability Φ(−m/σ).
    """

    takes_keys = True

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images, keys):
        margin = 10 * (images[:, 0, 0, 0].double() - 0.5) + self.sigma * normal(keys, (1,))[:, 0]
        return torch.stack([margin, torch.zeros_like(margin)], 1)


class Coin(nn.Module):
    """Right by a wide margin with a chance that is the first pixel, wrong by a narrower one otherwise."""

    takes_keys = True

    def forward(self, images, keys):
        right = uniform(keys, (1,)) < images[:, 0, 0, :1]
        p = torch.where(right, 0.95, 0.40).double()
        return torch.cat([p, 1 - p], 1).log()


def images_at(pixel: float, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n, 1, 4, 4), pixel), torch.zeros(n, dtype=torch.int64)


def read(model, pixel: float, n: int) -> averages.Reading:
    images, labels = images_at(pixel, n)
    batch = Batch(images, labels, example_keys(5, torch.arange(n)))
    return Verifier(CountedModel(model), Linf(0.1)).averages.read(images, batch)


@pytest.mark.parametrize("m", [-1.0, -0.2, 0.2, 1.0])
def test_the_average_follows_the_margin_and_one_evaluation_the_noise(m):
    """Logits that lead by m + N(0, 1)."""
    n = 1500
    found = read(Margin(1.0), 0.5 + m / 10, n)
    assert found.wrong.float().mean() == pytest.approx(float(m < 0), abs=0.02)
    expected = phi(-m)
    assert found.once.float().mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))
    assert (found.sure <= found.wrong).all()
    if m > 0:
        assert found.sure.float().mean() <= averages.DOUBT
    if m == -1.0:
        assert found.sure.all()


def test_at_the_boundary_half_is_wrong_on_average_and_hardly_any_with_confidence():
    found = read(Margin(1.0), 0.5, 300)
    assert 0.4 < found.wrong.float().mean() < 0.6
    assert 0.4 < found.once.float().mean() < 0.6
    assert found.sure.float().mean() <= 2 * averages.DOUBT
    assert (found.draws == averages.FIRST + averages.MOST).float().mean() > 0.9


@pytest.mark.parametrize(("chance", "wrong"), [(0.05, True), (0.3, False)])
def test_the_average_is_of_probabilities_and_not_a_vote(chance, wrong):
    """Right with 0.95 by a chance c, else wrong with 0.40: the mean probability is right from c = 2/11 on."""
    n = 600
    found = read(Coin(), chance, n)
    assert found.wrong.float().mean() == pytest.approx(float(wrong), abs=0.02)
    assert found.once.float().mean() == pytest.approx(1 - chance, abs=4 * math.sqrt(chance * (1 - chance) / n))
    assert found.mean[:, 0].mean() == pytest.approx(0.4 + 0.55 * chance, abs=0.01)


class Passes(Margin):
    """Remembers how many rows each pass had."""

    def __init__(self, sigma: float) -> None:
        super().__init__(sigma)
        self.rows: list[int] = []

    def forward(self, images, keys):
        self.rows.append(len(images))
        return super().forward(images, keys)


class Shared(Passes):
    """The same answers, to several keys of an image at once."""

    def forward_draws(self, images, keys):
        self.rows.append(len(images))
        n, draws = keys.shape
        copies = images[:, None].expand(n, draws, *images.shape[1:]).flatten(0, 1)
        return Margin.forward(self, copies, keys.flatten()).reshape(n, draws, 2)


class Wrapper(nn.Module):
    """Inverts the images, and passes on attributes that it does not have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(self, images, keys):
        return self.model(1 - images, keys)


@pytest.mark.parametrize("kind", [Passes, Shared])
def test_draws_in_one_pass_are_those_of_many_and_are_counted_alike(kind):
    images, _ = images_at(0.55, 7)
    keys, model = example_keys(3, torch.arange(7)), kind(1.0)
    counted_model, alone = CountedModel(model), CountedModel(Margin(1.0))
    counted_model.rows = 30
    found = counted_model.draws(images, keys, 2, 10)
    expected = torch.stack([alone.logits(images, keys, draw) for draw in range(2, 12)], 1)
    torch.testing.assert_close(found, expected)
    assert counted_model.forward_passes == alone.forward_passes == 70
    assert max(model.rows) <= 30
    assert len(model.rows) <= 3


def test_a_wrapper_that_passes_attributes_on_is_not_passed_by():
    images, _ = images_at(0.55, 4)
    counted_model = CountedModel(Wrapper(Shared(1.0)))
    keys = example_keys(3, torch.arange(4))
    expected = torch.stack([counted_model.logits(images, keys, draw) for draw in range(5)], 1)
    torch.testing.assert_close(counted_model.draws(images, keys, 0, 5), expected)


def test_an_undecided_reading_takes_few_passes():
    model = Shared(1.0)
    images, labels = images_at(0.5, 5)
    reading = Verifier(CountedModel(model), Linf(0.1)).averages.read(
        images, Batch(images, labels, example_keys(5, torch.arange(5)))
    )
    assert int(reading.draws.max()) == averages.FIRST + averages.MOST
    assert len(model.rows) <= 6


def test_a_test_may_end_within_a_block():
    """Capital that was there counts, though later draws of the same block lose it."""
    leads = torch.tensor([[1.0] * 8 + [-0.9] * 8])
    start = torch.ones(1, len(averages.BETS), dtype=torch.float64)
    after, highest = averages.capital(start, leads)
    assert highest > 10 > after.mean()
    steps = start
    for lead in leads.T:
        steps, _ = averages.capital(steps, lead[:, None])
    torch.testing.assert_close(steps, after)
    assert [*averages.blocks(100)] == [(0, 16), (16, 16), (32, 32), (64, 36)]


class Unsure(nn.Module):
    """Votes for class 1 with a given chance, with probabilities of 0.5 ± 0.0001."""

    takes_keys = True

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, images, keys):
        lead = torch.where(uniform(keys, (1,)) < self.chance, 4e-4, -4e-4)
        return torch.cat([torch.zeros_like(lead), lead], 1)


@pytest.mark.parametrize(("chance", "wrong"), [(0.9, True), (0.1, False)])
def test_the_votes_of_a_model_that_is_never_sure_settle_a_reading(chance, wrong):
    images, labels = images_at(0.5, 30)
    batch = Batch(images, labels, example_keys(5, torch.arange(30)))
    found = Verifier(CountedModel(Unsure(chance)), Linf(0.1)).averages.read(images, batch)
    assert (found.wrong == wrong).all()
    assert found.draws.double().mean() < 60
    assert found.sure.all() == wrong
    assert found.sure.any() == wrong


def test_most_images_are_settled_by_a_few_draws():
    assert int(read(Margin(0.1), 0.9, 50).draws.max()) == averages.FIRST + averages.BLOCK


def test_three_numbers_of_images_that_nothing_can_move():
    """A grid of margins; the closed forms are averages over it."""
    n, margins = 1200, torch.linspace(-2, 3, 1200)
    images = torch.full((n, 1, 4, 4), 0.5)
    images[:, 0, 0, 0] = 0.5 + margins / 10
    labels = torch.zeros(n, dtype=torch.int64)
    result = robust_accuracy(Margin(1.0), images, labels, Linf(0.1), STILL)
    average, once = float((margins > 0).double().mean()), sum(phi(float(m)) for m in margins) / n
    assert result.accuracy == result.average.value == pytest.approx(average, abs=0.02)
    assert result.clean_accuracy == pytest.approx(average, abs=0.02)
    deviation = math.sqrt(sum(phi(float(m)) * phi(-float(m)) for m in margins)) / n
    assert result.one_evaluation.value == pytest.approx(once, abs=4 * deviation)
    assert result.accuracy <= result.confident.value
    for found in (result.average, result.one_evaluation, result.confident):
        assert found.n == n
        assert found.interval == wilson(round(found.value * n), n)
    assert result.interval == result.average.interval


def test_the_number_is_read_on_draws_that_chose_nothing():
    """A hundred lucky draws to choose from, and all images are right on average: the reading is not deceived."""
    images, labels = images_at(0.53, 150)
    zero_gradients = Noisy(Linear(torch.zeros(2, 16), torch.tensor([0.3, 0.0])), 1.0)
    result = robust_accuracy(zero_gradients, images, labels, Linf(0.1), [PGD(steps=5, restarts=20), "uniform:50"])
    assert result.accuracy >= 0.98
    assert result.one_evaluation.value == pytest.approx(1 - phi(-0.3 / math.sqrt(2)), abs=4 * 0.5 / math.sqrt(150))
    assert result.confident.value >= result.accuracy


def test_an_image_that_is_wrong_on_average_but_not_surely_counts():
    """Under ε = 0.2 the margin of +1.96 can be brought to −0.04: wrong on average, and no test will be sure of it."""
    images, labels = images_at(0.5 + 0.196, 60)

    class Weak(Margin):
        def forward(self, given, keys):
            return super().forward(given, keys) * 0.2  # so that probabilities hardly lead

    result = robust_accuracy(Weak(0.1), images, labels, Linf(0.2), ["fgsm"])
    assert result.accuracy <= 0.05
    assert result.confident.value >= 0.9
    broken = result.broken
    assert set(result.broken_by) <= {"fgsm", None}
    assert (images[broken] - result.adversarial[broken]).abs().flatten(1).amax(1).max() <= 0.2 + 1e-6
    assert (result.state.lead[broken] > 0).all()


def test_a_deterministic_model_has_one_number():
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.05), ["fgsm"])
    assert result.average == result.one_evaluation == result.confident
    assert result.average.value == result.accuracy
    assert "nearest" not in result.state.columns()


def test_the_numbers_survive_saving_joining_and_verification(tmp_path):
    model, images, labels = subject()
    noisy = Noisy(model, 2.0)  # noise so large that the numbers differ whatever is drawn
    result = robust_accuracy(noisy, images, labels, Linf(0.04), [PGD(steps=10)], seed=1)
    assert result.one_evaluation != result.confident
    result.save(tmp_path / "r")
    loaded = RobustResult.load(tmp_path / "r")
    for name in ("average", "one_evaluation", "confident", "verified", "accuracy"):
        assert getattr(loaded, name) == getattr(result, name), name
    assert verify(loaded, noisy).agrees
    double = RobustResult.joined([result, result])
    assert double.one_evaluation.value == result.one_evaluation.value
    assert double.confident.n == 2 * len(images)


def test_confidence_that_was_claimed_and_is_not_there_is_found(tmp_path):
    images, labels = images_at(0.499, 40)
    model = Margin(1.0)
    result = robust_accuracy(model, images, labels, Linf(0.01), STILL)
    assert (result.broken & ~result.state.sure).any()
    state = result.state.take(torch.arange(40))
    state.sure[:] = state.broken
    done = verify(replace(result, state=state), model)
    assert not done.agrees
    assert done.verified == done.claimed
    assert set(done.reasons) == {"the adversarial image is not misclassified with the recorded confidence"}


def test_a_curve_falls_in_every_number_that_it_reports():
    model = Noisy(Smooth(), 0.6)
    images = pictures(16)
    labels = Smooth()(images).argmax(1)
    found = curve(model, images, labels, [Linf(0.02), Linf(0.15)], [PGD(steps=8)])
    for name in ("average", "confident"):
        values = [getattr(result, name).value for result in found]
        assert values == sorted(values, reverse=True)
    for result in found:
        assert result.average.value <= result.confident.value
        assert verify(result, model).agrees


def test_without_the_reading_only_the_confident_count_is_known():
    images, labels = images_at(0.45, 30)
    result = robust_accuracy(Margin(1.0), images, labels, Linf(0.01), STILL, options=RunOptions(verify=False))
    assert not result.verified
    assert result.average.value is None
    assert "not computed" in result.one_evaluation.note
    assert result.accuracy >= robust_accuracy(Margin(1.0), images, labels, Linf(0.01), STILL).accuracy
