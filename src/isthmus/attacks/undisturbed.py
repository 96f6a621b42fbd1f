"""Working with somebody's model and random state, and leaving both exactly as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where the model computes: with its first parameter or buffer, else where the images are."""
    return next((t.device for ts in (model.parameters(), model.buffers()) for t in ts), images.device)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """The model in eval mode and full precision; afterwards model and random state are as before.

    Restores each submodule's training flag, the buffers, and the global random generators of the CPU and
    ``device``. Inside, those are seeded, so that a model that draws its own noise gives repeatable answers, parameters
    ask for no gradient, and float32 is float32: NVIDIA's TensorFloat-32, with its 10 bits, is off.
    """
    # a frozen TorchScript module has no flag
    flags = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        torch.inference_mode(False),
        torch.autocast(device.type, enabled=False),
        _full_float32(),
    ):
        seed_generators(seed, cuda)
        try:
            if any(training for _, training in flags):
                with suppress(NotImplementedError):  # torch.export's modules keep the mode they were exported in
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
                for name, buffer in model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])


@contextmanager
def _full_float32() -> Iterator[None]:
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def seed_generators(seed: int, cuda: list[torch.device]) -> None:
    """Seed the global generators of the CPU and of these devices, and of no other."""
    torch.default_generator.manual_seed(seed)
    for device in cuda:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
