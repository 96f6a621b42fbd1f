"""The page of the calibration study: a reliability diagram for each model, overconfidence and error over steps."""

from __future__ import annotations

from isthmus.core.types import Figure, Mark, Section, Table
from isthmus.metrics import Bin
from isthmus.report.sections.common import bin_series
from isthmus.studies import catalogue
from isthmus.studies.ceb import calibration_claims
from isthmus.studies.ceb.calibration_claims import judged, kept_steps, measured, models
from isthmus.studies.ceb.printed_detection import Model
from isthmus.studies.ceb.sweeps import cells_at, named
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import percent, points, share
from isthmus.studies.old.study import StudyRecord

TITLES = {"overconfidence": "Mean confidence less accuracy", "ece": "Expected calibration error"}


def section(record: StudyRecord) -> Section:
    """A diagram a model, two courses, and the table."""
    blocks: tuple[Figure | Table, ...] = ()
    if models(record):
        diagrams = [_diagram(record, model) for model in models(record)]
        blocks = (*diagrams, *(_course(record, name) for name in TITLES), _table(record))
    return Section("Figure 5: calibration while training", catalogue.question(record.study), blocks)


def _diagram(record: StudyRecord, model: Model) -> Figure:
    series, said = [], []
    for step in kept_steps(record):
        first = judged(record, model, step)[:1]  # bins of several seeds have different confidences
        bins = [Bin.model_validate(each) for seed in first for each in seed["bins"]]
        series.append(bin_series(f"{step:,} steps", bins))
        error = measured(record, model, step, "ece")
        said += [] if error is None else [f"{percent(error.value)} after {step:,} steps"]
    seed = cells_at(record, *model)[0]["seed"]
    return Figure(
        title=calibration_claims.at_the_beginning(model),
        reading=f"Expected calibration error: {', '.join(said)}. Points of seed {seed}, with 90% intervals; above the "
        "diagonal the model is underconfident.",
        x_label="mean confidence of the bin",
        y_label="accuracy in the bin",
        series=tuple(series),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        identity=True,
    )


def _course(record: StudyRecord, name: str) -> Figure:
    steps, series, said = kept_steps(record), [], []
    for model in models(record):
        values = [(step, each) for step in steps if (each := measured(record, model, step, name)) is not None]
        series.append(band(named(*model), [float(step) for step, _ in values], [each for _, each in values]))
        said += [f"{points(values[-1][1].value)} for {named(*model)}"] if values else []
    marks = (Mark("calibrated", y=0.0),) if name == "overconfidence" else ()
    return Figure(
        title=TITLES[name],
        reading=f"After {steps[-1]:,} steps: {'; '.join(said)}. Means over seeds.",
        x_label="step",
        y_label="fraction",
        series=tuple(series),
        marks=marks,
    )


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    for model in models(record):
        cells = cells_at(record, *model)
        for step in kept_steps(record):
            found = judged(record, model, step)
            right = share([each["right"] for each in found], cells[0]["n"])
            values = [each for name in TITLES if (each := measured(record, model, step, name)) is not None]
            scores = [sum(each[name][0] for each in found) / len(found) for name in ("nll", "brier")]
            metrics = [each.metric for each in values]
            lines.append((named(*model), f"{step:,}", len(found), right.metric, *metrics, *scores))
    return Table(
        title="Accuracy and calibration over steps",
        reading="Means over seeds, in mean mode. NLL in nats.",
        columns=("model", "step", "seeds", "accuracy", *TITLES.values(), "NLL", "Brier"),
        rows=tuple(lines),
    )
