"""C&W: the smallest ℓ2 perturbation by Adam in tanh space (Carlini & Wagner 2017, arXiv:1608.04644, section VI).

The options are those of CleverHans 2.1 and Foolbox 1 and 2. Unlike these, every row has its own search for
the weight c and its own early abort: a row that stalls continues with its next c at once, whatever its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine.batch import Batch, per_image
from isthmus.attacks.engine.counted_model import Answer

SHRINK = 0.999999  # of images about ½, so that artanh is finite at black and white
STALLED = 0.9999  # a loss that is no smaller than this share of the last one compared has stalled
CHECKS = 10  # comparisons of the loss in one descent
GROWTH = 10.0  # of c while no weight has sufficed
BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-8  # Adam's own


@dataclass
class CWState(AttackState):
    """Adam's state at one weight, and the bisection of weights.

    Attributes:
        w: the image in tanh space: x = ½(tanh w + 1).
        mean, square: moving averages of the gradient in w and of its square.
        const, low, high: the weight c, the largest that did not suffice, and the smallest that did (∞ before one has).
        tried: weights that are over.
        adam_step: Adam steps at this one.
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


class CW(IterativeAttack[CWState]):
    """Descend ‖x' − x̃‖² + c·max(0, z_y − max_{j≠y} z_j + κ), for one weight c after another.

    In a ball the attack ends at the first adversarial image inside it; otherwise (see
    :func:`isthmus.attacks.minimal_norm.minimal_norms`) it continues to the smallest perturbation it can find. Each row
    has its own weight and step.

    ``cw:200`` is short for 200 steps per weight c.

    Attributes:
        steps: Adam steps for each weight.
        binary_search_steps: weights c that are tried one after another.
        learning_rate: of Adam.
        initial_const: first weight c of misclassification against distance.
        confidence: κ, by how many logits another class must win.
        abort_early: continue with the next weight if a tenth of the steps lowers the loss by less than 0.01%.
        eot: draws of a random model to average over at each step.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)
    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "steps"
    name: Literal["cw"] = "cw"
    steps: Annotated[int, Field(gt=0)] = 1000
    binary_search_steps: Annotated[int, Field(gt=0)] = 5
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-3
    initial_const: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    abort_early: bool = True
    eot: Annotated[int, Field(gt=0)] = 1

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> CWState:
        """At the image, with the first weight."""
        n = len(batch)
        w = _into_tanh_space(batch.images)
        step, budget = counters(n, self.steps * self.binary_search_steps, w)
        return CWState(
            x=_out_of_tanh_space(w),
            step=step,
            budget=budget,
            w=w,
            mean=torch.zeros_like(w),
            square=torch.zeros_like(w),
            const=w.new_full((n,), self.initial_const),
            low=w.new_zeros(n),
            high=w.new_full((n,), torch.inf),
            tried=torch.zeros_like(step),
            adam_step=torch.zeros_like(step),
            won=torch.zeros_like(step, dtype=torch.bool),
            loss=w.new_full((n,), torch.inf),
        )

    def objective(self, state: CWState, batch: Batch, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """max_{j≠y} z_j − z_y, or z_t − max_{j≠t} z_j for a target; the rest of the loss needs no model."""
        return -batch.margin(logits)

    def step(self, state: CWState, batch: Batch, answer: Answer) -> None:
        """One step of Adam; then the next weight, if this one's steps are spent or have stalled."""
        short = self.confidence - answer.loss  # logits short of success with confidence
        away = state.x - (0.5 + SHRINK * (batch.images - 0.5))  # from the image as tanh space gives it back
        loss = away.square().flatten(1).sum(1) + state.const * short.clamp(min=0)
        state.won |= short < 0
        state.step += 1
        over = self._over(state, loss)
        # a product rather than a selection, so that a gradient of NaN reaches the image, and the verifier
        pull = (state.const * (short > 0)).to(away.dtype)
        self._descend(state, 2 * away - per_image(pull, away) * answer.gradient)
        if over.any():
            self._next_weight(state, batch, over)

    def _over(self, state: CWState, loss: Tensor) -> Tensor:
        """Count a step; return which rows have finished their weight."""
        every = max(self.steps // CHECKS, 1)
        compared = (state.adam_step % every == 0) & self.abort_early
        stalled = compared & (loss > STALLED * state.loss)
        state.loss = torch.where(compared, loss, state.loss)
        state.adam_step += 1
        return stalled | (state.adam_step >= self.steps)

    def _descend(self, state: CWState, gradient: Tensor) -> None:
        """Adam (Kingma & Ba 2015, algorithm 1) in w, where dx/dw = ½(1 − tanh² w) = 2x(1 − x)."""
        gradient *= (2 * state.x).mul_(1 - state.x)
        state.mean.lerp_(gradient, 1 - BETA_1)
        state.square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        adam_step = state.adam_step.double()
        size = (self.learning_rate / (1 - BETA_1**adam_step)).float()
        spread = (1 - BETA_2**adam_step).rsqrt().float()
        divisor = state.square.sqrt().mul_(per_image(spread, gradient)).add_(TINY)
        state.w -= (state.mean * per_image(size, gradient)).div_(divisor)
        state.x = _out_of_tanh_space(state.w)

    def _next_weight(self, state: CWState, batch: Batch, over: Tensor) -> None:
        """Bisect between the weights that sufficed and those that did not, or grow; start again at the image."""
        state.high = torch.where(over & state.won, torch.minimum(state.high, state.const), state.high)
        state.low = torch.where(over & ~state.won, torch.maximum(state.low, state.const), state.low)
        following = torch.where(state.high < torch.inf, (state.low + state.high) / 2, state.const * GROWTH)
        state.const = torch.where(over, following, state.const)
        state.tried += over
        last = over & (state.tried >= self.binary_search_steps)
        state.budget = torch.where(last, state.step, state.budget)
        again = (over & ~last).nonzero().squeeze(1)
        state.w[again] = _into_tanh_space(batch.images[again])
        state.x[again] = _out_of_tanh_space(state.w[again])
        state.mean[again], state.square[again] = 0.0, 0.0
        state.adam_step[again], state.won[again], state.loss[again] = 0, False, torch.inf


def _into_tanh_space(images: Tensor) -> Tensor:
    return (SHRINK * (2 * images - 1)).atanh()


def _out_of_tanh_space(w: Tensor) -> Tensor:
    return w.tanh().add_(1).mul_(0.5)
