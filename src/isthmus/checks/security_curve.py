"""Which examples are robust at each ε, by one suite from the largest ε down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isthmus.attacks import transfer
from isthmus.attacks.attack import Stage
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.evaluation import evaluate
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import Threat
from isthmus.checks.context import Context, Progress, part

Bools = NDArray[np.bool_]

ONE_EVALUATION, CONFIDENT = "one_evaluation", "confident"
"""The other rules for random predictions, besides the average."""

_PROPOSAL = "larger"  # label of adversarial examples of a larger ε, projected; the attack that found them is kept


@dataclass(frozen=True)
class Outcome:
    """What attacks did to n examples at one ε.

    Attributes:
        correct, invalid: bool[n], of the clean image; logits that are not finite, clean or under attack.
        robust: bool[n], to everything that was tried.
        adversarial: float32[n, c, h, w], adversarial examples; NaN if there is none.
        broken_by: str[n], label of the attack that found each of them; "" if there is none.
        rules: robust by the other rules for random predictions, bool[n] each; see :class:`Curve`.
    """

    correct: Bools
    invalid: Bools
    robust: Bools
    adversarial: NDArray[np.float32]
    broken_by: NDArray[np.object_]
    rules: dict[str, Bools] = field(default_factory=dict)

    @classmethod
    def of(cls, result: RobustResult) -> Outcome:
        """The outcome of an evaluation."""
        invalid, broken, state = result.invalid.numpy(), result.broken, result.state
        rules = {}
        if state.once is not None and state.sure is not None:
            rules = {ONE_EVALUATION: ~invalid & ~state.once.numpy(), CONFIDENT: ~invalid & ~state.sure.numpy()}
        images = torch.where(broken[:, None, None, None], result.adversarial, torch.nan)
        labels = np.array([label or "" for label in result.broken_by], dtype=object)
        return cls(result.correct.numpy(), invalid, result.robust.numpy(), images.numpy(), labels, rules)

    def fits(self, threat: Threat, context: Context) -> Bools:
        """Which examples have an adversarial example inside this ball: bool[n]."""
        found = _finite(self.adversarial)
        rows = torch.from_numpy(np.flatnonzero(found))
        originals = context.images.cpu()[rows].float()
        found[rows.numpy()] = threat.contains(torch.from_numpy(self.adversarial)[rows], originals).numpy()
        return found


@dataclass(frozen=True)
class Curve:
    """Which of n examples are robust at L values of ε, in one mode of one classifier.

    Attributes:
        eps: L values, ascending, above 0.
        correct: bool[n], correct on the clean image.
        alone: attack label -> bool[L, n]. Each attack ran at each ε independently, so that the curves show problems
            that a shared search would hide: an attack weaker than a simpler one, or weaker at a larger ε. Empty for a
            suite.
        worst: bool[L, n]; robust to all attacks at this ε and at every smaller one, and to the adversarial examples of
            larger ε that happen to lie inside the ball. At the largest ε, also to everything that the diagnosis tried.
        adversarial: float32[n, c, h, w], adversarial examples at the smallest ε that has one, NaN if none has.
        invalid: number of examples with logits that are not finite, clean or under attack.
        passes: label of the attack or suite -> (forward, backward) example-passes, without those of the diagnosis.
        rules: for random predictions, robust by one evaluation ("one_evaluation", the papers' rule), and not wrong with
            99% confidence ("confident"), bool[L, n] each; ``worst`` and ``alone`` follow the average prediction over
            many draws. Empty for other models.
        missed: number of examples that the attacks break and the diagnosis does not.
        labels: str[n], label of the attack of suite or diagnosis that found each adversarial example, or None.
    """

    eps: tuple[float, ...]
    correct: Bools
    alone: dict[str, Bools]
    worst: Bools
    adversarial: NDArray[np.float32]
    invalid: int
    passes: dict[str, tuple[int, int]]
    rules: dict[str, Bools] = field(default_factory=dict)
    missed: int = 0
    labels: NDArray[np.object_] | None = None

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
        others = [None] * len(levels) if self.labels is None else [label or None for label in self.labels]
        return [
            next((label for label, rows in self.alone.items() if level < len(rows) and not rows[level, i]), others[i])
            for i, level in enumerate(levels)
        ]


def by_suite(
    model: nn.Module,
    context: Context,
    grid: Sequence[Threat],
    suite: Sequence[Stage],
    progress: Progress,
    known: Outcome | None = None,
    gradient_model: nn.Module | None = None,
) -> Curve:
    """Run a suite at the largest ε, and at each smaller one on the examples that are broken at the next larger one.

    Balls are nested, so an example that is robust at one ε counts as robust at every smaller one. Adversarial examples
    of a larger ε are used where they fit, and otherwise proposed again, projected onto the smaller ball.

    Args:
        model: the mode to attack.
        grid: one norm, ascending.
        known: the outcome of the diagnosis at the largest ε, where no attack runs then.
        gradient_model: what attacks take gradients from instead of the model, which verifies.

    Raises:
        ModelError, DataError: see :func:`isthmus.attacks.robust_accuracy`.
    """
    passes, top = np.zeros(2, dtype=int), len(grid) - 1

    def attack(level: int, stages: Sequence[Stage], rows: NDArray[np.int64]) -> Outcome:
        result = attack_examples(
            model, context, grid[level], [*stages, *suite], part(progress, top - level, top + 1), rows, gradient_model
        )
        passes[:] += result.forward_passes, result.backward_passes
        return Outcome.of(result)

    at = attack(top, [], np.arange(len(context.labels))) if known is None else known
    levels = [at]
    for level in reversed(range(top)):
        at = _smaller(at, context, grid[level], partial(attack, level))
        levels.insert(0, at)
    progress(1, 1)
    return Curve(
        eps=tuple(threat.eps for threat in grid),
        correct=levels[-1].correct,
        alone={},
        worst=np.stack([each.robust for each in levels]),
        adversarial=levels[0].adversarial,
        invalid=int(np.logical_or.reduce([each.invalid for each in levels]).sum()),
        passes={"suite": (int(passes[0]), int(passes[1]))},
        rules={name: np.stack([each.rules[name] for each in levels]) for name in at.rules},
        labels=levels[0].broken_by,
    )


def _smaller(
    larger: Outcome,
    context: Context,
    threat: Threat,
    attack: Callable[[Sequence[Stage], NDArray[np.int64]], Outcome],
) -> Outcome:
    """The outcome at a smaller ε: examples that no rule calls robust, and no adversarial example breaks, are attacked.

    Args:
        attack: attacks the examples at these positions by these stages, and then by the suite.
    """
    fits, settled = larger.fits(threat, context), larger.robust
    for robust in larger.rules.values():
        settled = settled & robust
    done = fits & ~larger.rules.get(CONFIDENT, larger.robust)
    rows = np.flatnonzero(larger.correct & ~larger.invalid & ~settled & ~done)
    if not len(rows):
        return larger
    useful = _finite(larger.adversarial) & larger.correct
    images = torch.from_numpy(larger.adversarial)
    proposal = transfer.proposed(context.images.cpu().float(), images, torch.from_numpy(useful))
    found = attack([Stage(_PROPOSAL, proposal)], rows)

    def with_new(known: Bools, new: Bools) -> Bools:
        joined = known.copy()
        joined[rows] |= new
        return joined

    adversarial, broken = larger.adversarial.copy(), _finite(found.adversarial)
    adversarial[rows[broken]] = found.adversarial[broken]
    labels, new = larger.broken_by.copy(), broken & (found.broken_by != _PROPOSAL)
    labels[rows[new]] = found.broken_by[new]
    return Outcome(
        larger.correct,
        with_new(larger.invalid, found.invalid),
        with_new(larger.robust, found.robust & ~fits[rows]),
        adversarial,
        labels,
        {name: with_new(known, found.rules.get(name, found.robust)) for name, known in larger.rules.items()},
    )


def _finite(images: NDArray[np.float32]) -> Bools:
    """Which images have no NaN: bool[n]."""
    return np.asarray(np.isfinite(images).all(axis=(1, 2, 3)), dtype=np.bool_)


def attack_examples(
    model: nn.Module,
    context: Context,
    threat: Threat,
    stages: Sequence[Stage],
    progress: Progress,
    rows: NDArray[np.int64] | None = None,
    gradient_model: nn.Module | None = None,
) -> RobustResult:
    """Attack the examples at these positions, or all. A model with memory is replaced by fresh copies already."""
    chosen = torch.arange(len(context.labels)) if rows is None else torch.from_numpy(rows)
    here = chosen.to(context.images.device)
    batch = inputs.examples(
        context.images[here], context.labels[here], seed=context.seed, indices=context.positions[chosen]
    )
    options = RunOptions(
        context.batch_size, progress=lambda at: progress(int(at.done), int(at.total)), optimized_model=gradient_model
    )
    return evaluate(model, batch, threat, stages, seed=context.seed, options=options)
