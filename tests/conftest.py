"""Fixtures and settings that all tests share."""

import os

import pytest
from hypothesis import settings

# The same cases in every run; `make fuzz` draws new ones. No test depends on how fast the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)  # pytest runs two processes on the two cores it is meant for


@pytest.fixture(scope="module")
def ray_nodes():
    """A Ray cluster of two nodes on this machine, each its own raylet with one processor, and a head that has none."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_raylet_start_wait_time_s"] = "180"  # noqa: SIM112  (Ray's name; a busy machine starts them slowly)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
