"""Faults that other evaluations of robustness have, each reproduced there, and shown not to be here.

Others are in their own places: batch size and the caller's generators in test_every_attack, C&W's abort in test_cw,
Square's windows in test_square, the draws of random models in test_attack_engine.
"""

import pytest
import torch
from torch import nn

from isthmus.attacks import PGD, Linf, robust_accuracy, verify_adversarial
from isthmus.attacks.engine.evaluation import Interrupted
from isthmus.attacks.engine.evaluation_file import forget
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.core.errors import FileError, ModelError
from isthmus.core.randomness import normal
from tests.attacks.attacked_models import Counting, Noisy, Shell, Smooth, pictures, subject

pytestmark = pytest.mark.end_to_end  # whole suites

SHORT = [
    "apgd:8",
    {"name": "apgd", "loss": "dlr", "targets": 9, "steps": 8},
    {"name": "fab", "targets": 9, "steps": 6},
    "square:60",
]
RACE = [{"name": "race", "ce_steps": 4, "rounds": [[1, 9, 4], [1, 3, 8]], "queries": 40, "sample_queries": 20}]


class Scaled(nn.Module):
    def __init__(self, model, scale):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, images):
        return self.model(images) * self.scale


@pytest.mark.parametrize(
    ("suite", "classes"),
    [
        *((suite, classes) for suite in (SHORT, RACE) for classes in (2, 3, 12)),
        *(pytest.param(suite, classes, marks=pytest.mark.slow) for suite in (SHORT, RACE) for classes in (4, 5)),
        *(pytest.param("standard", classes, marks=pytest.mark.slow) for classes in (2, 3, 4, 5, 12)),
    ],
)
def test_any_number_of_classes_from_two_up(suite, classes):
    model, images = Smooth(classes), pictures(4 if suite == "standard" else 20)
    result = robust_accuracy(model, images, model(images).argmax(1), Linf(0.1), suite)
    assert result.accuracy < 1


# --- an evaluation that cannot be resumed ---


def interrupting(after: int):
    """A progress callback that is Ctrl-C after so many looks."""
    seen = []

    def stop(at):
        seen.append(at)
        if len(seen) == after:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("after", [9, *(pytest.param(after, marks=pytest.mark.slow) for after in (1, 30, 60))])
@pytest.mark.parametrize("suite", [SHORT, RACE], ids=["short", "race"])
def test_an_interrupted_evaluation_goes_on_to_the_same_end(tmp_path, suite, after):
    model, images, labels = subject()
    whole = robust_accuracy(model, images, labels, Linf(0.05), suite, 16)
    path = tmp_path / "evaluation"
    with pytest.raises(Interrupted) as stopped:
        robust_accuracy(
            model, images, labels, Linf(0.05), suite, 16, options=RunOptions(save_to=path, progress=interrupting(after))
        )
    partial = stopped.value.result
    assert not partial.complete
    assert whole.accuracy <= partial.accuracy <= whole.clean_accuracy
    assert not (partial.broken & ~whole.broken).any()
    assert path.exists()
    resumed = robust_accuracy(model, images, labels, Linf(0.05), suite, 16, options=RunOptions(save_to=path))
    assert resumed.complete
    for name in ("broken", "stage", "run", "step", "target_class", "margin"):
        assert torch.equal(getattr(resumed.state, name), getattr(whole.state, name)), name
    assert torch.equal(resumed.adversarial, whole.adversarial)
    again = robust_accuracy(Counting(model), images, labels, Linf(0.05), suite, 16)
    at_once = robust_accuracy(model, images, labels, Linf(0.05), suite, 16, options=RunOptions(save_to=path))
    assert torch.equal(at_once.broken, again.broken)
    assert at_once.forward_passes - resumed.forward_passes < 60  # what it takes to see that witnesses hold
    forget(path)
    assert not path.exists()


class Warmed(nn.Module):
    """A model whose weights do not tell all: it has a temperature, and an offset for the first class."""

    def __init__(self, offset):
        super().__init__()
        self.model, self.offset = Smooth(), offset

    def forward(self, images):
        return self.model(images) + self.offset * torch.tensor([1.0, 0.0, 0.0])


def test_equal_weights_do_not_make_an_equal_model(tmp_path):
    _, images, labels = subject()
    path = tmp_path / "evaluation"
    robust_accuracy(Warmed(0.0), images, labels, Linf(0.05), SHORT, options=RunOptions(save_to=path))
    with pytest.raises(FileError, match="answers otherwise, though its weights are these"):
        robust_accuracy(Warmed(3.0), images, labels, Linf(0.05), SHORT, options=RunOptions(save_to=path))


