"""Figures 2 and 3 of the rate-distortion paper: what the claims say of made-up records, and the whole way on digits."""

import math
from pathlib import Path

import pytest

from isthmus.core.recipe import load_recipe
from isthmus.studies import catalogue
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion import plane_claims, snr_claims
from isthmus.studies.running import run_study

SNR, PLANE = "rate-distortion/figure-2", "rate-distortion/figure-3"
EPOCHS = tuple(range(10, 1010, 10))


def as_record(name, cells):
    config = catalogue.find(name).Config().plain()
    return StudyRecord(study=name, scale="small", config=config, cells=cells, total=len(cells))


def decay(start, end, rate, drift=0.0):
    """A ratio that falls from 10^start to 10^end and drifts by some decades besides."""
    return [10 ** (end + (start - end) * math.exp(-rate * epoch) + drift * epoch / EPOCHS[-1]) for epoch in EPOCHS]


def snr_record(plain_rate=0.01, normed_rate=0.1, plain_ends=(-2.0, -1.5, -1.0), normed_ends=(-1.2, -1.2, -1.1)):
    cells = {}
    for activation in ("relu", "tanh"):
        for normed in (False, True):
            for seed in range(3):
                spans = zip((1.0, 0.9, 0.0), normed_ends if normed else plain_ends, strict=True)
                rate = (normed_rate if normed else plain_rate) * (1 + 0.02 * ((seed + normed) % 3))
                layers = {
                    f"{number}": {"snr": decay(start, end, rate, 0.002 * seed * number)}
                    for number, (start, end) in enumerate(spans, 1)
                }
                facts = {"activation": activation, "batch_norm": normed, "seed": seed, "test_accuracy": 0.98}
                cells[f"{activation} {normed} {seed}"] = {**facts, "epochs": list(EPOCHS), "layers": layers}
    return as_record(SNR, cells)


def test_as_the_figure_shows_everything_is_seen():
    assert {each.verdict for each in snr_claims.findings(snr_record())} == {Verdict.SUPPORTED}


def test_ratios_that_still_fall_have_not_settled():
    found = snr_claims.findings(snr_record(plain_rate=0.001))
    assert [each.verdict for each in found[:4]] == [Verdict.CONTRADICTED] * 2 + [Verdict.SUPPORTED] * 2


def test_batch_normalisation_that_does_the_opposite_refutes():
    found = snr_claims.findings(snr_record(normed_rate=0.005, normed_ends=(-3.0, -1.5, -1.0)))
    assert {each.verdict for each in found[4:8]} == {Verdict.CONTRADICTED}


def test_a_last_layer_that_falls_most_refutes():
    found = snr_claims.findings(snr_record(plain_ends=(0.9, 0.8, -3.0)))
    assert {each.verdict for each in found[8:]} == {Verdict.CONTRADICTED}


def plane_record(peak=5.0, end=4.0, random_peak=6.0, random_end=5.95, seeds=3):
    cells = {}
    for labels, top, last in (("original", peak, end), ("random", random_peak, random_end)):
        for seed in range(seeds):
            half = len(EPOCHS) // 2
            course = (
                [top * at / half for at in range(half)]
                + [top]
                + [last + (0.02 if labels == "random" else 0.01) * seed] * (len(EPOCHS) - half - 1)
            )
            told = [min(1.0, 0.5 + at / len(EPOCHS)) - 0.01 * seed * (at == 0) for at in range(len(EPOCHS))]
            layers = {f"{number}": {"i_xt": course, "i_ty": told} for number in (1, 2, 3)}
            cells[f"{labels} {seed}"] = {
                "labels": labels, "seed": seed, "epochs": list(EPOCHS), "samples": 2000, "label_entropy_bits": 1.0,
                "layers": layers, "pixel_entropy_bits": 3000.0, "train_accuracy": 1.0, "test_accuracy": 0.99,
            }  # fmt: skip
    return as_record(PLANE, cells)


def test_as_the_plane_shows_everything_is_seen():
    assert {each.verdict for each in plane_claims.findings(plane_record())} == {Verdict.SUPPORTED}


def test_no_compression_and_no_memorisation_refute():
    found = plane_claims.findings(plane_record(end=4.95, random_peak=6.0, random_end=4.0))
    refuted = [Verdict.CONTRADICTED] * 2
    assert [each.verdict for each in found] == [*refuted, Verdict.SUPPORTED, *refuted]


def test_memorisation_is_measured_from_what_the_label_needs():
    """I(X;T) is as on the original labels, but says less of its own: the distance tells the two apart."""
    record = plane_record(random_peak=6.0, random_end=4.0)
    for cell in record.each(labels="random"):
        for way in cell["layers"].values():
            way["i_ty"] = [0.1] * len(EPOCHS)
            way["i_xt"] = [value - 0.01 * (1 + cell["seed"]) for value in way["i_xt"]]
    cell = next(record.each(labels="random"))
    assert plane_claims.memorised(cell) == pytest.approx([3.89] * 2, abs=0.01)
    verdicts = [each.verdict for each in plane_claims.findings(record)]
    assert verdicts[3:] == [Verdict.CONTRADICTED, Verdict.SUPPORTED]


@pytest.mark.parametrize(("name", "made"), [(SNR, snr_record), (PLANE, plane_record)])
def test_pages_draw_what_there_is_and_nothing_of_nothing(name, made):
    module, record = catalogue.find(name), made()
    assert len(module.section(record).blocks) == 5
    empty = record.model_copy(update={"cells": {}})
    assert module.section(empty).blocks == ()
    assert [each.verdict for each in module.findings(empty)] == [Verdict.UNDECIDED]


RESULTS = Path(__file__).parents[2] / "results" / "rate-distortion"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda path: path.parent.name)
def test_every_published_record_is_read_by_the_current_claims(path):
    """Records that were made before an option existed are drawn, and their verdicts are those of the current rules."""
    record = StudyRecord.load(path)
    module = catalogue.find(record.study)
    assert module.section(record).blocks
    assert tuple(module.findings(record)) == record.findings


def test_the_literal_noise_reaches_the_observer():
    module = catalogue.find(SNR)
    for divided in (True, False):
        (cells,) = module.cells(module.Config(seeds=1, normalize_noise=divided), None)
        for cell in cells:
            (observer,) = load_recipe(cell.plain["recipe"]).training.callbacks
            assert observer.normalize_noise is divided


def test_the_ratios_on_digits(tmp_path):
    measured, html = run_study(SNR, "tiny", {"seeds": 1, "training.epochs": 4}, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    for cell in measured.cells.values():
        assert cell["epochs"] == [1, 2, 3, 4]
        assert list(cell["layers"]) == ["1", "2", "3", "4"]
        assert all(value > 0 for layer in cell["layers"].values() for value in layer["snr"])
    assert "signal-to-noise" in html.read_text("utf-8")


def test_the_plane_on_digits(tmp_path):
    measured, html = run_study(PLANE, "tiny", {"seeds": 1, "training.epochs": 4}, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    for cell in measured.cells.values():
        assert len(cell["layers"]) == 4
        bound = math.log2(cell["samples"]) + 1e-9
        for way in cell["layers"].values():
            assert all(
                0 <= told <= held + 1e-9 <= bound + 1e-9 for held, told in zip(way["i_xt"], way["i_ty"], strict=True)
            )
    assert "information plane" in html.read_text("utf-8")
