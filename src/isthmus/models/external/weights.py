"""Weights from files that run no code: safetensors, and state dicts of ``torch.save`` read with ``weights_only``."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from isthmus.core import files
from isthmus.core.errors import FileError, ModelError, brief

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights from a file into a model, checking names, shapes and types; never runs code.

    Names may begin with "module." or "_orig_mod.", as after DataParallel or torch.compile.

    Args:
        model: to load into.
        path: a safetensors file, or a ``.pt`` file of a state dict. A checkpoint may hold the state dict under a name,
            such as "state_dict".

    Raises:
        FileError: the file is missing, truncated, or of another kind.
        ModelError: names, shapes or types differ; the message lists the first few.
    """
    expected = model.state_dict()
    state = read_weights(path, set(expected))
    faults = [f"{name} is missing" for name in _missing(expected, state)]
    faults += [f"{name} is not in the model" for name in state if name not in expected]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, the model's has {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    faults += [
        f"{name} is {state[name].dtype}, the model's is {value.dtype}; convert it first"
        for name, value in expected.items()
        if name in state and state[name].is_floating_point() != value.is_floating_point()
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        hint = _prefix_hint(set(expected), set(state))
        raise ModelError(f"The weights in {path} do not fit the model: {'; '.join(faults[:3])}{more}.{hint}")
    model.load_state_dict(state, strict=False)  # missing names share their tensor with a given one


def read_weights(path: str | Path, expected: set[str]) -> dict[str, Tensor]:
    """The tensors in a file, by name, without the prefixes of DataParallel and torch.compile.

    Args:
        path: as for :func:`load_weights`.
        expected: names that tell which of several state dicts in a checkpoint is meant.

    Raises:
        FileError: the file is missing, truncated, or of another kind.
    """
    files.check_regular(path)
    return _unwrapped(_read(Path(path), expected), expected)


def _read(path: Path, expected: set[str]) -> dict[str, Tensor]:
    """The tensors in a file, by name."""
    try:
        with path.open("rb") as file:
            pickled = file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # today's and the old format of torch.save
    except OSError:
        raise FileError(f"There are no weights at {path}.") from None
    if not pickled:
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise FileError(
                f"{path} is neither a readable safetensors file ({brief(error)}) nor a file of torch.save."
            ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path} holds more than tensors, and loading it could run code, so it is not loaded "
            f"({brief(error, 120)}). If you trust it, save its weights alone: "
            "torch.save(model.state_dict(), 'weights.pt')."
        ) from None
    except Exception as error:  # a damaged archive raises anything
        raise FileError(f"{path} is not a readable file of torch.save ({brief(error, 120)}).") from None
    found = _state_dicts(content)
    if not found:
        raise FileError(f"{path} holds {type(content).__name__} without a state dict; save model.state_dict().")
    fitting = {place: len(_unwrapped(state, expected).keys() & expected) for place, state in found.items()}
    best = [place for place, count in fitting.items() if count == max(fitting.values())]
    if len(best) > 1 and fitting[best[0]]:
        raise FileError(
            f"{path} holds several state dicts that fit: {', '.join(best)}. Save the one you mean alone: "
            f"torch.save(torch.load({str(path)!r}, weights_only=True){best[0]}, 'weights.pt')."
        )
    return found[best[0]]


def _state_dicts(content: Any, place: str = "", depth: int = 2) -> dict[str, dict[str, Tensor]]:
    """All mappings from names to tensors in a checkpoint, such as its "state_dict" or "model_ema", by their place."""
    if not isinstance(content, Mapping):
        return {}
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {place: {str(name): value for name, value in content.items()}}
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items() if depth else ():
        found |= _state_dicts(value, f"{place}[{key!r}]", depth - 1)
    return found


def _unwrapped(state: dict[str, Tensor], expected: set[str]) -> dict[str, Tensor]:
    """The weights without the prefixes of :data:`_WRAPPERS`, unless the model's names have them, too."""
    for _ in range(2):
        for prefix in _WRAPPERS:
            wrapped = bool(state) and all(name.startswith(prefix) for name in state)
            if wrapped and not any(name.startswith(prefix) for name in expected):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _missing(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that a file lacks; for a shared weight one of its names suffices, as safetensors writes it."""
    given = {(value.data_ptr(), value.shape) for name, value in expected.items() if name in state}
    return [
        name
        for name, value in expected.items()
        if name not in state and (value.numel() == 0 or (value.data_ptr(), value.shape) not in given)
    ]


def _prefix_hint(expected: set[str], given: set[str]) -> str:
    """Advice if all names differ by a prefix, as in a larger module."""
    for longer, shorter, advice in (
        (given, expected, "Remove {!r} from the beginning of the file's names"),
        (expected, given, "Add {!r} to the beginning of the file's names"),
    ):
        parts = min(longer, default="").split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth]) + "."
            if {name.removeprefix(prefix) for name in longer} == shorter:
                return f" {advice.format(prefix)}, and they fit."
    return ""
