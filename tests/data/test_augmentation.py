from __future__ import annotations

import torch

from isthmus.core.randomness import example_keys
from isthmus.core.training_options import AUGMENTATIONS, Augmentation
from isthmus.data.augmentation import augment, draw_all
from isthmus.data.autoaugment.apply import apply
from isthmus.data.crops import crop_flip, cutout

IMAGES = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
KEYS = example_keys(1, torch.arange(50))


def test_the_order_is_sub_policy_then_crop_and_flip_then_cutout() -> None:
    options = Augmentation(**AUGMENTATIONS["autoaugment"])
    drawn = draw_all(options, KEYS, 32, 32)
    assert drawn.operations is not None
    assert drawn.moves is not None
    assert drawn.centres is not None
    expected = cutout(crop_flip(apply(IMAGES, drawn.operations), drawn.moves), drawn.centres, 16)
    assert torch.equal(augment(IMAGES, drawn, options), expected)


def test_one_part_is_drawn_alike_whatever_the_others_are() -> None:
    whole = draw_all(Augmentation(**AUGMENTATIONS["autoaugment"]), KEYS, 32, 32)
    moves_only = draw_all(Augmentation(crop_flip=True), KEYS, 32, 32)
    assert torch.equal(moves_only.moves, whole.moves)  # type: ignore[arg-type]
    assert moves_only.operations is moves_only.centres is None


def test_without_augmentation_images_stay_as_they_are() -> None:
    drawn = draw_all(Augmentation(), KEYS, 32, 32)
    assert torch.equal(augment(IMAGES, drawn.at(torch.arange(50)), Augmentation()), IMAGES)
