"""How numbers, tables and readings are worded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.core import format
from isthmus.core.display import Table
from isthmus.core.types import Interval, Metric
from isthmus.report import curves, tables
from isthmus.report.loading import AuditedModel, load


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1234.5, "1,234"),
        (123.4, "123"),
        (12.34, "12.3"),
        (-2.345, "−2.35"),
        (0.01234, "0.012"),
        (0.00023, "0.00023"),
        (-0.0, "0.00"),
        (3.1e-5, "3.1e−05"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "not a number"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert format.number(value) == text


def metric(value: float | None, unit: str = "nats", low: float = 0.0, high: float = 1.0, n: int = 50) -> Metric:
    return Metric(value=value, unit=unit, n=n, interval=Interval(low=low, high=high, method="Wilson"))


def test_fractions_are_percent() -> None:
    assert format.value_text(metric(0.9717, "fraction")) == "97.2%"
    assert format.value_text(metric(0.0042, "fraction", 0.001, 0.01)) == "0.42%"
    assert format.interval_text(metric(0.5, "fraction", 0.41234, 0.6)) == "41.2–60.0"
    assert format.interval_text(metric(0.0, "fraction", 0.0, 0.08), level=True) == "95% 0.0–8.0"


def test_what_is_not_finite_has_a_word_or_a_sign() -> None:
    unbounded = metric(math.inf, low=1.0, high=math.inf)
    assert (format.value_text(unbounded), format.interval_text(unbounded)) == ("∞ nats", "1.00–∞")
    assert format.value_text(metric(-math.inf, "fraction")) == "−∞"
    lost = metric(math.nan, low=math.nan, high=math.nan)
    assert format.in_words(lost) == "not a number (95% interval unknown, n\u00a0=\u00a050)"
    assert format.value_text(metric(math.nan, "fraction")) == "not a number"
    assert format.quantity(math.nan, "fraction") == "not a number"


def test_units_and_signs() -> None:
    assert format.value_text(metric(2.303)) == "2.30 nats"
    assert format.value_text(metric(2.303), unit=False) == "2.30"
    assert format.interval_text(metric(0.1, low=-0.5, high=0.7)) == "−0.50 to 0.70"
    tiny = metric(-5.7e-6, low=-0.0284, high=0.0247)
    assert (format.value_text(tiny), format.interval_text(tiny)) == ("0.000 nats", "−0.028 to 0.025")
    assert format.value_text(metric(None)) == "not measured"
    assert format.interval_text(metric(None)) == ""
    assert format.in_words(metric(2.0, low=1.9, high=2.1)) == ("2.00 nats (95% interval 1.90–2.10, n\u00a0=\u00a050)")


def test_counts_and_lists() -> None:
    assert format.count(1, "classifier") == "one classifier"
    assert format.count(13, "classifier") == "13 classifiers"
    assert format.listed(["a", "b", "c"]) == "a, b and c"
    assert format.listed([]) == ""


def test_what_a_column_shares_goes_to_its_header() -> None:
    column = tables.column("rate", [metric(1.0), metric(2.0), None])
    assert column.small == ("nats", "n\u00a0=\u00a050")
    assert [cell.text for cell in column.cells] == ["1.00", "2.00", "not measured"]
    assert {cell.n for cell in column.cells} == {""}


def test_what_differs_stays_in_the_cells() -> None:
    other = Metric(value=0.2, unit="fraction", n=7, interval=Interval(low=0.1, high=0.3, level=0.9, method="Wald"))
    column = tables.column("mixed", [metric(1.0), other])
    assert column.small == ()
    assert [(cell.text, cell.interval, cell.n) for cell in column.cells] == [
        ("1.00 nats", "95% 0.00–1.00", "n\u00a0=\u00a050"),
        ("20.0%", "90% 10.0–30.0", "n\u00a0=\u00a07"),
    ]
    assert column.intervals == ("95% Wilson", "90% Wald")


def test_a_unit_that_the_title_names_is_not_repeated() -> None:
    assert tables.column("rate R (nats)", [metric(1.0)]).small == ("n\u00a0=\u00a050",)


def test_whole_numbers_have_no_decimals() -> None:
    table = Table("t", "r", ("class", "images", "seconds"), (("a", 3.0, 1.5), ("b", 1200, 2)))
    name, images, seconds = tables.columns_of(table)
    assert [cell.text for cell in images.cells] == ["3", "1,200"]
    assert [cell.text for cell in seconds.cells] == ["1.50", "2.00"]
    assert (name.numeric, images.numeric) == (False, True)


def test_the_footnote_says_how_intervals_were_made() -> None:
    one = tables.column("accuracy, clean", [metric(0.5, "fraction")])
    assert tables.footnote([one]) == "Below each value: its interval, 95% Wilson."
    boot = Metric(value=1, unit="nats", n=5, interval=Interval(low=0, high=2, method="bootstrap"))
    text = tables.footnote([one, tables.column("rate", [boot])])
    assert text == "Below each value: its interval, 95% Wilson for “accuracy, clean”; 95% bootstrap for rate."
    assert tables.footnote([]) == ""


def test_training_curves_are_thinned_and_read(runs: list[Path]) -> None:
    figures = curves.figures([load(folder) for folder in runs])
    titles = [figure.title for figure in figures]
    assert titles[:2] == ["Classification cross-entropy", "Rate"]
    assert titles[-1] == "Accuracy on test images"
    assert figures[1].reading.startswith("It ends between 2.40 nats and 6.40 nats")
    lines = [{"step": i, "epoch": i // 4, "ce": 1.0, "rate": None} for i in range(4000)]
    (series,) = curves.figures([with_lines(runs[0], lines)])[0].series
    assert 2 < len(series.x) <= curves.MOST_POINTS + 1


def test_training_that_ends_alike_ranks_nobody(runs: list[Path]) -> None:
    lines: list[dict[str, object]] = [{"epoch": epoch, "test_accuracy": 0.99} for epoch in range(3)]
    (figure,) = curves.figures([replace(with_lines(folder, lines), name=folder.name) for folder in runs[:3]])
    assert figure.reading == "It ends at 99.0% for each of them (one run each, so no interval)."


def test_differences_of_fractions_are_percentage_points() -> None:
    gap = metric(0.031, "fraction", -0.004, 0.066).named("generalisation_gap")
    assert (format.value_text(gap), format.interval_text(gap)) == ("3.1\u00a0pp", "−0.4 to 6.6")


def test_no_training_no_section(runs: list[Path]) -> None:
    assert curves.figures([with_lines(runs[0], [])]) == []


def with_lines(folder: Path, lines: list[dict[str, object]]) -> AuditedModel:
    return replace(load(folder), training=tuple(lines))
