"""The race: exact in ℓ1 on linear models, which examples and classes each stage takes, and runs that retire."""

import pytest
import torch
from pydantic import PrivateAttr
from torch import nn

from isthmus.attacks import Race, robust_accuracy
from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.race import (
    FirstRun,
    RaceRuns,
    pick_more,
    pick_nearest,
    pick_rest,
    pick_round,
    pick_sample,
)
from isthmus.attacks.threats import Linf
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import SHAPE, pictures
from tests.attacks.linear_models import check_walls_in_l1


@pytest.mark.parametrize(
    ("classes", "side", "seed", "eps"), [(2, 4, 0, 0.3), pytest.param(10, 4, 2, 0.15, marks=pytest.mark.slow)]
)
def test_in_l1_at_the_walls_of_the_box_robust_accuracy_is_the_closed_form(classes, side, seed, eps):
    check_walls_in_l1("fast", classes, side, seed, eps)


class Rivals(nn.Module):
    """Class 1 comes second on dark images; the brighter the image, the more likely is class 2."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([torch.full_like(mean, 9.0), torch.ones_like(mean), 8 * mean], 1)


class Recording(RaceRuns):
    """Runs that note the ranks that they are given."""

    _given: list = PrivateAttr(default_factory=list)

    def target_class(self, number, ranked, scores, keys):
        self._given.append(ranked.tolist())
        return super().target_class(number, ranked, scores, keys)


def test_the_first_run_ranks_the_classes_by_the_logits_where_its_margin_is_smallest():
    later = Recording(width=1, steps=1, ce=False, patience=2.0)
    stages = [Stage("first", FirstRun(steps=5)), Stage("later", later)]
    robust_accuracy(Rivals(), torch.full((2, *SHAPE), 0.1), torch.zeros(2, dtype=torch.int64), Linf(0.3), stages)
    assert later._given == [[[2, 1], [2, 1]]]


def test_the_last_round_has_a_run_on_the_cross_entropy_after_those_towards_the_best_classes():
    runs = RaceRuns(width=9, steps=2, ce=True, patience=2.0).for_threat(Linf(0.1), 4)
    ranked = torch.tensor([[3, 1, 2]])
    targets = [runs.target_class(run, ranked, torch.zeros(1, 4), torch.tensor([0])) for run in range(runs.runs)]
    assert [target if target is None else target.tolist() for target in targets] == [[3], [1], [2], None]


@pytest.mark.parametrize(("gain", "retires"), [(0.0, True), (0.4, False)])
def test_a_run_retires_if_twice_its_gain_would_not_break_the_example(gain, retires):
    """The loss starts at −1 and gains ``gain`` in the first window of 22 steps; 78 steps follow."""
    rounds = RaceRuns(width=1, steps=100, ce=False, patience=2.0).for_threat(Linf(0.1), 2)
    images = pictures(1)
    batch = Batch(images, torch.tensor([0]), example_keys(0, torch.arange(1)))
    runs = rounds.init(batch, torch.zeros(1, dtype=torch.int64))
    for step in range(23):
        loss = torch.tensor([-1 + gain * step / 22])
        rounds.step(runs, batch, Answer(torch.tensor([[1.0, 0.0]]), loss, torch.ones(1, *SHAPE)))
    assert bool(runs.budget < 100) == retires


def test_a_round_has_at_most_as_many_examples_as_the_one_before():
    with pytest.raises(ConfigError, match="at most as many examples"):
        Race(rounds=((0.1, 9, 10), (0.3, 3, 30)))


RACE = Race(rounds=((0.25, 2, 10), (0.1, 2, 30)), near=0.05, drawn=0.1)


def after_the_first_round():
    """400 robust examples, ordered by their margins, once the first round has attacked the nearest and the sample."""
    state, keys = EvaluationState.new(torch.zeros(400, *SHAPE)), example_keys(0, torch.arange(400))
    state.margin = torch.arange(400.0)
    state.ranked = torch.tensor([[1, 2, 3]]).repeat(400, 1)
    tried = pick_round(RACE, 0, state, keys)
    state.scores = torch.full((400, 2), torch.nan)
    return state, keys, tried


def breaks(state, *rows):
    state.broken[list(rows)], state.stage[list(rows)] = True, 3


def picked(rows):
    return rows.nonzero().squeeze(1).tolist()


def test_the_first_round_takes_the_nearest_and_a_sample_of_the_others():
    state, keys, tried = after_the_first_round()
    assert tried[:100].all()
    assert int(tried[100:].sum()) == 40  # a tenth of all
    assert torch.equal(pick_sample(state, keys), tried & (torch.arange(400) >= 100))


@pytest.mark.parametrize(("robust", "size"), [(60, 10), (400, 40), (900, 50)])
def test_the_sample_is_a_fraction_within_bounds(robust, size):
    state, keys = EvaluationState.new(torch.zeros(900, *SHAPE)), example_keys(0, torch.arange(900))
    state.margin = torch.arange(900.0)
    state.stage[robust:] = 0
    assert int(pick_round(RACE, 0, state, keys).sum()) == robust // 4 + size


def test_a_later_round_takes_the_nearest_and_the_classes_by_their_margins_in_the_round_before():
    state, keys, _ = after_the_first_round()
    state.scores[:100] = torch.tensor([0.3, 0.1])
    breaks(state, 0)
    assert picked(pick_round(RACE, 1, state, keys)) == list(range(1, 41))
    assert state.ranked[[0, 99, 399]].tolist() == [[2, 1, 3], [2, 1, 3], [1, 2, 3]]


def test_once_one_of_the_sample_is_broken_everything_attacks_all():
    state, keys, tried = after_the_first_round()
    drawn = picked(tried)[100:]
    breaks(state, drawn[3])
    assert torch.equal(pick_round(RACE, 1, state, keys), state.robust)
    assert not pick_sample(state, keys).any()
    assert len(picked(pick_nearest(RACE, state, keys))) == 18  # of 360 outside the sample
    breaks(state, 7)
    assert not pick_more(state, keys).any()
    assert not farther("square-next", state, keys)
    assert not farther("square-far", state, keys)
    assert torch.equal(pick_rest(state, keys), state.robust)


def farther(label, state, keys):
    """What a later stage of Square in :data:`RACE` picks."""
    among = next(stage.among for stage in RACE.stages() if stage.label == label)
    return picked(among(state, keys))


def test_square_goes_on_to_farther_examples_as_long_as_it_breaks_some():
    state, keys, _ = after_the_first_round()
    assert picked(pick_nearest(RACE, state, keys)) == list(range(18))  # of 360 outside the sample
    breaks(state, 7)
    assert picked(pick_more(state, keys)) == [row for row in range(18) if row != 7]
    breaks(state, 0)
    assert farther("square-next", state, keys) == list(range(18, 57))  # a tenth of the 382 others
    breaks(state, 50)
    assert farther("square-far", state, keys) == list(range(57, 126))  # a fifth of the 343 others
    assert not pick_rest(state, keys).any()
    breaks(state, 100)
    assert picked(pick_rest(state, keys)) == list(range(126, 400))


def test_square_ends_after_a_stage_that_broke_none():
    state, keys, _ = after_the_first_round()
    assert pick_nearest(RACE, state, keys).any()
    assert not pick_more(state, keys).any()
    assert not farther("square-next", state, keys)
    assert not farther("square-far", state, keys)
    assert not pick_rest(state, keys).any()
