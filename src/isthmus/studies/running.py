"""Running a study by its name: what ``isthmus study`` does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core import provenance
from isthmus.core.config import override, parse_overrides, validate
from isthmus.core.errors import ConfigError, ModelError, unknown
from isthmus.core.execution import Executor, InProcess
from isthmus.core.process_pool import LAST_WORDS, ProcessPool
from isthmus.core.ray_cluster import Cluster, RayExecutor
from isthmus.studies import catalogue, page
from isthmus.studies.display import Display
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.study import SCALES, Scale, StudyConfig, departures
from isthmus.studies.tasks import ExperimentTask, here, shared_file

if TYPE_CHECKING:
    from isthmus.studies.study import Study, StudyRecord


def run_study(
    name: str,
    scale: str = "small",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path = "runs/studies",
    show_progress: bool = True,
    jobs: int = 1,
    cluster: Cluster | None = None,
) -> tuple[StudyRecord, Path]:
    """Run a study, or finish one that was interrupted, and write its page.

    Args:
        name: such as "closer-look/figure-1".
        scale: "tiny", "small" or "paper".
        overrides: ``["seeds=2"]`` or ``{"seeds": 2}``, on top of the scale's preset.
        out: folder of all studies, their trained models and measurements.
        show_progress: say on stderr what is being done, where that is a terminal.
        jobs: processes that share the cells, each with its share of the processors. As all processes of Python's
            ``multiprocessing``, they import the calling script: it needs its ``if __name__ == "__main__"``.
        cluster: Ray workers share the cells instead; ``out`` must be a folder that all its machines see. A worker that
            is lost costs nothing but the time since its last checkpoint.

    Returns:
        The record with its findings, and the page's path; the record's JSON lies beside it. A cell that failed, such as
        a training run that diverged, is in ``record.failures``; the next call tries it again.

    Raises:
        ConfigError: an unknown study, scale or option.
        DataError, FileError, ModelError: as in training and attacking.
    """
    study, chosen = catalogue.find(name), _scale(scale)
    settings = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    preset: StudyConfig = study.preset(chosen)
    config = validate(study.config, override(preset.model_dump(), settings), where=f"study {name}")
    record = study.record(
        scale=chosen,
        overrides=settings,
        options=_options(out, jobs, cluster),
        config=config.plain(),
        departures=departures(config, study.preset("paper")),
        provenance=provenance.collect(),
    )
    if jobs < 1:
        raise ConfigError(f"A study needs at least one process; got jobs={jobs}.")
    path = Path(out) / name / f"{chosen}.json"
    bench = ResultStore(Path(out))
    kept = _Kept(record, path)
    with (
        Display(name, show_progress) as display,
        _executor(jobs, cluster) as executor,
        shared_file(bench.root) if cluster is not None else nullcontext("") as token,
    ):
        task = ExperimentTask(name, config.plain(), bench.root, executor, token)
        try:
            _measure(study.experiments(config, bench), bench, executor, task, kept, display)
        finally:
            executor.stop(LAST_WORDS)  # running experiments save what they are at
    if "data" in record.config and kept.record.measured and not kept.record.data:
        raise ModelError(f"No cell of {name} says which data it was measured on; delete {bench.root}/cells and repeat.")
    done = kept.judged(study)
    done.save(path)
    return done, page.write(path, path.with_suffix(".html"))


def _options(out: str | Path, jobs: int, cluster: Cluster | None) -> tuple[str, ...]:
    """Options of ``isthmus study`` that say where the study lies and who works."""
    given = {"--out": str(out)}
    if cluster is None:
        given |= {"--jobs": str(jobs)} if jobs != 1 else {}
    else:
        workers = {"--address": cluster.address, "--jobs": cluster.workers}
        size = {"--worker-cpus": cluster.cpus, "--worker-gpus": cluster.gpus}
        given |= {"--executor": "ray"} | {name: f"{value}" for name, value in (workers | size).items() if value}
    return tuple(part for option in given.items() for part in option)


def _executor(jobs: int, cluster: Cluster | None) -> Executor:
    if cluster is not None:
        return RayExecutor(cluster)
    return ProcessPool(jobs) if jobs > 1 else InProcess()


class _Kept:
    """The record on disk, rewritten after every cell; its cells are in the order of the plan."""

    def __init__(self, record: StudyRecord, path: Path) -> None:
        self.record, self._path = record, path
        self._names: list[str] = []
        self._cells: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, str] = {}

    def plan(self, cells: Sequence[Experiment]) -> None:
        """More cells that belong to the study."""
        self._names += [cell.name for cell in cells]
        twice = [name for name, times in Counter(self._names).items() if times > 1]
        if twice:
            raise ConfigError(f"The study has two cells called {twice[0]!r}; give each of its options' values once.")
        self._save()

    def put(self, cell: Experiment, kept: dict[str, Any]) -> None:
        """A cell was measured, now or before."""
        self._cells[cell.name] = kept
        self._save()

    def fail(self, cell: Experiment, why: str) -> None:
        """A cell could not be measured."""
        self._failures[cell.name] = why
        self._save()

    def judged(self, study: Study) -> StudyRecord:
        """The record with the verdicts on the paper's claims, and with what is known of the machine by now."""
        values = {name: kept["value"] for name, kept in self._known().items()}
        claims = study.judge(self.record)
        return self.record.filled(values, claims=claims, provenance=provenance.collect())

    def _known(self) -> dict[str, dict[str, Any]]:
        return {name: self._cells[name] for name in self._names if name in self._cells}

    def _save(self) -> None:
        known = self._known()
        self.record = self.record.filled(
            {name: kept["value"] for name, kept in known.items()},
            total=len(self._names),
            failures={name: self._failures[name] for name in self._names if name in self._failures},
            seconds=round(sum(kept["seconds"] for kept in known.values()), 2),
            data=_together(kept["data"] for kept in known.values()),
        )
        self.record.save(self._path)


