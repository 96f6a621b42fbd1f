"""Training on real MNIST, Fashion-MNIST and CIFAR-10, where a mirror of the hub is at hand."""

import os
from pathlib import Path

import pytest

import isthmus

MIRROR = os.environ.get("ISTHMUS_DATA") or str(Path(__file__).parents[3] / "shared" / "data")
RECIPES = Path(__file__).parents[2] / "examples" / "recipes"

pytestmark = pytest.mark.skipif(not Path(MIRROR).is_dir(), reason="no mirror of the hub: set ISTHMUS_DATA")


@pytest.fixture(autouse=True)
def _mirror(monkeypatch):
    monkeypatch.setenv("ISTHMUS_DATA", MIRROR)


@pytest.mark.parametrize(
    ("data", "augment", "limit", "epochs", "least"),
    [
        ("mnist", "none", 1500, 2, 0.6),
        pytest.param("mnist", "none", 3000, 3, 0.85, marks=pytest.mark.slow),
        pytest.param("fashion_mnist", "none", 3000, 3, 0.65, marks=pytest.mark.slow),
        pytest.param("cifar10", "crop_flip", 3000, 3, 0.25, marks=pytest.mark.slow),
    ],
)
def test_a_small_net_learns(data, augment, limit, epochs, least, tmp_path):
    recipe = {
        "name": data,
        "data": {"name": data, "train_limit": limit, "test_limit": limit // 3},
        "model": {"backbone": "conv", "dim": 16, "normalize": "dataset"},
        "objective": {"name": "ceb", "rho": 3},
        "training": {"epochs": epochs, "batch_size": 64, "augment": augment, "channels_last": True},
    }
    run = isthmus.train(recipe, out=tmp_path, progress=False)
    assert run.info()["result"]["test_accuracy"] > least


@pytest.mark.slow
def test_vib_on_mnist_reaches_the_papers_first_epochs(tmp_path):
    """Anchor of the fact sheet: 92 to 94% after one epoch; five are near 98%."""
    run = isthmus.train(RECIPES / "mnist-vib.yaml", {"training.epochs": 5}, out=tmp_path, progress=False)
    accuracies = [line["test_accuracy"] for line in run.metrics() if "test_accuracy" in line]
    assert accuracies[0] > 0.91
    assert accuracies[-1] > 0.965


@pytest.mark.slow
def test_ceb_on_fashion_keeps_more_information_at_larger_rho(tmp_path):
    found = {}
    for rho in (0, 5):
        overrides = {
            "objective.rho": rho,
            "training.epochs": 1,
            "data": {"name": "fashion_mnist", "train_limit": 20_000},
        }
        run = isthmus.train(RECIPES / "fashion-ceb.yaml", overrides, out=tmp_path / str(rho), progress=False)
        found[rho] = run.info()["result"]["rate_lower_max"]
    assert found[0] < 2.303 < found[5]
