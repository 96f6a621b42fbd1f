"""Losses against definitions written out, and where they saturate."""

import pytest
import torch
from torch.nn import functional

from isthmus.attacks.losses import LOSSES, ce, directed_dlr, dlr, log_odds, margin, margin_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 2.5]])
LABELS = torch.tensor([0, 2])


def test_values_by_definition():
    p = LOGITS.softmax(1)[torch.arange(2), LABELS]
    torch.testing.assert_close(ce(LOGITS, LABELS), -p.log())
    torch.testing.assert_close(margin(LOGITS, LABELS), torch.tensor([1.5, -0.5]))
    torch.testing.assert_close(margin_loss(LOGITS, LABELS), torch.tensor([-1.5, 0.5]))
    torch.testing.assert_close(log_odds(LOGITS, LABELS), ((1 - p) / p).log())
    torch.testing.assert_close(functional.softplus(log_odds(LOGITS, LABELS)), ce(LOGITS, LABELS))


@pytest.mark.parametrize("name", ["margin", "log_odds"])
def test_gradients_do_not_saturate_where_the_cross_entropy_does(name):
    logits = (1000 * LOGITS[:1]).requires_grad_()
    (gradient,) = torch.autograd.grad(ce(logits, LABELS[:1]).sum(), logits)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad(LOSSES[name](logits, LABELS[:1]).sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_two_classes_are_enough(name):
    values = LOSSES[name](torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    assert values.isfinite().all()
    assert values[0] < values[1]


@pytest.mark.parametrize("classes", [3, 4, 7])
@pytest.mark.parametrize("name", ["dlr", "dlr directed"])
def test_the_dlr_loss_knows_neither_scale_nor_shift(classes, name):
    """Identity 15, in float64 up to its guard against a division by zero."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(50, classes, generator=generator).double()
    labels, target_class = torch.zeros(50, dtype=torch.int64), torch.full((50,), classes - 1)

    def value(z):
        return dlr(z, labels) if name == "dlr" else directed_dlr(z, labels, target_class)

    torch.testing.assert_close(value(37 * logits + 5), value(logits), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_the_directed_dlr_loss_has_a_gradient_for_every_aim(classes):
    logits = torch.randn(20, classes, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    labels = logits.argmax(1)
    for shift in range(1, classes):
        (gradient,) = torch.autograd.grad(directed_dlr(logits, labels, (labels + shift) % classes).sum(), logits)
        assert (gradient.abs().sum(1) > 1e-6).all()


def test_the_dlr_losses_are_those_of_the_paper():
    logits = torch.tensor([[5.0, 3.0, 2.0, 1.0, 0.0]])
    assert dlr(logits, torch.tensor([0])).item() == pytest.approx((3 - 5) / (5 - 2))
    assert dlr(logits, torch.tensor([1])).item() == pytest.approx((5 - 3) / (5 - 2))
    directed = directed_dlr(logits, torch.tensor([0]), torch.tensor([3]))
    assert directed.item() == pytest.approx((1 - 5) / (5 - (2 + 1) / 2))


def test_with_two_classes_the_dlr_losses_are_the_margin():
    logits, labels = torch.tensor([[1.0, 3.0], [2.0, -1.0]]), torch.tensor([0, 0])
    assert torch.equal(dlr(logits, labels), margin_loss(logits, labels))
    assert torch.equal(directed_dlr(logits, labels, torch.tensor([1, 1])), margin_loss(logits, labels))
