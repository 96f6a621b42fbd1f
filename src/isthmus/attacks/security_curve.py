"""A security curve: robust accuracy at several ε of one norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus import metrics
from isthmus.attacks.result import RobustResult
from isthmus.core.display import Figure, Series
from isthmus.core.format import NORMS, percent, size
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.types import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


class SecurityCurve(Summarized, tuple[RobustResult, ...]):
    """The results at several ε of one norm on the same examples, ascending: a tuple with a plot and a table."""

    @property
    def eps(self) -> tuple[float, ...]:
        """The values of ε, in units of images in [0, 1]."""
        return tuple(result.threat.eps for result in self)

    @property
    def accuracies(self) -> tuple[Metric, ...]:
        """Robust accuracy at each ε, with n and a 95% Wilson interval."""
        return tuple(
            metrics.proportion(int(result.robust.sum()), len(result)).named(
                "robust_accuracy", norm=result.threat.name, eps=result.threat.eps
            )
            for result in self
        )

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each ε: name, norm, eps, value, unit, n, interval and note.

        Raises:
            ConfigError: pandas is not installed.
        """
        return dataframe([metric.row() for metric in self.accuracies], ".eps and .accuracies")

    def plot(self, ax: Axes | None = None) -> tuple[Canvas, Axes]:
        """Plot robust accuracy against ε, from the clean accuracy at ε = 0, with 95% intervals.

        Args:
            ax: axes to draw into; None for a new figure.

        Returns:
            The figure and its axes.
        """
        from isthmus.core import plots

        clean = metrics.proportion(int(self[0].correct.sum()), len(self[0]))
        norm, attacks = self[0].threat.name, ", ".join(self[0].attacks[1:])
        return plots.draw(accuracy_figure(norm, (0.0, *self.eps), (clean, *self.accuracies), attacks), ax)

    def _summary(self) -> dict[str, str]:
        found = ", ".join(f"{percent(result.accuracy)} at {result.threat.eps:.4g}" for result in self)
        norm = NORMS[self[0].threat.name]
        return {
            "SecurityCurve": f"{norm}, {size(len(self[0]))}, attacks: {', '.join(self[0].attacks[1:])}",
            "robust accuracy": found,
            "clean accuracy": percent(self[0].clean_accuracy),
        }


def accuracy_figure(norm: str, eps: Sequence[float], accuracies: Sequence[Metric], name: str) -> Figure:
    """Robust accuracy against ε as a line with intervals, as plain data."""
    values = [metric.value for metric in accuracies if metric.value is not None]
    intervals = [metric.interval for metric in accuracies if metric.interval is not None]
    low, high = tuple(each.low for each in intervals), tuple(each.high for each in intervals)
    series = Series(name, tuple(eps), tuple(values), low, high)
    return Figure(
        f"Robust accuracy, {size(accuracies[0].n)}",
        "",
        f"{NORMS[norm]} perturbation ε, images in [0, 1]",
        "robust accuracy",
        (series,),
        y_range=(0.0, 1.0),
    )
