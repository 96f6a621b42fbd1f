"""What a run says while it trains: means over batches, and lengths of those means."""

import math

import pytest
import torch

from isthmus.training.monitor import Averages
from isthmus.types import Terms


def batch(rate_lower, i_yz_lower, gap):
    one = torch.ones(())
    return Terms(
        total=one, ce=one, accuracy=one, rate_lower=one * rate_lower, i_yz_lower=one * i_yz_lower,
        consistency_gap=one * gap,
    )  # fmt: skip


def test_lengths_are_those_of_the_means():
    """A mean of absolute values would be 1 and 0.5 here, and never come down to 0."""
    averages = Averages(i_xy=2.0)
    averages.add(batch(3.0, 2.0, 0.5), examples=10)
    averages.add(batch(1.0, 2.0, -0.5), examples=10)
    found = averages.take("window")
    assert found["mni_distance"] == pytest.approx(0.0)
    assert found["consistency"] == pytest.approx(0.0)
    averages.add(batch(5.0, -2.0, -0.5), examples=30)
    found = averages.take("window")
    assert found["mni_distance"] == pytest.approx(5.0)
    assert found["consistency"] == pytest.approx(0.5) == -found["consistency_gap"]
    whole = averages.take("epoch")  # 50 examples, a fifth of them in each of the first two batches
    assert whole["mni_distance"] == pytest.approx(math.hypot(0.2 * 4 + 0.6 * 5 - 2.0, 0.4 * 2 - 0.6 * 2 - 2.0))
    assert float(averages.rate_lower_max) == 5.0


def test_what_was_not_measured_has_no_length():
    averages = Averages(i_xy=2.0)
    one = torch.ones(())
    averages.add(Terms(total=one, ce=one, accuracy=one, i_yz_lower=one), examples=4)
    assert not {"mni_distance", "consistency"} & set(averages.take("epoch"))


def test_a_run_writes_them(tmp_path):
    import isthmus

    recipe = {
        "name": "small",
        "data": {"name": "digits", "train_limit": 128, "test_limit": 50},
        "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 3, "backward": "table"},
        "objective": "catgen",
        "training": {"epochs": 1, "batch_size": 64, "log_every": 1},
    }
    lines = isthmus.train(recipe, out=tmp_path / "run", progress=False).metrics()
    entropy = math.log(10)
    step, epoch = lines[0], lines[-1]
    assert step["mni_distance"] == pytest.approx(
        math.hypot(step["rate_lower"] - entropy, step["i_yz_lower"] - entropy), abs=0.02
    )
    assert step["consistency"] == pytest.approx(0.0, abs=1e-4)  # CatGen's classifier follows from b(z|y)
    assert {"epoch_mni_distance", "epoch_consistency"} <= set(epoch)
