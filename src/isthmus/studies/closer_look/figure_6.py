"""What does the first toy problem look like, and are its samples what the formulas say?

Points of :class:`isthmus.data.toys.Intervals`, coloured by class, as in the appendix.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from isthmus.core.config import Positive
from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.metrics import proportion, wilson
from isthmus.studies import catalogue
from isthmus.studies.old.evidence import ClaimResult, Verdict, percent
from isthmus.studies.old.study import StudyConfig, StudyRecord, scales
from isthmus.studies.store import Experiment, ResultStore, Stages

RELIABILITY = 0.9
NEAR = 0.03
"""How far from 90% a share may lie that still counts as the paper's."""


class Config(StudyConfig):
    """How many points to draw, and their seed."""

    points: Positive = 1000
    seed: Annotated[int, Field(ge=0)] = 0


SCALES = scales(Config, tiny={"points": 200}, small={})


def cells(config: Config, bench: ResultStore) -> Stages:
    """The points, drawn."""
    yield [Experiment("points", {"problem": "intervals", **config.plain()}, lambda: _draw(config))]


def _draw(config: Config) -> dict[str, Any]:
    import torch

    from isthmus.data.toys import Intervals

    points = Intervals().sample(config.points, torch.Generator().manual_seed(config.seed))
    agree = (points.features * points.signs.unsqueeze(1) > 0).sum(0).tolist()
    features = (points.features.double() * 1e4).round() / 1e4
    return {"n": config.points, "agree": agree, "features": features.tolist(), "labels": points.labels.tolist()}


def findings(record: StudyRecord) -> list[ClaimResult]:
    """That sign(x₁) is always the label, and sign(x₂) in nine of ten."""
    cell = record.cells["points"]
    n, (first, second) = cell["n"], cell["agree"]
    interval = wilson(second, n)
    low, high = interval.low, interval.high
    outside = high < RELIABILITY or low > RELIABILITY
    close = low > RELIABILITY - NEAR and high < RELIABILITY + NEAR
    verdict = Verdict.CONTRADICTED if outside else Verdict.SUPPORTED if close else Verdict.UNDECIDED
    return [
        ClaimResult(
            claim="The label can be predicted from the sign of x₁.",
            verdict=Verdict.SUPPORTED if first == n else Verdict.CONTRADICTED,
            reason=f"It is the label's for {first:,} of {n:,} points; one exception would refute it.",
        ),
        ClaimResult(
            claim="The sign of x₂ is the label's in 90% of all points.",
            verdict=verdict,
            reason=f"It is for {percent(second / n)} of {n:,} points (95% interval {percent(low)} to "
            f"{percent(high)}); seen where all of the interval lies within {100 * NEAR:g} points of 90%.",
        ),
    ]


def section(record: StudyRecord) -> Section:
    """The points, and how often each feature's sign is the label's."""
    question = catalogue.question(record.study)
    title = "Figure 6: samples of the toy problem"
    if not record.complete:
        return Section(title, question)
    cell = record.cells["points"]
    series = []
    for label, name in enumerate(("y = −1", "y = 1")):
        own = [point for point, of in zip(cell["features"], cell["labels"], strict=True) if of == label]
        x, y = (tuple(point[axis] for point in own) for axis in (0, 1))
        series.append(Series(name, x, y, style="points", group=name))
    n, agree = cell["n"], cell["agree"]
    reading = (
        f"{n:,} points. The line x₁ = 0 parts the classes; x₂ = 0 leaves {n - agree[1]:,} points on the wrong side. "
        "These are the rare points that figure 5 takes for its robust set."
    )
    figure = Figure("Samples", reading, "x₁", "x₂", tuple(series), (Mark("", x=0.0), Mark("", y=0.0)))
    rows = (
        ("sign(x₁)", "ln 2 = 0.693 nats = 1 bit", "100%", proportion(agree[0], n)),
        ("sign(x₂)", "0.368 nats = 0.531 bits", "90%", proportion(agree[1], n)),
    )
    columns = ("feature", "tells about the label", "is the label's by the formula", "in the samples")
    table = Table("How often a feature's sign is the label's", "Signs are taken as y.", columns, rows)
    return Section(title, question, (figure, table))
