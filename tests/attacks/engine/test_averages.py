"""Models that answer at random for some images alone: found out at the first success, then judged by their average."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks import PGD, Linf, RobustResult, curve, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.evaluation import Evaluation, Interrupted
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.engine.stage import AttackTask, SharedStage
from isthmus.attacks.engine.verifier import Randomness
from isthmus.attacks.suites import stages_of
from isthmus.attacks.verify import verify
from isthmus.audits.classifier import adopt
from isthmus.core.execution import InProcess
from isthmus.core.randomness import example_keys
from isthmus.diagnosis.budget import QUICK
from isthmus.diagnosis.context import DiagnosisContext
from tests.attacks.attacked_models import Counting, Smooth, pictures, proposing
from tests.attacks.test_faults_of_peers import interrupting

SUITE = ["fgsm", PGD(steps=12, loss="margin")]
EPS = 0.12


class Hesitant(nn.Module):
    """Another model's logits, with zero-mean noise added only where its confidence is below 0.9."""

    def __init__(self, model: nn.Module, sigma: float = 3.0) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma

    def noise(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        unsure = logits.softmax(1).amax(1, keepdim=True) < 0.9
        return logits + self.sigma * unsure * self.noise(logits)


class FromNumpy(Hesitant):
    def noise(self, logits):
        return torch.from_numpy(np.random.standard_normal(tuple(logits.shape)))  # noqa: NPY002


class FromItsOwnGenerator(Hesitant):
    def __init__(self, model):
        super().__init__(model)
        self.generator = np.random.default_rng(0)

    def noise(self, logits):
        return torch.from_numpy(self.generator.standard_normal(tuple(logits.shape)))


class FromACounter(Hesitant):
    calls = 0

    def noise(self, logits):
        self.calls += 1
        generator = torch.Generator().manual_seed(self.calls)
        return torch.randn(logits.shape, generator=generator, dtype=logits.dtype)


class OneCoin(Hesitant):
    """The same noise for every image of a batch."""

    def noise(self, logits):
        return torch.randn(1, logits.shape[1], dtype=logits.dtype).expand_as(logits)


class Dropout(Hesitant):
    """Dropout that eval mode does not turn off."""

    def noise(self, logits):
        return (nn.functional.dropout(logits, 0.5, training=True) - logits) / self.sigma


@pytest.fixture(scope="module")
def sure():
    """A model and images that it is sure of."""
    model = Smooth()
    images = pictures(400)
    with torch.no_grad():
        chosen = images[model(images).softmax(1).amax(1) > 0.95][:40]
        return model, chosen, model(chosen).argmax(1)


def clearly_right(model: nn.Module, result: RobustResult) -> int:
    """How many broken images 1,000 further draws find right on average, by more than the sampling error."""
    images, labels = result.adversarial[result.broken], result.examples.labels[result.broken]
    with torch.no_grad():
        mean = sum(model(images).softmax(1) for _ in range(1000)) / 1000
    own = mean.gather(1, labels[:, None])[:, 0]
    return int((own - mean.scatter(1, labels[:, None], 0).amax(1) > 0.08).sum())


@pytest.mark.parametrize(
    "kind",
    [
        Hesitant,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in (FromNumpy, FromACounter, OneCoin)),
        FromItsOwnGenerator,
        Dropout,
    ],
)
def test_no_image_that_is_right_on_average_is_called_broken(sure, kind):
    plain, images, labels = sure
    model = kind(plain)
    result = robust_accuracy(model, images, labels, Linf(EPS), SUITE)
    assert result.random
    assert result.clean_accuracy == 1.0
    assert clearly_right(model, result) == 0


def test_what_success_costs_is_booked_on_the_example_that_succeeded(sure):
    """Whoever else is in the batch: the columns are those of one image at a time."""
    plain, images, labels = sure
    whole = robust_accuracy(plain, images, labels, Linf(EPS), SUITE)
    assert whole.broken.any()
    assert whole.robust.any()
    for batch_size in (1, 7):
        parts = robust_accuracy(plain, images, labels, Linf(EPS), SUITE, batch_size)
        assert torch.equal(parts.state.forwards, whole.state.forwards)
        assert torch.equal(parts.state.backwards, whole.state.backwards)


