"""Minimal norms: what is recorded, of whom, and that every witness proves its size."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from isthmus.attacks import FMN, bisect_pgd, robust_accuracy, scan_fgsm
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import THREATS
from isthmus.core.errors import ConfigError, DataError, ModelError
from tests.attacks.attacked_models import PIXELS, Counting, Linear, Smooth, pictures, proposing, subject

NORMS = list(THREATS)
ORDER = {"linf": torch.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("norm", NORMS)
def test_every_witness_has_the_size_that_is_said_and_is_misclassified(norm):
    model, images, labels = subject()
    found = minimal_norms(model, images, labels, norm, ["fmn:30"])
    sizes = torch.linalg.vector_norm((found.adversarial.double() - images.double()).flatten(1), dim=1, ord=ORDER[norm])
    torch.testing.assert_close(found.sizes, sizes)
    assert (model(found.adversarial).argmax(1) != labels).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1


def test_clean_errors_have_size_zero_and_are_their_own_witnesses():
    model, images, labels = subject()
    found = minimal_norms(model, images, labels, "l2", ["fmn:10"])
    wrong = model(images).argmax(1) != labels
    assert torch.equal(found.sizes == 0, wrong)
    assert torch.equal(found.adversarial[wrong], images[wrong])
    assert found.found.all()
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
    assert not found.found.any()
    assert torch.equal(found.adversarial, images)
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
    suite = [FMN(steps=15, restarts=2)]
    whole = minimal_norms(model, images, labels, "l1", suite, seed=3)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    again = minimal_norms(
        model, images[order], labels[order], "l1", suite, seed=3, options=RunOptions(indices=order, batch_size=5)
    )
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
    minimal_norms(model, images, labels, "l2", ["fmn:5"], options=RunOptions(progress=seen.append))
    assert seen[-1].done == seen[-1].total == 8


def test_wrong_arguments_are_refused_before_any_pass():
    model, images, labels = subject(n=4)
    counting = Counting(model)
    with pytest.raises(ConfigError, match="no norm 'l3'. Did you mean"):
        minimal_norms(counting, images, labels, "l3")
    with pytest.raises(ConfigError, match="works in l2"):
        minimal_norms(counting, images, labels, "linf", ["fmn", "cw"])
    with pytest.raises(DataError, match="name an example twice"):
        minimal_norms(counting, images, labels, options=RunOptions(indices=torch.tensor([0, 1, 1, 2])))
    with pytest.raises(ModelError):
        minimal_norms(lambda images: images, images, labels)
    assert counting.forwards == 0


# --- targets ---


def binary(images):
    """A linear model of two classes; the target is the class that the model does not answer."""
    weight = torch.randn(2, PIXELS, generator=torch.Generator().manual_seed(3))
    logits = Linear(weight)(images).detach()
    model = Linear(weight, torch.stack([torch.zeros(()).double(), (logits[:, 0] - logits[:, 1]).quantile(0.5)]))
    labels = model(images).argmax(1)
    return model, labels, 1 - labels


def nearest(norm, model, image, target):
    """The least norm of δ with z_t ≥ z_j for every j and 0 ≤ x + δ ≤ 1, as a linear or quadratic programme."""
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()
    x, others = image.flatten().double().numpy(), [j for j in range(len(weight)) if j != target]
    rows = weight[others] - weight[target]  # rows·(x + δ) + (b_j − b_t) ≤ 0
    room = -(rows @ x) - (bias[others] - bias[target])
    if norm == "l2":
        found = optimize.minimize(
            lambda d: d @ d,
            np.zeros(PIXELS),
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints={"type": "ineq", "fun": lambda d: room - rows @ d, "jac": lambda d: -rows},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert found.success
        return float(np.sqrt(found.fun))
    # δ = p − q with p, q ≥ 0, and in ℓ∞ one more number t ≥ p + q
    cost = np.ones(2 * PIXELS) if norm == "l1" else np.r_[np.zeros(2 * PIXELS), 1.0]
    above = np.c_[rows, -rows] if norm == "l1" else np.c_[rows, -rows, np.zeros(len(rows))]
    bounds = [(0, 1 - pixel) for pixel in x] + [(0, pixel) for pixel in x]
    if norm == "linf":
        eye = np.eye(PIXELS)
        above = np.r_[above, np.c_[eye, eye, -np.ones(PIXELS)]]
        room, bounds = np.r_[room, np.zeros(PIXELS)], [*bounds, (0, None)]
    found = optimize.linprog(cost, above, room, bounds=bounds)
    assert found.success
    return float(found.fun)


CW = {"name": "cw", "steps": 100, "binary_search_steps": 8, "learning_rate": 0.02}
ATTACKS = {
    "linf": ["fmn:200", "fab:40"],
    "l2": ["fmn:200", "ddn:200", "fab:40", CW],
    "l1": ["fmn:200", "fab:40"],
}


@pytest.mark.parametrize(("norm", "attack"), [(norm, attack) for norm in NORMS for attack in ATTACKS[norm]])
def test_the_targeted_norm_of_two_classes_is_the_distance_to_the_hyperplane_within_the_box(norm, attack):
    cw = isinstance(attack, dict)  # in tanh space pixels at the walls hardly move
    images = pictures(6, low=0.2, high=0.8) if cw else pictures(6)
    model, labels, targets = binary(images)
    found = minimal_norms(model, images, labels, norm, [attack], options=RunOptions(targets=targets))
    exact = [nearest(norm, model, image, int(target)) for image, target in zip(images, targets, strict=True)]
    assert (found.sizes.numpy() >= np.array(exact) * (1 - 1e-5)).all()
    np.testing.assert_allclose(found.sizes.numpy(), exact, rtol=0.03, atol=2e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_with_many_classes_each_target_is_as_far_as_its_own_region(norm):
    """Untargeted, every image's nearest other class counts; targeted, only the one asked for, however far."""
    model = Linear(torch.randn(4, PIXELS, generator=torch.Generator().manual_seed(5)))
    images = pictures(6)
    labels = model(images).argmax(1)
    logits = model(images).detach().scatter(1, labels[:, None], -torch.inf)
    farthest = logits.masked_fill(logits.isinf(), torch.inf).argmin(1)
    untargeted = minimal_norms(model, images, labels, norm, ["fmn:50"])
    found = minimal_norms(model, images, labels, norm, ["fmn:200"], options=RunOptions(targets=farthest))
    exact = np.array([nearest(norm, model, image, int(target)) for image, target in zip(images, farthest, strict=True)])
    assert (found.sizes.numpy() >= exact * (1 - 1e-5)).all()
    np.testing.assert_allclose(found.sizes.numpy(), exact, rtol=0.06, atol=2e-3)
    assert torch.equal(model(found.adversarial).argmax(1), farthest)
    assert torch.equal(found.targets, farthest)
    assert untargeted.targets is None
    assert (untargeted.sizes <= found.sizes + 1e-3).all()
    assert (untargeted.sizes < 0.9 * found.sizes).any()


