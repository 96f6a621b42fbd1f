"""Training in several processes, started by a process that continues afterwards, such as a study.

A process that joins a process group cannot leave it, and without a launcher the other members would run its whole
program again. So torchrun starts all of them as from a shell; this process waits, and then reads the run folder.
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
from isthmus.training.progress import ProgressCallback, format_terms
from isthmus.training.run import Run

_POLL_SECONDS = 1.0
"""Seconds between two readings of the progress."""
_SHUTDOWN_SECONDS = 60.0
"""Seconds for torchrun to exit after Ctrl-C; it gives its processes 30 of them to write a checkpoint."""


def train_with_torchrun(recipe: Recipe, out: Path, progress: ProgressCallback) -> Run:
    """Train in ``training.devices`` processes of torchrun, or resume; a finished run is returned.

    Beside the run folder are ``<folder>.recipe.json``, which the processes read, and ``<folder>.log``, their output.
    The run folder decides whether a run is finished, not torchrun's exit code: processes that use gloo sometimes abort
    at exit, after everything is written. If this process is killed, the others continue; the next call waits for them.

    Args:
        out: the run folder.
        progress: called whenever the run writes metrics, every ``training.log_every`` steps.

    Raises:
        ConfigError: a recipe for several machines, fewer GPUs than requested, or a folder with another run.
        DataError: as :func:`isthmus.training.start.train`.
        ModelError: the processes ended without a finished run; the message quotes their last error.
    """
    if recipe.training.nodes > 1:
        raise ConfigError(
            f"training.nodes={recipe.training.nodes}, but processes are started on this machine only; set it to 1."
        )
    processes.accelerator(recipe.training)  # fails here if there are too few GPUs, rather than in every process
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
        f"{_last_message(log)} Their output is in {log}. To resume, run the same command again."
    )


def _launch(devices: int, arguments: list[str], log: Path, run: Run, progress: ProgressCallback) -> int:
    """Run ``torchrun --nproc-per-node devices -m isthmus arguments``; returns its exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*launcher, "-m", "isthmus", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in a terminal reaches only this process, which forwards it once
        )
        with _terminated_on_exit(process):
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_SECONDS)
                _report_progress(run, progress)
                if interrupts.Interrupt().requested:
                    raise KeyboardInterrupt


@contextlib.contextmanager
def _terminated_on_exit(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """On an exception, interrupt the process so that it saves a checkpoint; kill it if that takes too long."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_SHUTDOWN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _report_progress(run: Run, progress: ProgressCallback) -> None:
    """Report the progress of a run of other processes from its files, if there are any."""
    with contextlib.suppress(FileError):
        lines = [line for line in run.metrics() if "ce" in line]
        if lines:
            recipe, data = run.recipe, run.info()["data"]
            total = recipe.training.epochs * (data["train"] // recipe.training.batch_size)
            terms = {name: value for name, value in lines[-1].items() if isinstance(value, float)}
            progress(lines[-1]["step"], total, format_terms(terms))


def _last_message(log: Path) -> str:
    """The error message of a process, or otherwise the last line of the log."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.partition("Error")[2].startswith((":", " inside"))]
    return next(iter([line for line in errors if line.startswith("Error")] or errors[-1:] or lines[-1:]), "nothing.")
