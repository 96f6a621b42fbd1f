"""From what a command names to what it works on: a run folder or a foreign model, and images to judge it on."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from isthmus.attacks.threats import parse
from isthmus.core import config
from isthmus.core.cluster import Cluster
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError, DataError
from isthmus.data.images import Examples, Split, as_float
from isthmus.data.loading import load
from isthmus.data.order import balanced
from isthmus.models import adapters
from isthmus.training.run import Run

if TYPE_CHECKING:
    from isthmus import audits


log = logging.getLogger(__name__)

LARGEST = 8 * 2**30
"""Bytes of float images that an audit decodes from files without being asked for fewer."""


@dataclass(frozen=True)
class Named:
    """A model that a command names, the data it is to be judged on as far as that is known, and where results go."""

    model: nn.Module
    name: str
    folder: Path
    data: Component | None


@dataclass(frozen=True)
class Target:
    """A model, the images and labels to judge it on, and where its results go.

    ``indices`` are the images' positions in the test split, and ``chosen`` says how they were chosen from it; ``train``
    is the training split of the same data, and ``fingerprint`` that of the two.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    indices: Tensor
    chosen: str
    data: str
    name: str
    folder: Path
    train: Examples
    fingerprint: str


def audit_run(
    run: Path | None,
    *,
    model: str | None = None,
    weights: Path | None = None,
    data: str | None = None,
    threat: str = "linf:0.1",
    count: int | None = None,
    checks: Sequence[str | Mapping[str, Any]] | None = None,
    budget: Literal["quick", "full"] = "quick",
    claimed: str | None = None,
    passes: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    step: int | None = None,
    batch_size: int = 256,
    show_progress: bool = True,
    cluster: Cluster | None = None,
) -> Path:
    """Audit a run folder, or a model named ``package.module:function``, and write ``page.html`` beside the results.

    Args:
        run: a trained run; give this or ``model``.
        model, weights: a foreign model and its safetensors file.
        data: name of the data (its test split is used); the run's own where None.
        threat: norm and largest ε, such as "linf:8/255".
        count: judge on this many test images, the same class-balanced choice every time; all where None.
        checks, budget, claimed, passes, max_queries, seed: see :func:`isthmus.audit`.
        out: folder for results and page; where None the run itself, or for a foreign model ``runs/<model>`` or
            ``runs/<model>-<weights>``.
        step: of a run, the model after this step, one of its ``training.snapshots``; results go to ``step-<step>`` in
            the run.
        batch_size: see :func:`isthmus.audit`.
        show_progress: draw a progress bar where stderr is a terminal.
        cluster: see :func:`isthmus.audit`.

    Returns:
        Path of the page.

    Raises:
        IsthmusError: anything named that does not exist or does not fit.
    """
    from isthmus import audits
    from isthmus.audits.request import configs
    from isthmus.report import page

    chosen = parse(threat)
    target = judged_on(named(run, model, weights, data, out, step), count)
    trained_on = _trained_on(run, target) if data is None else None
    names = [check.name for check in configs(checks, trained_on is not None, passes)]
    with audit_bar(target.name, names, show_progress) as progress:
        audits.audit(
            target.model,
            target.images,
            target.labels,
            chosen,
            checks,
            budget,
            trained_on=trained_on,
            claimed=claimed,
            passes=passes,
            max_queries=max_queries,
            seed=seed,
            out=target.folder / "audit",
            name=target.name,
            data=target.data,
            indices=target.indices,
            chosen=target.chosen,
            batch_size=batch_size,
            progress=progress,
            cluster=cluster,
        )
    return page.write([target.folder], target.folder / "page.html")


