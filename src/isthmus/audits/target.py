"""Load what a command names: a run folder or an external model, and the images to audit it on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isthmus import audits
from isthmus.attacks.threats import parse
from isthmus.audits.options import AuditOptions
from isthmus.core import config, registry
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.images import Examples, ImageData, Split, as_float
from isthmus.data.loading import held_out, load
from isthmus.data.order import balanced
from isthmus.models import external
from isthmus.models.ensembles import ensemble
from isthmus.models.preprocessing import NONE as NO_PREPROCESSING
from isthmus.models.preprocessing import Preprocessing
from isthmus.report import page
from isthmus.training.run import Run

log = logging.getLogger(__name__)

LARGEST = 8 * 2**30
"""Most bytes of float images that an audit decodes from files."""


@dataclass(frozen=True)
class ModelSource:
    """What a command names.

    Attributes:
        run: a trained run; give this or ``model``.
        model, weights: an external model and its weights, as for :func:`isthmus.load_model`; or several models and run
            folders as one ensemble (:data:`isthmus.models.external.ENSEMBLE`).
        data: name of the data, whose test split is used; the run's own if None.
        count: number of test images, the same class-balanced choice every time; all if None.
        out: folder for results and page; if None the run itself, or for an external model ``runs/<model>`` or
            ``runs/<model>-<weights>``.
        preprocessing: what an external model expects of its images, where it does not say so itself.
        step: of a run, the model after this step, one of its ``training.snapshots``, whose results go to
            ``step-<step>`` in the run; the final model if None.
        classes: names of the classes to keep, in the order of the model's logits; all, in the data's order, if None.
    """

    run: Path | None = None
    model: str | None = None
    weights: Path | None = None
    data: str | None = None
    count: int | None = None
    out: Path | None = None
    step: int | None = None
    preprocessing: Preprocessing = NO_PREPROCESSING
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class NamedModel:
    """A model that a command names, its data if known, and the folder for results."""

    model: nn.Module
    name: str
    folder: Path
    data: Component | None


@dataclass(frozen=True)
class Target:
    """A model, the images and labels to audit it on, and the folder for results.

    ``indices`` are the images' positions in the test split, and ``chosen`` describes how they were chosen from it;
    ``loaded`` are the data that they are from.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    indices: Tensor
    chosen: str
    data: str
    name: str
    folder: Path
    loaded: ImageData


def audit_run(
    source: ModelSource,
    threat: str = "linf:0.1",
    checks: Sequence[str | Mapping[str, Any]] | None = None,
    budget: Literal["quick", "full"] = "quick",
    claimed: str | None = None,
    seed: int = 0,
    options: AuditOptions | None = None,
) -> Path:
    """Audit a run folder, or a model of any other origin, and write ``page.html`` beside the results.

    Args:
        source: the model and the images.
        threat: norm and largest ε, such as "linf:8/255".
        checks, budget, claimed, seed: see :func:`isthmus.audit`.
        options: command, passes, max_queries, batch_size, progress and cluster are used.

    Returns:
        Path of the page.

    Raises:
        IsthmusError: anything named that does not exist or does not fit.
    """
    options, ball = options or AuditOptions(), parse(threat)
    target = target_of(source)
    trained_on = _trained_on(source.run, target) if source.data is None else None
    audits.audit(
        target.model,
        target.images,
        target.labels,
        ball,
        checks,
        budget,
        claimed,
        seed,
        target.folder / "audit",
        replace(
            options,
            trained_on=trained_on,
            name=target.name,
            data=target.data,
            indices=target.indices,
            chosen=target.chosen,
        ),
    )
    return page.write([target.folder], target.folder / "page.html")