@pytest.mark.parametrize("after", [40, *(pytest.param(after, marks=pytest.mark.slow) for after in (2, 90))])
def test_a_wave_can_be_interrupted_and_goes_on(tmp_path, monkeypatch, after):
    monkeypatch.setattr("isthmus.attacks.engine.early_stopping.WAVE", 12)
    model, images, labels = subject()
    path = tmp_path / "evaluation"

    def evaluate(**more):
        options = RunOptions(ci_half_width=0.05, save_to=path, **more)
        return robust_accuracy(model, images, labels, Linf(0.05), SHORT, 16, options=options)

    whole = robust_accuracy(model, images, labels, Linf(0.05), SHORT, 16, options=RunOptions(ci_half_width=0.05))
    with pytest.raises(Interrupted) as stopped:
        evaluate(progress=interrupting(after))
    assert not stopped.value.result.complete
    stopped.value.result.save(tmp_path / "partial")
    resumed = evaluate()
    assert resumed.complete
    assert torch.equal(resumed.broken, whole.broken)
    forget(path)
    assert [each.name for each in tmp_path.iterdir()] == ["partial"]


def test_a_random_models_evaluation_goes_on_with_the_same_draws(tmp_path):
    plain, images, labels = subject(n=24)
    suite = [PGD(steps=6, restarts=2)]
    whole = robust_accuracy(Noisy(plain, 0.2), images, labels, Linf(0.08), suite, 8)
    path = tmp_path / "evaluation"
    with pytest.raises(Interrupted):
        robust_accuracy(
            Noisy(plain, 0.2),
            images,
            labels,
            Linf(0.08),
            suite,
            8,
            options=RunOptions(save_to=path, progress=interrupting(9)),
        )
    resumed = robust_accuracy(Noisy(plain, 0.2), images, labels, Linf(0.08), suite, 8, options=RunOptions(save_to=path))
    for name in ("broken", "stage", "run", "step", "tries"):
        assert torch.equal(getattr(resumed.state, name), getattr(whole.state, name)), name


def test_a_result_of_views_and_strides_can_be_saved(tmp_path):
    """Labels cut from a table, images permuted from height x width x channels."""
    model, images, labels = subject()
    table = torch.stack([labels, labels], 1)
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    result = robust_accuracy(model, (strided * 255).round() / 255, table[:, 0], Linf(0.05), ["fgsm"])
    result.save(tmp_path / "result")
    again = RobustResult.load(tmp_path / "result")
    assert torch.equal(again.broken, result.broken)
    assert torch.equal(again.adversarial[again.broken], result.adversarial[result.broken])


def test_another_evaluation_is_not_taken_for_this_one(tmp_path):
    model, images, labels = subject()
    path = tmp_path / "evaluation"
    with pytest.raises(Interrupted):
        robust_accuracy(
            model, images, labels, Linf(0.05), SHORT, options=RunOptions(save_to=path, progress=interrupting(3))
        )
    for other in (
        (model, images, labels, Linf(0.06), SHORT),
        (model, images, labels, Linf(0.05), RACE),
        (model, images.flip(0), labels.flip(0), Linf(0.05), SHORT),
        (Smooth(seed=1), images, labels, Linf(0.05), SHORT),
    ):
        with pytest.raises(FileError, match="holds an evaluation with other"):
            robust_accuracy(*other, options=RunOptions(save_to=path))
    path.write_bytes(b"something else")
    with pytest.raises(FileError, match="not a readable evaluation"):
        robust_accuracy(model, images, labels, Linf(0.05), SHORT, options=RunOptions(save_to=path))


# --- logits x 1000, reported without a flag ---


def test_logits_times_a_thousand_change_nothing_for_a_suite_and_are_flagged():
    """In float32 the cross-entropy saturates; DLR, FAB and Square do not notice."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 3))
    images = pictures(60)
    labels = plain(images).argmax(1)
    expected = robust_accuracy(plain, images, labels, Linf(0.05), SHORT)
    scaled = robust_accuracy(Scaled(plain, 4096.0), images, labels, Linf(0.05), SHORT)
    assert scaled.accuracy <= expected.accuracy + 1 / 60
    assert expected.warnings == ()
    saturated = robust_accuracy(Scaled(plain, 4096.0), images, labels, Linf(0.05), ["apgd:10"])
    assert saturated.accuracy > expected.accuracy
    assert "exactly zero" in saturated.warnings[0]
    (warning,) = robust_accuracy(Scaled(plain, 1e6), images, labels, Linf(0.05), "fgsm").warnings
    assert warning.startswith("100% of the gradients were exactly zero")
    assert robust_accuracy(plain, images, labels, Linf(0.05), "fgsm").warnings == ()
    assert robust_accuracy(plain, images, labels, Linf(0.05), "uniform").warnings == ()


def test_what_only_random_search_breaks_is_flagged():
    class Stairs(nn.Module):
        """Pixels in 32 steps: no gradient anywhere, but the logits move."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images + ((images * 32).round() / 32 - images).detach() - images + images.detach())

    plain, images, labels = subject()
    result = robust_accuracy(Stairs(plain), images, labels, Linf(0.15), ["apgd:10", "square:200"])
    assert result.by_attack["apgd-ce"] - result.by_attack["square"] > 0.1
    assert any("Random search broke" in flag for flag in result.warnings)