def named(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    data: str | None,
    out: Path | None,
    step: int | None = None,
) -> Named:
    """Load a run's model, or build a foreign one, on the GPU if there is one.

    Args:
        run: a trained run; give this or ``model``.
        model, weights: a foreign model, ``package.module:function``, and its safetensors file.
        data: name of the data; the run's own where None.
        out: folder for results; where None the run itself, or for a foreign model ``runs/<model>`` or
            ``runs/<model>-<weights>``.
        step: of a run, the model after this step, whose results go to a folder of its own in the run; at the end where
            None.

    Raises:
        IsthmusError: anything named that does not exist or does not fit.
    """
    if (run is None) == (model is None):
        raise ConfigError("Give a run folder, or --model package.module:function with --data; one of the two.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = None if data is None else config.component("data", data)
    if run is not None:
        if weights is not None:
            raise ConfigError("--weights belongs to --model; a run folder has its own.")
        trained = Run(run)
        net, name, folder = trained.load(step), trained.recipe.name, run
        if step is not None:
            name, folder = f"{name}, step {step}", run / f"step-{step}"
        return Named(net.to(device), name, out or folder, chosen or trained.recipe.data)
    if step is not None:
        raise ConfigError("--step belongs to a run folder; a foreign model has none.")
    assert model is not None
    name = model.replace(":", ".") + (f"-{weights.stem}" if weights is not None else "")
    return Named(adapters.foreign(model, weights).to(device), name, out or Path("runs") / name, chosen)


def judged_on(subject: Named, count: int | None) -> Target:
    """A named model with the test split of its data, or a class-balanced choice of ``count`` images from it.

    Raises:
        ConfigError: the data is not known.
        DataError, FileError: it cannot be loaded, or there are too many images to hold in memory.
    """
    if subject.data is None:
        raise ConfigError(
            "--model needs --data: digits, mnist, fashion_mnist, cifar10, svhn, folder:PATH or imagenet:PATH."
        )
    loaded = load(subject.data)
    test, indices, chosen = loaded.test, torch.arange(len(loaded.test)), "all"
    if count is not None and count < len(test):
        indices, chosen = balanced(test.labels)[:count], f"balanced first {count} of the test split"
        test = test.select(indices)
    _check_memory(test)
    return Target(
        subject.model,
        as_float(test.images),
        test.labels,
        indices,
        chosen,
        f"{loaded.name} (test)" + (f"; {loaded.note}" if loaded.note else ""),
        subject.name,
        subject.folder,
        loaded.train,
        loaded.fingerprint,
    )


def _trained_on(run: Path | None, target: Target) -> Examples | None:
    """What a run was trained on, its own data's training split; of a foreign model nobody knows."""
    if run is None:
        return None
    if Run(run).info()["data"].get("fingerprint") == target.fingerprint:
        return target.train
    log.warning("%s is not as it was when %s was trained, so memorisation is not asked about.", target.data, run)
    return None


def _check_memory(test: Examples) -> None:
    """An audit holds its images; those that lie in files may be more than there is room for."""
    one = 4 * math.prod(test.shape)
    if not isinstance(test, Split) and len(test) * one > LARGEST:
        raise DataError(
            f"{len(test)} test images of {'×'.join(map(str, test.shape))} take {len(test) * one / 2**30:.1f} GiB as "
            f"floats; judge on at most {LARGEST // one} of them, such as --n 1000."
        )


@contextmanager
def audit_bar(name: str, checks: Sequence[str], shown: bool) -> Iterator[audits.Progress]:
    """A progress bar on stderr over the whole audit, each check an equal part of it, that names the running check."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        disable=not shown or not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(name, total=len(checks))

        def tell(check: str, done: int, total: int) -> None:
            said = f"{name}: {_spoken(check, done, total)}"
            bar.update(task, description=said, completed=checks.index(check) + done / max(total, 1))

        yield tell


def _spoken(check: str, done: int, total: int) -> str:
    """A running check; of the verdict, whose end is not known, the passes that it has spent and may spend."""
    return f"{check}, {done:,} of at most {total:,} passes" if check == "diagnosis" and total > 1 else check
