"""Attacks on a real Ray cluster of two nodes find what one process finds."""

import pytest
import torch

from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.threats import Linf
from isthmus.core import execution
from isthmus.core.ray_cluster import Cluster, RayExecutor

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning"),  # Ray's own
    pytest.mark.slow,  # tests/audits attacks on a cluster as well
]
SUITE = ["fgsm", {"name": "apgd", "steps": 10}, {"name": "square", "queries": 50}]
ROUNDED = {"margin", "scores"}
SPENT = {"forwards", "backwards", "blind"}


class Classifier(torch.nn.Module):
    """A small network with weights from a seed."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(3, 16, generator=generator))

    def forward(self, images):
        return torch.tanh(images.flatten(1) @ self.weight.T)


def test_two_nodes_find_what_one_process_finds(ray_nodes):
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = Classifier()(images).argmax(1)
    alone = robust_accuracy(Classifier(), images, labels, Linf(0.05), SUITE, 16, seed=5)
    with RayExecutor(Cluster(ray_nodes.address)) as executor, execution.using(executor):
        found = robust_accuracy(Classifier(), images, labels, Linf(0.05), SUITE, 16, seed=5)
    assert executor.workers == 2
    assert 0 < alone.accuracy < 1
    assert found.complete
    assert found.verified
    ours, theirs = alone.state.columns(), found.state.columns()
    for name in ours.keys() - SPENT:
        rounding = 1e-6 if name in ROUNDED else 0.0
        assert torch.allclose(ours[name].nan_to_num(), theirs[name].nan_to_num(), rtol=0, atol=rounding), name
