"""The result store: experiments of studies, each kept as soon as it is measured.

::

    OUT/models/NAME/                    run folders of trained models
    OUT/experiments/NAME-DIGEST.json    measurements, by a digest of all that determines them
    OUT/STUDY/SCALE.json                the record: every experiment of one study
    OUT/STUDY/SCALE.html                its page

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
from isthmus.core.progress import reporting

if TYPE_CHECKING:
    from isthmus.training.run import Run

Tell = Callable[[float, float], None]
"""Called with (done, total) now and then."""
Report = Callable[[str, float, float], None]
"""Called with (what is being done, done, total) now and then."""

_STOPPING = (ConfigError, DataError, FileError)
"""Faults of the study, the data or the disk, which would stop every other experiment, too."""
_log = logging.getLogger("isthmus.studies")


@dataclass(frozen=True)
class Experiment:
    """One measurement of a study.

    Attributes:
        name: unique in the study; also part of its file's name.
        about: plain data that determine it completely.
        measure: returns plain data.
    """

    name: str
    about: Mapping[str, Any]
    measure: Callable[[], Mapping[str, Any]]

    @cached_property
    def plain(self) -> Any:
        """``about`` after a round trip through JSON."""
        return _plain(self.about)


Stages = Generator[Sequence[Experiment], Sequence[Mapping[str, Any]], None]
"""A study's experiments, as lists within which none waits for another. The values of a list's experiments are sent back
for it, in order and without those that failed."""


class ResultStore:
    """Keeps experiments and models.

    Args:
        root: folder of all studies.
        report: called with progress.
    """

    def __init__(self, root: Path, report: Report = lambda what, done, total: None) -> None:
        self.root, self.report = root, report

    def kept(self, experiment: Experiment) -> dict[str, Any] | None:
        """The value of an experiment with its seconds, data and provenance; None if it was not measured.

        Raises:
            FileError: its file is damaged, or of something else.
        """
        path = self._path(experiment)
        if not files.exists(path):
            return None
        kept: Any = files.read_json(path)
        complete = isinstance(kept, dict) and {"value", "seconds", "data"} <= set(kept)
        if not complete or kept.get("about") != experiment.plain:
            raise FileError(f"{path} is not the measurement that its name says; delete it to have it made again.")
        found: dict[str, Any] = kept
        return found

    def attempt(self, experiment: Experiment) -> str:
        """Measure an experiment and keep it; returns "", or in one sentence why it failed.

        Raises:
            ConfigError, DataError, FileError: a fault that would stop every other experiment, too.
        """
        try:
            with reporting():  # to the study's display alone
                self._make(experiment)
        except _STOPPING:
            raise
        except Exception as error:  # a run that diverges or exceeds the memory must not end the others
            _log.debug("%s failed", experiment.name, exc_info=True)
            return f"{type(error).__name__}: {one_line(error)}"
        return ""

    def part(self, experiment: Experiment) -> dict[str, Any]:
        """The value of a part of a large experiment, from its file or measured and kept: a kill costs one part.

        Raises:
            Exception: whatever measuring it raises.
        """
        kept = self.kept(experiment) or self._make(experiment)
        for data in kept["data"]:
            provenance.use(**data)
        value: dict[str, Any] = kept["value"]
        return value

    def _make(self, experiment: Experiment) -> dict[str, Any]:
        """Measure an experiment and keep it."""
        started = time.monotonic()
        with provenance.uses() as data:
            measured = experiment.measure()
        try:
            value = json.loads(json.dumps(measured, allow_nan=False))
        except ValueError:
            raise ModelError(f"a measured number is not finite: {measured}") from None
        kept = {
            "about": experiment.plain,
            "value": value,
            "seconds": round(time.monotonic() - started, 2),
            "data": list(data.values()),
            "provenance": provenance.collect(),
        }
        files.write_json(self._path(experiment), kept)
        return kept

    def train(self, recipe: Mapping[str, Any]) -> Run:
        """Train a recipe in a separate folder, or return its run if there is one.

        If another process trains the same recipe, wait for it. With ``training.devices`` above one, start that many
        processes.

        Args:
            recipe: as a mapping. A digest is added to its name, so that no two recipes share a folder.

        Raises:
            ModelError: training ended because its loss or a bound was impossible.
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
        """A file in which an attack saves its state (``save_to``); deleted when the attack is complete.

        Args:
            about: plain data that determine the evaluation completely.
        """
        from isthmus.attacks.engine.evaluation_file import forget

        path = self.root / "experiments" / f"{_digest(_plain(about))}.evaluation.safetensors"
        yield path
        forget(path)

    def telling(self, what: str) -> Tell:
        """A function that reports the progress of one task."""
        return lambda done, total: self.report(what, done, total)

    def _path(self, experiment: Experiment) -> Path:
        return (
            self.root
            / "experiments"
            / f"{re.sub(r'[^A-Za-z0-9.]+', '-', experiment.name)}-{_digest(experiment.plain)}.json"
        )


def _plain(about: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(about, allow_nan=False))


def _digest(plain: Any) -> str:
    return files.sha256(json.dumps(plain, sort_keys=True).encode())[:16]
