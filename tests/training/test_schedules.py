"""Schedules: identity 13."""

import math

import pytest

from isthmus.core import config
from isthmus.core.errors import ConfigError
from isthmus.core.training_options import LearningRate, RhoSchedule, Training
from isthmus.training.schedules import RhoController, learning_rate_factor

EPOCH = 100


def controller(schedule, name: str = "ceb", rho: float = 3.0) -> RhoController:
    given = Training(rho_schedule=schedule).rho_schedule
    return RhoController(given, config.component("objectives", {"name": name, "rho": rho}), EPOCH)


def test_weight_space_midpoint_is_half_the_final_weight():
    """Identity 13; the start weight, 0, is one at which the information term is dropped."""
    found = controller({"start": math.inf, "space": "weight", "steps": 1000})
    assert math.exp(-found.at(500)) == pytest.approx(0.5 * math.exp(-3.0))
    assert found.at(0) == math.inf  # the start weight counts as 0
    assert found.at(1000) == 3.0


def test_weight_space_follows_the_objectives_own_weight():
    found = controller({"start": math.inf, "space": "weight", "steps": 1000}, "vib")
    assert 1 / (1 + math.exp(found.at(500))) == pytest.approx(0.5 / (1 + math.exp(3.0)))


def test_rho_space_is_linear():
    found = controller("ceb_001")
    assert [found.at(step) for step in (0, 2 * EPOCH, 4 * EPOCH, 9 * EPOCH)] == pytest.approx([100, 51.5, 3, 3])


def test_the_gate_holds_until_accuracy_exceeds_it():
    """Identity 13."""
    found = controller("cifar_000")
    assert found.at(0) == 100
    found.end_epoch(EPOCH, 0.9)  # the first stage is not over yet
    assert found.released_at is None
    found.end_epoch(2 * EPOCH, 0.20)  # not above .2
    assert found.at(5 * EPOCH) == 10
    found.end_epoch(5 * EPOCH, 0.21)
    assert found.at(5 * EPOCH) == 10
    assert found.at(int(5.5 * EPOCH)) == pytest.approx(6.5)
    assert found.at(6 * EPOCH) == 3
    assert found.finished(6 * EPOCH)
    assert not found.finished(int(5.5 * EPOCH))


def test_the_gate_is_the_only_state():
    """Identity 13: what a checkpoint keeps of a schedule is enough to go on; see also test_resume.py."""
    first, second = controller("cifar_000"), controller("cifar_000")
    first.end_epoch(3 * EPOCH, 0.5)
    second.released_at = first.released_at
    assert [first.at(s) for s in range(0, 600, 7)] == [second.at(s) for s in range(0, 600, 7)]


@pytest.mark.parametrize("name", ["cifar_000", "imagenet_000", "ceb_001", "vib_001"])
@pytest.mark.parametrize("objective", ["vib", "ceb"])
def test_presets_end_at_the_target(name, objective):
    found = controller(name, objective)
    found.end_epoch(10 * EPOCH, 1.0)
    assert found.at(10**6) == 3.0


def test_no_schedule_is_constant():
    assert {controller(None).at(step) for step in (0, 1, 10**6)} == {3.0}


def test_objectives_without_rho_take_no_schedule():
    deterministic = config.component("objectives", "deterministic")
    assert RhoController(None, deterministic, EPOCH).at(5) is None
    with pytest.raises(ConfigError, match="has no rho"):
        RhoController(RhoSchedule(), deterministic, EPOCH)


@pytest.mark.parametrize("wrong", ["cifar", {"epochs": 1, "steps": 1}, {"space": "log"}])
def test_wrong_schedules_are_explained(wrong):
    with pytest.raises((ConfigError, ValueError), match="cifar_000|not both|'rho' or 'weight'"):
        Training(rho_schedule=wrong)


def test_learning_rate_staircases():
    milestones = LearningRate(milestones=(3, 5), factor=0.1)
    assert [learning_rate_factor(milestones, e) for e in (0, 2, 3, 4, 5, 9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    every = LearningRate(every=2, factor=0.97)
    assert [learning_rate_factor(every, e) for e in (0, 1, 2, 5)] == pytest.approx([1, 1, 0.97, 0.97**2])


def test_the_jump_start_takes_1500_steps_or_two_thirds_of_a_shorter_run():
    """ρ = 10 at first, linearly down to the target; then the rest of the run at the target."""
    given = Training(rho_schedule="jump_start").rho_schedule
    objective = config.component("objectives", {"name": "ceb", "rho": 0.0})
    for total, length in ((40_000, 1500), (2250, 1500), (900, 600)):
        found = RhoController(given, objective, EPOCH, total)
        assert [found.at(step) for step in (0, length // 2, length, total)] == pytest.approx([10, 5, 0, 0])
        assert not found.finished(length - 1)
        assert found.finished(length)


def test_a_named_schedule_takes_other_options():
    found = Training(rho_schedule={"name": "jump_start", "steps": 300}).rho_schedule
    assert (found.start, found.steps, found.share) == (10, 300, 2 / 3)
    with pytest.raises(ConfigError, match="no rho schedule 'jump_star'. Did you mean 'jump_start'"):
        Training(rho_schedule={"name": "jump_star"})
