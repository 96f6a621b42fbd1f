"""The loop: what it records, its options, and what it does when training goes wrong."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import isthmus
from isthmus.cli import app
from isthmus.core.errors import ConfigError, DataError, FileError, ModelError
from isthmus.core.recipe import load_recipe
from isthmus.information.codes import Codes
from isthmus.training.evaluation import count_right
from isthmus.training.loop import Trainer, noise_seed
from isthmus.training.optimizers import parameter_groups
from isthmus.training.run import ENDED, Run
from tests.training.recipes import TINY

SMALL = {
    "name": "small",
    "data": {"name": "digits", "train_limit": 320, "test_limit": 100},
    "model": {"backbone": {"name": "mlp", "hidden": [32]}, "dim": 4},
    "objective": "ceb",
    "training": {"epochs": 2, "batch_size": 64, "log_every": 2, "optimizer": {"lr": 0.01}},
}


def train(tmp_path, **overrides) -> Run:
    return isthmus.train(SMALL, overrides, out=tmp_path / "run", progress=False)


def test_it_learns_real_digits(tmp_path):
    run = isthmus.train(SMALL, {"data.train_limit": None, "training.epochs": 8}, out=tmp_path / "run", progress=False)
    model = run.load()
    test = run.recipe.data.load().test
    assert int(count_right(model, test, {})) / len(test) == run.info()["result"]["test_accuracy"] > 0.9


def test_metrics_are_json_lines_with_every_measured_term(tmp_path):
    lines = train(tmp_path).metrics()
    steps = [line for line in lines if "epoch_ce" not in line]
    assert [line["step"] for line in steps] == [2, 4, 6, 8, 10]
    assert {"ce", "accuracy", "residual", "rate", "rate_lower", "rate_upper", "i_yz_lower", "lr", "rho"} <= set(
        steps[0]
    )
    maxima = [line["rate_lower_max"] for line in steps]
    assert maxima == sorted(maxima)
    assert maxima[-1] >= max(line["rate_lower"] for line in steps)
    epochs = [line for line in lines if "epoch_ce" in line]
    assert [line["epoch"] for line in epochs] == [0, 1]


def test_every_epoch_says_its_means_also_where_the_test_set_is_not_asked(tmp_path):
    lines = train(tmp_path, **{"training.epochs": 5, "training.validate_every": 2}).metrics()
    epochs = [line for line in lines if "epoch_accuracy" in line]
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3, 4]
    assert [line["epoch"] for line in epochs if "test_accuracy" in line] == [1, 3, 4]


def test_reported_numbers_are_means_over_their_window(tmp_path):
    lines = train(tmp_path, **{"training.log_every": 1}).metrics()
    first = [line["ce"] for line in lines if "ce" in line and line["epoch"] == 0]
    epoch = next(line for line in lines if "epoch_ce" in line)
    assert epoch["epoch_ce"] == pytest.approx(sum(first) / len(first))


@pytest.mark.parametrize(
    "overrides",
    [
        {"training.optimizer": {"name": "sgd", "nesterov": True}},
        {"training.clip_norm": 0.5},
        {"training.channels_last": True, "model.backbone": "conv"},
        {"objective": "deterministic"},
        {"objective": {"name": "vib", "normalize": "rate", "kl": "sampled"}, "model.samples": 3},
        {"training.rho_schedule": "ceb_001"},
        {"model.normalize": "dataset"},
    ],
    ids=lambda o: next(iter(o)),
)
def test_options_train(tmp_path, overrides):
    run = train(tmp_path, **overrides)
    assert run.info()["status"] in ENDED
    assert all(value.isfinite().all() for value in run.load().state_dict().values())


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_reaches_the_backbone_and_not_the_densities(tmp_path, name, dtype):
    recipe = load_recipe(SMALL, {"training.precision": name})
    data = recipe.data.load()
    trainer = Trainer(recipe, data, Run(tmp_path))
    dtypes = []
    trainer.model.backbone.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    trainer.model.classifier.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    trainer._step([next(trainer.batches.epoch())])
    assert dtypes == [dtype, torch.float32]


def half(tmp_path, scale, **overrides):
    """A trainer in fp16 whose loss is scaled by so much."""
    recipe = load_recipe(SMALL, {"training.precision": "fp16", "training.optimizer": {"name": "sgd"}, **overrides})
    trainer = Trainer(recipe, recipe.data.load(), Run(tmp_path))
    trainer.group.loss_scale.restore(trainer.group.loss_scale.facts() | {"scale": scale})
    return trainer


def test_in_fp16_gradients_are_those_of_float32_whatever_the_scale(tmp_path):
    """A power of 2 changes no digit of them, and clipping and observers see them without it."""
    found = []
    for scale in (1.0, 2.0**10):
        trainer = half(tmp_path, scale, **{"training.clip_norm": 1e-3})
        trainer._step([next(trainer.batches.epoch())])
        found.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
        assert found[-1].norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert torch.allclose(*found, rtol=1e-2, atol=1e-7)


def test_in_fp16_a_step_that_overflows_is_left_out_and_the_loss_scaled_less(tmp_path):
    trainer = half(tmp_path, 2.0**40)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer._step([next(trainer.batches.epoch())])
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.group.loss_scale.facts()["scale"] == 2.0**39
    trainer.group.loss_scale.restore(trainer.group.loss_scale.facts() | {"scale": 2.0**10})
    trainer._step([next(trainer.batches.epoch())])
    assert not all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_fp16_that_always_overflows_stops_before_a_checkpoint(tmp_path):
    trainer = half(tmp_path, 2.0**-15)
    with pytest.raises(ModelError, match="gradients overflow in fp16.*training.precision=float32"):
        trainer.group.loss_scale.check(3)


def test_gradients_are_clipped(tmp_path):
    recipe = load_recipe(SMALL, {"training.clip_norm": 1e-3, "training.optimizer": {"name": "sgd", "momentum": 0}})
    trainer = Trainer(recipe, recipe.data.load(), Run(tmp_path))
    trainer._step([next(trainer.batches.epoch())])
    norm = torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_marginal_beside_ceb_has_its_own_optimiser(tmp_path):
    recipe = load_recipe(TINY)
    trainer = Trainer(recipe, recipe.data.load(), Run(tmp_path))
    main, beside = parameter_groups(trainer.model)
    assert {id(p) for p in beside} == {id(p) for p in trainer.model.marginal.parameters()}
    assert not {id(p) for p in main} & {id(p) for p in beside}
    assert set(trainer.optimizers) == {"optimizer", "marginal_optimizer"}
    vib = load_recipe(TINY, {"objective": "vib", "training.rho_schedule": None})
    trainer = Trainer(vib, vib.data.load(), Run(tmp_path))
    assert set(trainer.optimizers) == {"optimizer"}


def test_a_marginal_beside_ceb_does_not_change_the_classifier(tmp_path):
    """The same CEB run with and without a learned marginal ends with the same encoder, to the bit."""
    base = {"model.covariance": "full", "training.clip_norm": 1.0}
    plain = isthmus.train(SMALL, base, out=tmp_path / "plain", progress=False).load().state_dict()
    beside = isthmus.train(
        SMALL, base | {"model.marginal": "mixture", "model.components": 5}, out=tmp_path / "mixture", progress=False
    ).load()
    assert all(torch.equal(beside.state_dict()[name], value) for name, value in plain.items())


def test_seeds_differ_in_order_weights_and_noise():
    seeds = {noise_seed(seed, step) for seed in range(20) for step in range(500)}
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == 10_000  # all that the CPU's generator looks at


def test_a_last_batch_of_one_example_trains(tmp_path):
    run = train(tmp_path, **{"data.train_limit": 65})
    assert math.isfinite(run.info()["result"]["epoch_rate_upper"])


def test_a_checkpoint_after_the_first_step_can_be_written(tmp_path):
    assert train(tmp_path, **{"training.checkpoint_every": 1, "training.batch_size": 320}).weights.exists()


def test_bounds_use_the_entropy_of_the_training_labels(tmp_path):
    """Four of five labels are one class: a collapsed run knows nothing about the label, and says so."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, count in (("a", 80), ("b", 20)):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    overrides = {"data": f"folder:{folder}", "objective.rho": -8, "training.optimizer.lr": 1e-3, "training.epochs": 20}
    result = train(tmp_path, **overrides).info()["result"]
    assert result["epoch_i_yz_lower"] < 0.1
    assert result["collapsed"] is True


