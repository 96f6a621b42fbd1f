"""Figure 4 of the rate-distortion paper: what the claims say of made-up records, and the whole way on digits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.core.types import Gallery
from isthmus.data.images import as_float
from isthmus.data.loading import load
from isthmus.models import factory
from isthmus.studies import catalogue
from isthmus.studies.old.drawing import packed, unpacked
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.rate_distortion.figure_4 import Config
from isthmus.studies.rate_distortion.whitened import inside, without
from isthmus.studies.running import run_study

NAME = "rate-distortion/figure-4"
AS_PRINTED = {"A": 0.3, "B": 0.6}


def record(likeness, steps=100, own=50, seeds=3):
    """Cells of models whose prototypes have these cosines with their class's mean."""
    cells = {}
    for model, value in likeness.items():
        for seed in range(seeds):
            near = value + 0.005 * seed
            cells[f"{model} {seed}"] = {
                "model": model, "seed": seed, "n": 1000, "reached": [50, 50], "own_class": [own - seed, 50],
                "steps": [steps + seed, steps - 5, steps + 5], "relative_distance": [0.2, 0.18, 0.22],
                "similarity": [near, near - 0.02, near + 0.02], "image_similarity": [0.4, 0.39, 0.41],
                "test_accuracy": 0.9, "pictures": None,
            }  # fmt: skip
    config = Config().plain()
    return StudyRecord(study=NAME, scale="small", config=config, cells=cells, total=len(cells))


def verdicts(*arguments, **options):
    return [each.verdict for each in catalogue.find(NAME).findings(record(*arguments, **options))]


def test_as_shown_everything_is_seen():
    assert verdicts(AS_PRINTED) == [Verdict.SUPPORTED] * 3


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"steps": 900}, 0),
        ({"steps": 12}, 0),
        ({"own": 12}, 1),
        ({"likeness": {"A": 0.6, "B": 0.3}}, 2),
    ],
)
def test_other_numbers_refute(changed, at):
    found = verdicts(**({"likeness": AS_PRINTED} | changed))
    assert [place for place, verdict in enumerate(found) if verdict == Verdict.CONTRADICTED] == [at]


def test_one_seed_missing_models_and_prototypes_that_never_came_decide_nothing():
    assert set(verdicts(AS_PRINTED, seeds=1)) == {Verdict.UNDECIDED}
    assert verdicts({"B": 0.6})[2] == Verdict.UNDECIDED
    assert verdicts({}) == [Verdict.UNDECIDED]
    never = record(AS_PRINTED)
    for cell in never.cells.values():
        cell.update(reached=[0, 50], own_class=[0, 0], steps=None, similarity=None, relative_distance=None)
    assert {each.verdict for each in catalogue.find(NAME).findings(never)} == {Verdict.UNDECIDED}
    assert len(catalogue.find(NAME).section(never).blocks) == 1  # the table


def test_noise_at_full_confidence_is_not_a_number_of_steps():
    still = record(AS_PRINTED)
    for cell in still.cells.values():
        cell["steps"] = [0.0, 0.0, 0.0]
    assert catalogue.find(NAME).findings(still)[0].verdict == Verdict.UNDECIDED


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
def test_a_model_after_its_whitening_answers_as_the_whole():
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


def test_the_whole_way_on_digits(tmp_path):
    settings = {"seeds": 1, "models": ["B"], "training.epochs": 15, "steps": 400}
    measured, html = run_study(NAME, "tiny", settings, tmp_path, show_progress=False)
    assert measured.complete
    assert not measured.failures
    (cell,) = measured.cells.values()
    assert 0 <= cell["own_class"][0] <= cell["own_class"][1] == cell["reached"][0] <= cell["reached"][1] == 20
    gallery, _ = catalogue.find(NAME).section(measured).blocks
    assert isinstance(gallery, Gallery)
    assert [len(pictures) for _, pictures in gallery.rows] == [10, 10, 10]
    assert "from label to image" in html.read_text("utf-8")
