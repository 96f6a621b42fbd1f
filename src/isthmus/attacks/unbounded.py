"""Unbounded: gradient ascent without ball and box, a check more than an attack.

Unbounded perturbations fool any classifier, so accuracy must reach 0. If it does not, gradients vanish or mislead, and
robustness to them is not genuine (Athalye et al. 2018, arXiv:1802.00420, section 3.1). The step x ← x + α·g/‖g‖₂ or
x + α·sign g with α = 0.01 is that of "A Rate-Distortion Theory of Adversarial Examples" (submitted to ICLR 2019,
section 4.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from isthmus.attacks.attack import AttackState, IterativeAttack, counters
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.threats import L2, Linf, Threat
from isthmus.core.preserve_state import device_of, preserve_state

DIRECTIONS: dict[str, Threat] = {"l2": L2(1.0), "linf": Linf(1.0)}
"""Norms of a step; of these threats only the direction of steepest ascent is used, not the ball."""


@dataclass(frozen=True)
class Ascent:
    """Accuracy along an unbounded ascent; the lists have one entry for each number of steps in ``steps``.

    Attributes:
        n: examples.
        steps: gradient steps taken, from 0 up.
        accuracy: fraction of the examples classified as their label, with finite logits.
        l2, linf: mean sizes of the perturbations of finite images, in units of images in [0, 1].
        finite: fraction of examples whose logits are finite; if it falls, accuracy falls for that reason alone.
    """

    n: int
    steps: list[int]
    accuracy: list[float]
    l2: list[float]
    linf: list[float]
    finite: list[float]


class Unbounded(IterativeAttack[AttackState]):
    """x ← x + α·direction of ∇loss, from the image itself, whatever the threat: PGD without the projection.

    Its purpose is :meth:`ascend`. In a suite only images inside the ball count, on the way or after the last is
    projected, so a bounded attack is stronger there.

    ``unbounded:200`` is short for 200 steps.

    Attributes:
        steps: gradient steps.
        step_size: α, in units of images in [0, 1].
        norm: "l2" for steps of length α along the gradient, "linf" for α in every pixel along its sign.
        loss: what to ascend, from :mod:`isthmus.attacks.losses`.
    """

    inside: ClassVar[bool] = False
    argument: ClassVar[str | None] = "steps"
    name: Literal["unbounded"] = "unbounded"
    steps: Annotated[int, Field(gt=0)] = 1000
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    norm: Literal["l2", "linf"] = "l2"
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"

    def init(self, batch: Batch, number: Int[Tensor, " n"]) -> AttackState:
        """At the image."""
        return AttackState(batch.images.clone(), *counters(len(batch), self.steps, batch.images))

    def step(self, state: AttackState, batch: Batch, answer: Answer) -> None:
        """One step."""
        state.x = DIRECTIONS[self.norm].step(state.x, answer.gradient, self.step_size)
        state.step += 1

    def ascend(
        self,
        model: nn.Module,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, " n"],
        *,
        every: int = 1,
        seed: int = 0,
        batch_size: int = 256,
    ) -> Ascent:
        """Follow the gradient from every image, without bounds, and measure how accuracy falls.

        Costs ``steps`` forward and backward passes an example, and one more forward. The model is left as it was.

        Args:
            model: from images to logits, also for images outside [0, 1].
            images: where the ascent begins, in [0, 1].
            labels: true classes.
            every: record after every this many steps, and at the first and the last image.
            seed: of a random model's noise, which is fresh at every step.
            batch_size: examples at a time; affects only time and memory.

        Raises:
            ModelError: the model fails, has no gradient at all, or does not return N×K logits.
            DataError: images or labels of a wrong type, shape or range.
            ConfigError: ``every`` or ``batch_size`` is not a positive whole number.
        """
        inputs.check_model(model)
        stride, size = inputs.check_whole(every, "every"), inputs.check_whole(batch_size, "batch_size")
        batch = inputs.examples(images, labels, seed=seed)
        recorded = sorted({*range(0, self.steps + 1, stride), self.steps})
        device = device_of(model, batch.images)
        with preserve_state(model, device, seed):
            counted_model = CountedModel(model)
            first = batch.take(torch.arange(1)).to(device)
            inputs.check_classes(batch, counted_model.logits(first.images, first.keys).shape[1])
            parts = torch.split(torch.arange(len(batch)), size)
            climbs = [self._climb(counted_model, batch.take(rows).to(device), recorded) for rows in parts]
        correct, finite, l2, linf, sane = torch.stack(climbs).sum(0).T
        shares = (column.tolist() for column in (correct / len(batch), l2 / sane, linf / sane, finite / len(batch)))
        return Ascent(len(batch), recorded, *shares)

    def _climb(self, counted_model: CountedModel, batch: Batch, recorded: list[int]) -> Float[Tensor, "records 5"]:
        """Sums over a batch after each recorded number of steps; see :func:`_tally`."""

        def move(_: int, x: Tensor, gradient: Tensor) -> Tensor:
            return DIRECTIONS[self.norm].step(x, gradient, self.step_size)

        path = climb(counted_model, batch, self.loss, move, self.steps)
        return torch.stack([_tally(x, batch, answer) for step, (x, answer) in enumerate(path) if step in recorded])


def climb(
    counted_model: CountedModel, batch: Batch, loss: str, move: Callable[[int, Tensor, Tensor], Tensor], steps: int
) -> Iterator[tuple[Float[Tensor, "n c h w"], Answer]]:
    """Yield a batch's images before each of ``steps`` moves along the gradient and after the last, with the answers.

    A random model draws new noise at every step.

    Args:
        loss: what to ascend (see :meth:`isthmus.attacks.engine.batch.Batch.ascend`).
        move: from the number of the move, the images and the gradient there to the next images.
    """
    x = batch.images
    for step in range(steps + 1):
        objective = (lambda logits: batch.ascend(loss, logits)) if step < steps else None
        answer = counted_model.query(x, batch.keys, objective, draw=step)
        yield x, answer
        if objective is not None:
            x = move(step, x, answer.gradient)


def _tally(x: Tensor, batch: Batch, answer: Answer) -> Float[Tensor, "5"]:
    """How many are right, how many have finite logits, sums of ‖δ‖₂ and ‖δ‖_∞, how many images are finite."""
    right = answer.finite & (answer.logits.argmax(1) == batch.labels)
    sane = x.isfinite().flatten(1).all(1)
    delta = (x - batch.images)[sane].flatten(1).double()
    sums = (right.sum(), answer.finite.sum(), delta.norm(dim=1).sum(), delta.abs().amax(1).sum(), sane.sum())
    return torch.stack([each.double() for each in sums]).cpu()
