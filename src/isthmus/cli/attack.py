"""``isthmus attack``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from isthmus.cli.exit_codes import ERROR, UNDECIDED
from isthmus.cli.options import (
    ATTACK,
    DATA,
    SUITES,
    Classes,
    Data,
    Force,
    Images,
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
    classes_of,
    complete_names,
    flag,
    number,
    preprocessing_of,
    text,
)
from isthmus.cli.output import echo
from isthmus.core import config
from isthmus.core import progress as core_progress
from isthmus.core.errors import ConfigError, printable
from isthmus.core.format import interval_of, listed, parse_fraction, percent_of

if TYPE_CHECKING:
    from isthmus.attacks.engine.run_options import Progress as ProgressCallback
    from isthmus.attacks.engine.run_options import Snapshot
    from isthmus.attacks.result import RobustResult
    from isthmus.core.types import Metric


def attack(
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
    suite: Annotated[
        str,
        text(
            f"{listed(SUITES, 'or')}; or attacks: fgsm,pgd:100.",
            "NAMES",
            panel=ATTACK,
            autocompletion=complete_names("attacks", *SUITES),
        ),
    ] = "standard",
    n: Images = None,
    batch_size: Annotated[int | None, number("Images per batch.", show_default="as memory allows")] = None,
    jobs: Annotated[int, number("Processes that share the work.")] = 1,
    ci_half_width: Annotated[
        str | None,
        text("Stop when the 95% interval is within ± this: 1%, 0.01.", "WIDTH", panel=ATTACK, show_default="never"),
    ] = None,
    seed: Seed = 0,
    bf16: Annotated[
        bool, flag("Gradients in bfloat16; adversarial examples are verified in float32.", "--bf16")
    ] = False,
    out: Annotated[
        Path | None,
        text(
            "Result file, .safetensors.",
            "FILE",
            show_default="attack-SUITE-THREAT-nN in the run or in runs/MODEL-WEIGHTS",
        ),
    ] = None,
    force: Force = False,
    max_queries: Annotated[
        int | None,
        number(
            "Maximum number of queries: images shown to the model, forward and backward. When they are spent, the "
            "result is an upper bound and the exit code 5.",
            panel=ATTACK,
            show_default="no limit",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        text(
            "Attack one part of the images, such as 3/32, for a job array; `isthmus merge` joins the files.",
            "K/M",
            panel=DATA,
            show_default="all images",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Attack a trained run or any classifier, and save an adversarial example for every image that an attack broke.

    To resume an interrupted or killed evaluation, run the same command again. A finished result is overwritten only
    with --force. Exit codes:

    * 2: the model is no better than a constant prediction, so that no attack ran
    * 5: --max-queries is spent; the file holds the result so far
    * 130: interrupted by Ctrl-C; the file holds the result so far
    """
    from isthmus.attacks.engine.run_options import RunOptions
    from isthmus.attacks.suites import stages_of
    from isthmus.attacks.threats import parse
    from isthmus.audits import attack_file
    from isthmus.audits.target import ModelSource, target_of

    ball, attacks, half_width = (
        parse(threat),
        parse_suite(suite),
        None if ci_half_width is None else parse_half_width(ci_half_width),
    )
    stages_of(attacks, ball.name)  # a misspelt attack is known before the model is loaded
    if out is not None and os.path.isdir(out):
        raise ConfigError(f"--out names a file; {out} is a folder.")
    preprocessing = preprocessing_of(preset, mean, std, size)
    target = target_of(
        ModelSource(run, model, weights, data, n, preprocessing=preprocessing, classes=classes_of(classes))
    )
    path = out or target.folder / attack_file.file_name(suite, str(ball), len(target.labels), shard)
    part = None
    if shard is not None:
        if half_width is not None or max_queries is not None:
            raise ConfigError(
                "--ci-half-width and --max-queries concern all images; they cannot be combined with --shard."
            )
        target, part = attack_file.shard_of(target, shard, ball, attacks, seed, bf16)
    if not force:
        attack_file.check_free(path)
    if part is None and max_queries is None:
        attack_file.check_above_chance(target, ball, seed)
    if not quiet:
        echo(_expected(attack_file.expected(target, ball, attacks), len(target.labels), max_queries), err=True)
    with _progress(target.name, not quiet) as progress:
        result, path = attack_file.attack(
            target,
            ball,
            attacks,
            path,
            seed=seed,
            options=RunOptions(
                batch_size, jobs, bf16=bf16, progress=progress, max_queries=max_queries, ci_half_width=half_width
            ),
            shard=part,
        )
    show(result, path)
    if result.exhausted:
        raise typer.Exit(UNDECIDED)
    if not result.complete:
        raise KeyboardInterrupt


# --- options ---