@pytest.mark.parametrize("measure", [scan_fgsm, partial(bisect_pgd, bisections=4)], ids=["fgsm", "pgd"])
def test_foolbox_s_protocol_goes_to_the_target_too(measure):
    images = pictures(6)
    model, labels, targets = binary(images)
    at_any, at_target = (
        measure(model, images, labels),
        measure(model, images, labels, options=RunOptions(targets=targets)),
    )
    exact = [nearest("linf", model, image, int(target)) for image, target in zip(images, targets, strict=True)]
    assert (at_target.sizes.numpy() >= np.array(exact) * (1 - 1e-5)).all()
    torch.testing.assert_close(at_target.sizes, at_any.sizes, rtol=1e-2, atol=1e-3)  # of two classes, the same
    model, images, labels = subject(n=11)
    answers = model(images).argmax(1)
    targets = torch.where((answers + 2) % 3 == labels, (answers + 1) % 3, (answers + 2) % 3)
    found = measure(model, images, labels, options=RunOptions(targets=targets))
    reached = found.sizes.isfinite()
    assert reached.any()
    assert torch.equal(model(found.adversarial[reached]).argmax(1), targets[reached])


@pytest.mark.parametrize(
    "attack",
    [
        "pgd:20",
        {"name": "pgd", "steps": 8, "targets": "all"},
        "apgd:20",
        {"name": "multitargeted", "steps": 10, "restarts": 1},
        "square:200",
        "rays:300",
        "fgsm",
        {"name": "race", "ce_steps": 4, "rounds": ((1.0, 9, 4), (1.0, 1, 6)), "queries": 20, "sample_queries": 10},
    ],
    ids=lambda attack: attack if isinstance(attack, str) else attack["name"] + "-directed",
)
def test_the_other_attacks_go_to_the_target_as_well(attack):
    """Some end at the walls of the box, but none counts another class."""
    images = pictures(5, seed=3)
    model = Smooth(seed=1)
    labels = model(images).argmax(1)
    targets = (labels + 1) % 3
    found = minimal_norms(model, images, labels, "l2", [attack], options=RunOptions(targets=targets))
    reached = found.sizes.isfinite()
    assert reached.any()
    assert torch.equal(model(found.adversarial[reached]).argmax(1), targets[reached])


def test_what_already_is_the_target_has_size_zero_and_other_clean_errors_are_attacked():
    model, images, labels = subject()
    answers = model(images).argmax(1)
    targets = (labels + 1) % 3  # subject's clean errors are labelled one above the answer: their target is another
    targets[1] = answers[1]
    labels = labels.clone()
    labels[1] = (answers[1] + 1) % 3
    found = minimal_norms(model, images, labels, "l2", ["fmn:40"], options=RunOptions(targets=targets))
    assert torch.equal(found.sizes == 0, answers == targets)
    errors = (answers != labels) & (answers != targets)
    assert errors.any()
    assert (found.sizes[errors] > 0).all()
    torch.testing.assert_close(found.accuracy(0), float((answers != targets).double().mean()))


def test_targeted_norms_agree_with_a_targeted_evaluation():
    model, images, labels = subject()
    targets = (labels + 1) % 3
    found = minimal_norms(model, images, labels, "l2", ["fmn:50"], options=RunOptions(targets=targets))
    for eps in (0.2, 0.5):
        result = robust_accuracy(model, images, labels, f"l2:{eps}", ["fmn:50"], options=RunOptions(targets=targets))
        assert found.accuracy(eps) <= result.accuracy + 1e-9


def test_wrong_targets_are_refused():
    model, images, labels = subject(n=4)
    for targets, says in (
        (labels.clone(), "has its own label"),
        ((labels + 1).float(), "must be integers"),
        (labels[:3] + 1, "one for each of 4 images"),
        (torch.full((4,), 3), "is 3; with 3 classes"),
        (torch.full((4,), -1), "must not be negative"),
    ):
        with pytest.raises(DataError, match=says):
            minimal_norms(model, images, labels, options=RunOptions(targets=targets))
