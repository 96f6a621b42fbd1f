"""Figure 7 of the rate-distortion paper: what the claims say of made-up records, and the whole way on digits."""

import pytest

from isthmus.core.types import Figure
from isthmus.studies import catalogue
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.figure_7 import Config
from isthmus.studies.running import run_study

NAME = "rate-distortion/figure-7"
PRINTED = {
    "zero_shot_accuracy": 0.726, "zero_shot_margin": 0.726, "zero_shot_overconfidence": 0.0,
    "zero_shot_margin_error": 0.04, "one_shot_accuracy": 0.776, "one_shot_gain": 0.05, "one_shot_margin": 0.73,
    "one_shot_overconfidence": -0.046, "one_shot_margin_error": 0.05,
}  # fmt: skip


def record(models=("A", "B"), seeds=3, bins=None, **changed):
    """Cells with the printed numbers (a margin's error is not printed), or with others."""
    cells = {}
    for model in models:
        for seed in range(seeds):
            numbers = {
                name: [value + 0.001 * seed, value - 0.005, value + 0.007]
                for name, value in (PRINTED | changed).items()
            }
            cells[f"{model} {seed}"] = {
                "model": model, "seed": seed, "target": "mnist", "n": 10_000, "classes": 10, "metrics": numbers,
                "bins": bins or {}, "test_accuracy": 0.9,
            }  # fmt: skip
    config = Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def verdicts(**options):
    return [each.verdict for each in catalogue.find(NAME).findings(record(**options))]


def test_as_printed_everything_is_seen():
    assert verdicts() == [Verdict.SUPPORTED] * 5


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"zero_shot_accuracy": 0.3}, [0]),
        ({"one_shot_gain": -0.05}, [1]),
        ({"zero_shot_overconfidence": 0.2}, [2]),
        ({"one_shot_margin_error": 0.3}, [3]),
        ({"one_shot_overconfidence": 0.1}, [4]),
    ],
)
def test_other_numbers_refute(changed, at):
    assert [place for place, verdict in enumerate(verdicts(**changed)) if verdict == Verdict.CONTRADICTED] == at


def test_one_seed_and_what_was_not_measured_decide_nothing():
    assert set(verdicts(seeds=1)) == {Verdict.UNDECIDED}
    assert verdicts(models=()) == [Verdict.UNDECIDED]
    without = record()
    for cell in without.cells.values():
        for name in [name for name in cell["metrics"] if name.startswith("one_shot")]:
            del cell["metrics"][name]
    found = [each.verdict for each in catalogue.find(NAME).findings(without)]
    assert [found[place] for place in (1, 4)] == [Verdict.UNDECIDED] * 2
    assert found[0] == Verdict.SUPPORTED


def test_an_accuracy_has_no_interval_below_nothing():
    first = catalogue.find(NAME).findings(record(seeds=2, zero_shot_accuracy=0.001))[0]
    assert "−" not in first.reason


def test_the_page_draws_a_histogram_a_model_and_one_figure_of_accuracies():
    section = catalogue.find(NAME).section(record(bins={"zero_shot": [], "one_shot": []}))
    assert sum(isinstance(block, Figure) for block in section.blocks) == 6
    assert catalogue.find(NAME).section(record(models=())).blocks == ()


@pytest.mark.parametrize("whitened", [False, True])
def test_the_whole_way_on_digits(tmp_path, whitened):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "draws": 1, "whitened": whitened}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    (cell,) = measured.cells.values()
    accuracy = cell["metrics"]["zero_shot_accuracy"]
    if whitened:  # the data it was trained for, by the way it was trained
        assert accuracy[0] == pytest.approx(cell["test_accuracy"], abs=0.06)
    assert sum(each["n"] for each in cell["bins"]["zero_shot"]) == cell["n"] == 100
    assert "figure 7: transfer" in html.read_text("utf-8").lower()
