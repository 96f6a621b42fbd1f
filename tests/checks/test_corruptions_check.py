from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.shift.published_sets import cifar10_c, photographs
from torch import nn

import isthmus
from isthmus import metrics
from isthmus.checks import corruptions
from isthmus.checks.context import Context
from isthmus.core import randomness
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.randomness import example_keys
from isthmus.core.types import Headline, Status
from isthmus.data.corruptions import weather
from isthmus.data.corruptions.apply import corrupt
from isthmus.metrics import CORRUPTIONS

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


def config(**options: Any) -> corruptions.Config:
    found = component("checks", {"name": "corruptions", **options})
    assert isinstance(found, corruptions.Config)
    return found


def test_outcomes_are_the_classifiers_answers_to_the_corrupted_images() -> None:
    ctx = context()
    result = corruptions.run(ctx, config(corruptions=TWO, severities=[4, 2]))
    assert result.status is Status.PASS
    images, keys = (ctx.images * 255).round().byte(), example_keys(3, torch.arange(24))
    expected = {}
    for name in TWO:
        answers = [Quadrants()(corrupt(images, name, severity, keys).float() / 255).argmax(1) for severity in (2, 4)]
        expected[name] = np.stack([(answer == ctx.labels).numpy() for answer in answers])
        np.testing.assert_array_equal(result.arrays[f"correct_{name}"], expected[name])
    clean = (ctx.logits.argmax(1) == ctx.labels).numpy()
    np.testing.assert_array_equal(result.arrays["clean_correct"], clean)
    wrong = 1 - np.mean(list(expected.values()))
    assert result.metrics["mean_error"].value == pytest.approx(wrong)
    assert result.metrics["added_error"].value == pytest.approx(wrong - (1 - clean.mean()))
    found = result.details["modes"]["mean"]["corruptions"]["fog"]
    assert found["accuracy"][1]["value"] == expected["fog"][1].mean()
    assert found["lost"][1] == metrics.paired_difference(expected["fog"][1], clean).model_dump()


def test_nothing_depends_on_the_batch_size_or_the_order_of_the_images() -> None:
    asked = config(corruptions=TWO, severities=[3])
    whole = corruptions.run(context(stochastic=Guessing()), asked)
    parts = corruptions.run(context(stochastic=Guessing(), batch_size=5), asked)
    images, labels = examples()
    back = torch.arange(24).flip(0)
    ctx = Context(
        Quadrants(), images[back], labels[back], 4, isthmus.Linf(0.1), Guessing(), indices=back, seed=3, batch_size=7
    )
    turned = corruptions.run(ctx, asked)
    for name in ("correct_fog", "stochastic_correct_fog", "stochastic_correct_contrast"):
        np.testing.assert_array_equal(parts.arrays[name], whole.arrays[name])
        np.testing.assert_array_equal(turned.arrays[name][:, ::-1], whole.arrays[name])
    other = corruptions.run(context(stochastic=Guessing(), seed=4), asked)
    assert not np.array_equal(other.arrays["stochastic_correct_fog"], whole.arrays["stochastic_correct_fog"])


@pytest.mark.parametrize(("budget", "severities"), [("quick", [1, 3, 5]), ("full", [1, 2, 3, 4, 5])])
def test_the_budget_says_which_severities(budget: str, severities: list[int]) -> None:
    result = corruptions.run(context(n=4, budget=budget), config(corruptions=["brightness"]))
    assert result.details["severities"] == severities
    assert result.arrays["correct_brightness"].shape == (len(severities), 4)


def test_an_mce_of_ones_own_is_that_of_the_metrics() -> None:
    noisy = ("glass_blur", "fog")
    every = [1, 2, 3, 4, 5]
    plain = corruptions.run(context(), config(corruptions=noisy, severities=every, baseline="alexnet"))
    right = {name: plain.arrays[f"correct_{name}"] for name in noisy}
    expected = metrics.mean_corruption_error(metrics.errors_by_severity(right), corruptions=noisy)
    assert plain.metrics["mce"].value == pytest.approx(expected)
    assert "of 2 corruptions: not the benchmark's" in plain.metrics["mce"].note
    assert plain.metrics["relative_mce"].value is not None
    # a classifier beside itself makes as many errors
    own = plain.details["errors"]["mean"]
    clean = 1 - float(plain.arrays["clean_correct"].mean())
    asked = config(corruptions=noisy, severities=every, baseline=own, baseline_clean=clean)
    again = corruptions.run(context(), asked)
    assert again.metrics["mce"].value == pytest.approx(1.0)
    assert again.metrics["relative_mce"].value == pytest.approx(1.0)


def test_an_mce_that_is_not_defined_is_not_measured() -> None:
    few = corruptions.run(context(n=4), config(corruptions=TWO, severities=[1], baseline="alexnet"))
    assert few.metrics["mce"].value is None
    assert "five severities" in few.metrics["mce"].note
    perfect = config(corruptions=["fog"], baseline={"fog": 0.0}, baseline_clean=0.0)
    found = corruptions.run(context(n=4, budget="full"), perfect).metrics
    assert found["mce"].value is None
    assert "nothing can be divided" in found["mce"].note
    assert found["relative_mce"].value is None


