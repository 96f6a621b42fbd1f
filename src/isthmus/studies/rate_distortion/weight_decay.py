"""The choice of λ: the smallest weight decay with which random labels are not fitted (section 4.3).

The paper's λ of about 1e-2 belongs to its 73,257 images and 500 epochs; fewer images and steps need another one.
Model B is therefore trained on random labels with each candidate in ascending order, exactly as the study trains it,
until its training accuracy is no better than that of the best constant prediction. These runs have a seed that no model
of the study has: the choice does not depend on the runs that it affects.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from isthmus.core.display import Table
from isthmus.core.errors import ConfigError
from isthmus.core.types import Coordinate
from isthmus.studies.estimates import percent, points
from isthmus.studies.measured import Measured
from isthmus.studies.rate_distortion.configs import Model, TableConfig
from isthmus.studies.store import Experiment
from isthmus.studies.study import StudyRecord

ABOVE_CHANCE = 0.02
"""Training accuracy may exceed that of the best constant prediction by this much and still count as chance."""
MEMORISED = 0.5
"""A training accuracy on random labels above which they count as memorised; the paper has 85% and 90% for model A."""
ACCURACY, CONSTANT = "choice_accuracy", "choice_constant_accuracy"
"""Metrics of these runs; claims and tables about the models select others."""

ConfigT = TypeVar("ConfigT", bound=TableConfig)
Train = Callable[[dict[str, Any], dict[str, Coordinate]], dict[str, Any]]
Choice = Generator[Sequence[Experiment], Sequence[Mapping[str, Any]], ConfigT]


def chosen(config: ConfigT, train: Train) -> Choice[ConfigT]:
    """Stages of a study that choose λ; returns the config with the chosen λ.

    ``config = yield from chosen(config, train)``. Nothing is trained if λ is set, or no model has weight decay.

    Args:
        config: the options of the study.
        train: trains the model of a recipe and returns its two accuracies, with the given coordinates.

    Raises:
        ConfigError: model A does not memorise random labels, so that runs this short cannot distinguish candidates; no
            candidate suffices; or a run failed.
    """
    if config.weight_decay is not None or set(config.models) == {"A"}:
        return config
    for candidate in (0.0, *sorted(config.weight_decays)):
        experiments = [_experiment(config, train, candidate, batch) for batch in config.batch_sizes]
        found = [_Run(Measured.from_plain(each)) for each in (yield experiments)]
        if len(found) < len(experiments):
            raise ConfigError(f"A run on random labels with λ = {candidate:g} failed, so no λ can be chosen; {_SET}")
        if not candidate:
            _check_long_enough(config, found)
        elif not any(run.fits for run in found):
            return config.model_copy(update={"weight_decay": candidate})
    tried = ", ".join(f"{each:g}" for each in sorted(config.weight_decays))
    raise ConfigError(
        f"No weight decay among {tried} keeps model B from fitting random labels: with the largest its training "
        f"accuracy is {_accuracies(found)}. Give larger ones in weight_decays, or train longer (training.epochs); "
        f"{_SET}"
    )


_SET = "weight_decay=0.01, for instance, takes that value without a choice."


class _Run:
    """One of these runs, from its experiment."""

    def __init__(self, measured: Measured) -> None:
        rows = {row.name: row for row in measured.metrics}
        self.coords, self.n = rows[ACCURACY].coords, rows[ACCURACY].n
        self.accuracy, self.constant = float(rows[ACCURACY].value or 0), float(rows[CONSTANT].value or 0)

    @property
    def fits(self) -> bool:
        """Whether random labels are fitted better than by the best constant prediction."""
        return self.accuracy > self.constant + ABOVE_CHANCE


def _check_long_enough(config: TableConfig, found: Sequence[_Run]) -> None:
    if all(run.accuracy > MEMORISED for run in found):
        return
    raise ConfigError(
        f"Without weight decay the training accuracy on random labels is {_accuracies(found)} after "
        f"{config.training.get('epochs')} epochs; above {percent(MEMORISED)} at each batch size is needed, or any λ "
        f"would seem to prevent fitting. Train longer (training.epochs) or faster; {_SET}"
    )


def _accuracies(found: Sequence[_Run]) -> str:
    return " and ".join(f"{percent(run.accuracy)} (batches of {run.coords['batch_size']})" for run in found)


def _experiment(config: TableConfig, train: Train, candidate: float, batch: int) -> Experiment:
    model: Model = "B" if candidate else "A"
    seed = config.seeds
    recipe = config.model_copy(update={"weight_decay": candidate or None}).recipe(model, batch, "random", seed)

    def measure() -> dict[str, Any]:
        return train(recipe, {"weight_decay": candidate, "batch_size": batch, "seed": seed})

    return Experiment(f"choice of λ, {candidate:g}, batch {batch}", {"recipe": recipe, "measured": "choice"}, measure)


def table(record: StudyRecord, _: TableConfig) -> list[Table]:
    """The block of a page that shows how λ was chosen; none if it was not."""
    found = [each for each in record.experiments.values() if any(row.name == ACCURACY for row in each.metrics)]
    runs = [_Run(each) for each in found]
    if not runs:
        return []
    lines = [
        (
            f"{run.coords['weight_decay']:g}",
            f"{run.coords['batch_size']}",
            percent(run.accuracy),
            percent(run.constant),
            f"{run.n:,}",
            "yes" if run.fits else "no",
        )
        for run in runs
    ]
    last = runs[-1].coords["weight_decay"]
    stopped = [run for run in runs if run.coords["weight_decay"] == last]
    outcome = "none was found" if not last or any(run.fits for run in stopped) else f"λ = {last:g}"
    reading = (
        f"The smallest λ with which model B does not fit random labels, at every batch size: {outcome}. Fitted: more "
        f"accurate on them than the best constant prediction by over {points(ABOVE_CHANCE)}. λ = 0 is model A, which "
        f"must memorise them. One run each, with seed {runs[0].coords['seed']}, which no model of the study has. The "
        "paper's λ, chosen likewise on SVHN, is about 0.01."
    )
    columns = ("λ", "batch size", "training accuracy", "best constant prediction", "images", "fitted")
    return [Table("How the weight decay was chosen", reading, columns, tuple(lines))]
