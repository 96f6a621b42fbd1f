"""Models that a function of another package or file builds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from isthmus.core import registry
from isthmus.core.errors import FileError, ModelError
from isthmus.core.preserve_state import no_exit
from isthmus.models.external.black_box import black_box, is_scikit_learn

FORMS = (
    "package.module:function or path.py:function, which builds a model; a file .onnx, .pt2 (torch.export) or .pt "
    "(TorchScript); timm:NAME, torchvision:NAME, hf:NAME or robustbench:NAME/DATASET/THREAT; ensemble:A,B,…"
)
"""What a model can be named by; options may follow, as in ``timm:resnet18,num_classes=10``."""


class _WrongName(ModelError):
    """A name that cannot be that of a module; the message is complete."""


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Call ``package.module:function`` or ``path.py:function`` with options; the result is a module.

    The current folder is importable, as for ``python -m``. A fitted classifier of scikit-learn becomes a black box.

    Raises:
        ModelError: the name is not that of a function, the function fails or returns no module.
        FileError: there is no such file.
    """
    home, _, attribute = name.rpartition(":")
    if not home or not attribute:
        raise ModelError(_no_name(name))
    builder = _found(name, home, attribute)
    try:  # code of another package may raise anything, or exit
        with no_exit():
            model = builder(**options)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        hint = "" if options else " It is called without arguments, unless some follow the name: nets:build,width=32."
        raise ModelError(f"{name}({given}) failed: {_described(error)}.{hint}") from error
    if is_scikit_learn(model):
        return black_box(model)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{name} returned {type(model).__name__}; it must return an nn.Module, a fitted scikit-learn classifier, "
            "or isthmus.black_box of a function."
        )
    return model


def _no_name(name: str) -> str:
    hint = " A run folder is given without --model." if Path(name).is_dir() else ""
    return f"A model is named by {FORMS}; got {name!r}.{hint}"


def _found(name: str, home: str, attribute: str) -> Callable[..., Any]:
    try:
        with no_exit():
            module = _file(home) if home.endswith(".py") else _module(name, home)
            builder = getattr(module, attribute)
    except (FileError, _WrongName):
        raise
    except (ImportError, AttributeError) as error:
        raise ModelError(f"Cannot find {name!r}: {_described(error)}.{_where(home, error)}") from error
    except Exception as error:
        raise ModelError(f"Importing {home!r} failed: {_described(error)}.") from error
    if not callable(builder):
        raise ModelError(f"{name!r} is {type(builder).__name__}; give a function that builds the model.")
    return builder  # type: ignore[no-any-return]


def _module(name: str, home: str) -> ModuleType:
    if home.startswith("."):
        raise _WrongName(f"Cannot find {name!r}: give the full name of the module, without a leading dot.")
    return registry.import_module(home)


def _file(path: str) -> ModuleType:
    """The module in a file, under the file's own name, so that workers can import what it defines.

    Its folder becomes importable, as when Python runs the file.
    """
    place = Path(path).resolve()
    if not place.is_file():
        raise FileError(f"There is no file {path}.")
    folder = str(place.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.import_module(place.stem)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != place:
        raise _WrongName(f"{path} cannot be imported: the name {place.stem!r} is taken by {found}. Rename the file.")
    return module


def _where(home: str, error: Exception) -> str:
    """Where modules are searched, if the module itself is missing."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or not home.startswith(error.name):
        return ""
    return " It must be in the current folder or in an installed package; a file is named path.py:function."


def _described(error: Exception) -> str:
    """Type and message of an error on one line."""
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
