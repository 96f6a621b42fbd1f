"""Summaries of results, and plots of plain figures: what they show equals the numbers they were made of."""

import sys

import numpy as np
import pytest
from matplotlib import pyplot, rc_context

from isthmus.core import plots
from isthmus.core.display import Figure, Mark, Series
from isthmus.core.errors import ConfigError
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.types import CheckResult, Interval, Metric, Metrics, Status

INTERVAL = Interval(low=0.3, high=0.44, method="Wilson")
ROBUST = Metric(name="robust_accuracy", value=0.37, unit="fraction", n=200, interval=INTERVAL, coords={"eps": 0.1})
NAMED = "robust_accuracy[eps=0.1]"
WORDS = "37.0% (95% interval 30.0–44.0, n = 200)"


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


class Hostile(Summarized):
    def _summary(self):
        return {"<b>": "a\nb & " + "<script>" * 100}


def test_html_is_escaped_and_lines_are_short():
    html = Hostile()._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;" in html
    assert repr(Hostile()).startswith("<b>: a b & <script>")
    assert "\n" not in repr(Hostile())
    assert len(repr(Hostile())) <= 160


def test_a_result_without_a_summary_cannot_be_made():
    class Unsummarised(Summarized):
        pass

    with pytest.raises(TypeError, match="_summary"):
        Unsummarised()


def test_a_metric_says_value_interval_and_n():
    assert repr(ROBUST) == str(ROBUST) == f"{NAMED}: {WORDS}"
    assert NAMED in ROBUST._repr_html_()
    missing = Metric(value=None, unit="nats", n=5, note="no model")
    assert repr(missing) == "Metric: not measured (n = 5): no model"


def test_metrics_name_what_they_hold_and_their_html_has_every_number():
    metrics = Metrics([ROBUST, ROBUST.named("other")])
    assert repr(metrics) == "Metrics: two numbers\nnames: robust_accuracy and other"
    assert metrics._repr_html_().count("<tr>") == 2
    assert repr(Metrics()) == "Metrics: no numbers\nnames: none"


def test_a_check_says_status_reason_and_its_first_number():
    result = CheckResult(check="robustness", status=Status.WARN, reason="Weak.", metrics=Metrics([ROBUST]))
    assert repr(result) == f"CheckResult robustness: warning\nreason: Weak.\n{NAMED}: {WORDS}"
    assert repr(CheckResult(check="x", status=Status.SKIPPED, reason="No.")) == "CheckResult x: skipped\nreason: No."


def test_a_table_needs_pandas(monkeypatch):
    assert dataframe([{"a": 1}, {"b": 2}], "").shape == (2, 2)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install pandas.*use rows\(\)"):
        dataframe([], "rows()")


def test_a_figure_is_drawn_with_its_numbers():
    line = Series("a$b$c", (0, 0.1), (0.9, 0.4), (0.8, 0.3), (1.0, 0.5))
    dots = Series("dots", (0.05,), (0.5,), (0.4,), (0.7,), style="points")
    figure = Figure("T", "", "x", "y", (line, dots), (Mark("chance", y=0.1), Mark("at", 0.05, 0.2)), y_range=(0, 1))
    canvas, axes = plots.draw(figure)
    first, second, chance, at = axes.lines
    np.testing.assert_allclose(first.get_xydata(), [(0, 0.9), (0.1, 0.4)])
    np.testing.assert_allclose(second.get_xydata(), [(0.05, 0.5)])
    assert (chance.get_ydata()[0], at.get_xydata().tolist()) == (0.1, [[0.05, 0.2]])
    band, strokes = axes.collections
    assert {0.3, 0.5, 0.8, 1.0} <= set(band.get_paths()[0].vertices[:, 1].tolist())
    np.testing.assert_allclose(strokes.get_segments()[0][:, 1], [0.4, 0.7])
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("T", "x", "y")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a$b$c", "dots", "chance", "at"]
    assert not axes.get_legend().get_texts()[0].get_parse_math()
    assert not axes.title.get_parse_math()
    canvas.draw_without_rendering()


def test_drawing_leaves_the_settings_of_pyplot(monkeypatch):
    """A notebook's backend sets "interactive" at the first figure; without it no later figure is shown."""
    subplots = pyplot.subplots

    def first(*args, **options):
        pyplot.rcParams["interactive"] = True
        return subplots(*args, **options)

    with rc_context({"interactive": False}):
        monkeypatch.setattr(pyplot, "subplots", first)
        plots.draw(Figure("T", "", "x", "y", ()))
        assert pyplot.isinteractive()


def test_bars_of_two_series_are_side_by_side_and_given_axes_are_used():
    _, given = pyplot.subplots()
    bars = [Series(name, (1, 2), heights, style="bars") for name, heights in (("a", (0.1, 0.2)), ("b", (0.3, 0.4)))]
    canvas, axes = plots.draw(Figure("T", "", "x", "y", tuple(bars), identity=True), given)
    assert axes is given
    assert canvas is given.figure
    assert [bar.get_height() for bar in axes.patches] == [0.1, 0.2, 0.3, 0.4]
    first, second = axes.patches[0], axes.patches[2]
    assert 0 < second.get_x() - first.get_x() - first.get_width() < first.get_width() / 10
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
