"""Transfer: one model's adversarial images on another, against judging them by hand."""

import pickle

import pytest
import torch

from isthmus.attacks import RobustResult, Transfer, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.suites import stages_of
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.attacks.transfer import transferred
from isthmus.core.errors import ConfigError, FileError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import Counting, Smooth, pictures


@pytest.fixture(scope="module")
def case():
    """Images, the labels that model B gives them, model B, and what PGD found on model A, which errs on some."""
    images, nearest_margin, far = pictures(40), Smooth(seed=0), Smooth(seed=0)
    with torch.no_grad():
        for parameter in far.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
            parameter += 0.25 * noise
    labels = nearest_margin(images).argmax(1)
    found = robust_accuracy(far, images, labels, Linf(0.15), ["pgd:10"], seed=5)
    assert {"clean", "pgd"} <= set(found.broken_by)
    return images, labels, nearest_margin, found


@pytest.fixture
def saved(case, tmp_path):
    path = tmp_path / "other.safetensors"
    case[3].save(path)
    return path


def by_hand(model, labels, found):
    """Which witnesses of attacks the model gets wrong."""
    rows = (found.broken & (found.stage > 0)).nonzero().squeeze(1)
    wrong = torch.zeros(len(labels), dtype=torch.bool)
    wrong[rows] = model(found.adversarial[rows]).argmax(1) != labels[rows]
    return wrong


def test_what_the_other_models_witnesses_break_is_what_judging_them_says(case, saved):
    images, labels, model, found = case
    expected = by_hand(model, labels, found)
    assert 0 < expected.sum() < found.broken.sum()
    for attack in (transferred(found), Transfer(results=(saved,)), f"transfer:{saved}"):
        result = robust_accuracy(model, images, labels, Linf(0.15), [attack])
        assert torch.equal(result.broken, expected)
        assert torch.equal(result.adversarial[expected], found.adversarial[expected])
        assert result.attacks == ("clean", "transfer")


def test_each_standing_example_costs_one_forward_pass(case):
    images, labels, model, found = case
    counting = Counting(model)
    result = robust_accuracy(counting, images, labels, Linf(0.15), [transferred(found)])
    assert result.forward_passes == counting.forwards
    again = (
        2 * (result.broken & (result.stage > 0)).long()
    )  # each success is asked about again, and verified at the end
    assert result.state.forwards.tolist() == (2 + again).tolist()
    assert result.state.backwards.sum() == 0


@pytest.mark.parametrize("threat", [Linf(0.05), Linf(0.4), L2(0.3), L1(0.8)], ids=str)
def test_witnesses_from_another_ball_are_brought_into_this_one(case, threat):
    images, labels, model, found = case
    result = robust_accuracy(model, images, labels, threat, [transferred(found)])
    rows = (found.broken & (found.stage > 0)).nonzero().squeeze(1)
    inside = threat.contains(found.adversarial[rows], images[rows])
    assert inside.all() == (threat == Linf(0.4))
    brought = torch.where(
        inside.view(-1, 1, 1, 1), found.adversarial[rows], threat.project(found.adversarial[rows], images[rows])
    )
    assert torch.equal(result.broken[rows], model(brought).argmax(1) != labels[rows])
    assert threat.contains(result.adversarial[result.broken], images[result.broken]).all()


def test_order_number_seed_and_batch_size_do_not_matter(case, saved):
    images, labels, model, found = case
    expected = by_hand(model, labels, found)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:25]
    for attack in (transferred(found), f"transfer:{saved}"):
        for size in (1, 7):
            part = robust_accuracy(model, images[order], labels[order], Linf(0.15), [attack], size, seed=9)
            assert torch.equal(part.broken, expected[order])


def test_several_results_are_tried_one_after_another(case, tmp_path):
    images, labels, model, found = case
    third = robust_accuracy(Smooth(seed=1), images, labels, Linf(0.15), ["fgsm"])
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, each in zip(paths, (found, third), strict=True):
        each.save(path)
    one, two = by_hand(model, labels, found), by_hand(model, labels, third)
    result = robust_accuracy(model, images, labels, Linf(0.15), [{"name": "transfer", "results": paths}])
    assert result.attacks == ("clean", "transfer", "transfer-2")
    assert torch.equal(result.broken, one | two)
    assert [by == "transfer" for by in result.broken_by] == one.tolist()
    again = robust_accuracy(model, images, labels, Linf(0.15), [transferred(found), transferred(third)])
    assert again.broken_by == result.broken_by


