from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.checks.shift import correct_predictions, correct_under_corruptions
from isthmus.core import randomness
from isthmus.core.errors import DataError, ModelError
from isthmus.data.shift.shifted import load
from isthmus.metrics import measured_mce
from tests.data.shift.published_sets import cifar10_1, cifar10_c, photographs

CLASSES = ("n01440764", "n01498041", "n01531178")


class Reads(nn.Module):
    """Knows the answer: the byte of the first channel, taken as a class."""

    def __init__(self, classes: int = 10, broken: int | None = None) -> None:
        super().__init__()
        self.classes, self.broken = classes, broken
        self.seen_training: list[bool] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen_training.append(self.training)
        values = (images[:, 0, 0, 0] * 255).round().long()
        logits = nn.functional.one_hot(values % self.classes, self.classes).float()
        if self.broken is not None:
            logits[values % self.classes == self.broken, 0] = torch.nan
        return logits


class Noisy(nn.Module):
    """Chooses a class from an image's key alone."""

    takes_keys = True

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return randomness.uniform(keys, (10,))


@pytest.fixture
def newer(tmp_path: Path) -> tuple[dict[str, object], torch.Tensor]:
    """CIFAR-10.1, and for each image whether its first byte names its class."""
    images, labels = cifar10_1(tmp_path, "v4")
    options = {"name": "cifar10_1", "version": "v4", "path": str(tmp_path)}
    return options, torch.from_numpy(images[:, 0, 0, 0] % 10 == labels)


def test_each_image_is_judged_by_its_own_label(newer: tuple[dict[str, object], torch.Tensor]) -> None:
    options, expected = newer
    assert torch.equal(correct_predictions(Reads(), load(options), batch_size=300), expected)
    assert 100 < int(expected.sum()) < 400


def test_the_result_does_not_depend_on_the_batch_size_even_of_noise(
    newer: tuple[dict[str, object], torch.Tensor],
) -> None:
    shifted = load(newer[0])
    whole = correct_predictions(Noisy(), shifted, batch_size=5000)
    assert torch.equal(correct_predictions(Noisy(), shifted, batch_size=77), whole)
    assert not torch.equal(correct_predictions(Noisy(), shifted, batch_size=77, seed=1), whole)
    # nor on which other images are tested on
    some = shifted.first(100)
    assert torch.equal(correct_predictions(Noisy(), some), whole[some.positions])


def test_the_model_is_left_as_it_was(newer: tuple[dict[str, object], torch.Tensor]) -> None:
    model = Reads().train()
    correct_predictions(model, load({**newer[0], "limit": 10}))
    assert model.training
    assert model.seen_training == [False]


def test_logits_that_are_no_numbers_count_as_wrong(newer: tuple[dict[str, object], torch.Tensor]) -> None:
    options, expected = newer
    shifted = load(options)
    found = correct_predictions(Reads(broken=3), shifted)
    assert torch.equal(found, expected & (shifted.split.labels != 3))


def test_a_model_of_other_classes_is_refused(newer: tuple[dict[str, object], torch.Tensor]) -> None:
    with pytest.raises(ModelError, match="loaded for 10 classes"):
        correct_predictions(Reads(classes=100), load(newer[0]))


def test_imagenet_a_is_read_both_ways(tmp_path: Path) -> None:
    for wnid in CLASSES[:2]:
        photographs(tmp_path, wnid, [(20, 20)] * 2)
    options = {"name": "imagenet_a", "path": str(tmp_path), "size": 16, "shorter": 16}
    shifted = load(options, CLASSES)

    class Prefers(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0, 2.0]]).expand(len(images), 3)

    assert correct_predictions(Prefers(), shifted).tolist() == [True, True, False, False]
    assert correct_predictions(Prefers(), shifted, restricted=False).tolist() == [False] * 4


def test_corruptions_are_paired_and_give_the_mce(tmp_path: Path) -> None:
    for corruption in ("fog", "snow"):
        cifar10_c(tmp_path, corruption, written=10_000 if corruption == "fog" else 0)
    options = {"name": "cifar10_c", "path": str(tmp_path), "limit": 200}
    steps: list[tuple[int, int]] = []
    outcomes = correct_under_corruptions(
        Reads(),
        options,
        corruptions=("fog", "snow"),
        batch_size=128,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(done, 10) for done in range(1, 11)]
    kept = load(
        {"name": "cifar10_c", "corruption": "fog", "severity": 1, "path": str(tmp_path), "limit": 200}
    ).positions
    # what the files hold: 10·i + s under fog, nothing but zeros under snow
    fog = np.stack([((10 * kept + severity) % 255 % 10 == kept % 10).numpy() for severity in range(1, 6)])
    np.testing.assert_array_equal(outcomes["fog"], fog)
    np.testing.assert_array_equal(outcomes["snow"], np.broadcast_to((kept % 10 == 0).numpy(), (5, 200)))
    measured = measured_mce(outcomes, seed=0, baseline=None, corruptions=("fog", "snow"))
    assert measured.value == pytest.approx(1 - (fog.mean() + 0.1) / 2)
    assert measured.n == 200


def test_corruptions_of_different_images_are_refused(tmp_path: Path) -> None:
    for severity in range(1, 6):
        photographs(tmp_path / "fog" / str(severity), CLASSES[0], [(16, 16)] * (3 if severity < 4 else 2))
    options = {"name": "imagenet_c", "path": str(tmp_path), "size": 16}
    with pytest.raises(DataError, match="fog, severity 4 is not of the same images"):
        correct_under_corruptions(Reads(classes=3), options, CLASSES, corruptions=("fog",))
