"""The ImageNet studies of CEB: claims on made-up and on the printed numbers, recipes, and whole runs on textures."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import RhoSchedule
from isthmus.core.types import Interval, Metric
from isthmus.data.loading import load
from isthmus.metrics import CORRUPTIONS, wilson
from isthmus.models.backbones import ResNet, resnet
from isthmus.studies import catalogue, page
from isthmus.studies.ceb import imagenet_experiments, textures
from isthmus.studies.ceb.imagenet import ERRORS
from isthmus.studies.ceb.imagenet_configs import Ball
from isthmus.studies.ceb.imagenet_experiments import Evaluated, chosen_rho, chosen_rows, find
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured
from isthmus.studies.paper_values import paper_values
from isthmus.studies.running import run_study
from isthmus.studies.store import ResultStore
from isthmus.studies.verdicts import Verdict
from isthmus.training.run import load as load_model
from isthmus.training.schedules import learning_rate_factor
from tests.studies.records import blocks, measured, record, verdicts

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
STUDIES = {50: "ceb/imagenet-50", 152: "ceb/imagenet-152"}
VARIANTS = ("plain", "autoaugment", "wide")
EXAMPLE = Path(__file__).parents[2] / "examples" / "recipes" / "imagenet-ceb.yaml"
OF_IMAGES = {"clean_error": 50_000, "imagenet_a_error": 7_500, "pgd_error": 50_000}
CLEAN, MCE, A, PGD_L2, PGD_LINF = (
    "clean error",
    "mCE",
    "error on ImageNet-A",
    "error under PGD in ℓ2",
    "error under PGD in ℓ∞",
)


def number(title, value):
    """An error as a row; intervals under corruptions are about as wide as 50,000 images make them."""
    select = ERRORS[title]
    coords = {**select.where, **({"eps": 16 / 255} if select.name == "pgd_error" else {})}
    n = OF_IMAGES.get(select.name, 50_000)
    unit = "relative" if title == MCE else "fraction"
    if value is None:
        return Metric(name=select.name, value=None, unit=unit, n=0, note="nobody looked", coords=coords)
    interval = Interval(low=value - 0.003, high=value + 0.003, method="bootstrap over examples")
    if select.name in OF_IMAGES:
        interval = wilson(round(value * n), n)
    return Metric(name=select.name, value=value, unit=unit, n=n, interval=interval, coords=coords)


def experiments(models, seeds=3, collapsed=()):
    """(variant, ρ) -> errors by title, alike for all seeds."""
    return [
        measured(
            [number(title, value) for title, value in errors.items()],
            ModelSpec("determ" if rho is None else "ceb", rho, seed, variant).coords(),
            collapsed=rho in collapsed,
        )
        for (variant, rho), errors in models.items()
        for seed in range(seeds)
    ]


def made(depth, models, seeds=3, tie=0.001, collapsed=()):
    found = experiments(models, seeds, collapsed)
    choice = measured(chosen_rows(map(Measured.from_plain, found), tie), {})
    return record(STUDIES[depth], [*found, choice], seeds=seeds, tie=tie)


def chosen(of):
    return {row.coords["variant"]: row.value for row in of.rows().select("chosen_rho", {})}


def printed_models(depth):
    """(variant, ρ) -> errors by title, as printed."""
    rhos = {each.coords["variant"]: each.value for each in paper_values("ceb", f"imagenet-{depth}-rho")}
    models = {}
    for each in paper_values("ceb", f"imagenet-{depth}"):
        variant = each.coords["variant"]
        rho = rhos[variant] if each.coords["objective"] == "chosen" else None
        models.setdefault((variant, rho), {})[each.metric] = each.value
    return models


@pytest.mark.parametrize(("depth", "more"), [(50, 1), (152, 4)])
def test_the_printed_tables_support_the_papers_claims(depth, more):
    found = made(depth, printed_models(depth))
    # the tables have one ρ of each, from which no trend follows
    assert verdicts(found) == [SUPPORTED] * 7 + [UNDECIDED] + [SUPPORTED] * more
    assert chosen(found) == dict(zip(VARIANTS, {50: (6, 5, 2), 152: (3, 3, 3)}[depth], strict=True))
    assert "<svg" in page.render(found)


@pytest.mark.parametrize(("depth", "last"), [(50, SUPPORTED), (152, CONTRADICTED)])
def test_with_bottleneck_and_baseline_exchanged_they_are_contradicted(depth, last):
    models = printed_models(depth)
    exchanged = {}
    for variant, rho in models:
        if rho is not None:
            exchanged |= {(variant, rho): models[variant, None], (variant, None): models[variant, rho]}
    found = verdicts(made(depth, exchanged))
    # clean errors of ResNet-50 with AutoAugment are 0.2 points apart, but the other two pairs are not
    assert found[:6] == [CONTRADICTED] * 6
    assert found[8] is last  # that none is robust is as true as before; that CEB is robust is not


def test_whether_robustness_falls_follows_from_the_slope():
    models = {}
    for variant in VARIANTS:
        base = printed_models(152)[variant, None]
        models[variant, None] = base
        for step in range(1, 11):
            models[variant, float(step)] = {**base, PGD_LINF: 0.80 + 0.01 * step, PGD_L2: 0.82 + 0.01 * step}
    assert verdicts(made(152, models))[7] is SUPPORTED
    for step in range(1, 11):  # one way of training alone has the other sign
        models["wide", float(step)] = {**models["wide", 1.0], PGD_LINF: 0.95 - 0.01 * step}
    assert verdicts(made(152, models))[7] is CONTRADICTED


def test_a_gain_that_chance_explains_is_carried_by_the_others_but_a_loss_is_not():
    models = printed_models(50)
    assert models["autoaugment", None][CLEAN] - models["autoaugment", 5.0][CLEAN] == pytest.approx(0.002)
    models["autoaugment", 5.0] = {**models["autoaugment", 5.0], CLEAN: 0.226}  # within chance of 22.5%, but behind it
    assert verdicts(made(50, models))[0] is UNDECIDED
    models["autoaugment", 5.0] = {**models["autoaugment", 5.0], CLEAN: 0.24}
    assert verdicts(made(50, models))[0] is CONTRADICTED


def test_a_resnet_50_with_more_than_a_percent_under_pgd_contradicts_that_none_is_robust():
    models = printed_models(50)
    models["wide", 7.0] = {**models["wide", 2.0], CLEAN: 0.25, PGD_L2: 0.97}
    assert verdicts(made(50, models))[-1] is CONTRADICTED


def test_what_is_not_measured_decides_nothing_and_is_listed():
    models = {key: {**errors, MCE: None, A: None} for key, errors in printed_models(152).items()}
    found = made(152, models)
    undecided = [at for at, each in enumerate(verdicts(found)) if each is UNDECIDED]
    assert undecided == [1, 3, 6, 7, 11]  # mCE, ImageNet-A, AutoAugment and width, no trend, width
    assert blocks(found)[-1].rows == (("mce", "nobody looked"), ("imagenet a error", "nobody looked"))


def test_models_that_stayed_at_chance_decide_nothing():
    found = made(50, printed_models(50), collapsed=(2.0, 5.0, 6.0))
    assert set(verdicts(found)) == {UNDECIDED}
    assert chosen(found) == {}


def test_some_ways_of_training_are_enough_for_what_needs_no_other():
    models = {key: errors for key, errors in printed_models(152).items() if key[0] == "autoaugment"}
    found = verdicts(made(152, models))
    assert found[6:] == [UNDECIDED, UNDECIDED, SUPPORTED, UNDECIDED, UNDECIDED, UNDECIDED]


def test_the_chosen_rho_is_the_lowest_within_a_tenth_of_a_percent_of_the_best():
    accuracies = {2.0: 0.7985, 3.0: 0.8, 5.0: 0.801, 6.0: 0.8005, 7.0: 0.8009, 9.0: 0.79}
    errors = {rho: 1 - accuracy for rho, accuracy in accuracies.items()}
    assert chosen_rho(errors, 0.001) == 3.0
    assert chosen_rho(errors, 0.0) == 5.0


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_or_two_of_each_decide_only_what_is_claimed_of_these_models(seeds):
    found = verdicts(made(50, printed_models(50), seeds))
    assert set(found[:-1]) == {UNDECIDED}
    assert found[-1] is SUPPORTED


def test_the_page_has_ours_beside_the_printed_numbers():
    *_, beside, choice, every = blocks(made(50, printed_models(50)))
    assert [line[2] for line in beside.rows] == ["ours", "CEB, Table 1"] * 6
    assert [(line[0], line[-1].value) for line in choice.rows] == [
        ("without AutoAugment", 6.0),
        ("AutoAugment", 5.0),
        ("AutoAugment, twice as wide", 2.0),
    ]
    assert [line[:3] for line in every.rows[:2]] == [
        ("without AutoAugment", "deterministic", ""),
        ("without AutoAugment", "CEB", "ρ = 6"),
    ]


@pytest.mark.parametrize("depth", [50, 152])
def test_a_study_is_thirty_three_models(depth):
    config = catalogue.find(STUDIES[depth]).preset("paper")
    models = list(config.models())
    assert len(models) == len(set(models)) == 33
    assert sum(model.parameter is None for model in models) == 3
    assert config.depth == depth


def test_steps_and_schedules_are_the_paper_s():
    config = catalogue.find(STUDIES[50]).preset("paper")
    recipe = load_recipe(config.recipe(ModelSpec("ceb", 3.0, 0, "autoaugment"), "/data/imagenet"))
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
    ours = load_recipe(
        catalogue.find(STUDIES[50])
        .preset("paper")
        .recipe(ModelSpec("determ" if rho is None else "ceb", rho, 0, "autoaugment"), "/data/imagenet")
    )
    example = load_recipe(EXAMPLE, {"training.devices": 8})
    varying = {"rho_schedule"}
    mine, theirs = (each.training.model_dump(exclude=varying) for each in (ours, example))
    assert mine == theirs
    assert ours.model == example.model
    assert ours.data == example.data
    assert (ours.training.rho_schedule is None) == (rho is None)


def test_variants_differ_in_augmentation_and_width_alone():
    config = catalogue.find(STUDIES[152]).preset("paper")
    plain, augmented, wide = (config.recipe(ModelSpec("ceb", 2.0, 0, variant), "x") for variant in VARIANTS)
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
    with pytest.raises(ConfigError, match=r"Set path=FOLDER, the ImageNet folder with train/"):
        run_study(STUDIES[50], scale, (), tmp_path, show_progress=False)


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
    """Predicts the class whose direction of stripes an image has most of: known, and differentiable."""

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
def evaluated(tmp_path):
    """The known classifier in place of a trained one, on the textures of 16×16."""
    changes = {**SIXTEEN, "linf": Ball(eps=0.3, step_size=0.1)}
    config = catalogue.find(STUDIES[50]).preset("tiny").model_copy(update=changes)
    store = ResultStore(tmp_path)
    places = find(config, store)
    data = load({"name": "imagenet", "path": places.path, "size": 16})
    return Evaluated(config, store, places, {"recipe": {"name": "stripes"}}, Stripes(16).eval(), data)


def by_name(rows):
    return {row.coords.get("corruption", row.name): row for row in rows}


def test_portions_together_are_the_whole(evaluated, monkeypatch):
    whole = evaluated.under_pgd("linf")
    assert whole.n == 10
    assert 0 < whole.value <= 1
    for kept in (evaluated.store.root / "experiments").glob("*"):
        kept.unlink()
    monkeypatch.setattr(imagenet_experiments, "PORTION", 4)
    assert evaluated.under_pgd("linf") == whole
    parts = sorted(path.name for path in (evaluated.store.root / "experiments").glob("*.json"))
    assert len(parts) == 3
    monkeypatch.setattr(imagenet_experiments, "Attacker", None)  # nothing is attacked again
    assert evaluated.under_pgd("linf") == whole


def test_errors_under_corruptions_are_those_of_their_images(evaluated):
    found = by_name(evaluated.under_corruptions())
    root, data = Path(evaluated.places.path) / "imagenet-c", evaluated.data
    for corruption in ("fog", "pixelate"):
        wrong = []
        for severity in range(1, 6):
            files = sorted((root / corruption / str(severity)).rglob("*.JPEG"))
            images = torch.stack([_pixels(file) for file in files])
            labels = torch.tensor([data.classes.index(file.parent.name) for file in files])
            wrong.append(float((evaluated.model(images).argmax(1) != labels).float().mean()))
        assert found[corruption].value == pytest.approx(sum(wrong) / 5)
    mean = sum(found[name].value for name in CORRUPTIONS) / 15
    average = found["average_error"]
    assert average.value == pytest.approx(mean)
    assert average.interval.low <= mean <= average.interval.high
    assert found["mce"].n == 4 * textures.TEST


def _pixels(file):
    import numpy as np
    from PIL import Image

    return torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255


def test_a_corruption_that_is_absent_leaves_the_means_unmeasured_and_the_others_as_they_are(evaluated):
    before = by_name(evaluated.under_corruptions())
    root = Path(evaluated.places.path) / "imagenet-c"
    shutil.rmtree(root / "fog" / "3")
    places = find(evaluated.config, evaluated.store)
    assert list(places.missing) == ["fog"]
    assert f"There is no folder {root / 'fog' / '3'}" in places.missing["fog"]
    again = Evaluated(
        evaluated.config, evaluated.store, places, evaluated.about, evaluated.model, evaluated.data
    ).under_corruptions()
    after = by_name(again)
    assert (after["fog"].value, after["fog"].note) == (None, places.missing["fog"])
    for name in ("mce", "average_error"):
        assert (after[name].value, after[name].note) == (None, "14 of 15 corruptions were found.")
    assert all(after[name] == before[name] for name in CORRUPTIONS if name != "fog")


DRY = {"rhos": [5.0]}
NUMBERS = {"clean_error", "mce", "average_error", "imagenet_a_error", "pgd_error", "corruption_error"}


@pytest.fixture(scope="module", params=["narrow", pytest.param("full size", marks=pytest.mark.slow)])
def made_dry(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("imagenet")
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch, request.param)
        return run_study(STUDIES[50], "tiny", DRY, out, show_progress=False), out


@pytest.fixture
def dry(made_dry, request, monkeypatch):
    narrow(monkeypatch, request.node.callspec.params["made_dry"])
    return made_dry


def narrow(patch, size):
    """Unless at full size, a ResNet of one block per stage and half of the channels, which does not collapse."""
    if size == "narrow":
        patch.setattr(resnet, "_STEM", 32)
        patch.setitem(resnet._BLOCKS, 50, (1, 1, 1, 1))


def models(found):
    return [each for each in found.experiments.values() if each.metrics and each.metrics[0].name == "clean_error"]


def test_the_dry_run_is_complete(dry):
    (found, html), _ = dry
    assert found.complete
    assert not found.failures
    both = models(found)[:2]
    assert [each.metrics[0].coords.get("rho") for each in both] == [None, 5.0]
    for each in both:
        assert {row.name for row in each.metrics} == NUMBERS
        assert len(each.metrics) == 21
        assert all(row.interval.low <= row.value <= row.interval.high for row in each.metrics)
        assert each.metrics[0].n == 4 * textures.TEST
    assert found.departures["data"] == ("textures", "imagenet")
    text = html.read_text("utf-8")
    assert "it was run on textures instead of imagenet" in text
    assert "69.9%" in text  # mCE of CEB-50, and its error under Gaussian noise
    assert "57.4%" in text


def test_the_error_on_imagenet_a_is_that_of_the_trained_model(dry):
    (found, _), out = dry
    folder = next((out / "models").glob("*-ceb5-*"))
    model, root = load_model(folder), out / "data" / "textures-32" / "imagenet-a"
    from isthmus.data.shift.shifted import load as load_shifted

    options = {"name": "imagenet_a", "path": str(root), "size": 32, "shorter": 37, "limit": 4}
    (batch,) = load_shifted(options, textures.CLASSES).batches(100)
    with torch.no_grad():
        wrong = float((model(batch.images).argmax(1) != batch.labels).float().mean())
    (row,) = found.rows(collapsed=True).select("imagenet_a_error", {"rho": 5.0})
    assert row.value == pytest.approx(wrong)


def test_folders_that_are_absent_are_named_and_nothing_is_measured_twice(dry, monkeypatch):
    """The same models by way of their folder, without ImageNet-C and -A."""
    (first, _), out = dry
    settings = {
        **DRY,
        "data": "imagenet",
        "path": str(out / "data" / "textures-32"),
        "imagenet_c": str(out / "nowhere"),
        "imagenet_a": str(out / "nowhere"),
    }
    monkeypatch.setattr(imagenet_experiments, "Attacker", None)
    found, html = run_study(STUDIES[50], "tiny", settings, out, show_progress=False)
    assert not found.failures
    for before, after in zip(models(first)[:2], models(found)[:2], strict=True):
        kept = [[row for row in each.metrics if row.name in ("clean_error", "pgd_error")] for each in (before, after)]
        assert kept[0] == kept[1]
        rows = by_name(after.metrics)
        assert rows["mce"].note == "0 of 15 corruptions were found."
        assert rows["imagenet_a_error"].value is None
    text = html.read_text("utf-8")
    assert f"There is no folder {out / 'nowhere'} with ImageNet-C." in text
