"""A module and images of the user are trained on without being registered."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import isthmus
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.data.given import training_data
from isthmus.data.images import ImageData, as_float
from isthmus.data.loading import load
from isthmus.training.evaluation import count_right
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

DIGITS = load("digits")
SPLITS = {"train": (DIGITS.train.images, DIGITS.train.labels), "test": (DIGITS.test.images, DIGITS.test.labels)}
RECIPE = {
    "name": "given",
    "model": {"dim": 4},
    "objective": {"name": "ceb", "rho": 3},
    "training": {"epochs": 2, "batch_size": 128, "checkpoint_every": 5, "optimizer": {"lr": 0.01}},
}


def net(width: int = 24, seed: int = 0) -> nn.Module:
    """A module without the attribute ``features``."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, width))


def same(first: Run, second: Run) -> bool:
    a, b = load_file(first.weights), load_file(second.weights)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("given") / "run"
    return isthmus.train(RECIPE, backbone=net(), data=SPLITS, out=out, progress=False)


def test_a_module_is_trained_and_loaded_into_a_new_one(trained):
    user = net(seed=3)
    before = {name: value.clone() for name, value in user.state_dict().items()}
    model = trained.load(backbone=user)
    assert model.encoder.project.in_features == 24
    assert int(count_right(model, DIGITS.test, {})) / 359 == trained.info()["result"]["test_accuracy"] > 0.5
    assert all(torch.equal(value, before[name]) for name, value in user.state_dict().items())
    assert torch.equal(isthmus.load(trained.path, backbone=user).classifier.weight, model.classifier.weight)


def test_the_users_module_is_not_changed_by_training(tmp_path):
    user = net()
    before = {name: value.clone() for name, value in user.state_dict().items()}
    isthmus.train(RECIPE, {"training.epochs": 1}, backbone=user, data=SPLITS, out=tmp_path / "run", progress=False)
    assert all(torch.equal(value, before[name]) for name, value in user.state_dict().items())


