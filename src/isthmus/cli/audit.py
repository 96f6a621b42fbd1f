"""``isthmus audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import exit_codes, output
from isthmus.cli.options import (
    MOST,
    Address,
    Data,
    Executor,
    Model,
    Quiet,
    RunFolder,
    Seed,
    Weights,
    WorkerCpus,
    WorkerGpus,
    cluster_of,
)
from isthmus.core.errors import ConfigError


def audit(
    run: RunFolder = None,
    model: Model = None,
    weights: Weights = None,
    data: Data = None,
    threat: Annotated[str, typer.Option(help="Norm and largest ε: linf:0.1, linf:8/255, l2:0.5, l1:5.")] = "linf:0.1",
    n: Annotated[
        int | None, typer.Option("--n", min=1, max=MOST, help="Number of test images.", show_default="all")
    ] = None,
    checks: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated checks; see isthmus list checks.", show_default="all that come with isthmus"
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="More restarts and steps.")] = False,
    claimed: Annotated[
        str | None,
        typer.Option(help="Reported robust accuracy to verify: 53%, 0.53.", show_default="measured with PGD"),
    ] = None,
    passes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Maximum passes per image for the verdict.",
            show_default="10000; 50000 with --full",
        ),
    ] = None,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            help="Maximum number of images shown to the model, for example by a paid service.",
            show_default="no limit",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder.", show_default="the run itself, or runs/MODEL-WEIGHTS")
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="Audit the snapshot of this step (training.snapshots).", show_default="the last"
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MOST, help="Images per batch; halved if memory runs out.")
    ] = 256,
    executor: Executor = "local",
    address: Address = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Workers on the cluster.", show_default="as many as fit")
    ] = None,
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Audit a trained run or any classifier: write a page with all results and a verdict on its robust accuracy.

    Exit code 3 if the robust accuracy is overstated, 4 if it is broken, 5 if the verdict is undecided (the budget of
    --passes or --max-queries was spent, a test failed, or the model has no gradient). Exit code 2 if a requested check
    ended with an error, or the classifier is no better than a constant prediction. Results and page are written in
    every case.
    """
    from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING, AuditOptions
    from isthmus.audits.target import ModelSource, audit_run

    if jobs is not None and executor == "local":
        raise ConfigError("--jobs of an audit needs --executor ray; a local audit runs in one process.")
    names = [name.strip() for name in checks.split(",")] if checks is not None else None
    page = audit_run(
        ModelSource(run, model, weights, data, n, out, step),
        threat,
        names,
        "full" if full else "quick",
        claimed,
        seed,
        AuditOptions(
            passes=passes,
            max_queries=max_queries,
            batch_size=batch_size,
            progress=not quiet,
            cluster=cluster_of(executor, address, jobs, worker_cpus, worker_gpus),
        ),
    )
    subjects = output.compare([page.parent])
    output.echo(f"page: {page}")
    # a name may have an option after it, as in dataset_transfer:mnist
    requested = [*DEFAULT_CHECKS, *WITH_TRAINING] if names is None else [name.partition(":")[0] for name in names]
    exit_codes.stop_at_errors(subjects, requested)
    exit_codes.stop_at_chance(subjects, requested)
    exit_codes.stop_at_verdicts(subjects, requested)
