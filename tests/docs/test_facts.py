"""What the documentation says about the code is true of the code: names, files, keys, thresholds."""

import json
import re
from dataclasses import fields

import pytest
import torch
import yaml

import isthmus
from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING
from isthmus.audits.target import ModelSource, audit_run
from isthmus.checks import Calibration, Information, Memorisation, robustness
from isthmus.checks.information import BLOCK
from isthmus.checks.ood_images import ATTACKED
from isthmus.checks.ood_scores import SAMPLES, SCORES
from isthmus.core import registry
from isthmus.core.config import component
from isthmus.core.training_options import RHO_SCHEDULES
from isthmus.core.types import Status, Terms
from isthmus.diagnosis.budget import FULL, QUICK
from isthmus.report.scorecard import QUESTIONS
from tests.docs.doc_pages import DOCS, ROOT
from tests.test_architecture import ORDER

TINY = {
    "name": "tiny",
    "data": {"name": "digits", "train_limit": 320, "test_limit": 40},
    "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 2},
    "objective": {"name": "ceb", "rho": 3},
    "training": {"epochs": 1, "batch_size": 32, "log_every": 5},
}


def text(name):
    return (DOCS / name).read_text("utf-8")


def named(page):
    """Everything that stands in code spans, and file trees' words."""
    found = set(re.findall(r"`([^`\n]+)`", page))
    for tree in re.findall(r"```text\n(.*?)```", page, re.DOTALL):
        found |= set(tree.split())
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trained = isthmus.train(TINY, out=tmp_path_factory.mktemp("facts") / "tiny", progress=False)
    audit_run(ModelSource(trained.path), "linf:0.2")
    return trained


def test_packages_are_listed_in_import_order():
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", text("architecture.md"), re.MULTILINE)
    assert [re.match(r"`(\w+)`", row)[1] for row in rows] == ORDER


def test_every_file_of_a_run_is_described(run):
    known = named(text("run-folder.md"))
    check_files = {f"{check}.{ending}" for check in registry.names("checks") for ending in ("json", "npz")}
    files = {path.name for path in run.path.rglob("*") if path.is_file()}
    assert files - check_files <= known
    assert files & check_files, "an audit writes checks"


def test_every_key_of_a_run_is_described(run):
    known = named(text("run-folder.md"))
    info = run.info()
    keys = {*info, *info["data"], *info["starts"][0], *info["result"]}
    keys |= {key for line in run.metrics() for key in line}
    described = known | {f"epoch_{key}" for key in known} | {field.name for field in fields(Terms)}
    assert {key for key in keys if not key.startswith("epoch_")} <= described
    for name in ("audit", "accuracy"):
        assert set(json.loads((run.path / "audit" / f"{name}.json").read_text())) <= known


def test_every_check_its_statuses_and_metrics_are_described(run):
    page = text("checks.md")
    known = named(page)
    titles = {title.lower().replace(" ", "_") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(registry.names("checks")) <= titles
    assert {status.value for status in Status} <= known
    for check in (*DEFAULT_CHECKS, *WITH_TRAINING):
        metrics = json.loads((run.path / "audit" / f"{check}.json").read_text())["metrics"]
        assert {metric["name"] for metric in metrics} <= known, check
    assert {"uniform_noise", "vertical_flip", *SCORES} <= known


def test_the_scorecards_questions_are_those_of_the_page():
    rows = re.findall(r"^\| (.+\?) \|", text("quickstart.md"), re.MULTILINE)
    assert rows == [known.text for known in QUESTIONS.values()]


def test_thresholds_are_those_of_the_code():
    page = text("checks.md")
    for name, budget in (("quick", QUICK), ("full", FULL)):
        row = next(line for line in page.splitlines() if line.startswith(f"| {name}"))
        assert f"| {robustness.LEVELS[name]} | `{budget.ensemble}` |" in row
    config = Calibration()
    assert f"over {config.bins} bins" in page
    assert f"`ece` lies above {config.threshold:g}" in page
    assert f"a {config.bin_level:.0%} Clopper-Pearson" in page
    usual = Memorisation()
    assert f"`generalisation_gap` lies above {usual.threshold:g}" in page
    assert f"`membership_auroc` above {usual.membership:g}" in page
    assert f"over {Information().samples} codes" in page
    assert f"at most {BLOCK:,} images" in page
    assert f"averaged over {SAMPLES} codes" in page
    assert f"the first {ATTACKED['quick']} images, with the full budget {ATTACKED['full']:,}" in page


def test_backbones_have_the_sizes_of_their_table():
    rows = re.findall(
        r"^\| `(\{.*\})` \| (\d+)×(\d+)×(\d+) \| (\d+) \| ([\d,]+) \|", text("reference/backbones.md"), re.MULTILINE
    )
    seen = set()
    for options, *shape, features, parameters in rows:
        config = component("backbones", yaml.safe_load(options))
        with torch.device("meta"):
            net = config.build(tuple(map(int, shape)))
        assert net.features == int(features), options
        assert f"{sum(p.numel() for p in net.parameters()):,}" == parameters, options
        seen.add(config.name)
    assert seen == set(registry.names("backbones"))


def test_names_are_complete():
    concepts, quickstart = text("concepts.md"), text("quickstart.md")
    assert all(f"`{name}`" in concepts for name in RHO_SCHEDULES)
    assert all(f"`{name}" in quickstart for name in registry.names("data"))


def test_the_citation_names_this_version_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == isthmus.__version__
    assert {"authors", "message", "title"} <= set(citation)
    assert len(citation["references"]) == 5
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= set(reference)
