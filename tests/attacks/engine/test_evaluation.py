"""The harness: it judges, sets aside, counts, and is not to be lied to."""

import pytest
import torch
from torch import nn

from isthmus.attacks import PGD, robust_accuracy
from isthmus.attacks.engine.averages import SCREEN
from isthmus.attacks.engine.optimized_model import PROBE
from isthmus.attacks.engine.run_options import RunOptions, Snapshot, monotone
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError, ModelError
from tests.attacks.attacked_models import Counting, Linear, Noisy, Smooth, pictures, proposing, subject

PROBED = 3 * PROBE  # passes that find out whether a model is random, and what an example takes in memory
QUICK = ["fgsm", "pgd"]


class Wrapped(nn.Module):
    """Another model with something done to images or logits."""

    def __init__(self, model, before=None, after=None):
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, images):
        inner = self.before(images) if self.before else images
        logits = self.model(inner)
        return self.after(images, logits) if self.after else logits


# --- attacks that lie ---


@pytest.mark.parametrize("threat", [Linf(1e-4), L2(1e-4), L1(1e-4)], ids=str)
def test_what_is_outside_the_ball_is_brought_back_before_it_counts(threat):
    model, images, labels = subject()
    other = images[labels != labels[1]][0]
    liar = proposing(lambda batch, threat: other.expand_as(batch.images))
    result = robust_accuracy(model, images, labels, threat, [liar])
    assert result.accuracy == result.clean_accuracy
    far_out = proposing(lambda batch, threat: batch.images + 1e6)
    assert robust_accuracy(model, images, labels, threat, [far_out]).accuracy == result.clean_accuracy


def test_an_overshooting_attack_is_clipped_rather_than_dropped():
    model, images, labels = subject()
    clipped = robust_accuracy(model, images, labels, Linf(0.08), ["fgsm"])
    directions = clipped.adversarial - images

    def overshoot(batch, threat):
        rows = [int((images == image).flatten(1).all(1).nonzero()) for image in batch.images]
        return batch.images + 1e3 * directions[rows].nan_to_num()

    result = robust_accuracy(model, images, labels, Linf(0.08), [proposing(overshoot)])
    assert torch.equal(result.broken, clipped.broken)
    assert result.accuracy < result.clean_accuracy


def test_a_claim_of_success_counts_for_nothing():
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.1), [proposing(lambda batch, threat: batch.images)])
    assert result.accuracy == result.clean_accuracy
    errors = int((~result.correct).sum())  # these are asked about twice
    assert result.forward_passes == PROBED + len(images) + errors + int(result.correct.sum())
    assert result.backward_passes == PROBE


def test_a_proposal_inside_is_kept_to_the_bit():
    model, images, labels = subject()
    threat, proposals = Linf(0.3), {}

    def remember(batch, threat):
        for key, image in zip(batch.keys.tolist(), moved := threat.random_start(batch.images, batch.keys), strict=True):
            proposals[key] = image
        return moved

    result = robust_accuracy(model, images, labels, threat, [proposing(remember)])
    by_attack = [row for row, by in enumerate(result.broken_by) if by == "test"]
    assert by_attack
    for row in by_attack:
        assert any(torch.equal(result.adversarial[row], image) for image in proposals.values())


@pytest.mark.parametrize("answer", [lambda images: images[:, :, :2], lambda images: None, lambda images: images[:1]])
def test_an_attack_must_return_one_image_per_example(answer):
    model, images, labels = subject()
    with pytest.raises(ConfigError, match=r"'test' must return one image per example, of shape \(\d+, 1, 4, 4\)"):
        robust_accuracy(model, images, labels, Linf(0.1), [proposing(lambda batch, threat: answer(batch.images))])


