"""Two processes, and parts of a batch one after another, make the steps that one process makes of whole batches."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import isthmus
from isthmus.core import files
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.recipe import load_recipe
from isthmus.models.noise import NoiseShare, standard_normal
from isthmus.training import checkpoints, processes
from isthmus.training.loop import Trainer
from isthmus.training.run import Run
from tests.training.recipes import TINY
from tests.training.two_processes import work

# 10 batches of 32 in every epoch; noise, a gate, a moving average and a marginal of its own, without batch norm
BASE: dict[str, Any] = load_recipe(
    TINY, {"data.train_limit": 320, "training.clip_norm": 1.0, "training.epochs": 3}
).plain()
TWO = {"training.devices": 2, "training.accelerator": "cpu"}
NORM = {
    "model.backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True},
    "training.augment": "none",
    "training.epochs": 1,
}
PLAIN: dict[str, Any] = {
    "training.rho_schedule": None,
    "training.epochs": 1,
    "training.optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},  # Adam would blow up rounding
    "model.marginal": None,
    "model.components": 240,
}
ACROSS: dict[str, dict[str, Any]] = {
    "catgen": {"objective": {"name": "catgen", "rho": 1}, "model.covariance": "diagonal"},
    "bidirectional": {"objective": {"name": "bidirectional", "rho": 1}, "model.samples": 2},
    "nonlinear": {"objective": {"name": "nonlinear_ib", "rho": 1}, "model.covariance": "isotropic"},
    "batch-marginal": {"objective": {"name": "vib", "rho": 1}, "model.marginal": "batch"},
    "hierarchical": {"objective": {"name": "hierarchical", "rho": 1}, "model.covariance": "diagonal"},
    "guessing": {
        "objective": {"name": "donsker_varadhan", "rho": 0},
        "model": {"backbone": {"name": "mlp", "hidden": [32]}, "hypothesis": {"hidden": [16, 16]}},
    },
    "fp16": {"training.precision": "fp16"},
    "adversarial": {"training.adversarial": {"name": "pgd:2 l2:0.3", "mode": "stochastic"}},
}
"""Losses that compare the images of a batch with one another, levels of codes, half precision, and attacked images."""
DIVERGING = {"training.optimizer": {"name": "sgd", "lr": 1e30}, "training.clip_norm": None}


def recipe(*overrides: dict[str, Any]) -> dict[str, Any]:
    return load_recipe(BASE, {key: value for each in overrides for key, value in each.items()}).plain()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes, all in one pair of them: starting a pair takes seconds."""
    folder = tmp_path_factory.mktemp("two")
    jobs = {
        "shared": {"recipe": recipe(TWO, {"training.loggers": ["tests.training.recorder:Recorder"]})},
        "in-parts": {"recipe": recipe(TWO, {"training.accumulate": 2})},
        "interrupted": {"recipe": recipe(TWO), "interrupt": 17},
        "resumed": {"recipe": recipe(TWO), "folder": "interrupted"},
        **{name: {"recipe": recipe(TWO, PLAIN, options)} for name, options in ACROSS.items()},
        "norm": {"recipe": recipe(TWO, NORM)},
        "diverging": {"recipe": recipe(TWO, DIVERGING)},
        "held": {"recipe": recipe(TWO)},
    }
    (folder / "held").mkdir()
    import fcntl

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "held" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        torch.multiprocessing.spawn(work, (port, folder, jobs), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return isthmus.train(recipe(), out=tmp_path_factory.mktemp("one") / "run", progress=False)


def ended(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"ended-{rank}.json").read_text())[name] for rank in (0, 1)]


