"""``isthmus audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import exit_codes, output
from isthmus.cli.options import (
    ATTACK,
    MODEL,
    Address,
    Classes,
    Data,
    Everything,
    Executor,
    FailUnder,
    Images,
    Json,
    Mean,
    Model,
    Preset,
    Quiet,
    RunFolder,
    Seed,
    Size,
    Std,
    Threat,
    Weights,
    WorkerCpus,
    WorkerGpus,
    classes_of,
    cluster_of,
    complete_names,
    flag,
    number,
    preprocessing_of,
    text,
)
from isthmus.core import config, files
from isthmus.core.errors import ConfigError


def audit(
    context: typer.Context,
    run: RunFolder = None,
    model: Model = None,
    weights: Weights = None,
    preset: Preset = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    data: Data = None,
    classes: Classes = None,
    threat: Threat = "linf:0.1",
    n: Images = None,
    checks: Annotated[
        str | None,
        text(
            "Comma-separated checks; see isthmus list checks.",
            "NAMES",
            panel=ATTACK,
            show_default="all that come with isthmus",
            autocompletion=complete_names("checks"),
        ),
    ] = None,
    full: Annotated[bool, flag("More restarts and steps.", "--full/--quick", panel=ATTACK)] = False,
    claimed: Annotated[
        str | None,
        text(
            "Reported robust accuracy to verify: 53%, 0.53.", "ACCURACY", panel=ATTACK, show_default="measured with PGD"
        ),
    ] = None,
    passes: Annotated[
        int | None,
        number("Maximum passes per image for the verdict.", panel=ATTACK, show_default="10000; 50000 with --full"),
    ] = None,
    max_queries: Annotated[
        int | None,
        number(
            "Maximum number of images shown to the model, for example by a paid service.",
            panel=ATTACK,
            show_default="no limit",
        ),
    ] = None,
    fail_under: FailUnder = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, text("Output folder.", "FOLDER", show_default="the run itself, or runs/MODEL-WEIGHTS")
    ] = None,
    step: Annotated[
        int | None,
        number("Audit the snapshot of this step (training.snapshots).", panel=MODEL, show_default="the last"),
    ] = None,
    batch_size: Annotated[int, number("Images per batch; halved if memory runs out.")] = 256,
    executor: Executor = "local",
    address: Address = None,
    jobs: Annotated[int | None, number("Workers on the cluster.", show_default="as many as fit")] = None,
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = 0.0,
    everything: Everything = False,
    as_json: Json = False,
    junit: Annotated[Path | None, text("Also write JUnit XML.", "FILE", show_default=False)] = None,
    sarif: Annotated[Path | None, text("Also write SARIF 2.1.0.", "FILE", show_default=False)] = None,
    markdown: Annotated[Path | None, text("Also write a summary in Markdown.", "FILE", show_default=False)] = None,
    quiet: Quiet = False,
) -> None:
    """Audit a trained run or any classifier: write a page with all results and a verdict on its robust accuracy.

    Results, page and the files of --junit, --sarif and --markdown are written in every case; isthmus export writes
    further formats. Exit codes:

    * 2: a requested check ended with an error, or the classifier is no better than a constant prediction, so that no
      attack ran
    * 3: the robust accuracy is overstated
    * 4: it is broken
    * 5: the verdict is undecided: the budget of --passes or --max-queries was spent, a test raised an error, or the
      model has no gradient
    * 6: an accuracy is below a threshold of --fail-under, or was not measured
    """
    from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING, AuditOptions
    from isthmus.audits.target import ModelSource, audit_run
    from isthmus.report import thresholds
    from isthmus.report.exports import formats
    from isthmus.report.loading import load_all

    least = thresholds.parse(fail_under) if fail_under is not None else {}
    if jobs is not None and executor == "local":
        raise ConfigError("--jobs of an audit needs --executor ray; a local audit runs in one process.")
    exports = {name: file for name, file in (("junit", junit), ("sarif", sarif), ("markdown", markdown)) if file}
    for file in exports.values():
        files.check_place(file)
    names = config.split_names(checks) if checks is not None else None
    page = audit_run(
        ModelSource(
            run, model, weights, data, n, out, step, preprocessing_of(preset, mean, std, size), classes_of(classes)
        ),
        threat,
        names,
        "full" if full else "quick",
        claimed,
        seed,
        AuditOptions(
            passes=passes,
            max_queries=max_queries,
            batch_size=batch_size,
            command=str(context.obj or ""),
            progress=not quiet,
            cluster=cluster_of(executor, address, jobs, worker_cpus, worker_gpus),
        ),
    )
    subjects = load_all([page.parent])
    judged = thresholds.judged(subjects, least)
    for format_name, file in exports.items():
        files.write_bytes(file, formats.render(format_name, subjects, judged))
    output.show(subjects, page, everything, as_json)
    # a name may have options after it, as in dataset_transfer:mnist
    chosen = None if names is None else [config.component("checks", name).name for name in names]
    requested = [*DEFAULT_CHECKS, *WITH_TRAINING] if chosen is None else chosen
    exit_codes.stop_at_chance(subjects)
    exit_codes.stop_at_errors(subjects, requested)
    exit_codes.stop_at_verdicts(subjects, requested)
    exit_codes.stop_at_thresholds(judged)