def test_only_survivors_are_attacked_and_every_restart_has_new_keys():
    model, images, labels = subject()
    sizes, keys = [], set()

    def watch(batch, threat):
        sizes.append(len(batch))
        keys.update(batch.keys.tolist())
        return threat.random_start(batch.images, batch.keys)

    result = robust_accuracy(model, images, labels, Linf(0.3), [proposing(watch, restarts=6), "pgd"])
    assert sizes[0] == int(result.correct.sum())
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert len(keys) == sum(sizes)
    assert list(result.by_attack) == ["clean", "test", "pgd"]
    assert list(result.by_attack.values()) == sorted(result.by_attack.values(), reverse=True)


# --- what is not finite ---


def nan_where(images, logits, mask):
    return torch.where(mask[:, None], torch.nan, logits)


def test_examples_with_nan_logits_are_set_aside_and_counted():
    plain, images, labels = subject()
    bad = images[:, 0, 0, 0] > 0.8
    model = Counting(Wrapped(plain, after=lambda x, z: nan_where(x, z, x[:, 0, 0, 0] > 0.8)))
    result = robust_accuracy(model, images, labels, Linf(1e-3), ["fgsm"])
    assert torch.equal(result.invalid, bad)
    assert not (result.broken & bad).any()
    assert not (result.robust & bad).any()
    assert result.state.adversarial[bad].isnan().all()
    assert int(result.broken.sum() + result.invalid.sum() + result.robust.sum()) == len(images)
    assert result.backward_passes == PROBE + int(result.correct.sum())
    assert result.accuracy == int((~result.broken & ~result.invalid).sum()) / len(images)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_fails_only_under_attack_is_not_called_robust(value):
    """Logits turn non-finite as soon as a pixel moves: a defence that breaks itself."""
    plain, images, labels = subject()

    def fail(x, z):
        moved = (x.flatten(1)[:, None] != images.flatten(1)).any(-1).all(1)
        return torch.where(moved[:, None], value, z)

    result = robust_accuracy(Wrapped(plain, after=fail), images, labels, Linf(0.05), ["fgsm", "pgd"])
    assert torch.equal(result.invalid, result.correct)
    assert result.accuracy == 0
    assert result.by_attack["fgsm"] == 0


@pytest.mark.parametrize("suite", [["fgsm"], [PGD(steps=3)], [PGD(steps=1, random_start=False)]], ids=repr)
def test_gradients_that_are_not_finite_are_not_robustness(suite):
    plain, images, labels = subject()
    model = Wrapped(plain, after=lambda x, z: z + (0 * x.flatten(1)).abs().sqrt().sum(1, keepdim=True))
    result = robust_accuracy(model, images, labels, Linf(1e-4), suite)
    assert torch.equal(result.invalid, result.correct)


def test_nan_on_every_clean_image_is_an_error():
    _, images, labels = subject()
    with pytest.raises(ModelError, match="NaN or infinite on every clean image"):
        robust_accuracy(Wrapped(Smooth(), after=lambda x, z: z * torch.nan), images, labels, Linf(0.1), QUICK)


# --- odd models ---


def test_a_model_that_works_in_place_changes_nothing_of_ours():
    plain, images, labels = subject()
    expected = robust_accuracy(plain, images, labels, Linf(0.05), QUICK)
    model = Wrapped(plain, before=lambda x: x.sub_(0.0).mul_(1.0).clamp_(0, 1))
    kept = images.clone()
    result = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert torch.equal(images, kept)
    assert torch.equal(result.broken, expected.broken)
    negating = Wrapped(plain, before=lambda x: x.neg_().add_(1))
    broken = robust_accuracy(negating, images, labels, Linf(0.05), QUICK).broken
    assert torch.equal(images, kept)
    assert torch.equal(
        broken, robust_accuracy(Wrapped(plain, before=lambda x: 1 - x), images, labels, Linf(0.05), QUICK).broken
    )


