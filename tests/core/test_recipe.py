"""Recipes: a typo is one clear sentence with a suggestion, whatever is thrown at the loader."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core import config
from isthmus.core.config import override, parse_overrides
from isthmus.core.errors import ConfigError, FileError, IsthmusError
from isthmus.core.recipe import Recipe, load_recipe
from isthmus.core.training_options import AUGMENTATIONS, Augmentation

GOOD = {"name": "run", "data": "digits", "model": {"backbone": "mlp"}, "objective": "ceb"}


def test_defaults_are_filled_in_and_told_apart_from_what_was_given():
    recipe = load_recipe(GOOD)
    assert recipe.training.epochs == 20
    assert recipe.plain(given_only=True) == {
        "name": "run",
        "data": {"name": "digits"},
        "model": {"backbone": {"name": "mlp"}},
        "objective": {"name": "ceb"},
    }


@pytest.mark.parametrize("rho", [2.0, math.inf])
def test_a_resolved_recipe_is_a_recipe_again(rho):
    recipe = load_recipe(GOOD, {"objective.rho": rho})
    assert load_recipe(recipe.plain()) == recipe
    assert load_recipe(yaml.safe_load(yaml.safe_dump(recipe.plain()))) == recipe


def test_overrides_reach_into_components_given_by_name():
    recipe = load_recipe(GOOD, ["objective.rho=0.5", "model.backbone.hidden=[8, 8]", "seed=3", "training.ema=0.9"])
    assert recipe.objective.rho == 0.5
    assert recipe.model.backbone.hidden == (8, 8)
    assert (recipe.seed, recipe.training.ema) == (3, 0.9)


def test_overrides_leave_the_given_mapping_alone():
    given = {"a": {"b": 1}}
    assert override(given, {"a.b": 2, "c.d": 3}) == {"a": {"b": 2}, "c": {"d": 3}}
    assert given == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectiv.rho=2"], "no key 'objectiv'. Did you mean 'objective'"),
        (["objective.rhoo=2"], "no key 'rhoo'. Did you mean 'rho'"),
        (["training.optimizer.learning_rate=2"], "no key 'learning_rate'"),
        (["training.epochs=0"], "training.epochs: Input should be greater than 0 .got 0."),
        (["training.epochs=many"], "training.epochs: .* integer"),
        (["objective=cebb"], "no objective 'cebb'. Did you mean 'ceb'"),
        (["data=digit"], "no dataset 'digit'. Did you mean 'digits'"),
        (["model.backbone=wide_resnets"], "no backbone 'wide_resnets'. Did you mean 'wide_resnet'"),
        (["objective=ceb:3"], "takes nothing after a colon"),
        (["objective=3"], "give a name"),
        (["model.covariance=banded"], "model.covariance: .*'identity', 'isotropic', 'diagonal' or 'full'"),
        (["name=../up"], "becomes a folder"),
        (["seed"], "key=value"),
        (["seed={"], "not valid YAML"),
        (["data={name: digits, train_limit: 20, train_limit: 30}"], "not valid YAML"),
        (["seed.x=1"], "unsettable|no keys below|Cannot set"),
        (["training.rho_schedule=cifar"], "no rho schedule 'cifar'. Did you mean 'cifar_000'"),
        (["training.augment=autoagument"], "no augmentation 'autoagument'. Did you mean 'autoaugment'"),
        (["training.augment={name: [crop_flip]}"], "no augmentation"),
        (["training.augment.autoaugment=image_net"], "training.augment.autoaugment: .*'released' or 'imagenet'"),
        (["training.augment.cutout=-1"], "training.augment.cutout: .*greater than or equal to 0"),
        (["training.augment.crop=true"], "no key 'crop'. Did you mean 'crop_flip'"),
        (["training.rho_schedule.epoch=1"], "no key 'epoch'. Did you mean 'epochs'"),
        (["training.optimizer.nesterov=true", "training.optimizer.momentum=0"], "nesterov needs a momentum"),
    ],
)
def test_mistakes_are_explained(overrides, message):
    given = {**GOOD, "seed": 1}
    with pytest.raises(ConfigError, match=message):
        load_recipe(given, overrides)


def test_an_augmentation_is_a_name_options_or_both():
    def augment(*overrides):
        return load_recipe({**GOOD, "training": {"augment": "crop_flip"}}, overrides).training.augment

    assert augment() == Augmentation(crop_flip=True)
    assert augment("training.augment=autoaugment") == Augmentation(autoaugment="published", crop_flip=True, cutout=16)
    assert augment("training.augment.cutout=8") == Augmentation(crop_flip=True, cutout=8)
    assert augment("training.augment={autoaugment: released}") == Augmentation(autoaugment="released")


@pytest.mark.parametrize(
    "given", [*AUGMENTATIONS, {"resized_crop": False, "autoaugment": "released", "crop_flip": False, "cutout": 3}]
)
def test_a_resolved_recipe_names_an_augmentation_that_has_a_name(given):
    recipe = load_recipe(GOOD, {"training.augment": given})
    assert recipe.plain()["training"]["augment"] == given
    assert load_recipe(recipe.plain()) == load_recipe(recipe) == recipe


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[1, 2]", ConfigError),
        ("a: [", ConfigError),
        ("", ConfigError),
        ("1: 2", ConfigError),
        (b"\xff\xfe\x00", IsthmusError),
    ],
)
def test_unusable_files_are_explained(tmp_path, text, error):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match="recipe"):
        load_recipe(path)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(FileError, match="Cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_a_file_takes_its_own_name(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({k: v for k, v in GOOD.items() if k != "name"}))
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(
    ["digits", "mlp", "ceb", "vib", "wide_resnet", "cifar_000", "full", "mixture", "adam", "bf16"]
)  # fmt: skip
keys = st.sampled_from(
    [
        *Recipe.model_fields,
        "rho",
        "rate_weight",
        "backbone",
        "dim",
        "epochs",
        "optimizer",
        "lr",
        "betas",
        "hidden",
    ]
) | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


@given(tree=st.dictionaries(keys, trees, max_size=8), mixed=st.booleans())
def test_random_configs_load_or_are_explained(tree, mixed):
    try:
        recipe = load_recipe({**GOOD, **tree} if mixed else tree)
    except IsthmusError as error:
        assert str(error)
    else:
        assert load_recipe(recipe.plain()) == recipe


@given(item=st.text(max_size=30), key=keys, value=trees)
def test_random_overrides_load_or_are_explained(item, key, value):
    for overrides in ([item], {key: value}, {f"training.{key}": value}, {f"model.backbone.{key}": value}):
        try:
            load_recipe(GOOD, overrides)
        except IsthmusError as error:
            assert str(error)


@given(key=st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5})?", fullmatch=True), value=st.integers() | st.booleans())
def test_overrides_parse_as_yaml(key, value):
    assert parse_overrides([f"{key}={str(value).lower()}"]) == {key: value}


def test_the_classifier_is_what_goes_with_the_objective():
    base = {"name": "a", "data": "digits", "model": {"backbone": {"name": "mlp", "hidden": [8]}, "dim": 4}}
    for objective, expected in (("ceb", "linear"), ("deterministic", "linear"), ("catgen", "consistent")):
        recipe = load_recipe(base | {"objective": objective})
        assert recipe.model.classifier == expected
        assert recipe.model_dump(mode="json")["model"]["classifier"] == expected
    named = load_recipe(base | {"objective": "catgen"}, {"model.classifier": "mlp"})
    assert named.model.classifier == "mlp"


@pytest.mark.parametrize(
    ("objective", "shared"),
    [
        ("energy_based", True),
        ({"name": "f_divergence", "divergence": "kl"}, True),
        ({"name": "energy_based", "rho": 1}, False),
        ("donsker_varadhan", False),
    ],
)
def test_a_batch_is_seen_in_parts_where_its_loss_is_a_mean(objective, shared):
    given = {
        "name": "parts",
        "data": "digits",
        "model": {"backbone": "mlp", "hypothesis": {"hidden": [8, 8]}},
        "objective": objective,
        "training": {"accumulate": 2},
    }
    if shared:
        assert load_recipe(given).training.parts == 2
    else:
        with pytest.raises(ConfigError, match="compares the examples of a batch"):
            load_recipe(given)


@pytest.mark.parametrize(
    "text",
    ["name: a\ndata: digits\nname: b\n", "training: {epochs: 3, epochs: 4}\n", "'a': 1\na: 2\n"],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the key '.*' is given twice"):
        config.read_yaml(tmp_path / "r.yaml")


def test_merged_keys_may_be_replaced(tmp_path):
    (tmp_path / "r.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: *a, <<: *a}\n")
    assert config.read_yaml(tmp_path / "r.yaml")["b"] == {"x": 3, "y": 2}
