"""The race: exact in ℓ1 on linear models, an order of rounds by margins, and hopeless runs that retire."""

import pytest
import torch

from isthmus.attacks import Race
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.race import RaceRounds, pick_nearest, pick_next, pick_rest, pick_sample
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


def test_later_rounds_take_the_classes_of_smallest_margin():
    rounds = RaceRounds(rounds=((3, 2), (2, 4), (1, 8)), patience=2.0).for_threat(Linf(0.1), 5)
    assert (rounds.runs, [rounds.after(run) for run in range(6)]) == (6, [0, 0, 0, 3, 3, 5])
    ranked = torch.tensor([[4, 2, 1, 3]])
    scores = torch.tensor([[0.3, 0.1, 0.2, 0.4, 0.05, torch.nan]])
    chosen = [int(rounds.target_class(run, ranked, scores, torch.tensor([0]))) for run in range(6)]
    assert chosen == [4, 2, 1, 2, 1, 1]


@pytest.mark.parametrize(("gain", "retires"), [(0.0, True), (0.4, False)])
def test_a_run_retires_if_twice_its_gain_would_not_break_the_example(gain, retires):
    """The loss starts at −1 and gains ``gain`` in the first window of 22 steps; 78 steps follow."""
    rounds = RaceRounds(rounds=((1, 100),), patience=2.0).for_threat(Linf(0.1), 2)
    images = pictures(1)
    batch = Batch(images, torch.tensor([0]), example_keys(0, torch.arange(1)))
    runs = rounds.init(batch, torch.zeros(1, dtype=torch.int64))
    for step in range(23):
        loss = torch.tensor([-1 + gain * step / 22])
        rounds.step(runs, batch, Answer(torch.tensor([[1.0, 0.0]]), loss, torch.ones(1, *SHAPE)))
    assert bool(runs.budget < 100) == retires


def test_a_round_has_at_most_as_many_classes_as_the_one_before():
    with pytest.raises(ConfigError, match="at most as many classes"):
        Race(rounds=((3, 10), (9, 30)))


RACE = Race(near=0.1, drawn=50)


def after_the_sample():
    """400 robust examples, ordered by their margins, once Square has attacked the nearest 40 and 50 others."""
    state, keys = EvaluationState.new(torch.zeros(400, *SHAPE)), example_keys(0, torch.arange(400))
    state.margin = torch.arange(400.0)
    tried = pick_sample(RACE, state, keys)
    assert tried[:40].all()
    assert int(tried.sum()) == 90
    return state, keys, tried.nonzero().squeeze(1)[40:]


def breaks(state, *rows):
    state.broken[list(rows)], state.stage[list(rows)] = True, 3


def picked(rows):
    return rows.nonzero().squeeze(1).tolist()


def test_square_goes_on_to_farther_examples_as_long_as_it_breaks_some():
    state, keys, _ = after_the_sample()
    breaks(state, 7)
    first = picked(pick_nearest(RACE, state, keys))
    assert first == [row for row in range(21) if row != 7]  # a twentieth of the 399 robust ones
    breaks(state, 0, 20)
    assert picked(pick_next(RACE, state, keys)) == list(range(21, 59))  # a tenth of the 379 others
    breaks(state, 58)
    assert picked(pick_rest(state, keys)) == list(range(59, 400))


@pytest.mark.parametrize("at", ["sample", "nearest", "next"])
def test_square_stops_after_a_stage_that_broke_none(at):
    state, keys, _ = after_the_sample()
    for stage, row, pick in (("sample", 7, pick_nearest), ("nearest", 0, pick_next), ("next", 30, None)):
        if stage == at:
            break
        breaks(state, row)
        assert pick(RACE, state, keys).any()
    later = [pick_nearest, pick_next][["sample", "nearest", "next"].index(at) :]
    assert not any(pick(RACE, state, keys).any() for pick in later)
    assert not pick_rest(state, keys).any()


def test_square_attacks_all_at_once_if_it_broke_an_example_drawn_at_random():
    state, keys, drawn = after_the_sample()
    breaks(state, 7, int(drawn[0]))
    assert not pick_nearest(RACE, state, keys).any()
    assert not pick_next(RACE, state, keys).any()
    assert int(pick_rest(state, keys).sum()) == 398
