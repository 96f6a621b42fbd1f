"""The workbench: where a study's measurements are made, each of them kept the moment it is there.

::

    OUT/models/NAME/              run folders of trained models
    OUT/cells/NAME-DIGEST.json    single measurements, by a digest of all that determines them
    OUT/STUDY/SCALE.json          the record: every cell of one study
    OUT/STUDY/SCALE.html          its page

Studies share models and cells: whoever asks for the same one gets it. A killed study goes on where it stopped, inside
a training run or an attack as well. A cell does not know which code made it; delete ``OUT`` after changing the code.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isthmus import files, provenance
from isthmus.errors import FileError
from isthmus.studies.study import StudyRecord

if TYPE_CHECKING:
    from isthmus.training.run import Run

Tell = Callable[[float, float], None]
"""Called with (done, total) now and then."""


class Workbench:
    """Keeps a study's cells and models.

    Args:
        root: folder of all studies.
        record: the study's record so far; :attr:`record` grows from it.
        path: file of the record, rewritten after every cell.
        show_progress: say on stderr what is being done, where that is a terminal.
    """

    def __init__(self, root: Path, record: StudyRecord, path: Path, show_progress: bool = True) -> None:
        self.root, self.record, self.path = root, record, path
        self._console = Console(stderr=True)
        self._shown = show_progress and self._console.is_terminal

    def plan(self, total: int) -> None:
        """Say how many cells the study has, before the first of them."""
        self._put(total=total)

    def cell(self, name: str, about: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """A measurement: looked up where it was made before, else made now and kept.

        Args:
            name: what it is called in the record, unique in the study; also part of its file's name.
            about: plain data that determine it wholly.
            measure: makes it; returns plain data.

        Raises:
            FileError: a file cannot be read or written.
        """
        plain = _plain(about)
        path = self.root / "cells" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{_digest(plain)}.json"
        kept = _same(path, plain) or self._measure(name, path, plain, measure)
        cells = {**self.record.cells, name: kept["value"]}
        self._put(cells=cells, seconds=round(self.record.seconds + kept["seconds"], 2))
        value: Mapping[str, Any] = kept["value"]
        return value

    def train(self, recipe: Mapping[str, Any]) -> Run:
        """Train a recipe in a folder of its own, or return the run that is there.

        Args:
            recipe: as a mapping; to its name is added a digest, so that no two recipes share a folder.
        """
        from isthmus.recipe import load_recipe
        from isthmus.training.start import train

        whole = load_recipe(recipe)
        named = load_recipe(whole, {"name": f"{whole.name}-{_digest(whole.plain())[:8]}"})
        return train(named, out=self.root / "models" / named.name, progress=self._shown)

    @contextmanager
    def evaluation(self, about: Mapping[str, Any]) -> Iterator[Path]:
        """A file for an attack to keep its state in (``save_to``); deleted once the attack is over.

        Args:
            about: plain data that determine the evaluation wholly.
        """
        from isthmus.attacks.waves import forget

        path = self.root / "cells" / f"{_digest(_plain(about))}.evaluation.safetensors"
        yield path
        forget(path)

    @contextmanager
    def bar(self, text: str) -> Iterator[Tell]:
        """A progress bar for one piece of work that takes a while."""
        columns = (TextColumn("  {task.description}"), BarColumn(20), TextColumn("{task.percentage:>3.0f}%"))
        with Progress(
            *columns, TimeElapsedColumn(), console=self._console, disable=not self._shown, transient=True
        ) as bar:
            task = bar.add_task(text, total=1)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _measure(self, name: str, path: Path, about: Any, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        if self._shown:
            self._console.print(f"{len(self.record.cells) + 1}/{self.record.total} {name}", highlight=False)
        started = time.monotonic()
        value = json.loads(json.dumps(measure(), allow_nan=False))
        kept = {
            "about": about,
            "value": value,
            "seconds": round(time.monotonic() - started, 2),
            "provenance": provenance.collect(),
        }
        files.write_json(path, kept)
        return kept

    def _put(self, **changes: Any) -> None:
        self.record = self.record.model_copy(update=changes)
        self.record.save(self.path)


def _plain(about: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(about, allow_nan=False))


def _digest(plain: Any) -> str:
    return files.sha256(json.dumps(plain, sort_keys=True).encode())[:16]


def _same(path: Path, about: Any) -> dict[str, Any] | None:
    """A kept measurement; None where there is none."""
    if not path.exists():
        return None
    kept = files.read_json(path)
    if not isinstance(kept, dict) or kept.get("about") != about or not {"value", "seconds"} <= set(kept):
        raise FileError(f"{path} is not the measurement that its name says; delete it to have it made again.")
    return kept
