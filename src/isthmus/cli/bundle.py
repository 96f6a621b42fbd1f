"""``isthmus bundle``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isthmus.cli.options import Force, argument, text
from isthmus.cli.output import echo
from isthmus.core import files
from isthmus.core.errors import ConfigError


def bundle(
    run: Annotated[Path, argument("Audited run folder, or folder of an audit.", "RUN")],
    out: Annotated[Path, text("File to write.", "FILE")] = Path("evidence.zip"),
    force: Force = False,
) -> None:
    """Write an audit into one file that others can check: results, adversarial examples, hashes, versions.

    With the model, isthmus verify accepts the file, or names the first thing that does not hold.
    """
    from isthmus.audits import evidence

    if files.exists(out) and not force:
        raise ConfigError(f"{out} exists already: name another file with --out, or add --force to replace it.")
    digest = evidence.bundle(run, out)
    echo(f"SHA-256 of the manifest: {digest}")
    echo(f"bundle: {out}")