def close(one: Run, other: Run, tolerance: float, leave_out: tuple[str, ...] = ()) -> None:
    """The same metrics line by line, and the same weights, up to rounding."""
    assert len(one.metrics()) == len(other.metrics())
    for a, b in zip(one.metrics(), other.metrics(), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - set(leave_out):
            assert a[key] == pytest.approx(b[key], rel=tolerance, abs=tolerance), (a["step"], key)
    mine, theirs = one.load().state_dict(), other.load().state_dict()
    assert all(torch.allclose(mine[name], theirs[name], rtol=tolerance, atol=tolerance) for name in theirs)


COMPARING = (
    "rate_lower",
    "rate_upper",
    "rate_lower_max",
    "epoch_rate_lower",
    "epoch_rate_upper",
    "mni_distance",
    "epoch_mni_distance",
)
"""Bounds that compare the images of a batch with one another: means over parts are others than of the whole."""


@pytest.mark.parametrize("name", ["shared", "in-parts"])
def test_two_processes_train_as_one_does(folder: Path, alone: Run, name: str) -> None:
    assert [end["how"] for end in ended(folder, name)] == ["finished", "finished"]
    close(Run(folder / name), alone, 1e-5, COMPARING if name == "in-parts" else ())
    first, second = (end["digest"] for end in ended(folder, name))
    assert first == second
    assert Run(folder / name).info()["result"]["step"] == 30


@pytest.mark.parametrize("name", list(ACROSS))
def test_two_processes_compare_the_images_of_the_whole_batch(folder: Path, tmp_path: Path, name: str) -> None:
    ends = ended(folder, name)
    assert [end["how"] for end in ends] == ["finished", "finished"]
    assert ends[0]["digest"] == ends[1]["digest"]
    one = isthmus.train(recipe(PLAIN, ACROSS[name]), out=tmp_path / "run", progress=False)
    close(Run(folder / name), one, 1e-3 if name == "fp16" else 1e-5)


def test_bounds_within_a_batch_are_means_over_its_parts(folder: Path, alone: Run) -> None:
    whole, halves = (
        [line["rate_lower"] for line in run.metrics() if "rate_lower" in line]
        for run in (alone, Run(folder / "in-parts"))
    )
    for values, size in ((whole, 32), (halves, 16)):
        assert max(values) <= math.log(size)
    assert sum(whole) > sum(halves)


def test_all_stop_at_the_same_step_where_one_is_interrupted_and_lose_nothing(folder: Path) -> None:
    stopped = ended(folder, "interrupted")
    assert all(end["how"].startswith("KeyboardInterrupt") for end in stopped)
    assert [end["step"] for end in stopped] == [18, 18]  # the others hear of it a step later
    assert [end["how"] for end in ended(folder, "resumed")] == ["finished", "finished"]
    whole, resumed = Run(folder / "shared"), Run(folder / "interrupted")
    assert resumed.metrics() == whole.metrics()
    assert resumed.info()["result"] == whole.info()["result"]
    assert len(resumed.info()["starts"]) == 2


def test_only_the_first_process_logs(folder: Path) -> None:
    told = files.read_json_lines(folder / "shared" / "recorded.jsonl")
    rows = [what["row"]["step"] for what in told if "row" in what]
    assert rows == [line["step"] for line in Run(folder / "shared").metrics()]
    assert [next(iter(what)) for what in told if "row" not in what] == ["started", "finished"]


def test_running_statistics_are_the_first_processs_everywhere(folder: Path) -> None:
    ends = ended(folder, "norm")
    assert [end["how"] for end in ends] == ["finished", "finished"]
    assert ends[0]["digest"] == ends[1]["digest"]
    run = Run(folder / "norm")
    groups, _ = checkpoints.read(run.checkpoint)
    state = run.load().state_dict()
    assert all(torch.equal(state[name], value) for name, value in groups["model"].items() if "running" in name)


def test_a_diverging_run_stops_in_all_processes(folder: Path) -> None:
    assert all("diverged at step 3" in end["how"] for end in ended(folder, "diverging"))


def test_what_the_first_process_cannot_do_stops_the_others_without_a_word(folder: Path) -> None:
    first, second = (end["how"] for end in ended(folder, "held"))
    assert "Another process is training" in first
    assert second == "SystemExit: 2"


def trainer(tmp_path: Path, *overrides: dict[str, Any]) -> Trainer:
    chosen = load_recipe(recipe(*overrides))
    return Trainer(chosen, chosen.data.load(), Run(tmp_path))


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_parts_one_after_another_give_the_gradient_of_the_whole(tmp_path: Path, parts: int) -> None:
    gradients = []
    for count in (1, parts):
        one = trainer(tmp_path, {"training.accumulate": count})
        served = next(one._parts(0, 0))
        assert [len(part.labels) for part in served] == [32 // count] * count
        for number, part in enumerate(served):
            one._backward(part, number)
        gradients.append([p.grad for p in one.model.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(*gradients, strict=True))
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 0.01


def test_a_run_in_parts_is_the_run(tmp_path: Path, alone: Run) -> None:
    run = isthmus.train(recipe({"training.accumulate": 4}), out=tmp_path / "run", progress=False)
    close(run, alone, 1e-5, COMPARING)


def test_batches_whose_last_parts_are_missing_are_left_out(tmp_path: Path) -> None:
    one = trainer(tmp_path, {"training.accumulate": 2, "data.train_limit": 70})
    assert one.steps_per_epoch == len(list(one._parts(0, 0))) == 2
    assert len(list(one._parts(0, 1))) == 1
    with pytest.raises(DataError, match="batch_size=32 with drop_last leaves no batch of 30 images"):
        trainer(tmp_path, {"training.accumulate": 2, "data.train_limit": 30})


def test_a_share_of_noise_is_those_rows_of_the_whole() -> None:
    like = torch.zeros(1)
    whole = standard_normal(torch.Generator().manual_seed(3), 2, 24, 5, like)
    for rows in (slice(0, 12, 2), slice(1, 12, 2), slice(13, 24, 2)):
        share = NoiseShare(torch.Generator().manual_seed(3), 24, rows)
        assert torch.equal(standard_normal(share, 2, 6, 5, like), whole[:, rows])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"training.accumulate": 3}, "batch_size=32 has no 3 equal parts"),
        ({"training.devices": 8, "training.nodes": 8}, r"batch_size=32 has no 64 equal parts \(devices=8, nodes=8"),
        (
            {"objective": "catgen", "model.marginal": None, "training.accumulate": 2},
            "'catgen' compares the examples of a batch.* cannot be split into 2 parts",
        ),
        (
            {"objective": "bidirectional", "model.marginal": None, "training.accumulate": 2},
            "'bidirectional' compares",
        ),
        ({"model.marginal": "batch", "training.accumulate": 2}, "model.marginal=batch compares"),
    ],
)
def test_batches_that_cannot_be_shared_are_explained(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe(overrides)


def test_the_package_is_a_command() -> None:
    """What torchrun and Fabric's launcher start."""
    done = subprocess.run([sys.executable, "-m", "isthmus", "list", "data"], capture_output=True, text=True, check=True)
    assert "imagenet" in done.stdout


def test_more_gpus_than_there_are_is_explained() -> None:
    settings = load_recipe(BASE, {"training.devices": 16, "training.accelerator": "cuda"}).training
    with pytest.raises(ConfigError, match=r"training.devices=16, but this machine has \d+ GPUs"):
        processes.start(settings)
