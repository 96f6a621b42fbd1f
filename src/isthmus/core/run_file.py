"""The version of ``run.json``, checked by all who read it. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core import files
from isthmus.core.errors import FileError, shown

FORMAT = 2
"""Version of ``run.json``. It is increased whenever a stored key changes its meaning."""


def read(path: Path) -> Any:
    """The content of a ``run.json``, whose keys are not yet checked.

    Raises:
        FileError: the file is missing, corrupt, or of another format.
    """
    content = files.read_json(path)
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise another_format(path, content, f"its format is {shown(content['format'])}, expected {FORMAT}")
    if isinstance(content, dict):
        for part in ("recipe", "given"):
            _name_loggers(content.get(part))
    return content


def _name_loggers(recipe: Any) -> None:
    """Turn the boolean ``training.tensorboard``, which older runs have, into ``training.loggers``."""
    training = recipe.get("training") if isinstance(recipe, dict) else None
    if isinstance(training, dict) and type(training.get("tensorboard")) is bool:
        training["loggers"] = [{"name": "tensorboard"}] if training.pop("tensorboard") else []


def another_format(path: Path, content: Mapping[str, Any], fault: str) -> FileError:
    """The error for a file of another version, which it names if the file does."""
    starts = content.get("starts")
    first = starts[0] if isinstance(starts, list) and starts and isinstance(starts[0], dict) else {}
    packages, commit = first.get("packages"), first.get("commit")
    made = f"isthmus {packages.get('isthmus')}" if isinstance(packages, dict) else "isthmus"
    return FileError(
        f"{path} was written by another version of isthmus, {made}{f' at commit {commit}' if commit else ''} "
        f"({fault.rstrip('.')}). Use that version, or train again in another folder (--out)."
    )