def test_buffers_that_a_forward_changes_are_put_back():
    plain, images, labels = subject()

    class Ticking(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(1))

        def forward(self, images):
            self.calls += 1
            self.last = self.last + 1
            return plain(images)

    model = Ticking()
    robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert (model.calls, model.last) == (0, 0)


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_modes_do_not_matter(inside):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    _, images, labels = subject()
    expected = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    with inside():
        result = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert torch.equal(result.broken, expected.broken)
    assert torch.equal(result.adversarial, expected.adversarial)


def test_a_foreign_random_model_gives_repeatable_answers():
    plain, images, labels = subject()
    model = Wrapped(plain, after=lambda x, z: z + 0.5 * torch.randn_like(z))
    torch.manual_seed(1)
    first = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    torch.manual_seed(2)
    second = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert torch.equal(first.broken, second.broken)


def test_a_model_is_judged_in_eval_mode_and_left_in_train_mode():
    plain, images, labels = subject()
    expected = robust_accuracy(plain, images, labels, Linf(0.05), QUICK)
    model = nn.Sequential(plain, nn.Dropout(0.9)).train()
    result = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert model.training
    assert model[1].training
    assert torch.equal(result.broken, expected.broken)


def test_training_flags_come_back_after_an_error():
    _, images, labels = subject()
    model = nn.Sequential(nn.Flatten(), nn.Linear(15, 3)).train()
    with pytest.raises(ModelError, match=r"The model fails on torch.float32 images of shape"):
        robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert model.training


def test_logits_times_1000_blind_the_cross_entropy_but_not_the_other_losses():
    plain, images, labels = subject()
    scaled = Wrapped(plain, after=lambda x, z: z * 1024)

    def left(model, loss):
        return robust_accuracy(model, images, labels, Linf(0.08), [PGD(steps=20, loss=loss)])

    assert torch.equal(left(scaled, "margin").broken, left(plain, "margin").broken)
    assert left(scaled, "ce").accuracy > left(plain, "ce").accuracy + 0.2
    assert left(scaled, "log_odds").accuracy <= left(plain, "margin").accuracy + 2 / 48


def test_tiny_logits_do_not_hide_their_gradient():
    plain, images, labels = subject()
    tiny = Wrapped(plain, after=lambda x, z: z * 2.0**-100)
    for threat in (Linf(0.08), L2(0.3), L1(0.8)):
        suite = [PGD(steps=10, loss="margin")]
        expected = robust_accuracy(plain, images, labels, threat, suite).accuracy
        assert abs(robust_accuracy(tiny, images, labels, threat, suite).accuracy - expected) <= 1 / 48


# --- stochastic models ---


def zero_gradients(lead: float) -> Linear:
    """Logits that ignore the image: no attack can do anything, however often it draws."""
    return Linear(torch.zeros(2, 16), torch.tensor([lead, 0.0]))


