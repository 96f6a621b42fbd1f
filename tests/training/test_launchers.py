"""Whoever starts the processes of a run, torchrun, Lightning's ``fabric run`` or Slurm's srun: they train the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.training import processes
from isthmus.training.run import ENDED, Run

RECIPE: dict[str, Any] = {
    "name": "started",
    "data": {"name": "digits", "train_limit": 320},
    "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 4},
    "objective": {"name": "catgen", "rho": 3},
    "training": {"epochs": 2, "batch_size": 32, "accelerator": "cpu", "devices": 2},
}
BIN = Path(sys.executable).parent


def clean(**more: str) -> dict[str, str]:
    """An environment without another launcher's marks."""
    marks = ("SLURM_", "LT_", "TORCHELASTIC_")
    return {key: value for key, value in os.environ.items() if not key.startswith(marks)} | more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def torchrun(arguments: list[str]) -> list[subprocess.Popen[str]]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "isthmus"]
    return [subprocess.Popen([*launcher, *arguments], env=clean(), stderr=subprocess.PIPE, text=True)]


def fabric_run(arguments: list[str]) -> list[subprocess.Popen[str]]:
    options = ["--accelerator", "cpu", "--devices", "2", "--strategy", "ddp", "--main-port", str(free_port())]
    command = [str(BIN / "fabric"), "run", *options, str(BIN / "isthmus"), *arguments]
    return [subprocess.Popen(command, env=clean(), stderr=subprocess.PIPE, text=True)]


def srun(arguments: list[str]) -> list[subprocess.Popen[str]]:
    """What srun does for two tasks on one node: it starts both and tells each its number."""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "training",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "isthmus", *arguments],
            env=clean(**job, SLURM_PROCID=f"{task}", SLURM_LOCALID=f"{task}"),
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in range(2)
    ]


@pytest.mark.slow
def test_every_launcher_gives_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    weights = {}
    for launcher in (torchrun, fabric_run, srun):
        out = tmp_path / launcher.__name__
        started = launcher(["train", str(tmp_path / "recipe.yaml"), "--out", str(out), "-q"])
        said = [process.communicate()[1] for process in started]
        # processes that share gradients over gloo sometimes abort when they exit, with everything written
        assert Run(out).info()["status"] in ENDED, said
        weights[launcher.__name__] = Run(out).info()["result"]["weights_sha256"]
    assert len(set(weights.values())) == 1, weights


def test_another_number_of_processes_than_a_launcher_started_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "8")
    settings = load_recipe(RECIPE, {"training.devices": 1}).training
    with pytest.raises(ConfigError, match=r"torchrun started 8 processes, but training.devices=1 on .* are 1"):
        processes.start(settings)
    monkeypatch.setenv("LT_CLI_USED", "1")
    with pytest.raises(ConfigError, match="fabric run started 8 processes"):
        processes.start(settings)


def test_a_launcher_that_asks_for_something_else_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LT_CLI_USED", "1")
    monkeypatch.setenv("LT_ACCELERATOR", "cuda")
    settings = load_recipe(RECIPE, {"training.devices": 1}).training
    with pytest.raises(ConfigError, match=r"disagree: .*accelerator='cpu'"):
        processes.start(settings)


def test_tasks_of_slurm_that_a_recipe_does_not_know_of_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_NAME": "training", "NTASKS": "4", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(ConfigError, match=r"srun started 4 processes, but training.devices=2 on .* are 2"):
        processes.start(load_recipe(RECIPE).training)
    monkeypatch.setenv("SLURM_NTASKS", "2")  # and Lightning wants to know how many of them are on this node
    with pytest.raises(ConfigError, match=r"disagree: .*--ntasks-per-node=2"):
        processes.start(load_recipe(RECIPE).training)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    processes.start(load_recipe(RECIPE, {"training.devices": 1}).training)  # one process may do what it likes
