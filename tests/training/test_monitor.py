"""What a run says while it trains: means over batches, and lengths of those means."""

import math

import pytest
import torch
from torch.distributions import Normal

from isthmus.core.types import Terms
from isthmus.training.monitor import TermAverages, impossible


def batch(rate_lower, i_yz_lower, gap):
    one = torch.ones(())
    return Terms(
        total=one, ce=one, accuracy=one, rate_lower=one * rate_lower, i_yz_lower=one * i_yz_lower,
        consistency_gap=one * gap,
    )  # fmt: skip


def test_lengths_are_those_of_the_means():
    """A mean of absolute values would be 1 and 0.5 here, and never come down to 0."""
    averages = TermAverages(i_xy=2.0)
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


@pytest.mark.parametrize(
    ("means", "said"),
    [
        ({"total": -1e24}, "loss is -1e+24 nats"),
        ({"total": 2e6}, "loss is 2e+06 nats"),
        ({"total": 1.0, "residual": -1.3}, "residual information is -1.3 nats"),
        ({"total": 1.0, "rate": -1e27}, "rate is -1e+27"),
        ({"total": 1.0, "rate_lower": -3600.0, "rate_upper": -2660.0}, "upper bound on I(X;Z) is -2.66e+03"),
        ({"total": 1.0, "rate_lower": 3.0, "rate_upper": 2.0}, "lower bound on I(X;Z), 3 nats, is above"),
    ],
)
def test_terms_that_cannot_be_are_told(means, said):
    assert said in impossible(means, examples=6400)


def test_terms_within_their_noise_are_not():
    assert impossible({"total": 9e5, "residual": -0.05, "rate_lower": 2.0, "rate_upper": 1.5}, examples=6400) == ""
    assert impossible({"total": -3.0, "residual": -10.0}, examples=3) == ""  # three codes may all lie where b is broad
    assert impossible({"total": 3e6}, examples=6400, unit=1e-3) == ""  # in the rate form of the loss
    assert impossible({}, examples=1) == ""


def test_samples_of_a_divergence_stay_above_the_limit():
    """e sharper, broader or beside b: the mean of log e − log b over 64 codes of 20,000 windows."""
    generator = torch.Generator().manual_seed(0)
    for scale, shift in [(0.9, 0.0), (1.1, 0.0), (3.0, 0.0), (1.0, 0.3)]:
        noise = torch.randn(20_000, 64, generator=generator, dtype=torch.float64)
        e, b = Normal(shift, scale), Normal(0.0, 1.0)
        z = shift + scale * noise
        means = (e.log_prob(z) - b.log_prob(z)).mean(1)
        assert all(impossible({"residual": value}, examples=64) == "" for value in means.tolist())


def test_what_was_not_measured_has_no_length():
    averages = TermAverages(i_xy=2.0)
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
