"""Natural shift: losses with the interval that belongs to them, pairing image by image, and what does not fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.config import component
from isthmus.core.display import Headline
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.types import Status
from isthmus.report.sections import shift as page
from tests.checks.metric_helpers import plain
from tests.data.shift.published_sets import cifar10_1, cifar10_c


class Reads(nn.Module):
    """Knows the answer: the byte of the first channel, taken as a class."""

    def forward(self, images):
        return nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long() % 10, 10).float()


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
