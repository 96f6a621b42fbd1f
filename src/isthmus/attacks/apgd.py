"""APGD: PGD that chooses its own step sizes (Croce & Hein 2020, arXiv:2003.01690, algorithm 1).

In ℓ1 its steps are sparse, and their sparsity adapts (Croce & Hein 2021, "Mind the box", arXiv:2103.01208,
algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import L1, Threat

FIRST_WINDOW, SHRINK, LEAST = 0.22, 0.03, 0.06  # of the budget: the first window, how each is shorter, the shortest
RISES = 0.75  # share of a window's steps that must raise the loss
MOMENTUM = 0.75  # weight of the new step against the last one

FIRST_SHARE = 0.2  # of the pixels, moved by the first steps in l1
THINNER = 1.5  # a step moves this many times fewer pixels than the best perturbation has
WINDOW = 0.04  # of a phase's budget: steps between two updates of the sparsity
SAME = 0.95  # the best perturbation counts as thinner if it has less than this share of its former pixels
SIZE_SHRINK, SIZE_LEAST = 1.5, 10.0  # if it is not, the step is divided by the first, down to ε over the second
RADII, SHARES = (3.0, 2.0, 1.0), (0.3, 0.3, 0.4)  # in units of ε and of the budget: from wide balls into the true one


@dataclass
class BestState(AttackState):
    """Runs and the best image of each: its loss and gradient."""

    best: Float[Tensor, "n c h w"]
    best_gradient: Float[Tensor, "n c h w"]
    best_loss: Float[Tensor, " n"]

    @classmethod
    def new(cls, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"], **columns: Tensor) -> Self:
        """New runs from these images; ``steps`` is one number for all or one for each."""
        step, budget = counters(len(x), steps, x)
        low = x.new_full((len(x),), -torch.inf)
        best = {"best": x.clone(), "best_gradient": torch.zeros_like(x), "best_loss": low}
        return cls(x=x, step=step, budget=budget, **best, **columns)

    def keep_best(self, answer: Answer) -> None:
        """Replace the best image of each run whose loss is higher now."""
        better = answer.loss > self.best_loss
        images = per_image(better, self.x)
        self.best = torch.where(images, self.x, self.best)
        self.best_gradient = torch.where(images, answer.gradient, self.best_gradient)
        self.best_loss = torch.where(better, answer.loss, self.best_loss)

    def rewind(self, rows: Bool[Tensor, " n"], gradient: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return these runs to their best image; the gradient there, and elsewhere the given one."""
        images = per_image(rows, self.x)
        self.x = torch.where(images, self.best, self.x)
        return torch.where(images, self.best_gradient, gradient)


B = TypeVar("B", bound=BestState)


