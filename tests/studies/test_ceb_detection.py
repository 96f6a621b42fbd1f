"""Detection on Fashion-MNIST: which printed rows are possible, claims on made-up numbers, and a run on digits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.metrics import auroc, fpr_at_tpr
from isthmus.studies.ceb.detection import DIGIT, OUTS, impossible_rows, least_auroc
from isthmus.studies.paper_values import paper_value, paper_values
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict
from tests.studies.records import blocks, fraction, measured, record, verdicts, with_interval

DETECTION = "ceb/detection"
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
