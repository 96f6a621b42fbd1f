"""The information check on a Gaussian channel, where every quantity is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks.threats import Linf
from isthmus.audits.classifier import adopt
from isthmus.checks import Information
from isthmus.checks.context import Context
from isthmus.checks.information import _contradictions
from isthmus.core.config import component
from isthmus.core.errors import ConfigError
from isthmus.core.types import Interval, Metric, Metrics, Status
from isthmus.report.sections import information as page

PIXELS = 4


def channel(power: float, n: int, **options) -> tuple[isthmus.bottleneck, torch.Tensor]:
    """Images whose features are N(0, power·I) in four dimensions; the code adds unit noise."""
    objective, counts = options.pop("objective", "ceb"), options.pop("class_counts", None)
    model = isthmus.bottleneck(nn.Flatten(), 2, objective, features=PIXELS, class_counts=counts, options=options)
    x = math.sqrt(power) * torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return model.eval(), x


def context(model: nn.Module, images: torch.Tensor, batch_size: int = 100) -> Context:
    adopted = adopt(model, images)
    labels = (images.flatten(1)[:, 0] > 0).long()
    return Context(
        adopted.model, images, labels, 2, Linf(0.1), adopted.stochastic, adopted.bottleneck, batch_size=batch_size
    )


def test_bounds_hold_the_capacity_of_a_gaussian_channel():
    model, images = channel(3.0, 1024)
    found = Information().run(context(model, images))
    capacity = PIXELS / 2 * math.log(4.0)
    low, high = found.metrics.one("rate_lower"), found.metrics.one("rate_upper")
    assert low.value < capacity + 0.1
    assert high.value > capacity - 0.1
    assert low.value == pytest.approx(capacity, abs=0.25)
    assert found.status is Status.MEASURED
    assert found.details["block"] == 1024


def test_rate_with_the_standard_marginal_is_its_closed_form():
    model, images = channel(3.0, 2000, objective="vib", covariance="identity")
    found = Information(samples=50).run(context(model, images))
    expected = 0.5 * images.flatten(1).square().sum(1).mean().item()
    assert found.metrics.one("rate").value == pytest.approx(expected, abs=0.05)
    assert "residual" not in found.metrics.names()


def test_residual_is_the_distance_to_the_class_means():
    model, images = channel(1.0, 1000)
    with torch.no_grad():
        for parameter in model.backward_encoder.parameters():
            parameter.zero_()
    found = Information(samples=50).run(context(model, images))
    expected = 0.5 * images.flatten(1).square().sum(1).mean().item()
    assert found.metrics.one("residual").value == pytest.approx(expected, abs=0.05)


def test_results_do_not_depend_on_the_batch_size():
    model, images = channel(1.0, 300)
    one, two = (Information().run(context(model, images, size)).arrays for size in (7, 300))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-5)


def test_a_deterministic_classifier_is_skipped_not_passed():
    images = torch.rand(50, 1, 2, 2)
    found = Information().run(context(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), images))
    assert found.status is Status.SKIPPED
    assert set(found.metrics.names()) == {"i_yz_lower", "cross_entropy"}


def test_the_block_is_the_one_that_was_used():
    model, images = channel(1.0, 1100)
    found = Information(samples=1).run(context(model, images))
    assert found.details["block"] == 550
    assert "cannot exceed ln 550 = 6.31." in page.section({"a": found}).blocks[0].reading
    assert found.status is Status.MEASURED


def test_at_least_one_code_is_drawn():
    with pytest.raises(ConfigError, match="samples"):
        component("checks", {"name": "information", "samples": 0})


def test_classifiers_judged_on_other_labels_are_not_ranked():
    model, images = channel(3.0, 200)
    one = Information(samples=2).run(context(model, images))
    entropy = one.details["label_entropy"]
    other = one.model_copy(update={"details": {"label_entropy": 0.5, "i_xy": 0.5, "block": 100}})
    plane, table, distances = page.section({"a": one, "b": other, "c": one}).blocks
    assert "nearest" not in plane.reading
    assert f"(I(X;Y) = {entropy:.2f} nats for a and c and 0.50 nats for b)" in plane.reading
    assert distances.reading.startswith(f"I(X;Y) = {entropy:.3f} nats for a and c and 0.500 nats for b.")
    assert "cannot exceed ln 200 = 5.30 for a and c and ln 100 = 4.61 for b." in plane.reading
    assert {mark.name for mark in plane.marks} == {"MNI of a and c", "H(Y) of a and c", "MNI of b", "H(Y) of b"}
    assert table.reading.startswith(f"H(Y) = {entropy:.3f} nats for a and c and 0.500 nats for b.")
    same = page.section({"a": one, "c": one}).blocks[0]
    assert same.reading.startswith("The distance to the MNI point is ")
    assert " for each; the MNI point is at " in same.reading


def test_contradicting_bounds_warn():
    def metric(name: str, value: float) -> Metric:
        interval = Interval(low=value - 0.1, high=value + 0.1, method="test")
        return Metric(name=name, value=value, unit="nats", n=9, interval=interval)

    assert _contradictions(Metrics([metric("rate_lower", 3.0), metric("rate_upper", 2.0), metric("rate", 4.0)]))
    assert not _contradictions(Metrics([metric("rate_lower", 2.1), metric("rate_upper", 2.0)]))


def test_section_draws_the_plane_with_the_mni_point():
    model, images = channel(3.0, 200)
    results = {"a": Information(samples=2).run(context(model, images))}
    section = page.section(results)
    plane, table, distances = section.blocks
    assert {mark.name for mark in plane.marks} == {"MNI", "H(Y)"}
    assert plane.series[0].x[0] <= plane.series[0].x[1]
    assert table.rows[0][0] == distances.rows[0][0] == "a"
    shown = dict(zip(distances.columns, distances.rows[0], strict=True))
    assert shown["distance to the MNI point"] == results["a"].metrics.one("mni_distance")
    assert section.headlines["a"].metric == results["a"].metrics.one("rate")
    assert set(section.columns) == {"rate R (nats)", "I(Y;Z) ≥ (nats)", "distance to MNI (nats)"}


def test_a_plane_without_any_random_code_is_left_out():
    images = torch.rand(50, 1, 2, 2)
    results = {"d": Information().run(context(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), images))}
    assert len(page.section(results).blocks) == 1
    assert page.section(results).headlines == {}


def test_the_distance_to_the_mni_point_comes_from_its_two_coordinates():
    model, images = channel(3.0, 400)
    found = Information(samples=2).run(context(model, images))
    values = {metric.name: metric.value for metric in found.metrics}
    entropy = found.details["label_entropy"]
    assert values["excess_rate"] == pytest.approx(values["rate_lower"] - entropy)
    assert values["missing"] == pytest.approx(values["cross_entropy"])
    assert values["mni_distance"] == pytest.approx(math.hypot(values["excess_rate"], values["missing"]))
    interval = found.metrics.one("mni_distance").interval
    assert 0 < interval.low < values["mni_distance"] < interval.high
    # no further from one coordinate's interval than the other coordinate allows
    assert (
        interval.high - interval.low
        < sum(
            found.metrics.one(name).interval.high - found.metrics.one(name).interval.low
            for name in ("excess_rate", "missing")
        )
        * 1.5
    )


def test_known_information_moves_the_mni_point():
    """Where labels are noisy I(X;Y) lies below H(Y), and may be told."""
    model, images = channel(3.0, 200)
    found = Information(samples=2, i_xy=0.3).run(context(model, images))
    assert found.metrics.one("excess_rate").value == pytest.approx(found.metrics.one("rate_lower").value - 0.3)
    assert found.metrics.one("missing").value == pytest.approx(0.3 - found.metrics.one("i_yz_lower").value)
    plane = page.section({"a": found}).blocks[0]
    assert {(mark.name, mark.x) for mark in plane.marks} == {("MNI", 0.3), ("H(Y)", None)}
    with pytest.raises(ConfigError, match="i_xy"):
        component("checks", {"name": "information", "i_xy": -1})


def test_a_consistent_classifier_is_found_consistent():
    """Identity 3 end to end: m and c follow from b by Bayes' rule, with the labels as frequent as in training."""
    model, images = channel(3.0, 300, classifier="consistent", class_counts=[1, 1])
    images = torch.cat([images, -images])  # as many of either class
    found = Information(samples=3).run(context(model, images))
    metrics = found.metrics
    assert metrics.one("consistency").value == pytest.approx(0.0, abs=1e-5)
    assert metrics.one("rate").value - metrics.one("residual").value == pytest.approx(
        metrics.one("i_yz_lower").value, abs=1e-5
    )
    torch.manual_seed(1)  # some untrained classifiers are consistent by chance
    other, _ = channel(3.0, 1)
    odd = Information(samples=3).run(context(other, images)).metrics.one("consistency")
    assert odd.interval.low > 0.01


