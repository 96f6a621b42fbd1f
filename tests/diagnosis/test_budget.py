"""A verdict costs no more passes than its budget, says so in advance, and says what it did not try."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import typer
from benchmarks.illusions import ILLUSIONS
from tests.diagnosis.trained_digits import EPS, SMALL, adversarially_trained, examined, held_out, undefended
from torch import Tensor, nn

import isthmus
from isthmus.attacks import Linf
from isthmus.attacks.engine import counted_model
from isthmus.attacks.engine.inputs import examples
from isthmus.audits.request import configs
from isthmus.cli import app
from isthmus.core.errors import ConfigError
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.diagnose import diagnose
from isthmus.diagnosis.verdict import Verdict

N = 30
SMALLER = replace(SMALL, sample=15)
PASSES: Counter[str] = Counter()
"""What was truly asked, of a model or of any copy of it."""


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        PASSES["forward"] += len(images)
        return Counting.apply(self.model(images))


class Counting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits):
        return logits.clone()

    @staticmethod
    def backward(ctx, gradient):
        PASSES["backward"] += len(gradient)
        return gradient


class Votes(nn.Module):
    """A label made of the classes of three moved copies: it moves in jumps, and what is voted for has no gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        shown = [(images + shift).clamp(0, 1) for shift in (-0.02, 0.0, 0.02)]
        return sum(nn.functional.one_hot(self.model(each).argmin(1), 10) for each in shown).float().neg()


class RandomOffTheGrid(nn.Module):
    """Random, but not on the clean images, whose values are sixteenths: attacks alone find it out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits, sixteenths = self.model(images), 16 * images
        off = ((sixteenths - sixteenths.round()).abs() > 1e-4).flatten(1).any(1)
        return logits + off[:, None] * torch.randn_like(logits)


def diagnosed(model, passes, eps=EPS, tell=lambda passes: None, **options):
    images, labels = held_out(N)
    PASSES.clear()
    budget = replace(SMALLER, passes=passes, **options)
    return diagnose(DiagnosisContext(model, examples(images, labels), Linf(eps), budget, tell=tell))


HARD = ["quantised", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random noise", "batch leak"))]


@pytest.mark.parametrize("passes", [30, 300])
@pytest.mark.parametrize("name", ["honest", "votes", "random off the grid", *HARD])
def test_no_more_passes_are_spent_than_the_budget_has(name, passes):
    made = {"honest": lambda: adversarially_trained(), "votes": lambda: Votes(undefended())}
    made["random off the grid"] = lambda: RandomOffTheGrid(undefended())
    model = made[name]() if name in made else ILLUSIONS[name](undefended())
    if name == "random noise" and passes == 30:  # to read an average takes 20 draws, and more where it is close
        with pytest.raises(ConfigError, match="do not even cover the clean images"):
            diagnosed(Counted(model.eval()), passes, eps=0.1)
        assert PASSES["forward"] <= passes * N
        return
    found = diagnosed(Counted(model.eval()), passes, eps=0.1)
    assert found.bound == passes * N
    assert PASSES["forward"] + PASSES["backward"] <= found.forwards + found.backwards <= found.bound
    assert PASSES["forward"] == found.forwards
    if found.verdict.not_tried:
        assert found.verdict.status != "holds"
    if name == "random off the grid" and passes == 300:
        assert found.result.random


def test_progress_is_the_share_of_passes_spent_and_never_goes_back():
    seen = []
    found = diagnosed(adversarially_trained(), 5000, eps=0.1, tell=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 100
    assert seen[-1] <= found.forwards + found.backwards <= found.bound
    assert seen[-1] > 0.9 * (found.forwards + found.backwards)


def test_the_bound_is_said_before_anything_is_tried(caplog):
    with caplog.at_level(logging.INFO, logger="isthmus"):
        diagnosed(adversarially_trained(), 40, eps=0.1)
    assert f"at most 40 passes for each of {N} images, {40 * N} in all" in caplog.messages[0]


def test_an_honest_model_holds_within_the_usual_budget_and_is_undecided_within_a_small_one():
    whole = diagnosed(adversarially_trained(), SMALL.passes, eps=0.1)
    assert (whole.verdict.status, whole.verdict.not_tried) == ("holds", ())
    part = diagnosed(adversarially_trained(), 250, eps=0.1)
    assert part.verdict.status == "undecided"
    assert "ensemble" in part.verdict.not_tried
    assert "black box" in part.verdict.not_tried
    assert "not tried" in part.verdict.reason
    assert "every test" not in part.verdict.reason
    assert part.verdict.corrected >= whole.verdict.corrected


def test_what_breaks_most_is_tried_first():
    """A third of the passes that all tests of an illusion take are enough to see through it."""
    found = diagnosed(ILLUSIONS["quantised"](undefended()), 200)
    assert found.verdict.status in ("overstated", "broken")
    assert found.verdict.corrected <= 0.03


def test_a_claim_above_what_is_left_so_far_is_overstated_whatever_was_not_tried():
    found = examined(adversarially_trained(), replace(SMALLER, passes=100), claimed=0.99, n=N, eps=0.1)
    assert found.verdict.status == "overstated"
    assert found.verdict.not_tried


def test_an_attack_that_is_cut_short_keeps_what_it_had_found():
    model = Votes(undefended())
    left = [diagnosed(model, passes).verdict.corrected for passes in (100, 400)]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize("granted", [{"passes": 1}, {"passes": 1000, "seconds": 1e-9}])
def test_a_budget_that_does_not_cover_the_clean_images_is_refused(granted):
    with pytest.raises(ConfigError, match="do not even cover the clean images"):
        diagnosed(adversarially_trained(), **granted)


def test_a_limit_of_time_cuts_short_likewise(monkeypatch):
    ticks = iter(range(10**9))
    monkeypatch.setattr(counted_model.time, "monotonic", lambda: next(ticks))
    found = diagnosed(adversarially_trained(), 10_000, eps=0.1, seconds=200)
    assert found.verdict.status == "undecided"
    assert found.verdict.not_tried


def test_an_audit_says_what_was_not_tried_wherever_it_says_the_verdict(tmp_path):
    images, labels = held_out(30)
    seen = []
    audit = isthmus.audit(
        adversarially_trained(),
        images,
        labels,
        "linf:0.1",
        ["diagnosis"],
        passes=120,
        progress=lambda *at: seen.append(at),
    )
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
def test_the_exit_code_is_that_of_the_gravest_verdict(statuses, code):
    found = [SimpleNamespace(details={"verdict": {"status": status}}) for status in statuses]
    with pytest.raises(typer.Exit) as stop:
        app._stop_at_illusions([SimpleNamespace(results={"diagnosis": each}) for each in found], ["diagnosis"])
    assert stop.value.exit_code == code


def test_passes_without_the_check_are_refused():
    assert next(check for check in configs(None, passes=700) if check.name == "diagnosis").passes == 700
    with pytest.raises(ConfigError, match="not among the checks"):
        configs(["accuracy"], passes=700)


def test_a_verdict_of_an_earlier_version_is_read():
    found = diagnosed(adversarially_trained(), 400, eps=0.1).verdict
    old = {name: value for name, value in found.model_dump(mode="json").items() if name != "not_tried"}
    assert Verdict.model_validate(old | {"status": "holds"}).not_tried == ()