def _together(parts: Iterable[Sequence[dict[str, str]]]) -> tuple[dict[str, str], ...]:
    """The data sets of several cells, each once."""
    return tuple({each["fingerprint"]: each for part in parts for each in part}.values())


def _measure(
    stages: Stages, bench: ResultStore, executor: Executor, task: ExperimentTask, kept: _Kept, display: Display
) -> None:
    """Every cell of a study, stage by stage: looked up where it was measured before, else measured."""
    values: list[Mapping[str, Any]] | None = None
    for stage in itertools.count():
        try:
            cells = stages.send(values) if values is not None else next(stages)
        except StopIteration:
            return
        kept.plan(cells)
        known = {number: found for number, cell in enumerate(cells) if (found := bench.kept(cell))}
        for number, found in known.items():
            kept.put(cells[number], found)
        _count(kept, display)
        left = [cell for number, cell in enumerate(cells) if number not in known]
        shards = [(stage, number) for number in range(len(cells)) if number not in known]
        tell = partial(_show, display, left)
        for outcome in executor.map(here(bench, cells) if isinstance(executor, InProcess) else task, shards, tell):
            if outcome is None:
                continue
            display.idle(outcome.shard)
            number, why = shards[outcome.shard][1], outcome.lost or outcome.value
            if not outcome.value and (measured := bench.kept(cells[number])):  # or lost when it was measured
                known[number] = measured
                kept.put(cells[number], measured)
            else:
                kept.fail(cells[number], why)
                display.failed(cells[number].name, why)
            _count(kept, display)
        values = [known[number]["value"] for number in sorted(known)]


def _show(display: Display, cells: Sequence[Experiment], shard: int, report: tuple[str, float, float]) -> None:
    display.at(shard, cells[shard].name, *report)


def _count(kept: _Kept, display: Display) -> None:
    record = kept.record
    display.count(record.measured, record.total, len(record.failures))


def _scale(given: str) -> Scale:
    for scale in SCALES:
        if given == scale:
            return scale
    raise ConfigError(unknown("scale", given, SCALES))
