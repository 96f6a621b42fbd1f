"""Run a study by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from isthmus.core import provenance
from isthmus.core.config import override, parse_overrides, validate
from isthmus.core.errors import ConfigError, ModelError, unknown
from isthmus.core.execution import Executor, InProcess
from isthmus.core.process_pool import SAVING_SECONDS, ProcessPool
from isthmus.core.ray_cluster import Cluster, RayExecutor
from isthmus.studies import catalogue, page
from isthmus.studies.display import Display
from isthmus.studies.store import Experiment, ResultStore, Stages
from isthmus.studies.study import SCALES, Scale, StudyConfig, StudyRecord, departures
from isthmus.studies.tasks import ExperimentTask, here, shared_file


def run_study(
    name: str,
    scale: str = "small",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    out: str | Path = "runs/studies",
    show_progress: bool = True,
    jobs: int = 1,
    cluster: Cluster | None = None,
) -> tuple[StudyRecord, Path]:
    """Run a study, or resume one that was interrupted, and write its page.

    Args:
        name: such as "closer-look/figure-1".
        scale: "tiny", "small" or "paper".
        overrides: ``["seeds=2"]`` or ``{"seeds": 2}``, on top of the scale's preset.
        out: folder of all studies, their trained models and measurements.
        show_progress: show progress on stderr if that is a terminal.
        jobs: processes that share the experiments and the processors. As with Python's ``multiprocessing``, they import
            the calling script, which needs an ``if __name__ == "__main__"``.
        cluster: Ray workers share the experiments instead; ``out`` must be a folder that all machines share. A lost
            worker costs the time since its last checkpoint.

    Returns:
        The record with its verdicts, and the path of the page; the record's JSON lies beside it. An experiment that
        failed, for example because training diverged, is in ``record.failures``; the next call tries it again.

    Raises:
        ConfigError: an unknown study, scale or option.
        DataError, FileError, ModelError: as in training and attacking.
    """
    study, chosen = catalogue.find(name), _scale(scale)
    settings = dict(overrides) if isinstance(overrides, Mapping) else parse_overrides(overrides)
    preset: StudyConfig = study.preset(chosen)
    config = validate(study.config, override(preset.model_dump(), settings), where=f"study {name}")
    record = StudyRecord(
        study=name,
        scale=chosen,
        overrides=settings,
        options=_options(out, jobs, cluster),
        config=config.plain(),
        departures=departures(config, study.preset("paper")),
        provenance=provenance.collect(),
    )
    if jobs < 1:
        raise ConfigError(f"A study needs at least one process; got jobs={jobs}.")
    path, store = Path(out) / name / f"{chosen}.json", ResultStore(Path(out))
    with (
        Display(name, show_progress) as display,
        _executor(jobs, cluster) as executor,
        shared_file(store.root) if cluster is not None else nullcontext("") as token,
    ):
        running = _RunningStudy(record, path, store, display)
        task = ExperimentTask(name, config.plain(), store.root, executor, token)
        try:
            running.measure(study.experiments(config, store), executor, task)
        finally:
            executor.stop(SAVING_SECONDS)  # running experiments save their state
    found = running.record
    if "data" in found.config and found.measured and not found.data:
        raise ModelError(f"No experiment of {name} names its data; delete {store.root}/experiments and repeat.")
    done = found.model_copy(update={"claims": study.judge(found), "provenance": provenance.collect()})
    done.save(path)
    return done, page.write(path, path.with_suffix(".html"))


def _scale(given: str) -> Scale:
    for scale in SCALES:
        if given == scale:
            return scale
    raise ConfigError(unknown("scale", given, SCALES))


def _options(out: str | Path, jobs: int, cluster: Cluster | None) -> tuple[str, ...]:
    """Options of ``isthmus study`` that name its folder and its workers."""
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


class _RunningStudy:
    """A study while it runs. Its record is saved after every experiment, in the order in which they are listed."""

    def __init__(self, record: StudyRecord, path: Path, store: ResultStore, display: Display) -> None:
        self.record, self._path, self._store, self._display = record, path, store, display
        self._names: list[str] = []
        self._kept: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, str] = {}

    def measure(self, stages: Stages, executor: Executor, task: ExperimentTask) -> None:
        """Measure every experiment that the store lacks, stage by stage.

        Raises:
            ConfigError: two experiments have the same name.
        """
        stage, experiments = 0, next(stages, None)
        while experiments is not None:
            self._names += [each.name for each in experiments]
            name, times = Counter(self._names).most_common(1)[0] if self._names else ("", 0)
            if times > 1:
                raise ConfigError(f"The study has two experiments called {name!r}; give each option's values once.")
            self._kept |= {each.name: kept for each in experiments if (kept := self._store.kept(each))}
            self._save()
            missing = [number for number, each in enumerate(experiments) if each.name not in self._kept]
            self._run(experiments, [(stage, number) for number in missing], executor, task)
            values = [self._kept[each.name]["value"] for each in experiments if each.name in self._kept]
            try:
                stage, experiments = stage + 1, stages.send(values)
            except StopIteration:
                return

    def _run(
        self,
        experiments: Sequence[Experiment],
        shards: Sequence[tuple[int, int]],
        executor: Executor,
        task: ExperimentTask,
    ) -> None:
        """Measure experiments of one stage, given as pairs of stage and position."""

        def show(shard: int, report: tuple[str, float, float]) -> None:
            self._display.at(shard, experiments[shards[shard][1]].name, *report)

        work = here(self._store, experiments) if isinstance(executor, InProcess) else task
        for outcome in executor.map(work, shards, show):
            if outcome is None:
                continue
            self._display.idle(outcome.shard)
            experiment = experiments[shards[outcome.shard][1]]
            kept = None if outcome.value else self._store.kept(experiment)  # also if the worker was lost afterwards
            if kept is not None:
                self._kept[experiment.name] = kept
            else:
                self._failures[experiment.name] = outcome.lost or outcome.value
                self._display.failed(experiment.name, self._failures[experiment.name])
            self._save()

    def _save(self) -> None:
        kept = {name: self._kept[name] for name in self._names if name in self._kept}
        data = {each["fingerprint"]: each for found in kept.values() for each in found["data"]}
        self.record = self.record.filled(
            {name: found["value"] for name, found in kept.items()},
            total=len(self._names),
            failures={name: self._failures[name] for name in self._names if name in self._failures},
            seconds=round(sum(found["seconds"] for found in kept.values()), 2),
            data=tuple(data.values()),
        )
        self.record.save(self._path)
        self._display.count(self.record.measured, self.record.total, len(self._failures))
