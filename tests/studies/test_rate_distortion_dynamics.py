"""Figures 2 and 3 of the rate-distortion paper: claims on made-up records, statistics of courses, runs on digits."""

import math

import numpy as np
import pytest

from isthmus.core.recipe import load_recipe
from isthmus.studies import catalogue
from isthmus.studies.quantities import estimate, select
from isthmus.studies.rate_distortion.dynamics import COMPRESSED, fall, largest_falls, net_falls
from isthmus.studies.rows import Rows
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict, exceeds
from tests.studies.records import blocks, measured, record, row, verdicts

SNR, PLANE = "rate-distortion/figure-2", "rate-distortion/figure-3"
EPOCHS = tuple(range(10, 1010, 10))


def decay(start, end, rate, drift=0.0):
    """A ratio that falls from 10^start to 10^end and drifts by some decades besides."""
    return [10 ** (end + (start - end) * math.exp(-rate * epoch) + drift * epoch / EPOCHS[-1]) for epoch in EPOCHS]


def courses(name, unit, layers):
    """Rows of a metric from layer -> values over the epochs."""
    return [
        row(name, value, unit, layer=layer, epoch=epoch)
        for layer, values in layers.items()
        for epoch, value in zip(EPOCHS, values, strict=True)
    ]


def snr_record(plain_rate=0.01, normed_rate=0.1, plain_ends=(-2.0, -1.5, -1.0), normed_ends=(-1.2, -1.2, -1.1)):
    experiments = []
    for activation in ("ReLU", "tanh"):
        for normed in (False, True):
            for seed in range(3):
                spans = zip((1.0, 0.9, 0.0), normed_ends if normed else plain_ends, strict=True)
                rate = (normed_rate if normed else plain_rate) * (1 + 0.02 * ((seed + normed) % 3))
                layers = {
                    number: decay(start, end, rate, 0.002 * seed * number)
                    for number, (start, end) in enumerate(spans, 1)
                }
                rows = [*courses("gradient_snr", "", layers), row("test_accuracy", 0.98, "fraction", 1000)]
                experiments.append(measured(rows, {"model": f"{activation}{', batch norm' * normed}", "seed": seed}))
    return record(SNR, experiments)


def test_ratios_as_in_the_figure_support_all():
    assert set(verdicts(snr_record())) == {Verdict.SUPPORTED}


def test_ratios_that_still_fall_have_not_settled():
    found = verdicts(snr_record(plain_rate=0.001))
    assert found[:4] == [Verdict.CONTRADICTED] * 2 + [Verdict.SUPPORTED] * 2


def test_batch_normalisation_that_does_the_opposite_contradicts():
    found = verdicts(snr_record(normed_rate=0.005, normed_ends=(-3.0, -1.5, -1.0)))
    assert set(found[4:8]) == {Verdict.CONTRADICTED}


def test_a_last_layer_that_falls_most_contradicts():
    assert set(verdicts(snr_record(plain_ends=(0.9, 0.8, -3.0)))[8:]) == {Verdict.CONTRADICTED}


def plane_record(peak=5.0, end=4.0, random_peak=6.0, random_end=5.95, random_i_ty=None):
    experiments = []
    for labels, top, last in (("original", peak, end), ("random", random_peak, random_end)):
        for seed in range(3):
            half = len(EPOCHS) // 2
            slow = (0.02 if labels == "random" else 0.01) * seed
            i_xt = [top * at / half for at in range(half)] + [top] + [last + slow] * (len(EPOCHS) - half - 1)
            i_ty = [min(1.0, 0.5 + at / len(EPOCHS)) - 0.01 * seed * (at == 0) for at in range(len(EPOCHS))]
            if random_i_ty is not None and labels == "random":
                i_ty = [random_i_ty] * len(EPOCHS)
            layers = (1, 2, 3, 4)
            rows = [
                *courses("i_xt", "bits", dict.fromkeys(layers, i_xt)),
                *courses("i_ty", "bits", dict.fromkeys(layers, i_ty)),
                row("label_entropy", 1.0, "bits"),
                row("test_accuracy", 0.99, "fraction", 1000),
            ]
            experiments.append(measured(rows, {"labels": labels, "seed": seed}))
    return record(PLANE, experiments, hidden=(8, 8, 8))


def test_a_plane_as_in_the_figure_supports_all():
    assert set(verdicts(plane_record())) == {Verdict.SUPPORTED}


def test_no_compression_and_no_memorisation_contradict():
    found = verdicts(plane_record(end=4.95, random_peak=6.0, random_end=4.0, random_i_ty=None))
    refuted = [Verdict.CONTRADICTED] * 2
    assert found[:3] == [*refuted, Verdict.SUPPORTED]
    assert found[3] == Verdict.CONTRADICTED


