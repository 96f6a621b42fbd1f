"""``isthmus demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from isthmus.cli import exit_codes, output
from isthmus.cli.options import Everything, Json, Quiet, text


def demo(
    out: Annotated[Path, text("Folder for the five runs and the page.", "FOLDER")] = Path("runs/demo"),
    everything: Everything = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train five classifiers on handwritten digits, audit them, and write a page that compares them."""
    from isthmus.report.loading import load_all
    from isthmus.studies.demo import CHECKS, recipes, run_demo

    page = run_demo(out, show_progress=not quiet)
    subjects = load_all([out / recipe.name for recipe in recipes()])
    output.show(subjects, page, everything, as_json)
    checks = [check if isinstance(check, str) else check["name"] for check in CHECKS]
    exit_codes.stop_at_chance(subjects)
    exit_codes.stop_at_errors(subjects, checks)
