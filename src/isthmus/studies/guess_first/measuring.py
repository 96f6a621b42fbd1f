"""The cells of the tables and of figure 3, which share models and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.studies.guess_first import black_box, strong, white_box
from isthmus.studies.guess_first.protocol import SIGMOID, CurvesConfig, TableConfig
from isthmus.studies.guess_first.workshop import Workshop
from isthmus.studies.store import ResultStore, Stages


def curves(config: CurvesConfig, bench: ResultStore) -> Stages:
    """Every model trained and attacked in the open; then all models on their seed's substitute."""
    workshop = Workshop(config, bench)
    trained = yield _white(config, workshop)
    yield _black(config, workshop, trained)


def table(config: TableConfig, bench: ResultStore) -> Stages:
    """The same, and beside the black-box attacks the ensemble and the verdict."""
    workshop = Workshop(config, bench)
    trained = yield _white(config, workshop)
    there = [(cell["model"], cell["seed"]) for cell in trained]
    # one cell of a model far from the other, so that two processes do not load what the other one is at
    yield [
        *_black(config, workshop, trained),
        *(strong.ensemble(config, workshop, *each) for each in there),
        *(strong.verdict(config, workshop, *each) for each in there),
    ]


def _white(config: CurvesConfig, workshop: Workshop) -> list[Any]:
    order = [(name, seed) for seed in range(config.seeds) for name in config.models]
    return [white_box.cell(config, workshop, *each) for each in order]


def _black(config: CurvesConfig, workshop: Workshop, trained: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A cell for each seed, of the models that could be trained."""
    by_seed: dict[int, list[str]] = {}
    for cell in trained:
        if cell["model"] in SIGMOID:  # no other predictions than without
            continue
        by_seed.setdefault(cell["seed"], []).append(cell["model"])
    return [black_box.cell(config, workshop, names, seed) for seed, names in by_seed.items()]
