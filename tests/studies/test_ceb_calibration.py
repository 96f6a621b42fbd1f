"""Calibration while training: what the claims say of made-up records, and the whole way on digits."""

import pytest

from isthmus.core.errors import ConfigError
from isthmus.studies import catalogue
from isthmus.studies.ceb.calibration_claims import findings
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study

NAME = "ceb/calibration"
STEPS = (2000, 20_000, 40_000)
MODELS = (("determ", None), ("ceb", 0.0), ("vib", 0.0), ("vib", 2.0))
AS_PRINTED = {
    ("determ", None): (-0.05, 0.03, 0.07),
    ("ceb", 0.0): (-0.10, -0.01, 0.01),
    ("vib", 0.0): (-0.10, -0.01, 0.01),
    ("vib", 2.0): (-0.06, 0.02, 0.06),
}


def record(courses, seeds=3):
    """Cells whose overconfidence after each step is as given, whose error is its size."""
    cells = {}
    for seed in range(seeds):
        for model, course in courses.items():
            steps = [
                {
                    "step": step,
                    "right": 9000,
                    "bins": [{"low": 0.9, "high": 0.95, "n": 10_000, "confidence": 0.9 + gap, "accuracy": 0.9}],
                    "overconfidence": [gap, gap - 0.003, gap + 0.003],
                    "ece": [abs(gap), abs(gap) - 0.003, abs(gap) + 0.003],
                    "nll": [0.3, 0.29, 0.31],
                    "brier": [0.1, 0.09, 0.11],
                }
                for step, gap in zip(STEPS, course, strict=True)
            ]
            facts = {"objective": model[0], "knob": model[1], "seed": seed, "n": 10_000, "collapsed": False}
            cells[f"{model} {seed}"] = {**facts, "steps": steps}
    config = catalogue.find(NAME).Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def test_as_printed_everything_is_seen():
    assert {each.verdict for each in findings(record(AS_PRINTED))} == {Verdict.SUPPORTED}


def test_one_seed_decides_nothing():
    assert {each.verdict for each in findings(record(AS_PRINTED, seeds=1))} == {Verdict.UNDECIDED}


@pytest.mark.parametrize(
    ("model", "course", "refuted"),
    [
        (("ceb", 0.0), (-0.1, -0.01, 0.2), "less overconfident"),
        (("ceb", 0.0), (-0.1, -0.2, 0.01), "midway"),
        (("ceb", 0.0), (0.1, 0.01, 0.01), "moves"),
        (("vib", 2.0), (-0.06, 0.02, 0.015), "nearly as overconfident"),
    ],
)
def test_other_courses_refute(model, course, refuted):
    found = findings(record(AS_PRINTED | {model: course}))
    against = [each.claim for each in found if each.verdict != Verdict.SUPPORTED]
    assert any(refuted in claim for claim in against)
    assert len(against) <= 2


def test_a_model_that_is_not_there_leaves_its_claims_open():
    courses = {model: course for model, course in AS_PRINTED.items() if model != ("determ", None)}
    found = {each.claim: each.verdict for each in findings(record(courses))}
    assert [found[claim] for claim in found if "deterministic" in claim] == [Verdict.UNDECIDED] * 3


def test_without_cells_nothing_is_claimed():
    empty = record({})
    assert [each.verdict for each in findings(empty)] == [Verdict.UNDECIDED]
    assert catalogue.find(NAME).section(empty).blocks == ()


def test_the_page_has_a_diagram_for_each_model():
    section = catalogue.find(NAME).section(record(AS_PRINTED))
    assert [block.title for block in section.blocks[:4]] == [
        "CEB, ρ = 0",
        "VIB, ρ = 0",
        "VIB, ρ = 2",
        "The deterministic network",
    ]
    assert all(len(block.series) == len(STEPS) for block in section.blocks[:4])
    assert len(section.blocks[-1].rows) == len(STEPS) * len(MODELS)


def test_the_whole_way_on_digits(tmp_path):
    settings = {"bottlenecks": [("vib", 2.0)], "training.epochs": 2, "training.snapshots": (3, 20)}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    for cell in measured.cells.values():
        assert [each["step"] for each in cell["steps"]] == [3, 20]
        assert all(sum(b["n"] for b in each["bins"]) == cell["n"] for each in cell["steps"])
        first, last = (each["right"] for each in cell["steps"])
        assert last > first
    assert "Expected calibration error" in html.read_text("utf-8")


def test_without_steps_there_is_nothing_to_judge(tmp_path):
    with pytest.raises(ConfigError, match="snapshots"):
        run_study(NAME, "tiny", {"training.snapshots": ()}, tmp_path, show_progress=False)
