"""What the page on obfuscation says is true of the code: tests, follow-ups, exit codes, thresholds."""

import re

from tests.docs.doc_pages import DOCS, ROOT

from isthmus.diagnosis import context, diagnose, differences, ensemble, follow_up, gradients, harder, one_step
from isthmus.diagnosis.verdict import NATURAL

PAGE = (DOCS / "diagnosis.md").read_text("utf-8")
FLAT = " ".join(PAGE.split())


def test_every_test_has_its_paragraph_in_the_order_they_run():
    evidence = PAGE.split("\n## The evidence\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (\w+)$", evidence, re.M) == list(diagnose.TESTS)


def test_every_follow_up_is_in_the_table():
    table = PAGE.split("\n## What is tried next\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == [*follow_up.FIRST, *follow_up.LAST]


def test_every_file_is_in_the_reference():
    files = {path.stem for path in (ROOT / "src" / "isthmus" / "diagnosis").glob("[!_]*.py")}
    page = (DOCS / "reference" / "diagnosis.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: isthmus\.diagnosis\.(\w+)$", page, re.M)) == sorted(files)


def test_thresholds():
    assert f"more than {100 * harder.WARN:g}% of these fall, and **fails** at {100 * harder.FAIL:g}%" in FLAT
    assert (harder.WARN, harder.FAIL) == (0.05, 0.15)
    assert f"warns from {100 * gradients.WARN:g}%, and **fails** from {100 * gradients.FAIL:g}%" in FLAT
    assert f"**fails** below {differences.FAIL:g}" in FLAT
    assert f"warns below {differences.WARN:g}" in FLAT
    assert f"at least {100 * one_step.FAIL:g} points" in FLAT
    assert f"breaks {100 * ensemble.WARN:g} points more, and **fails** at {100 * ensemble.FAIL:g}" in FLAT
    assert f"by more than {100 * NATURAL:g} points" in FLAT


def test_budgets():
    quick, full = context.QUICK, context.FULL
    assert f"a sample of {quick.sample} ({full.sample} with `--full`)" in FLAT
    assert f"{_word(quick.restarts)} more starts ({full.restarts} with `--full`)" in FLAT
    assert f"One run of {quick.steps} steps ({full.steps})" in FLAT
    assert f"`{quick.ensemble}` (`{full.ensemble}` with `--full`" in FLAT
    assert f"Square with {quick.queries:,} queries ({full.queries:,})" in FLAT


def _word(count):
    return {5: "Five"}[count]
