"""How a robustness result is shown: its summary, its examples as a table, its adversarial examples as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus import metrics
from isthmus.core.errors import DataError
from isthmus.core.format import in_words, percent, threat_title
from isthmus.core.notebook import dataframe

if TYPE_CHECKING:
    from isthmus.attacks.result import RobustResult


def summary(result: RobustResult) -> dict[str, str]:
    """Threat and attacks; robust accuracy with interval and n; how many examples are broken."""
    accuracy = in_words(metrics.proportion(int(result.robust.sum()), len(result)))
    counts = (
        f"{int(result.broken.sum())} broken, {int(result.robust.sum())} robust, {int(result.invalid.sum())} invalid"
    )
    notes = [
        f"clean accuracy {percent(result.clean_accuracy)}",
        counts,
        *([] if result.complete else ["interrupted"]),
        *([f"{len(result.warnings)} in .warnings"] if result.warnings else []),
    ]
    attacks = ", ".join(result.attacks[1:]) or "none"
    return {
        "RobustResult": f"{threat_title(str(result.threat))}, attacks: {attacks}",
        "robust accuracy" + (" (targeted)" if result.targeted else ""): accuracy,
        "examples": "; ".join(notes),
    }


def table(result: RobustResult) -> Any:
    """One row for each example; see :meth:`isthmus.attacks.result.RobustResult.to_dataframe`."""
    columns: dict[str, Any] = {
        "label": result.examples.labels.tolist(),
        "correct": result.correct.tolist(),
        "robust": result.robust.tolist(),
        "broken": result.broken.tolist(),
        "invalid": result.invalid.tolist(),
        "broken_by": list(result.broken_by),
        "size": result.sizes.tolist(),
        "margin": result.state.margin.tolist(),
    }
    if result.examples.targets is not None:
        columns["target"] = result.examples.targets.tolist()
    return dataframe(columns, "attributes such as .robust, .broken_by and .sizes")


def plot(result: RobustResult, most: int) -> tuple[Any, Any]:
    """The first adversarial examples; see :meth:`isthmus.attacks.result.RobustResult.plot`."""
    from isthmus.core import plots

    rows = (result.broken & (result.stage > 0)).nonzero().squeeze(1)[:most]
    if not len(rows):
        raise DataError("No attack broke an example, so there is no adversarial example to plot.")
    images, adversarial = (
        batch[rows].float().permute(0, 2, 3, 1).numpy() for batch in (result.examples.images, result.adversarial)
    )
    titles = [
        (
            f"image {row}, class {int(result.examples.labels[row])}",
            f"{result.broken_by[row]}, ‖δ‖ = {result.sizes[row]:.3g}",
        )
        for row in rows.tolist()
    ]
    return plots.draw_examples(images, adversarial, titles)
