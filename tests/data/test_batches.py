from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.core.errors import ConfigError, DataError
from isthmus.core.training_options import Augmentation
from isthmus.data.batches import Batch, Batches
from isthmus.data.images import Split, as_float

AUTOAUGMENT = Augmentation(autoaugment="released", crop_flip=True, cutout=3)
CPU_OPTIONS: list[dict[str, Any]] = [
    {},
    {"augment": "crop_flip"},
    {"augment": "crop_flip", "channels_last": True},
    {"augment": AUTOAUGMENT},
    {"augment": AUTOAUGMENT, "channels_last": True},
    {"augment": "imagenet_autoaugment"},
    {"shuffle": False},
    {"drop_last": True},
]


def numbered(n: int, channels: int = 3, size: int = 6) -> Split:
    images = torch.randint(
        0, 256, (n, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(n)
    )
    return Split(images, torch.arange(n) % 10)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_serves_every_image_exactly_once(n: int, batch_size: int, seed: int, epoch: int) -> None:
    split = numbered(n, size=2)
    batches = Batches(split, batch_size, seed=seed)
    served = list(batches.epoch(epoch))
    assert len(served) == len(batches)
    assert sorted(torch.cat([b.indices for b in served]).tolist()) == list(range(n))
    assert all(len(b.labels) == batch_size for b in served[:-1])
    for b in served:
        assert torch.equal(b.images, as_float(split.images[b.indices]))
        assert torch.equal(b.labels, split.labels[b.indices])


@pytest.mark.parametrize("options", CPU_OPTIONS, ids=str)
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_resuming_in_the_middle_of_an_epoch_gives_bitwise_the_same_batches(options: dict, start: int) -> None:
    whole = list(Batches(numbered(50), 12, seed=7, **options).epoch(2))
    torch.manual_seed(99)  # whatever else happened meanwhile
    resumed = list(Batches(numbered(50), 12, seed=7, **options).epoch(2, start))
    assert len(resumed) == len(whole) - start
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


def test_start_at_the_end_serves_nothing_and_beyond_it_is_an_error() -> None:
    batches = Batches(numbered(50), 12)
    assert list(batches.epoch(0, len(batches))) == []
    for start in (-1, len(batches) + 1):
        with pytest.raises(ValueError, match="start must lie in 0 … 5"):
            batches.epoch(0, start)


def test_orders_differ_between_epochs_and_seeds_and_are_shuffled() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(torch.cat([b.indices for b in Batches(numbered(200), 50, seed=seed).epoch(epoch)]).tolist())

    orders = {order(seed, epoch) for seed, epoch in itertools.product(range(3), range(3))}
    assert len(orders) == 9
    assert order(1, 2) == order(1, 2)
    assert tuple(range(200)) not in orders


def test_positions_are_uniform_over_epochs() -> None:
    batches = Batches(numbered(8, size=1), 8)
    counts = torch.zeros(8, 8)
    for epoch in range(800):
        counts[torch.arange(8), next(batches.epoch(epoch)).indices] += 1
    assert (counts - 100).abs().max() < 50  # five standard deviations


def test_without_shuffle_the_order_is_the_splits_own() -> None:
    served = torch.cat([b.indices for b in Batches(numbered(25), 4, shuffle=False).epoch(3)])
    assert torch.equal(served, torch.arange(25))


@pytest.mark.parametrize("augment", ["crop_flip", AUTOAUGMENT], ids=str)
def test_augmentation_is_keyed_by_example_not_by_batch(augment: Augmentation | str) -> None:
    def by_index(batch_size: int, shuffle: bool) -> dict[int, bytes]:
        batches = Batches(numbered(40), batch_size, seed=1, augment=augment, shuffle=shuffle).epoch(4)
        return {int(i): x.numpy().tobytes() for b in batches for i, x in zip(b.indices, b.images, strict=True)}

    reference = by_index(40, shuffle=True)
    assert reference == by_index(7, shuffle=True) == by_index(16, shuffle=False)
    plain = {i: as_float(image).numpy().tobytes() for i, image in enumerate(numbered(40).images)}
    assert sum(reference[i] != plain[i] for i in plain) > 30


def test_augmented_pictures_change_from_epoch_to_epoch() -> None:
    batches = Batches(numbered(40), 40, augment="crop_flip", shuffle=False)
    one, two = next(batches.epoch(0)).images, next(batches.epoch(1)).images
    assert (one != two).flatten(1).any(1).sum() > 30


def test_several_processes_serve_together_what_one_serves() -> None:
    def options(rank: int, world: int) -> Batches:
        return Batches(numbered(50), 12, seed=3, augment="crop_flip", drop_last=True, rank=rank, world=world)

    for alone, *shares in zip(*(options(r, w).epoch(1) for r, w in [(0, 1), (0, 3), (1, 3), (2, 3)]), strict=True):
        assert [len(share.labels) for share in shares] == [4, 4, 4]
        for rank, share in enumerate(shares):
            assert all(torch.equal(a[rank::3], b) for a, b in zip(alone, share, strict=True))


def test_drop_last_leaves_out_only_the_short_batch() -> None:
    batches = Batches(numbered(50), 12, drop_last=True)
    assert [len(b.labels) for b in batches.epoch(0)] == [12] * len(batches) == [12] * 4


def test_channels_last_changes_the_layout_and_not_the_numbers() -> None:
    for augment in ("none", "crop_flip", AUTOAUGMENT):
        one = next(Batches(numbered(20), 10, augment=augment).epoch(0)).images
        other = next(Batches(numbered(20), 10, augment=augment, channels_last=True).epoch(0)).images
        assert torch.equal(one, other)
        assert one.is_contiguous()
        assert other.is_contiguous(memory_format=torch.channels_last)


def test_batches_do_not_share_memory_with_the_split() -> None:
    split = numbered(10)
    before = split.images.clone()
    for batch in Batches(split, 10, shuffle=False).epoch(0):
        batch.images.zero_()
        batch.labels.zero_()
    assert torch.equal(split.images, before)
    assert split.labels.sum() == 45


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "at least 1; got 0"),
        ({"batch_size": 4, "rank": 2, "world": 2, "drop_last": True}, "rank must lie in 0 … 1; got 2"),
        ({"batch_size": 4, "world": 2}, "set drop_last"),
        (
            {"batch_size": 5, "world": 2, "drop_last": True},
            "batch_size that 2 divides; got drop_last=True, batch_size=5",
        ),
    ],
)
def test_options_that_cannot_work_are_named(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Batches(numbered(10), **options)


def test_drop_last_that_would_leave_nothing_says_so() -> None:
    with pytest.raises(DataError, match="batch_size=11 with drop_last leaves no batch of 10 images"):
        Batches(numbered(10), 11, drop_last=True)


@pytest.mark.parametrize(
    ("augment", "error", "words"),
    [
        ("crop_flop", ConfigError, "no augmentation 'crop_flop'. Did you mean 'crop_flip'"),
        (Augmentation(cutout=6), DataError, "cutout=6 can blacken whole images of 6×6; give at most 5"),
        (Augmentation(autoaugment="published"), DataError, "1 or 3 channels; these have 2"),
    ],
)
def test_augmentations_that_do_not_fit_are_named(augment: Augmentation | str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Batches(numbered(10, channels=2), 5, augment=augment)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", CPU_OPTIONS, ids=str)
def test_a_gpu_serves_the_same_batches(options: dict) -> None:
    here = Batches(numbered(50), 12, seed=5, **options).epoch(1)
    there = Batches(numbered(50), 12, seed=5, device="cuda", **options).epoch(1)
    for a, b in zip(here, there, strict=True):
        assert b.images.is_cuda
        assert same(a, Batch(*(part.cpu() for part in b)))
