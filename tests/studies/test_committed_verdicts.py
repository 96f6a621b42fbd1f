"""Verdicts of the records in results/: by the rule of today, and none about training from two seeds."""

from pathlib import Path

import pytest

from isthmus.studies import catalogue
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord

ROOT = Path(__file__).parents[2] / "results"
RECORDS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob("*/*/*.json")
    if '"findings"' in path.read_text("utf-8") and '"study"' in path.read_text("utf-8")
)
OF_SINGLE_MODELS = ("Ours: ", "Some ", "The printed table can be")
"""How claims begin that are about the very models measured, or about what is printed."""


@pytest.fixture(scope="module", params=RECORDS)
def record(request):
    return StudyRecord.load(ROOT / request.param)


def judged(record):
    """Findings; None where an older record lacks what its study measures today."""
    try:
        return list(catalogue.find(record.study).findings(record))
    except LookupError:
        return None


def test_stored_verdicts_are_those_of_the_numbers(record):
    found = judged(record)
    if found is not None:
        stored = {each.claim: each.verdict for each in record.findings}
        assert {each.claim: each.verdict for each in found if each.claim in stored}.items() <= stored.items()


def test_two_seeds_of_any_study_decide_no_claim_about_training(record):
    seeds = sorted({cell["seed"] for cell in record.cells.values() if "seed" in cell})
    kept = {name: cell for name, cell in record.cells.items() if cell.get("seed") in seeds[:2]}  # none of toys' samples
    found = judged(record.model_copy(update={"cells": kept, "total": len(kept)}))
    firm = [each.claim for each in found or () if each.verdict is not Verdict.UNDECIDED]
    assert [claim for claim in firm if not claim.startswith(OF_SINGLE_MODELS)] == []
