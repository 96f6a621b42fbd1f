"""Plots of results with matplotlib's ``pyplot``, for notebooks and scripts; the page draws its own.

Every function returns ``(figure, axes)`` and shows nothing. A notebook shows the figure by itself, a script with
``pyplot.show()``. This module imports matplotlib, so results import it only inside their ``plot``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from isthmus.core import drawing, scales
from isthmus.core.display import Figure

_WIDTH = 1.3
"""Width of one example, in inches."""
_MUTED = "0.5"

_LITERAL: dict[str, Any] = {"parse_math": False}
"""Of text: a name such as "a$b$c" is drawn as it is, not as a formula."""


def draw(figure: Figure, ax: Axes | None = None) -> tuple[Canvas, Axes]:
    """Draw a figure, with intervals as bands or bars.

    Args:
        ax: axes to draw into; None for a new figure.
    """
    canvas, axes = _axes(ax)
    y_range = scales.ranges(figure)[1]
    series = [scales.drawable(one, y_range) for one in figure.series]
    for index, one in enumerate(series):
        dashes = drawing.DASHES[1 if one.style == "dashed" else 0]
        drawing.draw_series(axes, one, series, drawing.Look(f"C{index}", "o"), dashes)
    drawing.draw_references(axes, figure, _MUTED)
    axes.set_title(figure.title, **_LITERAL)
    axes.set_xlabel(figure.x_label, **_LITERAL)
    axes.set_ylabel(figure.y_label, **_LITERAL)
    for limits, axis, bound in (
        (figure.x_range, axes.xaxis, axes.set_xlim),
        (figure.y_range, axes.yaxis, axes.set_ylim),
    ):
        if limits is not None:
            room = 0.02 * (limits[1] - limits[0])
            bound(limits[0] - room, limits[1] + room)
        if limits == (0.0, 1.0):
            axis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    if len(figure.series) + len(figure.marks) > 1:
        for text in axes.legend().get_texts():
            text.set(**_LITERAL)
    return canvas, axes


def _axes(ax: Axes | None) -> tuple[Canvas, Axes]:
    if ax is None:
        return pyplot.subplots(layout="constrained")
    canvas = ax.figure
    assert isinstance(canvas, Canvas)
    return canvas, ax


def draw_examples(
    originals: NDArray[Any], adversarials: NDArray[Any], titles: Sequence[tuple[str, str]]
) -> tuple[Canvas, NDArray[Any]]:
    """Draw adversarial examples: a column for each, with the original, the adversarial image and their difference.

    The difference is enlarged around grey, by the factor in its title.

    Args:
        originals, adversarials: n×h×w×c in [0, 1]. If c is neither 1 nor 3, only the first channel is drawn.
        titles: of each original and each adversarial image.

    Returns:
        The figure, and its axes as an array of 3 rows and n columns.
    """
    if originals.shape[-1] not in (1, 3):
        originals, adversarials = originals[..., :1], adversarials[..., :1]
    n = len(originals)
    canvas, axes = pyplot.subplots(3, n, figsize=(_WIDTH * max(n, 2), 4.6), squeeze=False, layout="constrained")
    for column, (original, adversarial, title) in enumerate(zip(originals, adversarials, titles, strict=True)):
        change = adversarial - original
        times = 0.5 / max(float(np.abs(change).max()), 1e-6)
        pictures = (original, adversarial, np.clip(0.5 + times * change, 0, 1))
        for row, (picture, text) in enumerate(zip(pictures, (*title, f"× {times:.2g}"), strict=True)):
            axes[row, column].imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes[row, column].set_title(text, fontsize="small", **_LITERAL)
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(("original", "adversarial", "difference")):
        axes[row, 0].set_ylabel(name)
    return canvas, axes


def draw_surface(
    loss: NDArray[Any], offsets: NDArray[Any], eps: float, title: str, ax: Axes | None = None
) -> tuple[Canvas, Axes]:
    """Draw the loss on a plane as a heat map, with the diamond |u| + |v| ≤ ε.

    Args:
        loss: in nats; the first axis is u, which is drawn horizontally.
        offsets: u, and likewise v, evenly spaced and ascending.
    """
    canvas, axes = _axes(ax)
    half = (offsets[1] - offsets[0]) / 2
    low, high = float(offsets[0] - half), float(offsets[-1] + half)
    drawn = axes.imshow(loss.T, origin="lower", extent=(low, high, low, high))
    axes.plot([eps, 0, -eps, 0, eps], [0, eps, 0, -eps, 0], color="white", linestyle="--")
    axes.set(title=title, xlabel="u", ylabel="v")
    canvas.colorbar(drawn, ax=axes, label="cross-entropy, nats")
    return canvas, axes
