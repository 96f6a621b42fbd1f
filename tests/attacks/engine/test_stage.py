"""Attacks in shards: workers find what one process finds, and whatever ends them, nothing is lost or left over."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import isthmus
from isthmus.attacks import Linf, curve, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.engine.stage import Underway
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.result import RobustResult
from isthmus.attacks.suites import stages_of
from isthmus.core import execution
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.execution import InProcess, Outcome
from isthmus.core.process_pool import ProcessPool
from tests.attacks.attacked_models import Noisy, Smooth, proposing, subject
from tests.attacks.sent_models import Cut

PATHS = [Path(__file__).parents[3], Path(isthmus.__file__).parents[1]]
SUITE = ["fgsm", {"name": "pgd", "restarts": 3, "steps": 12}]


SPENT = {"forwards", "backwards", "blind"}
"""Columns that depend on which runs of an example go side by side, and so on the size of a shard."""


def same(a: RobustResult, b: RobustResult) -> bool:
    """Whether two results say the same of every example; passes agree where no run is cut short by another."""
    ours, theirs = a.state.columns(), b.state.columns()
    return (a.attacks, a.complete) == (b.attacks, b.complete) and all(
        torch.equal(ours[name].nan_to_num(-7), theirs[name].nan_to_num(-7)) for name in ours.keys() - SPENT
    )


def passes(result: RobustResult) -> tuple[int, ...]:
    return result.forward_passes, result.backward_passes, *result.spent


@pytest.mark.parametrize(
    "kind", ["random", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("targeted", "untargeted"))]
)
def test_two_workers_find_what_one_process_finds(kind, lasting_pool, monkeypatch):
    monkeypatch.setattr("isthmus.attacks.api.ProcessPool", lambda jobs: lasting_pool)
    model, images, labels = subject(49)
    targets = (labels + 1) % 3 if kind == "targeted" else None
    attacked = Noisy(model, 0.05) if kind == "random" else model
    alone, shared = (
        robust_accuracy(
            attacked, images, labels, Linf(0.03), SUITE, 16, seed=5, jobs=jobs, options=RunOptions(targets=targets)
        )
        for jobs in (1, 2)
    )
    assert 0 < alone.accuracy < alone.clean_accuracy or kind == "targeted"
    assert same(alone, shared)
    unbooked = [result.forward_passes - int(result.state.forwards.sum()) for result in (alone, shared)]
    assert unbooked[0] == unbooked[1]


def test_one_pool_runs_all_attacks_and_a_whole_curve(lasting_pool, monkeypatch):
    pools = []
    monkeypatch.setattr("isthmus.attacks.api.ProcessPool", lambda jobs: (pools.append(jobs), lasting_pool)[1])
    model, images, labels = subject(24)
    grid = [Linf(0.01), Linf(0.03)]
    shared = curve(model, images, labels, grid, SUITE, options=RunOptions(jobs=2))
    assert all(same(*pair) for pair in zip(curve(model, images, labels, grid, SUITE), shared, strict=True))
    assert pools == [2]


@pytest.mark.slow
def test_a_curve_starts_its_workers_once_and_ends_them(monkeypatch):
    pools, started = [], []
    monkeypatch.setattr("isthmus.attacks.api.ProcessPool", lambda jobs: (pools.append(ProcessPool(jobs)), pools[-1])[1])
    start = ProcessPool._start
    monkeypatch.setattr(ProcessPool, "_start", lambda self: (started.append(self), start(self))[1])
    model, images, labels = subject(24)
    grid = [Linf(0.01), Linf(0.03)]
    curve(model, images, labels, grid, SUITE, options=RunOptions(jobs=2))
    assert started == [pools[0]] * 2
    assert not pools[0]._all(), "they are gone"


class Counting(InProcess):
    """Shards in this process; keeps their sizes."""

    workers = 3

    def __init__(self):
        self.sizes = []

    def map(self, task, shards, report=lambda shard, value: None):
        self.sizes += [len(shard.state) for shard in shards]
        yield from super().map(task, shards, report)


@pytest.mark.parametrize(("batch_size", "count"), [(4, 6), (16, 2), (256, 1)])
def test_any_executor_gets_a_few_even_shards_for_each_worker(batch_size, count):
    model, images, labels = subject(30)
    with execution.using(executor := Counting()):
        found = robust_accuracy(model, images, labels, Linf(0.03), ["pgd"], batch_size)
    alone = robust_accuracy(model, images, labels, Linf(0.03), ["pgd"], batch_size)
    assert same(found, alone)
    assert passes(found) == passes(alone)
    assert len(executor.sizes) == count * executor.workers
    assert sum(executor.sizes) == alone.correct.sum()
    assert max(executor.sizes) - min(executor.sizes) <= 1


class Lossy(Counting):
    """One shard's worker is lost half-way, and the shard runs again."""

    def map(self, task, shards, report=lambda shard, value: None):
        for number in range(len(shards)):
            report(number, Underway(forwards=50, backwards=40))
            report(number, Underway())
        yield from super().map(task, shards, report)


