"""The demo: five classifiers on real digits, trained, audited and compared on one page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from isthmus.audits import DEFAULT_CHECKS, WITH_TRAINING, AuditOptions
from isthmus.audits.options import Progress
from isthmus.audits.progress import over_all
from isthmus.audits.target import ModelSource, audit_run
from isthmus.core.progress import Update, progress_bar
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.report import page
from isthmus.training.progress import ProgressCallback
from isthmus.training.start import train

THREAT = "linf:0.1"
CHECKS: tuple[str | dict[str, Any], ...] = (
    {"name": "diagnosis", "sample": 50, "modes": ["mean"]},
    {"name": "robustness", "levels": 3, "modes": ["mean"]},
    *(check for check in DEFAULT_CHECKS if check not in ("diagnosis", "robustness")),
    *WITH_TRAINING,
)
"""All checks. To be fast, only the mean mode is attacked, at three ε, with a smaller sample for the expensive tests."""

_TRAINING = 0.1
"""Share of training in the time that a classifier takes."""

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
    folders, plans, command = [], recipes(), shlex.join(["isthmus", "demo", "--out", str(out)])
    with progress_bar("demo", show_progress) as update:
        for index, recipe in enumerate(plans):
            training, auditing = _progress(update, f"{recipe.name} ({index + 1} of {len(plans)})", index, len(plans))
            run = train(recipe, out=out / recipe.name, progress=training)
            audit_run(ModelSource(run.path), THREAT, CHECKS, options=AuditOptions(command=command, progress=auditing))
            folders.append(run.path)
    return page.write(folders, out / "page.html")


def _progress(update: Update, name: str, index: int, count: int) -> tuple[ProgressCallback, Progress]:
    """The functions to call while a classifier is trained and audited: both advance one bar over all classifiers."""

    def training(done: float, total: float, terms: str) -> None:
        update((index + _TRAINING * done / max(total, 1)) / count, f"{name}, training")

    def auditing(fraction: float, check: str) -> None:
        update((index + _TRAINING + (1 - _TRAINING) * fraction) / count, f"{name}, {check}")

    checks = [check if isinstance(check, str) else check["name"] for check in CHECKS]
    return training, over_all(checks, auditing)
