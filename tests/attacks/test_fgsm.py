"""FGSM on linear models, where one step attains the optimum."""

import pytest
import torch

from isthmus.attacks import FGSM, PGD
from tests.attacks.attacked_models import end_of, pictures
from tests.attacks.linear_models import THREATS, check_binary_accuracy, check_margin_drop, never_broken


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_margin_drops_by_eps_times_the_dual_norm(threat):
    check_margin_drop(FGSM(loss="margin"), threat)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_robust_accuracy_of_a_binary_model_is_the_closed_form(threat):
    check_binary_accuracy(FGSM(), threat)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_one_full_step_of_pgd_is_fgsm(threat):
    """Identity 15, to the bit."""
    images = pictures(12)
    model, batch = never_broken(images)
    one = PGD(steps=1, random_start=False, relative_step_size=1.0)
    ours = end_of(one, model, batch, threat)
    assert torch.equal(ours, end_of(FGSM(), model, batch, threat))
