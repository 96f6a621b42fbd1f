from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from isthmus import metrics
from isthmus.checks import Corruptions
from isthmus.checks.context import Context
from isthmus.core import randomness
from isthmus.core.config import component
from isthmus.core.display import Headline
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.randomness import example_keys
from isthmus.core.types import Status
from isthmus.data.corruptions import weather
from isthmus.data.corruptions.apply import corrupt
from isthmus.metrics import CORRUPTIONS
from isthmus.report.sections import corruptions as page
from tests.checks.metric_helpers import plain
from tests.data.shift.published_sets import cifar10_c, photographs
from tests.models import Reads

TWO = ("fog", "contrast")


class Quadrants(nn.Module):
    """Says which quarter of the image is brightest."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 2).flatten(1)


class Guessing(nn.Module):
    """Chooses by an image's key alone."""

    takes_keys = True

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return randomness.uniform(keys, (4,))


def examples(n: int = 24, size: int = 32, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(size)
    images = torch.randint(0, 256, (n, channels, size, size), generator=random).float() / 255
    half = size // 2
    for index in range(n):
        row, column = divmod(index % 4, 2)
        images[index, :, row * half : (row + 1) * half, column * half : (column + 1) * half] *= 0.9
        images[index, :, row * half : (row + 1) * half, column * half : (column + 1) * half] += 0.1
    images = (images * 255).round() / 255
    return images, torch.arange(n) % 4


def context(n: int = 24, size: int = 32, channels: int = 3, **options: Any) -> Context:
    images, labels = examples(n, size, channels)
    given: dict[str, Any] = {"model": Quadrants(), "num_classes": 4, "threat": isthmus.Linf(0.1), "seed": 3}
    return Context(images=images, labels=labels, **(given | options))


def config(**options: Any) -> Corruptions:
    found = component("checks", {"name": "corruptions", **options})
    assert isinstance(found, Corruptions)
    return found


def test_outcomes_are_the_classifiers_answers_to_the_corrupted_images() -> None:
    ctx = context()
    result = config(corruptions=TWO, severities=[4, 2]).run(ctx)
    assert result.status is Status.MEASURED
    images, keys = (ctx.images * 255).round().byte(), example_keys(3, torch.arange(24))
    expected = {}
    for name in TWO:
        answers = [Quadrants()(corrupt(images, name, severity, keys).float() / 255).argmax(1) for severity in (2, 4)]
        expected[name] = np.stack([(answer == ctx.labels).numpy() for answer in answers])
        np.testing.assert_array_equal(result.arrays[f"correct_{name}"], expected[name])
    clean = (ctx.logits.argmax(1) == ctx.labels).numpy()
    np.testing.assert_array_equal(result.arrays["clean_correct"], clean)
    wrong = 1 - np.mean(list(expected.values()))
    assert result.metrics.one("mean_error", mode="mean").value == pytest.approx(wrong)
    assert result.metrics.one("added_error", mode="mean").value == pytest.approx(wrong - (1 - clean.mean()))
    at = {"mode": "mean", "corruption": "fog", "severity": 4}
    assert result.metrics.one("accuracy", **at).value == expected["fog"][1].mean()
    lost = plain(result.metrics.one("accuracy_loss", **at))
    assert lost == metrics.paired_difference(expected["fog"][1], clean)
    by_severity = result.metrics.one("accuracy", mode="mean", severity=2)
    assert by_severity.value == pytest.approx(np.mean([rows[0].mean() for rows in expected.values()]))


def test_nothing_depends_on_the_batch_size_or_the_order_of_the_images() -> None:
    asked = config(corruptions=TWO, severities=[3])
    whole = asked.run(context(stochastic=Guessing()))
    parts = asked.run(context(stochastic=Guessing(), batch_size=5))
    images, labels = examples()
    back = torch.arange(24).flip(0)
    ctx = Context(
        Quadrants(), images[back], labels[back], 4, isthmus.Linf(0.1), Guessing(), indices=back, seed=3, batch_size=7
    )
    turned = asked.run(ctx)
    for name in ("correct_fog", "stochastic_correct_fog", "stochastic_correct_contrast"):
        np.testing.assert_array_equal(parts.arrays[name], whole.arrays[name])
        np.testing.assert_array_equal(turned.arrays[name][:, ::-1], whole.arrays[name])
    other = asked.run(context(stochastic=Guessing(), seed=4))
    assert not np.array_equal(other.arrays["stochastic_correct_fog"], whole.arrays["stochastic_correct_fog"])


@pytest.mark.parametrize(("budget", "severities"), [("quick", [1, 3, 5]), ("full", [1, 2, 3, 4, 5])])
def test_the_budget_says_which_severities(budget: str, severities: list[int]) -> None:
    result = config(corruptions=["brightness"]).run(context(n=4, budget=budget))
    assert result.details["severities"] == severities
    assert result.arrays["correct_brightness"].shape == (len(severities), 4)


def test_an_mce_of_ones_own_is_that_of_the_metrics() -> None:
    noisy = ("glass_blur", "fog")
    every = [1, 2, 3, 4, 5]
    plain = config(corruptions=noisy, severities=every, baseline="alexnet").run(context())
    right = {name: plain.arrays[f"correct_{name}"] for name in noisy}
    expected = metrics.mean_corruption_error(metrics.errors_by_severity(right), corruptions=noisy)
    assert plain.metrics.one("mce", mode="mean").value == pytest.approx(expected)
    assert "of 2 corruptions: not the benchmark's" in plain.metrics.one("mce", mode="mean").note
    assert plain.metrics.one("relative_mce", mode="mean").value is not None
    # a classifier beside itself makes as many errors
    own = plain.details["errors"]["mean"]
    clean = 1 - float(plain.arrays["clean_correct"].mean())
    asked = config(corruptions=noisy, severities=every, baseline=own, baseline_clean=clean)
    again = asked.run(context())
    assert again.metrics.one("mce", mode="mean").value == pytest.approx(1.0)
    assert again.metrics.one("relative_mce", mode="mean").value == pytest.approx(1.0)


def test_an_mce_that_is_not_defined_is_not_measured() -> None:
    few = config(corruptions=TWO, severities=[1], baseline="alexnet").run(context(n=4))
    assert few.metrics.one("mce", mode="mean").value is None
    assert "five severities" in few.metrics.one("mce", mode="mean").note
    perfect = config(corruptions=["fog"], baseline={"fog": 0.0}, baseline_clean=0.0)
    found = perfect.run(context(n=4, budget="full")).metrics
    assert found.one("mce", mode="mean").value is None
    assert "nothing can be divided" in found.one("mce", mode="mean").note
    assert found.one("relative_mce", mode="mean").value is None


def test_alexnet_is_the_baseline_of_imagenets_classifiers_alone() -> None:
    class Thousand(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_zeros(len(images), 1000)

    full = {"budget": "full", "n": 4}
    asked = config(corruptions=["contrast"], parameters="imagenet_c")
    assert "mce" in asked.run(context(model=Thousand(), num_classes=1000, **full)).metrics.names()
    assert "mce" not in asked.run(context(**full)).metrics.names()
    none = config(corruptions=["contrast"], parameters="imagenet_c", baseline="none")
    assert "mce" not in none.run(context(model=Thousand(), num_classes=1000, **full)).metrics.names()


def test_frost_is_skipped_and_said_so_where_there_are_no_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weather, "frost_folder", lambda: None)
    ctx = context(n=4)
    result = config(severities=[5]).run(ctx)
    assert set(result.details["errors"]["mean"]) == {*CORRUPTIONS} - {"frost"}
    assert result.status is Status.MEASURED
    assert "Not measured: frost. Frost is added from photographs" in result.reason
    assert "Not measured: frost." in page.section({"a": result}).blocks[1].reading
    alone = config(corruptions=["frost"])
    with pytest.raises(DataError, match="No corruption can be measured"):
        alone.run(ctx)
    with pytest.raises(DataError, match="lacks frost1.png"):
        config(frost="nowhere").run(ctx)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (64, 3), (32, 4)])
