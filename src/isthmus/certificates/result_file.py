"""The file of a certified result: one safetensors file with images and bounds, and a checksum of its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isthmus.attacks.engine.state import seal
from isthmus.attacks.threats import parse
from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, brief
from isthmus.core.types import Record

_FORMAT = "isthmus certified result 1"

COLUMNS = ("images", "labels", "broken", "invalid", "adversarial", "margins", "method", "seconds")
"""Tensors of :class:`isthmus.certificates.result.CertifiedResult`, one row for each example."""

_TYPES = {
    "images": (torch.float32, 4),
    "labels": (torch.int64, 1),
    "broken": (torch.bool, 1),
    "invalid": (torch.bool, 1),
    "adversarial": (torch.float32, 4),
    "margins": (torch.float64, 2),
    "method": (torch.int64, 1),
    "seconds": (torch.float64, 1),
}


class Facts(Record):
    """What a file stores besides its tensors.

    Attributes:
        threat, attacks, methods, complete: see :class:`isthmus.certificates.result.CertifiedResult`.
        evaluation: digests of what determines an unfinished certification, by name, to resume only the same one.
        done: how far each example of an unfinished certification is.
    """

    threat: str
    attacks: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    complete: bool
    evaluation: dict[str, str] = Field(default_factory=dict)
    done: tuple[int, ...] = ()


def write(path: str | Path, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write a result, atomically.

    Raises:
        FileError: it cannot be written; an older file is left unchanged.
    """
    text = json.dumps(facts.model_dump())
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    files.write_bytes(path, save(plain, {"format": _FORMAT, "facts": text, "seal": seal(plain, text)}))


def read(path: str | Path) -> tuple[dict[str, Tensor], Facts]:
    """Read a file that :func:`write` wrote; runs no code from it.

    Raises:
        FileError: it is missing, truncated or something else, or was changed.
    """
    files.check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise FileError(f"{path} is not a certified result of this version of isthmus; certify again.")
            facts = Facts.model_validate_json(metadata["facts"], strict=True)
            parse(facts.threat)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check(tensors, facts)
        if seal(tensors, metadata["facts"]) != metadata.get("seal"):
            raise ValueError("its content does not match its own checksum")
        return tensors, facts
    except FileNotFoundError:
        raise FileError(f"There is no file {path}.") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, ConfigError) as error:
        raise FileError(f"{path} is not a readable certified result ({brief(error)}); certify again.") from None


def is_certified_result(path: str | Path) -> bool:
    """Whether a file says that it is a certified result."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("format", "")).startswith("isthmus certified result")
    except (SafetensorError, OSError):
        return False


def _check(tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Check that tensors and facts agree.

    Raises:
        ValueError: they do not.
    """
    if set(tensors) != set(COLUMNS):
        raise ValueError(f"it holds {', '.join(sorted(tensors))}")
    n = len(tensors["labels"])
    for name, (dtype, dims) in _TYPES.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tensor.dim() != dims or len(tensor) != n:
            raise ValueError(f"its {name} are {tensor.dtype} of shape {tuple(tensor.shape)}")
    if tensors["images"].shape != tensors["adversarial"].shape or n == 0:
        raise ValueError("its adversarial images have another shape than its images")
    method = tensors["method"]
    if not bool(((method >= -1) & (method < len(facts.methods))).all()) or (facts.done and len(facts.done) != n):
        raise ValueError("its methods are not those that it names")
