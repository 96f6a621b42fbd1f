"""Shared by all tests: helpers beside a test file can be imported by their name."""

import sys
from pathlib import Path

import pytest

# Here rather than in a hook: conftest files further down import helpers too.
sys.path += [str(folder) for folder in sorted({path.parent for path in Path(__file__).parent.rglob("*.py")})]
sys.path.append(
    str(Path(__file__).parent.parent)
)  # for the benchmarks, whose faces of other packages are tested against


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)  # pytest runs two processes on the two cores it is meant for
