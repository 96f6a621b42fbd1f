"""Start or resume a training run: the public entry point of training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard
from uuid import uuid4

from torch import nn

from isthmus.core import files, provenance
from isthmus.core.config import Component, parse_overrides
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.data.given import GivenData
from isthmus.data.images import ImageData
from isthmus.data.loading import load
from isthmus.models.given import GivenBackbone
from isthmus.models.pretrained import digest_of
from isthmus.training import checkpoints
from isthmus.training.loop import Trainer
from isthmus.training.progress import ProgressCallback
from isthmus.training.run import ENDED, Run, differences

log = logging.getLogger(__name__)


def train(
    source: str | Path | Mapping[str, Any] | Recipe,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    out: str | Path | None = None,
    progress: bool | ProgressCallback = True,
    wait: bool = False,
    backbone: nn.Module | Component | Mapping[str, Any] | str | None = None,
    data: Any = None,
    **more: Any,
) -> Run:
    """Train a recipe into a run folder, resume an interrupted run of the same recipe, or lengthen a finished one.

    A run is lengthened by the same recipe with more ``training.epochs``, if no schedule depends on the length. It ends
    as a run of that length does.

    Args:
        source: a YAML file, a mapping, a ready recipe, or a run folder, whose recipe is then resumed or lengthened.
        overrides: ``["objective.rho=2"]`` or ``{"objective.rho": 2}``; keywords set top-level keys (``seed=3``).
        out: the run folder; None means ``runs/<name>``, or the run folder that is the source. A finished or collapsed
            run of the same recipe is returned unchanged.
        progress: True for a bar in a terminal or notebook, with the time left; or a function to call with the progress.
        wait: if another process trains this run, wait for it instead of failing.
        backbone: replaces ``model.backbone`` of the recipe: a backbone's name or options, or your own ``nn.Module``
            from images to features, batch × features, whose number of features is found by a forward pass. A copy of
            the module is trained; get it with ``run.load(backbone=module)``.
        data: replaces ``data`` of the recipe: a name or options, or images and labels in a form that
            :func:`isthmus.audit` takes, as training data or as a mapping (or an object) with "train" and perhaps
            "validation" and "test". Early stopping then uses that validation part. Without "test", a fixed 20% of each
            class become the test split. Images have 8 bits a channel, as bytes or as floats k/255.

    Returns:
        The run; its weights are the moving average if ``training.ema`` is set. Its status is "collapsed" if training
        accuracy ended at chance, or if training stopped because its terms were impossible, such as a rate below 0;
        ``run.info()["result"]["collapse"]`` is the reason.

    Raises:
        ConfigError: an invalid recipe, or a folder with a run of another recipe, other data or another backbone.
        DataError, FileError, ModelError: missing data, files that cannot be read or written, a diverged loss.
    """
    settings = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    recipe = read_recipe(source, {**settings, **more, **_given(backbone, data)})
    if out is None:
        out = source if is_run(source) else Path("runs") / recipe.name
    run = Run(Path(out))
    loaded = load(recipe.data)
    described = _describe(recipe, loaded)
    if _finished(run, described):
        return run
    trainer = Trainer(recipe, loaded, run)  # before anything is written, since it validates the recipe further
    group = trainer.group
    with group.hold_on_first(files.exclusive(run.path, "training", wait)):
        if group.on_first(lambda: wait and _finished(run, described)):  # finished meanwhile
            return run
        if before := group.on_first(lambda: _shorter(run, described)):
            trainer.check_longer_than(before)
        info = group.on_first(lambda: _note_start(run, described, trainer.pretrained))
        trainer.fit(progress)
        group.on_first(lambda: run.write_info(info | _ended(trainer.result())))
    return run


def is_run(source: object) -> TypeGuard[str | Path]:
    """Whether the source of a recipe is a run folder."""
    return isinstance(source, str | Path) and files.exists(Path(source) / "run.json")


def read_recipe(
    source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """The recipe that :func:`train` would train, as :func:`isthmus.core.recipe.load_recipe` or from a run folder."""
    given = Run(Path(source)).info()["given"] if is_run(source) else source
    return load_recipe(given, overrides)


def _given(backbone: object, data: Any) -> dict[str, Any]:
    """Settings of a recipe for a backbone and data that are given beside it."""
    found: dict[str, Any] = {}
    if backbone is not None:
        named = isinstance(backbone, str | Mapping | Component)
        found["model.backbone"] = backbone if named else GivenBackbone.of(backbone)
    if data is not None:
        named = isinstance(data, str | Component) or (isinstance(data, Mapping) and "name" in data)
        found["data"] = data if named else GivenData.of(data)
    return found


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
    backbone, init = recipe.model.backbone, recipe.model.init
    initial = {
        "backbone": backbone.weights() if isinstance(backbone, GivenBackbone) else "",
        "init": digest_of(init) if init is not None else "",
    }
    return {
        "initial": {name: digest for name, digest in initial.items() if digest},
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
        }
        | ({} if data.validation is None else {"validation": len(data.validation.labels)}),
    }


def _finished(run: Run, described: dict[str, Any]) -> bool:
    """Whether the folder has this run, finished with its weights; another run is an error."""
    if not files.exists(run.path / "run.json"):
        return False
    info = run.info()
    known = {**info["data"], "note": described["data"]["note"]}  # the note about the same data may change
    recorded = {"recipe": run.recipe.plain(), "data": known}
    for part in ("recipe", "data"):
        different = differences(recorded[part], described[part])
        if different and not (part == "recipe" and _shorter(run, described)):
            raise ConfigError(
                f"{run.path} already holds a run with another {part} (different: {', '.join(different[:4])}). "
                "Choose another folder with --out or another name, or delete it."
            )
    ended = info["status"] in ENDED and files.exists(run.weights) and not _shorter(run, described)
    began = info.get("initial", {})
    if different := [name for name, digest in described["initial"].items() if began.get(name) != digest]:
        _other_weights(run, different, ended)
    return bool(ended)


def _shorter(run: Run, described: dict[str, Any]) -> int:
    """The epochs of the run in the folder, if the recipe is the same but for more of them; else 0.

    Raises:
        ConfigError: that run cannot go on.
    """
    if not files.exists(run.path / "run.json"):
        return 0
    info, old = run.info(), run.recipe.plain()
    before, after = old["training"]["epochs"], described["recipe"]["training"]["epochs"]
    if differences(old, described["recipe"]) != ["training.epochs"] or before > after:
        return 0
    if (info["result"] or {}).get("impossible"):
        raise ConfigError(f"{run.path} cannot be lengthened: it stopped. {info['result']['collapse']}")
    if info["status"] in ENDED and not checkpoints.exists(run.checkpoint):
        raise ConfigError(
            f"{run.path} has no {run.checkpoint.name}, from which to train on; train {after} epochs in another folder."
        )
    return int(before)


def _other_weights(run: Run, different: list[str], ended: bool) -> None:
    """Refuse a finished run from other starting weights; an unfinished one has its weights in its checkpoint."""
    if ended:
        raise ConfigError(
            f"{run.path} holds a finished run that started from other weights ({', '.join(different)}). Choose another "
            "folder, give the same weights, or load the finished run with isthmus.load."
        )
    if checkpoints.exists(run.checkpoint):
        log.warning(
            "%s started from other weights (%s); training resumes from its checkpoint.", run.path, ", ".join(different)
        )


def _note_start(run: Run, described: dict[str, Any], pretrained: dict[str, Any]) -> dict[str, Any]:
    """Write ``run.json``, with the provenance of this and every earlier start."""
    earlier = run.info() if files.exists(run.path / "run.json") else {"starts": []}
    began = {"initial": described["initial"], "pretrained": pretrained}
    if checkpoints.exists(run.checkpoint):  # its weights are of an earlier start
        began = {name: earlier.get(name, {}) for name in began}
    info = {name: value for name, value in (described | began).items() if value or name not in began}
    starts = [*earlier["starts"], provenance.collect()]
    # a run that is lengthened keeps the result of its weights until there are new ones
    info |= {"id": earlier.get("id") or uuid4().hex[:16]}
    info |= {"status": "running", "starts": starts, "result": earlier.get("result")}
    if len(starts) > 1 and (changed := _changes(*starts[-2:])):
        log.info("Since the last start, of %s, changed: %s.", starts[-2]["date"], changed)
    run.write_info(info)
    return info


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two starts in versions, commit and machine."""

    def at(start: Any, key: str) -> Any:
        for part in key.split("."):
            start = start.get(part) if isinstance(start, dict) else None
        return start

    names = [name for name in differences(before, now) if name != "date"]
    return ", ".join(f"{name} {at(before, name)} → {at(now, name)}" for name in names)
