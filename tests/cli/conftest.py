"""A trained and audited run, and an attacked linear classifier, made with the commands."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from isthmus.core import config
from isthmus.data.images import as_float
from isthmus.data.loading import load
from tests.cli.commands import FAST, LONG, NET, RECIPE, THEIRS, isthmus


@pytest.fixture(scope="package")
def home(tmp_path_factory) -> Path:
    """A folder with a recipe, a foreign model, and one trained and audited run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "theirs.py").write_text(THEIRS)
    trained = isthmus("train", "small.yaml", "seed=3", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == f"run: {Path('runs/small')}"
    assert "test accuracy: " in trained.stdout
    checks = ("--checks", "accuracy,calibration,information")
    audited = isthmus("audit", "runs/small", "--threat", "linf:0.05", "--n", 40, *checks, cwd=folder)
    assert audited.returncode == 0, audited.stderr
    assert audited.stdout.splitlines()[-1] == f"page: {Path('runs/small/page.html')}"
    assert audited.stdout.startswith("verdict: none at ℓ∞ 0.05 on digits (test); the check diagnosis gives one\n")
    return folder


@pytest.fixture(scope="package")
def net_home(tmp_path_factory) -> Path:
    """A folder with a foreign model and weights: a linear classifier fitted to the digits by ridge regression."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "net.py").write_text(NET)
    train = load(config.component("data", "digits")).train
    flat = torch.cat([as_float(train.images).flatten(1), torch.ones(len(train), 1)], 1).double()
    wanted = torch.nn.functional.one_hot(train.labels, 10).double()
    fitted = torch.linalg.solve(flat.T @ flat + 3 * torch.eye(65).double(), flat.T @ wanted)
    weights = {"layers.1.weight": fitted[:-1].T.contiguous(), "layers.1.bias": fitted[-1].contiguous()}
    save_file(weights, folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="package")
def attacked(net_home) -> Path:
    """The file of a finished attack on it."""
    done = isthmus("attack", *FAST, *LONG, "--out", "w.safetensors", cwd=net_home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "result: w.safetensors"
    return net_home / "w.safetensors"