def test_other_sizes_are_skipped_with_a_reason(size: int, channels: int) -> None:
    result = config().run(context(n=4, size=size, channels=channels))
    assert result.status is Status.SKIPPED
    assert f"got images of {channels}×{size}×{size}" in result.reason
    assert page.section({"a": result}).blocks == ()


def test_grey_images_and_images_between_bytes() -> None:
    ctx = context(n=4, size=28, channels=1)
    assert config(corruptions=TWO, severities=[3]).run(ctx).details["parameters"] == "mnist_c"
    images = (ctx.images + 0.3 / 255).clamp(0, 1)
    between = Context(Quadrants(), images, ctx.labels, 4, isthmus.Linf(0.1))
    assert "rounded to bytes" in config(corruptions=TWO, severities=[3]).run(between).reason


def test_answers_that_are_no_numbers_are_wrong_and_warned_of() -> None:
    class Overflows(Quadrants):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return torch.where(images.amax((1, 2, 3), keepdim=True).flatten(1) < 0.75, torch.nan, logits)

    result = config(corruptions=["contrast"], severities=[1, 5]).run(context(n=8, model=Overflows()))
    assert result.status is Status.WARN
    assert not result.arrays["correct_contrast"][1].any()
    assert "NaN or infinite count as wrong: 8" in result.reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corruptions": ["fogg"]}, "did you mean"),
        ({"severities": [0]}, "severities.0"),
        ({"path": "x"}, "path is an option of a published benchmark"),
        ({"benchmark": "cifar10_c", "severities": [1]}, "already corrupted"),
        ({"baseline": {"fog": 0.5}}, "lack 14 of 15"),
        ({"baseline": {"fog": 50.0}}, "baseline"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){said}"):
        config(**options)


