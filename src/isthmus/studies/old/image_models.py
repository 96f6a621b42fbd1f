"""What studies on images share: how models are trained (as plain data), and how cells are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.core.types import Metric
from isthmus.studies.old.evidence import Estimate, share
from isthmus.studies.old.study import StudyConfig, StudyRecord

Eps = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = Literal["determ", "vib", "ceb", "bidirectional", "determ_bn", "ceb_bn", "determ_pgd"]
"""Objectives. With "_bn", of the same network with batch normalisation beside one without; with "_pgd", of that one,
trained on adversarial images."""

NAMES = {
    "mean": "mean mode",
    "stochastic": "stochastic mode",
    "one_evaluation": "stochastic mode, one evaluation",
    "confident": "stochastic mode, 99% confidence",
}
"""Modes, and the two other ways in which cells count what stands in stochastic mode.

Without a further word it counts by the average prediction over many codes. One evaluation with the model's own samples
is the papers' rule. With confidence, only what is wrong on average at a level of 99% counts as broken (see
:class:`isthmus.attacks.result.RobustResult`).
"""


class Pgd(Frozen):
    """PGD's steps; how often it starts is said elsewhere.

    Attributes:
        steps: from each start.
        step_size: in units of images in [0, 1].
        loss: "ce" is the paper's. "log_odds" has its direction, but does not round to zero where a model is sure: with
            it, an attack that stands still is no longer an explanation.
    """

    steps: Positive = 40
    step_size: Eps = 0.01
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"


class ImageConfig(StudyConfig):
    """How models are trained, and on how many images they are judged.

    Attributes:
        seeds: how often everything is trained, with seeds 0, 1, 2, ...
        data: name of a data set.
        train_limit: train on so many images, class-balanced; None for all.
        images: judge on so many test images, class-balanced; None for all.
        model, training: parts of a recipe (:class:`isthmus.core.recipe.Recipe`), the same for every objective.
        modes: in which bottlenecks are judged. Deterministic networks have the first alone.
    """

    seeds: Positive
    data: str
    train_limit: Positive | None = None
    images: Positive | None = None
    model: dict[str, Any]
    training: dict[str, Any]
    modes: Annotated[tuple[Literal["mean", "stochastic"], ...], Field(min_length=1)] = ("mean", "stochastic")

    def recipe(self, kind: Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model.

        Args:
            kind: the objective; "determ" for plain cross-entropy on a deterministic code of the same size.
            knob: its trade-off (:meth:`objective`); None for the deterministic one.
        """
        return {
            "name": f"{self.data}-{title(kind, knob)}-seed{seed}".replace(" ", ""),
            "seed": seed,
            "data": {"name": self.data, "train_limit": self.train_limit},
            "model": self.model,
            "objective": self.objective(kind, knob),
            "training": self.training,
        }

    def objective(self, kind: Kind, knob: float | None) -> Any:
        """An objective with its trade-off: β for VIB, ρ for CEB."""
        if kind == "determ":
            return "deterministic"
        return {"name": kind, ("rate_weight" if kind == "vib" else "rho"): knob}


def title(kind: Kind, knob: float | None) -> str:
    """How cells and recipes name a model: "vib 0.01"."""
    return kind if knob is None else f"{kind} {knob:g}"


def standing(cells: Sequence[Mapping[str, Any]], mode: str, *path: str | int) -> list[int]:
    """A count of each cell, cell by cell: ``standing(cells, "mean", "fgsm", "0.2")``."""
    return [_at(cell["modes"][mode], path) for cell in cells]


def _at(content: Any, path: Sequence[str | int]) -> int:
    for key in path:
        content = content[key]
    return int(content)


def healthy(record: StudyRecord, **wanted: Any) -> list[Mapping[str, Any]]:
    """Cells of models whose training did not collapse to chance; the paper leaves the others out, too."""
    return [cell for cell in record.each(**wanted) if not cell["collapsed"]]


def estimate(cells: Sequence[Mapping[str, Any]], mode: str, *path: str | int) -> Estimate:
    """Mean over seeds of a share of the images; see :func:`standing`."""
    return share(standing(cells, mode, *path), cells[0]["n"])


def blind(cells: Sequence[Mapping[str, Any]], mode: str) -> Metric:
    """Share of an attack's looks at which the gradient was exactly zero in float32, over all seeds."""
    zero, looks = (sum(cell["modes"][mode]["blind"][part] for cell in cells) for part in (0, 1))
    return Metric(value=zero / looks if looks else None, unit="fraction", n=looks, note="" if looks else "no look")


def modes(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Modes in which these models were judged, with the other ways of counting; see :data:`NAMES`."""
    return list(cells[0]["modes"]) if cells else []


def claimed(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that claims are judged in: each mode, and the papers' rule beside ours."""
    return [mode for mode in modes(cells) if mode != "confident"]
