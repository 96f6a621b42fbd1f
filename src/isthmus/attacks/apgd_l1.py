"""APGD in ℓ1: sparse steps whose sparsity adapts (Croce & Hein 2021, "Mind the box", arXiv:2103.01208, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, Directed, counters
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import Threat

FIRST_SHARE = 0.2  # of the pixels that the first steps move
THINNER = 1.5  # a step moves so many times fewer pixels than the best perturbation has
WINDOW = 0.04  # of a phase's budget: steps between two looks at the sparsity
SAME = 0.95  # the best perturbation counts as thinner where it has less than this share of its former pixels
SHRINK, LEAST = 1.5, 10.0  # the step falls by the first factor where it is not, down to ε over the second
RADII, SHARES = (3.0, 2.0, 1.0), (0.3, 0.3, 0.4)  # in units of ε and of the budget: from wide balls into the true one


@dataclass
class SparseClimb(AttackState):
    """A run in ℓ1: the best it saw, and the bookkeeping of its step's size and sparsity."""

    best: Float[Tensor, "n c h w"]
    best_gradient: Float[Tensor, "n c h w"]
    best_loss: Float[Tensor, " n"]
    size: Float[Tensor, " n"]
    share: Float[Tensor, " n"]
    pixels: Float[Tensor, " n"]
    counted: Int[Tensor, " n"]
    phase: Int[Tensor, " n"]


class SparseApgd(Directed[SparseClimb]):
    """APGD with steps of few pixels. ``widely`` begins in balls of 3ε and 2ε, as AutoAttack does."""

    def __init__(
        self,
        loss: str,
        steps: int,
        threat: Threat,
        targets: int,
        restarts: int = 1,
        eot: int = 1,
        widely: bool = True,
    ) -> None:
        self.loss, self.steps, self.threat, self.targets, self.eot = loss, steps, threat, targets, eot
        self.runs = max(targets, 1) * restarts
        self.shares: tuple[float, ...] = SHARES if widely else (1.0,)
        self.inside = not widely
        self.balls = [threat.with_eps(radius * threat.eps) for radius in (RADII if widely else (1.0,))]

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> SparseClimb:
        """Uniformly in the widest ball."""
        return self.climb(self.balls[0].random_start(batch.images, batch.keys), self.steps)

    def climb(self, x: Float[Tensor, "n c h w"], steps: int | Int[Tensor, " n"]) -> SparseClimb:
        """Runs from these images."""
        n = len(x)
        step, budget = counters(n, steps, x)
        low = x.new_full((n,), -torch.inf)
        return SparseClimb(
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

    def step(self, runs: SparseClimb, batch: Batch, answer: Answer) -> None:
        """Note what was seen, adapt the step now and then, step; and enter the next ball when it is time."""
        gradient = self._note(runs, batch, answer)
        stepped = runs.x + per_image(runs.size, runs.x) * self._direction(runs, gradient)
        runs.step += 1
        runs.x = self._project(runs, self._entering(runs, batch, stepped), batch)

    def _note(self, runs: SparseClimb, batch: Batch, answer: Answer) -> Tensor:
        better = answer.loss > runs.best_loss
        runs.best = torch.where(per_image(better, runs.x), runs.x, runs.best)
        runs.best_gradient = torch.where(per_image(better, runs.x), answer.gradient, runs.best_gradient)
        runs.best_loss = torch.where(better, answer.loss, runs.best_loss)
        runs.counted += 1
        phase = runs.size.new_tensor(self.shares)[runs.phase] * runs.budget
        due = runs.counted > (phase * WINDOW).long().clamp(min=1)
        if not due.any():
            return answer.gradient
        rewind = self._close_window(runs, batch, due)
        runs.x = torch.where(per_image(rewind, runs.x), runs.best, runs.x)
        return torch.where(per_image(rewind, runs.x), runs.best_gradient, answer.gradient)

    def _close_window(self, runs: SparseClimb, batch: Batch, due: Tensor) -> Tensor:
        """Thin out steps after the best perturbation, or shorten them where it grows no thinner; says who rewinds."""
        pixels = (runs.best != batch.images).flatten(1).sum(1).to(runs.pixels)
        thinner = due & (pixels < SAME * runs.pixels)
        whole = self._radius(runs)
        shorter = torch.maximum(runs.size / SHRINK, whole / LEAST)
        runs.size = torch.where(thinner, whole, torch.where(due, shorter, runs.size))
        runs.share = torch.where(due, pixels / batch.images[0].numel() / THINNER, runs.share)
        runs.pixels = torch.where(due, pixels, runs.pixels)
        runs.counted = runs.counted.masked_fill(due, 0)
        return thinner

    def _direction(self, runs: SparseClimb, gradient: Tensor) -> Tensor:
        """The signs of the largest entries, over their number."""
        flat = gradient.flatten(1)
        d = flat.shape[1]
        ranks = ((1 - runs.share) * d).long().clamp(0, d - 1)
        least = flat.abs().sort(dim=1).values.gather(1, ranks[:, None])
        signs = torch.where(flat.abs() >= least, flat.sign(), 0.0)
        moved = signs / signs.abs().sum(1, keepdim=True).clamp(min=1)
        return torch.where(flat.isnan(), flat, moved).view_as(gradient)

    def _radius(self, runs: SparseClimb) -> Tensor:
        return runs.size.new_tensor([ball.eps for ball in self.balls])[runs.phase]

    def _entering(self, runs: SparseClimb, batch: Batch, stepped: Tensor) -> Tensor:
        """Where runs go: as stepped; or, at the end of a phase, from the best into the next ball, as if newly begun."""
        if len(self.balls) == 1:
            return stepped
        ends = torch.tensor(self.shares, device=runs.x.device).cumsum(0)
        phase = (runs.step[:, None] >= (ends * runs.budget[:, None]).round()[:, :-1]).sum(1)
        new = (phase > runs.phase).nonzero().squeeze(1)
        if len(new) == 0:
            return stepped
        runs.phase = phase
        start = self._project(runs, runs.best, batch)
        pixels = (start != batch.images).flatten(1).sum(1).to(runs.pixels)
        runs.size[new], runs.best_loss[new] = self._radius(runs)[new], -torch.inf
        runs.pixels[new], runs.share[new] = pixels[new], pixels[new] / batch.images[0].numel() / THINNER
        runs.counted[new] = 0
        stepped[new] = start[new]
        return stepped

    def _project(self, runs: SparseClimb, x: Tensor, batch: Batch) -> Tensor:
        if len(self.balls) == 1:
            return self.threat.project(x, batch.images)
        projected = x.clone()
        for phase, ball in enumerate(self.balls):
            rows = (runs.phase == phase).nonzero().squeeze(1)
            if len(rows):
                projected[rows] = ball.project(x[rows], batch.images[rows])
        return projected
