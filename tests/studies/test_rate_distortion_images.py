"""Figures 4 to 7 of the rate-distortion paper: claims on made-up records, whitening, roundness, runs on digits."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import isthmus
from isthmus.attacks.noise_sweep import NoiseSweep
from isthmus.core.display import Figure, Gallery
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.information.channel import decibels
from isthmus.models import factory
from isthmus.studies import catalogue
from isthmus.studies.blocks import packed, unpacked
from isthmus.studies.rate_distortion.experiments import roundness
from isthmus.studies.rate_distortion.image_experiments import inside, whitening, without
from isthmus.studies.running import run_study
from isthmus.studies.verdicts import Verdict
from tests.studies.records import blocks, fraction, measured, record, row, verdicts, with_interval

PROTOTYPES, NOISE, SPHERES, TRANSFER = (f"rate-distortion/figure-{number}" for number in (4, 5, 6, 7))
CONTRADICTED, SUPPORTED, UNDECIDED = Verdict.CONTRADICTED, Verdict.SUPPORTED, Verdict.UNDECIDED


def contradicted(made):
    """Places of the claims that a record contradicts."""
    return [place for place, verdict in enumerate(verdicts(made)) if verdict == CONTRADICTED]


def test_records_without_experiments_decide_and_draw_nothing():
    for name in (PROTOTYPES, NOISE, SPHERES, TRANSFER):
        empty = record(name, [])
        assert set(verdicts(empty)) == {UNDECIDED}
        assert blocks(empty) == ()


def prototypes(likeness=None, steps=100, own=50, seeds=3, reached=50):
    """Models whose prototypes have these cosines with the mean of their class."""
    experiments = []
    for model, value in (likeness or {"A": 0.3, "B": 0.6}).items():
        for seed in range(seeds):
            near = value + 0.005 * seed
            rows = [
                fraction("reached", reached, 50),
                fraction("own_class", own - seed if reached else 0, 50),
                with_interval("image_similarity", 0.4, 0.39, 0.41, "cosine"),
                row("test_accuracy", 0.9, "fraction", 1000),
            ]
            if reached:
                rows += [
                    with_interval("steps", steps + seed * bool(steps), steps - 5, steps + 5, "steps", 50),
                    with_interval("relative_distance", 0.2, 0.18, 0.22, "", 50),
                    with_interval("similarity", near, near - 0.02, near + 0.02, "cosine", 50),
                ]
            experiments.append(measured(rows, {"model": model, "seed": seed}))
    return record(PROTOTYPES, experiments)


def test_prototypes_as_in_the_figure_support_all():
    assert verdicts(prototypes()) == [SUPPORTED] * 3


@pytest.mark.parametrize(
    ("changed", "at"),
    [({"steps": 900}, 0), ({"steps": 12}, 0), ({"own": 12}, 1), ({"likeness": {"A": 0.6, "B": 0.3}}, 2)],
)
def test_other_prototypes_contradict(changed, at):
    assert contradicted(prototypes(**changed)) == [at]


def test_one_seed_missing_models_and_prototypes_that_were_never_reached_decide_nothing():
    assert set(verdicts(prototypes(seeds=1))) == {UNDECIDED}
    assert verdicts(prototypes({"B": 0.6}))[2] == UNDECIDED
    never = verdicts(prototypes(reached=0))
    assert (never[0], never[2]) == (UNDECIDED, UNDECIDED)
    assert len(blocks(prototypes(reached=0))) == 1  # the table


def test_noise_at_full_confidence_is_not_a_number_of_steps():
    assert verdicts(prototypes(steps=0))[0] == UNDECIDED


def test_pictures_come_back_from_a_record():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(unpacked(packed(image)), image)
    for text in ("not a picture", "", packed(image)[:40]):
        with pytest.raises(ValueError, match="."):
            unpacked(text)


def network(normalize):
    recipe = load_recipe(
        {
            "name": "network",
            "data": "digits",
            "model": {"backbone": {"name": "basic_cnn", "width": 8}, "normalize": normalize},
            "objective": "deterministic",
        }
    )
    data = load("digits")
    return factory.build(recipe, data.shape, data.num_classes, data).eval(), as_float(data.test.images)[:50]


@torch.no_grad()
def test_a_model_after_its_whitening_predicts_as_the_whole():
    model, images = network({"name": "zca", "components": 40, "size": 32})
    seen = inside(model, images)
    assert seen.images.min() == 0.0
    assert seen.images.max() == 1.0
    assert torch.allclose(seen.model(seen.images), model(images), atol=1e-4)
    white = model.normalize(images)
    assert (white.max() - white.min()).item() == pytest.approx(seen.unit)


@torch.no_grad()
def test_a_model_without_its_whitening_takes_grey_images():
    model, images = network({"name": "zca", "components": 40, "size": 32})
    bare, grey = without(model, images)
    assert grey.shape == (50, 1, 32, 32)
    assert torch.allclose(grey, interpolate(images, (32, 32), mode="bilinear"))
    assert torch.equal(bare(grey), bare.decode(bare.encode(grey).mean))
    assert not torch.allclose(bare(grey), model(images), atol=1e-2)
    assert type(model.normalize).__name__ == "Whitening"  # the model itself is as it was


def test_a_model_that_does_not_whiten_is_refused():
    model = isthmus.bottleneck(torch.nn.Flatten(), num_classes=10, objective="deterministic", features=64)
    with pytest.raises(ConfigError, match="whitens"):
        without(model, torch.rand(2, 1, 8, 8))


@pytest.mark.slow
def test_prototypes_on_digits(tmp_path):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "steps": 400}
    found, html = run_study(PROTOTYPES, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    (own,), (reached,) = (found.rows().select(name, {}) for name in ("own_class", "reached"))
    assert 0 <= own.value <= reached.value <= 1
    assert own.n == reached.n == 20
    gallery, _ = blocks(found)
    assert isinstance(gallery, Gallery)
    assert [len(pictures) for _, pictures in gallery.rows] == [10, 10, 10]
    assert "from label to image" in html.read_text("utf-8")


def noisy(kept=None, last=(0.0, 0.0, 0.1), returns=0.5, seeds=3, accuracy=0.85):
    """Models B and C that keep these fractions under every noise."""
    experiments, ratios = [], (60.0, 30.0, 10.0, 1.0)
    for model, value in (kept or {"B": 0.6, "C": 0.4}).items():
        for seed in range(seeds):
            own = value + 0.002 * seed
            rows = [
                row("test_accuracy", accuracy, "fraction", 10_000),
                row("chance", 0.1, "fraction", 10_000),
                row("label_entropy", 3.32, "bits", 10_000),
            ]
            for noise, left in zip(("l2", "linf", "white"), last, strict=True):
                back = returns if noise != "white" else 0.0
                rows.append(with_interval("kept", own, own - 0.005, own + 0.005).named("kept", noise=noise))
                information = (2.4, 1.0, 0.2, 0.2 + back * (1 + 0.02 * seed))
                for snr, bits, right in zip(ratios, information, (0.8, 0.4, 0.1, left), strict=True):
                    rows.append(row("information", bits, "bits", 10_000, noise=noise, snr=snr))
                    rows.append(fraction("accuracy", round(right * 10_000), 10_000, noise=noise, snr=snr))
            experiments.append(measured(rows, {"model": model, "seed": seed}))
    return record(NOISE, experiments)


def test_noise_as_in_the_figure_supports_all():
    assert verdicts(noisy()) == [SUPPORTED] * 6


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"kept": {"B": 0.4, "C": 0.6}}, [0]),
        ({"last": (0.3, 0.0, 0.1)}, [1]),
        ({"last": (0.0, 0.3, 0.1)}, [2]),
        ({"last": (0.0, 0.0, 0.5)}, [3]),
        ({"returns": 0.01}, [4, 5]),
    ],
)
def test_other_effects_of_noise_contradict(changed, at):
    assert contradicted(noisy(**changed)) == at


def test_one_seed_missing_models_and_weak_models_decide_nothing():
    assert set(verdicts(noisy(seeds=1))) == {UNDECIDED}
    assert verdicts(noisy({"B": 0.6}))[0] == UNDECIDED
    weak = catalogue.find(NOISE).judge(noisy(accuracy=0.3))
    assert {each.verdict for each in weak} == {UNDECIDED}
    assert all("30.0%" in each.reason and "above 80.0%" in each.reason for each in weak)


def test_the_paper_perturbs_whitened_images_and_the_small_scale_has_digits():
    study = catalogue.find(NOISE)
    assert {study.preset(scale).space for scale in ("tiny", "small", "paper")} == {"whitened"}
    assert study.preset("small").data == "mnist"


def test_the_page_draws_a_panel_a_model_and_quantity():
    *figures, _ = blocks(noisy())
    assert len(figures) == 4
    assert all(len(figure.series) == 3 for figure in figures)


def test_ratios_are_of_whitened_images():
    """Noise in whitened images is as large as the check's ratios, with the whitened image as the signal."""
    data = load({"name": "digits", "train_limit": 200})
    recipe = load_recipe(catalogue.find(NOISE).preset("tiny").recipe("B", 50, "original", 0))
    model = factory.build(recipe, data.shape, 10, data)
    images = as_float(data.test.images[:30])
    white = whitening(model)(images)
    seen = inside(model, images)
    torch.testing.assert_close((seen.images - seen.origin) * seen.unit, white, atol=1e-5, rtol=1e-4)
    found = NoiseSweep("linf", [20.0, 6.0], origin=seen.origin).run(seen.model, seen.images, data.test.labels[:30])
    met = decibels(white.flatten(1).double().norm(dim=1), found.size * seen.unit)
    np.testing.assert_allclose(met[1:], torch.tensor([[20.0], [6.0]]).expand(2, 30), atol=1e-2)


