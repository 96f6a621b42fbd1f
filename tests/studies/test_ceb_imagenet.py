"""The ImageNet studies of CEB: claims on made-up and on the printed numbers, recipes, and the whole way on textures."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import RhoSchedule
from isthmus.data.loading import load
from isthmus.metrics import CORRUPTIONS, wilson
from isthmus.models.backbones import ResNet
from isthmus.studies import catalogue, page
from isthmus.studies.ceb import imagenet_measuring, imagenet_places, textures
from isthmus.studies.ceb.imagenet import Ball
from isthmus.studies.ceb.imagenet_measuring import Examined
from isthmus.studies.ceb.imagenet_results import ROWS, chosen, error, printed, printed_value
from isthmus.studies.old.evidence import Verdict
from isthmus.studies.old.study import StudyRecord
from isthmus.studies.running import run_study
from isthmus.studies.store import ResultStore
from isthmus.training.run import load as load_model
from isthmus.training.schedules import learning_rate_factor

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
STUDIES = {50: "ceb/imagenet-50", 152: "ceb/imagenet-152"}
VARIANTS = ("plain", "autoaugment", "wide")
EXAMPLE = Path(__file__).parents[2] / "examples" / "recipes" / "imagenet-ceb.yaml"
OF_SHARES = {"clean": 50_000, "imagenet_a": 7_500, "pgd_l2": 50_000, "pgd_linf": 50_000}


def number(row, value):
    """An error as a cell holds it; intervals under corruptions are about as wide as 50,000 images make them."""
    if row in OF_SHARES:
        interval = wilson(round(value * OF_SHARES[row]), OF_SHARES[row])
        return {"value": value, "low": interval.low, "high": interval.high, "n": OF_SHARES[row]}
    return {"value": value, "low": value - 0.003, "high": value + 0.003, "n": 50_000}


def record_of(depth, models, seeds=3, **config):
    """A record of cells: (variant, ρ) -> errors by row, alike for all seeds."""
    cells = {}
    for (variant, rho), errors in models.items():
        facts = {"variant": variant, "objective": "determ" if rho is None else "ceb", "knob": rho}
        found = {row: {"why": "nobody looked"} if errors[row] is None else number(row, errors[row]) for row in ROWS}
        for seed in range(seeds):
            cell = {**facts, "seed": seed, "collapsed": False, "errors": found, "missing": {}}
            cells[f"{variant} {rho} {seed}"] = cell
    whole = {**catalogue.find(STUDIES[depth]).SCALES["paper"].plain(), "seeds": seeds, **config}
    return StudyRecord(study=STUDIES[depth], scale="paper", config=whole, cells=cells, total=len(cells))


def verdicts(record):
    found = tuple(catalogue.find(record.study).findings(record))
    assert "<svg" in page.render(record.model_copy(update={"findings": found}))
    return [finding.verdict for finding in found]


def printed_models(depth):
    models = {}
    for variant in VARIANTS:
        for bottleneck in (True, False):
            column = printed(depth, variant, bottleneck)
            models[variant, column.rho] = {row: printed_value(column, row) for row in ROWS}
    return models


# --- claims ---


@pytest.mark.parametrize(("depth", "more"), [(50, 1), (152, 4)])
def test_the_printed_tables_bear_out_the_paper_s_claims(depth, more):
    record = record_of(depth, printed_models(depth))
    # the tables have one ρ of each, from which no trend follows
    assert verdicts(record) == [SUPPORTED] * 7 + [UNDECIDED] + [SUPPORTED] * more
    stars = {50: (6.0, 5.0, 2.0), 152: (3.0, 3.0, 3.0)}[depth]
    assert tuple(chosen(record, variant) for variant in VARIANTS) == stars


@pytest.mark.parametrize(("depth", "last"), [(50, SUPPORTED), (152, CONTRADICTED)])
def test_with_bottleneck_and_baseline_exchanged_they_are_refuted(depth, last):
    models = printed_models(depth)
    rhos = {variant: rho for variant, rho in models if rho is not None}
    exchanged = {}
    for variant, rho in rhos.items():
        ours, plain = models[variant, rho], models[variant, None]
        exchanged |= {(variant, rho): plain, (variant, None): ours}
    found = verdicts(record_of(depth, exchanged))
    # clean errors of ResNet-50 with AutoAugment are 0.2 points apart, but the other two pairs are not
    assert found[:6] == [CONTRADICTED] * 6
    assert found[8] is last  # that none stands is as true as before; that CEB does is not


def test_whether_robustness_falls_follows_from_the_slope():
    models = {}
    for variant in VARIANTS:
        base = printed_models(152)[variant, None]
        models[variant, None] = base
        for step in range(1, 11):
            models[variant, float(step)] = {**base, "pgd_linf": 0.80 + 0.01 * step, "pgd_l2": 0.82 + 0.01 * step}
    assert verdicts(record_of(152, models))[7] is SUPPORTED
    for step in range(1, 11):  # one way of training alone goes the other way
        models["wide", float(step)] = {**models["wide", 1.0], "pgd_linf": 0.95 - 0.01 * step}
    assert verdicts(record_of(152, models))[7] is CONTRADICTED


def test_a_gain_in_one_way_of_training_that_chance_explains_is_carried_by_the_others_but_a_loss_is_not():
    models = printed_models(50)
    assert models["autoaugment", None]["clean"] - models["autoaugment", 5.0]["clean"] == pytest.approx(0.002)
    models["autoaugment", 5.0] = {**models["autoaugment", 5.0], "clean": 0.226}  # within chance of 22.5%, but behind it
    assert verdicts(record_of(50, models))[0] is UNDECIDED
    models["autoaugment", 5.0] = {**models["autoaugment", 5.0], "clean": 0.24}
    assert verdicts(record_of(50, models))[0] is CONTRADICTED


def test_more_than_a_percent_left_by_pgd_of_one_resnet_50_refutes_that_none_stands():
    models = printed_models(50)
    models["wide", 7.0] = {**models["wide", 2.0], "clean": 0.25, "pgd_l2": 0.97}
    assert verdicts(record_of(50, models))[-1] is CONTRADICTED


def test_what_is_not_measured_decides_nothing_and_is_shown_so():
    models = {
        key: {**errors, "mce": None, "fog": None, "imagenet_a": None} for key, errors in printed_models(152).items()
    }
    record = record_of(152, models)
    found = catalogue.find(record.study).findings(record)
    open_ones = [finding for finding in found if "nobody looked" in finding.reason]
    assert [finding.verdict for finding in open_ones] == [
        UNDECIDED
    ] * 4  # mCE, ImageNet-A, AutoAugment and width, width
    assert found[0].verdict is SUPPORTED
    text = page.render(record)
    assert "Not measured: nobody looked." in text
    assert text.count("not measured") > 6 * 3


def test_without_a_model_that_left_chance_there_is_one_finding():
    record = record_of(50, printed_models(50))
    cells = {name: {**cell, "collapsed": cell["objective"] == "ceb"} for name, cell in record.cells.items()}
    assert verdicts(record.model_copy(update={"cells": cells})) == [UNDECIDED, UNDECIDED]


def test_some_of_the_ways_of_training_are_enough_for_what_needs_no_other():
    models = {key: errors for key, errors in printed_models(152).items() if key[0] == "autoaugment"}
    found = verdicts(record_of(152, models))
    assert found[6:] == [UNDECIDED, UNDECIDED, SUPPORTED, UNDECIDED, UNDECIDED, UNDECIDED]


def test_the_chosen_rho_is_the_lowest_within_a_tenth_of_a_percent_of_the_best():
    base = printed_models(152)["plain", None]
    accuracies = {2.0: 0.7985, 3.0: 0.8, 5.0: 0.801, 6.0: 0.8005, 7.0: 0.8009, 9.0: 0.79}
    models = {("plain", rho): {**base, "clean": 1 - accuracy} for rho, accuracy in accuracies.items()}
    assert chosen(record_of(152, {**models, ("plain", None): base}), "plain") == 3.0
    assert chosen(record_of(152, {**models, ("plain", None): base}, tie=0.0), "plain") == 5.0
    assert chosen(record_of(152, models), "wide") is None


def test_several_seeds_widen_the_interval_by_their_spread():
    record = record_of(50, printed_models(50))
    cell = record.cells["plain None 0"]
    others = [{**cell, "errors": {**cell["errors"], "clean": number("clean", value)}} for value in (0.25, 0.26)]
    one, three = error([cell], "clean"), error([cell, *others], "clean")
    assert one.value == 0.24
    assert three.value == pytest.approx(0.25)
    assert (one.seeds, three.seeds) == (1, 3)
    assert three.high - three.low > 5 * (one.high - one.low)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_or_two_of_each_decide_nothing_but_what_is_said_of_these_models(seeds):
    found = catalogue.find(STUDIES[50]).findings(record_of(50, printed_models(50), seeds))
    assert {each.verdict for each in found[:-1]} == {UNDECIDED}
    assert found[-1].verdict is SUPPORTED


# --- recipes ---


@pytest.mark.parametrize("depth", [50, 152])
def test_a_study_is_thirty_three_models(depth):
    config = catalogue.find(STUDIES[depth]).SCALES["paper"]
    models = list(config.models())
    assert len(models) == len(set(models)) == 33
    assert sum(rho is None for _, rho, _ in models) == 3
    assert config.depth == depth


def test_steps_and_schedules_are_the_paper_s():
    config = catalogue.find(STUDIES[50]).SCALES["paper"]
    recipe = load_recipe(config.recipe("autoaugment", 3.0, 0, "/data/imagenet"))
    steps = 1_281_167 // recipe.training.batch_size
    drops = [
        epoch
        for epoch in range(1, 270)
        if learning_rate_factor(recipe.training.learning_rate, epoch)
        != learning_rate_factor(recipe.training.learning_rate, epoch - 1)
    ]
    assert steps == 156
    assert drops == [90, 180, 240]
    # "The first learning rate drop occurs a bit after 14,000 steps", and the jump-start of 12,000 is over by then
    assert recipe.training.rho_schedule == RhoSchedule(start=100.0, space="weight", steps=12_000)
    assert 12_000 < 14_000 < 90 * steps < 14_100
    assert recipe.training.parts == 8 * 4
    assert recipe.training.batch_size // recipe.training.parts == 256


@pytest.mark.parametrize("rho", [None, 3.0])
def test_recipes_are_the_example_s_but_for_what_varies(rho):
    ours = load_recipe(catalogue.find(STUDIES[50]).SCALES["paper"].recipe("autoaugment", rho, 0, "/data/imagenet"))
    example = load_recipe(EXAMPLE, {"training.devices": 8})
    varying = {"rho_schedule"}
    mine, theirs = (each.training.model_dump(exclude=varying) for each in (ours, example))
    assert mine == theirs
    assert ours.model == example.model
    assert ours.data == example.data
    assert (ours.training.rho_schedule is None) == (rho is None)


def test_variants_differ_in_augmentation_and_width_alone():
    config = catalogue.find(STUDIES[152]).SCALES["paper"]
    plain, augmented, wide = (config.recipe(variant, 2.0, 0, "x") for variant in VARIANTS)
    augment = [load_recipe(recipe).training.augment for recipe in (plain, augmented, wide)]
    assert [each.resized_crop for each in augment] == [True] * 3
    assert [each.autoaugment for each in augment] == [None, "imagenet", "imagenet"]
    assert [recipe["model"]["backbone"]["width"] for recipe in (plain, augmented, wide)] == [1, 1, 2]
    assert {recipe["model"]["backbone"]["depth"] for recipe in (plain, augmented, wide)} == {152}


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(50, 1, 25.56), (50, 2, 98.0), (152, 1, 60.19), (152, 2, 236.35)]
)
def test_networks_have_the_parameters_of_the_published_ones(depth, width, millions):
    """torchvision's resnet50 has 25.56 million with its head, resnet152 60.19; twice the width nearly four times."""
    with torch.device("meta"):
        backbone = ResNet(depth=depth, width=width).build((3, 224, 224))
        head = nn.Linear(backbone.features, 1000)
    found = sum(parameter.numel() for part in (backbone, head) for parameter in part.parameters())
    assert found / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_without_a_folder_it_says_which_option_to_set(scale, tmp_path):
    with pytest.raises(ConfigError, match=r"Where is ImageNet\? Set path=FOLDER, the folder with train/"):
        run_study(STUDIES[50], scale, (), tmp_path, show_progress=False)