def test_passes_of_a_lost_worker_are_counted():
    model, images, labels = subject(6)
    alone = robust_accuracy(model, images, labels, Linf(0.03), ["pgd"], 256)
    with execution.using(Lossy()):
        found = robust_accuracy(model, images, labels, Linf(0.03), ["pgd"], 256)
    assert same(found, alone)
    assert found.forward_passes == alone.forward_passes + 3 * 50
    assert found.backward_passes == alone.backward_passes + 3 * 40


def test_progress_and_the_limit_of_queries_see_what_workers_have_not_handed_in():
    class Slow(Counting):
        def map(self, task, shards, report=lambda shard, value: None):
            for number in range(len(shards)):
                report(number, Underway(runs=1, decided=1, forwards=100 * number, backwards=0))
                yield None
            yield from super().map(task, shards, report)

    seen = []
    model, images, labels = subject(30)
    with execution.using(Slow()):
        found = robust_accuracy(
            model, images, labels, Linf(0.001), ["pgd"], 32, options=RunOptions(progress=seen.append)
        )
        limited = robust_accuracy(model, images, labels, Linf(0.001), ["pgd"], 32, options=RunOptions(max_queries=600))
    first, *_, last = seen
    assert (last.done, last.total) == (30, 30)
    assert seen[1].done == pytest.approx(2 * 30 / int(found.correct.sum()))
    assert seen[1].robust == first.robust - 1
    assert seen[2].passes == seen[1].passes + 200
    assert limited.exhausted
    assert not limited.complete


class Unpicklable(Smooth):
    def __init__(self) -> None:
        super().__init__()
        self.shift = lambda x: x

    def forward(self, images):
        return super().forward(self.shift(images))


class Hidden(Smooth):
    """In a module that a worker cannot import, as a class that was typed into a notebook is."""

    __module__ = "a_notebook"


sys.modules["a_notebook"] = sys.modules[__name__]


def test_what_cannot_be_sent_is_said_with_the_way_out(lasting_pool, monkeypatch):
    monkeypatch.setattr("isthmus.attacks.api.ProcessPool", lambda jobs: lasting_pool)
    model, images, labels = subject(12)
    with pytest.raises(ConfigError, match=r"model cannot be sent .*cannot be pickled \(.*lambda.*\); use jobs=1"):
        robust_accuracy(Unpicklable(), images, labels, Linf(0.1), ["fgsm"], jobs=2)
    with pytest.raises(ConfigError, match=r"cannot unpickle the model \(ModuleNotFoundError.*use jobs=1"):
        robust_accuracy(Hidden(), images, labels, Linf(0.1), ["fgsm"], jobs=2)
    local = proposing(lambda batch, threat: batch.images)
    with pytest.raises(ConfigError, match=r"attack 'test' cannot be sent"):
        robust_accuracy(model, images, labels, Linf(0.1), [local], jobs=2)


class Pickling(Counting):
    """Sends tasks and shards as pickles do."""

    def map(self, task, shards, report=lambda shard, value: None):
        yield from super().map(pickle.loads(pickle.dumps(task)), pickle.loads(pickle.dumps(list(shards))), report)