def test_a_gate_that_never_opens_is_reported(tmp_path):
    gate = {"start": 10, "epochs": 0, "hold": -8, "gate": 0.99, "release": 1}
    result = train(tmp_path, **{"training.rho_schedule": gate, "training.optimizer.lr": 1e-4}).info()["result"]
    assert result["collapsed"] is True


def test_given_is_what_was_given(tmp_path):
    info = train(tmp_path, seed=4, **{"training.ema": 0.9}).info()
    assert info["given"]["training"] == SMALL["training"] | {"optimizer": {"lr": 0.01}, "ema": 0.9}
    assert "normalize" not in info["given"]["model"]


def test_a_run_is_found_by_its_path_as_text(tmp_path, caplog):
    run = train(tmp_path, **{"training.epochs": 1, "training.rho_schedule": "ceb_001"})
    assert Run(str(run.path)) == run
    assert Run(str(run.path)).weights.exists()
    assert not [record for record in caplog.records if "replaces" in record.message], "schedules are meant to"


def test_a_faulty_recipe_does_not_take_the_folder(tmp_path):
    with pytest.raises(ConfigError, match="has no rho"):
        train(tmp_path, **{"objective": "deterministic", "training.rho_schedule": "ceb_001"})
    train(tmp_path, objective="deterministic")


