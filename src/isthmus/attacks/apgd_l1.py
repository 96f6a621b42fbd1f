"""APGD in ℓ1: sparse steps whose sparsity adapts (Croce & Hein 2021, "Mind the box", arXiv:2103.01208, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Generic, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, Directed, S, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.threats import Threat

FIRST_SHARE = 0.2  # of the pixels, moved by the first steps
THINNER = 1.5  # a step moves this many times fewer pixels than the best perturbation has
WINDOW = 0.04  # of a phase's budget: steps between two updates of the sparsity
SAME = 0.95  # the best perturbation counts as thinner where it has less than this share of its former pixels
SHRINK, LEAST = 1.5, 10.0  # the step falls by the first factor where it is not, down to ε over the second
RADII, SHARES = (3.0, 2.0, 1.0), (0.3, 0.3, 0.4)  # in units of ε and of the budget: from wide balls into the true one


@dataclass
class SparseAPGDState(AttackState):
    """A run in ℓ1: its best image, and the bookkeeping of its step size and sparsity."""

    best: Float[Tensor, "n c h w"]
    best_gradient: Float[Tensor, "n c h w"]
    best_loss: Float[Tensor, " n"]
    size: Float[Tensor, " n"]
    share: Float[Tensor, " n"]
    pixels: Float[Tensor, " n"]
    counted: Int[Tensor, " n"]
    phase: Int[Tensor, " n"]


class APGDOptions(Directed[S], Generic[S]):
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

    def objective(self, state: S, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The loss, directed at the row's target class if it has one."""
        return batch.ascend(self.loss, logits)


class SparseAPGD(APGDOptions[SparseAPGDState]):
    """APGD with steps of few pixels. If ``widely``, it starts in balls of 3ε and 2ε, as AutoAttack does."""

    norms: ClassVar[tuple[str, ...]] = ("l1",)
    widely: ClassVar[bool] = True

    @property
    def inside(self) -> bool:
        """Whether every iterate is inside the ball."""
        return not self.widely

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the budget that is spent in each ball."""
        return SHARES if self.widely else (1.0,)

    @cached_property
    def balls(self) -> list[Threat]:
        """The balls, from the widest to the true one."""
        return [self.threat.with_eps(radius * self.threat.eps) for radius in (RADII if self.widely else (1.0,))]

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> SparseAPGDState:
        """Start uniformly in the widest ball."""
        return self.climb(self.balls[0].random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> SparseAPGDState:
        """New runs from these images."""
        n = len(x)
        step, budget = counters(n, steps, x)
        low = x.new_full((n,), -torch.inf)
        return SparseAPGDState(
            x=x,
            step=step,
            budget=budget,
            best=x.clone(),
            best_gradient=torch.zeros_like(x),
            best_loss=low,
            size=x.new_full((n,), self.balls[0].eps),
            share=x.new_full((n,), FIRST_SHARE),
            pixels=x.new_full((n,), float(x[0].numel())),
            counted=torch.zeros_like(step),
            phase=torch.zeros_like(step),
        )

    def step(self, state: SparseAPGDState, batch: Batch, answer: Answer) -> None:
        """Record the answer, adapt the step size after a window, step; enter the next ball when a phase ends."""
        gradient = self._record(state, batch, answer)
        stepped = state.x + per_image(state.size, state.x) * self._direction(state, gradient)
        state.step += 1
        state.x = self._project(state, self._entering(state, batch, stepped), batch)

    def _record(self, state: SparseAPGDState, batch: Batch, answer: Answer) -> Tensor:
        better = answer.loss > state.best_loss
        state.best = torch.where(per_image(better, state.x), state.x, state.best)
        state.best_gradient = torch.where(per_image(better, state.x), answer.gradient, state.best_gradient)
        state.best_loss = torch.where(better, answer.loss, state.best_loss)
        state.counted += 1
        phase = state.size.new_tensor(self.shares)[state.phase] * state.budget
        due = state.counted > (phase * WINDOW).long().clamp(min=1)
        if not due.any():
            return answer.gradient
        rewind = self._close_window(state, batch, due)
        state.x = torch.where(per_image(rewind, state.x), state.best, state.x)
        return torch.where(per_image(rewind, state.x), state.best_gradient, answer.gradient)

    def _close_window(self, state: SparseAPGDState, batch: Batch, due: Tensor) -> Tensor:
        """Make steps sparser as the best perturbation gets sparser, else shorter; return which runs rewind."""
        pixels = (state.best != batch.images).flatten(1).sum(1).to(state.pixels)
        thinner = due & (pixels < SAME * state.pixels)
        whole = self._radius(state)
        shorter = torch.maximum(state.size / SHRINK, whole / LEAST)
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
        """Where runs go: as stepped; or, at the end of a phase, from the best into the next ball, as if newly begun."""
        if len(self.balls) == 1:
            return stepped
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
        if len(self.balls) == 1:
            return self.threat.project(x, batch.images)
        projected = x.clone()
        for phase, ball in enumerate(self.balls):
            rows = (state.phase == phase).nonzero().squeeze(1)
            if len(rows):
                projected[rows] = ball.project(x[rows], batch.images[rows])
        return projected