def test_every_pass_of_both_attempts_is_counted(sure):
    plain, images, labels = sure
    model = Counting(Hesitant(plain))
    result = robust_accuracy(model, images, labels, Linf(EPS), SUITE)
    assert result.random
    assert (result.forward_passes, result.backward_passes) == (model.forwards, model.backwards)
    assert sum(result.spent) == model.forwards + model.backwards


def test_what_is_known_from_the_start_and_what_is_found_out_late_give_one_result(sure):
    """Generators start from the seed again, so the discarded attempt leaves no trace but its passes."""
    plain, images, labels = sure
    keys = example_keys(0, torch.arange(len(images)))

    def broken(random: bool):
        evaluation = Evaluation(
            Hesitant(plain), Batch(images, labels, keys), Linf(EPS), stages_of(SUITE), 0, RunOptions(random=random)
        )
        torch.manual_seed(0)
        evaluation.init(None)
        evaluation.run()
        return evaluation.result()

    late, early = broken(False), broken(True)
    assert late.random
    assert early.random
    assert (late.accuracy, late.clean_accuracy) == (early.accuracy, early.clean_accuracy)
    assert late.forward_passes > early.forward_passes


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_the_rule_does_not_depend_on_the_batch_size(sure, batch_size):
    plain, images, labels = sure
    whole = robust_accuracy(Hesitant(plain), images, labels, Linf(EPS), SUITE)
    parts = robust_accuracy(Hesitant(plain), images, labels, Linf(EPS), SUITE, batch_size)
    assert whole.random
    assert parts.random
    assert abs(whole.accuracy - parts.accuracy) <= 6 / len(images)  # its draws go by batch, its judgement does not


def test_one_clean_image_that_is_answered_at_random_is_enough(sure):
    plain, images, labels = sure

    class Once(Hesitant):
        def forward(self, given):
            noisy = (given == images[30]).flatten(1).all(1)
            return self.model(given) + 9 * noisy[:, None] * torch.randn(len(given), 3, dtype=torch.float64)

    found = [robust_accuracy(Once(plain), images, labels, Linf(1e-4), ["fgsm"], seed=seed) for seed in range(4)]
    assert any(result.random for result in found)
    for result in found:
        assert result.random or result.clean_accuracy == 1.0
    judged = adopt(Once(plain), images)
    assert judged.draws > 1


def test_a_resumed_evaluation_keeps_the_rule(sure, tmp_path):
    plain, images, labels = sure
    path = tmp_path / "kept"
    at = 0
    while True:
        at += 1
        with pytest.raises(Interrupted) as stop:
            robust_accuracy(
                Hesitant(plain),
                images,
                labels,
                Linf(EPS),
                SUITE,
                options=RunOptions(save_to=path, progress=interrupting(1 + 4 * at)),
            )
        if stop.value.result.random or at == 4:
            break
        path.unlink()
    resumed = robust_accuracy(Hesitant(plain), images, labels, Linf(EPS), SUITE, options=RunOptions(save_to=path))
    assert resumed.random
    assert clearly_right(Hesitant(plain), resumed) == 0
    again = robust_accuracy(Hesitant(plain), images, labels, Linf(EPS), SUITE, options=RunOptions(save_to=path))
    assert torch.equal(again.broken, resumed.broken)
    assert again.random


def test_a_whole_curve_is_judged_by_one_rule(sure):
    plain, images, labels = sure
    model = Counting(Hesitant(plain))
    found = curve(model, images[:20], labels[:20], [Linf(1e-4), Linf(EPS)], SUITE)
    assert all(result.random for result in found)
    assert sum(result.forward_passes for result in found) == model.forwards
    assert sum(result.backward_passes for result in found) == model.backwards
    assert [result.accuracy for result in found] == sorted((result.accuracy for result in found), reverse=True)


def test_all_waves_are_judged_by_one_rule(sure, monkeypatch):
    plain, images, labels = sure
    monkeypatch.setattr("isthmus.attacks.engine.early_stopping.WAVE", 20)
    model = Counting(Hesitant(plain))
    result = robust_accuracy(model, images, labels, Linf(EPS), SUITE, options=RunOptions(ci_half_width=1e-6))
    assert result.random
    assert clearly_right(model.model, result) == 0
    assert (result.forward_passes, result.backward_passes) == (model.forwards, model.backwards)


