"""Adversarial training: the optimal perturbation where it is known, the threat kept, and real robustness gained."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softplus

import isthmus
from isthmus.attacks.threats import THREATS, parse
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.randomness import example_keys
from isthmus.core.recipe import load_recipe
from isthmus.core.training_options import Adversarial
from isthmus.core.types import Terms
from isthmus.data.images import as_float
from isthmus.models.learner import Learner
from isthmus.training.adversarial import Adversary
from isthmus.training.loop import Trainer
from isthmus.training.run import Run

DIGITS = {
    "name": "digits-pgd",
    "data": {"name": "digits", "train_limit": 128, "test_limit": 50},
    "model": {"backbone": {"name": "mlp", "hidden": [32]}, "dim": 4},
    "objective": "deterministic",
    "training": {"epochs": 1, "batch_size": 64, "optimizer": {"lr": 0.01}, "adversarial": "pgd:3 linf:0.1"},
}
BATCH_NORM = {"model.backbone": {"name": "wide_resnet", "depth": 7, "width": 1, "norm": True}}


class Linear(Learner):
    """Two classes, logits ∓½(w·x + b)."""

    def __init__(self, w, b):
        super().__init__(None, None)
        self.w, self.b = nn.Parameter(w), nn.Parameter(b)

    def forward(self, images):
        half = (images.flatten(1) @ self.w + self.b) / 2
        return torch.stack([-half, half], 1)

    def loss(self, images, labels, rho=None, noise=None, gather=None):
        ce = cross_entropy(self(images), labels)
        return Terms(ce, ce, ce.new_zeros(()))


def linear(n=40):
    """A linear model, and images so far inside the box that it stops no perturbation below 0.2."""
    torch.manual_seed(0)
    model = Linear(torch.randn(64, dtype=torch.float32), torch.tensor(0.3))
    images = 0.3 + 0.4 * torch.rand(n, 1, 8, 8)
    return model, images, torch.randint(2, (n,)), example_keys(0, torch.arange(n))


@pytest.mark.parametrize(
    ("settings", "dual"),
    [
        ({"threat": "linf:0.1"}, 1),
        ({"threat": "linf:0.1", "loss": "margin", "random_start": False}, 1),
        ({"threat": "linf:0.1", "steps": 1, "step_size": 0.2}, 1),
        ({"threat": "l2:0.2", "random_start": False}, 2),
        ({"threat": "l1:0.2", "random_start": False}, math.inf),
    ],
    ids=str,
)
def test_on_a_linear_model_the_loss_is_that_of_margins_less_eps_times_the_dual_norm(settings, dual):
    """max over ‖δ‖ ≤ ε of CE is softplus(−(y(w·x + b) − ε‖w‖*)): a step has this loss, and its gradient (Danskin)."""
    model, images, labels, keys = linear()
    adversary = Adversary(Adversarial(**settings), model)
    loss = model.loss(adversary.perturb(images, labels, keys), labels).total
    margins = (2 * labels - 1) * (images.flatten(1) @ model.w + model.b)
    expected = softplus(-(margins - adversary.threat.eps * model.w.norm(dual))).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found = torch.autograd.grad(loss, [model.w, model.b])
    for mine, closed in zip(found, torch.autograd.grad(expected, [model.w, model.b]), strict=True):
        assert torch.allclose(mine, closed, atol=1e-5)


def test_the_box_counts_too():
    """Against x in {0, 1} only half of the signs fit: the optimum clips to the box, pixel by pixel."""
    model, images, labels, keys = linear()
    images = images.round()
    found = Adversary(Adversarial(threat="linf:0.1"), model).perturb(images, labels, keys)
    towards = (1 - 2 * labels)[:, None] * model.w.sign()
    best = (images + 0.1 * towards.view(-1, 1, 8, 8)).clamp(0, 1)
    assert torch.allclose(found, best, atol=1e-6)


def trainer(tmp_path, overrides=()) -> Trainer:
    recipe = load_recipe(DIGITS, overrides)
    return Trainer(recipe, recipe.data.load(), Run(tmp_path))


def seen_by(trainer: Trainer, steps: int = 1):
    """Batches, and the images that the loss saw instead."""
    batches, seen, loss = [], [], trainer.model.loss
    trainer.model.loss = lambda images, *rest: seen.append(images) or loss(images, *rest)
    stream = trainer.batches.epoch()
    for _ in range(steps):
        batches.append(next(stream))
        trainer._step([batches[-1]])
    return batches, seen


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5", "l1:3"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_sees_images_inside_the_ball_and_the_box(tmp_path, threat, precision):
    overrides = {
        "training.adversarial": f"pgd:3 {threat}",
        "training.precision": precision,
        "training.augment": "crop_flip",
        "training.channels_last": True,
    }
    batches, seen = seen_by(trainer(tmp_path, overrides), steps=2)
    for batch, images in zip(batches, seen, strict=True):
        assert parse(threat).contains(images, batch.images).all()
        assert (parse(threat).norm(images - batch.images) > 0.5 * parse(threat).eps).float().mean() > 0.9
        assert not images.requires_grad


def test_the_attack_raises_the_loss_of_the_very_model_in_training(tmp_path):
    one = trainer(tmp_path, BATCH_NORM | {"training.adversarial": "pgd:5 linf:0.1"})
    batch = next(one.batches.epoch())
    attacked = one.adversary.attack(batch, 0).images
    one.model.eval()
    before, after = (cross_entropy(one.model(images), batch.labels) for images in (batch.images, attacked))
    assert after > before


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_attack_leaves_the_model_as_it_was(tmp_path, mode):
    one = trainer(tmp_path, BATCH_NORM | {"training.adversarial.batch_norm": mode})
    state = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.adversary.attack(next(one.batches.epoch()), 0)
    assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())
    assert all(parameter.grad is None for parameter in one.model.parameters())
    assert all(module.training for module in one.model.modules())


def test_running_statistics_are_of_the_images_that_are_learned_from(tmp_path):
    """After a step they are those of one pass over the adversarial images."""
    one, other = (trainer(tmp_path, BATCH_NORM | {"training.adversarial.batch_norm": "train"}) for _ in range(2))
    _, (images,) = seen_by(one)
    other.model.loss(images, next(other.batches.epoch()).labels)
    statistics = dict(other.model.named_buffers())
    assert any("running_mean" in name for name in statistics)
    assert all(torch.equal(value, statistics[name]) for name, value in one.model.named_buffers())


def test_the_mode_of_batch_norm_matters(tmp_path):
    """In eval mode an image is attacked alike in any batch; with the batch's statistics it is not."""
    for mode, alike in (("eval", True), ("train", False)):
        one = trainer(tmp_path, BATCH_NORM | {"training.adversarial.batch_norm": mode})
        batch = next(one.batches.epoch())
        half = type(batch)(*(column[:32] for column in batch))
        whole, part = (one.adversary.attack(each, 0).images[:32] for each in (batch, half))
        assert torch.allclose(whole, part, atol=1e-4) is alike