def test_a_published_set_is_read_in_place_of_the_audited_images(tmp_path: Path) -> None:
    for name in TWO:
        cifar10_c(tmp_path, name)
    asked = {"benchmark": "cifar10_c", "path": str(tmp_path), "corruptions": TWO, "limit": 40}
    ctx = context(n=4, model=Reads(), num_classes=10)
    result = config(**asked, baseline={"fog": 0.5, "contrast": 0.5}, baseline_clean=0.1).run(ctx)
    assert result.arrays["correct_fog"].shape == (5, 40)
    assert result.metrics.one("mean_error", mode="mean").n == 40
    assert result.metrics.one("mce", mode="mean").value == pytest.approx(
        2 * result.metrics.one("mean_error", mode="mean").value
    )
    assert "added_error" not in result.metrics.names()
    assert "relative_mce" not in result.metrics.names()  # there are no clean answers to the same images
    figure, summary, table, losses, calibration = page.section({"a": result}).blocks
    assert losses.series[0].x == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert calibration.rows[0][0] == "fog"
    assert figure.series[0].x == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert summary.columns == ("classifier", "mean error", "mCE")
    assert page.section({"a": result}).headlines["a"].metric == result.metrics.one("mce", mode="mean")
    assert "of CIFAR-10-C" in figure.reading
    assert len(table.rows) == 2
    (tmp_path / "contrast.npy").unlink()
    with pytest.raises(DataError, match="no .*contrast.npy"):
        config(**asked).run(ctx)


def test_ragged_and_unsorted_folders(tmp_path: Path) -> None:
    """Files are matched by name, whatever their order on disk; other images at one severity are an error."""
    wnids = ("n01440764", "n01498041")
    for name in TWO:
        for severity in (5, 3, 1, 2, 4):
            for wnid in reversed(wnids):
                photographs(tmp_path / name / str(severity), wnid, [(224, 224), (224, 224)], seed=severity)
    (tmp_path / "notes").mkdir()
    asked = {"benchmark": "imagenet_c", "path": str(tmp_path), "corruptions": TWO}
    asked["classes"] = wnids

    class First(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(images), 2)

    ctx = context(n=4, model=First(), num_classes=2)
    result = config(**asked).run(ctx)
    np.testing.assert_array_equal(result.arrays["correct_fog"], np.tile([True, True, False, False], (5, 1)))
    next((tmp_path / "contrast" / "4" / wnids[0]).iterdir()).unlink()
    with pytest.raises(DataError, match="not of the same images"):
        config(**asked).run(ctx)


def test_an_audit_keeps_it_and_shows_one_or_several_classifiers(tmp_path: Path) -> None:
    images, labels = examples(12)
    asked = [{"name": "corruptions", "corruptions": ["fog", "gaussian_noise"], "severities": [1, 5]}]
    audit = isthmus.audit(Quadrants(), images, labels, "linf:0.1", asked, out=tmp_path / "audit")
    again = isthmus.audit(Quadrants(), images, labels, "linf:0.1", asked, out=tmp_path / "audit")
    assert again.results["corruptions"].provenance == audit.results["corruptions"].provenance
    html = audit.save(tmp_path / "page.html").read_text()
    assert "Accuracy under corruption" in html
    result = audit.results["corruptions"]
    section = page.section({"a": result, "b": result})
    assert section.columns["error under corruption"]["a"] == result.metrics.one("mean_error", mode="mean")
    assert section.headlines["a"] == Headline(
        result.metrics.one("mean_error", mode="mean"), "mean error under 2 corruptions"
    )
    assert "It is the same under each corruption." in section.blocks[2].reading
    gallery = section.blocks[-1]
    assert [picture.caption for _, row in gallery.rows for picture in row] == ["gaussian noise", "fog"]
    other = isthmus.audit(Quadrants(), images, labels, "linf:0.1", [asked[0] | {"severities": [1, 4]}])
    other = other.results["corruptions"]
    assert "Compare only" in page.section({"a": result, "b": other}).blocks[0].reading


class Sure(nn.Module):
    """The probability of the brightest quarter is 0.9 on every image, and of the others what remains."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = Quadrants()(images).argmax(1)
        return torch.log(torch.full((len(images), 4), 0.1 / 3).scatter(1, first[:, None], 0.9))


def test_calibration_under_each_corruption_has_a_closed_form() -> None:
    """At a confidence of 0.9 the calibration error is |accuracy − 0.9|, and the loss follows from the accuracy."""
    result = config(corruptions=TWO, severities=(1, 5)).run(context(model=Sure()))
    found = result.metrics
    for name in TWO:
        for severity in (1, 5):
            at = {"mode": "mean", "corruption": name, "severity": severity}
            right = found.one("accuracy", **at).value
            assert found.one("ece", **at).value == pytest.approx(abs(right - 0.9), abs=1e-6)
            loss = -right * np.log(0.9) - (1 - right) * np.log(0.1 / 3)
            assert found.one("nll", **at).value == pytest.approx(loss, rel=1e-5)
            interval = found.one("nll", **at).interval
            assert interval is not None
            assert interval.low - 1e-6 <= loss <= interval.high + 1e-6
    mean = np.mean([found.one("nll", mode="mean", corruption=name, severity=5).value for name in TWO])
    assert found.one("nll", mode="mean", severity=5).value == pytest.approx(mean, rel=1e-5)
    np.testing.assert_allclose(result.arrays["confidence_fog"], 0.9, rtol=1e-5)
