"""A study shared by several processes: the same numbers, failures kept apart, nothing lost to a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.core.config import override, validate
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.execution import InProcess, Outcome
from isthmus.studies import catalogue, running
from isthmus.studies.closer_look import toy_experiments
from isthmus.studies.running import run_study
from isthmus.studies.store import ResultStore
from isthmus.studies.study import StudyRecord
from isthmus.studies.tasks import ExperimentTask, shared_file
from isthmus.training.checkpoints import read

NAME = "closer-look/figure-5"
QUICK = {"steps": 5, "batch_size": 32, "points": 60, "std_offsets": [0.0]}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_study(NAME, "tiny", QUICK, tmp_path_factory.mktemp("alone"), show_progress=False)[0]


@pytest.fixture
def pool(lasting_pool, monkeypatch):
    monkeypatch.setattr(running, "_executor", lambda jobs, cluster: lasting_pool)
    return lasting_pool


@pytest.mark.usefixtures("pool")
def test_two_processes_measure_what_one_does_in_the_same_order(alone, tmp_path):
    shared, _ = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False, jobs=2)
    assert shared.complete
    assert list(shared.experiments.items()) == list(alone.experiments.items())
    assert shared.claims == alone.claims


@pytest.mark.usefixtures("pool")
def test_later_stages_see_what_earlier_ones_gave(tmp_path):
    """Figure 4 computes surfaces of the best of its models: two stages, which workers list for themselves."""
    settings = {"images": 40, "seeds": 2, "training.epochs": 3, "grid": 3, "measured": 4}
    shared, _ = run_study("closer-look/figure-4", "tiny", settings, tmp_path, show_progress=False, jobs=2)
    assert shared.complete
    assert not shared.failures
    assert len(shared.experiments) == 3
    assert [name for name in shared.experiments if name.endswith("surfaces")]


def test_a_run_that_diverges_ends_no_other(alone, tmp_path, monkeypatch):
    true = toy_experiments.measure

    def diverging(problem, config, vib, seed, tell):
        if (vib, seed) == ((0.01, 0.0), 1):
            raise ModelError("Training diverged\nat step 3.")
        return true(problem, config, vib, seed, tell)

    monkeypatch.setattr(toy_experiments, "measure", diverging)
    record, html = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    name = "intervals, vib, beta 0.01, offset 0, seed 1"
    assert record.failures == {name: "ModelError: Training diverged at step 3."}
    assert record.complete
    assert record.experiments == {other: each for other, each in alone.experiments.items() if other != name}
    text = html.read_text("utf-8")
    assert "1 of 6 experiments could not be measured" in text
    assert f"{name} failed: ModelError: Training diverged at step 3." in text
    monkeypatch.setattr(toy_experiments, "measure", true)
    again, _ = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    assert not again.failures
    assert again.experiments == alone.experiments


@pytest.mark.usefixtures("pool")
def test_what_no_experiment_would_survive_ends_the_study_at_once(tmp_path):
    with pytest.raises(ConfigError, match="There is no class 'truck'"):
        run_study(
            "closer-look/figure-4",
            "tiny",
            ["classes=[truck]", "seeds=1", "images=10", "training.epochs=1"],
            tmp_path,
            show_progress=False,
            jobs=2,
        )


def prepared(name, tmp_path, executor, settings):
    """The task of a study's workers, and its store and first experiments."""
    study = catalogue.find(name)
    config = validate(study.config, override(study.preset("tiny").model_dump(), settings), where="test")
    store = ResultStore(tmp_path)
    return ExperimentTask(name, config.plain(), tmp_path, executor), store, next(study.experiments(config, store))


def test_a_killed_workers_experiment_runs_again(pool, tmp_path):
    def kill(shard, report):
        if not killed:
            (worker,) = pool._busy
            os.kill(worker.process.pid, signal.SIGKILL)
            killed.append(report)

    killed = []
    task, store, experiments = prepared(NAME, tmp_path, pool, QUICK)
    outcomes = [outcome for outcome in pool.map(task, [(0, 0)], kill) if outcome is not None]
    assert [(outcome.value, outcome.lost) for outcome in outcomes] == [("", "")]
    assert killed == [("starting", 0.0, 0.0)]
    assert store.kept(experiments[0]) is not None


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with shared_file(tmp_path) as token:
        _, store, _ = prepared(NAME, tmp_path, InProcess(), QUICK)
        config = validate(catalogue.find(NAME).config, catalogue.find(NAME).preset("tiny").model_dump(), where="test")
        task = ExperimentTask(NAME, config.plain(), tmp_path, InProcess(), token)
        assert task._begin().root == store.root
    with pytest.raises(ConfigError, match=r"all machines\s+share"):
        ExperimentTask(NAME, config.plain(), tmp_path, InProcess(), token)((0, 0), print)


