"""Random labels: when memory begins, what the claims say of made-up records, and the whole way on digits."""

import pytest

from isthmus.data.loading import load
from isthmus.studies import catalogue
from isthmus.studies.ceb.random_labels import NEVER, findings, onset
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study
from isthmus.training.run import Run

NAME = "ceb/random-labels"


def record(memorised, seeds=3, epochs=60, first=41):
    """Cells in which (kind, ρ) is right on a share of 2,000 images, above chance from an epoch on."""
    models = [("determ", None), *((kind, rho) for kind in ("vib", "ceb") for rho in (0.0, 3.0, 7.0))]
    cells = {}
    for seed in range(seeds):
        for kind, rho in models:
            share = memorised(kind, rho)
            course = [share if epoch >= first else 0.1 for epoch in range(1, epochs + 1)]
            cells[f"{kind} {rho} {seed}"] = {
                "objective": kind,
                "knob": rho,
                "seed": seed,
                "n": 2000,
                "right": round(2000 * share),
                "chance": 0.105,
                "epochs": course,
                "onset": onset(course, 2000, 0.105),
                "test_accuracy": 0.1,
            }
    config = catalogue.find(NAME).Config(rhos=(0, 3, 7)).plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def as_printed(kind, rho):
    return 0.1 if rho is not None and rho < NEVER else 0.9


def verdicts(found):
    return [each.verdict for each in findings(found)]


def test_as_printed_everything_is_seen():
    assert verdicts(record(as_printed)) == [Verdict.SUPPORTED] * 4


def test_bottlenecks_that_memorise_refute():
    assert verdicts(record(lambda kind, rho: 0.9)) == [Verdict.SUPPORTED] * 2 + [Verdict.CONTRADICTED] * 2


def test_one_leaking_rho_is_enough():
    found = verdicts(record(lambda kind, rho: 0.5 if (kind, rho) == ("vib", 3.0) else as_printed(kind, rho)))
    assert found[2:] == [Verdict.SUPPORTED, Verdict.CONTRADICTED]


def test_networks_that_learn_nothing_refute_and_leave_the_onset_open():
    assert verdicts(record(lambda kind, rho: 0.1))[:2] == [Verdict.CONTRADICTED, Verdict.UNDECIDED]


def test_an_early_onset_is_not_the_papers():
    assert verdicts(record(as_printed, first=5))[1] == Verdict.CONTRADICTED


def test_one_seed_decides_nothing():
    assert set(verdicts(record(as_printed, seeds=1))) == {Verdict.UNDECIDED}


def test_without_cells_nothing_is_claimed():
    empty = record(as_printed).model_copy(update={"cells": {}})
    assert verdicts(empty) == [Verdict.UNDECIDED]
    assert catalogue.find(NAME).section(empty).blocks == ()


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([0.1] * 20, None),
        ([0.1] * 10 + [0.2] * 10, 11),
        ([0.1, 0.11, 0.1, 0.9], 4),  # 0.11 of 1,000 may be chance
    ],
)
def test_onset_is_the_first_epoch_surely_above_chance(course, expected):
    assert onset(course, 1000, 0.105) == expected


def test_the_whole_way_on_digits(tmp_path):
    measured, html = run_study(NAME, "tiny", {"seeds": 1, "training.epochs": 40}, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    plain = next(measured.each(objective="determ"))
    assert plain["right"] > 0.9 * plain["n"]
    assert plain["onset"] is not None
    (tight,) = measured.each(objective="ceb", knob=0.0)
    assert tight["right"] < 0.3 * tight["n"]
    run = Run(next((tmp_path / "models").glob("digits-determ-*")))
    data = load(run.recipe.data)
    assert plain["chance"] == float(data.train.labels.bincount().max()) / len(data.train)
    assert "random labels" in html.read_text("utf-8")
