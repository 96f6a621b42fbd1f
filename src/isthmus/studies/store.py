"""The result store: experiments of studies, each kept as soon as it is measured.

::

    OUT/models/NAME/              run folders of trained models
    OUT/cells/NAME-DIGEST.json    single measurements, by a digest of all that determines them
    OUT/STUDY/SCALE.json          the record: every experiment of one study
    OUT/STUDY/SCALE.html          its page

Studies share models and experiments. A killed study resumes where it stopped, inside a training run or an attack too.
An experiment does not record the code that made it: delete ``OUT`` after changing the code.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core import files, provenance
from isthmus.core.errors import ConfigError, DataError, FileError, ModelError, one_line

if TYPE_CHECKING:
    from isthmus.training.run import Run

Tell = Callable[[float, float], None]
"""Called with (done, total) now and then."""
Report = Callable[[str, float, float], None]
"""Called with (what is being done, done, total) now and then."""

_STOPPING = (ConfigError, DataError, FileError)
"""Faults of the study, the data or the disk: no other cell would fare better."""
_log = logging.getLogger("isthmus.studies")


@dataclass(frozen=True)
class Experiment:
    """One measurement of a study.

    Attributes:
        name: what it is called in the record, unique in the study; also part of its file's name.
        about: plain data that determine it wholly.
        measure: makes it; returns plain data.
    """

    name: str
    about: Mapping[str, Any]
    measure: Callable[[], Mapping[str, Any]]

    @cached_property
    def plain(self) -> Any:
        """What it is about, as JSON gives it back."""
        return _plain(self.about)


Stages = Generator[Sequence[Experiment], Sequence[Mapping[str, Any]], None]
"""A study's cells: lists of cells that do not wait for one another; what a list's cells gave is sent back for it, in
their order and without those that failed."""


class ResultStore:
    """Keeps cells and models.

    Args:
        root: folder of all studies.
        report: told what is being done.
    """

    def __init__(self, root: Path, report: Report = lambda what, done, total: None) -> None:
        self.root, self.report = root, report

    def kept(self, cell: Experiment) -> dict[str, Any] | None:
        """A cell's measurement with the seconds it took and where it was made; None where there is none.

        Raises:
            FileError: its file is damaged, or of something else.
        """
        path = self._path(cell)
        if not files.exists(path):
            return None
        kept = files.read_json(path)
        if not isinstance(kept, dict) or kept.get("about") != cell.plain or not {"value", "seconds"} <= set(kept):
            raise FileError(f"{path} is not the measurement that its name says; delete it to have it made again.")
        if "data" not in kept:
            raise FileError(
                f"{path} was measured by a version that did not keep the fingerprint of the data; delete it to have it "
                "made again."
            )
        return kept

    def attempt(self, cell: Experiment) -> str:
        """Measure a cell and keep it; returns "", or in one sentence why it failed.

        Raises:
            ConfigError, DataError, FileError: no other cell would fare better.
        """
        try:
            self._make(cell)
        except _STOPPING:
            raise
        except Exception as error:  # one run that diverges, or does not fit into memory, must not end the others
            _log.debug("%s failed", cell.name, exc_info=True)
            return f"{type(error).__name__}: {one_line(error)}"
        return ""

    def part(self, cell: Experiment) -> dict[str, Any]:
        """What a piece of a large cell measures, taken from its file or made and kept: a kill costs one piece.

        Raises:
            Exception: whatever measuring it raises.
        """
        kept = self.kept(cell) or self._make(cell)
        for data in kept["data"]:
            provenance.use(**data)
        value: dict[str, Any] = kept["value"]
        return value

    def _make(self, cell: Experiment) -> dict[str, Any]:
        """Measure a cell and keep it."""
        started = time.monotonic()
        with provenance.uses() as data:
            measured = cell.measure()
        try:
            value = json.loads(json.dumps(measured, allow_nan=False))
        except ValueError:
            raise ModelError(f"something that was measured is not finite: {measured}") from None
        kept = {
            "about": cell.plain,
            "value": value,
            "seconds": round(time.monotonic() - started, 2),
            "data": list(data.values()),
            "provenance": provenance.collect(),
        }
        files.write_json(self._path(cell), kept)
        return kept

    def train(self, recipe: Mapping[str, Any]) -> Run:
        """Train a recipe in a folder of its own, or return the run that is there.

        Where another process trains the same one, this waits for it. With ``training.devices`` above one it is trained
        by as many processes, which are started for it, and this one waits.

        Args:
            recipe: as a mapping; to its name is added a digest, so that no two recipes share a folder.

        Raises:
            ModelError: training ended because its loss or a bound was impossible; such a model is no evidence.
        """
        run = self._trained(recipe)
        result = run.info()["result"]
        if result.get("impossible"):
            raise ModelError(f"Training collapsed at step {result['step']}. {result['collapse']}")
        return run

    def _trained(self, recipe: Mapping[str, Any]) -> Run:
        from isthmus.core.recipe import load_recipe
        from isthmus.training.start import train

        whole = load_recipe(recipe)
        named = load_recipe(whole, {"name": f"{whole.name}-{_digest(whole.plain())[:8]}"})

        def tell(done: float, total: float, terms: str) -> None:
            self.report(f"training {terms}", done, total)

        folder = self.root / "models" / named.name
        if named.training.devices * named.training.nodes > 1:
            from isthmus.training.torchrun import train_with_torchrun

            run = train_with_torchrun(named, folder, tell)
        else:
            run = train(named, out=folder, progress=tell, wait=True)
        data = run.info()["data"]
        provenance.use(data["name"], data["fingerprint"], data.get("note", ""))
        return run

    @contextmanager
    def evaluation(self, about: Mapping[str, Any]) -> Iterator[Path]:
        """A file for an attack to keep its state in (``save_to``); deleted once the attack is over.

        Args:
            about: plain data that determine the evaluation wholly.
        """
        from isthmus.attacks.engine.early_stopping import forget

        path = self.root / "cells" / f"{_digest(_plain(about))}.evaluation.safetensors"
        yield path
        forget(path)

    def telling(self, what: str) -> Tell:
        """For one piece of work that takes a while: who is told how far it is."""
        return lambda done, total: self.report(what, done, total)

    def _path(self, cell: Experiment) -> Path:
        return self.root / "cells" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', cell.name)}-{_digest(cell.plain)}.json"


def _plain(about: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(about, allow_nan=False))


def _digest(plain: Any) -> str:
    return files.sha256(json.dumps(plain, sort_keys=True).encode())[:16]
