"""A study on a real Ray cluster of two nodes: the same record as alone, also where workers and nodes are lost."""

import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from isthmus.core.ray_cluster import Cluster
from isthmus.studies.running import run_study
from isthmus.training.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own
NAME = "rate-distortion/table-1"
SETTINGS = {"seeds": 1, "training.epochs": 4, "weight_decay": 0.01}
LONGER = {
    "seeds": 1,
    "training.epochs": 60,
    "weight_decay": 0.01,
}  # so that something is under way when somebody is killed


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process measures."""
    record, _ = run_study(NAME, "tiny", LONGER, tmp_path_factory.mktemp("alone"), show_progress=False)
    return measured(record)


def starts(folder):
    """How often each model in the folder was begun; more than once where somebody went on with it."""
    return [len(Run(run).info()["starts"]) for run in folder.glob("models/*")]


def measured(record):
    return {name: found.plain() for name, found in record.experiments.items()}


def trainers(folder, pattern="*"):
    """Process ids of those who train a model in the folder."""
    locks = [
        lock for lock in folder.glob(f"models/{pattern}/.lock") if not (lock.parent / "weights.safetensors").exists()
    ]
    return [pid for lock in locks for pid in holders(lock)]


def holders(file):
    """Process ids of those who have a file open."""
    found = []
    for handle in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if handle.readlink() == file:
                found.append(int(handle.parts[2]))
    return found


@contextmanager
def once_trained(folder, epochs, act):
    """Do something as soon as a model in the folder has been trained for so many epochs; tells whether it was done."""
    done, over = [], threading.Event()

    def watch():
        while not done and not over.is_set():
            for run in folder.glob("models/*"):
                lines = [line for line in Run(run).metrics() if "epoch_accuracy" in line]
                if len(lines) >= epochs and not (run / "weights.safetensors").exists():
                    act()
                    done.append(len(lines))
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_two_nodes_give_the_record_of_one_process(tmp_path, ray_nodes):
    alone, _ = run_study(NAME, "tiny", SETTINGS, tmp_path / "alone", show_progress=False)
    shared, page = run_study(
        NAME, "tiny", SETTINGS, tmp_path / "shared", show_progress=False, cluster=Cluster(ray_nodes.address)
    )
    assert measured(shared) == measured(alone)
    assert shared.complete
    assert page.exists()
    assert not list((tmp_path / "shared").glob(".shared-*"))


@pytest.mark.slow
def test_a_lost_node_loses_nothing(tmp_path, ray_nodes, alone):
    def remove():
        (trainer, *_) = trainers(tmp_path)
        raylet = int(Path(f"/proc/{trainer}/stat").read_text().rpartition(")")[2].split()[1])
        nodes = {node.all_processes["raylet"][0].process.pid: node for node in ray_nodes.worker_nodes}
        ray_nodes.remove_node(nodes[raylet], allow_graceful=False)

    with once_trained(tmp_path, 5, remove) as done:
        record, _ = run_study(NAME, "tiny", LONGER, tmp_path, show_progress=False, cluster=Cluster(ray_nodes.address))
    ray_nodes.add_node(num_cpus=1)
    assert done
    assert not record.failures
    assert measured(record) == alone
    assert max(starts(tmp_path)) > 1