def test_alexnet_is_the_baseline_of_imagenets_classifiers_alone() -> None:
    class Thousand(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_zeros(len(images), 1000)

    full = {"budget": "full", "n": 4}
    asked = config(corruptions=["contrast"], parameters="imagenet_c")
    assert "mce" in corruptions.run(context(model=Thousand(), num_classes=1000, **full), asked).metrics
    assert "mce" not in corruptions.run(context(**full), asked).metrics
    none = config(corruptions=["contrast"], parameters="imagenet_c", baseline="none")
    assert "mce" not in corruptions.run(context(model=Thousand(), num_classes=1000, **full), none).metrics


def test_frost_is_skipped_and_said_so_where_there_are_no_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weather, "frost_folder", lambda: None)
    ctx = context(n=4)
    result = corruptions.run(ctx, config(severities=[5]))
    assert set(result.details["errors"]["mean"]) == {*CORRUPTIONS} - {"frost"}
    assert result.status is Status.PASS
    assert "Not measured: frost. Frost is added from photographs" in result.reason
    assert "Not measured: frost." in corruptions.section({"a": result}).blocks[1].reading
    alone = config(corruptions=["frost"])
    with pytest.raises(DataError, match="No corruption is left"):
        corruptions.run(ctx, alone)
    with pytest.raises(DataError, match="lacks frost1.png"):
        corruptions.run(ctx, config(frost="nowhere"))


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (64, 3), (32, 4)])
def test_other_sizes_are_skipped_with_a_reason(size: int, channels: int) -> None:
    result = corruptions.run(context(n=4, size=size, channels=channels), config())
    assert result.status is Status.SKIPPED
    assert f"got images of {channels}×{size}×{size}" in result.reason
    assert corruptions.section({"a": result}).blocks == ()


def test_grey_images_and_images_between_bytes() -> None:
    ctx = context(n=4, size=28, channels=1)
    assert corruptions.run(ctx, config(corruptions=TWO, severities=[3])).details["parameters"] == "mnist_c"
    images = (ctx.images + 0.3 / 255).clamp(0, 1)
    between = Context(Quadrants(), images, ctx.labels, 4, isthmus.Linf(0.1))
    assert "rounded to bytes" in corruptions.run(between, config(corruptions=TWO, severities=[3])).reason


def test_answers_that_are_no_numbers_are_wrong_and_warned_of() -> None:
    class Overflows(Quadrants):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            return torch.where(images.amax((1, 2, 3), keepdim=True).flatten(1) < 0.75, torch.nan, logits)

    result = corruptions.run(context(n=8, model=Overflows()), config(corruptions=["contrast"], severities=[1, 5]))
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


class Reads(nn.Module):
    """Knows the answer: the byte of the first channel, taken as a class."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(values % 10, 10).float()


def test_a_published_set_is_read_in_place_of_the_audited_images(tmp_path: Path) -> None:
    for name in TWO:
        cifar10_c(tmp_path, name)
    asked = {"benchmark": "cifar10_c", "path": str(tmp_path), "corruptions": TWO, "limit": 40}
    ctx = context(n=4, model=Reads(), num_classes=10)
    result = corruptions.run(ctx, config(**asked, baseline={"fog": 0.5, "contrast": 0.5}, baseline_clean=0.1))
    assert result.arrays["correct_fog"].shape == (5, 40)
    assert result.metrics["mean_error"].n == 40
    assert result.metrics["mce"].value == pytest.approx(2 * result.metrics["mean_error"].value)
    assert "added_error" not in result.metrics
    assert "relative_mce" not in result.metrics  # there are no clean answers to the same images
    figure, summary, table = corruptions.section({"a": result}).blocks
    assert figure.series[0].x == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert summary.columns == ("classifier", "mean error", "mCE")
    assert corruptions.section({"a": result}).headlines["a"].metric == result.metrics["mce"]
    assert "of CIFAR-10-C" in figure.reading
    assert len(table.rows) == 2
    (tmp_path / "contrast.npy").unlink()
    with pytest.raises(DataError, match="no .*contrast.npy"):
        corruptions.run(ctx, config(**asked))


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
    result = corruptions.run(ctx, config(**asked))
    np.testing.assert_array_equal(result.arrays["correct_fog"], np.tile([True, True, False, False], (5, 1)))
    next((tmp_path / "contrast" / "4" / wnids[0]).iterdir()).unlink()
    with pytest.raises(DataError, match="not of the same images"):
        corruptions.run(ctx, config(**asked))


def test_an_audit_keeps_it_and_shows_one_or_several_classifiers(tmp_path: Path) -> None:
    images, labels = examples(12)
    asked = [{"name": "corruptions", "corruptions": ["fog", "gaussian_noise"], "severities": [1, 5]}]
    audit = isthmus.audit(Quadrants(), images, labels, "linf:0.1", asked, out=tmp_path / "audit", debug=True)
    again = isthmus.audit(Quadrants(), images, labels, "linf:0.1", asked, out=tmp_path / "audit")
    assert again.results["corruptions"].provenance == audit.results["corruptions"].provenance
    page = audit.save(tmp_path / "page.html").read_text()
    assert "Accuracy under corruption" in page
    result = audit.results["corruptions"]
    section = corruptions.section({"a": result, "b": result})
    assert section.columns["error under corruption"]["a"] == result.metrics["mean_error"]
    assert section.headlines["a"] == Headline(result.metrics["mean_error"], "mean error under 2 corruptions")
    assert "They are alike under each corruption." in section.blocks[2].reading
    gallery = section.blocks[-1]
    assert [picture.caption for _, row in gallery.rows for picture in row] == ["gaussian noise", "fog"]
    other = result.model_copy(update={"details": result.details | {"severities": [1, 4]}})
    assert "different questions" in corruptions.section({"a": result, "b": other}).blocks[0].reading