# --- textures, and measuring on them ---


def test_textures_are_the_same_every_time_and_made_once(tmp_path):
    first, second = (textures.make(tmp_path / name, 16) for name in "ab")
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert len(files) == 4 * (textures.TRAIN + textures.TEST + textures.HARD + 75 * textures.TEST)
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files[:: len(files) // 50])
    (first / files[0]).unlink()
    assert textures.make(tmp_path / "a", 16) == first
    assert not (first / files[0]).exists()
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["textures-16"]


SIXTEEN = {"size": 16, "corrupted_size": 16, "images": 10, "corrupted": None, "steps": 5}


class Stripes(nn.Module):
    """Says the class whose direction of stripes an image has most of: known, and differentiable."""

    def __init__(self, size):
        super().__init__()
        y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
        waves = []
        for label in range(4):
            along = x * torch.cos(torch.tensor(torch.pi * label / 4)) + y * torch.sin(
                torch.tensor(torch.pi * label / 4)
            )
            for frequency in (3.25, 4.0, 4.75):
                angle = 2 * torch.pi * frequency * along
                waves += [torch.cos(angle), torch.sin(angle)]
        self.register_buffer("waves", torch.stack(waves))

    def forward(self, images):
        grey = images.mean(1) - images.mean((1, 2, 3))[:, None, None]
        found = torch.einsum("nhw,khw->nk", grey, self.waves).square().reshape(len(images), 4, 6)
        return found.sum(-1)


@pytest.fixture
def examined(tmp_path):
    """The known classifier in place of a trained one, on the textures of 16×16."""
    config = (
        catalogue.find(STUDIES[50]).SCALES["tiny"].model_copy(update={**SIXTEEN, "linf": Ball(eps=0.3, step_size=0.1)})
    )
    bench = ResultStore(tmp_path)
    places = imagenet_places.find(config, bench)
    data = load({"name": "imagenet", "path": places.path, "size": 16})
    facts = {"test_accuracy": 1.0, "tested": len(data.test)}
    return Examined(config, bench, places, {"recipe": {"name": "stripes"}}, Stripes(16).eval(), data, facts)


def test_portions_together_are_the_whole(examined, monkeypatch):
    whole = examined.under_pgd("linf")
    assert whole["n"] == 10
    assert 0 < whole["value"] <= 1
    for kept in (examined.bench.root / "cells").glob("*"):
        kept.unlink()
    monkeypatch.setattr(imagenet_measuring, "PORTION", 4)
    assert examined.under_pgd("linf") == whole
    parts = sorted(path.name for path in (examined.bench.root / "cells").glob("*.json"))
    assert len(parts) == 3
    monkeypatch.setattr(imagenet_measuring, "Attacker", None)  # nothing is attacked again
    assert examined.under_pgd("linf") == whole


def test_errors_under_corruptions_are_those_of_their_images(examined):
    found = examined.under_corruptions()
    root, data = Path(examined.places.path) / "imagenet-c", examined.data
    for corruption in ("fog", "pixelate"):
        wrong = []
        for severity in range(1, 6):
            files = sorted((root / corruption / str(severity)).rglob("*.JPEG"))
            images = torch.stack([_pixels(file) for file in files])
            labels = torch.tensor([data.classes.index(file.parent.name) for file in files])
            wrong.append(float((examined.model(images).argmax(1) != labels).float().mean()))
        assert found[corruption]["value"] == pytest.approx(sum(wrong) / 5)
    mean = sum(found[name]["value"] for name in CORRUPTIONS) / 15
    assert found["average"]["value"] == pytest.approx(mean)
    assert found["average"]["low"] <= mean <= found["average"]["high"]
    assert found["mce"]["n"] == 4 * textures.TEST


def _pixels(file):
    import numpy as np
    from PIL import Image

    return torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255


def test_a_corruption_that_is_not_there_leaves_the_means_unmeasured_and_the_others_as_they_are(examined):
    before = examined.under_corruptions()
    root = Path(examined.places.path) / "imagenet-c"
    shutil.rmtree(root / "fog" / "3")
    places = imagenet_places.find(examined.config, examined.bench)
    assert list(places.missing) == ["fog"]
    assert f"There is no folder {root / 'fog' / '3'}" in places.missing["fog"]
    after = Examined(
        examined.config, examined.bench, places, examined.about, examined.model, examined.data, examined.facts
    ).under_corruptions()
    assert after["fog"] == {"why": "fog is not there"}
    assert after["mce"] == after["average"] == {"why": "14 of 15 corruptions are there"}
    assert all(after[name] == before[name] for name in CORRUPTIONS if name != "fog")


# --- the whole way ---

DRY = {"rhos": [5.0]}


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    out = tmp_path_factory.mktemp("imagenet")
    return run_study(STUDIES[50], "tiny", DRY, out, show_progress=False), out


def test_the_dry_run_is_whole(dry):
    (record, html), _ = dry
    assert record.complete
    assert not record.failures
    assert [(cell["variant"], cell["knob"]) for cell in record.cells.values()] == [
        ("autoaugment", None),
        ("autoaugment", 5.0),
    ]
    for cell in record.cells.values():
        assert set(cell["errors"]) == set(ROWS)
        assert all(0 <= each["low"] <= each["value"] <= each["high"] for each in cell["errors"].values())
        assert cell["errors"]["clean"]["value"] == pytest.approx(1 - cell["test_accuracy"])
        assert cell["tested"] == 4 * textures.TEST
    assert record.departures["data"] == ("textures", "imagenet")
    text = html.read_text("utf-8")
    assert "it was run on textures instead of imagenet" in text
    assert "CEB-50, ρ = 5, printed" in text
    assert "69.9%" in text


def test_the_error_on_imagenet_a_is_that_of_the_trained_model(dry):
    (record, _), out = dry
    folder = next((out / "models").glob("*-ceb5-*"))
    model, root = load_model(folder), out / "data" / "textures-32" / "imagenet-a"
    from isthmus.data.shift.shifted import load as load_shifted

    options = {"name": "imagenet_a", "path": str(root), "size": 32, "shorter": 37, "limit": 4}
    (batch,) = load_shifted(options, textures.CLASSES).batches(100)
    with torch.no_grad():
        wrong = float((model(batch.images).argmax(1) != batch.labels).float().mean())
    (cell,) = record.each(knob=5.0)
    assert cell["errors"]["imagenet_a"]["value"] == pytest.approx(wrong)


def test_folders_that_are_missing_are_said_to_be_and_nothing_is_measured_twice(dry, monkeypatch):
    """The same models by way of their folder, with ImageNet-C and -A away."""
    (first, _), out = dry
    settings = {
        **DRY,
        "data": "imagenet",
        "path": str(out / "data" / "textures-32"),
        "imagenet_c": str(out / "nowhere"),
        "imagenet_a": str(out / "nowhere"),
    }
    monkeypatch.setattr(imagenet_measuring, "Attacker", None)
    record, html = run_study(STUDIES[50], "tiny", settings, out, show_progress=False)
    assert not record.failures
    for before, after in zip(first.cells.values(), record.cells.values(), strict=True):
        assert {row: after["errors"][row] for row in OF_SHARES if row != "imagenet_a"} == {
            row: before["errors"][row] for row in OF_SHARES if row != "imagenet_a"
        }
        assert after["errors"]["mce"] == {"why": "0 of 15 corruptions are there"}
        assert after["errors"]["imagenet_a"] == {"why": "ImageNet-A is not there"}
    text = html.read_text("utf-8")
    assert f"There is no folder {out / 'nowhere'} with ImageNet-C." in text
    assert "Not measured: ImageNet-A is not there." in text
