"""Foolbox 1's minimal norms: levels and bisections in closed form."""

import pytest
import torch

from isthmus.attacks import Linf
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.foolbox_protocol import BisectedPGD, bisect_pgd, scan_fgsm
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, Counting, Linear, pictures, subject


def binary(n=20, scale=1.0):
    """A linear model of two classes, images away from the walls, and the ε at which FGSM reaches the boundary."""
    difference = torch.randn(PIXELS, generator=torch.Generator().manual_seed(2)).double()
    images = 0.5 + scale * (pictures(n, low=0.4, high=0.6) - 0.5)
    offset = float(-(difference @ torch.full((PIXELS,), 0.5).double()))
    model = Linear(torch.stack([difference, torch.zeros(PIXELS)]), torch.tensor([offset, 0.0]))
    gaps = (images.flatten(1).double() @ difference + offset).abs()
    return model, images, model(images).argmax(1), gaps / difference.abs().sum()


def test_the_scan_finds_the_first_level_beyond_the_boundary():
    """ε = 0.001·⌈1000·margin/‖w‖₁⌉; below the 20th level in twentieths of that."""
    model, images, labels, needed = binary()
    found = scan_fgsm(model, images, labels)
    level = (needed * 1000).ceil() / 1000
    finer = (needed / level * 20).ceil() / 20 * level
    expected = torch.where(level <= 0.0205, finer, level)
    assert (level > 0.0205).any()
    assert (level <= 0.0205).any()
    torch.testing.assert_close(found.sizes, expected, rtol=0, atol=1e-6)


def test_a_batch_of_one_scans_the_same_levels():
    model, images, labels, _ = binary(n=6)
    whole, alone = (scan_fgsm(model, images, labels, options=RunOptions(batch_size=size)) for size in (6, 1))
    torch.testing.assert_close(whole.sizes, alone.sizes)


def test_a_scan_of_what_cannot_be_broken_ends():
    model, images, _, _ = binary(n=3)
    model.bias.data[0] += 1e3
    counting = Counting(model)
    found = scan_fgsm(counting, images, torch.zeros(3, dtype=torch.int64))
    assert found.sizes.isinf().all()
    assert found.backward_passes == counting.backwards <= 3 * 2
    assert 3 * 1000 < found.forward_passes == counting.forwards < 3 * 1010


def test_a_scan_leaves_the_batch_full():
    """One row that goes through all levels is looked at in a few batches, not in a thousand."""
    model, images, labels, _ = binary(n=20)
    labels, batches = labels.clone(), []

    class Watching(torch.nn.Module):
        def forward(self, images):
            batches.append(len(images))
            return model(images)

    model.bias.data[0] = -1e3  # all images are of class 1, for good
    scan_fgsm(Watching(), images, torch.ones(20, dtype=torch.int64))
    assert len(batches) > 1000
    model.bias.data[0] = 0.0
    batches.clear()
    model.weight.data[0] = 1.0
    model.bias.data[0] = -12.0  # bright images are of class 0, and all but the brightest soon are
    scan_fgsm(Watching(), images, torch.ones(20, dtype=torch.int64))
    assert max(batches) <= 20
    assert sum(batches) > 10 * len(batches)


def test_clean_errors_have_norm_zero():
    model, images, labels = subject(n=20)
    wrong = model(images).argmax(1) != labels
    for attack in (scan_fgsm, bisect_pgd):
        assert torch.equal(attack(model, images, labels).sizes == 0, wrong)


def test_bisected_pgd_stays_above_the_boundary_and_near_it():
    """40 steps of ε/30 do not bring every pixel from a random start to +ε: a tenth or so is lost, not more."""
    model, images, labels, needed = binary()
    found = bisect_pgd(model, images, labels)
    assert (found.sizes >= needed - 1e-7).all()
    assert (found.sizes <= 1.3 * needed).all()
    scanned = scan_fgsm(model, images, labels)
    assert float((found.sizes / scanned.sizes).median()) < 1.2
    rough = bisect_pgd(model, images, labels, bisections=8)
    assert rough.backward_passes < 0.6 * found.backward_passes
    assert (rough.sizes >= needed - 1e-7).all()
    assert (rough.sizes <= 1.3 * needed + 0.3 / 2**8).all()


def rounds(outcomes):
    """The ε of each trial, for a row whose trials end at once: by success, or as if their steps were spent."""
    images = pictures(1, low=0.4, high=0.6)
    batch = Batch(images, torch.zeros(1, dtype=torch.int64), example_keys(0, torch.arange(1)))
    attack = BisectedPGD().for_threat(Linf(1.0), 2)
    runs = attack.init(batch, torch.zeros(1, dtype=torch.int64))
    tried = []
    for won in outcomes:
        assert runs.step < runs.budget
        tried.append(float(runs.eps))
        assert float((runs.x - images).abs().max()) <= tried[-1] + 1e-7  # of float32
        runs.ball_step[0] = 40
        logits = torch.tensor([[0.0, 1.0]]) if won else torch.tensor([[1.0, 0.0]])
        attack.step(runs, batch, Answer(logits, torch.zeros(1), torch.ones(1, *SHAPE)))
    return tried, bool(runs.step >= runs.budget)


def test_balls_grow_by_half_up_to_twenty_times():
    tried, over = rounds([False] * 20)
    assert over
    assert tried == pytest.approx([0.3 * 1.5**k for k in range(20)], rel=1e-5)


def test_after_the_first_success_epsilon_is_bisected_twenty_times():
    tried, over = rounds([False, True] + [True] * 20)
    assert over
    assert tried == pytest.approx([0.3] + [0.45 / 2**k for k in range(21)], rel=1e-5)
    tried, over = rounds([True] + [False] * 20)
    assert over
    assert tried == pytest.approx([0.3] + [0.3 * (1 - 0.5**k) for k in range(1, 21)], rel=1e-5)


def test_within_a_ball_forty_steps_of_a_thirtieth_are_taken():
    images = pictures(1, low=0.4, high=0.6)
    batch = Batch(images, torch.zeros(1, dtype=torch.int64), example_keys(0, torch.arange(1)))
    attack = BisectedPGD().for_threat(Linf(1.0), 2)
    runs = attack.init(batch, torch.zeros(1, dtype=torch.int64))
    start = runs.x.clone()
    silent = Answer(torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.ones(1, *SHAPE))
    for step in range(1, 41):
        attack.step(runs, batch, silent)
        expected = torch.minimum(start + step * 0.01, (images + 0.3)).clamp(0, 1)
        torch.testing.assert_close(runs.x, expected, rtol=0, atol=1e-5)
    attack.step(runs, batch, silent)
    assert float(runs.eps) == pytest.approx(0.45)
    assert not torch.equal(runs.x, start)


def test_a_random_start_depends_on_the_example_alone():
    model, images, labels = subject(n=5)
    whole = bisect_pgd(model, images, labels, seed=2)
    part = bisect_pgd(
        model, images[2:4], labels[2:4], seed=2, options=RunOptions(indices=torch.arange(2, 4), batch_size=1)
    )
    torch.testing.assert_close(part.sizes, whole.sizes[2:4], rtol=0, atol=1e-6)
