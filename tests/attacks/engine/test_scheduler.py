"""The queue, with searches whose every success is written down in advance."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isthmus.attacks.attack import AttackState, counters
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.engine.scheduler import SOON, BatchScheduler
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.threats import Linf

NEVER = 10_000


class Bright(nn.Module):
    """Class 1 where the first pixel is above 0.5; the second pixel tells examples apart."""

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([0.5 - first, first - 0.5], 1)


@dataclass
class Scripted(AttackState):
    example: Tensor
    number: Tensor


class Script:
    """Run k of example i succeeds at step ``plan[i][k]``, and its adversarial image tells k."""

    gradient, inside, ranks, draws = False, True, False, 1

    def __init__(self, plan: list[list[int]], budget: int, barriers: list[int] | None = None) -> None:
        self.plan, self.budget = torch.tensor(plan), budget
        self.runs = self.plan.shape[1]
        self.barriers = barriers or [0] * self.runs
        self.begun: list[tuple[int, int]] = []
        self.scores: dict[tuple[int, int], list[float]] = {}

    def after(self, number):
        return self.barriers[number]

    def target_class(self, number, ranked, scores, keys):
        for row in scores.tolist():
            assert all(score == score for score in row[: self.barriers[number]]), "it began before the barrier"
        return ranked[:, 0]

    def init(self, batch, number):
        example = (batch.images[:, 0, 0, 1] * 100).round().long()
        self.begun += list(zip(example.tolist(), number.tolist(), strict=True))
        runs = Scripted(batch.images.clone(), *counters(len(batch), self.budget, batch.images), example, number)
        self.show(runs)
        return runs

    def show(self, runs):
        success = runs.step + 1 >= self.plan[runs.example, runs.number]
        runs.x[:, 0, 0, 0] = torch.where(success, 0.51 + 0.01 * runs.number, 0.45 - 0.01 * runs.number)

    def step(self, runs: Scripted, batch: Batch, answer: Answer) -> None:
        runs.step += 1
        self.show(runs)


def situation(n: int, size: int) -> EvaluationContext:
    images = torch.full((n, 1, 1, 2), 0.4)
    images[:, 0, 0, 1] = torch.arange(n) / 100
    batch = Batch(images, torch.zeros(n, dtype=torch.int64), torch.arange(n) + 1000)
    state = EvaluationState.new(images)
    state.ranked = torch.ones(n, 1, dtype=torch.int64)
    return EvaluationContext(Verifier(CountedModel(Bright()), Linf(0.3)), batch, state, torch.device("cpu"), size)


def play(
    search: Script, size: int, state: EvaluationState | None = None, step: int = NEVER
) -> tuple[EvaluationState, int]:
    """The state after so many steps at most, and the queries."""
    context = situation(len(search.plan), size)
    if state is None:
        context.state.open_stage(search.runs)
    else:
        context.state = state
    taken = 0
    for _ in BatchScheduler(context, search, "planned", 1).run(torch.arange(len(search.plan))):
        taken += 1
        if taken == step:
            break
    return context.state, taken


def first_success(plan: list[int], budget: int) -> int:
    """The lowest run that succeeds: at one of its looks, or where it stands when its budget is spent."""
    return next((number for number, step in enumerate(plan) if step <= budget + 1), -1)


FOUND = ("broken", "stage", "run", "step", "target_class", "margin", "adversarial")


def same(one: EvaluationState, other: EvaluationState) -> bool:
    return all(torch.equal(getattr(one, name).nan_to_num(-1), getattr(other, name).nan_to_num(-1)) for name in FOUND)


plans = st.integers(1, 5).flatmap(
    lambda runs: st.lists(
        st.lists(st.one_of(st.integers(1, 30), st.just(NEVER)), min_size=runs, max_size=runs), min_size=1, max_size=6
    )
)


@given(plans, st.integers(1, 12), st.integers(1, 25))
@settings(max_examples=30)
def test_the_lowest_run_that_succeeds_counts_whatever_the_batch(plan, size, budget):
    state, _ = play(Script(plan, budget), size)
    assert state.run.tolist() == [first_success(each, budget) for each in plan]
    assert same(state, play(Script(plan, budget), 1)[0])
    stands = state.robust
    assert (state.done[stands] == len(plan[0])).all(), "who stands has spent all runs"
    assert not state.scores[stands].isnan().any()


@given(plans, st.integers(1, 12), st.integers(1, 25), st.integers(1, 40))
@settings(max_examples=30)
def test_one_that_was_stopped_goes_on_to_the_same_end(plan, size, budget, step):
    stopped, _ = play(Script(plan, budget), size, step=step)
    again, _ = play(Script(plan, budget), 5, stopped)
    assert same(again, play(Script(plan, budget), size)[0])


def test_runs_of_one_example_go_side_by_side_where_the_line_is_short():
    plan = [[NEVER] * 9]
    _, alone = play(Script(plan, 20), 1)
    _, together = play(Script(plan, 20), 256)
    assert alone == 9 * 20
    assert together == SOON + 20


def test_the_first_run_goes_alone_at_first():
    search = Script([[3, NEVER, NEVER], [NEVER, 2, NEVER]], 20)
    play(search, 64)
    assert (0, 1) not in search.begun, "the first example broke before it got company"
    assert (1, 2) in search.begun


def test_a_full_line_goes_run_by_run():
    search = Script([[NEVER] * 2] * 12, 10)
    _, step = play(search, 4)
    assert [number for _, number in search.begun] == [0] * 12 + [1] * 12
    assert step == 12 * 2 * 10 // 4, "no place was ever empty"


def test_a_later_success_waits_for_the_earlier_runs_and_cuts_the_later_ones_short():
    search = Script([[18, 2, NEVER]], 20)
    state, step = play(search, 8)
    assert (state.run.item(), state.step.item()) == (0, 17)
    assert step == 18
    search = Script([[NEVER, 2, NEVER]], 20)
    state, step = play(search, 8)
    assert state.run.item() == 1
    assert state.adversarial[0, 0, 0, 0].item() == pytest.approx(0.52)
    assert step == 20, "the first run was over, and nobody waited for the third"


def test_a_run_waits_for_those_that_choose_it():
    barriers = [0, 0, 0, 3, 3, 5]
    search = Script([[NEVER] * 6] * 2, 10, barriers)
    _, step = play(search, 64)
    assert step == SOON + 10 + 10 + 10
    assert sorted(search.begun) == [(i, k) for i in range(2) for k in range(6)]


def test_what_the_model_was_asked_is_on_the_books_of_who_asked():
    search = Script([[NEVER] * 4, [5, 1, 1, 1]], 10)
    context = situation(2, 8)
    context.state.open_stage(4)
    for _ in BatchScheduler(context, search, "planned", 1).run(torch.arange(2)):
        pass
    assert context.state.forwards.tolist() == [4 * 11, 7]  # a success is asked about twice
    assert context.counted_model.forward_passes == 51
