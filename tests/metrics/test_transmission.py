"""I(T;Y) from confusion matrices: cases with known answers, an independent library, and intervals that cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mutual_info_score

from isthmus.information.tables import mutual_information, noisy_labels
from isthmus.metrics import transmission
from isthmus.metrics.transmission import Confusions, basic_interval, expected_at_random, transmitted_bits


def test_right_answers_transmit_the_entropy_and_constant_ones_nothing():
    labels = np.array([0, 0, 0, 1, 2, 2])
    entropy = -sum(p * math.log2(p) for p in (1 / 2, 1 / 6, 1 / 3))
    assert transmitted_bits(labels, labels) == pytest.approx(entropy, abs=1e-12)
    assert transmitted_bits((labels + 1) % 3, labels) == pytest.approx(entropy, abs=1e-12)  # wrong, but telling
    assert transmitted_bits(np.full(6, 2), labels) == 0.0
    assert Confusions.of(np.empty((0, 6)), labels, 3).entropy_bits() == pytest.approx(entropy, abs=1e-12)


def test_an_erasure_is_a_symbol():
    """Half of the answers erased, the others right: half of the entropy."""
    labels = np.arange(40) % 4
    assert transmitted_bits(np.where(np.arange(40) < 20, labels, -1), labels) == pytest.approx(1.0)


pairs = arrays(np.int64, st.tuples(st.just(2), st.integers(1, 60)), elements=st.integers(-1, 5))


@given(pairs)
@settings(max_examples=50)
def test_it_is_symmetric_and_what_others_compute(pair):
    answers, labels = pair
    found = transmitted_bits(answers, labels)
    assert found == pytest.approx(transmitted_bits(labels, answers), abs=1e-9)
    assert found == pytest.approx(mutual_info_score(labels, answers) / math.log(2), abs=1e-9)
    table = np.zeros((7, 7))
    np.add.at(table, (answers + 1, labels + 1), 1 / labels.size)
    assert found == pytest.approx(mutual_information(table) / math.log(2), abs=1e-9)
    own = Confusions.of([answers], labels + 1, 7)
    assert own.bits()[0] == pytest.approx(found, abs=1e-9)
    assert 0 <= found <= own.entropy_bits() + 1e-9


def test_a_smoothed_population_is_what_its_resamples_come_from():
    """Of many resamples, the mean of a statistic that is linear in counts is that of the smoothed population."""
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=60)
    rows = np.array([labels, np.where(generator.random(60) < 0.4, generator.integers(4, size=60), labels)])
    confusions = Confusions.of(rows, labels, 4)
    unseen = np.array([confusions._unseen(row) for row in confusions.predicted])
    seen = []
    original = transmission._information

    def remembered(joint):
        seen.append(joint.copy())
        return original(joint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transmission, "_information", remembered)
        errors = confusions.resampled(3, lambda bits, entropy: np.concatenate([bits, entropy[None]]), resamples=4000)
    centres, resamples = seen[:2], seen[2:]
    assert errors.shape == (3, 4000)
    for row, centre in enumerate(centres):
        alone = sum(((rows[row] == t) & (labels == y)).sum() == 1 for t in range(4) for y in range(4))
        assert unseen[row] == pytest.approx((alone + 1 + math.sqrt(alone + 1)) / 60)
        assert centre.sum() == pytest.approx(60)
        np.testing.assert_allclose(resamples[row].sum((0, 1)), 60)
        np.testing.assert_allclose(resamples[row].mean(-1), centre[..., 0], atol=0.35)
        np.testing.assert_array_less(-1e-9, resamples[row])


def test_rows_are_resampled_together():
    """Two equal rows have equal errors, so that the interval of their difference has no width."""
    labels = np.arange(80) % 4
    answers = np.where(np.arange(80) % 7 == 0, 0, labels)
    errors = Confusions.of([answers, answers], labels, 4).resampled(0, lambda bits, _: bits, resamples=50)
    np.testing.assert_array_equal(errors[0], errors[1])
    assert errors[0].std() > 0


def test_blocks_change_nothing_but_the_draws(monkeypatch):
    labels = np.arange(80) % 4
    confusions = Confusions.of([np.where(np.arange(80) % 7 == 0, 0, labels)], labels, 4)
    whole = confusions.resampled(0, lambda bits, _: bits, resamples=3000)[0]
    monkeypatch.setattr(transmission, "_BLOCK", 80 * 100)
    parts = confusions.resampled(0, lambda bits, _: bits, resamples=3000)[0]
    assert parts.shape == whole.shape
    np.testing.assert_allclose(np.quantile(parts, [0.1, 0.5, 0.9]), np.quantile(whole, [0.1, 0.5, 0.9]), atol=0.02)


@pytest.mark.parametrize(
    ("classes", "noise", "n"),
    [
        (5, 0.1, 300),
        (5, 0.8, 300),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in [(10, 0.02, 500), (10, 0.3, 300), (10, 0.05, 300)]),
    ],
    ids=["few errors", "answers at random", "each error alone", "many classes", "few errors of many classes"],
)
def test_intervals_cover_the_truth(classes, noise, n):
    """Of a channel whose information is known. Percentiles of a plain bootstrap do far worse."""
    table = noisy_labels(classes, noise)
    truth = mutual_information(table) / math.log(2)
    generator = np.random.default_rng(1)
    covered, percentile, runs = 0, 0, 100
    for run in range(runs):
        cells = generator.choice(classes**2, size=n, p=table.ravel())
        answers, labels = cells // classes, cells % classes
        confusions = Confusions.of([answers], labels, classes)
        errors = confusions.resampled(run, lambda bits, _: bits, resamples=200)[0]
        interval = basic_interval(float(confusions.bits()[0]), errors, n, least=0.0)
        covered += interval.low <= truth <= interval.high
        counts = generator.multinomial(n, np.bincount(cells, minlength=classes**2) / n, size=200)
        drawn = transmission._information(counts.T.reshape(classes, classes, -1).astype(float))
        percentile += np.quantile(drawn, 0.025) <= truth <= np.quantile(drawn, 0.975)
    assert covered >= 0.93 * runs
    assert percentile < covered - 0.1 * runs


def test_an_interval_holds_its_value_and_stays_in_range():
    found = basic_interval(0.3, np.array([0.4, 0.5, 0.6]), 1000, least=0.0)
    assert (found.low, found.high) == (0.0, 0.3)
    assert basic_interval(0.9, np.array([-0.4, -0.3]), 1000, most=1.0).high == 1.0


@pytest.mark.parametrize(("answers", "labels"), [([1, 2], [1]), ([], []), ([[1]], [1])])
def test_what_does_not_fit_is_said(answers, labels):
    with pytest.raises(ValueError, match="one prediction a label"):
        transmitted_bits(answers, labels)


@pytest.mark.parametrize(("answers", "labels"), [([3, 0], [0, 1]), ([-2, 0], [0, 1]), ([0, 0], [0, 3])])
def test_classes_out_of_range_are_refused(answers, labels):
    with pytest.raises(ValueError, match="0 to 2"):
        Confusions.of([answers], labels, 3)


def test_what_answers_at_random_seem_to_tell():
    generator = np.random.default_rng(0)
    found = [transmitted_bits(generator.integers(6, size=500), generator.integers(4, size=500)) for _ in range(200)]
    assert np.mean(found) == pytest.approx(expected_at_random(6, 4, 500), rel=0.1)
