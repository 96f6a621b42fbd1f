"""PGD on linear models, where the best perturbation is known."""

import numpy as np
import pytest
import torch

from isthmus.attacks import PGD, robust_accuracy
from isthmus.attacks.threats import L1, L2, Linf
from tests.attacks.attacked_models import Linear, end_of, pictures
from tests.attacks.linear_models import (
    DUAL,
    THREATS,
    check_binary_accuracy,
    check_margin_drop,
    largest_gain,
    margins,
    never_broken,
    through_the_middle,
    weights,
)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=60, random_start=False, loss="log_odds"),
        PGD(steps=60, random_start=False, loss="margin", relative_step_size=1, decay=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_margin_drops_by_eps_times_the_dual_norm(threat, attack):
    check_margin_drop(attack, threat)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_robust_accuracy_of_a_binary_model_is_the_closed_form(threat):
    check_binary_accuracy(PGD(steps=60, random_start=False), threat)


@pytest.mark.parametrize("threat", [Linf(0.3), L2(0.9), L1(2.0)], ids=str)
def test_at_the_walls_of_the_box_pgd_attains_the_constrained_optimum(threat):
    images = pictures(12)
    model, batch = never_broken(images)
    config = PGD(steps=400, relative_step_size=0.03, loss="margin", random_start=False)
    found = end_of(config, model, batch, threat)
    drop = margins(model, images, batch.labels) - margins(model, found, batch.labels)
    direction = (model.weight[1] - model.weight[0]).detach().numpy()
    best = [largest_gain(threat, direction, image) for image in images.flatten(1).double().numpy()]
    assert (drop.numpy() <= np.array(best) * (1 + 1e-5)).all()
    np.testing.assert_allclose(drop, best, rtol=5e-3)


def test_a_random_start_loses_nothing_in_linf():
    images = pictures(200, low=0.3, high=0.7)
    model = through_the_middle(images)
    labels = model(images).argmax(1)
    outcomes = [
        robust_accuracy(model, images, labels, Linf(0.05), [PGD(random_start=start)]).broken for start in (True, False)
    ]
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_with_many_classes_no_attack_claims_more_than_is_possible(threat):
    images = pictures(100, low=0.3, high=0.7)
    model = Linear(weights(6))
    labels = model(images).argmax(1)
    logits = model(images).double().detach()
    lead = logits.gather(1, labels[:, None]) - logits
    w = model.weight.detach()
    reach = threat.eps * torch.linalg.vector_norm(w[labels][:, None] - w[None], ord=DUAL[threat.name], dim=2)
    truly_robust = ((lead > reach) | (lead == 0)).all(1)
    result = robust_accuracy(model, images, labels, threat, ["fgsm", "pgd", {"name": "pgd", "loss": "margin"}])
    assert not (result.broken & truly_robust).any()
    assert float(result.robust.float().mean() - truly_robust.float().mean()) <= 0.03
