"""The measuring part of the robustness check: what each attack, alone, leaves standing at each ε."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.types import Metric

if TYPE_CHECKING:
    from torch import nn

    from isthmus.attacks.attack import Attack
    from isthmus.attacks.result import RobustResult
    from isthmus.attacks.threats import Threat
    from isthmus.checks.context import Context

Bools = NDArray[np.bool_]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Curve:
    """What attacks left standing of n examples at L values of ε, in one mode of one classifier.

    Attributes:
        eps: L values, ascending, above 0.
        correct: bool[n], right on the clean image.
        alone: attack label -> bool[L, n]; each attack and each ε was run by itself, so that the curves may
            show what a shared search would hide: an attack weaker than a simpler one, or at a larger ε.
        worst: bool[L, n]; standing against all attacks at this ε and at every smaller one, and against the
            witnesses of larger ε that happen to lie inside the ball.
        witnesses: float32[n, c, h, w], adversarial images at the smallest ε that has one, NaN where none has.
        invalid: how many examples gave logits that are not finite, clean or under attack.
        passes: attack label -> (forward, backward) example-passes.
        readings: of a random model, what stands at this ε by one evaluation ("one_evaluation", the papers' rule), and
            what is not wrong with 99% confidence ("confident"), bool[L, n] each; ``worst`` and ``alone`` follow the
            average prediction over many draws. Empty for other models.
        unbounded: what stood where every image can be made uniformly grey; None where it was not tried.
    """

    eps: tuple[float, ...]
    correct: Bools
    alone: dict[str, Bools]
    worst: Bools
    witnesses: NDArray[np.float32]
    invalid: int
    passes: dict[str, tuple[int, int]]
    readings: dict[str, Bools] = field(default_factory=dict)
    unbounded: Unbounded | None = None

    @property
    def smallest_eps(self) -> NDArray[np.float64]:
        """float[n]: the smallest ε that breaks the example; 0 for a clean error, inf where none is known."""
        levels = np.array([0.0, *self.eps, np.inf])
        smallest: NDArray[np.float64] = levels[np.vstack([self.correct, self.worst]).sum(axis=0)]
        return smallest


@dataclass(frozen=True)
class Unbounded:
    """Accuracy at an ε so large that one image, uniform grey, is within reach of all examples.

    No classifier can hold more than the examples of one class there. Where more stands, the attack missed
    adversarial images that are known to exist.
    """

    eps: float
    standing: Metric
    constant: float

    @property
    def missed(self) -> bool:
        """Whether more examples stand than can."""
        return self.standing.value is not None and self.standing.value > self.constant


def measure(
    model: nn.Module,
    context: Context,
    grid: Sequence[Threat],
    attacks: Sequence[Attack],
    unbounded_examples: int,
    progress: Progress,
) -> Curve:
    """Run every attack by itself at every ε of the grid, and the last attack once more without a bound.

    Args:
        model: the mode to attack.
        grid: one norm, ascending.
        unbounded_examples: how many of the first examples the unbounded attack gets; 0 leaves it out.

    Raises:
        ModelError, DataError: see :func:`isthmus.attacks.robust_accuracy`.
    """
    n, parts = len(context.labels), len(attacks) * len(grid) + 1
    tally = _Tally(grid, [attack.label for attack in attacks], context.images.shape)
    for number, attack in enumerate(attacks):
        larger = None
        for done, level in enumerate(reversed(range(len(grid)))):
            part = share(progress, number * len(grid) + done, parts)
            result = _attack(model, context, grid[level], attack, n, part)
            tally.alone[number, level] = result.robust.numpy()
            larger = result if larger is None else result.absorb(larger)
            tally.note(number, level, larger)
    grey = grid[-1].with_eps(_grey_radius(grid[-1], context.images[0].numel()))
    unbounded = None
    if unbounded_examples and grey.eps > grid[-1].eps:
        unbounded = _unbounded(model, context, grey, attacks[-1], unbounded_examples)
    progress(1, 1)
    return tally.curve(unbounded)


def _attack(
    model: nn.Module, context: Context, threat: Threat, attack: Attack, count: int, progress: Progress | None
) -> RobustResult:
    from isthmus.attacks.api import robust_accuracy

    return robust_accuracy(
        model,
        context.images[:count],
        context.labels[:count],
        threat,
        [attack],
        context.batch_size,
        context.seed,
        indices=None if context.indices is None else context.indices[:count],
        progress=None if progress is None else lambda at: progress(int(at.done), int(at.total)),
    )


class _Tally:
    """What came of each attack at each ε, of which no more than one set of witnesses is kept.

    Args:
        grid: L threats, ascending.
        labels: of A attacks.
        shape: of the images.

    Attributes:
        alone: bool[A, L, n], standing against the attack by itself.
    """

    def __init__(self, grid: Sequence[Threat], labels: Sequence[str], shape: Sequence[int]) -> None:
        self.grid, self.labels, n = grid, labels, shape[0]
        self.alone = np.ones((len(labels), len(grid), n), dtype=bool)
        self.standing = np.ones_like(self.alone)
        self.witnesses = np.full(shape, np.nan, dtype=np.float32)
        self.level = np.full(n, len(grid))  # of the witness that is kept
        self.invalid = np.zeros(n, dtype=bool)
        self.correct = np.zeros(n, dtype=bool)
        self.passes = np.zeros((len(labels), 2), dtype=int)
        self.random = False
        self.confident = np.ones_like(self.alone)
        self.once = np.zeros_like(self.alone)
        self.lead = np.full(self.alone.shape, -np.inf)

    def note(self, attack: int, level: int, result: RobustResult) -> None:
        """Enter a result that has absorbed those of larger ε: each attack's in descending order, attacks in theirs."""
        self.standing[attack, level] = result.robust.numpy()
        self.passes[attack] += result.forward_passes, result.backward_passes
        self.invalid |= result.invalid.numpy()
        state = result.state
        if state.lead is not None and state.once is not None and state.sure is not None:
            self.random = True
            self.confident[attack, level] = ~(state.sure | result.invalid).numpy()
            self.once[attack, level] = (state.once | result.invalid).numpy()
            self.lead[attack, level] = np.nan_to_num(state.lead.numpy(), nan=-np.inf)
        self.correct = result.correct.numpy()
        nearer = result.broken.numpy() & (level < self.level)
        self.witnesses[nearer] = result.adversarial.numpy()[nearer]
        self.level[nearer] = level

    def readings(self) -> dict[str, Bools]:
        """See :class:`Curve`. One evaluation is made where the average is worst, of all images within the ball."""
        if not self.random:
            return {}
        one = np.empty(self.alone.shape[1:], dtype=bool)
        for level in range(len(self.grid)):
            lead, once = (a[:, : level + 1].reshape(-1, one.shape[1]) for a in (self.lead, self.once))
            one[level] = ~np.take_along_axis(once, lead.argmax(axis=0)[None], 0)[0]
        return {
            "one_evaluation": one,
            "confident": np.logical_and.accumulate(self.confident.all(axis=0), axis=0),
        }

    def curve(self, unbounded: Unbounded | None) -> Curve:
        """All of it."""
        return Curve(
            eps=tuple(threat.eps for threat in self.grid),
            correct=self.correct,
            alone=dict(zip(self.labels, self.alone, strict=True)),
            worst=np.logical_and.accumulate(self.standing.all(axis=0), axis=0),
            witnesses=self.witnesses,
            invalid=int(self.invalid.sum()),
            passes={label: (int(f), int(b)) for label, (f, b) in zip(self.labels, self.passes, strict=True)},
            readings=self.readings(),
            unbounded=unbounded,
        )


def _unbounded(model: nn.Module, context: Context, threat: Threat, attack: Attack, count: int) -> Unbounded:
    result = _attack(model, context, threat, attack, min(count, len(context.labels)), None)
    labels = context.labels[:count].cpu().numpy()
    return Unbounded(
        eps=threat.eps,
        standing=metrics.accuracy(result.robust.numpy()),
        constant=float(np.bincount(labels).max() / labels.size),
    )


def _grey_radius(threat: Threat, pixels: int) -> float:
    """The ε at which uniform grey is within reach of every image: no pixel has to move by more than 1/2."""
    return {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[threat.name]


def share(progress: Progress, position: int, parts: int) -> Progress:
    """The progress of one of several tasks of equal length, as progress of the whole; ``position`` counts from 0."""
    return lambda done, total: progress(position * total + done, parts * total)
