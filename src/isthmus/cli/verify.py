"""``isthmus verify``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.exit_codes import ERROR
from isthmus.cli.options import (
    ATTACK,
    DATA,
    Classes,
    Mean,
    Model,
    Preset,
    RunFolder,
    Size,
    Std,
    Weights,
    argument,
    classes_of,
    number,
    preprocessing_of,
    text,
)
from isthmus.cli.output import echo
from isthmus.core.format import percent_of

if TYPE_CHECKING:
    from torch import nn

    from isthmus.attacks.verify import Verification
    from isthmus.audits.target import ModelSource

_ROWS_SHOWN = 8
_INTERRUPTED = "interrupted: the evaluation was not finished when this file was written"


def verify(
    result: Annotated[
        Path, argument("File that isthmus attack or isthmus bundle wrote, or folder of an audit.", "RESULT")
    ],
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
    classes: Classes = None,
    threat: Annotated[
        str | None,
        text("Refuse a file with another threat, such as linf:8/255.", "NORM:EPS", panel=ATTACK, show_default=False),
    ] = None,
    n: Annotated[
        int | None, number("Refuse a file with another number of images.", "--n", panel=DATA, show_default=False)
    ] = None,
) -> None:
    """Recompute an upper bound on robust accuracy from saved adversarial examples. No attack runs.

    Of a file with certificates, recompute every bound, and so the lower bound on robust accuracy.

    A bundle is checked as a whole, with the model in a process of its own: its files, their agreement, the hashes of
    model and data, and every prediction.

    A file cannot prove which attacks ran, nor that no other adversarial examples exist. State the number of images,
    the threat and the data that you expect with --n, --threat and --data.

    Exit code 2 if the file's claim does not hold for this model.
    """
    from isthmus.audits import attack_file, evidence
    from isthmus.audits.target import ModelSource, named_model
    from isthmus.certificates import result_file

    preprocessing = preprocessing_of(preset, mean, std, size)
    source = ModelSource(run, model, weights, data, preprocessing=preprocessing, classes=classes_of(classes))
    if evidence.is_bundle(result):
        _verify_bundle(result, source, threat, n)
        return
    path, run = attack_file.locate(result, run, model)
    if result_file.is_certified_result(path):
        _verify_certificates(path, named_model(replace(source, run=run)).model, threat, n)
        return
    attack_file.check_claim(path, threat, n)
    done = attack_file.verify(path, named_model(replace(source, run=run)))
    for line in lines(done):
        echo(line)
    if not done.agrees:
        echo(f"Error: the claim of {result} does not hold for this model and data (reasons above).", err=True)
        raise typer.Exit(ERROR)
    echo(conclusion(done))


def _verify_certificates(path: Path, model: nn.Module, threat: str | None, n: int | None) -> None:
    """Recompute every bound of a certified result; data is not compared."""
    from isthmus.attacks.threats import parse
    from isthmus.certificates import CertifiedResult, verify_certificates
    from isthmus.core.errors import FileError

    claim = CertifiedResult.load(path)
    if threat is not None and parse(threat) != claim.threat:
        raise FileError(f"{path} is about {claim.threat}, not about --threat {threat}.")
    if n is not None and n != len(claim):
        raise FileError(f"{path} holds {len(claim):,} examples, not --n {n}.")
    done = verify_certificates(claim, model)
    certified, count = int(claim.certified.sum()), len(claim)
    echo(f"claimed: {certified:,} of {count:,} examples certified, {int(claim.broken.sum()):,} broken, {claim.threat}")
    echo(f"recomputed: {done.confirmed:,} certificates hold")
    for reason, number_of in done.reasons.items():
        rows = [row for row, why in done.failures.items() if why == reason]
        echo(f"{number_of:,} × {reason} (rows {_some(rows)})")
    if not done.agrees:
        echo(f"Error: the claim of {path} does not hold for this model (reasons above).", err=True)
        raise typer.Exit(ERROR)
    echo(
        f"verified: robust accuracy is at least {percent_of(done.confirmed / count, count)} on these {count:,} images "
        f"(SHA-256 {done.examples[:16]}…) at {claim.threat}"
    )


def _verify_bundle(path: Path, source: ModelSource, threat: str | None, n: int | None) -> None:
    from isthmus.attacks.threats import parse
    from isthmus.audits import evidence
    from isthmus.audits.isolated import isolated
    from isthmus.audits.target import named_data

    try:
        bundled = evidence.read(path)
        with isolated(source) as model:
            done = evidence.verify(bundled, model, model.fingerprint, named_data(source))
        found = done.verification
        if threat is not None and parse(threat) != found.threat:
            raise evidence.EvidenceError(f"It is about {found.threat}, not about --threat {threat}.")
        if n is not None and n != found.n:
            raise evidence.EvidenceError(f"It is about {found.n:,} images, not --n {n}.")
    except evidence.EvidenceError as error:
        echo(f"Error: {path} is not accepted. {error}", err=True)
        raise typer.Exit(ERROR) from None
    echo(f"manifest: SHA-256 {done.digest}")
    echo(f"model: {done.record.model}, SHA-256 {done.record.model_hash}")
    compared = "identical to the data set" if found.examples_match else "not compared with a data set"
    echo(f"images: {done.record.data}, SHA-256 {done.record.data_hash}, {compared}")
    echo(f"verdict, as stored: {done.verdict}")
    echo("recomputed: clean and robust accuracy in mean mode; all other numbers are as stored")
    if not found.complete:
        echo(_INTERRUPTED)
    echo(conclusion(found))


def lines(done: Verification) -> Iterator[str]:
    """What a verification found, in lines."""
    yield f"claimed: robust accuracy {percent_of(done.claimed, done.n)}, n = {done.n:,}, {done.threat}"
    yield (
        f"recomputed: robust accuracy {percent_of(done.verified, done.n)}, from {done.proven:,} of {done.broken:,} "
        f"broken examples; largest ‖δ‖ {done.largest:.6g}"
    )
    if not done.complete:
        yield _INTERRUPTED
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
