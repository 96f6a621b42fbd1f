"""Which examples each of several attacks breaks at each ε by itself, and signs that the attacks were weak."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from isthmus import metrics
from isthmus.attacks.attack import Stage
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.checks.context import Context, Progress, part
from isthmus.checks.security_curve import CONFIDENT, ONE_EVALUATION, Bools, Curve, Outcome, attack_examples
from isthmus.core.format import count, percent

_LEVEL = 0.99  # several comparisons are made per classifier, and chance should raise none of them
_NATURAL = 0.02  # even sound attacks differ in a few hard examples


def by_attack(
    model: nn.Module,
    context: Context,
    grid: Sequence[Threat],
    attacks: Sequence[Stage],
    progress: Progress,
    known: Outcome | None = None,
) -> Curve:
    """Run every attack independently at every ε of the grid.

    Args:
        model: the mode to attack.
        grid: one norm, ascending.
        known: the outcome of the diagnosis at the largest ε; an example that either breaks is broken.

    Raises:
        ModelError, DataError: see :func:`isthmus.attacks.robust_accuracy`.
    """
    parts = len(attacks) * len(grid)
    tally = _Tally(grid, [attack.label for attack in attacks], context.images.shape)
    for number, attack in enumerate(attacks):
        larger = None
        for done, level in enumerate(reversed(range(len(grid)))):
            own = part(progress, number * len(grid) + done, parts)
            result = attack_examples(model, context, grid[level], [attack], own)
            tally.alone[number, level] = result.robust.numpy()
            larger = result if larger is None else result.absorb(larger)
            tally.add(number, level, larger)
    progress(1, 1)
    return tally.curve() if known is None else _united(tally.curve(), known, context, grid)


def _united(curve: Curve, known: Outcome, context: Context, grid: Sequence[Threat]) -> Curve:
    """The curve, with what the diagnosis found at the largest ε."""
    fits = np.stack([known.fits(threat, context) for threat in grid[:-1]] + [~known.robust])
    rules = {name: rows.copy() for name, rows in curve.rules.items()}
    for name, rows in rules.items():
        rows[-1] &= known.rules.get(name, True)
    new = np.isnan(curve.adversarial).any(axis=(1, 2, 3), keepdims=True)
    return replace(
        curve,
        correct=known.correct,
        worst=np.logical_and.accumulate(curve.worst & ~fits & known.correct, axis=0),
        adversarial=np.where(new, known.adversarial, curve.adversarial),
        rules=rules,
        labels=known.broken_by,
        missed=int((known.robust & ~curve.worst[-1]).sum()),
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
            ONE_EVALUATION: one,
            CONFIDENT: np.logical_and.accumulate(self.confident.all(axis=0), axis=0),
        }

    def curve(self) -> Curve:
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
        )


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
        *_missed_by_diagnosis(curve),
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
    if not curve.alone:
        return []
    left = {label: int(robust[-1].sum()) for label, robust in curve.alone.items()}
    best = [label for label, count in left.items() if count == min(left.values())]
    together = np.logical_and.reduce([robust[-1] for robust in curve.alone.values()])
    if gap := _gap(together, curve.alone[best[0]][-1], _NATURAL):
        return [f"all attacks together break {gap} more examples than {' or '.join(best)}, the strongest of them"]
    return []


def _missed_by_diagnosis(curve: Curve) -> list[str]:
    if not curve.missed:
        return []
    return [f"they break {count(curve.missed, 'example')} that the diagnosis does not, and its number is too high"]


def _gap(first: Bools, second: Bools, least: float = 0.0) -> str:
    """By how much ``second`` has more robust examples, in words, if that is surely more than ``least``; else ""."""
    gap = metrics.paired_difference(first, second, _LEVEL)
    return percent(gap.value) if gap.interval is not None and gap.interval.low > least else ""