@pytest.mark.parametrize("space", ["whitened", pytest.param("pixels", marks=pytest.mark.slow)])
def test_noise_on_digits(tmp_path, space):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "noises": ["l2", "white"], "space": space}
    found, html = run_study(NOISE, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    (entropy,) = rows.select("label_entropy", {})
    assert all(-1e-9 <= each.value <= entropy.value + 1e-9 for each in rows.select("information", {}))
    (clean,) = rows.select("clean_accuracy", {"noise": "l2"})
    course = sorted(rows.select("accuracy", {"noise": "l2"}), key=lambda each: each.coords["snr"])
    assert course[0].value <= clean.value
    assert "robustness to noise" in html.read_text("utf-8")


def look(epoch, power=4.0, capacity=3.0, round_=0.5):
    return {"epoch": epoch, "power": power, "capacity": capacity, "roundness": round_}


def spheres(looks, seeds=3):
    units, experiments = {"power": "", "capacity": "bits", "roundness": "ratio"}, []
    for variant, each in looks.items():
        for seed in range(seeds):
            rows = [
                row(name, one[name] * (1 + 0.01 * seed) ** (at + 1), unit, epoch=one["epoch"])
                for at, one in enumerate(each)
                for name, unit in units.items()
            ]
            points = {f"epoch {one['epoch']}": {"0": [[0.0, 1.0]], "1": [[2.0, -1.0]]} for one in each}
            coords = {"model": variant, "seed": seed}
            experiments.append(measured(rows, coords, details={"points": points} if seed == 0 else {}))
    return record(SPHERES, experiments)


def as_shown():
    return {
        "a": [look(0, 1.0), look(20, 30.0, round_=0.3), look(500, 10.0, 2.0, 0.8)],
        "b": [look(0, 1.0), look(20, 40.0), look(500, 40.0, 3.0, 0.5)],
        "c": [look(0, 1.0), look(20, 40.0), look(500, 40.0, 2.9, 0.7)],
    }


def test_spheres_as_in_the_figure_support_all():
    assert verdicts(spheres(as_shown())) == [SUPPORTED] * 5


def test_other_spheres_contradict():
    grows = as_shown() | {"a": [look(0, 1.0), look(20, 10.0, round_=0.9), look(500, 30.0, 2.0, 0.2)]}
    # what falls by exactly nothing with every seed has no interval
    assert verdicts(spheres(grows))[:2] == [UNDECIDED, CONTRADICTED]
    tight = as_shown() | {
        "b": [look(0), look(20), look(500, 40.0, 1.0, 0.9)],
        "c": [look(0), look(20), look(500, 1, 1.0, 0.1)],
    }
    assert verdicts(spheres(tight))[2:] == [CONTRADICTED] * 3


def test_one_seed_and_missing_variants_decide_nothing():
    assert set(verdicts(spheres(as_shown(), seeds=1))) == {UNDECIDED}
    assert verdicts(spheres({"a": as_shown()["a"]}))[2:] == [UNDECIDED] * 3


def test_the_page_draws_every_look():
    *figures, table = blocks(spheres(as_shown()))
    assert len(figures) == 9
    assert len(table.rows) == 9


def test_roundness_of_circles_ellipses_and_lines():
    angles = torch.arange(360) * (2 * math.pi / 360)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.zeros(360, dtype=torch.long)
    assert roundness(circle + 5, labels) == pytest.approx(1.0)
    turned = circle * torch.tensor([3.0, 1.0]) @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert roundness(turned, labels) == pytest.approx(1 / 3, rel=1e-4)
    assert roundness(circle * torch.tensor([1.0, 0.0]), labels) == pytest.approx(0.0, abs=1e-6)
    both = torch.cat([circle, turned + 100])
    assert roundness(both, torch.cat([labels, labels + 1])) == pytest.approx(2 / 3, rel=1e-3)
    assert roundness(torch.zeros(3, 2), labels[:3]) == 0.0


def test_the_recipe_is_plain_sgd_with_the_kernel_fitted_to_separate_images():
    study = catalogue.find(SPHERES)
    recipe = load_recipe(study.config().recipe("a", 0, 469))
    optimizer = recipe.training.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 1e-2, 0.0, 1e-3)
    assert (recipe.objective.estimate, recipe.objective.kernel_points) == ("kde", 1000)
    for scale in ("tiny", "small"):
        assert study.preset(scale).training["optimizer"]["name"] == "sgd"


