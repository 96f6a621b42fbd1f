"""Start or resume a training run: the public entry point of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core import files, provenance
from isthmus.core.config import parse_overrides
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.data.images import ImageData
from isthmus.data.loading import load
from isthmus.training.loop import Trainer
from isthmus.training.progress import ProgressCallback
from isthmus.training.run import ENDED, Run, differences


def train(
    source: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    out: str | Path | None = None,
    progress: bool | ProgressCallback = True,
    wait: bool = False,
    **more: Any,
) -> Run:
    """Train a recipe into a run folder, or resume an interrupted run of the same recipe.

    Args:
        source: a YAML file, a mapping, or a ready recipe.
        overrides: ``["objective.rho=2"]`` or ``{"objective.rho": 2}``; keywords set top-level keys (``seed=3``).
        out: the run folder; None means ``runs/<name>``. A finished or collapsed run of the same recipe is returned
            unchanged.
        progress: True for a bar in a terminal or notebook, with the time left; or a function to call with the progress.
        wait: if another process trains this run, wait for it instead of failing.

    Returns:
        The run; its weights are the moving average if ``training.ema`` is set. Its status is "collapsed" if training
        accuracy ended at chance, or if training stopped because its terms were impossible, such as a rate below 0;
        ``run.info()["result"]["collapse"]`` is the reason.

    Raises:
        ConfigError: an invalid recipe, or a folder with a run of another recipe.
        DataError, FileError, ModelError: missing data, files that cannot be read or written, a diverged loss.
    """
    settings = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    recipe = load_recipe(source, {**settings, **more})
    run = Run(Path(out) if out is not None else Path("runs") / recipe.name)
    data = load(recipe.data)
    described = _describe(recipe, data)
    if _finished(run, described):
        return run
    trainer = Trainer(recipe, data, run)  # before anything is written, since it validates the recipe further
    group = trainer.group
    with group.hold_on_first(files.exclusive(run.path, "training", wait)):
        if group.on_first(lambda: wait and _finished(run, described)):  # finished meanwhile
            return run
        info = group.on_first(lambda: _note_start(run, described))
        trainer.fit(progress)
        group.on_first(lambda: run.write_info(info | _ended(trainer.result())))
    return run


def _ended(result: dict[str, Any]) -> dict[str, Any]:
    return {"status": "collapsed" if result["collapsed"] else "finished", "result": result}


def finished(recipe: Recipe, out: Path) -> Run | None:
    """The finished run of this recipe in a folder; None if there is none, or if it is unfinished.

    Raises:
        ConfigError: the folder has a run of another recipe or of other data.
        DataError, FileError: as :func:`train`.
    """
    run = Run(out)
    return run if _finished(run, _describe(recipe, load(recipe.data))) else None


def wait_for_others(out: Path) -> None:
    """Wait until no other process trains in this run folder."""
    if out.exists():
        with files.exclusive(out, "training", wait=True):
            pass


def _describe(recipe: Recipe, data: ImageData) -> dict[str, Any]:
    return {
        "recipe": recipe.plain(),
        "given": recipe.plain(given_only=True),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "note": data.note,
            "shape": list(data.shape),
            "classes": list(data.classes),
            "train": len(data.training_split().labels),
            "test": len(data.test.labels),
        },
    }


def _finished(run: Run, described: dict[str, Any]) -> bool:
    """Whether the folder has this run, finished with its weights; another run is an error."""
    if not files.exists(run.path / "run.json"):
        return False
    info = run.info()
    known = {**info["data"], "note": described["data"]["note"]}  # the note about the same data may change
    recorded = {"recipe": run.recipe.plain(), "data": known}
    for part in ("recipe", "data"):
        if different := differences(recorded[part], described[part]):
            raise ConfigError(
                f"{run.path} already holds a run with another {part} (different: {', '.join(different[:4])}). "
                "Choose another folder with --out or another name, or delete it."
            )
    return bool(info["status"] in ENDED and files.exists(run.weights))


def _note_start(run: Run, described: dict[str, Any]) -> dict[str, Any]:
    """Write ``run.json``, with the provenance of this and every earlier start."""
    earlier = run.info()["starts"] if files.exists(run.path / "run.json") else []
    info = described | {"status": "running", "starts": [*earlier, provenance.collect()], "result": None}
    run.write_info(info)
    return info
