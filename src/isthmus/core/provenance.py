"""Where numbers come from: versions, commit, machine and time, for every run and audit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Uses = dict[str, dict[str, str]]
"""Data sets by their fingerprint: ``name``, ``fingerprint`` and ``note``."""
_uses: ContextVar[tuple[Uses, ...]] = ContextVar("uses of data", default=())

PACKAGES = ("isthmus", "torch", "numpy", "scikit-learn", "lightning-fabric", "safetensors")


def collect() -> dict[str, Any]:
    """Versions of the packages that affect numbers, the commit of the source if known, machine and UTC time.

    The GPU is named if torch is loaded and finds one.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
        }
        | _gpu(),
    }


@contextmanager
def uses() -> Iterator[Uses]:
    """Collect the data sets that are loaded inside (:func:`use`), nested blocks included."""
    found: Uses = {}
    token = _uses.set((*_uses.get(), found))
    try:
        yield found
    finally:
        _uses.reset(token)


def use(name: str, fingerprint: str, note: str = "") -> None:
    """Record that results are computed from a data set.

    Args:
        note: what a reader of the results must know, such as how the data differ from the published ones.
    """
    for found in _uses.get():
        found[fingerprint] = {"name": name, "fingerprint": fingerprint, "note": note}


def _gpu() -> dict[str, str]:
    torch = sys.modules.get("torch")
    return {"gpu": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_available() else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the checkout this package runs from, with ``+`` where tracked files differ; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # a wheel inside another repository is not of that commit
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
