import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks.threats import Linf
from isthmus.checks import Calibration
from isthmus.checks.context import Context
from isthmus.core import results
from isthmus.core.errors import ModelError
from isthmus.core.types import CheckResult, Status
from isthmus.report.sections import calibration as page


class Sharpened(nn.Module):
    """Reads probabilities off the image and raises them to a power."""

    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def forward(self, images):
        return images.flatten(1).log() * self.power


def context(n=1500, power=1.0, batch_size=256, stochastic=None, seed=0):
    """Labels drawn from the probabilities that the images hold: calibrated at power 1."""
    random = np.random.default_rng(7)
    probabilities = random.dirichlet([0.5] * 4, n).clip(1e-6, 1)
    labels = (probabilities.cumsum(1) < random.random((n, 1)) * probabilities.sum(1, keepdims=True)).sum(1)
    return Context(
        model=Sharpened(power),
        images=torch.as_tensor(probabilities, dtype=torch.float32)[:, :, None, None],
        labels=torch.as_tensor(labels),
        num_classes=4,
        threat=Linf(0.1),
        stochastic=stochastic,
        batch_size=batch_size,
        seed=seed,
    )


def run(ctx, **options):
    return Calibration(**({"resamples": 200} | options)).run(ctx)


def test_a_calibrated_classifier_passes():
    result = run(context())
    assert result.status is Status.PASS
    assert result.metrics.one("ece", mode="mean").interval.low == 0.0
    gap = result.metrics.one("overconfidence", mode="mean")
    assert gap.interval.low < 0 < gap.interval.high
    bins = result.details["bins"]["mean"]
    assert len(bins["equal_width"]) == 20
    assert sum(b["n"] for b in bins["equal_width"]) == sum(b["n"] for b in bins["equal_mass"]) == 1500
    gap = result.metrics.one("overconfidence", mode="mean").interval
    assert gap.low < 0 < gap.high


@pytest.mark.parametrize(("power", "overconfident"), [(3.0, True), (0.3, False)])
def test_sharpening_is_overconfident_and_flattening_underconfident(power, overconfident):
    result = run(context(power=power))
    assert result.status is Status.WARN
    assert "above 5.0%" in result.reason
    gap = result.metrics.one("overconfidence", mode="mean").interval
    assert gap.low > 0 if overconfident else gap.high < 0
    assert (
        result.metrics.one("nll", mode="mean").value > run(context()).metrics.one("nll", mode="mean").value
    )  # a proper score prefers the truth
    assert result.metrics.one("brier", mode="mean").value > run(context()).metrics.one("brier", mode="mean").value


def test_a_higher_threshold_does_not_warn():
    assert run(context(power=3.0), threshold=0.9).status is Status.PASS


def test_the_stochastic_mode_is_measured_and_can_warn():
    result = run(context(stochastic=Sharpened(4.0)))
    assert result.status is Status.WARN
    assert "in stochastic mode" in result.reason
    table = page.section({"m": result}).blocks[1]
    assert [row[0] for row in table.rows] == ["m", "m (stochastic)"]
    assert table.rows[1][1] == result.metrics.one("ece", mode="stochastic")
    assert "in mean mode" not in result.reason
    shown = page.section({"m": result})
    assert shown.headlines["m"].metric == result.metrics.one("ece", mode="stochastic"), (
        "the warning stands beside its own number"
    )
    assert shown.headlines["m"].note == "stochastic mode"
    assert list(shown.columns) == ["ECE", "ECE, stochastic"]


def test_the_diagram_has_a_series_per_classifier_and_the_identity():
    section = page.section({"calm": run(context()), "sure": run(context(power=3.0)), "surer": run(context(power=5.0))})
    figure = section.blocks[0]
    assert figure.identity
    assert [series.name for series in figure.series] == ["calm", "sure", "surer"]
    for series in figure.series:
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))
    assert list(section.columns) == ["ECE"]
    assert {name: headline.metric for name, headline in section.headlines.items()} == section.columns["ECE"]


def test_results_depend_on_the_seed_alone_and_survive_storage(tmp_path):
    one, other = run(context(batch_size=100)), run(context(batch_size=1500))
    assert one.model_dump() == other.model_dump()
    assert one.model_dump() != run(context(seed=1)).model_dump()
    results.save_result(tmp_path, one)
    loaded = results.load_result(tmp_path, "calibration")
    assert page.section({"a": loaded}) == page.section({"a": one})
    np.testing.assert_array_equal(loaded.arrays["confidence"], one.arrays["confidence"])
    assert one.arrays["confidence"].shape == one.arrays["nll"].shape == (1500,)


def test_certain_and_right_has_no_error():
    ctx = context(200)
    labels = ctx.images.flatten(1).argmax(1)
    certain = Context(model=Sharpened(1e4), images=ctx.images, labels=labels, num_classes=4, threat=Linf(0.1))
    result = run(certain)
    assert result.metrics.one("ece", mode="mean").value == pytest.approx(0.0, abs=1e-4)
    assert result.status is Status.PASS


def test_nothing_measured_shows_nothing():
    skipped = CheckResult(check="calibration", status=Status.SKIPPED, reason="no")
    assert page.section({"a": skipped}).blocks == ()


class Missing(Sharpened):
    """No answer to the first class's surest examples, or to all."""

    def __init__(self, least):
        super().__init__()
        self.least = least

    def forward(self, images):
        return torch.where(images.flatten(1)[:, :1] > self.least, torch.nan, super().forward(images))


