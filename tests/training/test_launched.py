"""Processes that torchrun starts for one that goes on: the run they leave, and what is said of a failure."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.core import files
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.recipe import load_recipe
from isthmus.studies.store import ResultStore
from isthmus.training import start, torchrun
from isthmus.training.progress import format_terms
from isthmus.training.run import ENDED, Run
from isthmus.training.torchrun import train_with_torchrun

RECIPE: dict[str, Any] = {
    "name": "apart",
    "data": {"name": "digits", "train_limit": 320},
    "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 4},
    "objective": {"name": "ceb", "rho": 3},
    "training": {"epochs": 2, "batch_size": 32, "accelerator": "cpu", "log_every": 5},
}


def of(devices: int, **training: Any) -> dict[str, Any]:
    return {**RECIPE, "training": {**RECIPE["training"], "devices": devices, **training}}


def quiet(done: float, total: float, terms: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, trained in this process."""
    return isthmus.train(of(1), out=tmp_path_factory.mktemp("trained") / "run", progress=False)


@pytest.mark.slow
def test_two_processes_train_a_study_s_model_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ResultStore(tmp_path)
    pair = bench.train(of(2))
    info = pair.info()
    assert info["status"] in ENDED
    assert info["result"]["step"] == 20
    assert pair.path.parent == bench.root / "models"
    assert all(value.isfinite().all() for value in pair.load().state_dict().values())
    monkeypatch.setattr(torchrun, "_launch", lambda *_: pytest.fail("nothing is left to train"))
    assert bench.train(of(2)).path == pair.path


def test_torchrun_starts_the_command_in_as_many_processes(trained: Run, tmp_path: Path) -> None:
    assert torchrun._launch(2, ["--version"], tmp_path / "log", trained, quiet) == 0
    assert (tmp_path / "log").read_text().count(f"isthmus {isthmus.__version__}\n") == 2


def test_a_finished_run_is_taken_up_without_starting_anything(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "_launch", lambda *_: pytest.fail("nothing is left to train"))
    assert train_with_torchrun(trained.recipe, trained.path, quiet).path == trained.path


def test_what_counts_is_the_folder_and_not_the_exit_code(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that aborts at its exit, after its work: the folder appears, and the code is not 0."""

    def aborting(devices: int, arguments: list[str], log: Path, run: Run, progress: Any) -> int:
        trained.path.rename(run.path)
        return 1

    folder = tmp_path / "moved"
    monkeypatch.setattr(torchrun, "_launch", aborting)
    try:
        assert train_with_torchrun(trained.recipe, folder, quiet).info()["status"] in ENDED
    finally:
        folder.rename(trained.path)


def test_progress_is_read_from_the_metrics(trained: Run) -> None:
    told: list[tuple[float, float, str]] = []
    torchrun._report_progress(trained, lambda *at: told.append(at))
    ((done, total, terms),) = told
    assert (done, total) == (20, 20)
    assert terms == format_terms({key: value for key, value in trained.metrics()[-2].items() if key != "step"})
    torchrun._report_progress(Run(trained.path / "nothing here"), lambda *at: told.append(at))
    assert len(told) == 1


def test_a_failure_is_said_with_the_sentence_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "W1127 Setting OMP\nError: Training diverged at step 3.\nE1127 failed (exitcode: 2)\n  Error: no\n"

    def failing(devices: int, arguments: list[str], log: Path, run: Run, progress: Any) -> int:
        assert arguments == ["train", str(tmp_path / "run.recipe.json"), "--out", str(run.path), "--quiet"]
        assert load_recipe(arguments[1]) == load_recipe(of(2))
        log.write_text(said)
        return 1

    monkeypatch.setattr(torchrun, "_launch", failing)
    with pytest.raises(ModelError, match=r"run \(exit code 1\): Error: Training diverged at step 3\.") as error:
        train_with_torchrun(load_recipe(of(2)), tmp_path / "run", quiet)
    assert str(tmp_path / "run.log") in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "nothing."), ("a\nb\n\n", "b"), ("RuntimeError: no memory\ngoodbye", "RuntimeError: no memory")],
)
def test_without_a_sentence_of_ours_the_last_words_count(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    assert torchrun._last_message(tmp_path / "log") == expected


def test_whoever_is_interrupted_has_the_processes_save_first(tmp_path: Path) -> None:
    """A stand-in for torchrun that takes SIGINT as a request, as the training loop does."""
    script = "\n".join(
        [
            "import pathlib, signal, sys, time",
            "def save(*_): pathlib.Path('saved').touch(); sys.exit(130)",
            "signal.signal(signal.SIGINT, save)",
            "print('ready', flush=True)",
            "time.sleep(100)",
        ]
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None

    def interrupted() -> None:
        with torchrun._terminated_on_exit(process):
            assert pipe.readline() == b"ready\n"
            raise KeyboardInterrupt

    with process.stdout as pipe, pytest.raises(KeyboardInterrupt):
        interrupted()
    assert process.returncode == 130
    assert (tmp_path / "saved").exists()


def test_several_machines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nodes=2, but processes are started on this machine only"):
        train_with_torchrun(load_recipe(of(1, nodes=2)), tmp_path / "run", quiet)


def test_a_run_that_others_train_is_waited_for(tmp_path: Path) -> None:
    """Such as processes of torchrun's that outlived whoever started them."""
    start.wait_for_others(tmp_path / "none")  # nobody can be at it
    with files.exclusive(tmp_path, "training"):
        waiting = threading.Thread(target=start.wait_for_others, args=(tmp_path,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()
