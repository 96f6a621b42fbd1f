"""docs/diagnosis.md states the tests, follow-up attacks, thresholds and budgets of the code."""

import re

from isthmus.diagnosis import attack_tests, budget, ensemble_tests, follow_ups, gradient_tests, tests, verdict
from tests.docs.doc_pages import DOCS

PAGE = (DOCS / "diagnosis.md").read_text("utf-8")
FLAT = " ".join(PAGE.split())


def test_every_test_has_its_paragraph_in_the_order_they_run():
    evidence = PAGE.split("\n## The evidence\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (\w+)$", evidence, re.M) == list(tests.TESTS)


def test_every_follow_up_attack_is_in_the_table():
    table = PAGE.split("\n## Follow-up attacks\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(follow_ups.FOLLOW_UPS)


def test_the_follow_up_attacks_after_a_warning():
    after_warning = [follow_up.after_warning for follow_up in follow_ups.FOLLOW_UPS.values()]
    assert "first four and the last" in FLAT
    assert after_warning == [True] * 4 + [False] * 3 + [True]


def test_thresholds():
    longer, one_step = (attack_tests.WARN_LONGER, attack_tests.FAIL_LONGER), attack_tests.FAIL_ONE_STEP
    vanishing = gradient_tests.WARN_VANISHING, gradient_tests.FAIL_VANISHING
    correlation = gradient_tests.WARN_CORRELATION, gradient_tests.FAIL_CORRELATION
    ensemble = ensemble_tests.WARN_ENSEMBLE, ensemble_tests.FAIL_ENSEMBLE
    black_box = ensemble_tests.WARN_BLACK_BOX, ensemble_tests.FAIL_BLACK_BOX
    assert f"more than {100 * longer[0]:g}% of these break, and **fails** at {100 * longer[1]:g}%" in FLAT
    assert f"warns from {100 * vanishing[0]:g}%, and **fails** from {100 * vanishing[1]:g}%" in FLAT
    assert f"**fails** below {correlation[1]:g}" in FLAT
    assert f"warns below {correlation[0]:g}" in FLAT
    assert f"at least {100 * one_step:g} points" in FLAT
    assert f"breaks {100 * ensemble[0]:g} points more, and **fails** at {100 * ensemble[1]:g}" in FLAT
    assert f"more than {100 * black_box[0]:g}% of these break, and **fails** at {100 * black_box[1]:g}%" in FLAT
    tolerances = (
        f"by more than {100 * verdict.WITHOUT_FAILED_TEST:g} points, or by more than {100 * verdict.TOLERANCE:g}"
    )
    assert f"{tolerances} points if a test failed" in FLAT


def test_budgets():
    quick, full = budget.QUICK, budget.FULL
    assert f"a sample of {quick.sample} examples ({full.sample} with `--full`)" in FLAT
    assert quick.restarts == 5
    assert f"Five more restarts ({full.restarts} with `--full`)" in FLAT
    assert f"One run of {quick.steps} steps ({full.steps})" in FLAT
    assert f"`{quick.ensemble}` (`{full.ensemble}` with `--full`" in FLAT
    assert f"Square with {quick.queries:,} queries ({full.queries:,})" in FLAT
    assert f"{quick.passes:,} passes per image and mode, {full.passes:,} with `--full`" in FLAT
