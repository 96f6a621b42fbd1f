"""The choice of λ: the smallest weight decay with which random labels are not fitted (section 4.3).

The paper's λ of about 1e-2 belongs to its 73,257 images and 500 epochs; fewer images and steps need another one.
Model B is therefore trained on random labels with each candidate in turn, in ascending order and exactly as the study
trains it, until its training accuracy is no better than that of the best constant answer. No model of the study has the
seed of these runs: the choice is not made on the runs that are judged by it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from isthmus.core.errors import ConfigError
from isthmus.core.types import Section, Table
from isthmus.studies.old.drawing import Row
from isthmus.studies.old.evidence import percent, points
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.printed import Model
from isthmus.studies.rate_distortion.protocol import TableConfig
from isthmus.studies.store import Experiment, ResultStore

ABOVE_CHANCE = 0.02
"""Training accuracy may exceed that of the best constant answer by so much and still count as chance."""
MEMORISED = 0.5
"""A training accuracy on random labels from which on they are memorised; printed are 85% and 90% for model A."""

ConfigT = TypeVar("ConfigT", bound=TableConfig)
Choice = Generator[Sequence[Experiment], Sequence[Mapping[str, Any]], ConfigT]


def chosen(config: ConfigT, bench: ResultStore) -> Choice[ConfigT]:
    """Stages of a study that choose λ; gives the config with the λ that was chosen.

    ``config = yield from chosen(config, bench)``. Nothing is trained where λ is set, or no model has weight decay.

    Raises:
        ConfigError: model A does not memorise random labels, so that runs this short cannot tell one λ from another;
            no candidate suffices; or a run failed.
    """
    if config.weight_decay is not None or set(config.models) == {"A"}:
        return config
    for candidate in (0.0, *sorted(config.weight_decays)):
        cells = [_cell(config, bench, candidate, batch) for batch in config.batch_sizes]
        found = yield cells
        if len(found) < len(cells):
            raise ConfigError(
                f"A run on random labels with λ = {candidate:g} failed, so that no λ can be chosen; {_SET}"
            )
        if not candidate:
            _check_long_enough(config, found)
        elif not any(map(fits, found)):
            return config.model_copy(update={"weight_decay": candidate})
    tried = ", ".join(f"{each:g}" for each in sorted(config.weight_decays))
    raise ConfigError(
        f"No weight decay among {tried} keeps model B from fitting random labels: with the largest it is right on "
        f"{_rightness(found)}. Give larger ones in weight_decays, or train longer (training.epochs); {_SET}"
    )


_SET = "weight_decay=0.01, for instance, takes that value without a choice."


def _check_long_enough(config: TableConfig, found: Sequence[Mapping[str, Any]]) -> None:
    if all(_share(cell) > MEMORISED for cell in found):
        return
    raise ConfigError(
        f"Without weight decay the network is right on {_rightness(found)} of its random labels after "
        f"{config.training.get('epochs')} epochs; above {percent(MEMORISED)} at each batch size is needed, or any λ "
        f"would seem to keep it from fitting them. Train longer (training.epochs) or faster; {_SET}"
    )


def fits(cell: Mapping[str, Any]) -> bool:
    """Whether random labels are fitted better than chance.

    Chance is the best constant answer, which for few images is well above one over the number of classes.
    """
    return _share(cell) > float(cell["constant"]) / float(cell["train"][1]) + ABOVE_CHANCE


def _share(cell: Mapping[str, Any]) -> float:
    right, of = cell["train"]
    return float(right) / float(of)


def _rightness(found: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(f"{percent(_share(cell))} (batches of {cell['batch_size']})" for cell in found)


def _cell(config: TableConfig, bench: ResultStore, candidate: float, batch: int) -> Experiment:
    """As a cell of table 2, with ``"choice": True``."""
    seed = config.seeds
    model: Model = "B" if candidate else "A"
    recipe = config.model_copy(update={"weight_decay": candidate or None}).recipe(model, batch, "random", seed)

    def measure() -> dict[str, Any]:
        from isthmus.studies.rate_distortion import measuring

        facts = {"choice": True, "weight_decay": candidate, "batch_size": batch, "seed": seed}
        return {**facts, **measuring.rightness(recipe, bench)}

    name = f"choice of λ, {candidate:g}, batch {batch}"
    return Experiment(name, {"recipe": recipe, "measured": "choice of λ"}, measure)


def judged(record: StudyRecord) -> StudyRecord:
    """The record without the runs that λ was chosen by: the paper's claims are about the others."""
    cells = {name: cell for name, cell in record.cells.items() if not cell.get("choice")}
    return record.model_copy(update={"cells": cells})


def beside(section: Section, record: StudyRecord) -> Section:
    """A study's section with the table of the choice, where there was one."""
    cells = list(record.each(choice=True))
    return replace(section, blocks=(*section.blocks, _table(cells))) if cells else section


def _table(cells: Sequence[Mapping[str, Any]]) -> Table:
    lines: list[Row] = []
    for cell in cells:
        constant = percent(cell["constant"] / cell["train"][1])
        said = "yes" if fits(cell) else "no"
        numbers = (percent(_share(cell)), constant, f"{cell['train'][1]:,}", said)
        lines.append((f"{cell['weight_decay']:g}", f"{cell['batch_size']}", *numbers))
    last = cells[-1]["weight_decay"]
    stopped = [cell for cell in cells if cell["weight_decay"] == last]
    outcome = "none was found" if not last or any(map(fits, stopped)) else f"λ = {last:g}"
    return Table(
        title="How the weight decay was chosen",
        reading=f"The smallest λ with which model B does not fit random labels, at every batch size: {outcome}. "
        f"Fitted means: more accurate on them than the best constant answer by over {points(ABOVE_CHANCE)}. λ = 0 is "
        f"model A, which must memorise them. One run each, with seed {cells[0]['seed']}, which no model of the study "
        "has. The paper's λ, chosen likewise on SVHN, is about 0.01.",
        columns=("λ", "batch size", "right on its random labels", "best constant answer", "images", "fitted"),
        rows=tuple(lines),
    )
