"""Components by `module:Name`: of every kind, in recipes, in Python, and from saved runs."""

import importlib
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml

import isthmus
from isthmus.core import registry
from isthmus.core.config import component
from isthmus.core.errors import ConfigError
from isthmus.core.recipe import load_recipe
from isthmus.training.run import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
MINE = """
from typing import ClassVar, Literal

import torch
from torch import nn

from isthmus.data.images import Split
from isthmus.data.shift.shifted import Published, Shifted, ShiftedTestSet
from isthmus.models.backbones.backbone import Backbone
from isthmus.training.callbacks.callback import Callback, CallbackState


class Net(Backbone):
    width: int = 8

    def build(self, shape):
        net = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], self.width), nn.ReLU())
        net.features = self.width
        return net


class Count(Callback):
    def build(self, model, data, seed):
        return Counter()


class Counter(CallbackState):
    def __init__(self):
        self.steps = 0

    def gradients(self):
        self.steps += 1

    def end_epoch(self):
        return {"steps": self.steps}


class Named(Net):
    name: Literal["net"] = "net"


class Dark(ShiftedTestSet):
    published: ClassVar[Published] = Published("Dark", "nowhere", "Draw it.")

    def read(self, classes):
        split = Split(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6) % 2)
        return Shifted("dark", classes, split, torch.arange(6), 6, "dark")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    package = tmp_path / "minepackage"
    package.mkdir()
    (package / "mine.py").write_text(MINE)
    for name in ("squared_rate", "stripes"):
        (package / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text("utf-8"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "minepackage"]:
        del sys.modules[name]


RECIPE = {
    "name": "mine",
    "data": {"name": "minepackage.stripes:Stripes", "noise": 0.1},
    "model": {"backbone": {"name": "minepackage.mine:Net", "width": 16}, "dim": 2},
    "objective": {"name": "minepackage.squared_rate:SquaredRate", "rho": 3},
    "training": {"epochs": 2, "batch_size": 32, "callbacks": ["minepackage.mine:Count"]},
}


def test_a_recipe_of_own_components_trains_is_saved_loaded_and_audited(mine):
    run = isthmus.train(RECIPE, out=mine / "run", progress=False)
    observed = [line["observed"] for line in run.metrics() if "observed" in line]
    assert [each["minepackage.mine:Count"]["steps"] for each in observed] == [16, 32]
    recipe = Run(mine / "run").recipe
    assert recipe == load_recipe(RECIPE)
    assert recipe.model.backbone.width == 16
    data = component("data", recipe.data).load()
    images, labels = data.test.images[:40].float() / 255, data.test.labels[:40]
    model = isthmus.load(mine / "run")
    audit = isthmus.audit(model, images, labels, threat=isthmus.Linf(0.1), checks=["accuracy"])
    assert audit.results["accuracy"].metrics.one("accuracy", mode="mean").n == 40


def test_the_command_line_reads_them(mine):
    (mine / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    command = ["train", "mine.yaml", "training.epochs=1", "--out", "run"]
    done = subprocess.run([sys.executable, "-m", "isthmus", *command], cwd=mine, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Run(mine / "run").recipe.objective.rho == 3


def test_shifted_test_sets_can_be_own_components(mine):
    from isthmus.data.shift.shifted import load

    shifted = load("minepackage.mine:Dark", ["even", "odd"])
    assert len(shifted) == 6
    assert torch.equal(shifted.split.labels, torch.arange(6) % 2)


def test_objects_are_used_as_they_are(mine):
    squared_rate = importlib.import_module("minepackage.squared_rate").SquaredRate(rho=2)
    model = isthmus.bottleneck(torch.nn.Flatten(), 2, squared_rate, 3, features=4)
    assert model.objective is squared_rate
    assert model.marginal is not None


def test_a_class_that_fixes_its_name_is_found_by_its_path(mine):
    """It keeps the path, so that the run can be loaded, unless its name is registered."""
    model = {"backbone": {"name": "minepackage.mine:Named", "width": 4}, "dim": 2}
    recipe = load_recipe(RECIPE | {"model": model, "objective": "isthmus.objectives.ceb:CEB"})
    stored = recipe.plain()
    assert stored["model"]["backbone"] == {"name": "minepackage.mine:Named", "width": 4}
    assert stored["objective"]["name"] == "ceb"
    assert load_recipe(stored) == recipe
    run = isthmus.train(recipe, {"training.epochs": 1}, out=mine / "run", progress=False)
    assert run.load() is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "minepackage.mine:Net"}, "no objective"),
        ({"model": {"backbone": "minepackage.mine:Count"}}, "no backbone"),
        ({"training": {"callbacks": ["minepackage.mine:Net"]}}, "no callback"),
        ({"data": "minepackage.mine:Net"}, "no dataset"),
        ({"objective": "minepackage.mine:Missing"}, "Missing"),
        ({"objective": "nopackage.mine:Net"}, "nopackage"),
        ({"objective": "minepackage.mine:torch"}, "no component"),
    ],
)
def test_components_of_another_kind_are_refused(mine, change, message):
    with pytest.raises(ConfigError, match=message):
        isthmus.train(RECIPE | change, out=mine / "run", progress=False)


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_every_component_is_a_class_named_like_its_file(kind):
    for name in registry.names(kind):
        found = registry.load(kind, name)
        assert found.model_fields["name"].default == name
        assert found.__name__ != "Config"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: isthmus.attacks.APGD(stepz=5),
            r"APGD: There is no key 'stepz'. Did you mean 'steps'\? There is: eot, loss",
        ),
        (lambda: isthmus.objectives.CEB(rho="x"), "CEB: rho: Input should be a valid number .got 'x'"),
        (lambda: isthmus.attacks.APGD(name="pgd"), "APGD: name: Input should be 'apgd'"),
        (
            lambda: isthmus.checks.NoiseRobustness(low=30, high=20),
            "^NoiseRobustness: low must be below high, both in dB; got 30 and 20$",
        ),
    ],
)
def test_wrong_options_of_a_class_are_explained_as_in_a_recipe(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"training": {"optimizer": {"lrr": 1}}},
            "recipe: training.optimizer: There is no key 'lrr'. Did you mean 'lr'",
        ),
        ({"training": {"optimizer": {"lr": -1}}}, "recipe: training.optimizer.lr: Input should be greater than 0"),
        ({"model": {"backbone": "mlp", "dim": 0}}, "recipe: model.dim: Input should be greater than 0"),
    ],
)
def test_mistakes_in_nested_configs_name_their_path(change, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe({"name": "x", "data": "digits", "model": {"backbone": "mlp"}, "objective": "ceb"} | change)


@pytest.mark.parametrize("target", ["minepackage.squared_rate:SquaredRate", "minepackage.squared_rate"])
def test_an_entry_point_names_a_class_or_a_module(mine, monkeypatch, target):
    entry = EntryPoint("squared", target, "isthmus.objectives")
    monkeypatch.setattr(registry, "_registered", lambda kind: {"squared": entry} if kind == "objectives" else {})
    chosen = component("objectives", {"name": "squared", "rho": 2})
    assert (type(chosen).__name__, chosen.name, chosen.rho) == ("SquaredRate", "squared", 2)