def test_every_step_draws_anew_and_repeats(tmp_path):
    one = trainer(tmp_path)
    batch = next(one.batches.epoch())
    first, again, later = (one.adversary.attack(batch, step).images for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_stochastic_mode_attacks_drawn_codes(tmp_path):
    vib = {"objective": {"name": "vib", "rho": 0}, "model.covariance": "diagonal", "model.samples": 2}
    mean, drawn = (
        trainer(tmp_path, {**vib, "training.adversarial.mode": mode}).adversary for mode in ("mean", "stochastic")
    )
    batch = next(trainer(tmp_path).batches.epoch())
    found, again = (drawn.attack(batch, 0).images for _ in range(2))
    assert torch.equal(found, again)
    assert not torch.equal(found, mean.attack(batch, 0).images)
    assert drawn.threat.contains(found, batch.images).all()


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**16, 2.0**60], ids=str)
def test_in_fp16_no_scale_of_the_loss_leads_out_of_the_threat(tmp_path, scale):
    """A gradient that overflows moves nothing, rather than making pixels that are no numbers."""
    for threat in ("linf:0.1", "l2:0.5", "l1:3"):
        overrides = {"training.precision": "fp16", "training.adversarial": f"pgd:3 {threat}"}
        one = trainer(tmp_path, overrides)
        one.group.loss_scale.restore(one.group.loss_scale.facts() | {"scale": scale})
        (batch,), (images,) = seen_by(one)
        assert one.adversary.threat.contains(images, batch.images).all()


