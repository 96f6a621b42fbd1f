"""A diagnosis spends no more passes than its budget, reports the limit in advance, and names what it did not try."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import typer

import isthmus
from benchmarks.illusions import ILLUSIONS
from isthmus.attacks import Linf
from isthmus.attacks.engine import counted_model
from isthmus.attacks.engine.inputs import examples
from isthmus.audits.request import configs
from isthmus.cli import exit_codes
from isthmus.core.errors import ConfigError
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnose import diagnose
from isthmus.diagnosis.tests import TESTS
from isthmus.diagnosis.verdict import Verdict
from tests.diagnosis.trained_digits import EPS, SMALL, adversarially_trained, diagnosed, held_out, undefended
from tests.diagnosis.unusual_models import PASSES, PassCounter, RandomOffGrid, Votes

N = 30
SMALLER = replace(SMALL, sample=15)


def within(passes, model, eps=EPS, progress=lambda passes: None, **options):
    """The diagnosis of a model within a budget of passes per image."""
    images, labels = held_out(N)
    PASSES.clear()
    budget = replace(SMALLER, passes=passes, **options)
    return diagnose(DiagnosisContext(model, examples(images, labels), Linf(eps), budget, progress=progress))


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *((name, passes) for name in ("sound", "quantised", "random off the grid") for passes in (30, 300)),
        ("votes", 30),
        *(
            pytest.param(name, passes, marks=pytest.mark.slow)
            for name, passes in [("votes", 300), *product(("random noise", "batch leak"), (30, 300))]
        ),
    ],
)
def test_no_more_passes_are_spent_than_the_budget_has(name, passes):
    made = {"sound": lambda: adversarially_trained(), "votes": lambda: Votes(undefended())}
    made["random off the grid"] = lambda: RandomOffGrid(undefended())
    model = made[name]() if name in made else ILLUSIONS[name](undefended())
    if name == "random noise" and passes == 30:  # an average takes at least 20 draws
        with pytest.raises(ConfigError, match="clean images"):
            within(passes, PassCounter(model.eval()), eps=0.1)
        assert PASSES["forward"] <= passes * N
        return
    found = within(passes, PassCounter(model.eval()), eps=0.1)
    assert found.limit == passes * N
    assert PASSES["forward"] + PASSES["backward"] <= found.forward_passes + found.backward_passes <= found.limit
    assert PASSES["forward"] == found.forward_passes
    if found.verdict.not_tried:
        assert found.verdict.status != "holds"
    if name == "random off the grid" and passes == 300:
        assert found.result.random


def test_progress_is_the_share_of_passes_spent_and_never_goes_back():
    seen = []
    found = within(600, adversarially_trained(), eps=0.1, progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 100
    assert seen[-1] <= found.forward_passes + found.backward_passes <= found.limit
    assert seen[-1] > 0.9 * (found.forward_passes + found.backward_passes)


def test_the_limit_is_logged_first(caplog):
    with caplog.at_level(logging.INFO, logger="isthmus"):
        within(40, adversarially_trained(), eps=0.1)
    assert "40 passes per image" in caplog.messages[0]
    assert str(40 * N) in caplog.messages[0]


@pytest.mark.usefixtures("short_black_box")
def test_a_sound_model_holds_within_the_default_budget_and_is_undecided_within_a_small_one():
    whole = within(SMALL.passes, adversarially_trained(), eps=0.1)
    assert (whole.verdict.status, whole.verdict.not_tried) == ("holds", ())
    assert {test.test for test in whole.tests} == set(TESTS)
    assert whole.forward_passes + whole.backward_passes <= 3 * whole.ensemble_passes
    part = within(250, adversarially_trained(), eps=0.1)
    assert part.verdict.status == "undecided"
    assert "ensemble" in part.verdict.not_tried
    assert "black box" in part.verdict.not_tried
    assert "ensemble" in part.verdict.reason
    assert part.verdict.corrected >= whole.verdict.corrected


def test_what_breaks_most_runs_first():
    """A third of the passes that all tests need on an illusion are enough to expose it."""
    found = within(200, ILLUSIONS["quantised"](undefended()))
    assert found.verdict.status in ("overstated", "broken")
    assert found.verdict.corrected <= 0.03


def test_a_claim_above_the_corrected_accuracy_is_overstated_whatever_was_not_tried():
    found = diagnosed(adversarially_trained(), replace(SMALLER, passes=100), claimed=0.99, n=N, eps=0.1)
    assert found.verdict.status == "overstated"
    assert found.verdict.not_tried


def test_an_attack_that_is_cut_short_keeps_what_it_has_found():
    model = Votes(undefended())
    accuracies = [within(passes, model).verdict.corrected for passes in (100, 400)]
    assert accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize("granted", [{"passes": 1}, {"passes": 1000, "seconds": 1e-9}])
def test_a_budget_that_does_not_cover_the_clean_images_is_refused(granted):
    with pytest.raises(ConfigError, match="clean images"):
        within(model=adversarially_trained(), **granted)


def test_a_time_limit_cuts_short_as_well(monkeypatch):
    ticks = iter(range(10**9))
    monkeypatch.setattr(counted_model.time, "monotonic", lambda: next(ticks))
    found = within(10_000, adversarially_trained(), eps=0.1, seconds=200)
    assert found.verdict.status == "undecided"
    assert found.verdict.not_tried


def test_an_audit_names_what_was_not_tried_wherever_it_shows_the_verdict(tmp_path):
    images, labels = held_out(30)
    seen = []
    options = isthmus.AuditOptions(passes=120, progress=lambda *at: seen.append(at))
    audit = isthmus.audit(adversarially_trained(), images, labels, "linf:0.1", ["diagnosis"], options=options)
    result = audit.results["diagnosis"]
    assert audit.verdict.status == "undecided"
    assert result.status == "warn"
    assert audit.verdict.not_tried
    assert result.details["modes"]["mean"]["passes"]["bound"] == 120 * 30
    assert ", ".join(audit.verdict.not_tried) in result.reason
    page = audit.save(tmp_path / "page.html").read_text()
    assert "undecided" in page
    assert audit.verdict.not_tried[-1] in page
    counted = [(done, total) for check, done, total in seen if total > 1]
    assert {total for _, total in counted} == {120 * 30}
    assert [done for done, _ in counted] == sorted(done for done, _ in counted)


@pytest.mark.parametrize(
    ("statuses", "code"), [(["undecided"], 5), (["undecided", "overstated"], 3), (["overstated", "broken", "holds"], 4)]
)
def test_the_exit_code_is_that_of_the_worst_verdict(statuses, code):
    found = [SimpleNamespace(details={"verdict": {"status": status}}) for status in statuses]
    with pytest.raises(typer.Exit) as stop:
        exit_codes.stop_at_verdicts([SimpleNamespace(results={"diagnosis": each}) for each in found], ["diagnosis"])
    assert stop.value.exit_code == code


def test_passes_without_the_check_are_refused():
    assert next(check for check in configs(None, passes=700) if check.name == "diagnosis").passes == 700
    with pytest.raises(ConfigError, match="not among the checks"):
        configs(["accuracy"], passes=700)


def test_a_verdict_of_an_earlier_version_is_read():
    found = within(400, adversarially_trained(), eps=0.1).verdict
    old = {name: value for name, value in found.model_dump(mode="json").items() if name != "not_tried"}
    assert Verdict.model_validate(old | {"status": "holds"}).not_tried == ()