def named_model(source: ModelSource) -> NamedModel:
    """Load a run's model, or build an external one, on the GPU if there is one.

    Raises:
        IsthmusError: anything named that does not exist or does not fit.
    """
    run, model, weights, step = source.run, source.model, source.weights, source.step
    if (run is None) == (model is None):
        raise ConfigError("Give a run folder, or --model with --data; one of the two.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = None if source.data is None else _data(source.data)
    if run is not None:
        if weights is not None:
            raise ConfigError("--weights belongs to --model; a run folder has its own.")
        if not source.preprocessing.changes_nothing:
            raise ConfigError("--preset, --mean, --std and --size belong to --model; a run normalises by itself.")
        trained = Run(run)
        net, name, folder = trained.load(step), trained.recipe.name, run
        if step is not None:
            name, folder = f"{name}, step {step}", run / f"step-{step}"
        return NamedModel(net.to(device), name, source.out or folder, _of(source, chosen or trained.recipe.data))
    if step is not None:
        raise ConfigError("--step belongs to a run folder; --model has none.")
    assert model is not None
    name = external.title(model, weights)
    if model.startswith(external.ENSEMBLE) and weights is None:
        loaded, data = _ensemble(model, source.preprocessing)
        chosen = chosen or data
    else:
        loaded = external.load(model, weights, source.preprocessing)
    return NamedModel(loaded.to(device), name, source.out or Path("runs") / name, _of(source, chosen))


def _of(source: ModelSource, data: Component | None) -> Component | None:
    """The data with the classes that a command names."""
    if source.classes is None:
        return data
    if data is None:
        raise ConfigError("--classes belongs to --data; without it there is nothing to choose classes from.")
    return config.component("data", data.plain() | {"classes": list(source.classes)})


def _ensemble(spec: str, preprocessing: Preprocessing) -> tuple[nn.Module, Component | None]:
    """The models of an ensemble, also run folders, as one; and the data of all of them, if they are runs.

    Raises:
        ConfigError: fewer than two models, one that is given twice, or runs of other classes.
        ModelError, FileError: a model cannot be loaded.
    """
    models: list[nn.Module] = []
    data: list[Component | None] = []
    classes: dict[tuple[str, ...], str] = {}
    for name in external.members_of(spec):
        if (Path(name) / "run.json").is_file():
            run = Run(Path(name))
            models.append(run.load())
            data.append(run.recipe.data)
            classes.setdefault(tuple(run.info()["data"]["classes"]), name)
        elif ":" not in name and not Path(name).is_file():
            raise ConfigError(f"The ensemble's {name} is no run folder, which has a run.json, and names no model.")
        else:
            models.append(external.load(name, None, preprocessing))
            data.append(None)
    if len(classes) > 1:
        first, second, *_ = classes.values()
        raise ConfigError(f"{first} and {second} were trained on other classes, or have them in another order.")
    return ensemble(models).eval(), data[0] if all(each == data[0] for each in data) else None


def named_data(source: ModelSource) -> Component | None:
    """The data that a command names, or a run's own; None if it is not known.

    Reads nothing else of the run's recipe, whose backbone may be code of the model's author.

    Raises:
        IsthmusError: anything named that does not exist.
    """
    if source.data is not None:
        data = _data(source.data)
    elif source.run is not None:
        data = config.component("data", Run(source.run).info()["recipe"]["data"])
    else:
        data = None
    return _of(source, data)


def _data(given: str) -> Component:
    """The data that a command names.

    Raises:
        ConfigError: an unknown name; for a folder, the message says how to name it.
    """
    if given not in registry.names("data") and Path(given).is_dir():
        raise ConfigError(f"There is no dataset {given!r}. For the images of that folder, write folder:{given}.")
    return config.component("data", given)


def target_of(source: ModelSource) -> Target:
    """A named model with the test split of its data, or ``source.count`` images of it, class-balanced.

    Raises:
        ConfigError: the data is not known.
        DataError, FileError: it cannot be loaded, or there are too many images to hold in memory.
    """
    model, count = named_model(source), source.count
    if model.data is None:
        raise ConfigError(
            "--model needs --data: digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder:PATH, csv:PATH, "
            "imagenet:PATH or module:function."
        )
    loaded = load(model.data)
    if loaded.note and source.model is not None:
        log.warning("%s, %d test images: %s.", loaded.name, len(loaded.test), loaded.note)
    test, indices, chosen = loaded.test, torch.arange(len(loaded.test)), "all"
    if count is not None and count < len(test):
        indices, chosen = balanced(test.labels)[:count], f"balanced first {count} of the test split"
        test = test.select(indices)
    elif count is not None and count > len(test):
        log.warning("%s has %d test images, fewer than --n %d; all of them are used.", loaded.name, len(test), count)
    _check_memory(test)
    return Target(
        model.model,
        as_float(test.images),
        test.labels,
        indices,
        chosen,
        f"{loaded.name} (test)" + (f"; {loaded.note}" if loaded.note else ""),
        model.name,
        model.folder,
        loaded,
    )


def _trained_on(run: Path | None, target: Target) -> Examples | None:
    """The training split of a run's data; None for an external model, and if the data have changed."""
    if run is None:
        return None
    if Run(run).info()["data"].get("fingerprint") == target.loaded.fingerprint:
        return held_out(target.loaded, Run(run).recipe.training.validation)[0].train
    log.warning("%s is not as it was when %s was trained, so memorisation is not measured.", target.data, run)
    return None


def _check_memory(test: Examples) -> None:
    """Refuse images from files that do not fit into memory as floats."""
    one = 4 * math.prod(test.shape)
    if not isinstance(test, Split) and len(test) * one > LARGEST:
        raise DataError(
            f"{len(test)} test images of {'×'.join(map(str, test.shape))} take {len(test) * one / 2**30:.1f} GiB as "
            f"floats; audit on at most {LARGEST // one} of them, such as --n 1000."
        )
