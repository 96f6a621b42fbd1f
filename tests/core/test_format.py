"""Fractions are written with as many decimals as their number of examples resolves."""

import pytest

from isthmus.core.format import attack_title, interval_of, percent_of, points_of
from isthmus.core.types import Interval


@pytest.mark.parametrize(
    ("fraction", "n", "text"),
    [
        (0.58, 100, "58%"),
        (210 / 360, 360, "58.3%"),
        (2917 / 5000, 5000, "58.34%"),
        (0.0, 100, "0%"),
        (0.0066, 359, "0.66%"),
        (0.0066, 100, "0.7%"),
        (0.00123, 10_000, "0.12%"),
    ],
)
def test_decimals_follow_n(fraction, n, text):
    assert percent_of(fraction, n) == text


def test_two_counts_of_the_same_n_never_look_alike():
    for n in (100, 1000):
        assert len({percent_of(k / n, n) for k in range(n + 1)}) == n + 1


def test_intervals_and_differences_have_the_decimals_of_their_value():
    interval = Interval(low=0.4821, high=0.672, method="Wilson")
    assert [interval_of(interval, n) for n in (100, 360, 5000)] == ["48–67", "48.2–67.2", "48.21–67.20"]
    assert [points_of(-0.09, 100), points_of(0.01, 100), points_of(0.05, 360)] == ["9 points", "1 point", "5.0 points"]


@pytest.mark.parametrize(
    ("label", "title"),
    [
        ("fgsm", "FGSM"),
        ("pgd-2", "PGD-2"),
        ("apgd-dlr-t", "APGD-DLR-T"),
        ("square-sample", "Square-sample"),
        ("mine:Attack", "mine:Attack"),
        ("baseline/pgd", "PGD (baseline attack)"),
        ("ensemble/apgd-9x100", "APGD-9x100 (ensemble)"),
        ("black_box/other images/neighbours", "neighbours (black box, other images)"),
    ],
)
def test_attacks_are_named_as_in_papers(label, title):
    assert attack_title(label) == title