OBJECTIVES = {
    "deterministic": {},
    "vib": {},
    "ceb": {"model.marginal": "mixture", "model.components": 4},
    "catgen": {"model.covariance": "diagonal"},
    "bidirectional": {"model.covariance": "diagonal"},
    "hierarchical": {"model.covariance": "diagonal"},
    "nonlinear_ib": {"model.covariance": "isotropic"},
    **{
        name: {"model": {"backbone": {"name": "mlp", "hidden": [32]}, "hypothesis": {"hidden": [16, 16]}}}
        for name in ("energy_based", "f_divergence", "donsker_varadhan")
    },
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_with_labels_trains(tmp_path, objective):
    run = isthmus.train(DIGITS, {"objective": objective, **OBJECTIVES[objective]}, out=tmp_path, progress=False)
    assert run.info()["result"]["step"] == 2
    assert not run.info()["result"].get("impossible", False)
    assert all(value.isfinite().all() for value in run.load().state_dict().values())


def test_parts_of_a_batch_are_attacked_as_the_whole(tmp_path):
    weights = []
    for parts in (1, 4):
        overrides = {"training.accumulate": parts, "training.optimizer": {"name": "sgd", "lr": 0.05}}
        run = isthmus.train(DIGITS, overrides, out=tmp_path / str(parts), progress=False)
        weights.append(run.load().state_dict())
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_an_accuracy_below_chance_under_attack_is_no_collapse(tmp_path, monkeypatch):
    """ε = 1 lets the attack turn any digit into any other; the network is fine on clean ones."""
    monkeypatch.setattr(Trainer, "_accuracy_and_ce", lambda *_: (0.8, 1.0))
    overrides = {"training.adversarial": "pgd:3 linf:1"}
    result = isthmus.train(DIGITS, overrides, out=tmp_path / "fine", progress=False).info()["result"]
    assert result["epoch_accuracy"] < 0.12
    assert not result["collapsed"]
    monkeypatch.setattr(Trainer, "_accuracy_and_ce", lambda *_: (0.1, 3.0))
    assert isthmus.train(DIGITS, overrides, out=tmp_path / "not", progress=False).info()["result"]["collapsed"]


@pytest.mark.parametrize(
    ("limit", "epochs", "steps", "suite", "n"),
    [
        (640, 12, 3, ["pgd:20"], None),
        pytest.param(None, 15, 7, "fast", 40, marks=pytest.mark.slow),
    ],
    ids=["small", "whole"],
)
def test_it_makes_digits_robust(limit, epochs, steps, suite, n, tmp_path):
    """Real digits: the plain network keeps next to nothing at ℓ∞ 0.15, the adversarially trained one half of them."""
    options = {
        "data.train_limit": limit,
        "model.backbone.hidden": [64],
        "model.dim": 16,
        "training.epochs": epochs,
    }
    robust = {}
    for name, adversarial in (("plain", None), ("pgd", f"pgd:{steps} linf:0.15")):
        settings = {**options, "training.adversarial": adversarial}
        run = isthmus.train(DIGITS, settings, out=tmp_path / name, progress=False)
        test = run.recipe.data.load().test
        images, labels = as_float(test.images[:n]), test.labels[:n]
        robust[name] = isthmus.robust_accuracy(run.load(), images, labels, parse("linf:0.15"), suite).accuracy
    assert robust["pgd"] > robust["plain"] + 0.3


def settings_of(given) -> Adversarial:
    return load_recipe(DIGITS, {"training.adversarial": given}).training.adversarial


def test_a_recipe_names_it_shortly_or_with_options():
    assert settings_of(None) is None
    assert settings_of("pgd:7") == Adversarial() == settings_of({"steps": 7})
    assert settings_of("pgd:2 l2:0.5") == Adversarial(steps=2, threat="l2:0.5") == settings_of("pgd:2  l2:0.5 ")
    full = settings_of({"name": "pgd:7 linf:8/255", "step_size": "2/255", "batch_norm": "train"})
    assert full == Adversarial(step_size=2 / 255, batch_norm="train")
    changed = load_recipe(DIGITS, ["training.adversarial.threat=l1:3", "training.adversarial.mode=stochastic"])
    assert changed.training.adversarial == Adversarial(steps=3, threat="l1:3", mode="stochastic")
    assert load_recipe(changed.plain()) == changed == load_recipe(changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pdg:7", "no attack to train with 'pdg'. Did you mean 'pgd'"),
        ("apgd:7", "no attack to train with 'apgd'"),
        ("", "no attack to train with"),
        ("pgd:7 linf:8/255 more", "written pgd:STEPS NORM:EPS.*got 'pgd:7 linf:8/255 more'"),
        ("pgd:many", "training.adversarial.steps: .*integer.*got 'many'"),
        ("pgd:0", "training.adversarial.steps: .*greater than 0"),
        ({"name": "pgd", "epsilon": 1}, "no key 'epsilon'"),
        ({"step_size": "2/0"}, "training.adversarial.step_size: give a number or a fraction"),
        ({"step_size": -1}, "training.adversarial.step_size: .*greater than 0"),
        ({"mode": "random"}, "training.adversarial.mode: .*'mean' or 'stochastic'"),
        (7, "training.adversarial: .*got 7"),
    ],
)
def test_mistakes_are_explained(given, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(given)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.adversarial": "pgd:7 linff:0.1"}, "training.adversarial.threat: .*no threat 'linff'.*'linf'"),
        ({"training.adversarial": "pgd:7 linf:8"}, "training.adversarial.threat: .*Did you mean 8/255"),
        ({"training.adversarial": "pgd:7 0.1"}, "training.adversarial.threat: A threat is written norm:ε"),
        ({"training.adversarial.mode": "stochastic"}, "mode=stochastic attacks the random codes.*mode=mean"),
        (
            {"training.adversarial.mode": "stochastic", "objective": "energy_based", **OBJECTIVES["energy_based"]},
            "mode=stochastic",
        ),
        ({"objective": "predictive"}, "'predictive' learns from pairs without labels"),
        ({"objective": "denoising"}, "'denoising' learns from pairs without labels"),
    ],
)
def test_what_cannot_be_attacked_is_refused_before_anything_is_written(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        isthmus.train(DIGITS, overrides, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_gradient_is_explained():
    model, images, labels, keys = linear()
    model.forward = lambda images: Linear.forward(model, images.round().detach())
    with pytest.raises(ModelError, match="no gradient with respect to its images"):
        Adversary(Adversarial(), model).perturb(images, labels, keys)


def test_every_threat_can_be_trained_against():
    model, images, labels, keys = linear(4)
    for name in THREATS:
        found = Adversary(Adversarial(threat=f"{name}:0.2"), model).perturb(images, labels, keys)
        assert parse(f"{name}:0.2").contains(found, images).all()
