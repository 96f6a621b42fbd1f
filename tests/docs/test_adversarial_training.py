"""The page on adversarial training: its steps attack what they should, and leave the rest alone."""

import pytest
import torch
from torch.nn import functional

from isthmus import robust_accuracy
from tests.docs.doc_pages import DOCS, blocks

PAGE = DOCS / "adversarial-training.md"


@pytest.fixture(scope="module")
def page():
    """The names that the page defines, after its code has run."""
    namespace = {"__name__": "docs"}
    with torch.random.fork_rng():
        for block in blocks(PAGE, "python"):
            exec(compile(block.text, str(PAGE), "exec"), namespace)
    return namespace


@pytest.fixture
def batch(page):
    return page["x"][:64], page["y"][:64]


def test_the_attack_of_pgd_training_raises_the_loss(page, batch):
    model, (images, labels) = page["model"].eval(), batch
    clean = functional.cross_entropy(model(images), labels)
    attacked = functional.cross_entropy(model(page["attack"](images, labels)), labels)
    assert attacked > 2 * clean


def test_the_attack_of_trades_raises_the_divergence(page, batch):
    model, images = page["other"].eval(), batch[0]
    clean = model(images).detach()
    drawn = (images + 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.1).clamp(0, 1)
    x_adv = page["trades"](images, clean)
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6
    divergences = [page["divergence"](model(x), clean).mean() for x in (drawn, x_adv)]
    assert divergences[1] > 3 * divergences[0]


@pytest.mark.parametrize(("model", "step"), [("model", "pgd_step"), ("other", "trades_step")])
def test_a_step_has_all_gradients_and_keeps_the_mode(page, batch, model, step):
    net = page[model].train()
    net.zero_grad()
    loss = page[step](*batch)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(module.training for module in net.modules())
    assert loss > functional.cross_entropy(net(batch[0]), batch[1])
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    assert all(parameter.grad.any() for parameter in net.parameters() if parameter.dim() > 1)


@pytest.mark.parametrize("trained", ["model", "other"])
def test_both_trainings_make_the_network_more_robust_than_plain_training(page, trained):
    with torch.random.fork_rng():
        plain = page["network"]()
        page["train"](plain, lambda images, labels: functional.cross_entropy(plain(images), labels))
    accuracies = [
        robust_accuracy(net, page["x_test"], page["y_test"], "linf:0.1", "apgd:20").accuracy
        for net in (plain, page[trained])
    ]
    assert accuracies[1] > accuracies[0] + 0.1
