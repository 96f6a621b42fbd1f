"""Hashes by which a model is recognised: of its weights, and of its layers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.core import files


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the model's class name and of every parameter and buffer with its name."""
    parts: list[Any] = [type(model).__name__.encode()]
    for name, value in sorted(model.state_dict().items()):
        content = (
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            if isinstance(value, Tensor)
            else repr(value).encode()  # a module's extra state may be anything
        )
        parts += [name.encode(), content]
    return files.sha256(*parts)


def structure(model: nn.Module) -> str:
    """SHA-256 of the model's class name and its printed form without memory addresses: its layers."""
    return files.sha256(type(model).__name__.encode(), re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)).encode())
