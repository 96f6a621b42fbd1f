"""Checkpoints: the whole state of a run in one safetensors file, written atomically, read without running code.

Tensors are stored under dotted names (``model.…``, ``optimizer.…``, ``average.…``); everything else is JSON in the
file's header.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, optim

from isthmus.core import files
from isthmus.core.errors import FileError, brief

FORMAT = "isthmus-checkpoint-1"
log = logging.getLogger(__name__)


def before(path: Path) -> Path:
    """Path of the previous checkpoint, which is used if the current one is damaged."""
    return path.with_name(f"{path.stem}-before{path.suffix}")


def write(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write groups of tensors and JSON-able facts; the existing checkpoint is kept as :func:`before`.

    Raises:
        FileError: the disk is full; the existing checkpoint is unchanged.
    """
    flat = {
        f"{group}.{name}": value.detach().cpu().contiguous()
        for group, members in tensors.items()
        for name, value in members.items()
    }
    header = {"format": FORMAT, "facts": json.dumps(facts), "sha256": digest(flat)}
    content = save(flat, header)
    with contextlib.suppress(OSError):  # a file system without hard links keeps one checkpoint
        link = path.with_name(f".{before(path).name}.link.part")  # recognised as a leftover
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(before(path))
    files.write_bytes(path, content)


def exists(path: Path) -> bool:
    """Whether there is a checkpoint."""
    return path.exists() or before(path).exists()


def read_last_good(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read the checkpoint, or with a warning the previous one if it is damaged or missing.

    Raises:
        FileError: both are damaged, or there is no previous one.
    """
    try:
        return read(path)
    except FileError as error:
        if not before(path).exists():
            raise
        try:
            groups, facts = read(before(path))
        except FileError:
            raise error from None
        log.warning("%s is damaged; training resumes from the previous checkpoint, of step %s.", path, facts["step"])
        return groups, facts


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named CPU tensors: names, shapes and bytes; safetensors does not detect a flipped bit."""
    parts: list[Any] = []
    for name, value in sorted(tensors.items()):
        parts += [f"{name}{tuple(value.shape)}".encode(), value.contiguous().reshape(-1).view(torch.uint8).numpy()]
    return files.sha256(*parts)


def checksum(path: Path) -> str | None:
    """The digest in the header of a safetensors file; None if there is none.

    Raises:
        FileError: it is not a safetensors file.
    """
    files.check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is not a readable safetensors file ({brief(error)}).") from None


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a file of :func:`write`.

    Raises:
        FileError: the file is truncated, corrupt, or of another format.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    files.check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"its format is {header.get('format')!r}, expected {FORMAT!r}")
            facts = files.parse_json(header["facts"])
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
        if digest(flat) != header["sha256"]:
            raise ValueError("its content does not match its checksum")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FileError(
            f"The checkpoint {path} cannot be read ({brief(error)}). Delete it to train again from the start; "
            "metrics are kept until then."
        ) from None
    for key, value in flat.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    return groups, facts


def optimizer_tensors(optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as flat tensors, ``<parameter number>.<name>``; its settings come from the recipe."""
    return {
        f"{number}.{name}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state of :func:`optimizer_tensors` in the memory layout of the parameters.

    Fused optimisers traverse parameters and moments in memory order: a channels-last parameter with contiguous moments
    would be updated with the moments of other weights.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        state.setdefault(int(number), {})[name] = like.copy_(value)
        if value.dim() and value.shape != parameter.shape:
            raise ValueError(f"{key} of the optimiser has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
    expected = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, optim.Adam) else {"momentum_buffer"}
    if any(set(entries) != expected for entries in state.values()):
        raise ValueError(f"the optimiser's state is not {', '.join(sorted(expected))}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
