"""Results: curves that reuse witnesses, and files that survive."""

from itertools import pairwise

import pytest
import torch

from isthmus.attacks import L2, Linf, RobustResult, curve, parse_grid, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.core.errors import FileError
from isthmus.metrics import wilson
from tests.attacks.attacked_models import Counting, Noisy, proposing, subject

QUICK = ["fgsm", "pgd"]
FACTS = ("threat", "attacks", "forward_passes", "backward_passes", "random", "complete", "by_attack", "targeted")
KEPT = (
    "correct",
    "broken",
    "stage",
    "adversarial",
    "margin",
    "run",
    "step",
    "target_class",
    "forwards",
    "backwards",
    "tries",
)


def same(a: RobustResult, b: RobustResult) -> bool:
    rows = [(getattr(a.state, name), getattr(b.state, name)) for name in KEPT]
    rows += [(a.keys, b.keys), (a.examples.labels, b.examples.labels), (a.sizes, b.sizes)]
    rows += [(a.examples.images[a.broken], b.examples.images[b.broken])]
    equal = all(torch.equal(x.nan_to_num(-9), y.nan_to_num(-9)) for x, y in rows)
    return equal and all(getattr(a, name) == getattr(b, name) for name in FACTS)


def test_the_interval_is_wilsons():
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.05), QUICK)
    assert result.interval == wilson(round(result.accuracy * 48), 48)


@pytest.mark.parametrize("eps", [1e-7, 0.02, 0.05, 0.3])
def test_the_models_accuracy_on_the_adversarial_images_is_the_robust_accuracy(tmp_path, eps):
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(eps), QUICK)
    result.save(tmp_path / "result")
    for each in (result, RobustResult.load(tmp_path / "result")):
        assert each.adversarial.isfinite().all()
        assert (model(each.adversarial).argmax(1) == labels).double().mean() == each.accuracy
        assert torch.equal(each.adversarial[each.robust], images[each.robust])
        assert torch.equal(each.adversarial[each.broken], each.state.adversarial[each.broken])
        assert each.threat.contains(each.adversarial, images).all()


def test_robust_examples_of_a_random_model_have_the_image_that_came_closest(tmp_path):
    model, images, labels = subject()
    result = robust_accuracy(Noisy(model, 0.05), images, labels, Linf(0.05), ["pgd:5"])
    assert result.robust.any()
    closest = (result.adversarial[result.robust] != images[result.robust]).flatten(1).any(1)
    assert closest.double().mean() > 0.5
    assert result.threat.contains(result.adversarial, images).all()
    result.save(tmp_path / "result")
    assert torch.equal(RobustResult.load(tmp_path / "result").adversarial, result.adversarial)


def test_a_file_of_another_version_is_refused_by_name(tmp_path):
    model, images, labels = subject()
    path = tmp_path / "result"
    robust_accuracy(model, images, labels, Linf(0.05), QUICK).save(path)
    path.write_bytes(path.read_bytes().replace(b"robust result 4", b"robust result 3"))
    with pytest.raises(FileError, match="robust result 3"):
        RobustResult.load(path)


def test_a_curve_spends_nothing_on_what_is_broken_already():
    model, images, labels = subject()
    counting = Counting(model)
    grid = parse_grid("linf:0.02,0.05,0.1,0.4")
    results = curve(counting, images, labels, grid[::-1], QUICK)
    assert [result.threat for result in results] == list(grid)
    assert sum(result.forward_passes for result in results) == counting.forwards
    assert sum(result.backward_passes for result in results) == counting.backwards
    alone = [robust_accuracy(model, images, labels, threat, QUICK) for threat in grid]
    assert same(results[0], alone[0]) or results[0].accuracy < alone[0].accuracy
    assert counting.forwards < sum(result.forward_passes for result in alone)
    assert results[-1].accuracy == alone[-1].accuracy == 0


def test_a_witness_from_a_larger_ball_counts_in_a_smaller_one_that_holds_it():
    """An attack that only dares a step of 0.05 when ε is large: its witnesses fit the smaller ball too."""
    model, images, labels = subject()
    shy = proposing(
        lambda batch, threat: (
            threat.random_start(batch.images, batch.keys)
            if threat.eps < 0.2
            else (batch.images + 0.05 * (0.5 - batch.images).sign()).clamp(0, 1)
        )
    )
    small, large = curve(model, images, labels, [Linf(0.1), Linf(0.3)], [shy])
    direct = robust_accuracy(model, images, labels, Linf(0.1), [shy])
    gained = small.broken & ~direct.broken
    assert gained.any()
    assert torch.equal(small.adversarial[gained], large.adversarial[gained])
    assert small.threat.contains(small.adversarial[small.broken], images[small.broken]).all()
    assert small.accuracy == list(small.by_attack.values())[-1]


def test_what_is_decided_along_a_curve_stays_so():
    model, images, labels = subject()
    results = curve(model, images, labels, [L2(0.1), L2(0.2), L2(0.4)], QUICK)
    for smaller, larger in pairwise(results):
        assert torch.equal(larger.adversarial[smaller.broken], smaller.adversarial[smaller.broken])
        assert torch.equal(larger.stage[smaller.broken], smaller.stage[smaller.broken])
        assert larger.clean_accuracy == smaller.clean_accuracy


def test_progress_of_a_curve_runs_through():
    model, images, labels = subject()
    seen = []
    curve(model, images, labels, [Linf(0.1), Linf(0.2)], ["fgsm"], options=RunOptions(progress=seen.append))
    assert [at.done for at in seen] == sorted(at.done for at in seen)
    assert seen[-1][:2] == (96, 96)


@pytest.mark.parametrize("targeted", [False, True])
def test_save_and_load(tmp_path, targeted):
    model, images, labels = subject()
    targets = (labels + 1) % 3 if targeted else None
    result = robust_accuracy(model, images, labels, Linf(8 / 255), QUICK, seed=4, options=RunOptions(targets=targets))
    path = tmp_path / "deep" / "result.safetensors"
    result.save(path)
    assert same(RobustResult.load(path), result)
    assert RobustResult.load(path).by_attack == result.by_attack


def test_a_result_with_nothing_broken_is_kept_too(tmp_path):
    model, images, _ = subject()
    result = robust_accuracy(model, images, model(images).argmax(1), Linf(1e-7), QUICK)
    assert result.accuracy == 1
    result.save(tmp_path / "r")
    assert same(RobustResult.load(tmp_path / "r"), result)


def test_files_that_cannot_be_read_are_named(tmp_path):
    model, images, labels = subject()
    path = tmp_path / "result"
    robust_accuracy(model, images, labels, Linf(0.1), QUICK).save(path)
    whole = path.read_bytes()
    with pytest.raises(FileError, match="There is no file"):
        RobustResult.load(tmp_path / "missing")
    for content in (
        whole[:-8],
        whole[:20],
        b"",
        b"not a result",
        whole.replace(b"robust result 4", b"another format"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"is not a (readable )?robustness result"):
            RobustResult.load(path)
    path.write_bytes(whole.replace(b"linf:0.1", b"lnif:0.1"))
    with pytest.raises(FileError, match="Did you mean 'linf'"):
        RobustResult.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, images, labels = subject()
    result = robust_accuracy(model, images, labels, Linf(0.1), QUICK)
    result.save(tmp_path / "r")
    before = (tmp_path / "r").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isthmus.core.files.os.fsync", full)
    with pytest.raises(FileError, match="No space left"):
        result.save(tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == before