def test_in_a_suite_the_next_attack_goes_on_where_it_ends(case):
    images, labels, model, found = case
    result = robust_accuracy(model, images, labels, Linf(0.15), [transferred(found), "pgd:10"])
    alone = robust_accuracy(model, images, labels, Linf(0.15), ["pgd:10"])
    assert torch.equal(result.broken, by_hand(model, labels, found) | alone.broken)
    assert {"transfer", "pgd"} <= set(result.broken_by)


def test_a_target_must_be_reached(case):
    images, labels, model, found = case
    targets = (labels + 1) % 3
    result = robust_accuracy(
        model, images, labels, Linf(0.15), [transferred(found)], options=RunOptions(targets=targets)
    )
    rows = (found.broken & (found.stage > 0)).nonzero().squeeze(1)
    assert torch.equal(result.broken[rows], model(found.adversarial[rows]).argmax(1) == targets[rows])


def test_a_minus_zero_is_a_zero(case):
    images, labels, model, found = case
    assert (images == 0).any()
    signed = torch.where(images == 0, -0.0, images)
    result = robust_accuracy(model, signed, labels, Linf(0.15), [transferred(found)])
    assert torch.equal(result.broken, by_hand(model, labels, found))


def test_a_result_without_witnesses_breaks_nothing(case, tmp_path):
    images, labels, model, _ = case
    nothing = robust_accuracy(model, images, labels, Linf(1e-6), ["fgsm"])
    assert not nothing.broken.any()
    nothing.save(tmp_path / "nothing")
    for attack in (transferred(nothing), f"transfer:{tmp_path / 'nothing'}"):
        assert robust_accuracy(model, images, labels, Linf(0.15), [attack]).accuracy == 1


@pytest.mark.parametrize("size", [1, 40])
def test_results_of_other_examples_are_warned_of(case, saved, size, caplog):
    _, _, model, found = case
    strangers = pictures(40, seed=7)
    labels = model(strangers).argmax(1)
    for attack in (transferred(found), f"transfer:{saved}"):
        caplog.clear()
        assert robust_accuracy(model, strangers, labels, Linf(0.15), [attack], size).accuracy == 1
        assert caplog.text.count("is one of the result's") == 1


def test_images_of_another_shape_are_refused(case):
    adversarial = transferred(case[3])
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.zeros(1, dtype=torch.int64), example_keys(0, torch.arange(1)))
    with pytest.raises(ConfigError, match=r"of shape \(1, 4, 4\), these are of \(3, 4, 4\)"):
        adversarial.perturb(None, batch, Linf(0.1))


def test_a_missing_or_damaged_file_is_named_before_anything_runs(tmp_path):
    with pytest.raises(FileError, match="There is no file .*gone"):
        stages_of([f"transfer:{tmp_path / 'gone'}"])
    (tmp_path / "odd").write_bytes(b"no result")
    with pytest.raises(FileError, match="odd"):
        stages_of(["pgd", {"name": "transfer", "results": [str(tmp_path / "odd")]}])
    with pytest.raises(ConfigError, match="results"):
        stages_of(["transfer"])


def test_an_attack_can_be_sent_to_another_process_and_says_what_it_is_of(case, saved):
    images, labels, model, found = case
    attack = pickle.loads(pickle.dumps(transferred(found)))
    result = robust_accuracy(model, images, labels, Linf(0.15), [attack])
    assert torch.equal(result.broken, by_hand(model, labels, found))
    (other,) = stages_of([f"transfer:{saved}"])
    assert other.attack.digest == attack.digest
    assert other.attack.source == str(saved)
    half = RobustResult.load(saved)
    half.state.broken[:20] = False
    assert transferred(half).digest != attack.digest
