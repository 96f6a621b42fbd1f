"""The real data sets, read from a mirror of the hub: what is published about them must hold here."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.data import hub
from isthmus.data.loading import load

FACTS = {
    # train counts per class (balanced: the one number), shape, mean and std of the train split
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        (1, 28, 28),
        (0.1307,),
        (0.3081,),
    ),
    "fashion_mnist": ([6000] * 10, [1000] * 10, (1, 28, 28), (0.2860,), (0.3530,)),
    "cifar10": ([5000] * 10, [1000] * 10, (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


@pytest.mark.parametrize(
    "name",
    ["mnist", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fashion_mnist", "cifar10"))],
)
def test_a_real_data_set_has_its_published_counts_and_moments_and_is_decoded_once(
    name: str, real_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_DATA", str(real_mirror))
    train, test, shape, mean, std = FACTS[name]
    data = load(name)
    assert data.shape == shape
    assert data.train.labels.bincount().tolist() == train
    assert data.test.labels.bincount().tolist() == test
    # A mirror's CIFAR-10 may have gone through JPEG, which smooths a little.
    tolerance = 0.003 if name == "cifar10" else 0.00006
    assert data.mean == pytest.approx(mean, abs=tolerance)
    assert data.std == pytest.approx(std, abs=tolerance)

    monkeypatch.delattr(hub, "_decoded")  # what was decoded once comes from the cache
    again = load(name)
    assert again.fingerprint == data.fingerprint