@pytest.mark.slow
def test_spheres_on_digits(tmp_path):
    settings = {"seeds": 1, "variants": ["a", "c"], "epochs": (0, 1, 3), "training.epochs": 3}
    found, html = run_study(SPHERES, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    for variant in "ac":
        accuracy = {each.coords["epoch"]: each.value for each in rows.select("accuracy", {"model": variant})}
        assert list(accuracy) == [0, 1, 3]
        assert accuracy[3] > accuracy[0]
        (std,) = rows.select("noise_std", {"model": variant, "epoch": 0})
        assert std.value == pytest.approx(6.738e-3, rel=1e-3)
    for each in found.experiments.values():
        assert all(sum(map(len, classes.values())) == 100 for classes in each.details["points"].values())
    assert "sphere packing" in html.read_text("utf-8")


PRINTED = {
    "zero_shot_accuracy": 0.726, "zero_shot_margin": 0.726, "zero_shot_overconfidence": 0.0,
    "zero_shot_margin_error": 0.04, "one_shot_accuracy": 0.776, "one_shot_gain": 0.05, "one_shot_margin": 0.73,
    "one_shot_overconfidence": -0.046, "one_shot_margin_error": 0.05,
}  # fmt: skip


def transfer(models=("A", "B"), seeds=3, bins=None, without=(), **changed):
    """Models with the printed numbers (a margin's error is not printed), or with others."""
    experiments = []
    for model in models:
        for seed in range(seeds):
            rows = [
                with_interval(
                    name,
                    value + 0.001 * seed,
                    value - 0.005,
                    value + 0.007,
                    "points" if name.endswith(("gain", "overconfidence")) else "fraction",
                    10_000,
                )
                for name, value in (PRINTED | changed).items()
                if not name.startswith(tuple(without))
            ]
            experiments.append(measured(rows, {"model": model, "seed": seed}, details={"bins": bins or {}}))
    return record(TRANSFER, experiments, models=models)


def test_the_printed_transfer_supports_all():
    assert verdicts(transfer()) == [SUPPORTED] * 5


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"zero_shot_accuracy": 0.3}, [0]),
        ({"one_shot_gain": -0.05}, [1]),
        ({"zero_shot_overconfidence": 0.2}, [2]),
        ({"one_shot_margin_error": 0.3}, [3]),
        ({"one_shot_overconfidence": 0.1}, [4]),
    ],
)
def test_other_transfers_contradict(changed, at):
    assert contradicted(transfer(**changed)) == at


