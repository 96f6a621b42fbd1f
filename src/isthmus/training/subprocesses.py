"""Training in several processes on behalf of one that goes on afterwards, such as a study.

Whoever joins a process group to train cannot leave it and do something else, and without a launcher the other members
run the joiner's whole program again. So torchrun starts them all apart, as it would from a shell; this process waits,
and takes up the run folder.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, ModelError
from isthmus.core.recipe import Recipe
from isthmus.training import interrupts, processes, start
from isthmus.training.monitor import Watch, in_words
from isthmus.training.run import Run

_OFTEN = 1.0
"""Seconds between two looks at how far the processes are."""
_LAST_WORDS = 60.0
"""Seconds for torchrun to end, after Ctrl-C; it gives its processes 30 of them to leave a checkpoint."""


def train_apart(recipe: Recipe, out: Path, progress: Watch) -> Run:
    """Train in ``training.devices`` processes of torchrun's, or go on where they stopped; a finished run is returned.

    Beside the run folder lie ``<folder>.recipe.json``, which they read, and ``<folder>.log``, what they said. A run
    counts as done when its folder says so, whatever torchrun's exit code: processes that share gradients over gloo
    sometimes abort when they exit, with everything written. Where this process is killed they go on training; the next
    call waits for them.

    Args:
        out: the run folder.
        progress: told how far the run is whenever it writes metrics, every ``training.log_every`` steps.

    Raises:
        ConfigError: a recipe for several machines, fewer GPUs than asked for, or a folder that holds another run.
        DataError: as :func:`isthmus.training.start.train`.
        ModelError: the processes ended without a finished run; says what they said last.
    """
    if recipe.training.nodes > 1:
        raise ConfigError(
            f"training.nodes={recipe.training.nodes}, but processes are started on this machine alone; set it to 1."
        )
    processes.accelerator(recipe.training)  # with fewer GPUs than that every process would fail
    start.wait_for_others(out)
    if found := start.finished(recipe, out):
        return found
    given, log = (out.with_name(f"{out.name}.{kind}") for kind in ("recipe.json", "log"))
    files.write_json(given, recipe.plain(), sealed=False)  # read as a recipe
    command = ["train", str(given), "--out", str(out), "--quiet"]
    code = _launch(recipe.training.devices, command, log, Run(out), progress)
    if found := start.finished(recipe, out):
        return found
    raise ModelError(
        f"Training in {recipe.training.devices} processes ended without a finished run (exit code {code}): "
        f"{_last_words(log)} Everything they said is in {log}; the same command goes on from the last checkpoint."
    )


def _launch(devices: int, arguments: list[str], log: Path, run: Run, progress: Watch) -> int:
    """``torchrun --nproc-per-node devices -m isthmus arguments``, to its end; returns its exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
    with log.open("ab") as said:
        process = subprocess.Popen(
            [*launcher, "-m", "isthmus", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # Ctrl-C in a terminal reaches this process alone, which passes it on once
        )
        with _ended_with_us(process):
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_OFTEN)
                _tell(run, progress)
                if interrupts.Interrupt().asked:
                    raise KeyboardInterrupt


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Where we are interrupted, have it save what it is at, and end it if that takes long."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_LAST_WORDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tell(run: Run, progress: Watch) -> None:
    """Say how far a run of other processes is, from its files; nothing before there are any."""
    with contextlib.suppress(FileError):
        lines = [line for line in run.metrics() if "ce" in line]
        if lines:
            recipe, data = run.recipe, run.info()["data"]
            total = recipe.training.epochs * (data["train"] // recipe.training.batch_size)
            terms = {name: value for name, value in lines[-1].items() if isinstance(value, float)}
            progress(lines[-1]["step"], total, in_words(terms))


def _last_words(log: Path) -> str:
    """The sentence with which a process gave up, or the last line of all."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.partition("Error")[2].startswith((":", " inside"))]
    return next(iter([line for line in errors if line.startswith("Error")] or errors[-1:] or lines[-1:]), "nothing.")