def test_weights_that_are_no_numbers_are_never_written(tmp_path):
    overrides = {
        "training.optimizer": {"name": "sgd", "lr": 1e30},
        "training.log_every": 1000,
        "training.checkpoint_every": 3,
    }
    with pytest.raises(ModelError, match="diverged"):
        train(tmp_path, **overrides)
    assert not Run(tmp_path / "run").checkpoint.exists()


@pytest.mark.parametrize("objective", ["ceb", pytest.param("vib", marks=pytest.mark.slow)])
def test_the_rate_form_trains_under_a_jump_start(tmp_path, objective):
    overrides = {"objective": {"name": objective, "rho": 1, "normalize": "rate"}, "training.rho_schedule": "ceb_001"}
    result = train(tmp_path, **overrides, **{"training.epochs": 40}).info()["result"]
    assert result["test_accuracy"] > 0.75


def test_another_name_of_the_knob_replaces_the_recipes(tmp_path):
    recipe = load_recipe(SMALL, {"objective": {"name": "vib", "rate_weight": 1e-3}})
    assert load_recipe(recipe, ["objective.rate_weight=1e-2"]).objective.rho == pytest.approx(math.log(99))
    given = {**SMALL, "objective": {"name": "vib", "rate_weight": 1e-3}}
    assert load_recipe(given, ["objective.rho=2"]).objective.rho == 2


def test_a_diverging_run_is_stopped_and_said(tmp_path):
    with pytest.raises(ModelError, match=r"diverged at step \d+ .* smaller learning rate"):
        train(tmp_path, **{"training.optimizer": {"name": "sgd", "lr": 1e30}})
    assert not Run(tmp_path / "run").weights.exists()


def test_a_collapse_is_reported_not_hidden(tmp_path):
    run = train(tmp_path, **{"objective.rho": -8, "training.optimizer.lr": 1e-4})
    info = run.info()
    assert info["result"]["collapsed"] is True
    assert info["result"]["impossible"] is False
    assert "at chance" in info["result"]["collapse"]
    assert info["status"] == "collapsed"
    assert run.load() is not None


def test_a_collapsed_run_exits_non_zero(tmp_path, capsys):
    recipe = tmp_path / "small.json"
    recipe.write_text(json.dumps(SMALL))
    given = ["train", str(recipe), "objective.rho=-8", "training.optimizer.lr=1e-4", "--out", str(tmp_path / "run")]
    for _ in range(2):  # trained, and found as it is
        assert app.run([*given, "--quiet"], debug=False) == 2
        assert "Error: Training collapsed. Accuracy on the training images is at chance." in capsys.readouterr().err


