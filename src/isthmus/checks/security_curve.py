"""Which examples each attack breaks at each ε, and signs that the attacks were weak."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from isthmus import metrics
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.attack import Stage
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.checks.context import Context, Progress, part
from isthmus.core.format import percent
from isthmus.core.types import Metric

Bools = NDArray[np.bool_]

_LEVEL = 0.99  # several comparisons are made per classifier, and chance should raise none of them
_NATURAL = 0.02  # even sound attacks differ in a few hard examples


@dataclass(frozen=True)
class Unbounded:
    """Accuracy at an ε so large that one image, uniform grey, is within reach of all examples.

    There no classifier can be right on more than the examples of one class. If more are robust, the attack missed
    adversarial examples that are known to exist.
    """

    eps: float
    accuracy: Metric
    constant: float

    @property
    def missed(self) -> bool:
        """Whether more examples are robust than is possible."""
        return self.accuracy.value is not None and self.accuracy.value > self.constant


@dataclass(frozen=True)
class Curve:
    """Which of n examples are robust at L values of ε, in one mode of one classifier.

    Attributes:
        eps: L values, ascending, above 0.
        correct: bool[n], correct on the clean image.
        alone: attack label -> bool[L, n]. Each attack ran at each ε independently, so that the curves show problems
            that a shared search would hide: an attack weaker than a simpler one, or weaker at a larger ε.
        worst: bool[L, n]; robust to all attacks at this ε and at every smaller one, and to the adversarial examples of
            larger ε that happen to lie inside the ball.
        adversarial: float32[n, c, h, w], adversarial examples at the smallest ε that has one, NaN if none has.
        invalid: number of examples with logits that are not finite, clean or under attack.
        passes: attack label -> (forward, backward) example-passes.
        rules: for random predictions, robust by one evaluation ("one_evaluation", the papers' rule), and not wrong with
            99% confidence ("confident"), bool[L, n] each; ``worst`` and ``alone`` follow the average prediction over
            many draws. Empty for other models.
        unbounded: accuracy at an ε that reaches uniform grey; None if not measured.
    """

    eps: tuple[float, ...]
    correct: Bools
    alone: dict[str, Bools]
    worst: Bools
    adversarial: NDArray[np.float32]
    invalid: int
    passes: dict[str, tuple[int, int]]
    rules: dict[str, Bools] = field(default_factory=dict)
    unbounded: Unbounded | None = None

    @property
    def smallest_eps(self) -> NDArray[np.float64]:
        """float[n]: the smallest ε that breaks the example; 0 for a clean error, inf if none is known."""
        levels = np.array([0.0, *self.eps, np.inf])
        smallest: NDArray[np.float64] = levels[np.vstack([self.correct, self.worst]).sum(axis=0)]
        return smallest

    @property
    def broken_by(self) -> list[str | None]:
        """The first attack that breaks each example at its smallest ε; None if none does there by itself."""
        levels = np.searchsorted(self.eps, self.smallest_eps)
        return [
            next((label for label, rows in self.alone.items() if level < len(rows) and not rows[level, i]), None)
            for i, level in enumerate(levels)
        ]


def measure(
    model: nn.Module,
    context: Context,
    grid: Sequence[Threat],
    attacks: Sequence[Stage],
    unbounded_examples: int,
    progress: Progress,
) -> Curve:
    """Run every attack independently at every ε of the grid, and the last attack once more without a bound.

    Args:
        model: the mode to attack.
        grid: one norm, ascending.
        unbounded_examples: number of examples, the first, for the unbounded attack; 0 to skip it.

    Raises:
        ModelError, DataError: see :func:`isthmus.attacks.robust_accuracy`.
    """
    parts = len(attacks) * len(grid) + 1
    tally = _Tally(grid, [attack.label for attack in attacks], context.images.shape)
    for number, attack in enumerate(attacks):
        larger = None
        for done, level in enumerate(reversed(range(len(grid)))):
            own = part(progress, number * len(grid) + done, parts)
            result = _attack(model, context, grid[level], attack, own)
            tally.alone[number, level] = result.robust.numpy()
            larger = result if larger is None else result.absorb(larger)
            tally.add(number, level, larger)
    grey = grid[-1].with_eps(_grey_radius(grid[-1], context.images[0].numel()))
    unbounded = None
    if unbounded_examples and grey.eps > grid[-1].eps:
        unbounded = _unbounded(model, context, grey, attacks[-1], unbounded_examples)
    progress(1, 1)
    return tally.curve(unbounded)


def _attack(
    model: nn.Module, context: Context, threat: Threat, attack: Stage, progress: Progress | None = None
) -> RobustResult:
    return robust_accuracy(
        model,
        context.images,
        context.labels,
        threat,
        [attack],
        context.batch_size,
        context.seed,
        options=RunOptions(
            indices=context.indices,
            progress=None if progress is None else lambda at: progress(int(at.done), int(at.total)),
        ),
    )


class _Tally:
    """Collects the results of each attack at each ε; only one set of adversarial examples is kept.

    Args:
        grid: L threats, ascending.
        labels: of A attacks.
        shape: of the images.

    Attributes:
        alone: bool[A, L, n], robust to the attack by itself.
    """

    def __init__(self, grid: Sequence[Threat], labels: Sequence[str], shape: Sequence[int]) -> None:
        self.grid, self.labels, n = grid, labels, shape[0]
        self.alone = np.ones((len(labels), len(grid), n), dtype=bool)
        self.robust = np.ones_like(self.alone)
        self.adversarial = np.full(shape, np.nan, dtype=np.float32)
        self.level = np.full(n, len(grid))  # of the adversarial example that is kept
        self.invalid = np.zeros(n, dtype=bool)
        self.correct = np.zeros(n, dtype=bool)
        self.passes = np.zeros((len(labels), 2), dtype=int)
        self.random = False
        self.confident = np.ones_like(self.alone)
        self.once = np.zeros_like(self.alone)
        self.lead = np.full(self.alone.shape, -np.inf)

    def add(self, attack: int, level: int, result: RobustResult) -> None:
        """Add a result that has absorbed those of larger ε: levels in descending order, attacks in theirs."""
        self.robust[attack, level] = result.robust.numpy()
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
        self.adversarial[nearer] = result.adversarial.numpy()[nearer]
        self.level[nearer] = level

    def rules(self) -> dict[str, Bools]:
        """See :class:`Curve`. One evaluation is made at the worst average, of all images within the ball."""
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
        """The whole curve."""
        return Curve(
            eps=tuple(threat.eps for threat in self.grid),
            correct=self.correct,
            alone=dict(zip(self.labels, self.alone, strict=True)),
            worst=np.logical_and.accumulate(self.robust.all(axis=0), axis=0),
            adversarial=self.adversarial,
            invalid=int(self.invalid.sum()),
            passes={label: (int(f), int(b)) for label, (f, b) in zip(self.labels, self.passes, strict=True)},
            rules=self.rules(),
            unbounded=unbounded,
        )


def _unbounded(model: nn.Module, context: Context, threat: Threat, attack: Stage, count: int) -> Unbounded:
    context = context.first(count)
    result, labels = _attack(model, context, threat, attack), context.truth
    return Unbounded(
        eps=threat.eps,
        accuracy=metrics.accuracy(result.robust.numpy()),
        constant=float(np.bincount(labels).max() / labels.size),
    )


def _grey_radius(threat: Threat, pixels: int) -> float:
    """The ε at which uniform grey is within reach of every image: no pixel changes by more than 1/2."""
    return {"linf": 0.5, "l2": 0.5 * math.sqrt(pixels), "l1": 0.5 * pixels}[threat.name]


def warning_signs(curve: Curve) -> list[str]:
    """Cheap signs that the attacks are weak rather than the classifier robust; each a clause.

    A difference counts if the 99% interval of the paired difference lies above zero, or above two points if some
    difference is natural. The absence of signs proves nothing: a classifier that defeats these attacks equally at every
    ε shows none.
    """
    found = [f"{curve.invalid} examples have logits that are not finite"] if curve.invalid else []
    return [
        *found,
        *_weaker_than_one_step(curve),
        *_weaker_at_larger_eps(curve),
        *_complementary(curve),
        *_missed(curve),
    ]


def _weaker_than_one_step(curve: Curve) -> list[str]:
    if not {"fgsm", "pgd"} <= set(curve.alone):
        return []
    for eps, fgsm, pgd in zip(curve.eps, curve.alone["fgsm"], curve.alone["pgd"], strict=True):
        if gap := _gap(fgsm, pgd):
            return [f"one step (FGSM) breaks {gap} more examples than PGD at ε = {eps:.4g}"]
    return []


def _weaker_at_larger_eps(curve: Curve) -> list[str]:
    found = []
    # one step may overshoot near examples, so its curve may rise; that of an iterative attack may not
    for label, robust in curve.alone.items():
        gaps = [_gap(a, b) for a, b in itertools.pairwise(robust) if label != "fgsm"]
        for position, gap in enumerate(gaps):
            if gap:
                smaller, larger = curve.eps[position : position + 2]
                found.append(f"{label} breaks {gap} fewer examples at ε = {larger:.4g} than at {smaller:.4g}")
                break
    return found


def _complementary(curve: Curve) -> list[str]:
    """Attacks that break different examples: each misses what another finds, and so may all."""
    left = {label: int(robust[-1].sum()) for label, robust in curve.alone.items()}
    best = [label for label, count in left.items() if count == min(left.values())]
    together = np.logical_and.reduce([robust[-1] for robust in curve.alone.values()])
    if gap := _gap(together, curve.alone[best[0]][-1], _NATURAL):
        return [f"all attacks together break {gap} more examples than {' or '.join(best)}, the strongest of them"]
    return []


def _missed(curve: Curve) -> list[str]:
    grey = curve.unbounded
    if grey is None or not grey.missed:
        return []
    return [
        f"{percent(grey.accuracy.value)} are robust at ε = {grey.eps:.4g}, where all images can become the same grey "
        f"and at most {percent(grey.constant)} can be classified correctly"
    ]


def _gap(first: Bools, second: Bools, least: float = 0.0) -> str:
    """By how much ``second`` has more robust examples, in words, if that is surely more than ``least``; else ""."""
    gap = metrics.paired_difference(first, second, _LEVEL)
    return percent(gap.value) if gap.interval is not None and gap.interval.low > least else ""
