"""``isthmus study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.exit_codes import ERROR
from isthmus.cli.options import (
    DATA,
    Address,
    Executor,
    Quiet,
    WorkerCpus,
    WorkerGpus,
    argument,
    cluster_of,
    complete,
    number,
    text,
)
from isthmus.cli.output import echo, echo_wrapped


def _names(incomplete: str) -> list[str]:
    from isthmus.studies import catalogue

    return complete(*catalogue.names())(incomplete)


def study(
    name: Annotated[
        str | None,
        argument(
            "Such as closer-look/figure-1. Without a name, list all.",
            "NAME",
            show_default=False,
            autocompletion=_names,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        argument("Settings that replace the scale's: seeds=2 training.epochs=5.", "KEY=VALUE"),
    ] = None,
    scale: Annotated[
        str,
        text(
            "tiny (seconds, on toy data or digits), small (minutes on 2 cores) or paper.",
            "NAME",
            panel=DATA,
            autocompletion=complete("tiny", "small", "paper"),
        ),
    ] = "small",
    out: Annotated[Path, text("Folder of all studies and their trained models.", "FOLDER")] = Path("runs/studies"),
    jobs: Annotated[
        int | None,
        number(
            "Processes, or workers on the cluster, that share the models.",
            show_default="1; on a cluster as many as fit",
        ),
    ] = None,
    executor: Executor = "local",
    address: Address = None,
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Repeat a figure of a paper, and report which of its claims are supported, contradicted or undecided.

    To resume an interrupted or killed study, run the same command again.

    Exit code 2 if something could not be measured, for example because a training run diverged. All other results are
    kept and shown, and the same command tries again.
    """
    from isthmus.studies import catalogue

    if name is None:
        for each in catalogue.names():
            echo_wrapped(f"{each}: {catalogue.question(each)}")
        return
    from isthmus.studies.running import run_study

    cluster = cluster_of(executor, address, jobs, worker_cpus, worker_gpus)
    record, page = run_study(
        name, scale, overrides or [], out, show_progress=not quiet, jobs=jobs or 1, cluster=cluster
    )
    for note in record.notes:
        echo(f"data: {note}")
    for claim in record.claims:
        echo(f"claim: {claim}")
    for collapsed in record.collapsed:
        echo(f"collapsed: {collapsed}", err=True)
    echo(f"page: {page}")
    if record.failures:
        for failed, why in record.failures.items():
            echo(f"failed: {failed}: {why}", err=True)
        echo(f"Error: {len(record.failures)} of {record.total} could not be measured (above).", err=True)
        raise typer.Exit(ERROR)