def test_a_worker_tells_that_the_model_is_random(sure):
    plain, images, labels = sure
    model, attack = Counting(Hesitant(plain)), stages_of([SUITE[1]])[0]
    keys = example_keys(0, torch.arange(len(images)))
    evaluation = Evaluation(model, Batch(images, labels, keys), Linf(EPS), stages_of([attack]), 0, RunOptions())
    evaluation.init(None)
    evaluation.context.state.open_stage(1)
    counted = evaluation.context.counted_model
    shared = SharedStage(InProcess(), AttackTask.of(InProcess(), model, False), evaluation.context, attack, 1, 0)
    with pytest.raises(Randomness):
        list(shared.run(torch.arange(len(images))))
    assert (counted.forward_passes, counted.backward_passes) == (model.forwards, model.backwards)


@pytest.mark.slow
def test_processes_change_nothing_about_the_rule(sure):
    plain, images, labels = sure
    result = robust_accuracy(FromACounter(plain), images, labels, Linf(EPS), SUITE, jobs=2)
    assert result.random
    assert clearly_right(FromACounter(plain), result) == 0


def test_verification_asks_twice_too(sure):
    """A result of a deterministic model, whose adversarial images fool a draw of this model now and then."""
    plain, images, _ = sure
    more = pictures(400, seed=3)
    confidence = plain(more).softmax(1).amax(1)
    moved = torch.cat([images[:8], more[(confidence > 0.6) & (confidence < 0.8)][:20]])  # the first few are certain
    labels = plain(moved).argmax(1)
    honest = robust_accuracy(plain, moved, labels, Linf(0.1), [proposing(lambda batch, threat: batch.images)])
    state = honest.state.take(torch.arange(len(moved)))
    state.broken[8:], state.stage[8:], state.adversarial[8:] = True, 1, moved[8:]
    done = verify(replace(honest, state=state), Hesitant(plain))
    assert done.proven <= 1
    assert done.reasons["the adversarial image is not misclassified"] >= 19


class Crowded(nn.Module):
    """Errs about images that were moved, and among sixteen alone: not random, but no property of the image either."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        moved = ~(given[:, None] == self.images[None]).flatten(2).all(2).any(1)
        bright = given.flatten(1).mean(1) > 0.5
        errs = moved & bright & (len(given) == 16)
        return torch.stack([2.0 - 4 * errs.float(), torch.zeros(len(given))], 1)


def test_what_the_last_pass_does_not_confirm_is_not_reported(tmp_path):
    images, labels = pictures(20), torch.zeros(20, dtype=torch.int64)
    suite = [proposing(lambda batch, threat: (batch.images - 0.01).clamp(0, 1))]
    bright = (images[:16] - 0.01).clamp(0, 1).flatten(1).mean(1) > 0.5
    result = robust_accuracy(Crowded(images), images, labels, Linf(0.1), suite, 16)
    assert not result.random
    assert (result.accuracy, result.verified) == (1.0, True)
    assert result.unconfirmed == int(bright.sum()) > 0
    assert result.verification_passes == result.unconfirmed * 2
    assert "did not confirm it" in result.warnings[0]
    assert verify(result, Crowded(images)).agrees
    result.save(tmp_path / "result")
    loaded = RobustResult.load(tmp_path / "result")
    assert (loaded.unconfirmed, loaded.verified, loaded.warnings) == (result.unconfirmed, True, result.warnings)
    unchecked = robust_accuracy(Crowded(images), images, labels, Linf(0.1), suite, 16, options=RunOptions(verify=False))
    assert not unchecked.verified
    assert unchecked.accuracy == 1 - int(bright.sum()) / 20


def test_an_audits_verdict_changes_to_the_rule_for_random_models(sure):
    plain, images, labels = sure
    model = Hesitant(plain)
    context = DiagnosisContext(model, Batch(images, labels, example_keys(0, torch.arange(40))), Linf(EPS), QUICK)
    assert not context.random
    baseline = context.baseline
    assert context.random
    assert baseline.random
    assert clearly_right(model, context.best) == 0