def test_a_choice_of_examples_may_be_a_closure():
    model, images, labels = subject(24)
    chosen = torch.arange(24) < 12
    (attack,) = stages_of("fgsm")
    some = replace(attack, among=lambda state, keys: chosen)
    with execution.using(Pickling()):
        result = robust_accuracy(model, images, labels, Linf(0.1), [some])
    assert not (result.broken & ~chosen & result.correct).any()
    assert (result.broken & chosen & result.correct).any()


class Failing(Smooth):
    """Fails where a gradient is wanted."""

    def forward(self, images):
        if images.requires_grad:
            raise ValueError("no more")
        return super().forward(images)


class Losing(Counting):
    """The last shard loses its workers."""

    def map(self, task, shards, report=lambda shard, value: None):
        yield from super().map(task, shards[:-1], report)
        yield Outcome(len(shards) - 1, lost="a worker was killed, 3 times")


@pytest.mark.parametrize(
    ("model", "executor", "words"),
    [(Failing(), Pickling(), "The model fails on .*: no more"), (Smooth(), Losing(), "a worker was killed, 3 times")],
)
def test_where_an_attack_cannot_go_on_what_was_found_is_kept(tmp_path, model, executor, words):
    _, images, labels = subject(24)
    path = tmp_path / "kept.safetensors"
    with execution.using(executor), pytest.raises(ModelError, match=words):
        robust_accuracy(model, images, labels, Linf(0.1), ["uniform", "pgd"], options=RunOptions(save_to=path))
    state, _ = EvaluationState.load(path)
    assert state.ranked.shape == (24, 2)
    assert (state.broken & (state.stage > 0)).any()


SCRIPT = """
import os, time
from tests.attacks.attacked_models import Smooth, subject
from isthmus.attacks import Linf, RunOptions, robust_accuracy


class Hanging(Smooth):
    def __init__(self):
        super().__init__()
        self.calls, self.home = 0, os.getpid()

    def forward(self, images):
        self.calls += os.getpid() != self.home
        if self.calls > 5:
            time.sleep(600)
        return super().forward(images)


if __name__ == "__main__":
    _, images, labels = subject(24)
    tell = lambda at: print("at", at.done, flush=True)
    options = RunOptions(save_to="kept.safetensors", progress=tell)
    try:
        robust_accuracy(Hanging(), images, labels, Linf(0.02), ["pgd:20"], 12, jobs=2, options=options)
    except KeyboardInterrupt as error:
        error.result.save("partial.safetensors")
        print(type(error).__name__, flush=True)
"""


def script(folder: Path, *arguments: str) -> subprocess.Popen:
    (folder / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )


def nobody_left(session: int) -> bool:
    """True once every process of a session is gone."""
    while any(_session_of(path) == session for path in Path("/proc").glob("[0-9]*/stat")):
        time.sleep(0.1)
    return True


def _session_of(path: Path) -> int:
    try:
        state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return -1
    return -1 if state == "Z" else int(session)


def _until(process: subprocess.Popen, seen: int) -> None:
    for _ in range(seen):
        assert process.stdout.readline().startswith("at"), process.stderr.read()


def test_ctrl_c_reaches_the_parent_alone_and_gives_a_valid_result(tmp_path):
    process = script(tmp_path)
    _until(process, 3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, errors = process.communicate()
    assert said.splitlines()[-1].startswith("Interrupted")
    assert errors == ""
    result = RobustResult.load(tmp_path / "partial.safetensors")
    assert not result.complete
    assert (tmp_path / "kept.safetensors").exists()
    assert nobody_left(process.pid)


def test_a_missing_gradient_in_a_worker_is_the_error_that_one_process_gives():
    _, images, labels = subject(12)
    said = []
    with pytest.raises(ModelError) as caught:
        robust_accuracy(Cut(), images, labels, Linf(0.1), ["fgsm"])
    said.append(str(caught.value))
    with execution.using(Pickling()), pytest.raises(ModelError) as caught:
        robust_accuracy(Cut(), images, labels, Linf(0.1), ["fgsm"])
    said.append(str(caught.value))
    assert said[0] == said[1]
