"""The recipe for ImageNet, all of it, on a few small photographs by the command line; and what it alone asks for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import isthmus
from isthmus.audits.target import ModelSource, target_of
from isthmus.cli.app import main
from isthmus.core.errors import ConfigError, DataError
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import LearningRate, Optimizer
from isthmus.models.backbones import MLP
from isthmus.training.optimizers import make_optimizer, norm_parameters
from isthmus.training.run import ENDED, Run
from isthmus.training.schedules import warm_up_factor

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "imagenet-ceb.yaml"
SMALL = [
    "data.size=32",
    "training.batch_size=16",
    "training.accumulate=2",
    "training.epochs=1",
    "training.log_every=1",
    "training.precision=float32",  # processors without bf16 take long
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 12 + 4 JPEGs of several sizes; a class is a colour with some texture."""
    root, rng = tmp_path_factory.mktemp("ilsvrc"), np.random.default_rng(0)
    for label in range(4):
        for part, count in (("train", 12), ("val", 4)):
            folder = root / part / f"n0000000{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                low = rng.integers(0, 96, (5, 5, 3)) + 40 * np.array([label, 3 - label, label % 2 * 3])
                size = [(64, 48), (48, 60), (52, 52)][i % 3]
                Image.fromarray(low.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.JPEG")
    return root


@pytest.fixture(scope="module")
def run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "imagenet"
    with pytest.raises(SystemExit) as end:
        main(["train", str(RECIPE), f"data.path={photographs}", *SMALL, "--out", str(out), "--quiet"])
    assert end.value.code in (0, 2)  # after three steps it may still be at chance, which counts as collapsed
    return Run(out)


def test_the_recipe_trains_through_the_command_line(run: Run) -> None:
    info = run.info()
    assert info["status"] in ENDED
    assert info["data"]["shape"] == [3, 32, 32]
    assert (info["data"]["train"], info["data"]["test"]) == (48, 16)
    assert info["result"]["step"] == 3
    assert all(value.isfinite().all() for value in run.load().state_dict().values())


def test_the_learning_rate_warms_up_and_the_weight_of_the_rate_rises(run: Run) -> None:
    lines = [line for line in run.metrics() if "lr" in line]
    assert [line["lr"] for line in lines] == pytest.approx([1.6 * step / (3 * 5) for step in range(3)])
    assert lines[0]["rho"] is None  # infinite: the weight is 0
    weights = [math.exp(-line["rho"]) for line in lines[1:]]
    assert weights == pytest.approx([math.exp(-3) * step / 12_000 for step in (1, 2)])


def test_it_starts_as_the_paper_says(run: Run) -> None:
    recipe = run.recipe
    model = isthmus.models.factory.build(recipe, (3, 32, 32), 1000)
    weight = model.classifier.weight
    assert weight.shape == (1000, 2048)
    assert weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not model.classifier.bias.any()
    assert model.backward_encoder.layers.weight.shape == (2048, 1000)
    assert recipe.model.covariance is None  # identity, for CEB
    # "the first learning rate drop occurs a bit after 14,000 steps"
    assert 14_000 < 90 * (1_281_167 // load_recipe(RECIPE).training.batch_size) < 14_100


def test_an_audit_decodes_no_more_than_it_is_asked_for(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = target_of(ModelSource(run.path, count=8))
    assert target.images.shape == (8, 3, 32, 32)
    assert target.labels.bincount().tolist() == [2, 2, 2, 2]
    whole = run.recipe.data.load().test
    assert torch.equal(target.images, whole.images[target.indices].float() / 255)
    with pytest.raises(SystemExit) as end:
        main(["audit", str(run.path), "--n", "8", "--checks", "accuracy", "--out", str(tmp_path), "--quiet"])
    assert end.value.code == 0
    assert json.loads((tmp_path / "audit" / "accuracy.json").read_text())["metrics"][0]["n"] == 8


def test_more_test_images_than_fit_into_memory_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.audits.target.LARGEST", 5 * 4 * 3 * 32 * 32)
    with pytest.raises(DataError, match=r"16 test images of 3×32×32 .* audit on at most 5 of them, such as --n 1000"):
        target_of(ModelSource(run.path))
    assert len(target_of(ModelSource(run.path, count=4)).images) == 4


def test_the_same_command_does_not_train_again(run: Run, photographs: Path, capsys: pytest.CaptureFixture) -> None:
    before = run.weights.stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(["train", str(RECIPE), f"data.path={photographs}", *SMALL, "--out", str(run.path), "--quiet"])
    assert run.weights.stat().st_mtime_ns == before
    assert "test accuracy" in capsys.readouterr().out


def test_a_run_of_before_an_option_existed_is_still_that_run(run: Run, photographs: Path) -> None:
    info = run.info()
    for name in ("devices", "nodes", "accumulate"):
        given = json.loads(json.dumps(info))
        if given["recipe"]["training"][name] != 1:
            continue
        del given["recipe"]["training"][name]
        run.write_info(given)
        before = run.weights.stat().st_mtime_ns
        overrides = {"data.path": str(photographs), **dict(yaml_items(SMALL))}
        isthmus.train(RECIPE, overrides, out=run.path, progress=False)
        assert run.weights.stat().st_mtime_ns == before
    run.write_info(info)


def yaml_items(overrides: list[str]) -> list[tuple[str, object]]:
    return [(key, yaml.safe_load(value)) for key, _, value in (item.partition("=") for item in overrides)]


# --- what the recipe alone asks for ---


def test_warm_up_is_a_line_from_zero_and_then_nothing() -> None:
    schedule = LearningRate(warmup_epochs=5)
    assert [warm_up_factor(schedule, epochs) for epochs in (0, 1, 2.5, 5, 80)] == [0, 0.2, 0.5, 1, 1]
    assert {warm_up_factor(LearningRate(), epochs) for epochs in (0, 1, 7)} == {1.0}


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_decay_leaves_out_normalisation_layers_and_nothing_else(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2))
    settings = Optimizer(name=name, lr=0.5, momentum=0, weight_decay=0.1, decay_norm=False)  # type: ignore[arg-type]
    for parameter in net.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(settings, list(net.parameters()), norm_parameters(net)).step()
    moved = {key: value.flatten()[0].item() for key, value in net.named_parameters()}
    decayed = 1 - 0.5 * 0.1 if name == "sgd" else 0.5  # Adam's first step is one learning rate whatever the gradient
    expected = {key: 1.0 if key[0] in "13" else decayed for key in moved}
    assert moved == pytest.approx(expected, rel=1e-5)


def test_a_parameter_whose_gradient_comes_later_starts_as_one_that_is_alone() -> None:
    """Against PyTorch's plain loop over parameters, which the fused kernel refuses to be."""
    paths = []
    for ours in (True, False):
        first, late = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(3))
        settings = Optimizer(name="sgd", lr=0.1, nesterov=True, weight_decay=0.01)
        plain = torch.optim.SGD([first, late], 0.1, 0.9, nesterov=True, weight_decay=0.01, foreach=False)
        optimizer = make_optimizer(settings, [first, late]) if ours else plain
        for step in range(4):
            first.grad = torch.full((5,), 1.0 + step)
            late.grad = torch.full((3,), 2.0 - step) if step else None
            optimizer.step()
        paths.append(torch.cat([first.detach(), late.detach()]))
    assert torch.allclose(*paths, rtol=1e-6)


def test_by_default_everything_decays_in_one_group() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = make_optimizer(Optimizer(weight_decay=0.1), list(net.parameters()), norm_parameters(net))
    assert len(optimizer.param_groups) == 1


def test_a_standard_deviation_is_for_a_linear_classifier() -> None:
    backbone = MLP(hidden=[8]).build((1, 4, 4))
    with pytest.raises(ConfigError, match="classifier_std=0.01 is for a linear classifier; this one is 'mlp'"):
        isthmus.bottleneck(backbone, 10, "ceb", 4, options={"classifier": "mlp", "classifier_std": 0.01})


def test_the_recipe_is_what_the_paper_prints() -> None:
    training = load_recipe(RECIPE).training
    assert (training.epochs, training.batch_size, training.optimizer.lr) == (270, 8192, 1.6)
    assert training.learning_rate.milestones == (90, 180, 240)
    assert training.rho_schedule is not None
    assert training.rho_schedule.steps == 12_000
