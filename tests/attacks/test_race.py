"""The race: exact in ℓ1 on linear models, which examples and classes each stage takes, and runs that retire."""

import pytest
import torch
from pydantic import PrivateAttr
from torch import nn

from isthmus.attacks import PGD, Race, robust_accuracy
from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.race import (
    FirstRun,
    RaceRuns,
    pick_more,
    pick_nearest,
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


def start(robust=400):
    """Robust examples, ordered by their margins, and what the first round picks of them at first."""
    state, keys = EvaluationState.new(torch.zeros(robust, *SHAPE)), example_keys(0, torch.arange(robust))
    state.margin = torch.arange(float(robust))
    state.ranked = torch.tensor([[1, 2, 3]]).repeat(robust, 1)
    state.scores = torch.full((robust, 2), torch.nan)
    return state, keys, picked(pick_round(RACE, 0, state, keys))


def breaks(state, *rows):
    state.broken[list(rows)], state.stage[list(rows)] = True, 3


def picked(rows):
    return rows.nonzero().squeeze(1).tolist()


@pytest.mark.parametrize(("robust", "size"), [(60, 10), (400, 40), (900, 50)])
def test_the_first_round_takes_the_nearest_and_a_sample_of_the_others(robust, size):
    nearest, (_, _, tried) = robust // 4, start(robust)
    assert tried[:nearest] == list(range(nearest))
    assert len(tried) == nearest + size  # a tenth, at least 10 and at most 50


def test_a_round_continues_while_it_breaks_one_of_the_quarter_with_the_largest_margins():
    state, keys, tried = start()
    sample = tried[100:]
    breaks(state, 75)
    second = picked(pick_round(RACE, 0, state, keys))
    assert second == [row for row in range(100, 300) if row not in sample][: len(second)]
    assert len(second) == 65  # a quarter of 260 others
    breaks(state, second[0])
    assert not pick_round(RACE, 0, state, keys).any()


def test_a_later_round_takes_the_nearest_and_the_classes_by_their_margins_in_the_round_before():
    state, keys, _ = start()
    state.scores[:100] = torch.tensor([0.3, 0.1])
    breaks(state, 0)
    assert not pick_round(RACE, 0, state, keys).any()
    assert state.ranked[[0, 99, 399]].tolist() == [[2, 1, 3], [2, 1, 3], [1, 2, 3]]
    assert picked(pick_round(RACE, 1, state, keys)) == list(range(1, 41))


def test_once_one_of_the_sample_is_broken_everything_attacks_all():
    state, keys, tried = start()
    breaks(state, tried[103])
    assert picked(pick_round(RACE, 0, state, keys)) == [row for row in range(400) if row not in tried]
    assert not pick_round(RACE, 0, state, keys).any()
    assert torch.equal(pick_round(RACE, 1, state, keys), state.robust)
    assert not pick_sample(state, keys).any()
    assert picked(pick_nearest(RACE, state, keys)) == list(range(20))
    assert torch.equal(pick_more(RACE, state, keys), state.robust)
    assert not pick_more(RACE, state, keys).any()


def test_square_attacks_the_nearest_and_those_of_the_sample_that_are_not_among_them():
    state, keys, tried = start()
    state.margin[tried[100]] = -1.0
    assert picked(pick_nearest(RACE, state, keys)) == [*range(19), tried[100]]
    assert picked(pick_sample(state, keys)) == tried[101:]


def test_square_continues_with_twice_as_many_while_it_breaks_any():
    state, keys, _ = start()
    assert picked(pick_nearest(RACE, state, keys)) == list(range(20))
    breaks(state, 7)
    assert picked(pick_more(RACE, state, keys)) == [row for row in range(21) if row != 7]
    breaks(state, 0)
    assert picked(pick_more(RACE, state, keys)) == list(range(21, 61))
    breaks(state, 30)
    assert picked(pick_more(RACE, state, keys)) == list(range(61, 141))
    assert not pick_more(RACE, state, keys).any()


def test_square_continues_if_it_broke_all_of_the_nearest():
    state, keys, _ = start(60)
    assert picked(pick_nearest(RACE, state, keys)) == [0, 1, 2]
    breaks(state, 0, 1, 2)
    assert picked(pick_more(RACE, state, keys)) == [3, 4, 5]


def test_a_single_example_of_a_round_decides_whether_it_continues():
    race = Race(rounds=((0.01, 2, 10),), drawn=0)
    state, keys, _ = start(60)
    state.marks.zero_()
    assert picked(pick_round(race, 0, state, keys)) == [0]
    breaks(state, 0)
    assert picked(pick_round(race, 0, state, keys)) == [1]
    assert not pick_round(race, 0, state, keys).any()


def test_another_race_begins_anew():
    state, keys, tried = start()
    assert pick_nearest(RACE, state, keys).any()
    assert not pick_more(RACE, state, keys).any()
    assert picked(pick_round(RACE, 0, state, keys)) == tried


def test_square_ends_if_it_broke_none_of_the_nearest():
    state, keys, _ = start()
    assert pick_nearest(RACE, state, keys).any()
    assert not pick_more(RACE, state, keys).any()


class Sure(nn.Module):
    """Never wrong."""

    def forward(self, images):
        return torch.stack([images.mean((1, 2, 3)) + 5, images.sum((1, 2, 3)) * 0], 1)


def test_a_growing_stage_is_asked_until_it_picks_none():
    """Three groups of two images, each attacked once."""
    groups = [[0, 1], [2, 3], [4, 5], []]
    asked = iter(groups)

    def among(state, keys):
        return torch.zeros_like(state.robust).index_fill(0, torch.tensor(next(asked), dtype=torch.int64), True)

    stage = Stage("grows", PGD(steps=3), among, grows=True)
    found = robust_accuracy(Sure(), torch.full((8, *SHAPE), 0.5), torch.zeros(8, dtype=torch.int64), Linf(0.1), [stage])
    assert next(asked, "none") == "none"
    spent = found.state.backwards.tolist()
    assert spent == [3] * 6 + [0] * 2
