"""Executors: every shard gets its result, whatever happens to workers, and nothing is left over."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isthmus.core import execution
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.execution import KEPT, LOSSES, InProcess, TaskCache, current, using
from isthmus.core.process_pool import ProcessPool
from tests.core.sent_tasks import Deaf, Fail, Foreigner, Killed, Sleep, Square

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def values(executor, task, shards, report=lambda shard, value: None):
    """The results in the order of the shards."""
    outcomes = [outcome for outcome in executor.map(task, shards, report) if outcome is not None]
    assert not [outcome.lost for outcome in outcomes if outcome.lost]
    return [outcome.value for outcome in sorted(outcomes, key=lambda outcome: outcome.shard)]


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def pool():
    with ProcessPool(2) as pool:
        yield pool


def test_results_and_reports_are_those_of_one_process(pool):
    found = {}
    for name, executor in (("here", InProcess()), ("pool", pool)):
        reports = {}
        results = values(executor, Square(), range(7), lambda shard, value, into=reports: into.update({shard: value}))
        found[name] = [square for square, _ in results], reports
    assert found["pool"] == found["here"] == ([n * n for n in range(7)], {n: n for n in range(7)})


def test_an_executor_is_in_use_where_it_was_said(pool):
    assert current() is None
    with using(pool):
        assert current() is pool
    assert current() is None


def test_workers_live_on_and_get_a_task_once(pool):
    task, Square.sent = Square(), 0
    pids = {pid for _ in range(3) for _, pid in values(pool, task, range(4))}
    assert 1 <= Square.sent == len(pids) <= 2


def test_a_task_that_was_dropped_is_sent_again(pool):
    tasks = [Square() for _ in range(KEPT + 2)]
    for task in [*tasks, tasks[0]]:
        assert [square for square, _ in values(pool, task, [3])] == [9]


def test_no_more_workers_than_shards():
    with ProcessPool(8) as pool:
        assert values(pool, Fail(), [0]) == [0]
        assert len(pool._all()) == 1


def test_no_shards_start_no_workers():
    with ProcessPool(2) as pool:
        assert list(pool.map(Fail(), [])) == []
        assert not pool._all()


@pytest.mark.parametrize("where", ["here", "pool"])
def test_an_error_is_of_the_same_class_with_the_same_words(pool, where):
    executor = pool if where == "pool" else InProcess()
    with pytest.raises(DataError, match="^7 is no image$"):
        values(executor, Fail(), [0, DataError("7 is no image")])
    assert values(executor, Fail(), [1, 2]) == [1, 2]


def test_an_unexpected_error_brings_the_workers_traceback(pool):
    with pytest.raises(KeyError) as caught:
        values(pool, Fail(), [KeyError("a name")])
    assert "sent_tasks.py" in "".join(caught.value.__notes__)


def test_an_error_that_cannot_be_sent_arrives_as_text(pool):
    with pytest.raises(RuntimeError, match="Foreign in a worker process: far away"):
        values(pool, Foreigner(), [0])


def test_what_cannot_be_pickled_is_explained(pool):
    def local(shard, report):
        return shard

    local.called = "model"
    with pytest.raises(ConfigError, match=r"model cannot be sent .*local.*; use jobs=1"):
        values(pool, local, [0])
    with pytest.raises(ConfigError, match="task cannot be sent"):
        values(pool, Fail(), [lambda: 0])
    assert values(InProcess(), local, [5]) == [5]


class Hidden:
    """In a module that a worker cannot import, as a class that was typed into a notebook is."""

    __module__ = "a_notebook"
    called = "model"

    def __call__(self, shard, report):
        return shard


def test_what_cannot_be_unpickled_is_explained(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "a_notebook", sys.modules[__name__])
    with pytest.raises(ConfigError, match=r"cannot unpickle the model \(ModuleNotFoundError"):
        values(pool, Hidden(), [0])


def test_a_killed_workers_shard_runs_again(pool, tmp_path):
    assert values(pool, Killed(tmp_path), [-1, 2, -3, 4]) == [-1, 2, -3, 4]
    assert values(pool, Killed(tmp_path), [5, 6]) == [5, 6]  # a worker lost at the end is replaced when it is needed
    assert len(pool._all()) == 2


def test_a_shard_that_kills_its_workers_is_given_up_alone(pool, monkeypatch):
    monkeypatch.setattr(execution, "LOSSES", 2)
    found = {outcome.shard: outcome for outcome in pool.map(Killed(), [1, -2, 3]) if outcome is not None}
    assert [found[shard].value for shard in (0, 2)] == [1, 3]
    assert "signal 9 (SIGKILL), perhaps for lack of memory, 2 times" in found[1].lost
    assert LOSSES == 3


def test_a_worker_lost_while_idle_costs_nothing(pool):
    (before,) = {pid for _, pid in values(pool, Square(), [1])}
    for worker in pool._all():
        os.kill(worker.process.pid, signal.SIGKILL)
    assert [square for square, _ in values(pool, Square(), [5, 6])] == [25, 36]
    assert not alive(before)


def begin(executor, task, shards, begun):
    """Work until all shards have begun; the iterator of what comes next."""
    seen = set()
    outcomes = executor.map(task, shards, lambda shard, value: seen.add(shard))
    for outcome in outcomes:
        assert outcome is None
        if len(seen) == begun:
            return outcomes
    raise AssertionError("it ended")


def test_interrupted_shards_return_what_they_have(pool, tmp_path):
    begin(pool, Sleep(tmp_path), range(3), begun=2)
    assert {outcome.value for outcome in pool.stop(60.0)} == {"a part"}
    assert len(list(tmp_path.glob("saved-*"))) == 2
    assert values(pool, Fail(), [1, 2, 3]) == [1, 2, 3]


def test_one_that_cannot_be_interrupted_is_ended():
    with ProcessPool(1) as pool:
        begin(pool, Deaf(), [0], begun=1)
        (worker,) = pool._all()
        pid = worker.process.pid
        assert pool.stop(0.5) == []
        assert not alive(pid)
        assert values(pool, Fail(), [1]) == [1]


def test_what_was_broken_off_is_not_taken_for_a_later_result(pool, tmp_path):
    begin(pool, Sleep(tmp_path), [7], begun=1)
    assert values(pool, Fail(), ["new"]) == ["new"]


def test_a_worker_keeps_the_last_tasks_only():
    cache, packed = TaskCache(), execution.pack(Fail(), pickle.dumps)
    shard = execution.pack(5, pickle.dumps)
    for number in range(KEPT + 3):
        assert pickle.loads(cache.run(number, lambda: packed, shard, print)) == (execution.Kind.RESULT, 5)
    assert len(cache._tasks) == KEPT


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from tests.core.sent_tasks import Sleep
from isthmus.core.process_pool import ProcessPool

if __name__ == "__main__":
    with ProcessPool(2) as pool:
        try:
            for outcome in pool.map(Sleep("."), range(4)):
                pass
        except KeyboardInterrupt:
            print("stopped", [outcome.value for outcome in pool.stop(60.0)], flush=True)
            raise
"""


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_caller_that_ends_leaves_no_process_behind_and_its_shards_save_their_work(tmp_path, how):
    (tmp_path / "script.py").write_text(SCRIPT.format(folder=str(Path(__file__).parents[2])))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    )
    wait_until(lambda: len([file for file in tmp_path.glob("begun-*") if file.read_text()]) == 2)
    pids = [int(file.read_text()) for file in tmp_path.glob("begun-*")]
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()  # as a terminal does: to the whole group
    said, errors = process.communicate()
    if how == signal.SIGINT:
        assert said == "stopped ['a part', 'a part']\n"
        assert errors.splitlines()[-1] == "KeyboardInterrupt"
        assert "isthmus-worker" not in errors
    wait_until(lambda: not any(map(alive, pids)))
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_script_without_a_guard_is_explained(tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parents[2]))
    (tmp_path / "bare.py").write_text(script.replace('"__main__"', "__name__"))
    done = subprocess.run([sys.executable, "bare.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]


def test_no_process_is_started_from_a_daemon(monkeypatch):
    monkeypatch.setattr("multiprocessing.process._current_process._config", {"daemon": True})
    with ProcessPool(1) as pool, pytest.raises(ConfigError, match="Cannot start worker processes"):
        values(pool, Fail(), [1])