def test_given_data_train_the_same_model_as_the_same_data_by_name(tmp_path):
    recipe = RECIPE | {"model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 4}}
    loader = DataLoader(TensorDataset(DIGITS.train.images / 255, DIGITS.train.labels), 64, shuffle=True)
    given = {"train": loader, "test": TensorDataset(*SPLITS["test"])}
    named = isthmus.train(recipe, data="digits", out=tmp_path / "named", progress=False)
    assert same(isthmus.train(recipe, data=given, out=tmp_path / "given", progress=False), named)


def test_every_form_of_the_same_data_has_the_same_fingerprint():
    images, labels = SPLITS["train"]
    forms = [
        (images, labels),
        (images.numpy(), labels.tolist()),
        (images.float() / 255, labels),
        TensorDataset(images, labels),
        DataLoader(TensorDataset(images, labels), 100, shuffle=True),
    ]
    assert {training_data({**SPLITS, "train": form}).fingerprint for form in forms} == {DIGITS.fingerprint}


def test_a_missing_test_part_is_a_fifth_of_each_class():
    data = training_data((DIGITS.train.images, DIGITS.train.labels))
    share = data.test.labels.bincount() / DIGITS.train.labels.bincount()
    assert len(data.train) + len(data.test) == len(DIGITS.train)
    assert np.allclose(share, 0.2, atol=0.005)
    assert "20% of each class" in data.note
    parts = [image.numpy().tobytes() for split in (data.train, data.test) for image in split.images]
    assert sorted(parts) == sorted(image.numpy().tobytes() for image in DIGITS.train.images)


VALIDATION = (DIGITS.test.images[:150], DIGITS.test.labels[:150])
OWN_PARTS = {**SPLITS, "validation": VALIDATION, "test": (DIGITS.test.images[150:], DIGITS.test.labels[150:])}
STOPPING = {"training.epochs": 3, "training.early_stopping": {"patience": 1, "metric": "ce"}}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("stopped") / "run"
    return isthmus.train(RECIPE, STOPPING, backbone=net(), data=OWN_PARTS, out=out, progress=False)


def test_early_stopping_uses_the_validation_part_and_training_all_of_its_own(stopped, trained):
    counts = {name: stopped.info()["data"][name] for name in ("train", "validation", "test")}
    assert counts == {"train": len(DIGITS.train), "validation": 150, "test": 209}
    model, result = stopped.load(backbone=net()), stopped.info()["result"]
    logits = model(as_float(VALIDATION[0])).detach()
    assert float((logits.argmax(1) == VALIDATION[1]).double().mean()) == result["validation_accuracy"]
    assert nn.functional.cross_entropy(logits.double(), VALIDATION[1]).item() == pytest.approx(result["validation_ce"])
    measured = [line["validation_ce"] for line in stopped.metrics() if "validation_ce" in line]
    assert result["validation_ce"] == min(measured)
    first = [next(line for line in run.metrics() if "epoch_ce" in line)["epoch_ce"] for run in (stopped, trained)]
    assert first[0] == first[1], "no training image is held out"


def test_parts_may_be_attributes_or_come_from_a_function(stopped, tmp_path, monkeypatch):
    module = SimpleNamespace(whole=lambda: OWN_PARTS, none=lambda: {"train": SPLITS["train"]}, typo=lambda: {"tset": 1})
    monkeypatch.setitem(sys.modules, "their_parts", module)
    known = stopped.info()["data"]["fingerprint"]
    assert training_data(SimpleNamespace(**OWN_PARTS)).fingerprint == load("their_parts:whole").fingerprint == known
    assert training_data({**OWN_PARTS, "validation": SPLITS["test"]}).fingerprint != known
    with pytest.raises(DataError, match="their_parts:none returned only 'train'; it needs 'test'"):
        load("their_parts:none")
    with pytest.raises(DataError, match="their_parts:typo returned: There is no part 'tset'. Did you mean 'test'"):
        load("their_parts:typo")
    assert len(load({"name": "their_parts:whole", "classes": ["3", "7"]}).validation) < 150


def test_a_share_beside_a_validation_part_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"training.validation=0.1 .* has 150 validation images of its own"):
        isthmus.train(RECIPE, {"training.validation": 0.1}, backbone=net(), data=OWN_PARTS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ready_data_are_taken_as_they_are():
    assert isinstance(training_data(DIGITS), ImageData)
    assert training_data(DIGITS) is DIGITS


def stop_at(step, monkeypatch):
    take_step = Trainer._step

    def take_and_stop(self, *arguments):
        take_step(self, *arguments)
        if self.step == step:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(Trainer, "_step", take_and_stop)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_interrupted_run_resumes_bitwise_whatever_the_new_modules_weights(
    trained, tmp_path, monkeypatch, caplog, seed
):
    stop_at(17, monkeypatch)
    with pytest.raises(RuntimeError, match="plug"):
        isthmus.train(RECIPE, backbone=net(), data=SPLITS, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    run = isthmus.train(RECIPE, backbone=net(seed=seed), data=SPLITS, out=tmp_path / "run", progress=False)
    assert same(run, trained)
    assert run.info()["initial"] == trained.info()["initial"]
    assert ("started from other weights" in caplog.text) == (seed == 1)


def test_a_finished_run_is_returned_for_the_same_module_and_refused_for_others(trained):
    def again(backbone, data=SPLITS):
        return isthmus.train(RECIPE, backbone=backbone, data=data, out=trained.path, progress=False)

    assert again(net()).path == trained.path
    with pytest.raises(ConfigError, match="started from other weights"):
        again(net(seed=1))
    with pytest.raises(ConfigError, match="different: model.backbone.structure"):
        again(net(width=20))
    with pytest.raises(ConfigError, match=r"another data \(different: .*fingerprint"):
        again(net(), (DIGITS.train.images, DIGITS.train.labels))


def test_what_was_not_given_again_is_asked_for(trained, tmp_path):
    with pytest.raises(ModelError, match=r"Sequential, was given in Python .* isthmus.load\(RUN, backbone=Sequential"):
        trained.load()
    with pytest.raises(DataError, match=r"given in Python .* isthmus.train\(RECIPE, data=...\)"):
        isthmus.train(trained.recipe, backbone=net(), out=tmp_path / "other")
    with pytest.raises(ModelError, match="other layers than this Sequential"):
        trained.load(backbone=net(width=20))
    named = isthmus.train(
        RECIPE, {"training.epochs": 1, "model.backbone": "conv"}, data="digits", out=tmp_path / "named", progress=False
    )
    with pytest.raises(ConfigError, match="builds its backbone, conv, from its recipe"):
        named.load(backbone=net())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (nn.Linear, r"got Linear. Give an instance, such as Net\(\)"),
        (nn.Conv2d(1, 4, 3), r"gives \(2, 4, 6, 6\) for 2 images of 1×8×8; .*Flatten"),
        (nn.Linear(3, 4), "The backbone Linear fails on images of 1×8×8"),
    ],
)
def test_a_backbone_that_does_not_fit_is_explained(tmp_path, backbone, message):
    with pytest.raises((ConfigError, ModelError), match=message):
        isthmus.train(RECIPE, backbone=backbone, data=SPLITS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": SPLITS["test"]}, "a part 'train', and perhaps 'validation' and 'test'; got 'test'"),
        (SPLITS | {"dev": 1}, "There is no part 'dev'. There is: test, train, validation"),
        (SPLITS | {"validaton": 1}, "There is no part 'validaton'. Did you mean 'validation'"),
        (
            SPLITS | {"validation": (DIGITS.test.images[:3], DIGITS.test.labels[:3] + 10)},
            "3 images of the part 'validation' have labels that no training image has, such as 1",
        ),
        ((torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])), "not of 8 bits a channel"),
        ((DIGITS.train.images[:4], torch.tensor([0, 1, 2, 3])), "4 images are too few"),
        ((DIGITS.train.images[:4], torch.tensor([0, -1, 2, 3])), r"labels of training data\[1\] is -1"),
        (3, "without labels"),
    ],
)
def test_data_that_do_not_fit_are_explained(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        isthmus.train(RECIPE, backbone=net(), data=data, out=tmp_path / "run")
