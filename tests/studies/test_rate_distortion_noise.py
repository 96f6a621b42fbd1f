"""Figure 5 of the rate-distortion paper: what the claims say of made-up records, and the whole way on digits."""

import numpy as np
import pytest
import torch

from isthmus.attacks.noise_sweep import descend
from isthmus.core.recipe import load_recipe
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.information.channel import decibels
from isthmus.models import factory
from isthmus.studies import catalogue
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.figure_5 import Config
from isthmus.studies.rate_distortion.protocol import TINY_FIGURE
from isthmus.studies.rate_distortion.whitened import inside, whitening
from isthmus.studies.running import run_study

NAME = "rate-distortion/figure-5"
SNR = [60.0, 30.0, 10.0, 1.0]


def record(kept, last=(0.0, 0.0, 0.1), returns=0.5, seeds=3, accuracy=0.85):
    """Cells of B and C that keep these shares under every noise."""
    cells = {}
    for model, value in kept.items():
        for seed in range(seeds):
            own = value + 0.002 * seed
            noises = {}
            for noise, left in zip(("l2", "linf", "white"), last, strict=True):
                back = returns if noise != "white" else 0.0
                noises[noise] = {
                    "information_bits": [2.5, 2.4, 1.0, 0.2, 0.2 + back * (1 + 0.02 * seed)],
                    "accuracy": [0.85, 0.8, 0.4, 0.1, left],
                    "kept": [own, own - 0.005, own + 0.005],
                }
            cells[f"{model} {seed}"] = {
                "model": model, "seed": seed, "n": 10_000, "snr": SNR, "label_entropy_bits": 3.32, "noises": noises,
                "test_accuracy": accuracy, "space": "whitened",
            }  # fmt: skip
    config = catalogue.find(NAME).Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def verdicts(*arguments, **options):
    return [each.verdict for each in catalogue.find(NAME).findings(record(*arguments, **options))]


def test_as_shown_everything_is_seen():
    assert verdicts({"B": 0.6, "C": 0.4}) == [Verdict.SUPPORTED] * 6


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
def test_other_numbers_refute(changed, at):
    found = verdicts(**({"kept": {"B": 0.6, "C": 0.4}} | changed))
    assert [place for place, verdict in enumerate(found) if verdict == Verdict.CONTRADICTED] == at


def test_one_seed_and_missing_models_decide_nothing():
    assert set(verdicts({"B": 0.6, "C": 0.4}, seeds=1)) == {Verdict.UNDECIDED}
    assert verdicts({"B": 0.6})[0] == Verdict.UNDECIDED
    assert verdicts({}) == [Verdict.UNDECIDED]


def test_models_that_are_too_weak_decide_nothing():
    found = catalogue.find(NAME).findings(record({"B": 0.6, "C": 0.4}, accuracy=0.3))
    assert {each.verdict for each in found} == {Verdict.UNDECIDED}
    assert all("B on 30.0%" in each.reason and "at least 80.0%" in each.reason for each in found)


def test_the_paper_perturbs_whitened_images_and_the_small_scale_has_digits():
    module = catalogue.find(NAME)
    assert {config.space for config in module.SCALES.values()} == {"whitened"}
    assert module.SCALES["small"].data == "mnist"


def test_the_page_draws_a_panel_a_model_and_quantity():
    section = catalogue.find(NAME).section(record({"B": 0.6, "C": 0.4}))
    assert len(section.blocks) == 5
    assert all(len(block.series) == 3 for block in section.blocks[:-1])
    assert catalogue.find(NAME).section(record({})).blocks == ()


def test_ratios_are_of_whitened_images():
    """Noise in whitened images is as large as the check's ratios say, with the whitened image for the signal."""
    data = load({"name": "digits", "train_limit": 200})
    recipe = load_recipe(Config(**TINY_FIGURE).recipe("B", 50, "original", 0))
    model = factory.build(recipe, data.shape, 10, data)
    images = as_float(data.test.images[:30])
    white = whitening(model)(images)
    seen = inside(model, images)
    torch.testing.assert_close((seen.images - seen.origin) * seen.unit, white, atol=1e-5, rtol=1e-4)
    found = descend(seen.model, seen.images, data.test.labels[:30], "linf", [20.0, 6.0], origin=seen.origin)
    met = decibels(white.flatten(1).double().norm(dim=1), found.size * seen.unit)
    np.testing.assert_allclose(met[1:], torch.tensor([[20.0], [6.0]]).expand(2, 30), atol=1e-2)


@pytest.mark.parametrize("space", ["whitened", "pixels"])
def test_the_whole_way_on_digits(tmp_path, space):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "noises": ["l2", "white"], "space": space}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    (cell,) = measured.cells.values()
    for found in cell["noises"].values():
        assert len(found["accuracy"]) == 1 + len(cell["snr"])
        assert all(-1e-9 <= value <= cell["label_entropy_bits"] + 1e-9 for value in found["information_bits"])
    assert cell["noises"]["l2"]["accuracy"][-1] <= cell["noises"]["l2"]["accuracy"][0]
    assert cell["space"] == space
    assert "fault tolerance" in html.read_text("utf-8")
