"""``isthmus train``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.exit_codes import ERROR
from isthmus.cli.options import Quiet, argument, flag, text
from isthmus.cli.output import echo
from isthmus.core.format import percent_of


def train(
    recipe: Annotated[
        Path, argument("Recipe, a YAML file (see examples/recipes), or a run folder to resume.", "RECIPE")
    ],
    overrides: Annotated[
        list[str] | None, argument("Settings that replace the recipe's: objective.rho=2 seed=3.", "KEY=VALUE")
    ] = None,
    out: Annotated[Path | None, text("Run folder.", "FOLDER", show_default="runs/NAME")] = None,
    dry_run: Annotated[
        bool, flag("Print recipe, shapes, parameters, memory and the time of a step; train nothing.", "--dry-run")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a recipe, resume an interrupted run of it, or lengthen a finished one (training.epochs=20).

    Exit code 2 if training collapsed: accuracy at chance, or an impossible loss or bound.
    """
    from isthmus.training.processes import is_first_process
    from isthmus.training.start import train as start

    if dry_run:
        from isthmus.training.dry_run import dry_run as measured
        from isthmus.training.start import read_recipe

        typer.echo(measured(read_recipe(recipe, overrides or [])).text())
        return
    if not quiet:  # says what it resumes
        logging.getLogger("isthmus.training").setLevel(logging.INFO)
    run = start(recipe, overrides or [], out=out, progress=not quiet)
    if not is_first_process():
        return
    info = run.info()
    result = info["result"]
    echo(f"test accuracy: {percent_of(result['test_accuracy'], info['data']['test'])}")
    if note := info["data"].get("note"):
        echo(f"data: {note}")
    echo(f"run: {run.path}")
    if result["collapsed"]:
        echo(f"Error: Training collapsed. {result.get('collapse', '')}".strip(), err=True)
        raise typer.Exit(ERROR)
