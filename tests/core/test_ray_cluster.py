"""Workers on a Ray cluster of two nodes: size and version are checked, and shards survive the loss of their workers."""

import os
import signal
from contextlib import suppress

import pytest

from isthmus.core.errors import ConfigError, DataError
from isthmus.core.ray_cluster import Cluster, RayExecutor, check_installed, installed
from tests.core.sent_tasks import Fail, Killed, Sleep, SleepOnce, Square
from tests.core.test_execution import begin, values

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own


@pytest.fixture(scope="module")
def executor(ray_nodes):
    with RayExecutor(Cluster(ray_nodes.address)) as executor:
        yield executor


@pytest.mark.parametrize("size", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}])
def test_a_cluster_without_workers_or_processors_is_refused(size):
    with pytest.raises(ConfigError, match="at least one"):
        Cluster(**size)


def test_a_worker_with_another_version_or_commit_is_refused():
    version, commit = installed()
    check_installed((version, commit))
    with pytest.raises(ConfigError, match="install the same"):
        check_installed((version, "another"))


def test_workers_that_fit_nowhere_are_refused(ray_nodes):
    with pytest.raises(ConfigError, match="fits into the cluster"):
        RayExecutor(Cluster(ray_nodes.address, cpus=64))


def test_an_address_without_a_cluster_is_explained(ray_nodes, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="no Ray cluster at 192.0.2.1:1"):
        Cluster("192.0.2.1:1").connect()


def test_two_nodes_give_the_results_of_one_process(executor):
    task, Square.sent = Square(), 0
    results = [*values(executor, task, range(5)), *values(executor, task, range(5))]
    assert executor.workers == 2
    assert [square for square, _ in results] == [n * n for n in range(5)] * 2
    assert os.getpid() not in {pid for _, pid in results}
    assert Square.sent == 1


def test_errors_and_classes_of_a_script_cross_the_cluster(executor):
    class Local:
        def __call__(self, shard, report):
            return shard + 1

    assert values(executor, Local(), [1, 2]) == [2, 3]
    with pytest.raises(DataError, match="^7 is no image$"):
        values(executor, Fail(), [DataError("7 is no image")])


def test_a_killed_workers_shard_runs_again_and_one_that_kills_all_its_workers_is_given_up(executor, tmp_path):
    assert values(executor, Killed(tmp_path), [-1, 2, 3]) == [-1, 2, 3]
    found = {outcome.shard: outcome for outcome in executor.map(Killed(), [-1, 2]) if outcome is not None}
    assert found[1].value == 2
    assert found[0].lost.endswith("3 times")


def test_workers_lost_while_idle_cost_nothing(executor):
    for _, pid in values(executor, Square(), range(4)):
        with suppress(ProcessLookupError):  # one worker may have had several shards
            os.kill(pid, signal.SIGKILL)
    assert [square for square, _ in values(executor, Square(), range(4))] == [0, 1, 4, 9]


def test_interrupted_shards_return_what_they_have(executor, tmp_path):
    begin(executor, Sleep(tmp_path), range(2), begun=2)
    assert [outcome.value for outcome in executor.stop(60.0)] == ["a part", "a part"]
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_lost_nodes_shards_run_on_the_other_one(executor, ray_nodes, tmp_path):
    """Both workers are at a shard when one node is removed; the other one runs all that is open."""
    outcomes = begin(executor, SleepOnce(tmp_path), [1, 2, 3], begun=2)
    ray_nodes.remove_node(max(ray_nodes.worker_nodes, key=id), allow_graceful=False)
    while len(executor._busy) == 2:
        assert next(outcomes) is None
    (tmp_path / "go").touch()
    found = {outcome.shard: outcome.value for outcome in outcomes if outcome is not None}
    ray_nodes.add_node(num_cpus=1)
    assert found == {0: 1, 1: 2, 2: 3}
    assert len((tmp_path / "starts").read_text()) == 4
