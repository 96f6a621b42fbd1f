"""Compression in the information plane: what noise alone shows is not seen, and what falls is."""

import numpy as np
import pytest

from isthmus.studies.old.evidence import Verdict, average, exceeds
from isthmus.studies.rate_distortion.compression import fall, largest_falls, net_falls
from isthmus.studies.rate_distortion.plane_claims import COMPRESSED

LOOKS, LAYERS, SEEDS = 60, 5, 4
TIME = np.linspace(0.0, 1.0, LOOKS)
TRENDS = {
    "flat": 0.0 * TIME,
    "rises": TIME,
    "saturates": 3.0 * (1.0 - np.exp(-6.0 * TIME)),
}
DROP = 2.0 * np.minimum(TIME / 0.2, 1.0) - np.clip((TIME - 0.3) / 0.7, 0.0, 1.0)


def autocorrelated(rng, phi, deviation):
    """AR(1) noise with this deviation, seeds × layers × looks."""
    fresh = rng.normal(size=(SEEDS, LAYERS, LOOKS)) * deviation
    noise = np.empty_like(fresh)
    noise[..., 0] = fresh[..., 0]
    for look in range(1, LOOKS):
        noise[..., look] = phi * noise[..., look - 1] + np.sqrt(1 - phi**2) * fresh[..., look]
    return noise


def share_seen(trend, phi, of=net_falls, limit=0.0, rounds=300):
    """How often compression is seen, above this limit, in courses of this trend with noise of 0.3 bits."""
    rng, seen = np.random.default_rng(0), 0
    for _ in range(rounds):
        courses = trend + rng.normal(size=(SEEDS, LAYERS, 1)) + autocorrelated(rng, phi, 0.3)
        seen += exceeds(average(of(list(courses)), unit="bits"), limit) == Verdict.SUPPORTED
    return seen / rounds


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("trend", TRENDS)
def test_where_nothing_falls_it_is_seen_in_at_most_a_twentieth_of_the_records(trend, phi):
    assert share_seen(TRENDS[trend], phi) <= 0.05


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
def test_a_fall_of_one_bit_is_seen(phi):
    assert share_seen(DROP, phi, limit=COMPRESSED) > 0.9


def test_without_the_baseline_noise_would_be_seen_as_compression():
    assert share_seen(TRENDS["flat"], 0.9, largest_falls, COMPRESSED) > 0.5


def test_courses_without_noise_fall_by_what_they_fall():
    course = np.concatenate([np.linspace(0.0, 5.0, 50), np.full(50, 3.0)])
    seeds = [np.stack([course, 0.5 * course])] * 3
    assert fall(course) == pytest.approx(np.linspace(0.0, 5.0, 50)[-10:].mean() - 3.0)
    for found in (net_falls(seeds), largest_falls(seeds)):
        assert found == pytest.approx([float(fall(course))] * 3)


def test_one_seed_has_nothing_to_tell_noise_from():
    with pytest.raises(ValueError, match="two are needed"):
        net_falls([np.zeros((2, 10))])
