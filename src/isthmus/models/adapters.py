"""Models of other packages: built by a named function, with weights that run no code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from isthmus.core import files
from isthmus.core.errors import FileError, ModelError, brief
from isthmus.core.preserve_state import no_exit


def external_model(build_path: str, weights: str | Path | None = None) -> nn.Module:
    """Build a model of another package: call ``package.module:function`` and load safetensors weights into it.

    The current folder is importable, as for ``python -m``.

    Raises:
        ModelError: the path is not that of a function, the function fails or returns no module, or the weights do not
            fit.
        FileError: the weights cannot be read.
    """
    module_name, colon, function = build_path.partition(":")
    if not colon or not module_name or not function:
        hint = " A run folder is given without --model." if Path(build_path).is_dir() else ""
        raise ModelError(
            f"A model is named package.module:function, such as mypackage.models:build; got {build_path!r}.{hint}"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if module_name.startswith("."):
        raise ModelError(f"Cannot find {build_path!r}: give the full name of the module, without a leading dot.")
    # Code of another package may raise anything, or exit.
    try:
        with no_exit():
            builder = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"Cannot find {build_path!r}: {_described(error)}.{_where(module_name, error)}") from error
    except Exception as error:
        raise ModelError(f"Importing {module_name!r} failed: {_described(error)}.") from error
    if not callable(builder):
        raise ModelError(f"{build_path!r} is {type(builder).__name__}; give a function that builds the model.")
    try:
        with no_exit():
            model = builder()
    except Exception as error:
        raise ModelError(
            f"{build_path}() failed: {_described(error)}. It is called without arguments and must return an nn.Module."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{build_path}() returned {type(model).__name__}; it must return an nn.Module.")
    if weights is not None:
        load_weights(model, weights)
    return model


def _where(module_name: str, error: Exception) -> str:
    """Where modules are searched, if the module itself is missing."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or not module_name.startswith(error.name):
        return ""
    if module_name.endswith(".py"):
        return " Give the module without .py, and folders as package.module."
    return " It must be in the current folder or in an installed package."


def _described(error: Exception) -> str:
    """Type and message of an error on one line."""
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors file into a model, checking names, shapes and types; never runs code.

    Raises:
        FileError: the file is missing, truncated or not a safetensors file.
        ModelError: names, shapes or types differ; the message lists the first few.
    """
    files.check_regular(path)
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise FileError(f"There are no weights at {path}.") from None
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{path} is not a readable safetensors file ({brief(error)}). Pickled weights (.pt, .pth) are not loaded, "
            "since that can run code. Convert a file of model.state_dict() with: "
            f"safetensors.torch.save_file(torch.load({str(path)!r}, weights_only=True), "
            f"{str(Path(path).with_suffix('.safetensors'))!r})."
        ) from None
    expected = model.state_dict()
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


def _missing(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that a file lacks; for a shared weight one of its names suffices, as safetensors writes it."""
    given = {(value.data_ptr(), value.shape) for name, value in expected.items() if name in state}
    return [
        name
        for name, value in expected.items()
        if name not in state and (value.numel() == 0 or (value.data_ptr(), value.shape) not in given)
    ]


def _prefix_hint(expected: set[str], given: set[str]) -> str:
    """Advice if all names differ by a prefix, as after DataParallel, torch.compile or in a larger module."""
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
