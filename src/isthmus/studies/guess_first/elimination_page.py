"""The page of figure 2: projections, MMD² and a probe under each hypothesis, and a table of sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from isthmus.core.types import Figure, Interval, Mark, Metric, Series, Table
from isthmus.studies.guess_first.elimination_claims import Model, at, cells, log_fisher, told, total
from isthmus.studies.guess_first.readings import NotMeasured
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import Estimate, percent, share
from isthmus.studies.old.study import StudyRecord

Quantity = Callable[[Sequence[Model], int], Estimate]


def blocks(record: StudyRecord) -> tuple[Figure | Table, ...]:
    """Nothing before a model is there that did not collapse."""
    found = {name: list(cells(record, name).values()) for name in record.config["models"]}
    found = {name: each for name, each in found.items() if each}
    if not found:
        return ()
    chance = next(iter(found.values()))[0]["chance"]
    return (
        *(_projection(record, name, each[0]) for name, each in found.items()),
        _under_each(found, "MMD² under each hypothesis, unbiased", "MMD²", at, ()),
        _under_each(
            found,
            "What a linear probe tells of the true label",
            "fraction right",
            lambda each, under: share([cell["told"][under] for cell in each], each[0]["n"]),
            (Mark("chance", y=chance),),
        ),
        _table(found),
        *_fisher(found),
    )


def _projection(record: StudyRecord, name: str, cell: Model) -> Figure:
    under = record.config["hypothesis"]
    series = []
    for label, own in ((f"label is {under}", True), ("other labels", False)):
        places = [(x, y) for x, y, matched in cell["points"] if matched == own]
        if places:
            x, y = zip(*places, strict=True)
            series.append(Series(label, x, y, style="points", group=label))
    first, second = cell["explained"]
    return Figure(
        title=f"{name}, hypothesis {under}",
        reading=f"{len(cell['points']):,} test images, seed {cell['seed']}. The components hold {percent(first)} and "
        f"{percent(second)} of the variance. MMD² under this hypothesis is {cell['biased'][under]:.3f} biased "
        f"({cell['permuted'][under]:.3f} with labels shuffled) and {_number(cell['unbiased'][under])} unbiased.",
        x_label="first principal component",
        y_label="second principal component",
        series=tuple(series),
    )


def _under_each(
    found: dict[str, list[Model]], title: str, unit: str, quantity: Quantity, marks: tuple[Mark, ...]
) -> Figure:
    series, said = [], []
    for name, each in found.items():
        hypotheses = range(len(each[0]["told"]))
        values = [quantity(each, under) for under in hypotheses]
        line = band(name, [float(under) for under in hypotheses], values)
        series.append(Series(name, line.x, line.y, line.low, line.high, style="points", group=name))
        said.append(f"{name} {_number(fmean(value.value for value in values))}")
    reading = f"Means over hypotheses: {', '.join(said)}."
    return Figure(title, reading, "hypothesis", unit, tuple(series), marks)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _fisher(found: dict[str, list[Model]]) -> tuple[Table, ...]:
    """Nothing for a record from before it was measured."""
    try:
        rows: list[Row] = [
            (name, len(each), *(log_fisher(each, part).metric for part in ("trace", "largest")))
            for name, each in found.items()
        ]
    except NotMeasured:
        return ()
    reading = (
        "J(x) is the Fisher information of p(y|x) about the image, in nats per squared unit of ℓ2 distance between "
        "images in [0, 1]: a small perturbation of size δ in direction u moves the prediction by a KL divergence of "
        "½δ²·uᵀJu (appendix D). Logarithms, as lemma D.1 bounds ½·E[ln J] by the mutual information. A model that is "
        "sure of its answers has little of it, and may be turned by larger steps all the same."
    )
    columns = ("model", "seeds", "ln of the trace, mean over images", "ln of the largest eigenvalue, mean over images")
    return (Table("Fisher information of the prediction about the image", reading, columns, tuple(rows)),)


def _table(found: dict[str, list[Model]]) -> Table:
    lines: list[Row] = []
    for name, each in found.items():
        n, sums = each[0]["n"], total(each)
        low_high = Interval(low=sums.low, high=sums.high, method="t over blocks of images, t over seeds")
        own = [round(fmean(right / max(of, 1) for right, of in cell["own"]) * n) for cell in each]
        lines.append(
            (
                name,
                len(each),
                share([round(cell["test_accuracy"] * cell["tested"]) for cell in each], each[0]["tested"]).metric,
                Metric(value=sums.value, unit="MMD²", n=n, interval=low_high),
                *(
                    Metric(value=fmean(sum(cell[kind]) for cell in each), unit="MMD²", n=n)
                    for kind in ("biased", "permuted")
                ),
                share(told(each), n).metric,
                percent(fmean(own) / n),
            )
        )
    return Table(
        title="Sums and means over hypotheses",
        reading="MMD² is between images of the hypothesis's class and the rest, with a Gaussian kernel as wide as the "
        "median distance; unbiased, biased, and biased with labels shuffled: what it comes to where nothing is left. "
        "The probe is a logistic regression, fitted on one half of the images and judged on the other.",
        columns=(
            "model",
            "seeds",
            "clean",
            "Σ MMD², unbiased",
            "Σ MMD², biased",
            "biased, shuffled",
            "probe tells the label",
            "own images recognised",
        ),
        rows=tuple(lines),
    )
