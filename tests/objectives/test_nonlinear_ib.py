"""The nonlinear bottleneck: closed forms of its estimate, its gradient, its squared form, and training it."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.information import pairwise
from isthmus.information.codes import Codes
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian
from isthmus.information.kde import fit_kernel_variance, kde_information
from isthmus.models.bottleneck import Bottleneck
from isthmus.objectives.nonlinear_ib import NonlinearIB
from isthmus.training.loop import Trainer


def codes(means, std=1.0, classes=3):
    """Codes without noise around these means, whose logits are all alike."""
    means = torch.as_tensor(means, dtype=torch.float64)
    encoder = DiagonalGaussian(means, torch.full_like(means, math.log(std)))
    return still(encoder, classes)


def still(encoder, classes=3):
    z = encoder.mean.unsqueeze(0)
    logits = torch.zeros(1, len(encoder.mean), classes, dtype=z.dtype)
    return Codes(z, logits, encoder=encoder, noise=torch.zeros_like(z))


def test_equal_codes_say_nothing_and_far_ones_all_there_is():
    labels = torch.arange(4) % 3
    alike = NonlinearIB(power=1, rho=0.0).terms(codes(torch.zeros(4, 2)), labels)
    assert float(alike.total) == pytest.approx(math.log(3))
    far = NonlinearIB(power=1, rho=0.0).terms(codes(1e3 * torch.eye(4)), labels)
    assert float(far.total) == pytest.approx(math.log(3) + 0.5 * math.log(4))
    assert float(far.pairwise_lower) == pytest.approx(math.log(4))


def test_two_codes_in_closed_form():
    """−ln ½(1 + exp(−d²/2σ²)) above, with 8σ² below."""
    said = NonlinearIB(power=1, rho=0.0).terms(codes([[0.0], [3.0]], std=2.0), torch.tensor([0, 1]))
    upper, lower = (-math.log(0.5 * (1 + math.exp(-9 / (divisor * 4)))) for divisor in (2, 8))
    assert float(said.pairwise_upper) == pytest.approx(upper)
    assert float(said.pairwise_lower) == pytest.approx(lower)
    assert float(said.total) == pytest.approx(math.log(3) + 0.5 * upper)


def test_squared_and_weighted_as_they_should_be():
    z = codes(torch.randn(16, 2, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(16) % 3
    information = float(pairwise.upper(z.encoder.mean, 1.0).mean())
    squared = NonlinearIB(rate_weight=0.25).terms(z, labels)
    assert float(squared.total - squared.ce) == pytest.approx(0.25 * information**2)
    assert squared.weight == pytest.approx(0.25)
    free = NonlinearIB().terms(z, labels, rho=math.inf)
    assert float(free.total) == float(free.ce)


def test_gradients_reach_means_and_noise():
    means = torch.randn(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    log_std = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss(means, log_std):
        encoder = DiagonalGaussian(means, log_std.expand_as(means))
        return NonlinearIB(rho=0.0).terms(still(encoder), torch.arange(12) % 3).total

    assert torch.autograd.gradcheck(loss, (means, log_std))
    loss(means, log_std).backward()
    assert float(log_std.grad) < 0  # more noise, less information
    assert bool((means.grad != 0).any())


def test_the_form_of_2018_is_above_that_of_2019():
    z = codes(torch.randn(200, 2, generator=torch.Generator().manual_seed(2)))
    labels = torch.arange(200) % 3
    kde, upper = (
        float(NonlinearIB(estimate=kind, power=1, rho=0.0).terms(z, labels).total) for kind in ("kde", "upper")
    )
    assert kde != pytest.approx(upper, abs=1e-6)
    assert kde > math.log(3)


def kde_model(kernel_points=50):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
    objective = {"name": "nonlinear_ib", "estimate": "kde", "power": 1, "rho": 0.0, "kernel_points": kernel_points}
    return isthmus.bottleneck(backbone, 3, objective, 2, features=8, options={"encoder_std": 0.1})


def test_the_kernel_keeps_the_width_of_the_separate_images():
    """Î is that of the 2018 form with the kernel of other images, whatever the batch."""
    model, labels = kde_model().eval(), torch.arange(20) % 3
    others, images = torch.rand(50, 1, 2, 2), torch.rand(20, 1, 2, 2) / 4
    model.fit_kernel(others)
    width = fit_kernel_variance(model.encode(others).mean.detach())
    assert float(model.kernel_variance) == width != fit_kernel_variance(model.encode(images).mean.detach())
    with torch.no_grad():
        said = model.loss(images, labels)
    expected = kde_information(model.encode(images).mean.detach(), 0.1**2, width).mean()
    assert float(said.total - said.ce) == pytest.approx(0.5 * float(expected), rel=1e-5)


def test_fitting_the_kernel_moves_nothing_else():
    model = kde_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    model.fit_kernel(torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    after = model.state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"kernel_variance"}


def test_a_kernel_that_was_never_fitted_and_one_for_no_estimate_are_refused():
    with pytest.raises(isthmus.core.errors.ModelError, match="fit_kernel"):
        kde_model().loss(torch.rand(4, 1, 2, 2), torch.arange(4) % 3)
    with pytest.raises(isthmus.core.errors.ModelError, match="no kernel"):
        kde_model(0).fit_kernel(torch.rand(4, 1, 2, 2))
    with pytest.raises(isthmus.core.errors.ConfigError, match="estimate kde"):
        NonlinearIB(kernel_points=1000)
    with pytest.raises(isthmus.core.errors.ConfigError, match="at least 2"):
        NonlinearIB(estimate="kde", kernel_points=1)


def test_training_fits_the_kernel_anew_at_each_epoch_and_resumes_within_one(tmp_path, monkeypatch):
    recipe = {
        "name": "nib",
        "data": {"name": "digits", "train_limit": 300},
        "model": {"backbone": {"name": "mlp", "hidden": [16]}, "dim": 2, "covariance": "isotropic"},
        "objective": {"name": "nonlinear_ib", "estimate": "kde", "kernel_points": 60},
        "training": {"epochs": 3, "batch_size": 60, "checkpoint_every": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    }
    given, fit = [], Bottleneck.fit_kernel

    def watched(model, images):
        given.append(images)
        fit(model, images)

    monkeypatch.setattr(Bottleneck, "fit_kernel", watched)
    whole = isthmus.train(recipe, out=tmp_path / "whole", progress=False)
    assert [len(each) for each in given] == [60] * 3
    assert not torch.equal(given[0], given[1])
    step = Trainer._step

    def stops(trainer, parts):
        if trainer.step == 7:
            raise KeyboardInterrupt
        step(trainer, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            isthmus.train(recipe, out=tmp_path / "stopped", progress=False)
    again = isthmus.train(recipe, out=tmp_path / "stopped", progress=False)
    assert again.info()["result"] == whole.info()["result"]


def test_noise_that_differs_between_images_is_refused():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ConfigError, match="isotropic or identity, not diagonal"):
        isthmus.bottleneck(backbone, 3, "nonlinear_ib", 2, features=4, options={"covariance": "diagonal"})
    means = torch.zeros(4, 2)
    full = still(FullGaussian(means, torch.eye(2).expand(4, 2, 2)))
    with pytest.raises(isthmus.core.errors.ModelError, match="covariance isotropic"):
        NonlinearIB().terms(full, torch.arange(4) % 3)


def test_one_standard_deviation_is_trained_and_starts_where_it_is_told():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    model = isthmus.bottleneck(
        backbone,
        3,
        "nonlinear_ib",
        2,
        features=4,
        options={"classifier": "mlp", "classifier_hidden": (7,), "encoder_std": 0.1},
    )
    images = torch.rand(6, 1, 2, 2)
    std = model.encode(images).std
    assert torch.allclose(std, torch.full((6, 2), 0.1))
    assert [tuple(p.shape) for p in model.classifier.parameters()] == [(7, 2), (7,), (3, 7), (3,)]
    model.loss(images, torch.arange(6) % 3).total.backward()
    assert model.encoder.log_std.grad is not None
    assert float(model.encoder.log_std.grad) != 0


def test_it_trains_and_compresses(tmp_path):
    """A heavier weight leaves less of the image in the code."""
    recipe = {
        "name": "nib",
        "data": "digits",
        "model": {"backbone": {"name": "mlp", "hidden": [64]}, "dim": 2},
        "objective": {"name": "nonlinear_ib", "rate_weight": 0.01},
        "training": {"epochs": 12, "batch_size": 128, "optimizer": {"lr": 5e-3}},
    }
    results = [
        isthmus.train(
            recipe,
            {"objective": {"name": "nonlinear_ib", "rate_weight": weight}},
            out=tmp_path / f"{weight}",
            progress=False,
        ).info()["result"]
        for weight in (0.001, 0.3)
    ]
    assert results[0]["epoch_accuracy"] > 0.6
    assert results[0]["epoch_pairwise_upper"] > results[1]["epoch_pairwise_upper"] + 0.5
    for each in results:
        assert each["epoch_pairwise_lower"] <= each["epoch_pairwise_upper"] <= math.log(128)
