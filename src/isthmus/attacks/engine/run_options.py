"""Options of an evaluation, and its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus.core.progress import Update


class Snapshot(NamedTuple):
    """Progress of an evaluation.

    Attributes:
        done, total: work so far and in all, in units of examples.
        attack: label of the attack that runs.
        robust: examples that are robust so far; an upper bound on those that will be.
        n: examples in all.
        passes: example-passes so far, forward and backward.
    """

    done: float
    total: int
    attack: str
    robust: int
    n: int
    passes: int = 0


Progress = Callable[[Snapshot], None]


@dataclass(frozen=True)
class RunOptions:
    """Options of an evaluation. Up to rounding, how it is executed does not affect the robust accuracy.

    Attributes:
        batch_size: examples at a time; None to choose it from the free memory.
        jobs: processes on this machine.
        indices: positions of the images in their data set, for seeding; 0..N−1 by default.
        targets: classes to reach, for a targeted evaluation; see :class:`isthmus.attacks.result.RobustResult`.
        bf16: compute gradients in bfloat16 (faster on some hardware); success is verified in float32 nevertheless.
        save_to: file that keeps the evaluation while it runs. The same call resumes an interrupted or killed
            evaluation, and returns the result of a finished one at once. Keep the result itself with
            :meth:`isthmus.attacks.RobustResult.save`; then delete this file with
            :func:`isthmus.attacks.engine.evaluation_file.forget`.
        progress: True, the default, for a bar if stderr is a terminal or in a notebook; False for none; or a function
            that is called with a :class:`Snapshot`.
        verify: check every adversarial image on a further forward pass at the end. An example that fails counts as
            robust, and the result's ``unconfirmed`` and ``warnings`` report it. For a random model, compute the average
            on fresh draws; without it only the number of confidently wrong examples is known.
        max_queries: limit on example-passes, forward and backward, for example of a paid service. The evaluation ends
            before it would exceed the limit (with several jobs, by what they have in flight); the result is then an
            upper bound, not ``complete`` but ``exhausted``. None for no limit.
        ci_half_width: evaluate examples in random order, and stop when the 95% interval of robust accuracy is no wider
            than ± this; the result covers the examples evaluated. None for all. Not together with ``max_queries``.
        optimized_model: queried by attacks instead of the model, in this process; the model still decides success. None
            for a faster copy of the model, if there is one.
        random: the model is known to be random. Otherwise this is detected, and the passes before are lost.
        deadline: by ``time.monotonic()``; the evaluation ends at the first pass after it, incomplete. None for none.
    """

    batch_size: int | None = None
    jobs: int = 1
    indices: Int[Tensor, " n"] | ArrayLike | None = None
    targets: Int[Tensor, " n"] | ArrayLike | None = None
    bf16: bool = False
    save_to: str | Path | None = None
    progress: Progress | bool | None = None
    verify: bool = True
    max_queries: int | None = None
    ci_half_width: float | None = None
    optimized_model: nn.Module | None = None
    random: bool = False
    deadline: float | None = None

    @property
    def path(self) -> Path | None:
        """``save_to`` as a path."""
        return None if self.save_to is None else Path(self.save_to)

    @property
    def callback(self) -> Progress | None:
        """``progress`` if it is a function; else the caller decides on a bar."""
        return None if isinstance(self.progress, bool) else self.progress


def bar_of(update: Update) -> Progress:
    """The function that draws the progress of an evaluation as a bar."""
    return lambda at: update(at.done / max(at.total, 1), f"{at.attack}, {at.robust:,} of {at.n:,} robust")


def monotone(progress: Progress | None) -> Progress | None:
    """Progress that never decreases, even if work is repeated, as for a model found to be random."""
    if progress is None:
        return None
    most = 0.0

    def report(at: Snapshot) -> None:
        nonlocal most
        most = max(most, at.done / max(at.total, 1))
        progress(at._replace(done=most * at.total))

    return report