# --- scoring the last iterate only ---


def test_a_success_on_the_way_counts_even_if_the_run_leaves_it_again():
    """A thin adversarial shell that every further step crosses."""

    images = torch.full((1, 1, 4, 4), 0.5)
    config = PGD(steps=20, step_size=0.01, random_start=False)
    result = robust_accuracy(Shell(), images, torch.tensor([0]), Linf(0.4), [config])
    assert result.broken.all()
    assert 0 < int(result.state.step[0]) < 20


# --- memory ---


class Small(nn.Module):
    """Runs out of memory on more than so many images at once."""

    def __init__(self, model, most, error=None):
        super().__init__()
        self.model, self.most = model, most
        self.error = error or torch.OutOfMemoryError("out of memory")

    def forward(self, images):
        if len(images) > self.most:
            raise self.error
        return self.model(images)


@pytest.mark.parametrize("suite", [["pgd:6"], SHORT, RACE], ids=["pgd", "short", "race"])
def test_running_out_of_memory_halves_the_batch_and_goes_on(suite):
    model, images, labels = subject()
    expected = robust_accuracy(model, images, labels, Linf(0.05), suite)
    result = robust_accuracy(Small(model, 5), images, labels, Linf(0.05), suite, 48)
    assert torch.equal(result.broken, expected.broken)
    torch.testing.assert_close(result.adversarial, expected.adversarial, equal_nan=True, rtol=0, atol=1e-6)
    with pytest.raises(ModelError, match="not fit into memory even with a single image"):
        robust_accuracy(Small(model, 0), images, labels, Linf(0.05), suite)


def test_a_cpu_without_memory_halves_the_batch_too():
    """Its allocator raises no error of its own kind."""
    model, images, labels = subject()
    expected = robust_accuracy(model, images, labels, Linf(0.05), ["pgd:6"])
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
    result = robust_accuracy(Small(model, 5, error), images, labels, Linf(0.05), ["pgd:6"], 48)
    assert torch.equal(result.broken, expected.broken)
    other = RuntimeError("shapes cannot be multiplied")
    with pytest.raises(ModelError, match="shapes cannot be multiplied"):
        robust_accuracy(Small(model, 5, other), images, labels, Linf(0.05), ["pgd:6"], 48)


class Shifted(nn.Module):
    """The same answers with a constant added to all logits, or none where an image is off the 8-bit grid."""

    def __init__(self, model: nn.Module, shift: float) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, images):
        logits = self.model(images)
        if self.shift:
            return (logits + self.shift).float()
        known = ((images * 255).round() / 255 - images).abs().flatten(1).amax(1) < 1e-4
        return logits * known[:, None]


def test_a_constant_added_to_all_logits_hides_nothing():
    model, images, labels = subject(40)
    plain = robust_accuracy(model, images, labels, Linf(0.1), "pgd")
    shifted = robust_accuracy(Shifted(model, 1e5), images, labels, Linf(0.1), "pgd")
    assert plain.accuracy < plain.clean_accuracy
    assert shifted.accuracy <= plain.accuracy + 0.05


def test_answering_nothing_is_no_robustness():
    model, images, labels = subject(40)
    images = (images * 255).round() / 255
    silent = robust_accuracy(Shifted(model, 0.0), images, labels, Linf(0.1), "uniform")
    assert (silent.broken | (labels == 0))[silent.correct].all()
    assert verify_adversarial(silent, Shifted(model, 0.0)).agrees


class Unsure(nn.Module):
    """Answers with nearly equal probabilities and a little noise from keys, but the same class nearly every time."""

    takes_keys = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images, keys=None):
        noise = 0 if keys is None else 0.02 * normal(keys, (3,))
        return 0.2 * self.model(images) + noise


def test_an_unsure_random_model_is_no_more_robust_for_that():
    model, images, labels = subject(30)
    sure = robust_accuracy(model, images, labels, Linf(0.1), "pgd").accuracy
    unsure = robust_accuracy(Unsure(model), images, labels, Linf(0.1), "pgd").accuracy
    assert unsure <= sure + 0.1