def test_answers_that_are_not_finite_are_left_out_and_counted():
    whole = context()
    kept = ~(whole.images[:, 0, 0, 0] > 0.9)
    result = run(Context(Missing(0.9), whole.images, whole.labels, 4, Linf(0.1)))
    rest = run(Context(Sharpened(), whole.images[kept], whole.labels[kept], 4, Linf(0.1)))
    assert result.metrics == rest.metrics
    assert result.status is Status.WARN
    assert f"logits are NaN or infinite are left out: {int((~kept).sum())}" in result.reason
    np.testing.assert_array_equal(np.isnan(result.arrays["confidence"]), ~kept.numpy())
    assert result.arrays["correct"].dtype == bool


def test_no_answer_at_all_is_an_error_in_one_sentence():
    whole = context(stochastic=Missing(-1.0))
    with pytest.raises(ModelError, match="In stochastic mode no image has finite logits"):
        run(whole)


@pytest.mark.parametrize(("power", "stochastic"), [(4.0, None), (0.3, 2.0)])
def test_scalings_are_measured_on_what_they_were_not_fitted_on(power, stochastic):
    ctx = context(power=power, stochastic=None if stochastic is None else Sharpened(stochastic))
    result = run(ctx, split=0.5)
    at = {name: {"mode": "mean", "scaling": name} for name in ("none", "temperature", "vector", "isotonic")}
    temperature = result.metrics.one("temperature", mode="mean")
    assert temperature.value == pytest.approx(power, rel=0.15)  # dividing by it gives power 1
    assert temperature.n == result.metrics.one("ece", **at["isotonic"]).n == 750
    before = {name: result.metrics.one(name, **at["none"]) for name in ("ece", "nll", "accuracy")}
    for name in ("temperature", "vector", "isotonic"):
        assert result.metrics.one("ece", **at[name]).interval.low < 0.01
        assert before["ece"].value > 2 * result.metrics.one("ece", **at[name]).value
        assert result.metrics.one("nll", **at[name]).value < before["nll"].value
    assert result.metrics.one("accuracy", **at["temperature"]).value == before["accuracy"].value
    assert before["nll"].note == "fitted on 750 other examples"
    if stochastic is not None:
        assert result.metrics.one("temperature", mode="stochastic").value == pytest.approx(stochastic, rel=0.15)
    scaled, sets = page.section({"m": result}).blocks[-2:]
    modes = ["m"] if stochastic is None else ["m", "m (stochastic)"]
    assert [row[0] for row in scaled.rows] == [mode for mode in modes for _ in range(4)]
    assert [row[1] for row in scaled.rows[:4]] == ["none", "temperature", "vector", "isotonic regression"]
    assert [row[:2] for row in sets.rows[:2]] == [("m", "LAC"), ("m", "APS, randomised")]
    assert scaled.rows[1][2].value == result.metrics.one("ece", **at["temperature"]).value


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_prediction_sets_cover_as_often_as_chance_allows(alpha):
    """With the true probabilities, LAC's sets are the smallest on average (Sadinle et al. 2019)."""
    result = run(context(n=4000), split=0.5, alpha=alpha, scalings=())
    low, high = result.details["split"]["mean"]["coverage"]
    assert low < 1 - alpha < high < low + 0.08
    for name in ("lac", "aps"):
        covered = result.metrics.one("coverage", mode="mean", conformal=name)
        assert low <= covered.value <= high
        assert covered.interval.method == "Wilson"
    lac, aps = (result.metrics.one("set_size", mode="mean", conformal=name).value for name in ("lac", "aps"))
    assert lac <= aps
    assert not result.metrics.select("temperature")


def test_the_split_does_not_depend_on_the_batch():
    one, other = (run(context(power=2.0, batch_size=size), split=0.3) for size in (64, 1500))
    assert one.model_dump() == other.model_dump()
    assert one.metrics.one("temperature", mode="mean").n == 450


def test_too_few_to_split():
    with pytest.raises(ModelError, match=r"3 images have finite logits"):
        run(context(3), split=0.5)


def test_the_margin_is_the_largest_probability_less_the_second():
    result = run(context(n=300))
    ordered = np.sort(context(n=300).images.flatten(1).double().numpy(), 1)
    ordered /= ordered.sum(1, keepdims=True)
    np.testing.assert_allclose(result.arrays["margin"], ordered[:, -1] - ordered[:, -2], atol=1e-5)
    assert result.metrics.one("margin", mode="mean").value == pytest.approx(result.arrays["margin"].mean())
    assert sum(b["n"] for b in result.details["bins"]["mean"]["margin"]) == 300
    figure = page.section({"m": result}).blocks[2]
    assert figure.title == "Accuracy over the prediction margin"
    assert not figure.identity


def test_the_debiased_error_is_smaller_and_near_zero_for_a_calibrated_classifier():
    found = run(context()).metrics
    debiased = found.one("ece_debiased", mode="mean").value
    assert debiased < found.one("ece", mode="mean").value
    assert abs(debiased) < 0.015


def test_confidence_that_says_nothing_selects_nothing():
    """Of a calibrated classifier the most confident images have fewer errors; shuffled labels do not care."""
    ctx = context()
    found = run(ctx)
    area = found.metrics.one("aurc", mode="mean")
    assert area.interval.high < 1 - found.arrays["correct"].mean()
    figure = page.section({"m": found}).blocks[3]
    assert figure.title == "Selective classification"
    assert figure.series[0].y[-1] == pytest.approx(1 - found.arrays["correct"].mean())
    assert len(figure.series[0].x) == 40
    shuffled = Context(ctx.model, ctx.images, ctx.labels.flip(0), 4, ctx.threat)
    other = run(shuffled)
    assert other.metrics.one("aurc", mode="mean").value == pytest.approx(1 - other.arrays["correct"].mean(), abs=0.05)