def test_memorisation_is_measured_from_what_the_label_needs():
    """I(X;T) is smaller than on the original labels, but has less information on its own: the distance shows it."""
    found = verdicts(plane_record(random_peak=6.0, random_end=3.9, random_i_ty=0.1))
    assert found[3:] == [Verdict.CONTRADICTED, Verdict.SUPPORTED]


@pytest.mark.parametrize(("name", "made", "count"), [(SNR, snr_record, 5), (PLANE, plane_record, 6)])
def test_pages_draw_what_there_is_and_nothing_of_nothing(name, made, count):
    assert len(blocks(made())) == count
    empty = record(name, [])
    assert blocks(empty) == ()
    assert set(verdicts(empty)) == {Verdict.UNDECIDED}


def test_the_literal_noise_reaches_the_callback():
    study = catalogue.find(SNR)
    for divided in (True, False):
        (experiments,) = study.experiments(study.config(seeds=1, normalize_noise=divided), None)
        for each in experiments:
            (callback,) = load_recipe(each.plain["recipe"]).training.callbacks
            assert callback.normalize_noise is divided


@pytest.mark.slow
def test_the_ratios_on_digits(tmp_path):
    found, html = run_study(SNR, "tiny", {"seeds": 1, "training.epochs": 4}, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows().select("gradient_snr", {})
    assert {each.coords["epoch"] for each in rows} == {1, 2, 3, 4}
    assert {each.coords["layer"] for each in rows} == {1, 2, 3, 4}
    assert all(each.value > 0 for each in rows)
    assert "signal-to-noise" in html.read_text("utf-8")


def test_the_plane_on_digits(tmp_path):
    found, html = run_study(PLANE, "tiny", {"seeds": 1, "training.epochs": 4}, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    for i_xt in rows.select("i_xt", {}):
        (i_ty,) = rows.select("i_ty", i_xt.coords)
        assert 0 <= i_ty.value <= i_xt.value + 1e-9 <= math.log2(i_xt.n) + 2e-9
    assert "information plane" in html.read_text("utf-8")


LOOKS, LAYERS, SEEDS = 60, 5, 4
TIME = np.linspace(0.0, 1.0, LOOKS)
TRENDS = {"flat": 0.0 * TIME, "rises": TIME, "saturates": 3.0 * (1.0 - np.exp(-6.0 * TIME))}
DROP = 2.0 * np.minimum(TIME / 0.2, 1.0) - np.clip((TIME - 0.3) / 0.7, 0.0, 1.0)


def autocorrelated(rng, phi, deviation):
    """AR(1) noise with this deviation, seeds × layers × looks."""
    fresh = rng.normal(size=(SEEDS, LAYERS, LOOKS)) * deviation
    noise = np.empty_like(fresh)
    noise[..., 0] = fresh[..., 0]
    for look in range(1, LOOKS):
        noise[..., look] = phi * noise[..., look - 1] + np.sqrt(1 - phi**2) * fresh[..., look]
    return noise


def fraction_supported(trend, phi, of=net_falls, limit=0.0, rounds=300):
    """How often compression above this limit is supported by courses of this trend with noise of 0.3 bits."""
    rng, count = np.random.default_rng(0), 0
    for _ in range(rounds):
        made = trend + rng.normal(size=(SEEDS, LAYERS, 1)) + autocorrelated(rng, phi, 0.3)
        rows = Rows(row("fall", value, "bits", seed=seed) for seed, value in enumerate(of(made)))
        count += exceeds(estimate(select("fall"), rows), limit) == Verdict.SUPPORTED
    return count / rounds


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("trend", TRENDS)
def test_if_nothing_falls_compression_is_supported_by_at_most_a_twentieth_of_the_records(trend, phi):
    assert fraction_supported(TRENDS[trend], phi) <= 0.05


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.99])
def test_a_fall_of_one_bit_is_supported(phi):
    assert fraction_supported(DROP, phi, limit=COMPRESSED) > 0.9


def test_without_the_baseline_noise_would_count_as_compression():
    assert fraction_supported(TRENDS["flat"], 0.9, largest_falls, COMPRESSED) > 0.5


def test_courses_without_noise_fall_by_what_they_fall():
    course = np.concatenate([np.linspace(0.0, 5.0, 50), np.full(50, 3.0)])
    seeds = np.stack([np.stack([course, 0.5 * course])] * 3)
    assert fall(course) == pytest.approx(np.linspace(0.0, 5.0, 50)[-10:].mean() - 3.0)
    for found in (net_falls(seeds), largest_falls(seeds)):
        assert found == pytest.approx([float(fall(course))] * 3)


def test_one_seed_shows_no_noise():
    assert np.isnan(net_falls(np.zeros((1, 2, 10)))).all()
