"""One stage on some examples: in this process, or in shards that an executor's workers run.

The result for an example depends on its own key alone, so it does not matter which worker attacks it. A shard is the
unit of checkpoints: its rows enter the evaluation's state when it is over.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isthmus.attacks.attack import IterativeAttack, SingleShotAttack, Stage
from isthmus.attacks.engine import optimized_model
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.scheduler import BatchScheduler
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.execution import Executor, Report
from isthmus.core.files import sha256
from isthmus.core.preserve_state import device_of, preserve_state

SHARDS = 6
"""Largest number of shards of a stage for each worker; a lost worker costs one of them."""
FILLED = 4
"""A shard has at least one example for this many rows of a batch."""
OFTEN = 0.25
"""Seconds between two progress reports."""
GRACE = 3.0
"""Seconds in which interrupted workers can return what they found."""


def run_stage(context: EvaluationContext, stage: Stage, rows: Tensor, position: int) -> Generator[None, None, None]:
    """Run a stage on these examples in this process; yield whenever the state is consistent.

    Args:
        position: of the stage, as the state counts.
    """
    if isinstance(stage.attack, SingleShotAttack):
        return context.propose(stage.label, stage.attack, rows, position)
    if not isinstance(stage.attack, IterativeAttack):
        raise ConfigError(f"The attack {stage.label!r} is neither single-shot nor iterative.")
    attack = stage.attack.for_threat(context.threat, context.classes)
    return BatchScheduler(context, attack, stage.label, position).run(rows)


class Underway(NamedTuple):
    """Progress of shards that are not over.

    Attributes:
        runs: runs that are over.
        decided: examples that are broken or invalid.
        forwards, backwards: example-passes.
    """

    runs: int = 0
    decided: int = 0
    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Shard:
    """Some examples of a stage, with everything that a worker needs besides the model.

    Attributes:
        stage: without its choice of examples, which may be a local function.
        position: see :func:`run_stage`.
        size: rows in a batch.
        random: whether the model counts as random.
        seed: of the global generators, for a model that draws its own noise.
    """

    stage: Stage
    threat: Threat
    position: int
    size: int
    random: bool
    seed: int
    examples: Batch
    state: EvaluationState

    @property
    def called(self) -> str:
        """How error messages call it."""
        return f"attack {self.stage.label!r}"


@dataclass(frozen=True)
class Found:
    """The result of a shard, partial after an interruption. ``random``: it stopped, since the model is random."""

    state: EvaluationState
    forwards: int
    backwards: int
    random: bool


@dataclass
class AttackTask:
    """Attacks shards with one model, which workers receive once.

    Attributes:
        device: on which workers compute; None for the model's own.
        threads: of a worker.
    """

    model: nn.Module
    bf16: bool
    device: str | None
    threads: int
    settings: dict[str, Any] = field(default_factory=lambda: _settings(), compare=False)
    counted: CountedModel | None = field(default=None, init=False, compare=False)  # a worker's

    called = "model"

    @classmethod
    def of(cls, executor: Executor, model: nn.Module, bf16: bool) -> AttackTask:
        """The task for an executor's workers, which share the processors that torch uses here."""
        threads = executor.threads or max(1, torch.get_num_threads() // executor.workers)
        return cls(model, bf16, executor.device, threads)

    def __getstate__(self) -> dict[str, Any]:
        state = {**vars(self), "counted": None}
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        if self.device is not None and any(tensor.device.type != "cpu" for tensor in tensors):
            state["model"] = copy.deepcopy(self.model).cpu()  # a worker may lack the caller's GPU
        return state

    def __call__(self, shard: Shard, report: Report) -> Found:
        """Attack a shard; on KeyboardInterrupt, return the result so far."""
        torch.set_num_threads(self.threads)
        _apply(self.settings)
        model = self.model if self.device is None else self.model.to(self.device)
        device = device_of(model, torch.empty(0))
        random, before = False, _passes(self.counted)
        with preserve_state(model, device, shard.seed):
            try:
                self._attack(shard, device, report)
            except Randomness:
                random = True
            except KeyboardInterrupt:
                shard.state.settle()
        after = _passes(self.counted)
        return Found(shard.state, after[0] - before[0], after[1] - before[1], random)

    def _attack(self, shard: Shard, device: torch.device, report: Report) -> None:
        before = _passes(self.counted)
        if self.counted is None:
            probe = shard.examples.images[: optimized_model.PROBE].to(device)
            self.counted = optimized_model.wrap(self.model, self.bf16, probe)
        self.counted.random = shard.random
        state, rows = shard.state, torch.arange(len(shard.state))
        context = EvaluationContext(Verifier(self.counted, shard.threat), shard.examples, state, device, shard.size)
        runs, robust, last = runs_over(state, rows), int(state.robust.sum()), 0.0
        for _ in run_stage(context, shard.stage, rows, shard.position):
            if time.monotonic() - last > OFTEN:
                last, passes = time.monotonic(), _passes(self.counted)
                decided = robust - int(state.robust.sum())
                over = runs_over(state, rows) - runs
                report(Underway(over, decided, passes[0] - before[0], passes[1] - before[1]))


def runs_over(state: EvaluationState, rows: Tensor) -> int:
    """How many runs of the present attack are over for these examples; all runs if an example is decided."""
    return int(torch.where(state.robust[rows], state.done[rows], state.scores.shape[1]).sum())


def _passes(counted: CountedModel | None) -> tuple[int, int]:
    return (0, 0) if counted is None else (counted.forward_passes, counted.backward_passes)


def _settings() -> dict[str, Any]:
    """The caller's settings of torch that affect numbers."""
    return {
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _apply(settings: dict[str, Any]) -> None:
    torch.set_default_dtype(settings["dtype"])
    torch.set_float32_matmul_precision(settings["precision"])
    torch.backends.cudnn.allow_tf32 = settings["tf32"]
    torch.use_deterministic_algorithms(settings["deterministic"])


# --- the caller's side ---


class SharedStage:
    """One attack on some examples, run by an executor's workers. Iterate over it to the end, or call :meth:`stop`.

    Yields :class:`Underway` several times a second, whenever the state is consistent.

    Args:
        position: see :func:`run_stage`.
        seed: of the evaluation.

    Raises:
        ConfigError: model or attack cannot be sent to workers.
        ModelError: a shard lost its workers several times.
        Randomness: a worker found that the model is random.
    """

    def __init__(
        self, executor: Executor, task: AttackTask, context: EvaluationContext, stage: Stage, position: int, seed: int
    ) -> None:
        self._executor, self._task, self._context = executor, task, context
        self._stage, self._position, self._seed = stage, position, seed
        self._underway: dict[int, Underway] = {}
        self._parts: list[Tensor] = []

    def run(self, rows: Tensor) -> Generator[Underway, None, None]:
        """Attack these examples; results by the end or an interruption enter the context's state."""
        state = self._context.state
        rows = rows[state.robust[rows] & (state.done[rows] < state.scores.shape[1])]
        count = self._count(len(rows))
        self._parts = [rows[number::count] for number in range(count)]
        shards = [self._shard(number, part) for number, part in enumerate(self._parts)]
        try:
            for outcome in self._executor.map(self._task, shards, self._report):
                if outcome is not None:
                    if outcome.lost:
                        raise ModelError(
                            f"Some examples could not be attacked: {outcome.lost}. Fewer jobs or a smaller batch_size "
                            "need less memory."
                        )
                    self._enter(outcome.shard, outcome.value)
                    if outcome.value.random:
                        raise Randomness
                yield Underway(*map(sum, zip(Underway(), *self._underway.values(), strict=True)))
        finally:
            for outcome in self._executor.stop(GRACE):
                self._enter(outcome.shard, outcome.value)

    def _count(self, n: int) -> int:
        """Number of shards: enough to keep workers busy, but with enough examples for a batch."""
        workers = self._executor.workers
        smallest = max(1, self._context.size // FILLED)
        return min(n, workers * min(SHARDS, max(1, n // (workers * smallest))))

    def _shard(self, number: int, rows: Tensor) -> Shard:
        context = self._context
        return Shard(
            stage=replace(self._stage, among=None),
            threat=context.threat,
            position=self._position,
            size=context.size,
            random=context.counted_model.random,
            seed=int(sha256(f"{self._seed} {self._stage.label} {number}".encode())[:15], 16),
            examples=context.examples.take(rows).to(torch.device("cpu")),
            state=context.state.take(rows),
        )

    def _report(self, shard: int, value: Underway) -> None:
        known = self._underway.get(shard, Underway())
        if value.forwards < known.forwards:  # it started again after its worker was lost; those passes were spent
            self._count_passes(known.forwards, known.backwards)
        self._underway[shard] = value

    def _enter(self, shard: int, found: Found) -> None:
        rows, state = self._parts[shard], self._context.state
        self._underway.pop(shard, None)
        self._count_passes(found.forwards, found.backwards)
        try:
            state.put(rows, found.state)
        except KeyboardInterrupt:  # between two columns, where the result is not valid
            state.put(rows, found.state)
            raise

    def _count_passes(self, forwards: int, backwards: int) -> None:
        self._context.counted_model.forward_passes += forwards
        self._context.counted_model.backward_passes += backwards
