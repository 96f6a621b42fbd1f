"""Attacks shared on a real Ray cluster of two nodes: what one process finds, whoever is lost on the way."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.engine import ray_workers, workers
from isthmus.attacks.engine.ray_workers import RayAgency
from isthmus.attacks.threats import Linf
from isthmus.core.errors import ModelError
from isthmus.core.ray_cluster import Cluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own
SUITE = ["fgsm", {"name": "apgd", "steps": 10}, {"name": "square", "queries": 50}]


class Classifier(torch.nn.Module):
    """A small network with weights from a seed; a deadly one ends whatever other process it gets into."""

    def __init__(self, deadly=False):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(3, 16, generator=generator))
        self.deadly, self.home = deadly, os.getpid()

    def forward(self, images):
        if self.deadly and os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tanh(images.flatten(1) @ self.weight.T)


@pytest.fixture(scope="module")
def examples():
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, Classifier()(images).argmax(1)


def same(first, second, but=()):
    """Whether what is known of every example is the same, but for some columns and what other batches round."""
    columns, others = first.state.columns(), second.state.columns()
    rounded = {"margin", "scores"}
    return all(
        torch.allclose(columns[name].nan_to_num(), others[name].nan_to_num(), rtol=0, atol=1e-6 * (name in rounded))
        for name in set(columns) - set(but)
    )


def shared(model, examples, cluster, suite=SUITE, **options):
    with RayAgency(cluster) as agency, workers.hiring(agency):
        assert agency.jobs == 2
        return robust_accuracy(model, *examples, Linf(0.05), suite, 16, seed=5, **options)


def test_two_nodes_find_what_one_process_finds(ray_nodes, examples):
    alone = robust_accuracy(Classifier(), *examples, Linf(0.05), SUITE, 16, seed=5)
    found = shared(Classifier(), examples, Cluster(ray_nodes.address))
    assert 0 < alone.accuracy < 1
    assert same(alone, found)
    assert (alone.forward_passes, alone.backward_passes) == (found.forward_passes, found.backward_passes)


def attackers():
    """Process ids of workers that have been hired."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::Attacker"):
                found.append(int(folder.name))
    return found


def test_a_model_is_sent_once(ray_nodes, examples, monkeypatch):
    sent, model = [], Classifier()
    packed = ray_workers._packed
    monkeypatch.setattr(ray_workers, "_packed", lambda what: (sent.append(type(what).__name__), packed(what))[1])
    with RayAgency(Cluster(ray_nodes.address)) as agency, workers.hiring(agency):
        for eps in (0.02, 0.05):
            robust_accuracy(model, *examples, Linf(eps), ["fgsm", "apgd"], 16, seed=5)
    assert sent.count("Kit") == 1
    assert sent.count("Order") == 2 * 2 * agency.jobs


@pytest.mark.parametrize("kill", [pytest.param("worker", marks=pytest.mark.slow), "node"])
def test_who_is_lost_takes_nothing_along(ray_nodes, examples, kill):
    suite = [{"name": "apgd", "steps": 100, "restarts": 40}]
    alone = robust_accuracy(Classifier(), *examples, Linf(0.03), suite, 16, seed=5)
    others = set(attackers())
    lost = []

    def act(snapshot):
        if not lost and snapshot.done and len(agency.staff._working) == 2:
            if kill == "node":
                ray_nodes.remove_node(max(ray_nodes.worker_nodes, key=id), allow_graceful=False)
            else:
                os.kill(min(set(attackers()) - others), signal.SIGKILL)
            lost.append(snapshot.done)

    with RayAgency(Cluster(ray_nodes.address)) as agency, workers.hiring(agency):
        both = [agency.staff.free(2, 60.0) for _ in range(2)]
        for worker in both:  # they are there, and share the attack from its beginning
            agency.staff.back(worker)
        found = robust_accuracy(Classifier(), *examples, Linf(0.03), suite, 16, seed=5, progress=act)
    if kill == "node":
        ray_nodes.add_node(num_cpus=1)
    assert lost
    # what was spent on a run that was lost half-way is spent, and counts
    assert same(alone, found, but={"forwards", "backwards", "zero_gradients"})
    assert found.forward_passes >= alone.forward_passes


@pytest.mark.slow
def test_a_model_that_ends_its_workers_is_given_up(ray_nodes, examples):
    with (
        RayAgency(Cluster(ray_nodes.address)) as agency,
        workers.hiring(agency),
        pytest.raises(ModelError, match="lost 3 times"),
    ):
        robust_accuracy(Classifier(deadly=True), *examples, Linf(0.05), SUITE, 16, seed=5)
