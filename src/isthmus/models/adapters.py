"""Models from elsewhere: built by a function that a command names, with weights that run no code."""

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


def foreign(build_path: str, weights: str | Path | None = None) -> nn.Module:
    """Build somebody else's model: call ``package.module:function`` and load safetensors weights into it.

    The current folder is importable, as it is for ``python -m``.

    Raises:
        ModelError: the path names no function, the function fails or returns no module, or the weights do not fit.
        FileError: the weights cannot be read.
    """
    module_name, colon, function = build_path.partition(":")
    if not colon or not module_name or not function:
        raise ModelError(
            f"A model is named package.module:function, such as mypackage.models:build; got {build_path!r}."
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if module_name.startswith("."):
        raise ModelError(f"Cannot find {build_path!r}: give the module's whole name, without a leading dot.")
    # What stands there is somebody else's code: it may fail with anything, or end the program.
    try:
        with no_exit():
            builder = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"Cannot find {build_path!r}: {_said(error)}.") from error
    except Exception as error:
        raise ModelError(f"Importing {module_name!r} failed: {_said(error)}.") from error
    if not callable(builder):
        raise ModelError(f"{build_path!r} is no function but {type(builder).__name__}; name one that builds the model.")
    try:
        with no_exit():
            model = builder()
    except Exception as error:
        raise ModelError(
            f"{build_path}() failed: {_said(error)}. It is called without arguments and must return an nn.Module."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{build_path}() returned {type(model).__name__}; it must return an nn.Module.")
    if weights is not None:
        load_weights(model, weights)
    return model


def _said(error: Exception) -> str:
    """An error as part of one sentence: its kind and its words, on one line."""
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a safetensors file into a model, name by name and shape by shape; never runs code.

    Raises:
        FileError: the file is missing, truncated or no safetensors file.
        ModelError: names or shapes differ; the message names the first few.
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
    model.load_state_dict(state, strict=False)  # what is missing is another name of what is there


def _missing(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that a file lacks; one of several names of a shared weight suffices, as safetensors writes them."""
    given = {(value.data_ptr(), value.shape) for name, value in expected.items() if name in state}
    return [
        name
        for name, value in expected.items()
        if name not in state and (value.numel() == 0 or (value.data_ptr(), value.shape) not in given)
    ]


def _prefix_hint(expected: set[str], given: set[str]) -> str:
    """What to do if all names differ by a prefix, as after DataParallel, torch.compile or in a larger module."""
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
