"""Figure 6 of the rate-distortion paper: roundness, what the claims say of made-up records, and the way on digits."""

import math

import pytest
import torch

from isthmus.core.recipe import load_recipe
from isthmus.studies import catalogue
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study

NAME = "rate-distortion/figure-6"


def look(epoch, power=4.0, capacity=3.0, roundness=0.5):
    return {
        "epoch": epoch, "codes": [[0.0, 1.0], [2.0, -1.0]], "power": power, "noise": 0.1, "capacity_bits": capacity,
        "noise_std": 0.1, "roundness": roundness, "accuracy": 0.9,
    }  # fmt: skip


SCATTERED = ("power", "capacity_bits", "roundness")


def record(looks, seeds=3):
    cells = {}
    for variant, each in looks.items():
        for seed in range(seeds):
            cells[f"{variant} {seed}"] = {
                "variant": variant, "seed": seed, "labels": [0, 1], "test_accuracy": 0.9,
                "looks": [
                    one | {name: one[name] * (1 + 0.01 * seed) ** (at + 1) for name in SCATTERED}
                    for at, one in enumerate(each)
                ],
            }  # fmt: skip
    config = catalogue.find(NAME).Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def as_shown():
    return {
        "a": [look(0, 1.0), look(20, 30.0, roundness=0.3), look(500, 10.0, 2.0, 0.8)],
        "b": [look(0, 1.0), look(20, 40.0), look(500, 40.0, 3.0, 0.5)],
        "c": [look(0, 1.0), look(20, 40.0), look(500, 40.0, 2.9, 0.7)],
    }


def verdicts(looks, **options):
    return [each.verdict for each in catalogue.find(NAME).findings(record(looks, **options))]


def test_as_shown_everything_is_seen():
    assert verdicts(as_shown()) == [Verdict.SUPPORTED] * 5


def test_other_courses_refute():
    grows = as_shown() | {"a": [look(0, 1.0), look(20, 10.0, roundness=0.9), look(500, 30.0, 2.0, 0.2)]}
    # what falls by exactly nothing with every seed has no interval
    assert verdicts(grows)[:2] == [Verdict.UNDECIDED, Verdict.CONTRADICTED]
    tight = as_shown() | {
        "b": [look(0), look(20), look(500, 40.0, 1.0, 0.9)],
        "c": [look(0), look(20), look(500, 1, 1.0, 0.1)],
    }
    assert verdicts(tight)[2:] == [Verdict.CONTRADICTED] * 3


def test_one_seed_and_missing_variants_decide_nothing():
    assert set(verdicts(as_shown(), seeds=1)) == {Verdict.UNDECIDED}
    assert verdicts({"a": as_shown()["a"]})[2:] == [Verdict.UNDECIDED] * 3
    assert verdicts({}) == [Verdict.UNDECIDED]


def test_the_page_draws_every_look():
    section = catalogue.find(NAME).section(record(as_shown()))
    assert len(section.blocks) == 10
    assert len(section.blocks[-1].rows) == 9
    assert catalogue.find(NAME).section(record({})).blocks == ()


def test_roundness_of_circles_ellipses_and_lines():
    from isthmus.studies.rate_distortion.spheres import roundness

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
    recipe = load_recipe(catalogue.find(NAME).Config().recipe("a", 0, 469))
    optimizer = recipe.training.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 1e-2, 0.0, 1e-3)
    assert (recipe.objective.estimate, recipe.objective.kernel_points) == ("kde", 1000)
    for scale in ("tiny", "small"):
        assert catalogue.find(NAME).SCALES[scale].training["optimizer"]["name"] == "sgd"


def test_the_whole_way_on_digits(tmp_path):
    settings = {"seeds": 1, "variants": ["a", "c"], "epochs": (0, 1, 3), "training.epochs": 3}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    for cell in measured.cells.values():
        assert [each["epoch"] for each in cell["looks"]] == [0, 1, 3]
        assert cell["looks"][0]["noise_std"] == pytest.approx(6.738e-3, rel=1e-3)
        assert all(len(each["codes"]) == 100 for each in cell["looks"])
        assert cell["looks"][-1]["accuracy"] > cell["looks"][0]["accuracy"]
    assert "sphere packing" in html.read_text("utf-8")
