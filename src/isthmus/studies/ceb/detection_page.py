"""The page of the detection study: ours beside the printed table, the rows that cannot be, all scores."""

from __future__ import annotations

from isthmus.checks.ood_scores import SCORES
from isthmus.core.types import Figure, Section, Table
from isthmus.studies import catalogue
from isthmus.studies.ceb.detection_claims import measured, outs, scored, spoken, success
from isthmus.studies.ceb.printed_detection import DETERM, IMPOSSIBLE, TABLE_1, Model, row
from isthmus.studies.ceb.sweeps import named
from isthmus.studies.old.drawing import Row, Value
from isthmus.studies.old.evidence import percent
from isthmus.studies.old.study import StudyRecord

METRICS = ("fpr95_in", "auroc", "aupr_in")


def section(record: StudyRecord) -> Section:
    """Three tables."""
    blocks: tuple[Figure | Table, ...] = (_table(record), _every_score(record)) if _models(record) else ()
    title = "Table 1: out-of-distribution detection on Fashion-MNIST"
    return Section(title, catalogue.question(record.study), (*blocks, _impossible()) if blocks else ())


def _models(record: StudyRecord) -> list[Model]:
    found = {(cell["objective"], cell["knob"]) for cell in record.cells.values()}
    printed = list(dict.fromkeys(each.model for each in TABLE_1))
    others = sorted(found - set(printed), key=lambda model: (model[0], model[1] or 0.0))
    return [model for model in (*printed, *others) if model in found]


def _score(model: Model) -> str:
    return "entropy" if model == DETERM else "rate"


def _table(record: StudyRecord) -> Table:
    lines: list[Row] = []
    on_fashion = record.config["data"] == "fashion_mnist"
    for out in outs(record):
        for model in _models(record):
            score = _score(model)
            found = [measured(record, model, out, score, metric) for metric in METRICS]
            head = (spoken(out), named(*model), score_name(score))
            values = [None if each is None else each.metric for each in found]
            lines.append((*head, "ours", *values, _success(record, model, out)))
            printed = row(out, model) if on_fashion else None
            if printed is not None:
                numbers = (printed.fpr95_in, printed.auroc, printed.aupr_in, printed.success)
                said: list[Value] = ["" if each is None else percent(each) for each in numbers]
                lines.append((*head, "printed" if printed.possible else "printed, impossible", *said))
    return Table(
        title="Detection, ours and printed",
        reading="Test images are in-distribution and positive: the false positive rate is the share of foreign images "
        "that pass where 95% of the test images do. Means over seeds. C&W is sought for some of the test images that "
        "are right; where it succeeds depends on how long it may seek.",
        columns=("images", "model", "score", "numbers", "FPR at 95% TPR", "AUROC", "AUPR In", "attack success"),
        rows=tuple(lines),
    )


def _success(record: StudyRecord, model: Model, out: str) -> Value:
    """Nothing where no attack made the images."""
    attacked = success(record, model, out)
    if attacked is not None:
        return attacked.metric
    return None if any(cell["success"] for cell in record.each(out=out)) else ""


def _every_score(record: StudyRecord) -> Table:
    lines: list[Row] = []
    where = outs(record)
    for model in _models(record):
        scores = list(
            dict.fromkeys(score for out in where for cell in scored(record, model, out) for score in cell["scores"])
        )
        for score in scores:
            found = [measured(record, model, out, score, "auroc") for out in where]
            lines.append((named(*model), score_name(score), *(None if each is None else each.metric for each in found)))
    return Table(
        title="AUROC by every score that a model has",
        reading="Larger scores are for what is more foreign; 50% is chance, and below it foreign images look more "
        "familiar than the test images. The paper shows entropy for the deterministic network and the rate for others.",
        columns=("model", "score", *(spoken(out) for out in where)),
        rows=tuple(lines),
    )


def _impossible() -> Table:
    lines: list[Row] = [
        (spoken(each.out), named(*each.model), percent(each.fpr95_in), percent(each.auroc), percent(each.least_auroc))
        for each in IMPOSSIBLE
    ]
    return Table(
        title="Printed rows that cannot be",
        reading="Where 95% of the positives pass, only the printed share of the others does, and the ROC curve rises: "
        "the area under it is at least 0.95 times the rest. No scores have these pairs of numbers, whichever class is "
        "the positive one.",
        columns=("images", "model", "FPR at 95% TPR", "AUROC as printed", "AUROC at least"),
        rows=tuple(lines),
    )


def score_name(score: str) -> str:
    """A score for readers: "stochastic_entropy" as "entropy, stochastic"."""
    plain = score.removeprefix("stochastic_")
    return SCORES[plain] if plain == score else f"{SCORES[plain]}, stochastic"
