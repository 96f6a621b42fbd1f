"""Calibration while training: claims on made-up numbers, and a run on digits."""

import pytest

from isthmus.core.errors import ConfigError
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict
from tests.studies.records import blocks, fraction, measured, record, verdicts, with_interval

CALIBRATION = "ceb/calibration"
SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
STEPS = (2000, 20_000, 40_000)
COURSES = {
    ("determ", None): (-0.05, 0.03, 0.07),
    ("ceb", 0.0): (-0.10, -0.01, 0.01),
    ("vib", 0.0): (-0.10, -0.01, 0.01),
    ("vib", 2.0): (-0.06, 0.02, 0.06),
}


def calibrated(courses, seeds=3):
    """Models whose overconfidence after each step is as given, and whose error is its size."""
    found = []
    for seed in range(seeds):
        for (objective, rho), course in courses.items():
            rows = []
            for step, gap in zip(STEPS, course, strict=True):
                each = (
                    fraction("accuracy", 9000, 10_000),
                    with_interval("overconfidence", gap, gap - 0.003, gap + 0.003, "points", 10_000),
                    with_interval("ece", abs(gap), abs(gap) - 0.003, abs(gap) + 0.003, n=10_000),
                )
                rows += [metric.named(metric.name, step=step) for metric in each]
            bins = [{"low": 0.9, "high": 0.95, "n": 10_000, "confidence": 0.92, "accuracy": 0.9}]
            details = {"bins": {f"{step}": bins for step in STEPS}} if seed == 0 else {}
            tradeoff = {} if rho is None else {"rho": rho}
            found.append(measured(rows, {"objective": objective, **tradeoff, "seed": seed}, details=details))
    return record(CALIBRATION, found)


def test_calibration_as_printed_supports_every_claim():
    assert verdicts(calibrated(COURSES)) == [SUPPORTED] * 9


@pytest.mark.parametrize(
    ("model", "course", "refuted"),
    [
        (("ceb", 0.0), (-0.1, -0.01, 0.2), [4]),
        (("ceb", 0.0), (-0.1, -0.2, 0.01), [7]),
        (("ceb", 0.0), (0.1, 0.01, 0.01), [0]),
        (("vib", 2.0), (-0.06, 0.02, 0.015), [6]),
    ],
)
def test_other_courses_contradict(model, course, refuted):
    found = verdicts(calibrated(COURSES | {model: course}))
    assert [at for at, each in enumerate(found) if each == CONTRADICTED] == refuted


def test_one_seed_and_missing_models_decide_nothing():
    assert set(verdicts(calibrated(COURSES, seeds=1))) == {UNDECIDED}
    without = {model: course for model, course in COURSES.items() if model[0] != "determ"}
    undecided = [at for at, each in enumerate(verdicts(calibrated(without))) if each == UNDECIDED]
    assert undecided == [3, 4, 5, 6]  # those that compare with the deterministic network, or are about it
    empty = record(CALIBRATION, [])
    assert set(verdicts(empty)) == {UNDECIDED}
    assert blocks(empty) == ()


def test_the_page_has_a_diagram_for_each_model():
    *diagrams, first, second, table = blocks(calibrated(COURSES))
    assert {block.title for block in diagrams} == {
        "CEB, ρ = 0",
        "VIB, ρ = 0",
        "VIB, ρ = 2",
        "The deterministic network",
    }
    assert all(len(block.series) == len(STEPS) for block in diagrams)
    assert len(first.series) == len(second.series) == len(COURSES)
    assert len(table.rows) == len(STEPS) * len(COURSES)


@pytest.mark.slow
def test_calibration_on_digits(tmp_path):
    settings = {"bottlenecks": [("vib", 2.0)], "training.epochs": 2, "training.snapshots": (3, 20)}
    found, html = run_study(CALIBRATION, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    for each in found.experiments.values():
        assert list(each.details["bins"]) == ["3", "20"]
        accuracy = {row.coords["step"]: row for row in each.metrics if row.name == "accuracy"}
        assert all(sum(one["n"] for one in bins) == accuracy[3].n for bins in each.details["bins"].values())
        assert accuracy[20].value > accuracy[3].value
    assert "Expected calibration error" in html.read_text("utf-8")


def test_without_steps_there_is_nothing_to_evaluate(tmp_path):
    with pytest.raises(ConfigError, match="snapshots"):
        run_study(CALIBRATION, "tiny", {"training.snapshots": ()}, tmp_path, show_progress=False)
