"""What a recipe would train, and what that costs, measured by a few steps that are thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from isthmus.core.recipe import Recipe, load_recipe
from isthmus.data.batches import Batch
from isthmus.data.loading import load
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.hypothesis import Hypothesis
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

SECONDS = 3.0
"""Steps are measured for about this long."""

_STEPS = 50


@dataclass(frozen=True)
class DryRun:
    """A recipe, the sizes of its model, and the measured cost of a step of one process.

    Attributes:
        recipe: with all defaults.
        shapes: of the images of a batch ("input"), of what the model makes of them ("features", "code" of a bottleneck,
            "logits").
        parameters, trained: numbers of weights, and of those that are not frozen.
        memory: estimated bytes: "weights" (with buffers), "gradients", "optimizer" (its state and a moving average),
            and "activations" (tensors that the backward pass of one part of a batch needs). Workspace of kernels and
            the allocator's overhead come on top.
        step_seconds: median time of a step, from reading the batch to the optimiser.
        timed: number of steps measured, after one that is not.
        steps_per_epoch: of a run.
        device: where it was measured.
    """

    recipe: Recipe
    shapes: Mapping[str, tuple[int, ...]]
    parameters: int
    trained: int
    memory: Mapping[str, int]
    step_seconds: float
    timed: int
    steps_per_epoch: int
    device: str

    @property
    def epoch_seconds(self) -> float:
        """Estimated time of an epoch, without evaluation."""
        return self.step_seconds * self.steps_per_epoch

    def text(self) -> str:
        """The recipe as YAML, and a line for each fact."""
        settings = self.recipe.training
        total = self.epoch_seconds * settings.epochs
        processes = settings.devices * settings.nodes
        share = f" (one process of {processes})" if processes > 1 else ""
        lines = {
            **{name: " × ".join(map(str, shape)) for name, shape in self.shapes.items()},
            "parameters": f"{self.parameters:,}, of which {self.trained:,} are trained",
            "memory": f"{_bytes(sum(self.memory.values()))}, estimated: "
            + ", ".join(f"{name} {_bytes(count)}" for name, count in self.memory.items()),
            "step": f"{1000 * self.step_seconds:.1f} ms on {self.device}{share}, median of {self.timed}",
            "epoch": f"{_seconds(self.epoch_seconds)} for {self.steps_per_epoch:,} steps, without evaluation",
            "run": f"{_seconds(total)} for {settings.epochs:,} epochs",
        }
        width = max(map(len, lines)) + 2
        facts = [f"{f'{name}:':{width}}{value}" for name, value in lines.items()]
        return "\n".join([yaml.safe_dump(self.recipe.plain(), sort_keys=False, allow_unicode=True), *facts])


def dry_run(recipe: Recipe) -> DryRun:
    """Build a recipe's model and data, and measure a few training steps. No run folder is written.

    Args:
        recipe: a ready recipe (:func:`isthmus.core.recipe.load_recipe`). Of several processes, one is measured here,
            with its share of each batch.

    Raises:
        ConfigError, DataError, ModelError: as :func:`isthmus.train`.
    """
    settings = recipe.training
    processes = settings.devices * settings.nodes
    alone = {"devices": 1, "nodes": 1, "batch_size": settings.batch_size // processes}
    trainer = Trainer(
        load_recipe(recipe, {f"training.{name}": value for name, value in alone.items()}),
        load(recipe.data),
        Run(Path("runs") / recipe.name),
    )
    count = len(trainer.data.training_split().labels)
    trainer.model.train()
    trainer.frozen.keep_statistics()
    batches = _batches(trainer)
    part = next(batches)[0]
    shapes = _shapes(trainer, part.images)
    activations = _activations(trainer, part)
    times = _times(trainer, batches)
    optimizers = [value for each in trainer.optimizers.values() for value in _tensors(each.state.values())]
    average = [] if trainer.average is None else list(trainer.average.shadow.values())
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    return DryRun(
        recipe,
        shapes,
        parameters=sum(each.numel() for each in trainer.model.parameters()),
        trained=sum(each.numel() for each in trained),
        memory={
            "weights": _size([*trainer.model.parameters(), *trainer.model.buffers()]),
            "gradients": _size(trained),
            "optimizer": _size([*optimizers, *average]),
            "activations": activations,
        },
        step_seconds=statistics.median(times),
        timed=len(times),
        steps_per_epoch=count // settings.batch_size if settings.parts > 1 else -(-count // settings.batch_size),
        device=_device(trainer.fabric.device),
    )


def _batches(trainer: Trainer) -> Iterator[tuple[Batch, ...]]:
    epoch = 0
    while True:
        yield from trainer._parts(epoch, 0)
        epoch += 1


@torch.no_grad()
def _shapes(trainer: Trainer, images: Tensor) -> dict[str, tuple[int, ...]]:
    model, found = trainer.model, {"input": tuple(images.shape)}
    network: nn.Module | None = getattr(model, "backbone", None)

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found["features"] = tuple(output.shape)

    with trainer.fabric.autocast():
        if isinstance(model, Hypothesis):
            found["features"] = tuple(model.features(images).shape)
        elif isinstance(model, Bottleneck) and network is not None:
            handle = network.register_forward_hook(keep)
            found["code"] = tuple(model.encode(images).mean.shape)
            handle.remove()
            found = {name: found[name] for name in ("input", "features", "code")}
        return found | {"logits": tuple(model(images).shape)}


def _activations(trainer: Trainer, part: Batch) -> int:
    """Bytes of the tensors that autograd keeps for the backward pass, each storage once, without the weights."""
    own = {each.untyped_storage().data_ptr() for each in (*trainer.model.parameters(), *trainer.model.buffers())}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value), trainer.fabric.autocast():
        terms = trainer.model.loss(part.images, part.labels, trainer.rho.at(0), trainer._noise(0))
    del terms
    return sum(kept.values())


def _times(trainer: Trainer, batches: Iterator[tuple[Batch, ...]]) -> list[float]:
    """Seconds of some steps after the first, which also sets up kernels and the optimiser's state."""
    times: list[float] = []
    end = time.monotonic() + SECONDS
    while len(times) < 2 or (len(times) <= _STEPS and time.monotonic() < end):
        started = time.perf_counter()
        trainer._set_learning_rate(0)
        with trainer._explaining_memory():
            trainer._step(next(batches))
        if trainer.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times[1:]


def _tensors(states: Any) -> Iterator[Tensor]:
    return (value for state in states for value in state.values() if isinstance(value, Tensor))


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def _seconds(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"
