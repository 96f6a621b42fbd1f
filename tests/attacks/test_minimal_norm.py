"""Minimal norms: what is recorded, of whom, and that every witness proves its size."""

import math

import pytest
import torch
from attacked_models import PIXELS, Counting, Linear, Smooth, pictures, proposing, subject
from torch import nn

from isthmus.attacks import fmn, robust_accuracy
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import THREATS
from isthmus.errors import ConfigError, DataError, ModelError

NORMS = list(THREATS)
ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("norm", NORMS)
def test_every_witness_has_the_size_that_is_said_and_is_misclassified(norm):
    model, images, labels = subject()
    found = minimal_norms(model, images, labels, norm, ["fmn:30"])
    sizes = torch.linalg.vector_norm((found.witnesses.double() - images.double()).flatten(1), dim=1, ord=ORDER[norm])
    torch.testing.assert_close(found.sizes, sizes)
    assert (model(found.witnesses).argmax(1) != labels).all()
    assert found.witnesses.min() >= 0
    assert found.witnesses.max() <= 1


def test_clean_errors_have_size_zero_and_are_their_own_witnesses():
    model, images, labels = subject()
    found = minimal_norms(model, images, labels, "l2", ["fmn:10"])
    wrong = model(images).argmax(1) != labels
    assert torch.equal(found.sizes == 0, wrong)
    assert torch.equal(found.witnesses[wrong], images[wrong])
    assert [by == "clean" for by in found.found_by] == wrong.tolist()
    assert found.accuracy(0) == 1 - float(wrong.double().mean())


def test_accuracy_is_the_share_of_larger_norms_and_agrees_with_an_evaluation():
    model, images, labels = subject()
    found = minimal_norms(model, images, labels, "l2", ["fmn:50"])
    ranked = found.sizes.sort().values
    assert found.accuracy(float(ranked[30])) == (len(images) - 31) / len(images)
    for eps in (0.1, 0.3):
        assert found.accuracy(eps) <= robust_accuracy(model, images, labels, f"l2:{eps}", ["fmn:50"]).accuracy + 1e-9
    assert found.median == pytest.approx(float(found.sizes.quantile(0.5)))


def test_where_nothing_is_found_the_norm_is_infinite():
    weight = torch.zeros(2, PIXELS)
    weight[1] = 0.01
    model = Linear(weight, torch.tensor([1.0, 0.0]))  # even all-white images stay in class 0
    images, labels = pictures(5), torch.zeros(5, dtype=torch.int64)
    found = minimal_norms(model, images, labels, "linf", ["fmn:20"])
    assert found.sizes.isinf().all()
    assert found.found_by == (None,) * 5
    assert found.witnesses.isnan().all()
    assert found.median == math.inf
    assert found.accuracy(1.0) == 1


class Broken(nn.Module):
    """NaN for bright images."""

    def __init__(self):
        super().__init__()
        self.model = Smooth()

    def forward(self, images):
        bad = images.flatten(1).mean(1) > 0.55
        return self.model(images).masked_fill(bad[:, None], torch.nan)


def test_what_is_set_aside_has_no_norm():
    images = pictures()
    bad = images.flatten(1).mean(1) > 0.55
    assert 0 < bad.sum() < len(images)
    labels = Smooth()(images).argmax(1)
    found = minimal_norms(Broken(), images, labels, "l2", ["fmn:10"])
    assert found.sizes[bad].isnan().all()
    assert found.accuracy(0) <= float((~bad).double().mean())
    assert not math.isnan(found.median)


def test_the_smallest_of_several_attacks_counts():
    model, images, labels = subject()
    first, second = ({"name": "fmn", "steps": 12}, {"name": "fmn", "steps": 12, "alpha": 0.2})
    one, two, both = (
        minimal_norms(model, images, labels, "l2", suite) for suite in ([first], [second], [first, second])
    )
    assert both.attacks == ("clean", "fmn", "fmn-2")
    torch.testing.assert_close(both.sizes[both.stage == 1], one.sizes[both.stage == 1])
    assert (both.sizes <= one.sizes).all()
    assert set(both.found_by) == {"clean", "fmn", "fmn-2"}
    assert (two.sizes < one.sizes).any()


def test_an_attack_without_a_search_is_recorded_as_well():
    model, images, labels = subject()
    attack = proposing(lambda batch, threat: 1 - batch.images, label="negative")
    found = minimal_norms(model, images, labels, "linf", [attack])
    turned = model(1 - images).argmax(1) != labels
    sizes = (1 - 2 * images).abs().flatten(1).amax(1).double()
    right = model(images).argmax(1) == labels
    torch.testing.assert_close(found.sizes[right & turned], sizes[right & turned])
    assert found.sizes[right & ~turned].isinf().all()


def test_order_indices_and_batch_size_change_nothing():
    model, images, labels = subject(n=24)
    suite = [fmn.Config(steps=15, restarts=2)]
    whole = minimal_norms(model, images, labels, "l1", suite, seed=3)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    again = minimal_norms(model, images[order], labels[order], "l1", suite, seed=3, indices=order, batch_size=5)
    torch.testing.assert_close(again.sizes, whole.sizes[order], rtol=0, atol=1e-6)
    assert (again.forward_passes, again.backward_passes) == (whole.forward_passes, whole.backward_passes)


def test_passes_are_counted_and_larger_successes_cost_none():
    model, images, labels = subject()
    counting = Counting(model)
    found = minimal_norms(counting, images, labels, "l2", ["fmn:25"])
    assert (found.forward_passes, found.backward_passes) == (counting.forwards, counting.backwards)
    right = int((model(images).argmax(1) == labels).sum())
    less = minimal_norms(model, images, labels, "l2", ["fmn:10"])
    assert found.backward_passes - less.backward_passes == 15 * right
    large = proposing(lambda batch, threat: (1 - batch.images).round(), label="large")
    more = minimal_norms(model, images, labels, "l2", ["fmn:25", large])
    assert more.forward_passes == found.forward_passes


def test_it_tells_how_far_it_is():
    model, images, labels = subject(n=8)
    seen = []
    minimal_norms(model, images, labels, "l2", ["fmn:5"], progress=seen.append)
    assert seen[-1].done == seen[-1].total == 8


def test_wrong_arguments_are_refused_before_any_pass():
    model, images, labels = subject(n=4)
    counting = Counting(model)
    with pytest.raises(ConfigError, match="no norm 'l3'. Did you mean"):
        minimal_norms(counting, images, labels, "l3")
    with pytest.raises(ConfigError, match="'cw' minimises the ℓ2 norm"):
        minimal_norms(counting, images, labels, "linf", ["fmn", "cw"])
    with pytest.raises(DataError, match="name an example twice"):
        minimal_norms(counting, images, labels, indices=torch.tensor([0, 1, 1, 2]))
    with pytest.raises(ModelError):
        minimal_norms(lambda images: images, images, labels)
    assert counting.forwards == 0
