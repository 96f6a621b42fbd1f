"""Bidirectional CEB: its equation, and the symmetry of its two halves."""

from __future__ import annotations

import math

import pytest
import torch

from isthmus.core import config
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes
from isthmus.information.gaussians import kl
from tests.objectives.contrastive_codes import DIM, LABELS, SAMPLES, N, codes, drawn, gaussians, terms


@pytest.mark.parametrize("form", ["closed", "sampled"])
def test_bidirectional_is_its_equation(form):
    given = codes(label_noise=True)
    found = terms("bidirectional", given, 0.5, kl=form)
    one_way = terms("catgen", given, 0.5, kl=form)
    z = given.backward[LABELS].sample(given.label_noise)
    back = among_codes(given.encoder, z).mean()
    ratio = (given.backward[LABELS].log_prob(z) - given.encoder.log_prob(z)).mean()
    reverse = kl(given.backward[LABELS], given.encoder).mean() if form == "closed" else ratio
    torch.testing.assert_close(found.total, one_way.total + back + math.exp(-0.5) * reverse)
    torch.testing.assert_close(found.reverse_ce, back)
    torch.testing.assert_close(found.reverse_residual, reverse)


def test_both_directions_agree_where_both_encoders_do():
    """With a class for each image and b = e, the two halves are the same expectation: equal noise, equal terms."""
    encoder, noise = gaussians("diagonal", N), drawn(SAMPLES, N, DIM)
    z = encoder.sample(noise)
    same = Codes(z, encoder.scores(z), None, encoder, encoder, label_noise=noise, noise=noise)
    chosen = config.component("objectives", {"name": "bidirectional"})
    found = chosen.terms(same, torch.arange(N))
    torch.testing.assert_close(found.ce, found.reverse_ce)
    assert float(found.residual) == pytest.approx(0, abs=1e-12) == float(found.reverse_residual)