def parse_suite(given: str) -> str | list[str]:
    """A suite or an attack by its name, or a list of them: ``fgsm,pgd:100``."""
    names = config.split_names(given)
    return names[0] if len(names) == 1 else names


def parse_half_width(given: str) -> float:
    """A half-width, written ``1%``, ``±1%``, ``0.01`` or ``±0.01``.

    Raises:
        ConfigError: anything else, or a number that is not between 0 and 1.
    """
    half_width = parse_fraction(given.strip().removeprefix("±").removeprefix("+-"))
    if not 0 < half_width < 1:
        raise ConfigError(
            f"The half-width of an interval is written 1% or 0.01, more than 0 and below 1; got {given!r}."
        )
    return half_width


# --- output ---


def show(result: RobustResult, path: Path) -> None:
    """Print a result and where it is; exit code 2 if the model is no better than a constant prediction."""
    from isthmus.audits import attack_file

    Console().print(table(result))
    for line in lines(result):
        echo(line)
    echo(f"result: {path}")
    if result.shard is None and not attack_file.above_chance(result):
        echo(
            "Error: the clean accuracy is not above that of a constant prediction; `isthmus audit --checks accuracy` "
            "reports the likely cause.",
            err=True,
        )
        raise typer.Exit(ERROR)


def table(result: RobustResult) -> Table:
    """Robust accuracy after each attack, how many examples it broke, and its passes."""
    rows = Table()
    rows.add_column("attack")
    for heading in ("robust accuracy", "broken", "passes"):
        rows.add_column(heading, justify="right")
    broken = [int((result.broken & (result.stage == stage)).sum()) for stage in range(len(result.attacks))]
    for (label, accuracy), count, passes in zip(result.by_attack.items(), broken, result.spent, strict=True):
        rows.add_row(Text(printable(label)), percent_of(accuracy, len(result)), f"{count:,}", f"{passes:,}")
    return rows


def lines(result: RobustResult) -> Iterator[str]:
    """The result in lines: robust accuracy with its interval, passes, and notes."""
    yield (
        f"robust accuracy: {percent_of(result.accuracy, len(result))}, 95% interval "
        f"{interval_of(result.interval, len(result))}, n = {len(result):,}, {result.threat}"
    )
    if result.random:
        yield "the model is stochastic; its robust accuracy is that of the average prediction over many draws"
        yield f"  one evaluation, as in the papers: {_measured(result.one_evaluation)}"
        yield f"  99% confidence: {_measured(result.confident)}"
    passes = f"{result.forward_passes:,} forward, {result.backward_passes:,} backward"
    yield f"passes: {result.forward_passes + result.backward_passes:,} ({passes})"
    if result.verified:
        checked = "the average prediction was measured" if result.random else "adversarial examples were verified"
        yield f"{checked} at the end, with {result.verification_passes:,} of these passes"
    yield from (f"note: {warning}" for warning in result.warnings)
    if not result.complete:
        why = "the query budget is spent" if result.exhausted else "interrupted"
        yield f"{why}: not every attack ran on every image, so robust accuracy is at most this"


def _measured(metric: Metric) -> str:
    """A fraction with its interval, or why it was not measured."""
    if metric.value is None or metric.interval is None:
        return metric.note
    return f"{percent_of(metric.value, metric.n)}, 95% interval {interval_of(metric.interval, metric.n)}"


def _expected(passes: int, images: int, max_queries: int | None) -> str:
    limit = "" if max_queries is None else f"; --max-queries stops at {max_queries:,}"
    return f"about {passes:,} passes if all {images:,} images are robust{limit}"


@contextmanager
def _progress(name: str, shown: bool) -> Iterator[ProgressCallback | None]:
    """Robust accuracy so far on stderr, attack by attack, if that is a terminal."""
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    board = Board(name)
    with Live(board, console=console, transient=True, refresh_per_second=4):
        yield board.update


class Board:
    """Display while attacks run: a line for each attack with the robust accuracy so far, and a progress bar."""

    def __init__(self, name: str) -> None:
        self.seen: dict[str, Snapshot] = {}
        self.bar = Progress(*core_progress.columns())
        self.task = self.bar.add_task(name, total=None)

    def update(self, at: Snapshot) -> None:
        """Update the display."""
        self.seen[at.attack] = at
        self.bar.update(self.task, completed=at.done, total=at.total)

    def __rich__(self) -> RenderableType:
        from isthmus.metrics import wilson

        grid = Table.grid(padding=(0, 2))
        for label, at in list(self.seen.items()):
            accuracy = f"{percent_of(at.robust / at.n, at.n)} ({interval_of(wilson(at.robust, at.n), at.n)})"
            grid.add_row(Text(label), accuracy, f"of {at.n:,}")
        return Group(grid, self.bar.get_renderable())
