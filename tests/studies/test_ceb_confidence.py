"""Detection and calibration on Fashion-MNIST: printed rows, claims on made-up numbers, and whole runs on digits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.studies.records import blocks, fraction, measured, record, verdicts, with_interval

from isthmus.core.errors import ConfigError
from isthmus.metrics import auroc, fpr_at_tpr
from isthmus.studies.ceb.confidence import DIGIT, OUTS, impossible_rows, least_auroc
from isthmus.studies.paper_values import paper_value, paper_values
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict

DETECTION, CALIBRATION = "ceb/detection", "ceb/calibration"
SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
scores = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@given(inside=scores, outside=scores, positive=st.sampled_from(["in", "out"]))
def test_no_scores_have_a_smaller_area_than_the_bound(inside, outside, positive):
    """Whichever class is positive."""
    fpr, area = fpr_at_tpr(inside, outside, positive=positive), auroc(inside, outside)
    assert area >= least_auroc(fpr) - 1e-12


@given(fpr=st.floats(0, 1), n=st.integers(200, 400))
def test_the_bound_is_attained(fpr, n):
    """The least area: a fraction of the others passes before the first of 95% does, the rest before the last 5%."""
    cut = round(fpr * n)
    inside = np.repeat([0.0, 2.0], [95, 5])
    outside = np.repeat([-1.0, 1.0], [cut, n - cut])
    assert auroc(inside, outside) == pytest.approx(least_auroc(fpr_at_tpr(inside, outside)), abs=1e-12)


def test_four_printed_rows_are_impossible():
    assert {row[:2] for row in impossible_rows()} == {
        (OUTS[out], f"{name}, ρ = 0") for out in ("mnist", "vertical_flip") for name in ("VIB", "CEB")
    }
    assert all(area + DIGIT < least_auroc(fpr + DIGIT) for _, _, fpr, area in impossible_rows())
    assert len(paper_values("ceb", "detection")) == 3 * 16
    assert [each.value for each in paper_values("ceb", "attack-success")] == [1.0, 0.552, 0.358, 0.358]


def printed():
    """(objective, ρ, out-distribution) -> numbers as printed."""
    found = {}
    for each in paper_values("ceb", "detection"):
        model = each.coords["objective"], each.coords.get("rho"), each.coords["out"]
        found.setdefault(model, {"entropy": 0.5})[each.metric] = each.value
    for each in paper_values("ceb", "attack-success"):
        found[each.coords["objective"], each.coords.get("rho"), "cw"]["success"] = each.value
    return found


def detected(numbers, seeds=3):
    found = []
    for (objective, rho, out), own in numbers.items():
        score = "entropy" if objective == "determ" else "rate"
        area, fpr = own["AUROC"], own["FPR at 95% TPR"]
        rows = [
            with_interval("auroc", area, area - 1e-3, min(area + 1e-3, 1.0), n=20_000).named("auroc", score=score),
            with_interval("fpr95_in", fpr, fpr, fpr + 1e-4, n=10_000).named("fpr95_in", score=score),
        ]
        if score != "entropy":
            entropy = own["entropy"]
            area_row = with_interval("auroc", entropy, entropy - 1e-3, entropy + 1e-3, n=20_000)
            rows.append(area_row.named("auroc", score="entropy"))
        rows = [each.named(each.name, mode="mean") for each in rows]
        if "success" in own:
            rows.append(fraction("attack_success", round(1000 * own["success"]), 1000))
        coords = {"objective": objective, **({} if rho is None else {"rho": rho}), "out": out}
        found += [measured(rows, {**coords, "seed": seed}) for seed in range(seeds)]
    return record(DETECTION, found)


def test_detection_as_printed_supports_all_claims_but_that_the_table_is_possible():
    assert verdicts(detected(printed())) == [SUPPORTED] * 9 + [CONTRADICTED]


def test_a_rate_at_chance_contradicts():
    numbers = printed()
    for out in OUTS:
        numbers["ceb", 0.0, out] |= {"AUROC": 0.4, "FPR at 95% TPR": 0.9}
    found = verdicts(detected(numbers))
    # better than a plain network, saturated, better than its own entropy, and the printed table
    assert [at for at, each in enumerate(found) if each == CONTRADICTED] == [0, 2, 5, 9]


def test_what_is_missing_decides_nothing():
    numbers = {key: value for key, value in printed().items() if key == ("determ", None, "mnist")}
    assert set(verdicts(detected(numbers))[:-1]) == {UNDECIDED}
    assert set(verdicts(detected(printed(), seeds=2))[:-1]) == {UNDECIDED}
    assert blocks(record(DETECTION, [])) == ()


def test_the_page_has_ours_beside_the_printed_rows():
    table, success, every, impossible = blocks(detected(printed()))
    sources = [line[4] for line in table.rows]
    assert (sources.count("Entropy, Table 1"), sources.count("ours")) == (16, 7 * 4)  # entropy of all, rate of three
    assert len(success.rows) == 2 * 4
    assert len(every.rows) == 7
    assert len(impossible.rows) == 4
    assert paper_value("ceb", "detection", "AUROC", out="mnist", objective="ceb") == 0.944


def test_detection_on_digits(tmp_path):
    settings = {"bottlenecks": [("ceb", 5.0)], "training.epochs": 4, "training.snapshots": ()}
    found, html = run_study(DETECTION, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows(collapsed=True)
    assert {each.coords["out"] for each in rows.select("auroc", {})} == {"uniform_noise", "vertical_flip", "cw"}
    ours = rows.select("auroc", {"objective": "ceb", "out": "vertical_flip", "mode": "mean"})
    assert {"entropy", "rate", "residual"} <= {each.coords["score"] for each in ours}
    assert not rows.select("auroc", {"objective": "determ", "score": "rate"})
    (attacked,) = rows.select("attack_success", {"objective": "determ", "out": "cw"})
    assert 0 < attacked.n <= 20
    assert "mathematically impossible" in html.read_text("utf-8")


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
