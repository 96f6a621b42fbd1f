"""Detection on Fashion-MNIST: which printed rows can be, what the claims say of made-up records, the way on digits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.metrics import auroc, fpr_at_tpr
from isthmus.studies import catalogue
from isthmus.studies.ceb.detection_claims import findings
from isthmus.studies.ceb.printed_detection import DIGIT, IMPOSSIBLE, OUTS, TABLE_1, Row
from isthmus.studies.old.evidence import Verdict, pooled
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study

NAME = "ceb/detection"
scores = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@given(inside=scores, outside=scores, positive=st.sampled_from(["in", "out"]))
def test_no_scores_have_an_impossible_pair(inside, outside, positive):
    """Whichever class is positive, any scores give a row that is called possible."""
    fpr, area = fpr_at_tpr(inside, outside, positive=positive), auroc(inside, outside)
    row = Row("noise", ("determ", None), fpr, area, 0.5)
    assert row.possible
    assert area >= row.least_auroc - 1e-12


@given(fpr=st.floats(0, 1), n=st.integers(200, 400))
def test_the_bound_is_attained(fpr, n):
    """The least area: a share of the others passes before the first of 95% does, the rest before the last 5%."""
    cut = round(fpr * n)
    inside = np.repeat([0.0, 2.0], [95, 5])
    outside = np.repeat([-1.0, 1.0], [cut, n - cut])
    row = Row("noise", ("determ", None), fpr_at_tpr(inside, outside), auroc(inside, outside), 0.5)
    assert row.auroc == pytest.approx(row.least_auroc, abs=1e-12)
    assert not row._replace(auroc=row.auroc - 2 * DIGIT - 1e-3).possible


def test_four_printed_rows_cannot_be():
    assert {(row.out, row.model) for row in IMPOSSIBLE} == {
        (out, (kind, 0.0)) for out in ("mnist", "vertical_flip") for kind in ("vib", "ceb")
    }
    assert len(TABLE_1) == 16
    assert [row.success for row in TABLE_1 if row.out == "cw"] == [1.0, 0.552, 0.358, 0.358]


def cell(model, seed, out, auroc, fpr=0.0, entropy=0.5, success=None):
    own = "entropy" if model[0] == "determ" else "rate"
    found = {"fpr95_in": [fpr, fpr, fpr + 1e-4], "auroc": [auroc, auroc - 1e-3, min(auroc + 1e-3, 1)]}
    scores = {"entropy": {"auroc": [entropy, entropy - 1e-3, entropy + 1e-3]}} | {own: found}
    return {
        "objective": model[0], "knob": model[1], "seed": seed, "n": 10_000, "outside": 10_000, "out": out,
        "collapsed": False, "scores": scores, "success": success, "notice": "", "left_out": {},
    }  # fmt: skip


def record(numbers):
    """Cells of three seeds from (out, model) -> keywords of :func:`cell`."""
    cells = {
        f"{model} {seed} {out}": cell(model, seed, out, **of)
        for (out, model), of in numbers.items()
        for seed in range(3)
    }
    config = catalogue.find(NAME).Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def as_printed():
    return {
        (row.out, row.model): {
            "auroc": row.auroc,
            "fpr": row.fpr95_in,
            "success": None if row.success is None else [round(1000 * row.success), 1000],
        }
        for row in TABLE_1
    }


def test_as_printed_the_claims_are_seen_but_for_the_table_itself():
    found = findings(record(as_printed()))
    assert [each.verdict for each in found[:-1]] == [Verdict.SUPPORTED] * (len(found) - 1)
    assert found[-1].verdict == Verdict.CONTRADICTED


def test_a_rate_at_chance_refutes():
    numbers = as_printed()
    for out in OUTS:
        numbers[out, ("ceb", 0.0)] |= {"auroc": 0.4, "fpr": 0.9}
    found = {each.claim: each.verdict for each in findings(record(numbers))}
    refuted = {claim for claim, verdict in found.items() if verdict == Verdict.CONTRADICTED}
    assert (
        len(refuted) == 4
    )  # better than a plain network, saturated, better than its own entropy; and the printed table
    assert sum("CEB, ρ = 0" in claim for claim in refuted) == 3


def test_what_is_missing_is_left_open():
    found = findings(record({("mnist", ("determ", None)): {"auroc": 0.9}}))
    assert {each.verdict for each in found[:-1]} == {Verdict.UNDECIDED}


def test_the_page_says_which_printed_rows_cannot_be():
    section = catalogue.find(NAME).section(record(as_printed()))
    table, every, impossible = section.blocks
    assert len(table.rows) == 2 * len(TABLE_1)
    assert sum(line[3] == "printed, impossible" for line in table.rows) == len(IMPOSSIBLE) == len(impossible.rows)
    assert len(every.rows) == 7  # entropy of four models, the rate of three


def test_intervals_of_seeds_and_images_are_put_together():
    one = pooled([(0.9, 0.88, 0.93)], 100)
    assert (one.low, one.high) == (pytest.approx(0.88), pytest.approx(0.93))
    same = pooled([(0.9, 0.88, 0.93)] * 3, 100)  # seeds that agree add nothing
    assert (same.low, same.high) == (pytest.approx(0.88), pytest.approx(0.93))
    wider = pooled([(0.9, 0.88, 0.93), (0.85, 0.83, 0.88), (0.8, 0.78, 0.83)], 100)
    assert wider.low < 0.8 < 0.9 < wider.high
    assert pooled([(0.9, 0.88, 0.93)], 100, level=0.99).low < 0.88
    with pytest.raises(ValueError, match="got none"):
        pooled([], 100)


def test_the_whole_way_on_digits(tmp_path):
    settings = {"bottlenecks": [("ceb", 5.0)], "training.epochs": 4, "training.snapshots": ()}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    assert {cell["out"] for cell in measured.cells.values()} == {"uniform_noise", "vertical_flip", "cw"}
    tight = next(measured.each(objective="ceb", out="vertical_flip"))
    assert {"entropy", "rate", "residual"} <= set(tight["scores"])
    assert "rate" not in next(measured.each(objective="determ", out="cw"))["scores"]
    attacked = next(measured.each(objective="determ", out="cw"))["success"]
    assert attacked is not None
    assert 0 < attacked[1] <= 20
    assert "Printed rows that cannot be" in html.read_text("utf-8")