@pytest.mark.parametrize("lead", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_lucky_draws_do_not_break_a_random_model(lead):
    """Each draw alone is wrong in a quarter to a third of all cases, but the average is right."""
    images, labels = pictures(200), torch.zeros(200, dtype=torch.int64)
    suite = [{"name": "pgd", "steps": 30, "restarts": 3}]
    for model in (
        Noisy(zero_gradients(lead), sigma=1.0),
        Wrapped(zero_gradients(lead), after=lambda x, z: z + torch.randn_like(z)),
    ):
        result = robust_accuracy(model, images, labels, Linf(0.1), suite)
        assert result.random
        assert result.clean_accuracy - result.accuracy <= 0.02  # 90 proposals each, wrongly believed at most 1 in 100


def test_a_random_model_that_is_wrong_on_average_is_broken():
    images, labels = pictures(50), torch.zeros(50, dtype=torch.int64)
    result = robust_accuracy(Noisy(zero_gradients(-1.0), sigma=1.0), images, labels, Linf(0.1), [PGD(steps=5)])
    assert result.accuracy <= 0.02


def test_every_look_sees_new_noise_and_the_judges_noise_is_its_own():
    plain, images, labels = subject(n=8)
    model = Noisy(plain, sigma=0.01)
    result = robust_accuracy(model, images, labels, Linf(1e-6), [PGD(steps=5, restarts=2)])
    assert int(result.correct.sum()) == 7
    # the same keys come back only where it is found out whether the model is random, and what an example takes; and
    # where the image that came closest is the one that a run ends at; and each image is read twice on one set of draws,
    # as it is and where it ended up
    read = int(result.state.draws.sum())
    assert len(model.seen) - len(set(model.seen)) <= 2 * PROBE + 2 * SCREEN * len(images) + 2 * read
    assert len(set(model.seen)) >= read + len(images) * SCREEN + int(result.robust.sum()) * 5 * 2


def test_pgd_goes_on_past_the_boundary_of_a_random_model():
    """A linear classifier under logit noise: the best attack is the full step of ε, not the first lucky draw."""
    generator = torch.Generator().manual_seed(2)
    model = Linear(torch.randn(2, 16, generator=generator))
    images = pictures(100, low=0.4, high=0.6)
    labels = model(images).argmax(1)
    noisy, threat = Noisy(model, sigma=0.3), Linf(0.1)
    optimal = robust_accuracy(noisy, images, labels, threat, ["fgsm"])
    found = robust_accuracy(noisy, images, labels, threat, [PGD(steps=20)])
    assert (found.broken == optimal.broken).float().mean() >= 0.95
    assert found.accuracy <= optimal.accuracy + 0.02


# --- progress ---


def test_progress_never_runs_backwards_where_an_evaluation_starts_over():
    seen = []
    tell = monotone(seen.append)
    for done in (50.0, 3.0, 40.0, 60.0):
        tell(Snapshot(done, 100, "pgd", 7, 10))
    assert [at.done for at in seen] == [50.0, 50.0, 50.0, 60.0]
    assert monotone(None) is None


def test_progress_rises_to_its_total():
    model, images, labels = subject()
    seen = []
    suite = ["fgsm", {"name": "pgd", "restarts": 2, "steps": 5}]
    result = robust_accuracy(model, images, labels, Linf(0.05), suite, 10, options=RunOptions(progress=seen.append))
    assert {at.total for at in seen} == {2 * 48}
    assert [at.done for at in seen] == sorted(at.done for at in seen)
    assert [at.robust for at in seen] == sorted((at.robust for at in seen), reverse=True)
    assert {at.attack for at in seen} == {"fgsm", "pgd"}
    assert (seen[-1].done, seen[-1].robust, seen[-1].n) == (96, round(result.accuracy * 48), 48)


def test_an_exhausted_pool_costs_nothing():
    model, images, _ = subject()
    labels = (model(images).argmax(1) + 1) % 3
    seen = []
    result = robust_accuracy(model, images, labels, Linf(0.1), QUICK, options=RunOptions(progress=seen.append))
    assert (result.accuracy, result.forward_passes, result.backward_passes) == (0, 2 * 48 + PROBED, PROBE)
    assert seen[-1].done == seen[-1].total == 96


class Mixture(nn.Module):
    """Draws one of two members of an ensemble: usually one that errs by a little, seldom one that is right by a lot."""

    takes_keys = True

    def forward(self, images, keys):
        from isthmus.core.randomness import uniform

        seldom = uniform(keys, (1,)) < 0.08
        right = torch.where(seldom, 0.99, 0.48).double()
        return torch.cat([right, 1 - right], 1).log() + 0 * images.flatten(1).sum(1, keepdim=True)


def test_a_random_model_whose_draws_nearly_all_err_by_a_little_is_right_on_average():
    """Sixteen draws mostly all speak against it, and with no spread at all: no test of normality may be used."""
    images, labels = pictures(150), torch.zeros(150, dtype=torch.int64)
    suite = [{"name": "pgd", "steps": 10, "restarts": 3}, "uniform:50"]
    result = robust_accuracy(Mixture(), images, labels, Linf(0.1), suite)
    assert int(result.broken.sum()) <= 6  # 150 examples at a level of 1 in 100 each
