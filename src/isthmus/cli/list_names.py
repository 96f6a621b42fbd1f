"""``isthmus list``."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.output import echo_wrapped
from isthmus.core import registry
from isthmus.core.errors import ConfigError, unknown


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="data, backbones, objectives, callbacks, attacks, checks, shifts or studies.")
    ] = None,
) -> None:
    """List the names that recipes and options accept."""
    from isthmus.studies import catalogue

    kinds = [*registry.KINDS, "studies"]
    if kind is not None and kind not in kinds:
        raise ConfigError(unknown("kind", kind, kinds))
    for each in [kind] if kind else kinds:
        echo_wrapped(f"{each}: {', '.join(catalogue.names() if each == 'studies' else registry.names(each))}")
