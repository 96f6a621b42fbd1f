"""Several processes share an attack: each works on its own examples, and sends back what it found about them.

An example's course depends on its own key alone, so it does not matter who works on it: the ledger that comes of
several processes is the one that a single process would have filled.

A :class:`Crew` is whoever does the work: processes on this machine (:mod:`isthmus.attacks.engine.processes`), or
workers on a Ray cluster (:mod:`isthmus.attacks.engine.ray_workers`), where :func:`hiring` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Randomness
from isthmus.attacks.threats import Threat

if TYPE_CHECKING:
    from isthmus.attacks.attack import Attack
    from isthmus.attacks.engine.evaluation import Evaluation

PATIENCE = 0.2
"""Seconds that the parent waits for reports before it looks up: at the clock, and whether somebody wants it to stop."""


@dataclass(frozen=True)
class Order:
    """One attack on some examples: all that a worker needs besides the model.

    Attributes:
        stage: the attack's position in the ledger's count.
        size: rows in a batch.
        random: whether the model is; the evaluation has found out.
        examples, ledger: the share of them to work on.
    """

    attack: Attack
    threat: Threat
    stage: int
    size: int
    random: bool
    examples: Batch
    state: EvaluationState


@dataclass(frozen=True)
class Part:
    """What a worker has to tell: entries of the ledger, at these positions of its share, and passes since its last.

    ``over`` says that the order is done; ``random`` that it was given up, since the model answers at random.
    """

    rows: Tensor
    state: EvaluationState
    forwards: int
    backwards: int
    over: bool
    random: bool = False


class Crew(Protocol):
    """Workers that have the model and wait for orders."""

    def send(self, orders: Sequence[Order]) -> None:
        """Set the first workers to work, one order each. Only when all earlier orders are over."""

    def gather(self, seconds: float) -> list[tuple[int, Part]]:
        """What has come in, each with the number of its order; waits so long at most where nothing has.

        Raises:
            IsthmusError: a worker failed, or is gone.
        """

    def close(self) -> None:
        """End the workers at once, whatever they do. May be called twice."""


def run(evaluation: Evaluation, attack: Attack, members: Tensor) -> Iterator[None]:
    """One attack on these examples, shared out; yields several times a second, with the ledger in order.

    Raises:
        ConfigError: model or attack cannot be sent to another process.
        IsthmusError: a worker failed, or was killed. What was known by then is saved.
        Randomness: a worker found that the model answers at random; raised when all of them are done, so that every
            pass is counted.
    """
    crew, count = _crew(evaluation), min(jobs(evaluation), len(members))
    shares = [members[number::count] for number in range(count)]
    left, random = len(shares), False
    try:
        crew.send([_order(evaluation, attack, share) for share in shares])
        while left:
            for number, part in crew.gather(PATIENCE):
                _enter(evaluation, shares[number], part)
                left -= part.over
                random |= part.random
            yield
    except Exception:
        evaluation.save()
        raise
    finally:
        if left:  # orders that nobody will wait for any more
            crew.close()
    if random:
        raise Randomness


def close(evaluation: Evaluation) -> None:
    """Let an evaluation's workers go, unless they are kept for the next one."""
    crew, evaluation.pool = evaluation.pool, None
    kept_one = _KEPT.get()
    if crew is not None and not (kept_one and crew in kept_one.values()):
        crew.close()


_KEPT: ContextVar[dict[tuple[Any, ...], Crew] | None] = ContextVar("kept", default=None)


@contextmanager
def kept() -> Iterator[None]:
    """Inside, workers outlive their evaluation, for later ones of the very same model: starting them takes seconds."""
    crews: dict[tuple[Any, ...], Crew] = {}
    token = _KEPT.set(crews)
    try:
        yield
    finally:
        _KEPT.reset(token)
        for crew in crews.values():
            crew.close()


class Agency(Protocol):
    """Where crews come from."""

    jobs: int

    def crew(self, model: nn.Module, seed: int, bf16: bool) -> Crew:
        """Workers that have this model."""


_AGENCY: ContextVar[Agency | None] = ContextVar("agency", default=None)


@contextmanager
def hiring(agency: Agency) -> Iterator[None]:
    """Inside, the agency's workers share every attack that names no processes of its own."""
    token = _AGENCY.set(agency)
    try:
        yield
    finally:
        _AGENCY.reset(token)


def _agency(evaluation: Evaluation) -> Agency | None:
    # a scout of its own may be a function that only lives here
    return _AGENCY.get() if evaluation.options.jobs == 1 and evaluation.options.optimized_model is None else None


def jobs(evaluation: Evaluation) -> int:
    """How many workers share an evaluation's attacks; 1 for this process alone."""
    agency = _agency(evaluation)
    return evaluation.options.jobs if agency is None else agency.jobs


def _crew(evaluation: Evaluation) -> Crew:
    from isthmus.attacks.engine.processes import Processes

    if evaluation.pool is None:
        options, crews, agency = evaluation.options, _KEPT.get(), _agency(evaluation)
        if agency is not None:
            evaluation.pool = agency.crew(evaluation.model, evaluation.seed, options.bf16)
            return evaluation.pool
        key = (id(evaluation.model), evaluation.seed, options.jobs, options.bf16)
        known = crews.get(key) if crews else None
        evaluation.pool = known or Processes(evaluation.model, evaluation.seed, options.jobs, options.bf16)
        if crews is not None:
            crews[key] = evaluation.pool
    return evaluation.pool


def _order(evaluation: Evaluation, attack: Attack, share: Tensor) -> Order:
    context = evaluation.context
    return Order(
        replace(attack, among=None),  # has chosen already, and may be a function that only lives here
        context.threat,
        evaluation.labels.index(attack.label),
        context.size,
        context.counted_model.random,
        context.examples.take(share).to(torch.device("cpu")),
        context.state.take(share),
    )


def _enter(evaluation: Evaluation, share: Tensor, part: Part) -> None:
    rows, context = share[part.rows], evaluation.context
    try:
        context.state.put(rows, part.state)
    except KeyboardInterrupt:  # Ctrl-C between two columns: what is half entered would be no valid result
        context.state.put(rows, part.state)
        raise
    context.counted_model.forward_passes += part.forwards
    context.counted_model.backward_passes += part.backwards
