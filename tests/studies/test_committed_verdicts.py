"""Verdicts of the records in results/: by the rule of today, and none about training from two seeds."""

import json
from pathlib import Path

import pytest

from isthmus.core.errors import FileError
from isthmus.studies import catalogue
from isthmus.studies.verdicts import Verdict

ROOT = Path(__file__).parents[2] / "results"
RECORDS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob("*/*/*.json")
    if '"scale"' in path.read_text("utf-8") and '"study"' in path.read_text("utf-8")
)
OF_SINGLE_MODELS = ("Ours: ", "Of the models measured: ", "Some ", "The printed table is possible")
"""How claims begin that are about the very models measured, or about what is printed."""


@pytest.fixture(scope="module", params=RECORDS)
def loaded(request):
    return catalogue.load(ROOT / request.param)


def test_stored_verdicts_are_those_of_the_numbers(loaded):
    study, record = loaded
    assert study.judge(record) == record.claims
    assert study.section(record).blocks


def test_two_seeds_of_any_study_decide_no_claim_about_training(loaded):
    study, record = loaded
    found = study.judge(of_two_seeds(record))
    firm = [each.claim for each in found if each.verdict is not Verdict.UNDECIDED]
    assert [claim for claim in firm if not claim.startswith(OF_SINGLE_MODELS)] == []


def of_two_seeds(record):
    """The record without experiments of other seeds than the first two, and without those that have no seed."""
    seeds = {name: found.metrics[0].coords.get("seed") for name, found in record.experiments.items()}
    first = sorted({seed for seed in seeds.values() if seed is not None})[:2]
    kept = {name: found for name, found in record.experiments.items() if seeds[name] in first}
    return record.model_copy(update={"experiments": kept, "total": len(kept)})


def test_a_record_of_an_older_format_is_refused(tmp_path):
    content = json.loads((ROOT / "rate-distortion/figure-7/small.json").read_text("utf-8"))
    old = {name: value for name, value in content.items() if name not in ("format", "sha256")}
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(FileError, match="format 1 .* reads 2"):
        catalogue.load(tmp_path / "old.json")
