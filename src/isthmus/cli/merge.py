"""``isthmus merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isthmus.cli.attack import show
from isthmus.cli.options import Force, argument, text


def merge(
    shards: Annotated[list[Path], argument("Files that isthmus attack --shard wrote, in any order.", "SHARD")],
    out: Annotated[Path, text("File to write, as isthmus attack without --shard does.", "FILE")],
    force: Force = False,
) -> None:
    """Merge the shards of an attack into the result of the whole attack.

    Refuses shards that are missing, given twice, incomplete, or of different models, data, seeds, threats, suites or
    versions.
    """
    from isthmus.audits import attack_file

    show(attack_file.merge(shards, out, force), out)