def test_impossible_terms_end_training_as_a_collapse(tmp_path, monkeypatch):
    """What whitening a rounded code did: log e(z|x) too low, so that the residual information is below 0."""
    log_encoder = Codes.log_encoder.fget
    monkeypatch.setattr(Codes, "log_encoder", property(lambda codes: log_encoder(codes) - 100.0))
    run = train(tmp_path, **{"objective.kl": "sampled", "training.log_every": 3})
    info = run.info()
    assert info["status"] == "collapsed"
    assert info["result"]["step"] == 3
    assert info["result"]["collapsed"] is info["result"]["impossible"] is True
    assert "residual information is -" in info["result"]["collapse"]
    assert run.metrics()[-1]["collapsed"] is True
    assert count_right(run.load(), run.recipe.data.load().test, {}) >= 0
    monkeypatch.undo()
    assert train(tmp_path, **{"objective.kl": "sampled", "training.log_every": 3}).info() == info  # not trained again


def test_an_ill_conditioned_factor_is_no_way_out(tmp_path):
    """On random labels at ρ = 7, log e(z|x) of the rounded code took the total to -4.6e24, and the run "finished"."""
    recipe = {
        "name": "random",
        "data": {"name": "digits", "train_limit": 1000, "test_limit": 100, "random_labels": 0},
        "model": {"backbone": {"name": "mlp", "hidden": [512, 512]}, "dim": 4, "covariance": "full",
                  "classifier": "mlp"},
        "objective": {"name": "ceb", "rho": 7, "kl": "sampled"},
        "training": {"epochs": 10, "batch_size": 128, "optimizer": {"lr": 1e-2}},
    }  # fmt: skip
    result = isthmus.train(recipe, out=tmp_path / "run", progress=False).info()["result"]
    assert 1.5 < result["epoch_total"] < 2.3  # from ln 10 downwards, as labels are learned by heart
    assert result["epoch_residual"] > 0
    assert result["epoch_rate_lower"] < min(result["epoch_rate"], result["epoch_rate_upper"])


def test_the_average_is_what_is_saved_and_evaluated(tmp_path):
    run = train(tmp_path, **{"training.ema": 0.5})
    raw = isthmus.train(SMALL, out=tmp_path / "raw", progress=False)
    averaged, last = run.load(), raw.load()
    assert not torch.equal(averaged.encoder.project.weight, last.encoder.project.weight)
    test = run.recipe.data.load().test
    assert int(count_right(averaged, test, {})) / len(test) == run.info()["result"]["test_accuracy"]


def test_run_json_tells_how_to_repeat_it(tmp_path):
    info = train(tmp_path, seed=4).info()
    assert load_recipe(info["recipe"]).seed == 4
    assert info["given"]["seed"] == 4
    assert info["data"]["fingerprint"]
    assert info["starts"][0]["packages"]["torch"] == torch.__version__


def test_a_model_whose_weights_were_swapped_is_explained(tmp_path):
    run = train(tmp_path)
    other = isthmus.train(SMALL, {"model.dim": 5}, out=tmp_path / "other", progress=False)
    run.weights.write_bytes(other.weights.read_bytes())
    with pytest.raises(ModelError, match="do not fit the model"):
        isthmus.load(run.path)


def test_unfinished_missing_and_foreign_folders_are_explained(tmp_path):
    with pytest.raises(FileError, match="no run folder"):
        isthmus.load(tmp_path / "none")
    with pytest.raises(FileError, match="There is no file"):
        isthmus.load(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(FileError, match="is not valid"):
        isthmus.load(tmp_path)


def test_unfinished_runs_have_no_model(tmp_path):
    run = train(tmp_path)
    run.weights.unlink()
    with pytest.raises(FileError, match="has no weights yet"):
        isthmus.load(run.path)


def test_missing_data_is_explained_before_anything_is_written(tmp_path):
    with pytest.raises(DataError):
        isthmus.train(SMALL, {"data": f"folder:{tmp_path / 'none'}"}, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_same_seed_trains_the_same_model_whatever_the_global_generator(tmp_path):
    torch.manual_seed(1)
    first = isthmus.train(SMALL, out=tmp_path / "a", progress=False).load().state_dict()
    torch.manual_seed(2)
    second = isthmus.train(SMALL, out=tmp_path / "b", progress=False).load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_bottleneck_ceb_is_the_deterministic_objective_plus_noise(tmp_path):
    run = train(tmp_path, **{"objective.rho": math.inf})
    assert all(line["total"] == pytest.approx(line["ce"]) for line in run.metrics() if "total" in line)


def test_models_of_users_are_not_changed_by_training_ours(tmp_path):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    train(tmp_path)
    assert torch.equal(model.weight, before)