def test_a_model_says_the_same_of_single_examples():
    """`Bottleneck.measure` and the check draw other noise, but of the same codes they average to the same."""
    model, images = channel(1.0, 500)
    labels = (images.flatten(1)[:, 0] > 0).long()
    found = Information(samples=20).run(context(model, images)).arrays
    measured = model.measure(images, labels, torch.Generator().manual_seed(1))
    assert set(found) == set(measured) - {"i_yz_lower"}
    for name in ("rate_lower", "residual", "rate", "cross_entropy", "consistency_gap"):
        assert float(measured[name].mean()) == pytest.approx(found[name].mean(), abs=0.3), name
    assert not any(values.requires_grad for values in measured.values())


def test_the_fisher_information_of_a_linear_code_is_that_of_its_weights():
    """With unit noise J = WᵀW, here the identity: four pixels are the code."""
    model, images = channel(1.0, 30)
    found = Information(fisher=20).run(context(model, images))
    assert found.metrics.one("fisher_code_trace").value == pytest.approx(PIXELS)
    assert found.metrics.one("fisher_code_largest").value == pytest.approx(1.0)
    assert found.metrics.one("fisher_code_largest").n == 20
    # the prediction is a logistic regression on the same four: J = p(1 − p)·wwᵀ
    w = model.classifier.weight.detach()
    p = model(images[:20]).softmax(1).detach()
    expected = float((p[:, 0] * p[:, 1]).mean() * (w[0] - w[1]).square().sum())
    assert found.metrics.one("fisher_prediction_trace").value == pytest.approx(expected, rel=1e-4)
    assert found.metrics.one("fisher_prediction_largest").value == pytest.approx(expected, rel=1e-4)
    section = page.section({"a": found})
    assert section.blocks[-1].title == "Fisher information about the image"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fisher_information_is_measured_on_request_alone_and_of_plain_classifiers_too():
    model, images = channel(1.0, 30)
    plain = Information().run(context(model, images))
    assert not [name for name in plain.metrics.names() if "fisher" in name]
    assert all("Fisher" not in block.title for block in page.section({"a": plain}).blocks)
    images = torch.rand(20, 1, 2, 2)
    found = Information(fisher=100).run(context(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), images))
    assert {name for name in found.metrics.names() if "fisher" in name} == {
        "fisher_prediction_trace",
        "fisher_prediction_largest",
    }
    assert found.metrics.one("fisher_prediction_trace").n == 20
