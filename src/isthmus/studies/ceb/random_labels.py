"""Does a bottleneck keep a classifier from memorising labels that say nothing of their images?

Section 3.1.5 of Fischer 2020, after Zhang et al. 2017: Fashion-MNIST, each training image with a label drawn once, at
random. I(X;Y) is 0 there, so that whatever a model gets right is memorised. CEB and VIB over ρ, beside a deterministic
network; accuracy on the training set, epoch by epoch, and the epoch from which it is above chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from isthmus.core.types import Figure, Mark, Section, Series, Table
from isthmus.metrics import wilson
from isthmus.studies import catalogue
from isthmus.studies.ceb import fashion
from isthmus.studies.ceb.sweeps import FAMILIES, SweepConfig, named
from isthmus.studies.old.drawing import Row, band
from isthmus.studies.old.evidence import (
    ClaimResult,
    Estimate,
    Verdict,
    all_of,
    any_of,
    bonferroni,
    exceeds,
    falls_below,
    over_seeds,
    percent,
    share,
)
from isthmus.studies.old.image_models import Kind, title
from isthmus.studies.old.study import StudyRecord, scales
from isthmus.studies.store import Experiment, ResultStore, Stages

ONSET = 40
"""The epoch after which the paper's deterministic networks began to memorise."""
NEVER = 6.0
"""Bottlenecks with ρ below it never learned."""
MARGIN = 0.02
"""So far above chance, an accuracy on the training set counts as memorisation."""
TRAINING: dict[str, Any] = {**fashion.TRAINING, "epochs": 100}
DESCENT: dict[str, Any] = {"name": "jump_start", "share": 0.25}
"""Of ρ, in runs of a few hundred steps."""


