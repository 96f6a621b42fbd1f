"""A really trained model on real digits: the attacks rank as they should."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from isthmus.attacks import L1, L2, Linf, robust_accuracy


@pytest.fixture(scope="module")
def trained():
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8)
    labels = torch.tensor(digits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(3):
            for rows in torch.randperm(1400).split(50):
                optimiser.zero_grad()
                functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimiser.step()
    return model.eval(), images[1400:1600], labels[1400:1600]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2)], ids=str)
def test_pgd_40_breaks_at_least_what_fgsm_breaks(trained, threat):
    weak, strong = (robust_accuracy(*trained, threat, [name]) for name in ("fgsm", "pgd"))
    assert weak.clean_accuracy > 0.85
    assert 0.05 < weak.accuracy < 0.8
    assert strong.accuracy <= weak.accuracy
    assert (weak.broken & strong.broken).sum() >= 0.97 * weak.broken.sum()


def test_a_large_radius_leaves_nothing(trained):
    assert robust_accuracy(*trained, Linf(0.5)).accuracy == 0
    assert robust_accuracy(*trained, L2(4)).accuracy == 0
    assert robust_accuracy(*trained, L1(20)).accuracy == 0


def test_batch_size_does_not_move_the_result(trained):
    model, images, labels = trained
    few = model, images[:24], labels[:24]
    suite = [{"name": "apgd", "steps": 20}, {"name": "apgd", "steps": 10, "loss": "dlr", "targets": 9}]
    suite += [{"name": "fab", "steps": 10}, {"name": "square", "queries": 100}]
    results = [robust_accuracy(*few, Linf(0.08), suite, batch_size=size, seed=2) for size in (24, 9)]
    assert 0 < results[0].accuracy < 0.95
    assert (results[0].broken != results[1].broken).sum() <= 1  # convolutions round differently by batch
