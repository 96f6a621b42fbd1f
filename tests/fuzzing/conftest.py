"""A run to damage, a cache of decoded images that is thrown away, and counts of the cases for whoever asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzzing import sound, trials


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all these tests share."""
    return tmp_path_factory.mktemp("cache")


def _apart(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Nothing is read from or left in the user's own cache, and no network is asked."""
    patch.setenv("ISTHMUS_CACHE", str(cache))
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.delenv("ISTHMUS_DATA", raising=False)


@pytest.fixture(autouse=True)
def no_traces(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _apart(monkeypatch, scratch)


@pytest.fixture(scope="session")
def run(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all that isthmus writes into one."""
    with pytest.MonkeyPatch.context() as patch:
        _apart(patch, scratch)
        return sound.make(tmp_path_factory.mktemp("sound") / "run")


def pytest_sessionfinish() -> None:
    if path := os.environ.get("ISTHMUS_FUZZ_COUNTS"):
        trials.write_counts(Path(path))