class Config(SweepConfig):
    """As the paper says, with the sweep's model and optimiser where it is silent.

    A jump-start has a price here: what a model memorises while ρ descends, it must forget afterwards. So it takes a
    quarter of the run in the smaller presets, and a model's memory is what it is at the end.

    Attributes:
        label_seed: what the labels are drawn from; the same for all models.
    """

    seeds: Annotated[int, Field(gt=0)] = 4
    data: str = "fashion_mnist"
    model: dict[str, Any] = fashion.MODEL
    training: dict[str, Any] = TRAINING
    families: tuple[Kind, ...] = ("vib", "ceb")
    rhos: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(self, kind: Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model, on random labels."""
        plain = super().recipe(kind, knob, seed)
        data = {**plain["data"], "random_labels": self.label_seed}
        return {**plain, "name": f"{plain['name']}-random-labels", "data": data}


SCALES = scales(
    Config,
    tiny={
        "seeds": 2,
        "data": "digits",
        "train_limit": 200,
        "rhos": (0.0, 7.0),
        "model": {**fashion.MODEL, "backbone": {"name": "mlp", "hidden": [256]}, "dim": 8, "covariance": "diagonal"},
        "training": {"epochs": 60, "batch_size": 100, "optimizer": {"lr": 3e-3}},
        "rho_schedule": DESCENT,
    },
    small={
        "seeds": 2,
        "train_limit": 1000,
        "rhos": (0.0, 3.0, 5.0),
        # 800 steps of training in all: the test set is asked at the end alone
        "training": {**TRAINING, "batch_size": 128, "validate_every": 100, "channels_last": True},
        "rho_schedule": DESCENT,
    },
)


def cells(config: Config, bench: ResultStore) -> Stages:
    """A cell for every model: its accuracy on what it was trained on."""
    yield [_cell(config, bench, *model) for model in config.every()]


def _cell(config: Config, bench: ResultStore, kind: Kind, knob: float | None, seed: int) -> Experiment:
    """``{"n": training images, "right": of them in the end, "epochs": [accuracy while training], "onset", …}``."""
    recipe = config.recipe(kind, knob, seed)

    def measure() -> dict[str, Any]:
        from isthmus.data.loading import load
        from isthmus.training.evaluation import count_right

        run = bench.train(recipe)
        data = load(recipe["data"])
        epochs = [line["epoch_accuracy"] for line in run.metrics() if "epoch_accuracy" in line]
        chance = float(data.train.labels.bincount().max()) / len(data.train)
        return {
            "objective": kind,
            "knob": knob,
            "seed": seed,
            "n": len(data.train),
            "right": int(count_right(run.load(), data.train, {})),
            "chance": chance,
            "epochs": epochs,
            "onset": onset(epochs, len(data.train), chance),
            "test_accuracy": run.info()["result"]["test_accuracy"],
        }

    return Experiment(
        f"{title(kind, knob)}, seed {seed}, random labels", {"recipe": recipe, "measured": "memory"}, measure
    )


def onset(accuracies: Sequence[float], n: int, chance: float) -> int | None:
    """The first epoch, counted from 1, whose accuracy is surely above chance; None where none is.

    Each example is seen once in an epoch, before it is learned from, so that without memory every one is a fair guess.
    The level of the intervals is corrected for the number of epochs.
    """
    level = bonferroni(len(accuracies))
    above = (epoch for epoch, value in enumerate(accuracies, 1) if wilson(round(value * n), n, level).low > chance)
    return next(above, None)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """What the paper says of random labels."""
    plain = list(record.each(objective="determ"))
    if not plain or not _grid(record):
        reason = "There is no deterministic network, or no bottleneck."
        return [ClaimResult(claim="Memorising random labels.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [_plain_memorises(plain), _begins(plain), *(_never(record, kind) for kind in _kinds(record))]


def _memory(cells: Sequence[Mapping[str, Any]], level: float = 0.95) -> Estimate:
    return share([cell["right"] for cell in cells], cells[0]["n"], level)


def _plain_memorises(plain: Sequence[Mapping[str, Any]]) -> ClaimResult:
    found, limit = _memory(plain), plain[0]["chance"] + MARGIN
    return ClaimResult(
        claim="Deterministic networks memorise random labels.",
        verdict=exceeds(found, limit),
        reason=f"They are right on {found} of the training images; above {percent(limit)} counts.",
    )


def _begins(plain: Sequence[Mapping[str, Any]]) -> ClaimResult:
    onsets, epochs = [cell["onset"] for cell in plain], len(plain[0]["epochs"])
    said = ", ".join("never" if each is None else str(each) for each in onsets)
    known = [float(each) for each in onsets if each is not None]
    mean = over_seeds(known, (0.5, 0.5), len(known)) if len(known) == len(onsets) else None  # to half an epoch
    verdict = exceeds(mean, ONSET / 2) if mean else Verdict.UNDECIDED
    return ClaimResult(
        claim=f"They begin to after about {ONSET} epochs.",
        verdict=verdict if epochs > ONSET else Verdict.UNDECIDED,
        reason=f"Surely above chance from epoch {said} of {epochs}, seed by seed; a "
        f"mean later than {ONSET // 2} counts.",
    )


def _never(record: StudyRecord, kind: str) -> ClaimResult:
    low = [rho for rho in _grid(record, kind) if rho < NEVER]
    level = bonferroni(len(low))
    found = {rho: _memory(list(record.each(objective=kind, knob=rho)), level) for rho in low}
    limit = next(iter(record.each(objective=kind)))["chance"] + MARGIN
    verdict = all_of([falls_below(each, limit) for each in found.values()])
    broken = any_of([exceeds(each, limit) for each in found.values()])
    worst = max(low, key=lambda rho: found[rho].value, default=None)
    reason = (
        f"No ρ below {NEVER:g} was trained."
        if worst is None
        else f"The most is memorised at ρ = {worst:g}, {found[worst]}; above {percent(limit)} counts (corrected for "
        f"{len(low)} values of ρ)."
    )
    claim = f"{FAMILIES[kind]} with ρ < {NEVER:g} never learns random labels."
    return ClaimResult(
        claim=claim, verdict=Verdict.CONTRADICTED if broken == Verdict.SUPPORTED else verdict, reason=reason
    )


def _kinds(record: StudyRecord) -> list[str]:
    return [kind for kind in ("ceb", "vib") if _grid(record, kind)]


def _grid(record: StudyRecord, kind: str | None = None) -> list[float]:
    wanted = {} if kind is None else {"objective": kind}
    return sorted({cell["knob"] for cell in record.each(**wanted) if cell["knob"] is not None})


def section(record: StudyRecord) -> Section:
    """Accuracy over epochs, what is memorised over ρ, and a table with the onsets."""
    heading = "Random labels: what is memorised where nothing can be learned"
    question = catalogue.question(record.study)
    return Section(heading, question, (_over_epochs(record), _over_rho(record), _table(record)) if record.cells else ())


def _models(record: StudyRecord) -> list[tuple[str, float | None, str, list[Mapping[str, Any]]]]:
    models: list[tuple[str, float | None]] = [("determ", None)]
    models += [(kind, rho) for kind in _kinds(record) for rho in _grid(record, kind)]
    found = []
    for kind, knob in models:
        cells = list(record.each(objective=kind, knob=knob))
        if cells:
            found.append((kind, knob, named(kind, knob), cells))
    return found


def _over_epochs(record: StudyRecord) -> Figure:
    series, learned = [], []
    for _, _, name, cells in _models(record):
        epochs = tuple(float(epoch) for epoch in range(1, len(cells[0]["epochs"]) + 1))
        means = tuple(sum(values) / len(values) for values in zip(*(cell["epochs"] for cell in cells), strict=True))
        series.append(Series(name, epochs, means, group=name))
        learned += [name] if all(cell["onset"] for cell in cells) else []
    chance = next(iter(record.cells.values()))["chance"]
    return Figure(
        title="Accuracy on random labels while training",
        reading=f"Surely above chance by the end, with every seed: {', '.join(learned) or 'none'}. Means over seeds.",
        x_label="epoch",
        y_label="accuracy on training images",
        series=tuple(series),
        marks=(Mark("chance", y=chance), Mark(f"the paper's onset, about {ONSET}", x=float(ONSET))),
    )


def _over_rho(record: StudyRecord) -> Figure:
    series = []
    for kind in _kinds(record):
        grid = _grid(record, kind)
        series.append(
            band(FAMILIES[kind], grid, [_memory(list(record.each(objective=kind, knob=rho))) for rho in grid])
        )
    plain, everywhere = list(record.each(objective="determ")), _grid(record)
    if plain and everywhere:
        series.append(band(FAMILIES["determ"], (everywhere[0], everywhere[-1]), [_memory(plain)] * 2))
    return Figure(
        title="Memorised in the end",
        reading="Share of the training images whose random label a model gives after training, in mean mode.",
        x_label="ρ",
        y_label="accuracy on training images",
        series=tuple(series),
        marks=(Mark("chance", y=next(iter(record.cells.values()))["chance"]),),
    )


def _table(record: StudyRecord) -> Table:
    rows: list[Row] = []
    for _, _, name, cells in _models(record):
        onsets = ", ".join("never" if cell["onset"] is None else str(cell["onset"]) for cell in cells)
        tests = sum(cell["test_accuracy"] for cell in cells) / len(cells)
        rows.append((name, len(cells), _memory(cells).metric, onsets, percent(tests)))
    return Table(
        title="Memorised, and from when on",
        reading="Onset: the first epoch whose accuracy is surely above the best constant answer, seed by seed. On test "
        "images with their true labels every model should be at chance.",
        columns=("model", "seeds", "right on training images", "onset, epoch", "right on test images"),
        rows=tuple(rows),
    )
