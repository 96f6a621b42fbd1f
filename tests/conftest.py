"""Fixtures and settings that all tests share."""

import os
import re
import sys
import warnings

import pytest
from hypothesis import settings

# The same cases in every run; `make fuzz` draws new ones. No test depends on how fast the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("fresh", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


END_TO_END = re.compile(
    r"subprocess|multiprocessing|ProcessPool|lasting_pool|ray_nodes|browser|\(site\b|real_mirror|ISTHMUS_DATA"
    r"|benchmarks|cli\.commands|compile\(|\btrain\(|audit\(|run_study|diagnosed?\(|minimal_norms\(|curve\("
)
"""What a test file contains that starts processes or a browser, reads real data, or trains, audits or runs studies."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of a file that matches END_TO_END; ``make test-fast`` leaves them out."""
    marked = {path: bool(END_TO_END.search(path.read_text("utf-8"))) for path in {item.path for item in items}}
    for item in items:
        if marked[item.path]:
            item.add_marker("end_to_end")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)  # pytest runs two processes on the two cores it is meant for


@pytest.fixture(scope="session")
def lasting_pool():
    """Two worker processes that outlive a ``with`` statement, since starting them takes seconds."""
    from isthmus.core.process_pool import ProcessPool

    class LastingPool(ProcessPool):
        def __exit__(self, *error):
            pass

    pool = LastingPool(2)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def ray_nodes():
    """A Ray cluster of two nodes on this machine, each its own raylet with one processor, and a head that has none.

    Its workers can import what tests import. A test that removes a node adds another.
    """
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        patch.setenv("RAY_raylet_start_wait_time_s", "180")  # a busy machine starts them slowly
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        yield nodes
        ray.shutdown()
        nodes.shutdown()
