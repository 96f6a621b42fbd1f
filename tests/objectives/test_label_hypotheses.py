"""Objectives on label hypotheses, trained for real: they recover the divergence of a table, and eliminate labels."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.information.codes import Hypotheses
from isthmus.information.f_divergences import DIVERGENCES, Pairs
from isthmus.information.mmd import label_information
from isthmus.objectives import DonskerVaradhan, EnergyBased, FDivergence

JOINT = torch.tensor([[10.0, 2.0, 1.0], [2.0, 8.0, 2.0], [1.0, 2.0, 10.0], [3.0, 3.0, 6.0]])
"""How often each image of four is seen with each of three labels: 50 pairs, which are the batch."""


def batch():
    pairs = [(x, y) for x in range(4) for y in range(3) for _ in range(int(JOINT[x, y]))]
    images, labels = torch.tensor(pairs).T
    return nn.functional.one_hot(images, 4).float()[:, None, None], labels


def ratios():
    """p(x, y) and p(x)·u(y) with uniform labels, and their ratio."""
    p = JOINT.double() / JOINT.sum()
    q = p.sum(1, keepdim=True).expand_as(p) / 3
    return p, q, p / q


def trained(objective, steps=400):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4 + 3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    model = isthmus.hypothesis(nn.Flatten(), trunk, 3, objective=objective)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    images, labels = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        terms = model.loss(images, labels)
        terms.total.backward()
        optimizer.step()
    return model, terms.scalars()


def posterior_error(model):
    p, _, _ = ratios()
    found = model(torch.eye(4)[:, None, None]).softmax(1).double()
    return float((found - p / p.sum(1, keepdim=True)).abs().max().detach())


@pytest.mark.parametrize("name", ["donsker_varadhan", pytest.param("energy_based", marks=pytest.mark.slow)])
def test_bounds_on_kl_recover_it(name):
    """KL(p(x, y) ‖ p(x)·u(y)) = ln C − H(Y|X), and the scores are the posterior's logits."""
    p, _, ratio = ratios()
    model, terms = trained(name)
    assert terms["bound"] == pytest.approx(float((p * ratio.log()).sum()), abs=2e-3)
    assert posterior_error(model) < 0.02


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("kl", "js") else pytest.mark.slow)
        for name in DIVERGENCES
        if name != "total_variation"
    ],
)
def test_f_divergences_recover_theirs(name):
    """Each by its textbook sum; the scores are log-ratios, so that their softmax is the posterior."""
    _, q, ratio = ratios()
    model, terms = trained({"name": "f_divergence", "divergence": name})
    expected = float((q * DIVERGENCES[name].f(ratio)).sum())
    assert terms["bound"] == pytest.approx(expected, abs=3e-3)
    assert terms["bound"] <= expected + 1e-5
    assert posterior_error(model) < 0.03
    found = model(torch.eye(4)[:, None, None]).double()
    assert float((found - ratio.log()).abs().max().detach()) < 0.15


def test_total_variation_recovers_its_own_and_the_sides():
    _, q, ratio = ratios()
    model, terms = trained({"name": "f_divergence", "divergence": "total_variation"}, steps=1500)
    expected = float((q * 0.5 * (ratio - 1).abs()).sum())
    assert expected - 5e-3 < terms["bound"] <= expected + 1e-6
    clear = (ratio.log().abs() > 0.2).float()
    found = model(torch.eye(4)[:, None, None])
    assert bool((found.sign() * clear == ratio.log().sign() * clear).all())


def test_elimination_leaves_less_of_the_label():
    """In the same network, at the same accuracy, with what the regulariser minimises measured beside it."""
    torch.manual_seed(0)
    labels = torch.arange(120) % 3
    images = (nn.functional.one_hot(labels, 3).float() + 0.3 * torch.randn(120, 3))[:, None, None]
    left, accuracy = {}, {}
    for rho in (math.inf, 1.0):
        torch.manual_seed(1)
        trunk = nn.Sequential(
            nn.Linear(3 + 3, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()
        )
        trunk.append(nn.Linear(8, 1))
        objective = {"name": "energy_based", "rho": rho}
        model = isthmus.hypothesis(nn.Flatten(), trunk, 3, objective=objective, options={"eliminate": 4})
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(400):
            optimizer.zero_grad()
            model.loss(images, labels).total.backward()
            optimizer.step()
        left[rho] = float(label_information(model.representations(images), labels).unbiased.sum().detach())
        accuracy[rho] = float((model(images).argmax(1) == labels).float().mean())
    assert left[1.0] < 0.5 * left[math.inf]
    assert accuracy[1.0] > 0.9


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("name", ["donsker_varadhan", "energy_based", *DIVERGENCES])
def test_totals_and_gradients_are_finite_however_wild_the_scores(name, size):
    if name in DIVERGENCES:
        objective = FDivergence(divergence=name)
    else:
        objective = {"donsker_varadhan": DonskerVaradhan, "energy_based": EnergyBased}[name]()
    generator = torch.Generator().manual_seed(0)
    scores = (size * torch.randn(12, 5, generator=generator)).requires_grad_()
    labels = torch.arange(12) % 5
    terms = objective.terms(Hypotheses(scores, lambda: None), labels)
    (gradient,) = torch.autograd.grad(terms.total, scores)
    assert math.isfinite(float(terms.total.detach()))
    assert bool(gradient.isfinite().all())


def test_a_batch_is_a_table_of_its_own_pairs():
    """E_P over the true pairs, E_Q over all n·C, as the paper pairs them."""
    scores, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 0])
    pairs = Pairs.of_batch(scores, labels)
    own = scores[torch.arange(6), labels]
    assert float(pairs.expected(scores)) == pytest.approx(float(own.mean()))
    expected = own.mean() - (scores.exp().mean().log())
    found = DonskerVaradhan().terms(Hypotheses(scores, lambda: None), labels).bound
    assert float(found) == pytest.approx(float(expected))
    # eq. 2 and its ln 4, written out
    js = own.sigmoid().log().mean() + (1 - scores.sigmoid()).log().mean() + math.log(4)
    found = FDivergence().terms(Hypotheses(scores, lambda: None), labels).bound
    assert float(found) == pytest.approx(float(js))
