"""The demo: five classifiers on real digits, trained, audited and compared on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING, AuditOptions
from isthmus.audits.target import ModelSource, audit_run
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.report import page
from isthmus.training.start import train

THREAT = "linf:0.1"
CHECKS: tuple[str | dict[str, Any], ...] = (
    {"name": "diagnosis", "examples": 100, "modes": ["mean"]},
    *DEFAULT_CHECKS[1:],
    *WITH_TRAINING,
)
"""All checks; the diagnosis uses 100 images in mean mode, to be fast."""

OBJECTIVES: dict[str, Any] = {
    "determ": "deterministic",
    "vib-rho0": {"name": "vib", "rho": 0},
    "vib-rho4": {"name": "vib", "rho": 4},
    "ceb-rho0": {"name": "ceb", "rho": 0},
    "ceb-rho4": {"name": "ceb", "rho": 4},
}


def recipes() -> list[Recipe]:
    """A recipe for each classifier; they differ in the objective alone."""
    return [
        load_recipe(
            {
                "name": name,
                "data": "digits",
                "model": {"backbone": {"name": "mlp", "hidden": [256, 256]}, "dim": 16, "samples": 4},
                "objective": objective,
                "training": {"epochs": 60, "batch_size": 64},
            }
        )
        for name, objective in OBJECTIVES.items()
    ]


def run_demo(out: Path, show_progress: bool = True) -> Path:
    """Train, audit and compare the five classifiers; results of an earlier call are reused.

    Returns:
        Path of the page that compares them.
    """
    folders = []
    for recipe in recipes():
        run = train(recipe, out=out / recipe.name, progress=show_progress)
        audit_run(ModelSource(run.path), THREAT, CHECKS, options=AuditOptions(progress=show_progress))
        folders.append(run.path)
    return page.write(folders, out / "page.html")