class APGDOptions(IterativeAttack[B]):
    """Options of APGD.

    Attributes:
        steps: gradient steps of a run.
        loss: what to ascend, from :mod:`isthmus.attacks.losses`.
        targets: 0 for an untargeted attack; else this many runs per restart, each directed at another wrong class,
            those with the largest clean logits first. With ``loss="dlr"`` this is AutoAttack's APGD-T.
        restarts: of each.
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    steps: Annotated[int, Field(gt=0)] = 100
    loss: Literal["ce", "dlr", "margin", "log_odds", "probability"] = "ce"
    targets: Annotated[int, Field(ge=0)] = 0
    restarts: Annotated[int, Field(gt=0)] = 1
    eot: Annotated[int, Field(gt=0)] = 1

    @property
    def label(self) -> str:
        """Name of the attack in results, which includes the loss."""
        return f"apgd-{self.loss}{'-t' if self.targets else ''}"

    @property
    def n_targets(self) -> int:
        """The option ``targets``, at most all wrong classes."""
        return min(self.targets, self._classes - 1)

    def end(self, state: B) -> Float[Tensor, "n c h w"]:
        """The images of highest loss."""
        return state.best


@dataclass
class APGDState(BestState):
    """Runs of APGD: their last images, and the bookkeeping of their step sizes."""

    previous: Float[Tensor, "n c h w"]
    loss: Float[Tensor, " n"]
    size: Float[Tensor, " n"]
    window: Int[Tensor, " n"]
    counted: Int[Tensor, " n"]
    rises: Int[Tensor, " n"]
    loss_before: Float[Tensor, " n"]
    halved: Bool[Tensor, " n"]


class APGD(APGDOptions[APGDState]):
    """Ascent with momentum from a random start, and a step size that halves if a window of steps gains too little.

    ``apgd:20`` is short for 20 steps. In ℓ1 it is :class:`SparseAPGD`.
    """

    name: Literal["apgd"] = "apgd"

    def for_threat(self, threat: Threat, classes: int) -> IterativeAttack[Any]:
        """The attack for one threat; in ℓ1 the sparse variant."""
        if isinstance(threat, L1):
            return SparseAPGD(**self.model_dump(exclude={"name"})).for_threat(threat, classes)
        return super().for_threat(threat, classes)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> APGDState:
        """Start uniformly in the ball."""
        return self.climb(self.threat.random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> APGDState:
        """New runs from these images with a first step of 2ε; ``steps`` is one number for all or one for each."""
        n = len(x)
        step, budget = counters(n, steps, x)
        low = x.new_full((n,), -torch.inf)
        return APGDState.new(
            x,
            budget,
            previous=x.clone(),
            loss=low,
            size=x.new_full((n,), 2 * self.threat.eps),
            window=_fraction(budget, FIRST_WINDOW),
            counted=torch.zeros_like(step),
            rises=torch.zeros_like(step),
            loss_before=low.clone(),
            halved=torch.ones_like(step, dtype=torch.bool),
        )

    def step(self, state: APGDState, batch: Batch, answer: Answer) -> None:
        """Record the answer, perhaps halve the step size and return to the best image, then step."""
        gradient = self._record(state, answer)
        self._move(state, batch, gradient)
        state.step += 1

    def _record(self, state: APGDState, answer: Answer) -> Tensor:
        """Record loss and gradient at x; at the end of a window, rewind runs that gained too little."""
        began = state.step > 0
        state.keep_best(answer)
        state.rises += began & (answer.loss > state.loss)
        state.counted += began
        state.loss_before = torch.where(began, state.loss_before, answer.loss)
        state.loss = answer.loss
        due = state.counted == state.window
        if not due.any():
            return answer.gradient
        few = state.rises <= RISES * state.window
        stuck = ~state.halved & (state.best_loss <= state.loss_before)
        halve = due & (few | stuck)
        self._close_window(state, due, halve)
        return state.rewind(halve, answer.gradient)

    def _close_window(self, state: APGDState, due: Tensor, halve: Tensor) -> None:
        state.size = torch.where(halve, state.size / 2, state.size)
        state.halved = torch.where(due, halve, state.halved)
        state.loss_before = torch.where(due, state.best_loss, state.loss_before)
        shorter = torch.maximum(state.window - _fraction(state.budget, SHRINK), _fraction(state.budget, LEAST))
        state.window = torch.where(due, shorter, state.window)
        state.counted = state.counted.masked_fill(due, 0)
        state.rises = state.rises.masked_fill(due, 0)

    def _move(self, state: APGDState, batch: Batch, gradient: Tensor) -> None:
        stepped = self.threat.project(self.threat.step(state.x, gradient, state.size), batch.images)
        share = per_image(torch.where(state.step > 0, MOMENTUM, 1.0), stepped)
        moved = state.x + share * (stepped - state.x) + (1 - share) * (state.x - state.previous)
        state.previous, state.x = state.x, self.threat.project(moved, batch.images)


@dataclass
class SparseAPGDState(BestState):
    """Runs in ℓ1: the bookkeeping of their step sizes and sparsity."""

    size: Float[Tensor, " n"]
    share: Float[Tensor, " n"]
    pixels: Float[Tensor, " n"]
    counted: Int[Tensor, " n"]
    phase: Int[Tensor, " n"]


class SparseAPGD(APGDOptions[SparseAPGDState]):
    """APGD with steps of few pixels.

    Attributes:
        wide: start in balls of 3ε and 2ε, as AutoAttack does.
    """

    norms: ClassVar[tuple[str, ...]] = ("l1",)
    wide: bool = True

    @property
    def inside(self) -> bool:
        """Whether every iterate is inside the ball."""
        return not self.wide

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the budget that is spent in each ball."""
        return SHARES if self.wide else (1.0,)

    @cached_property
    def balls(self) -> list[Threat]:
        """The balls, from the widest to the true one."""
        return [self.threat.with_eps(radius * self.threat.eps) for radius in (RADII if self.wide else (1.0,))]

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> SparseAPGDState:
        """Start uniformly in the widest ball."""
        return self.climb(self.balls[0].random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> SparseAPGDState:
        """New runs from these images."""
        n, none = len(x), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return SparseAPGDState.new(
            x,
            steps,
            size=x.new_full((n,), self.balls[0].eps),
            share=x.new_full((n,), FIRST_SHARE),
            pixels=x.new_full((n,), float(x[0].numel())),
            counted=none,
            phase=none.clone(),
        )

    def step(self, state: SparseAPGDState, batch: Batch, answer: Answer) -> None:
        """Record the answer, adapt the step size after a window, step; enter the next ball when a phase ends."""
        gradient = self._record(state, batch, answer)
        stepped = state.x + per_image(state.size, state.x) * self._direction(state, gradient)
        state.step += 1
        state.x = self._project(state, self._entering(state, batch, stepped), batch)

    def _record(self, state: SparseAPGDState, batch: Batch, answer: Answer) -> Tensor:
        state.keep_best(answer)
        state.counted += 1
        phase = state.size.new_tensor(self.shares)[state.phase] * state.budget
        due = state.counted > (phase * WINDOW).long().clamp(min=1)
        if not due.any():
            return answer.gradient
        return state.rewind(self._close_window(state, batch, due), answer.gradient)

    def _close_window(self, state: SparseAPGDState, batch: Batch, due: Tensor) -> Tensor:
        """Make steps sparser as the best perturbation gets sparser, else shorter; return which runs rewind."""
        pixels = (state.best != batch.images).flatten(1).sum(1).to(state.pixels)
        thinner = due & (pixels < SAME * state.pixels)
        whole = self._radius(state)
        shorter = torch.maximum(state.size / SIZE_SHRINK, whole / SIZE_LEAST)
        state.size = torch.where(thinner, whole, torch.where(due, shorter, state.size))
        state.share = torch.where(due, pixels / batch.images[0].numel() / THINNER, state.share)
        state.pixels = torch.where(due, pixels, state.pixels)
        state.counted = state.counted.masked_fill(due, 0)
        return thinner

    def _direction(self, state: SparseAPGDState, gradient: Tensor) -> Tensor:
        """The signs of the largest entries, over their number."""
        flat = gradient.flatten(1)
        d = flat.shape[1]
        ranks = ((1 - state.share) * d).long().clamp(0, d - 1)
        least = flat.abs().sort(dim=1).values.gather(1, ranks[:, None])
        signs = torch.where(flat.abs() >= least, flat.sign(), 0.0)
        moved = signs / signs.abs().sum(1, keepdim=True).clamp(min=1)
        return torch.where(flat.isnan(), flat, moved).view_as(gradient)

    def _radius(self, state: SparseAPGDState) -> Tensor:
        return state.size.new_tensor([ball.eps for ball in self.balls])[state.phase]

    def _entering(self, state: SparseAPGDState, batch: Batch, stepped: Tensor) -> Tensor:
        """The next images: as stepped, or at the end of a phase the best, projected into the next ball."""
        ends = torch.tensor(self.shares, device=state.x.device).cumsum(0)
        phase = (state.step[:, None] >= (ends * state.budget[:, None]).round()[:, :-1]).sum(1)
        new = (phase > state.phase).nonzero().squeeze(1)
        if len(new) == 0:
            return stepped
        state.phase = phase
        start = self._project(state, state.best, batch)
        pixels = (start != batch.images).flatten(1).sum(1).to(state.pixels)
        state.size[new], state.best_loss[new] = self._radius(state)[new], -torch.inf
        state.pixels[new], state.share[new] = pixels[new], pixels[new] / batch.images[0].numel() / THINNER
        state.counted[new] = 0
        stepped[new] = start[new]
        return stepped

    def _project(self, state: SparseAPGDState, x: Tensor, batch: Batch) -> Tensor:
        projected = x.clone()
        for phase, ball in enumerate(self.balls):
            rows = (state.phase == phase).nonzero().squeeze(1)
            if len(rows):
                projected[rows] = ball.project(x[rows], batch.images[rows])
        return projected


def _fraction(budget: Tensor, share: float) -> Tensor:
    return (budget * share).long().clamp(min=1)
