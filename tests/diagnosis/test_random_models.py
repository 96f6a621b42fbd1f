"""Models that answer at random: how close to the best perturbation the averaged follow-up comes."""

import pytest
import torch
from tests.diagnosis.trained_digits import held_out, undefended
from torch import nn

from isthmus.attacks import Linf, pgd, robust_accuracy
from isthmus.attacks.engine.inputs import examples
from isthmus.diagnosis import follow_up
from isthmus.diagnosis.context import QUICK, DiagnosisContext

EPS, NEEDED, SIGMA = 0.1, 0.84, 5.0


class NoisySlopes(nn.Module):
    """Two classes, whose difference of logits is linear in x − ½: slopes of one and, in each draw, noise of σ = 5.

    The noise is symmetrical, so that the average prediction errs just where the mean of x − ½ exceeds what is needed:
    84% of the most that a perturbation in the ball can reach.
    """

    def forward(self, images):
        x = images.flatten(1) - 0.5
        slopes = 1 + SIGMA * torch.randn_like(x)
        lead = 40 * ((slopes * x).mean(1) - NEEDED * EPS)
        return torch.stack([torch.zeros_like(lead), lead], 1)


def test_averaged_gradients_come_close_to_the_best_perturbation_of_a_noisy_model():
    """APGD on averaged draws, which the follow-up ran before, leaves 3 of the 8."""
    labels = torch.zeros(8, dtype=torch.int64)
    suspect = DiagnosisContext(NoisySlopes(), examples(torch.full((8, 1, 8, 8), 0.5), labels), Linf(EPS), QUICK)
    follow_up.averaged(suspect)
    assert suspect.best.robust.sum() <= 1


class Unsure(nn.Module):
    """Another model's argmax, with probabilities that hardly differ from 1/10."""

    def __init__(self, model, noise=0.0, takes_keys=False):
        super().__init__()
        self.model, self.noise, self.takes_keys = model, noise, takes_keys

    def forward(self, images, keys=None):
        logits = 2e-4 * self.model(images)
        return logits + self.noise * torch.randn_like(logits) if self.noise else logits


@pytest.mark.parametrize("options", [{"noise": 1e-6}, {"takes_keys": True}], ids=["noise", "keys"])
def test_a_random_model_gains_nothing_by_being_unsure(options):
    suite, (images, labels) = [pgd.Config(steps=20, loss="margin")], held_out(20)
    honest = robust_accuracy(undefended(), images, labels, Linf(0.08), suite)
    assert 0 < honest.accuracy < 1
    found = robust_accuracy(Unsure(undefended(), **options), images, labels, Linf(0.08), suite)
    assert found.random
    assert found.accuracy == honest.accuracy