def test_one_seed_and_what_was_not_measured_decide_nothing():
    assert set(verdicts(transfer(seeds=1))) == {UNDECIDED}
    found = verdicts(transfer(without=("one_shot",)))
    assert [found[place] for place in (1, 4)] == [UNDECIDED] * 2
    assert found[0] == SUPPORTED


def test_an_accuracy_has_no_interval_below_zero():
    first = catalogue.find(TRANSFER).judge(transfer(seeds=2, zero_shot_accuracy=0.001))[0]
    assert "−" not in first.reason


def test_the_page_draws_a_histogram_a_model_and_one_figure_of_accuracies():
    found = blocks(transfer(bins={"zero_shot": [], "one_shot": []}))
    assert sum(isinstance(block, Figure) for block in found) == 6


@pytest.mark.slow
@pytest.mark.parametrize("whitened", [False, True])
def test_transfer_on_digits(tmp_path, whitened):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "draws": 1, "whitened": whitened}
    found, html = run_study(TRANSFER, "tiny", settings, tmp_path, show_progress=False)
    assert found.complete
    assert not found.failures
    rows = found.rows()
    (accuracy,), (own,) = (rows.select(name, {}) for name in ("zero_shot_accuracy", "test_accuracy"))
    if whitened:  # the data it was trained for, as it was trained
        assert accuracy.value == pytest.approx(own.value, abs=0.06)
    (experiment,) = found.experiments.values()
    assert sum(each["n"] for each in experiment.details["bins"]["zero_shot"]) == accuracy.n == 100
    assert "figure 7: transfer" in html.read_text("utf-8").lower()
