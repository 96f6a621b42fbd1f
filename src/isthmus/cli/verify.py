"""``isthmus verify``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.exit_codes import ERROR
from isthmus.cli.options import (
    ATTACK,
    DATA,
    Mean,
    Model,
    Preset,
    RunFolder,
    Size,
    Std,
    Weights,
    argument,
    number,
    preprocessing_of,
    text,
)
from isthmus.cli.output import echo
from isthmus.core.format import percent_of

if TYPE_CHECKING:
    from isthmus.attacks.verify import Verification

_ROWS_SHOWN = 8


def verify(
    result: Annotated[Path, argument("File that isthmus attack wrote, or folder of an audit.", "RESULT")],
    run: RunFolder = None,
    model: Model = None,
    weights: Weights = None,
    preset: Preset = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    data: Annotated[
        str | None, text("Data to compare the original images with.", "NAME", panel=DATA, show_default="the run's own")
    ] = None,
    threat: Annotated[
        str | None,
        text("Refuse a file with another threat, such as linf:8/255.", "NORM:EPS", panel=ATTACK, show_default=False),
    ] = None,
    n: Annotated[
        int | None, number("Refuse a file with another number of images.", "--n", panel=DATA, show_default=False)
    ] = None,
) -> None:
    """Recompute an upper bound on robust accuracy from saved adversarial examples. No attack runs.

    A file cannot prove which attacks ran, nor that no other adversarial examples exist. State the number of images,
    the threat and the data that you expect with --n, --threat and --data.

    Exit code 2 if the file's claim does not hold for this model.
    """
    from isthmus.audits import attack_file
    from isthmus.audits.target import ModelSource, named_model

    path, run = attack_file.locate(result, run, model)
    attack_file.check_claim(path, threat, n)
    done = attack_file.verify(
        path,
        named_model(ModelSource(run, model, weights, data, preprocessing=preprocessing_of(preset, mean, std, size))),
    )
    for line in lines(done):
        echo(line)
    if not done.agrees:
        echo(f"Error: the claim of {result} does not hold for this model and data (reasons above).", err=True)
        raise typer.Exit(ERROR)
    echo(conclusion(done))


def lines(done: Verification) -> Iterator[str]:
    """What a verification found, in lines."""
    yield f"claimed: robust accuracy {percent_of(done.claimed, done.n)}, n = {done.n:,}, {done.threat}"
    yield (
        f"recomputed: robust accuracy {percent_of(done.verified, done.n)}, from {done.proven:,} of {done.broken:,} "
        f"broken examples; largest ‖δ‖ {done.largest:.6g}"
    )
    if not done.complete:
        yield "interrupted: the evaluation was not finished when this file was written"
    if done.examples_match is None:
        yield "examples: not compared with a data set"
    else:
        yield f"examples: {'identical to' if done.examples_match else 'NOT those of'} the data set"
    if done.intact is False:
        yield "checksum: the file was changed after it was written"
    for reason, count in done.reasons.items():
        rows = [row for row, why in done.failures.items() if why == reason]
        yield f"{count:,} × {reason} (rows {_some(rows)})"


def conclusion(done: Verification) -> str:
    """What a successful verification has proven, and what it has not."""
    return (
        f"verified: robust accuracy is at most {percent_of(done.verified, done.n)} on these {done.n:,} images "
        f"(SHA-256 {done.examples[:16]}…) at {done.threat}; which attacks ran is not verified "
        f"({', '.join(done.attacks)})"
    )


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:_ROWS_SHOWN])) + (", …" if len(rows) > _ROWS_SHOWN else "")
