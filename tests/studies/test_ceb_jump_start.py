"""The studies on Fashion-MNIST jump-start bottlenecks with ρ ≤ 1, and say that the paper does not."""

import re

import pytest

from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import RHO_SCHEDULES
from isthmus.studies import catalogue
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.running import run_study
from isthmus.studies.study import SCALES, departures
from isthmus.training.run import Run

STUDIES = ["ceb/fashion", "ceb/detection", "ceb/calibration", "ceb/random-labels"]


def schedule(config, kind, rho):
    found = load_recipe(config.recipe(ModelSpec(kind, rho, 0))).training.rho_schedule
    return None if found is None else found.model_dump(exclude_unset=True)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_strong_bottlenecks_and_no_others_are_jump_started(name, scale):
    config = catalogue.find(name).preset(scale)
    for kind in ("ceb", "vib"):
        for rho in (-1.0, 0.0, 1.0):
            found = schedule(config, kind, rho)
            assert found is not None
            assert {**found, "share": 2 / 3} == RHO_SCHEDULES["jump_start"]
        assert [schedule(config, kind, rho) for rho in (1.5, 2.0, 5.0)] == [None] * 3
    assert schedule(config, "determ", None) is None
    told = departures(config, catalogue.find(name).preset("paper"))
    assert told.get("rho_schedule", told.get("rho_schedule.name")) == ("jump_start", None)


@pytest.mark.parametrize("name", STUDIES)
def test_it_can_be_changed_and_left_out(name):
    study = catalogue.find(name)
    shorter = study.config(rho_schedule={"name": "jump_start", "steps": 300}, scheduled=3)
    assert schedule(shorter, "ceb", 3.0)["steps"] == 300
    without = study.config(rho_schedule=None)
    assert schedule(without, "ceb", 0.0) is None
    assert departures(without, study.config()) == {}


def test_cifar_keeps_the_papers_schedule_at_every_rho():
    config = catalogue.find("ceb/cifar-28x10").config()
    assert schedule(config, "ceb", 5.0) == schedule(config, "ceb", 0.0) == RHO_SCHEDULES["cifar_000"]
    assert departures(config, config) == {}


def test_a_study_trains_with_it_and_its_page_says_so(tmp_path):
    """12 steps an epoch: in a run of 36 the descent takes 24, and ρ reaches 0 at the start of the last epoch."""
    settings = {
        "bottlenecks": [("ceb", 0.0)],
        "training.epochs": 3,
        "training.snapshots": (30,),
        "training.log_every": 1,
    }
    measured, html = run_study("ceb/calibration", "tiny", settings, tmp_path, show_progress=False)
    assert not measured.failures
    page = html.read_text("utf-8")
    assert "This is not the paper" in page
    assert re.search(r"rho_schedule</th><td>jump_start</td><td>not set", page)
    (run,) = (tmp_path / "models").glob("digits-ceb*")
    rhos = [line["rho"] for line in Run(run).metrics() if "rho" in line]
    assert len(rhos) == 36
    assert rhos == pytest.approx([max(0.0, 10 - 10 * step / 24) for step in range(36)])
