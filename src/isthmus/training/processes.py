"""Data-parallel training of one model in several processes: starting them, and their communication.

Each process sees its share of every batch. Gradients are averaged over the processes before the optimiser's step, so
that all take the same step from the same weights; optimisers, moving averages and schedules need no communication. With
a single process nothing here has an effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from isthmus.core.errors import ConfigError
from isthmus.core.training_options import Training
from isthmus.core.types import Terms
from isthmus.information.codes import Gather
from isthmus.training.loss_scale import LossScale

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = TypeVar("Result")
_STOPPED = 2  # exit code of a process that stops because the first process failed


class ProcessGroup:
    """This process in the group that trains one model.

    Attributes:
        fabric: device and precision.
        loss_scale: for fp16.
        rank, world: number of this process, and number of processes.
        first: whether this process writes files and prints.
    """

    def __init__(self, fabric: Fabric, loss_scale: LossScale) -> None:
        self.fabric, self.loss_scale = fabric, loss_scale
        self.rank, self.world = fabric.global_rank, fabric.world_size
        self.first = self.rank == 0
        self.gather: Gather | None = self._gather if self.world > 1 else None
        self._requested: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.fabric.device

    def on_first(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` in the first process, and return its result in all processes, which wait for it.

        Raises:
            Exception: what ``work`` raises, in the first process.
            SystemExit: in the others.
        """
        if self.world == 1:
            return work()
        done: tuple[bool, Result | None] = (False, None)
        try:
            if self.first:
                done = (True, work())
        finally:
            done = self.fabric.broadcast(done)
        if not done[0]:
            raise SystemExit(_STOPPED)
        result: Result = done[1]  # type: ignore[assignment]
        return result

    @contextmanager
    def hold_on_first(self, what: AbstractContextManager[None]) -> Iterator[None]:
        """Enter a context in the first process only; the others continue once it is entered."""
        with ExitStack() as stack:
            self.on_first(lambda: stack.enter_context(what))
            yield

    def _gather(self, share: Tensor, dim: int) -> Tensor:
        """The rows of all processes in the order of the whole batch; every ``world``-th row is from this process."""
        gathered: Tensor = _Gathered.apply(share.movedim(dim, 0), self.rank, self.world)  # type: ignore[no-untyped-call]
        return gathered.movedim(0, dim)

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in one all-reduce."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def mean(self, parts: Sequence[Terms]) -> Terms:
        """Terms of a whole batch from those of its equal parts; equal in all processes.

        Bounds that compare the examples of a batch are then means of bounds on smaller batches.
        """
        if len(parts) == 1:
            return parts[0]
        measured = torch.stack([torch.stack([value.double() for value in _tensors(part)]) for part in parts]).mean(0)
        return _with_tensors(parts[0], iter(measured.unbind()))

    def sums(self, values: Tensor) -> list[float]:
        """Sums of some numbers over the processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return [float(value) for value in values]

    def any_process(self, requested: bool) -> bool:
        """Whether any process should stop. With several processes, as of the previous call, to avoid waiting."""
        if self.world == 1:
            return requested
        before = self._requested is not None and bool(self._requested)
        self._requested = torch.tensor(float(requested), device=self.device)
        distributed.all_reduce(self._requested, distributed.ReduceOp.MAX)
        return before

    @torch.no_grad()
    def broadcast_state(self, model: nn.Module) -> None:
        """Broadcast the parameters and buffers of the first process."""
        self._broadcast([*model.parameters(), *model.buffers()])

    @torch.no_grad()
    def broadcast_buffers(self, model: nn.Module) -> None:
        """Broadcast the buffers of the first process: the running statistics of batch normalisation."""
        self._broadcast(model.buffers())

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


class _Gathered(torch.autograd.Function):
    """Rows of all processes, with the gradient of the loss that every process computes from all of them.

    Each process has the loss of the whole batch, and hence the gradient of every row. It multiplies the gradient of its
    own rows by ``world``, because gradients are then averaged over processes: parameters before the gather get the sum
    over all rows, and parameters after it, which see all rows in every process, their gradient. The backward pass needs
    no communication.
    """

    @staticmethod
    def forward(context: Any, share: Tensor, rank: int, world: int) -> Tensor:
        context.rank, context.world = rank, world
        parts = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(world)]
        distributed.all_gather(parts, share.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][context.rank :: context.world] * context.world, None, None


def _tensors(terms: Terms) -> list[Tensor]:
    own = [value for value in vars(terms).values() if isinstance(value, Tensor)]
    return own + [value for level in getattr(terms, "levels", ()) for value in _tensors(level)]


def _with_tensors(terms: Terms, values: Iterator[Tensor]) -> Terms:
    """The same terms with other tensors, in the order of :func:`_tensors`."""
    found: dict[str, Any] = {name: next(values) for name, value in vars(terms).items() if isinstance(value, Tensor)}
    if levels := getattr(terms, "levels", ()):
        found["levels"] = tuple(_with_tensors(level, values) for level in levels)
    return replace(terms, **found)


def start(settings: Training) -> ProcessGroup:
    """Start the processes of a recipe, or join those that torchrun, ``fabric run`` or Slurm's srun started.

    Without such a launcher, the other processes are started here, by running the same command again.

    Raises:
        ConfigError: fewer GPUs than requested, or the launcher's settings differ from those of the recipe.
    """
    from lightning_fabric import Fabric  # 2 s of imports that only training needs
    from lightning_fabric.plugins.precision import MixedPrecision, Precision

    kind = accelerator(settings)
    world = settings.devices * settings.nodes
    under_fabric = "LT_CLI_USED" in os.environ  # it is torchrun, and sets up the process group
    _check_launcher(settings, "fabric run" if under_fabric else "torchrun")
    loss_scale = LossScale(torch.amp.GradScaler(kind) if settings.precision == "fp16" else None)
    mixed = {"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(settings.precision)
    try:
        fabric = Fabric(
            accelerator=kind,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="ddp" if world > 1 else "auto",
            plugins=MixedPrecision(mixed, kind, loss_scale.scaler) if mixed else Precision(),  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError) as error:  # the environment of the launcher contradicts these options
        raise ConfigError(f"The recipe and the launcher of this process disagree: {error}") from None
    if world > 1 and not under_fabric:
        fabric.launch()
    if world > 1:
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(settings.devices))  # as torchrun does; decoding threads read it
    return ProcessGroup(fabric, loss_scale)


def _check_launcher(settings: Training, torchrun: str) -> None:
    """Check that a launcher, if there is one, started as many processes as the recipe has.

    Args:
        torchrun: the command behind torchrun's environment variables.

    Raises:
        ConfigError: it started another number.
    """
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    world = settings.devices * settings.nodes
    if distributed.is_available() and distributed.is_torchelastic_launched():
        launcher, started = torchrun, int(os.environ["WORLD_SIZE"])
    elif world > 1 and SLURMEnvironment.detect():  # a single process may run in a job with more tasks
        launcher, started = "srun", int(os.environ["SLURM_NTASKS"])
    else:
        return
    if started != world:
        raise ConfigError(
            f"{launcher} started {started} processes, but training.devices={settings.devices} on "
            f"training.nodes={settings.nodes} are {world}; set them to the values given to {launcher}."
        )


def accelerator(settings: Training) -> str:
    """The accelerator of a recipe, "cpu" or "cuda"; "auto" chooses what is available.

    Raises:
        ConfigError: fewer GPUs than requested.
    """
    # Not Fabric's "auto": it would pick Apple's MPS, which has no float64, and the bounds are computed in float64.
    name: str = settings.accelerator
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if name == "cuda" and settings.devices > torch.cuda.device_count():
        raise ConfigError(
            f"training.devices={settings.devices}, but this machine has {torch.cuda.device_count()} GPUs; "
            "set training.devices to at most that."
        )
    return name


def is_first_process() -> bool:
    """Whether this is the only process or the first of several, which prints."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
