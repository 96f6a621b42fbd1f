"""What results of attacks show in a notebook: summaries, tables and plots hold the results' own numbers."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from isthmus.attacks import Linf, RunOptions, curve, minimal_norms, parse_grid, robust_accuracy, verify_adversarial
from isthmus.attacks.loss_surface import SurfaceGrid, random_signs
from isthmus.core.errors import DataError
from isthmus.core.randomness import example_keys
from isthmus.metrics import proportion, wilson
from tests.attacks.attacked_models import Noisy, subject

SUITE = ["fgsm", "pgd:5"]


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def result():
    return robust_accuracy(*subject(), Linf(0.05), SUITE)


def test_a_result_says_threat_number_interval_n_and_counts(result):
    first, second, third = repr(result).splitlines()
    assert first == "RobustResult: ℓ∞ 0.05, attacks: fgsm, pgd"
    ends = result.interval
    assert second == (
        f"robust accuracy: {result.accuracy:.1%} (95% interval {100 * ends.low:.1f}–{100 * ends.high:.1f}, n = 48)"
    )
    assert third == (
        f"examples: clean accuracy {result.clean_accuracy:.1%}; {int(result.broken.sum())} broken, "
        f"{int(result.robust.sum())} robust, 0 invalid"
    )
    assert "ℓ∞ 0.05" in result._repr_html_()


def test_an_interrupted_or_targeted_result_says_so():
    model, images, labels = subject()
    options = RunOptions(targets=(labels + 1) % 3, verify=False)
    result = robust_accuracy(Noisy(model, 0.05), images, labels, Linf(0.05), ["fgsm"], options=options)
    assert "robust accuracy (targeted): " in repr(result)
    assert "in .warnings" in repr(result)
    assert result.to_dataframe()["target"].tolist() == ((labels + 1) % 3).tolist()


def test_a_table_has_a_row_for_each_example(result):
    table = result.to_dataframe()
    assert list(table) == ["label", "correct", "robust", "broken", "invalid", "broken_by", "size", "margin"]
    assert len(table) == len(result)
    for name in ("correct", "robust", "broken", "invalid"):
        assert table[name].tolist() == getattr(result, name).tolist()
    assert [by if broken else None for by, broken in zip(table["broken_by"], table["broken"], strict=True)] == list(
        result.broken_by
    )
    np.testing.assert_allclose(table["size"], result.sizes.numpy())
    np.testing.assert_allclose(table["margin"], result.state.margin.numpy())
    assert table["robust"].mean() == result.accuracy


def test_examples_are_drawn_with_original_and_adversarial_image(result):
    canvas, axes = result.plot(most=3)
    assert axes.shape == (3, 3)
    rows = (result.broken & (result.stage > 0)).nonzero().flatten()[:3]
    for column, row in enumerate(rows.tolist()):
        original, adversarial, difference = (axes[line, column].images[0].get_array() for line in range(3))
        np.testing.assert_array_equal(
            original[..., 0] if original.ndim == 3 else original, result.examples.images[row, 0]
        )
        np.testing.assert_array_equal(
            adversarial[..., 0] if adversarial.ndim == 3 else adversarial, result.adversarial[row, 0]
        )
        assert (difference.min() == 0) | (difference.max() == 1)
        assert axes[0, column].get_title() == f"image {row}, class {int(result.examples.labels[row])}"
    canvas.draw_without_rendering()


def test_without_an_adversarial_example_there_is_no_plot():
    with pytest.raises(DataError, match="no adversarial example"):
        robust_accuracy(*subject(), Linf(1e-6), ["fgsm"]).plot()


def test_a_curve_is_drawn_from_the_clean_accuracy_with_wilsons_intervals():
    found = curve(*subject(), parse_grid("linf:0.02,0.05,0.1"), SUITE)
    _, axes = found.plot()
    values = [found[0].clean_accuracy, *(result.accuracy for result in found)]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), list(zip((0, *found.eps), values, strict=True)))
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    for result in found:
        assert np.isclose(corners, result.interval.low).any()
        assert np.isclose(corners, result.interval.high).any()
    table = found.to_dataframe()
    assert table["eps"].tolist() == [0.02, 0.05, 0.1]
    assert table["value"].tolist() == values[1:]
    assert table["low"].tolist() == [result.interval.low for result in found]
    assert repr(found).splitlines()[1] == "robust accuracy: " + ", ".join(
        f"{result.accuracy:.1%} at {result.threat.eps:g}" for result in found
    )
    assert len(repr(found).splitlines()) == 3


def test_minimal_norms_are_drawn_as_accuracy_against_eps():
    found = minimal_norms(*subject())
    _, axes = found.plot()
    x, y = axes.lines[0].get_data()
    assert x[0] == 0
    np.testing.assert_allclose(y, [found.accuracy(eps) for eps in x])
    assert len(x) == len({0.0, *found.sizes[found.sizes.isfinite()].tolist()})
    assert repr(found).startswith("MinimalNorms: ℓ2, n = 48, attacks: fmn\nmedian: ")


def test_a_verification_says_whether_it_agrees(result, tmp_path):
    model, images, labels = subject()
    result.save(tmp_path / "r")
    first, second, third = repr(verify_adversarial(tmp_path / "r", model, images=images, labels=labels)).splitlines()
    assert first == "Verification: agrees; ℓ∞ 0.05, n = 48"
    assert second.startswith(f"robust accuracy: claimed {result.accuracy:.1%}, verified {result.accuracy:.1%} (95%")
    broken = int(result.broken.sum())
    assert third == f"evidence: {broken} of {broken} broken examples proven; examples match: yes; file intact: yes"


def test_a_surface_is_drawn_as_its_losses():
    model, images, labels = subject()
    keys = example_keys(0, torch.arange(2))
    first, second = random_signs(keys, images.shape[1:]), random_signs(keys, images.shape[1:], second=True)
    found = SurfaceGrid(0.1, steps=2).measure(model, images[:2], labels[:2], first, second)
    _, axes = found.plot(1)
    np.testing.assert_array_equal(axes.images[0].get_array(), found.loss[1].T)
    assert axes.images[0].get_extent() == pytest.approx([-0.175, 0.175, -0.175, 0.175])
    assert repr(found).startswith("Surface: ℓ∞ 0.1, n = 2, 7×7 points\nloss: ")
    with pytest.raises(DataError, match="images 0 to 1; got 2"):
        found.plot(2)


def test_intervals_of_a_curve_are_those_of_its_results():
    found = curve(*subject(), [Linf(0.05)], ["fgsm"])
    (metric,) = found.accuracies
    assert metric == proportion(round(metric.value * 48), 48).named("robust_accuracy", norm="linf", eps=0.05)
    assert metric.interval == wilson(round(metric.value * 48), 48) == found[0].interval
