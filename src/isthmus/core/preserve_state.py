"""Use a model and the random state, and restore both exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from isthmus.core.errors import ModelError

ENDS = "sys.exit or os._exit in its code"


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Device of the model: that of its first parameter or buffer, else that of the images."""
    return next((t.device for ts in (model.parameters(), model.buffers()) for t in ts), images.device)


@contextmanager
def preserve_state(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """The model in eval mode and full precision; afterwards model and global state are as before.

    Restores each submodule's training flag, parameters, buffers, the global random generators of the CPU and
    ``device``, and torch's global settings: default dtype, number of threads, gradient mode, deterministic algorithms.
    Inside, the generators are seeded, so that a model that draws its own noise gives repeatable outputs; parameters
    require no gradient; and NVIDIA's TensorFloat-32, with its 10 bits, is off.

    Raises:
        ModelError: the model tries to end the program, by ``sys.exit`` or ``os._exit``.
    """
    # a frozen TorchScript module has no flag
    flags = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    values = {name: value.detach().clone() for name, value in _values(model)}
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        torch.inference_mode(False),
        torch.autocast(device.type, enabled=False),
        _settings(),
        no_exit(),
    ):
        seed_generators(seed, cuda)
        try:
            if any(training for _, training in flags):
                with suppress(NotImplementedError):  # modules of torch.export keep the mode they were exported in
                    model.eval()
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield
        finally:
            for module, training in flags:
                module.training = training
            for parameter in wanted:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for name, value in _values(model):
                    if name in values and not torch.equal(value, values[name]):
                        value.copy_(values[name])


@contextmanager
def in_mode(model: nn.Module, training: bool | None) -> Iterator[None]:
    """The model in train or eval mode, or for None in the mode of each module; restores modes and buffers.

    Lighter than :func:`preserve_state`, for every step of a training loop: parameters, generators and settings of torch
    are not touched.
    """
    flags = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        if training is not None and any(flag != training for _, flag in flags):
            with suppress(NotImplementedError):  # modules of torch.export keep the mode they were exported in
                model.train(training)
        yield
    finally:
        for module, flag in flags:
            module.training = flag
        for buffer, value in buffers:
            buffer.data.copy_(
                value
            )  # .data: an earlier forward pass, not yet differentiated, may have saved the buffer


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


@contextmanager
def no_exit() -> Iterator[None]:
    """Inside, code that ends the program raises a ModelError, so that a missing result never looks like success."""

    def refused(status: int) -> NoReturn:
        if os.getpid() != process:  # a forked process ends as it must
            leave(status)
        raise SystemExit(status)

    leave, process = os._exit, os.getpid()
    os._exit = refused
    try:
        yield
    except SystemExit as error:
        raise ModelError(f"The model ends the program ({ENDS}): exit code {error.code}.") from error
    finally:
        os._exit = leave


def _cudnn(name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: getattr(torch.backends.cudnn, name), lambda value: setattr(torch.backends.cudnn, name, value)


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch.use_deterministic_algorithms": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "torch.autograd.set_detect_anomaly": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    **{f"torch.backends.cudnn.{name}": _cudnn(name) for name in ("deterministic", "benchmark", "allow_tf32")},
}
"""Torch's global settings that a model may change: how to read and how to restore each."""


def settings() -> dict[str, Any]:
    """The values of :data:`SETTINGS`."""
    return {name: read() for name, (read, _) in SETTINGS.items()}


def restore_settings(values: Mapping[str, Any]) -> None:
    """Restore the settings that are not as in ``values``; to set one may take seconds."""
    for name, value in values.items():
        read, restore = SETTINGS[name]
        if read() != value:
            restore(value)


@contextmanager
def _settings() -> Iterator[None]:
    """Full float32 precision inside; torch's global settings are restored afterwards."""
    values = settings()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        restore_settings(values)


def seed_generators(seed: int, cuda: list[torch.device]) -> None:
    """Seed the global generators of the CPU and of these devices, and of no other."""
    torch.default_generator.manual_seed(seed)
    for device in cuda:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