class Losing(InProcess):
    """Loses the workers of the first two shards, of the second one when it was measured."""

    def map(self, task, shards, report=lambda shard, value: None):
        for outcome in super().map(task, shards[1:], report):
            yield Outcome(outcome.shard + 1, outcome.value, "lost 3 times" if outcome.shard == 0 else "")
        yield Outcome(0, lost="lost 3 times")


def test_an_experiment_that_loses_its_workers_fails_alone(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_executor", lambda jobs, cluster: Losing())
    record, _ = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    first = next(iter(alone.experiments))
    assert record.failures == {first: "lost 3 times"}
    assert record.experiments == {name: each for name, each in alone.experiments.items() if name != first}


HELD = f"""
import os, time
from isthmus.cli.app import main
from isthmus.studies.closer_look import toy_experiments

measure, calls = toy_experiments.measure, []


def held(*arguments):
    calls.append(arguments)
    while len(calls) > 1 and os.path.exists("hold"):  # holds the second experiment of each worker
        time.sleep(0.01)
    return measure(*arguments)


toy_experiments.measure = held
if __name__ == "__main__":
    options = ["steps=5", "batch_size=32", "points=60", "std_offsets=[0.0]", "--scale", "tiny"]
    main(["study", {NAME!r}, *options, "--jobs", "2", "--out", "."])
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("stop", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_a_stopped_sweep_goes_on_and_leaves_no_process_behind(alone, tmp_path, stop):
    (tmp_path / "sweep.py").write_text(HELD)
    hold = tmp_path / "hold"
    hold.touch()
    command = [sys.executable, str(tmp_path / "sweep.py")]
    # a shell may have started us with SIGINT ignored, which children inherit
    default = signal.signal(signal.SIGINT, signal.default_int_handler)
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, default)
    record = tmp_path / NAME / "tiny.json"
    while not (record.exists() and len(StudyRecord.load(record).experiments) == 2):
        assert first.poll() is None
        time.sleep(0.05)
    workers = _children(first.pid)
    assert len(workers) >= 2
    first.send_signal(stop)
    code = first.wait()
    hold.unlink()
    assert code == (-signal.SIGKILL if stop is signal.SIGKILL else 130)
    half = StudyRecord.load(record)
    assert 0 < len(half.experiments) < half.total
    whole, _ = run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False)
    assert whole.complete
    assert {name: whole.experiments[name] for name in half.experiments} == half.experiments
    while any(map(_alive, workers)):
        time.sleep(0.1)


SLOW = {  # steps of more than the 0.2 s between two reports, so that one is due at the very step that notices SIGINT
    "seeds": 1,
    "families": ["ceb"],
    "rhos": [3],
    "model": {"backbone": {"name": "wide_resnet", "depth": 7, "width": 4, "norm": False}, "dim": 4},
    "training": {"epochs": 50, "batch_size": 700, "log_every": 1, "checkpoint_every": 10_000},
}


def test_ctrl_c_has_every_process_save_what_it_is_at(pool, tmp_path):
    task, _, _ = prepared("ceb/fashion", tmp_path, pool, SLOW)
    for outcome in pool.map(task, [(0, 0)]):
        assert outcome is None
        if any(_lines(each) > 1 for each in tmp_path.glob("models/*/metrics.jsonl")):
            break
    assert pool.stop(60.0) == []
    (checkpoint,) = tmp_path.glob("models/*/checkpoint.safetensors")
    assert read(checkpoint)[1]["step"] >= 2


def _lines(path):
    return len(path.read_text().splitlines())


def test_two_experiments_of_one_name_are_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="two experiments called"):
        run_study(NAME, "tiny", {**QUICK, "betas": [0.1, 0.1], "seeds": 1}, tmp_path, show_progress=False)


def test_what_is_not_finite_is_a_failure_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_experiments, "measure", lambda *_: {"rate": float("nan")})
    record, html = run_study(NAME, "tiny", {**QUICK, "seeds": 1}, tmp_path, show_progress=False)
    assert len(record.failures) == record.total == 3
    assert {finding.verdict for finding in record.claims} == {"undecided"}
    assert "3 of 3 experiments could not be measured" in html.read_text("utf-8")
    assert "a measured number is not finite" in next(iter(record.failures.values()))


def _children(parent):
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(child) for child in text.split()]


def _alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_no_process_at_all_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="at least one process"):
        run_study(NAME, "tiny", QUICK, tmp_path, show_progress=False, jobs=0)
