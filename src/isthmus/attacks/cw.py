"""C&W: the smallest ℓ2 perturbation by Adam in tanh space (Carlini & Wagner 2017, arXiv:1608.04644, section VI).

The options are those of CleverHans 2.1 and Foolbox 1 and 2. Unlike in these, the search for the weight c and the early
abort know one row at a time: a row that stalls goes to its next c at once, whoever else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer
from isthmus.attacks.engine.iterative import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.rows import per_image
from isthmus.attacks.threats import L2, Threat
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError

SHRINK = 0.999999  # of images about ½, so that artanh is finite at black and white
STALLED = 0.9999  # a loss that is no smaller than this share of the last one compared has stalled
CHECKS = 10  # comparisons of the loss in one descent
GROWTH = 10.0  # of c while no weight has sufficed
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # Adam's own


class Config(Component):
    """Options of C&W. ``cw:200`` is short for 200 steps per weight c.

    Attributes:
        steps: Adam steps for each weight.
        binary_search_steps: weights c that are tried one after another.
        learning_rate: of Adam.
        initial_const: first weight c of misclassification against distance.
        confidence: κ, by how many logits another class must win.
        abort_early: go on to the next weight where a tenth of the steps lowers the loss by less than a ten-thousandth.
        eot: draws of a random model to average over at each step.
    """

    argument: ClassVar[str | None] = "steps"
    name: Literal["cw"] = "cw"
    steps: Annotated[int, Field(gt=0)] = 1000
    binary_search_steps: Annotated[int, Field(gt=0)] = 5
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-3
    initial_const: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    abort_early: bool = True
    eot: Annotated[int, Field(gt=0)] = 1


def search(config: Config, threat: Threat, classes: int) -> IterativeAttack[Descent]:
    """Descend ‖x' − x̃‖² + c·max(0, z_y − max_{j≠y} z_j + κ), for one c after another.

    In a ball the search ends at the first adversarial image inside it; without one (see
    :func:`isthmus.attacks.minimal_norm.minimal_norms`) it goes on to the smallest perturbation it can find.

    Raises:
        ConfigError: the threat is not ℓ2.
    """
    if not isinstance(threat, L2):
        raise ConfigError(f"The attack 'cw' minimises the ℓ2 norm and knows no {threat.name}; use l2, or fab or fmn.")
    return CarliniWagner(config)


@dataclass
class Descent(AttackState):
    """Adam's state at one weight, and the bisection of weights.

    Attributes:
        w: the image in tanh space: x = ½(tanh w + 1).
        mean, square: moving averages of the gradient in w and of its square.
        const, low, high: the weight c, the largest that did not suffice, and the smallest that did (∞ before one has).
        tried: weights that are over.
        step: Adam steps at this one.
        won: whether it has sufficed.
        loss: when last compared.
    """

    w: Float[Tensor, "n c h w"]
    mean: Float[Tensor, "n c h w"]
    square: Float[Tensor, "n c h w"]
    const: Float[Tensor, " n"]
    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]
    tried: Int[Tensor, " n"]
    adam_step: Int[Tensor, " n"]
    won: Bool[Tensor, " n"]
    loss: Float[Tensor, " n"]


class CarliniWagner(IterativeAttack[Descent]):
    """Each row at its own weight and step."""

    inside = False

    def __init__(self, config: Config) -> None:
        self.config, self.eot = config, config.eot
        self.every = max(config.steps // CHECKS, 1)

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> Descent:
        """At the image, with the first weight."""
        n = len(batch)
        w = _into_tanh_space(batch.images)
        step, budget = counters(n, self.config.steps * self.config.binary_search_steps, w)
        return Descent(
            x=_out_of_tanh_space(w),
            step=step,
            budget=budget,
            w=w,
            mean=torch.zeros_like(w),
            square=torch.zeros_like(w),
            const=w.new_full((n,), self.config.initial_const),
            low=w.new_zeros(n),
            high=w.new_full((n,), torch.inf),
            tried=torch.zeros_like(step),
            adam_step=torch.zeros_like(step),
            won=torch.zeros_like(step, dtype=torch.bool),
            loss=w.new_full((n,), torch.inf),
        )

    def objective(self, runs: Descent, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """max_{j≠y} z_j − z_y, or z_t − max_{j≠t} z_j for a target; the rest of the loss needs no model."""
        return -batch.margin(logits)

    def step(self, runs: Descent, batch: Batch, answer: Answer) -> None:
        """One step of Adam; then the next weight, where this one's steps are spent or in vain."""
        short = self.config.confidence - answer.loss  # logits short of success with confidence
        away = runs.x - (0.5 + SHRINK * (batch.images - 0.5))  # from the image as tanh space gives it back
        loss = away.square().flatten(1).sum(1) + runs.const * short.clamp(min=0)
        runs.won |= short < 0
        runs.step += 1
        over = self._over(runs, loss)
        # a product rather than a selection, so that a gradient of NaN reaches the image, and the judge
        pull = (runs.const * (short > 0)).to(away.dtype)
        self._descend(runs, 2 * away - per_image(pull, away) * answer.gradient)
        if over.any():
            self._next_weight(runs, batch, over)

    def _over(self, runs: Descent, loss: Tensor) -> Tensor:
        """Count a step; says which rows are through with their weight."""
        compared = (runs.adam_step % self.every == 0) & self.config.abort_early
        stalled = compared & (loss > STALLED * runs.loss)
        runs.loss = torch.where(compared, loss, runs.loss)
        runs.adam_step += 1
        return stalled | (runs.adam_step >= self.config.steps)

    def _descend(self, runs: Descent, gradient: Tensor) -> None:
        """Adam (Kingma & Ba 2015, algorithm 1) in w, where dx/dw = ½(1 − tanh² w) = 2x(1 − x)."""
        gradient *= (2 * runs.x).mul_(1 - runs.x)
        runs.mean.lerp_(gradient, 1 - BETA_1)
        runs.square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        adam_step = runs.adam_step.double()
        size = (self.config.learning_rate / (1 - BETA_1**adam_step)).float()
        spread = (1 - BETA_2**adam_step).rsqrt().float()
        divisor = runs.square.sqrt().mul_(per_image(spread, gradient)).add_(TINY)
        runs.w -= (runs.mean * per_image(size, gradient)).div_(divisor)
        runs.x = _out_of_tanh_space(runs.w)

    def _next_weight(self, runs: Descent, batch: Batch, over: Tensor) -> None:
        """Bisect between the weights that sufficed and those that did not, or grow; begin anew at the image."""
        runs.high = torch.where(over & runs.won, torch.minimum(runs.high, runs.const), runs.high)
        runs.low = torch.where(over & ~runs.won, torch.maximum(runs.low, runs.const), runs.low)
        following = torch.where(runs.high < torch.inf, (runs.low + runs.high) / 2, runs.const * GROWTH)
        runs.const = torch.where(over, following, runs.const)
        runs.tried += over
        last = over & (runs.tried >= self.config.binary_search_steps)
        runs.budget = torch.where(last, runs.step, runs.budget)
        again = (over & ~last).nonzero().squeeze(1)
        runs.w[again] = _into_tanh_space(batch.images[again])
        runs.x[again] = _out_of_tanh_space(runs.w[again])
        runs.mean[again], runs.square[again] = 0.0, 0.0
        runs.adam_step[again], runs.won[again], runs.loss[again] = 0, False, torch.inf


def _into_tanh_space(images: Tensor) -> Tensor:
    return (SHRINK * (2 * images - 1)).atanh()


def _out_of_tanh_space(w: Tensor) -> Tensor:
    return w.tanh().add_(1).mul_(0.5)
