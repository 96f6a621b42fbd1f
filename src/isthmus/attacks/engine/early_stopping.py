"""Early stopping: examples in random order, wave by wave, until the interval is narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.evaluation import Interrupted
from isthmus.attacks.engine.run_options import Progress, RunOptions, Snapshot
from isthmus.attacks.result import RobustResult
from isthmus.core.randomness import fold, uniform

WAVE = 250
"""Examples between two checks of the interval."""


One = Callable[[Batch, RunOptions, Progress | None], RobustResult]


def until_narrow(
    evaluate: One, examples: Batch, half_width: float, options: RunOptions, progress: Progress | None
) -> RobustResult:
    """Evaluate examples in an order drawn from their keys until the interval of robust accuracy is narrow enough.

    The order is independent of the data's, and each wave is completed, so the examples evaluated are a random sample.
    Stopping by the interval's width hardly biases it: the width depends on the count, and on robust accuracy only
    through √(a(1 − a)).

    Args:
        evaluate: one evaluation of some examples.
        half_width: in [0, 1]: 0.01 for ±1 point.

    Returns:
        The result on the examples evaluated, in the order of evaluation; ``examples.keys`` identifies them.
    """
    order = uniform(fold(examples.keys.cpu(), "early_stopping/order"), (1,)).squeeze(1).argsort(stable=True)
    results: list[RobustResult] = []
    for number, rows in enumerate(torch.split(order, WAVE)):
        own = options if options.save_to is None else replace(options, save_to=_wave_file(options.save_to, number))
        try:
            results.append(evaluate(examples.take(rows), own, _shifted(progress, results, examples, order)))
            if results[-1].random and not options.random:  # one rule for all waves, also for those before
                options = replace(options, random=True)
                results = [_again(evaluate, each, options, at) for at, each in enumerate(results)]
        except KeyboardInterrupt as stop:
            parts = [*results, stop.result] if isinstance(stop, Interrupted) else results
            if not parts:
                raise
            raise Interrupted(replace(RobustResult.joined(parts), complete=False)) from None
        together = RobustResult.joined(results)
        low, high = together.interval.low, together.interval.high
        if (high - low) / 2 <= half_width:
            return together
    return together


def _again(evaluate: One, known: RobustResult, options: RunOptions, number: int) -> RobustResult:
    """A wave by the rule for random models, unless it was evaluated by it."""
    if known.random:
        return known
    own = options if options.save_to is None else replace(options, save_to=_wave_file(options.save_to, number))
    found = evaluate(known.examples, own, None)
    return found if options.save_to is not None else found.after(known)


def _wave_file(path: str | Path, number: int) -> Path:
    path = Path(path)
    return path.with_name(f"{path.name}.{number}")


def _shifted(progress: Progress | None, results: list[RobustResult], examples: Batch, order: Tensor) -> Progress | None:
    """Progress of all waves from that of the next one."""
    if progress is None:
        return None
    before, robust = sum(len(result) for result in results), sum(int(result.robust.sum()) for result in results)

    def report(at: Snapshot) -> None:
        per = at.total // at.n
        progress(
            at._replace(done=before * per + at.done, total=len(order) * per, robust=robust + at.robust, n=before + at.n)
        )

    return report
