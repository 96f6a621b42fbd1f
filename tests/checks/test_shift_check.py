"""Natural shift: losses with the interval that belongs to them, pairing image by image, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.checks.context import Context
from isthmus.checks.shift import correct_predictions, correct_under_corruptions
from isthmus.core import randomness, results
from isthmus.core.config import component
from isthmus.core.display import Headline
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.core.types import Status
from isthmus.data.shift.shifted import load
from isthmus.metrics import measured_mce
from isthmus.report.sections import shift as page
from tests.checks.metric_helpers import plain
from tests.data.shift.published_sets import cifar10_1, cifar10_c, photographs
from tests.models import Reads

CLASSES = ("n01440764", "n01498041", "n01531178")


class Noisy(nn.Module):
    """Chooses a class from an image's key alone."""

    takes_keys = True

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return randomness.uniform(keys, (10,))


def context(labels, values=None, indices=None, shape=(3, 32, 32)):
    """Audited images whose first byte is ``values``: right wherever that names the label."""
    labels = torch.as_tensor(labels)
    images = torch.zeros(len(labels), *shape)
    images[:, 0, 0, 0] = torch.as_tensor(labels if values is None else values) / 255
    return Context(Reads(), images, labels, 10, Linf(0.1), indices=indices)


def run(ctx, *sets, **options):
    return component("checks", {"name": "shift", "sets": list(sets), **options}).run(ctx)


def test_other_images_are_compared_as_independent(tmp_path):
    images, labels = cifar10_1(tmp_path, "v4")
    correct = images[:, 0, 0, 0] % 10 == labels  # a tenth of them
    audited = np.arange(300) % 10
    result = run(context(audited), {"name": "cifar10_1", "version": "v4", "path": str(tmp_path)})
    assert result.metrics.one("accuracy", mode="mean").value == 1.0
    assert plain(result.metrics.one("accuracy", mode="mean", data="cifar10_1_v4")) == metrics.accuracy(correct)
    loss = result.metrics.one("accuracy_loss", mode="mean", data="cifar10_1_v4")
    assert loss.value == pytest.approx(1 - correct.mean())
    assert loss.interval.method == "Newcombe, independent"
    assert result.status is Status.WARN
    assert "above 5.0% on cifar10_1" in result.reason
    np.testing.assert_array_equal(result.arrays["cifar10_1_v4_correct"], correct)


def test_the_same_images_are_compared_one_by_one(tmp_path):
    cifar10_c(tmp_path, "fog")
    fog = {"name": "cifar10_c", "corruption": "fog", "severity": 3, "path": str(tmp_path)}
    where = torch.tensor([7, 3, 11, 19])
    ctx = context(where % 10, values=[7, 0, 1, 9], indices=where)  # the second is wrong
    result = run(ctx, fog)
    after = (10 * where + 3) % 255 % 10 == where % 10
    assert result.arrays["cifar10_c_fog_3_correct"].tolist() == after.tolist() == [False, True, False, False]
    expected = metrics.paired_difference(after.numpy(), np.array([True, False, True, True]))
    assert plain(result.metrics.one("accuracy_loss", mode="mean", data="cifar10_c_fog_3")) == expected
    assert expected.interval.method == "Newcombe, paired"


def test_other_labels_are_not_the_same_images(tmp_path):
    cifar10_c(tmp_path, "fog")
    fog = {"name": "cifar10_c", "corruption": "fog", "severity": 1, "path": str(tmp_path)}
    with pytest.raises(DataError, match=r"4 of 4 labels differ: these are not the same images"):
        run(context([1, 2, 3, 4]), fog)
    with pytest.raises(DataError, match=r"lacks \d+ of them, the first at position"):
        run(context(np.arange(12) % 10), {**fog, "limit": 10})


def folder(root, named, size=8):
    """A data set of image files: train and test, two images of each class."""
    for split in ("train", "test"):
        for name, value in named.items():
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.full((size, size), value, np.uint8)).save(root / split / name / f"{number}.png")
    return {"name": "folder", "path": str(root), "size": size, "channels": 1}


def names():
    return [f"class {number}" for number in range(10)]


def test_a_data_set_is_matched_by_the_names_of_classes(tmp_path):
    """In the classifier's order the files of "class 3" hold its answer, though the folder sorts otherwise."""
    given = folder(tmp_path / "mine", {name: number for number, name in enumerate(names())})
    ctx = context(np.arange(20) % 10, shape=(1, 8, 8))
    result = run(ctx, given, classes=names())
    assert result.metrics.one("accuracy", mode="mean", data="folder_mine").value == 1.0
    assert run(ctx, given, classes=names()[::-1]).metrics.one("accuracy", mode="mean", data="folder_mine").value == 0.0
    assert result.status is Status.PASS
    assert "no loss is shown" in result.reason


def test_what_does_not_fit_is_said(tmp_path):
    given = folder(tmp_path / "mine", dict(zip(names()[:3], range(3), strict=True)))
    ctx = context(np.arange(20) % 10, shape=(1, 8, 8))
    with pytest.raises(DataError, match=r"has 3 classes, and the classifier 10; give `classes`"):
        run(ctx, given)
    _images, _ = cifar10_1(tmp_path / "new", "v6")
    with pytest.raises(DataError, match=r"images of 3×32×32, and the audited ones are 1×8×8"):
        run(ctx, {"name": "cifar10_1", "version": "v6", "path": str(tmp_path / "new")})
    twice = {"name": "cifar10_1", "version": "v6", "path": str(tmp_path / "new")}
    short = component("checks", "shift:cifar10_1:v4")
    assert short == component("checks", {"name": "shift", "sets": [{"name": "cifar10_1", "version": "v4"}]})
    with pytest.raises(ConfigError, match="given twice"):
        run(context(np.arange(20) % 10), twice, twice)
    with pytest.raises(ConfigError, match=r"Did you mean 'digits'"):
        run(ctx, "digit")


def test_the_page_is_drawn_from_what_is_stored(tmp_path):
    cifar10_1(tmp_path / "new", "v4")
    result = run(context(np.arange(50) % 10), {"name": "cifar10_1", "version": "v4", "path": str(tmp_path / "new")})
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "shift")
    section = page.section({"a": loaded, "b": loaded})
    assert section == page.section({"a": result, "b": result})
    figure, table = section.blocks
    assert figure.series[0].y == (result.metrics.one("accuracy_loss", mode="mean", data="cifar10_1_v4").value,)
    assert [row[0] for row in table.rows] == ["a", "b"]
    assert (
        section.columns["loss under shift"]["a"].value
        == result.metrics.one("accuracy_loss", mode="mean", data="cifar10_1_v4").value
    )
    title = result.details["sets"][0]["title"]
    assert section.headlines["b"] == Headline(
        result.metrics.one("accuracy_loss", mode="mean", data="cifar10_1_v4"), "accuracy lost", note=title
    )
    json.dumps(component("checks", {"name": "shift", "sets": ["cifar10_1"]}).plain())


def test_newcombes_interval_of_independent_proportions():
    """His table II, case (a): 56 of 70 and 48 of 80; the difference 0.2, 0.0524 to 0.3339."""
    first, second = np.arange(80) < 48, np.arange(70) < 56
    found = metrics.difference(first, second)
    assert found.value == pytest.approx(0.2)
    assert found.interval.low == pytest.approx(0.0524, abs=1e-4)
    assert found.interval.high == pytest.approx(0.3339, abs=1e-4)
    assert metrics.difference([], [True]).value is None


# --- which images of a published set are classified correctly ---


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
