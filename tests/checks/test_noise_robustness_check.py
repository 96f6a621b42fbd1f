"""Fault tolerance: closed forms of linear models, what no noise can take, signs of masked gradients, the page."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks.noise_sweep import noise_norm
from isthmus.attacks.threats import Linf
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.config import component
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.types import CheckResult, Status
from isthmus.metrics import accuracy
from isthmus.metrics.transmission import transmitted_bits
from isthmus.report.sections import noise_robustness as page
from tests.checks.metric_helpers import plain
from tests.checks.test_robustness_check import Linear, Noisy, Staircase, linear_context

WEIGHT = torch.linspace(-1, 1, 12)


def run(ctx, **options):
    given = {"name": "noise_robustness", "spacing": 3.0, "resamples": 200} | options
    return component("checks", given).run(ctx)


def curve(result, name, noise):
    """A metric on the clean image and at each ratio."""
    clean = result.metrics.one(name, mode="mean")
    return [clean, *(result.metrics.one(name, mode="mean", noise=noise, snr=snr) for snr in result.details["snr"])]


def closed_form(ctx, ladder, dual):
    """Predicted classes: an image goes over once the noise is as long as the boundary is far."""
    score = (ctx.images - 0.5).flatten(1) @ ctx.model.weight
    margin = torch.where(ctx.labels == 1, score, -score)
    radii = torch.stack([noise_norm(ctx.images.flatten(1).norm(dim=1), snr) for snr in ladder])
    right = torch.cat([(margin > 0)[None], margin > radii * dual])
    return torch.where(right, ctx.labels, 1 - ctx.labels).numpy()


@pytest.mark.parametrize(
    ("noise", "dual"), [("l2", WEIGHT.norm()), ("linf", WEIGHT.abs().sum() / math.sqrt(12))], ids=["l2", "linf"]
)
def test_a_linear_classifier_has_its_closed_form(noise, dual):
    ctx = linear_context()
    result = run(ctx)
    ladder = result.details["snr"]
    assert ladder == [60.0 - 3 * k for k in range(19)]
    expected = closed_form(ctx, ladder, dual)
    np.testing.assert_array_equal(result.arrays[f"predicted_{noise}"], expected)
    truth = ctx.labels.numpy()
    information = [transmitted_bits(row, truth) for row in expected]
    assert [metric.value for metric in curve(result, "information_bits", noise)] == pytest.approx(information, abs=1e-9)
    assert [plain(metric) for metric in curve(result, "accuracy", noise)] == [
        accuracy(row == truth) for row in expected
    ]
    entropy = transmitted_bits(truth, truth)
    assert result.details["label_entropy_bits"] == pytest.approx(entropy)
    least = np.minimum.accumulate(information)[1:]
    kept = np.trapezoid(least[::-1], ladder[::-1]) / 54 / entropy
    standing = np.logical_and.accumulate(expected == truth, axis=0)[1:].mean(1)
    assert result.metrics.one("information_kept", mode="mean", noise=noise).value == pytest.approx(kept)
    assert result.metrics.one("accuracy", mode="mean", noise=noise).value == pytest.approx(
        np.trapezoid(standing[::-1], ladder[::-1]) / 54
    )
    assert 0.1 < kept < 0.9
    assert result.metrics.one("information_bits", mode="mean").value == pytest.approx(information[0])
    assert result.status is Status.MEASURED


def test_information_that_the_adversary_brings_back_is_not_kept():
    """Of two classes every answer is wrong in the end, which tells all; the average counts none of that."""
    result = run(linear_context())
    points = [metric.value for metric in curve(result, "information_bits", "l2")]
    assert points[-1] == pytest.approx(result.details["label_entropy_bits"])
    assert min(points) < 0.1
    at = int(np.argmin(points))
    assert result.metrics.one("information_kept", mode="mean", noise="l2").value < (at + 2) / 19
    reading = page.section({"a": result}).blocks[0].reading
    assert "(ℓ2 steps and sign steps)" in reading


def test_white_noise_takes_less_and_the_gap_is_paired():
    found = run(linear_context()).metrics
    gap = found.one("information_gap", mode="mean", noise="l2")
    white, steps = (found.one("information_kept", mode="mean", noise=noise) for noise in ("white", "l2"))
    assert gap.value == pytest.approx(white.value - steps.value)
    assert gap.interval.low > 0
    assert gap.interval.high - gap.interval.low < sum(m.interval.high - m.interval.low for m in (white, steps))
    assert found.get("information_gap", mode="mean", noise="white") is None
    assert "information_gap" not in run(linear_context(n=30), noises=["l2"]).metrics.names()


def test_what_white_noise_leaves_is_what_theory_says():
    """The score of a linear model gets normal noise: Φ of the margin over its size is right."""
    ctx = linear_context(n=2000)
    result = run(ctx, noises=["white"], spacing=27.0, resamples=20)
    score = (ctx.images - 0.5).flatten(1) @ WEIGHT
    margin = torch.where(ctx.labels == 1, score, -score)
    for snr, row in zip(result.details["snr"], result.arrays["predicted_white"][1:], strict=True):
        size = noise_norm(ctx.images.flatten(1).norm(dim=1), snr) * WEIGHT.norm() / math.sqrt(12)
        expected = torch.special.ndtr(margin / size).mean().item()
        assert (row == ctx.labels.numpy()).mean() == pytest.approx(expected, abs=0.02)


def test_confidence_that_rounds_the_cross_entropy_to_zero_is_no_tolerance():
    plain, sure = (run(linear_context(Linear(scale * WEIGHT), n=60)) for scale in (1, 2000))
    assert (
        sure.metrics.one("information_kept", mode="mean", noise="l2").value
        == plain.metrics.one("information_kept", mode="mean", noise="l2").value
    )
    fooled = run(linear_context(Linear(2000 * WEIGHT), n=60), loss="ce")
    assert (
        fooled.metrics.one("information_kept", mode="mean", noise="l2").value
        > plain.metrics.one("information_kept", mode="mean", noise="l2").value + 0.1
    )
    assert fooled.status is Status.WARN


def test_missing_gradients_raise_a_warning():
    result = run(linear_context(Staircase(Linear(WEIGHT))))
    assert result.status is Status.WARN
    assert "stay right under ℓ2 steps down to 6 dB, where all images can be made black" in result.reason
    assert "the gradient of 120 of 120 images is zero" in result.reason
    assert "sign steps cost less information than white noise" in result.reason
    assert result.metrics.one("information_kept", mode="mean", noise="l2").note.startswith(
        "120 images have no gradient"
    )
    brighter = run(linear_context(Staircase(Linear(WEIGHT))), low=8.0)
    assert "made black" not in brighter.reason  # not within reach at 8 dB


class Detached(Linear):
    def forward(self, images):
        return super().forward(images.detach())


def test_a_model_without_gradients_can_be_asked_about_white_noise():
    ctx = linear_context(Detached(WEIGHT), n=40)
    with pytest.raises(ModelError, match="no gradient"):
        run(ctx)
    assert run(ctx, noises=["white"]).status is Status.MEASURED


class Overflows(Linear):
    """No answer to images that left the box by 0.8."""

    def forward(self, images):
        far = ((images - 0.5).abs().flatten(1).amax(1, keepdim=True)) > 1.3
        return torch.where(far, torch.nan, super().forward(images))


def test_answers_that_are_not_finite_are_a_symbol_and_counted():
    ctx = linear_context(Overflows(WEIGHT))
    result = run(ctx)
    without = np.concatenate([result.arrays[f"predicted_{n}"] for n in ("white", "l2", "linf")]) == -1
    assert 0 < without.any(0).sum() < 120
    assert result.status is Status.WARN
    assert f"symbol of their own: {without.any(0).sum()}" in result.reason
    row = result.arrays["predicted_l2"][-1]
    assert curve(result, "information_bits", "l2")[-1].value == pytest.approx(transmitted_bits(row, ctx.labels.numpy()))
    assert curve(result, "accuracy", "l2")[-1].value == (row == ctx.labels.numpy()).mean()


def test_one_label_has_nothing_to_tell():
    ctx = linear_context(n=10)
    alike = Context(ctx.model, ctx.images, torch.ones_like(ctx.labels), 2, Linf(0.1))
    result = run(alike)
    assert result.status is Status.SKIPPED
    assert page.section({"a": result}).blocks == ()


class Many(nn.Module):
    """Two hundred classes, of which the brightest pixel of the first 200 is the answer."""

    def forward(self, images):
        return 10 * images.flatten(1)


def test_information_of_many_classes_in_few_images_is_not_measured():
    images = torch.rand(50, 1, 10, 20, generator=torch.Generator().manual_seed(0))
    ctx = Context(Many(), images, images.flatten(1).argmax(1), 200, Linf(0.1))
    result = run(ctx)
    assert result.metrics.one("information_bits", mode="mean").value is None
    assert "images are needed" in result.metrics.one("information_kept", mode="mean", noise="l2").note
    assert (
        result.metrics.one("accuracy", mode="mean", noise="l2").value
        < result.metrics.one("accuracy", mode="mean", noise="white").value
    )
    assert result.reason.startswith("Accuracy, averaged over 6 to 60 dB, is ")
    assert "information is not measured: random predictions for 50 images" in result.reason
    section = page.section({"many": result})
    assert [block.title for block in section.blocks] == ["Accuracy under the same noise", "Averages"]
    assert all(title.startswith("accuracy under") for title in section.columns)


def test_a_cliff_between_two_ratios_is_told():
    """All of two classes over at once: information is whole before and after, and the average is not to be trusted."""
    ctx = linear_context(n=60)
    alike = torch.full_like(ctx.images, 0.5) + 0.05 * torch.where(ctx.labels == 1, 1, -1).view(
        -1, 1, 1, 1
    ) * WEIGHT.view(1, 3, 2, 2)
    result = run(Context(ctx.model, alike, ctx.labels, 2, Linf(0.1)), noises=["l2"])
    assert result.metrics.one("information_kept", mode="mean", noise="l2").value == pytest.approx(1)
    assert result.metrics.one("accuracy", mode="mean", noise="l2").value < 0.7
    assert result.status is Status.WARN
    assert "falls by more than half between two ratios under ℓ2 steps (mean mode)" in result.reason


def test_batch_size_changes_nothing():
    found = [
        run(linear_context(stochastic=Noisy(Linear(WEIGHT)), batch_size=size, n=40), spacing=9.0) for size in (40, 9)
    ]
    for name, values in found[0].arrays.items():
        np.testing.assert_array_equal(values, found[1].arrays[name], err_msg=name)
    assert found[0].metrics == found[1].metrics
    assert {metric.coords["mode"] for metric in found[0].metrics} == {"mean", "stochastic"}
    table = page.section({"ceb": found[0]}).blocks[-1]
    assert [row[0] for row in table.rows] == ["ceb", "ceb (stochastic)"]
    shares = [series.name for series in page.section({"ceb": found[0]}).blocks[0].series]
    assert shares == ["ceb (white noise)", "ceb (ℓ2 steps)", "ceb (sign steps)"]


def test_passes_are_shown_and_a_point_costs_one():
    result = run(linear_context(n=30), noises=["white", "l2"])
    assert result.details["passes"]["mean"] == {"white": [30 * 20 + 1, 0], "l2": [30 * 20 + 1, 30 * 19]}
    table = page.section({"a": result}).blocks[-1]
    assert table.rows[0][-1] == round((2 * (30 * 20 + 1) + 30 * 19) / 30)


def test_a_stored_result_gives_the_same_page(tmp_path):
    result = run(linear_context(n=60))
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "noise_robustness")
    assert page.section({"a": loaded}) == page.section({"a": result})
    np.testing.assert_array_equal(loaded.arrays["predicted_l2"], result.arrays["predicted_l2"])
    assert loaded.arrays["predicted_l2"].shape == (20, 60)


def test_the_section_compares_classifiers():
    firm, weak = run(linear_context(n=60)), run(linear_context(Linear(-WEIGHT), n=60))
    section = page.section({"firm": firm, "weak": weak})
    information, standing, table = section.blocks
    first, second = (
        100 * result.metrics.one("information_kept", mode="mean", noise="white").value for result in (firm, weak)
    )
    parts = [f"{first:.1f}% for firm", f"{second:.1f}% for weak"]
    kept = [f"{first:.1f}% for each"] if f"{first:.1f}" == f"{second:.1f}" else parts
    assert all(part in information.reading for part in kept)
    assert [series.group for series in information.series] == ["firm"] * 3 + ["weak"] * 3
    for series in (*information.series, *standing.series):
        assert series.x == tuple(sorted(series.x))
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))
    assert information.marks[0].y == pytest.approx(firm.details["label_entropy_bits"], abs=1e-3)
    assert len(table.columns) == len(table.rows[0])
    kept = [firm.metrics.one("information_kept", mode="mean", noise=noise) for noise in ("l2", "linf")]
    assert section.headlines["firm"].metric == min(kept, key=lambda metric: metric.value)
    assert list(section.columns) == [
        f"information kept under {noise}, 6 to 60 dB" for noise in ("white noise", "ℓ2 steps", "sign steps")
    ]
    other = page.section({"a": firm, "b": run(linear_context(n=60), high=40.0)})
    assert len(other.columns) == 6
    assert "not comparable" in other.blocks[0].reading


def test_budgets_and_ranges():
    ctx = linear_context(n=20)
    assert len(run(ctx, spacing=None).details["snr"]) == 28
    uneven = run(ctx, high=20.0, low=9.0, spacing=4.0)
    assert uneven.details["snr"] == [20.0, 16.0, 12.0, 9.0]
    with pytest.raises(ConfigError, match="low must be below high"):
        run(ctx, low=60.0)
    with pytest.raises(ConfigError, match="named once"):
        run(ctx, noises=["l2", "l2"])


def test_progress_only_moves_forward():
    seen = []
    run(linear_context(n=30, batch_size=8, progress=lambda done, total: seen.append(done / total)))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_nothing_measured_shows_nothing():
    failed = CheckResult(check="noise_robustness", status=Status.ERROR, reason="no")
    assert page.section({"a": failed}).blocks == ()
