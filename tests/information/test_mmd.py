"""Maximum mean discrepancy (identity 10), label information in a representation, and the cost."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from isthmus.core.errors import DataError
from isthmus.information import mmd
from isthmus.information.mmd import label_information, median_distance, mmd2

PAIRINGS = ("matched_vs_rest", "matched_vs_all", "all_classes")
any_of_many = settings(max_examples=40)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def batch(n=24, hypotheses=4, d=3, seed=0, dtype=torch.float64):
    """Representations that partly separate labels, and labels with at least two of each class."""
    labels = torch.arange(n) % hypotheses
    labels[hypotheses * 2 :] = labels[hypotheses * 2 :].div(2, rounding_mode="floor")  # some classes have more
    z = draw(hypotheses, n, d, seed=seed)
    z[..., 0] += labels
    return (2.0 * z).to(dtype), labels


def loop(a, b, sigma, unbiased, shared=False):
    """Equation 7, pair by pair; ``shared`` when a is the first part of b, whose pairs with themselves are left out."""

    def mean(u, v, same):
        values = [
            math.exp(-float(((x - y) ** 2).sum()) / (2 * sigma**2))
            for (i, x), (j, y) in itertools.product(enumerate(u), enumerate(v))
            if not (unbiased and same and i == j)
        ]
        return sum(values) / len(values)

    a, b = a.numpy(), b.numpy()
    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, shared)


def first_own(z, labels, k):
    """Representations of class k, and of everyone with those first."""
    return z[labels == k], torch.cat([z[labels == k], z[labels != k]])


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_against_a_loop_over_pairs(sigma, unbiased):
    a, b = draw(7, 3), 0.5 + draw(9, 3, seed=1)
    assert mmd2(a, b, sigma, unbiased=unbiased).item() == pytest.approx(loop(a, b, sigma, unbiased), abs=1e-13)


@any_of_many
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 40), st.floats(0.1, 10), st.integers(0, 999))
def test_against_kernels_of_sklearn(n, m, d, sigma, seed):
    a, b = draw(n, d, seed=seed), 1.0 + 2.0 * draw(m, d, seed=seed + 1000)
    aa, bb, ab = (rbf_kernel(u.numpy(), v.numpy(), gamma=0.5 / sigma**2) for u, v in ((a, a), (b, b), (a, b)))
    biased = aa.mean() + bb.mean() - 2 * ab.mean()
    unbiased = (aa.sum() - n) / (n * n - n) + (bb.sum() - m) / (m * m - m) - 2 * ab.mean()
    assert mmd2(a, b, sigma).item() == pytest.approx(biased, abs=1e-12)
    assert mmd2(a, b, sigma, unbiased=True).item() == pytest.approx(unbiased, abs=1e-12)


@any_of_many
@given(st.integers(2, 30), st.integers(2, 30), st.floats(0.05, 20), st.integers(0, 999))
def test_biased_is_never_negative_and_both_are_symmetric(n, m, sigma, seed):
    """Identity 10, up to the rounding of squared distances against the narrowest kernel."""
    a, b = draw(n, 3, seed=seed), draw(m, 3, seed=seed + 1000)
    for width, unbiased in itertools.product((sigma, None), (False, True)):
        found = mmd2(a, b, width, unbiased=unbiased).item()
        assert mmd2(b, a, width, unbiased=unbiased).item() == pytest.approx(found, abs=1e-11)
        assert unbiased or found >= -1e-11


@any_of_many
@given(st.integers(2, 30), st.floats(0.05, 20), st.integers(0, 999))
def test_the_same_multiset_is_at_no_distance(n, sigma, seed):
    """Identity 10; and the unbiased form is below 0 then, by what the kernels with themselves had added."""
    a = draw(n, 3, seed=seed)
    b = a[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
    assert mmd2(a, b, sigma).item() == pytest.approx(0.0, abs=1e-11)
    assert mmd2(a.float(), b.float(), sigma).item() == pytest.approx(0.0, abs=1e-6)
    assert mmd2(a, b, sigma, unbiased=True).item() <= 1e-11


def spread(values):
    values = torch.stack(values)
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def test_of_equal_distributions_the_unbiased_form_averages_to_nothing_and_the_biased_to_its_floor():
    """Identity 10: (1 − E k)(1/m + 1/n) = .0711 for m = n = 25, d = 4, σ = 1."""
    pairs = [(draw(25, 4, seed=2 * i), draw(25, 4, seed=2 * i + 1)) for i in range(600)]
    mean, error = spread([mmd2(a, b, 1.0, unbiased=True) for a, b in pairs])
    assert abs(mean) < 3 * error < 0.003
    floor, error = spread([mmd2(a, b, 1.0) for a, b in pairs])
    assert abs(floor - (1 - (1 / 3) ** 2) * (2 / 25)) < 3 * error < 0.003
    assert floor == pytest.approx(0.0711, abs=0.002)


def test_of_two_gaussians_the_unbiased_form_averages_to_their_own_distance():
    """2(σ²/(σ² + 2))^(d/2)·(1 − exp(−‖μ‖²/2(σ² + 2))) between N(0, I) and N(μ, I)."""
    mu, sigma, d = torch.tensor([1.0, -0.5, 0.25], dtype=torch.float64), 1.5, 3
    within = (sigma**2 / (sigma**2 + 2)) ** (d / 2)
    exact = 2 * within * (1 - math.exp(-float(mu @ mu) / (2 * (sigma**2 + 2))))
    pairs = [(draw(20, d, seed=2 * i), mu + draw(30, d, seed=2 * i + 1)) for i in range(600)]
    mean, error = spread([mmd2(a, b, sigma, unbiased=True) for a, b in pairs])
    assert abs(mean - exact) < 3 * error < 0.02


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_labels_that_are_not_in_a_representation_leave_nothing_on_average(pairing):
    generator, found, floor = torch.Generator().manual_seed(5), [], []
    for seed in range(400):
        labels = torch.randint(3, (30,), generator=generator)
        information = label_information(draw(3, 30, 4, seed=seed), labels, pairing, sigma=2.0)
        found.append(information.unbiased.mean())
        floor.append(information.biased.mean())
    mean, error = spread(found)
    assert abs(mean) < 3 * error < 0.005
    assert spread(floor)[0] > 20 * error


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("sigma", [None, 0.5, 3.0])
def test_against_all_is_a_known_part_of_against_the_rest(sigma, dtype, tolerance):
    """Identity 10: (1 − π)², with π the fraction of the class; .81 for ten balanced classes."""
    for n, classes in [(24, 4), (60, 10)]:
        z, labels = batch(n, classes, dtype=dtype)
        rest, everyone = (label_information(z, labels, p, sigma=sigma).biased for p in PAIRINGS[:2])
        share = labels.bincount(minlength=classes).to(dtype) / n
        torch.testing.assert_close(everyone, rest * (1 - share) ** 2, rtol=0, atol=tolerance)
        assert (rest > 0.01).all()
    balanced = torch.arange(60) % 10
    rest, everyone = (label_information(z, balanced, p, sigma=sigma).biased for p in PAIRINGS[:2])
    torch.testing.assert_close(everyone, 0.81 * rest, rtol=0, atol=tolerance)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairings_against_loops_over_hypotheses_classes_and_pairs(pairing, unbiased):
    z, labels = batch()
    expected = []
    for k, own in enumerate(z):
        if pairing == "matched_vs_rest":
            expected.append(loop(own[labels == k], own[labels != k], 2.0, unbiased))
        else:
            classes = range(len(z)) if pairing == "all_classes" else [k]
            each = [loop(*first_own(own, labels, c), 2.0, unbiased, shared=True) for c in classes]
            expected.append(sum(each) / len(each))
    found = label_information(z, labels, pairing, sigma=2.0)
    np.testing.assert_allclose((found.unbiased if unbiased else found.biased).numpy(), expected, atol=1e-13)
    assert found.measured.all()


def test_each_hypothesis_is_judged_on_its_own_representation():
    """Information about label 1 under hypothesis 1 alone is measured there alone."""
    labels = torch.arange(60) % 3
    z = draw(3, 60, 4)
    z[1][labels == 1] += 3.0
    found = label_information(z, labels, sigma=2.0).unbiased
    assert found[1] > 0.3
    assert found[[0, 2]].abs().max() < 0.05


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_classes_of_fewer_than_two_examples_are_left_out(pairing):
    z, _ = batch(12, 4)
    z.requires_grad_()
    labels = torch.tensor([0] * 5 + [1] * 6 + [2])  # one of class 2, none of class 3
    found = label_information(z, labels, pairing, sigma=2.0)
    if pairing == "all_classes":
        assert found.measured.all()
        for k, own in enumerate(z.detach()):
            expected = sum(loop(*first_own(own, labels, c), 2.0, False) for c in (0, 1)) / 2
            assert found.biased[k].item() == pytest.approx(expected, abs=1e-13)
    else:
        assert found.measured.tolist() == [True, True, False, False]
        assert found.biased[2:].tolist() == found.unbiased[2:].tolist() == [0.0, 0.0]
    (found.biased.sum() + found.unbiased.sum()).backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[2] * 6, [2] * 5 + [0], [0, 1, 2, 3, 0, 1]], ids=str)
def test_a_batch_without_two_examples_on_both_sides_measures_nothing(labels):
    found = label_information(batch(6, 4)[0], torch.tensor(labels), sigma=1.0)
    expected = [labels.count(k) > 1 and len(labels) - labels.count(k) > 1 for k in range(4)]
    assert found.measured.tolist() == expected
    assert [value != 0 for value in found.biased.tolist()] == expected


@pytest.mark.parametrize("d", [1, 4, 32])
@pytest.mark.parametrize("n", [2, 3, 7, 50, 100])
def test_median_against_numpy(n, d):
    z = draw(3, n, d)
    for found, own in zip(median_distance(z), z, strict=True):
        pairs = euclidean_distances(own.numpy())[np.triu_indices(n, 1)]
        # of an even number of distances the lower of the two in the middle, as torch takes it
        assert found.item() == pytest.approx(np.quantile(pairs, 0.5, method="inverted_cdf"), rel=1e-9)


def test_median_of_a_large_batch_looks_at_some_of_it():
    z = draw(1, 1000, 8)
    whole = np.median(euclidean_distances(z[0].numpy())[np.triu_indices(1000, 1)])
    assert median_distance(z).item() == pytest.approx(whole, rel=0.1)


def test_where_there_is_no_distance_the_width_is_that_of_unit_normals():
    """√(d/2): 11.3 at d = 256."""
    for z in (torch.ones(2, 5, 256), torch.randn(2, 1, 256)):
        torch.testing.assert_close(median_distance(z), torch.full((2,), math.sqrt(128.0)))
    assert mmd2(torch.ones(5, 3), torch.ones(4, 3)).item() == 0.0


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_median_is_a_constant_of_each_hypothesis(pairing):
    """Values and gradients are those of a width given as a number."""
    z, labels = batch()
    z = z * torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)[:, None, None]
    z.requires_grad_()
    heuristic = label_information(z, labels, pairing).biased
    (gradient,) = torch.autograd.grad(heuristic.sum(), z)
    for k, width in enumerate(median_distance(z)):
        given = label_information(z, labels, pairing, sigma=width.item()).biased[k]
        torch.testing.assert_close(heuristic[k], given)
        torch.testing.assert_close(gradient[k], torch.autograd.grad(given, z)[0][k])


@pytest.mark.parametrize("sigma", [None, 2.0])
def test_several_bandwidths_are_the_mean_of_each(sigma):
    z, labels = batch()
    several = label_information(z, labels, sigma=sigma, bandwidths=(0.5, 1.0, 3.0)).unbiased
    each = [label_information(z, labels, sigma=sigma, bandwidths=(factor,)).unbiased for factor in (0.5, 1.0, 3.0)]
    torch.testing.assert_close(several, torch.stack(each).mean(0))
    a, b = z[0, :9], z[0, 9:]
    torch.testing.assert_close(mmd2(a, b, 3.0, bandwidths=(0.5,)), mmd2(a, b, 1.5))


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("rows", [1, 5, 24])
def test_blocks_change_neither_values_nor_gradients(monkeypatch, pairing, rows):
    z, labels = batch()
    z.requires_grad_()

    def look():
        found = label_information(z, labels, pairing, sigma=1.5)
        return *torch.autograd.grad((found.biased + 2 * found.unbiased).sum(), z), found.biased, found.unbiased

    whole = look()
    monkeypatch.setattr(mmd, "BLOCK", rows * z.shape[0] * z.shape[1])
    for a, b in zip(look(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("block", [2**22, 40])
def test_gradients_against_differences(monkeypatch, block):
    monkeypatch.setattr(mmd, "BLOCK", block)
    z, labels = batch(8, 3, 2)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda u: label_information(u, labels, sigma=2.0).unbiased, (z,))
    a, b = draw(4, 2).requires_grad_(), draw(5, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: mmd2(u, v, 1.0), (a, b))


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_flatten(out)[0] if isinstance(each, torch.Tensor)]
        self.largest = max([self.largest, *(each.numel() for each in tensors)])
        return out


def cost(n):
    """Numbers kept for the backward pass, and in the largest tensor on the way there and back."""
    z, labels = batch(n, 4, 8, dtype=torch.float32)
    z.requires_grad_()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with Largest() as mode, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = label_information(z, labels).biased.sum()
        total.backward()
    return sum(kept.values()), mode.largest


def test_memory_grows_with_the_batch_rather_than_with_its_pairs(monkeypatch):
    monkeypatch.setattr(mmd, "BLOCK", 2**15)
    monkeypatch.setattr(mmd, "MEDIAN_ROWS", 50)  # so that the batch's own tensors are the largest beside the blocks
    (kept, largest), (kept_4, largest_4) = cost(256), cost(1024)
    assert kept_4 < 5 * kept
    assert max(largest, largest_4) <= 2**15
    monkeypatch.setattr(mmd, "BLOCK", 2**30)
    assert cost(1024)[1] >= 4 * 1024**2, "all pairs at once are seen by this test"
    assert cost(1024)[0] > 10 * kept_4


@pytest.mark.parametrize("sigma", [None, 0.1, 2.0])
def test_float32_agrees_with_float64_far_from_the_origin(sigma):
    """To what squared distances lose: the rounding of the largest square, against 2σ²."""
    z, labels = batch(60, 4, 16)
    largest = (z - z.mean(1, keepdim=True)).square().sum(-1).max().item()
    tolerance = 1e-6 + torch.finfo(torch.float32).eps * largest / (2 * (sigma or 5.0) ** 2)
    assert tolerance < 2e-3
    z = (50.0 + z).float()
    for pairing in PAIRINGS:
        exact, rounded = (label_information(each, labels, pairing, sigma=sigma) for each in (z.double(), z))
        torch.testing.assert_close(rounded.biased.double(), exact.biased, rtol=0, atol=tolerance)
        torch.testing.assert_close(rounded.unbiased.double(), exact.unbiased, rtol=0, atol=tolerance)


def test_half_precision_is_computed_in_float32():
    z, labels = batch(24, 4, 16, dtype=torch.bfloat16)
    z.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = label_information(z, labels).biased
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, label_information(z.float(), labels).biased)
    found.sum().backward()
    assert z.grad.dtype == torch.bfloat16
    assert z.grad.isfinite().all()
    assert z.grad.any()


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: mmd2(draw(5), draw(5)), r"n×d and m×d.*\(5,\) and \(5,\)"),
        (lambda: mmd2(draw(1, 3), draw(5, 3)), "at least two examples"),
        (lambda: mmd2(draw(5, 2), draw(5, 3)), r"\(5, 2\) and \(5, 3\)"),
        (lambda: mmd2(draw(5, 2), draw(5, 2), -1.0), "widths must be positive; got sigma=-1.0"),
        (lambda: label_information(*batch(), "matched_vs_al"), "no pairing.*Did you mean 'matched_vs_all'"),
        (lambda: label_information(batch()[0], batch()[1][1:]), r"labels n; got \(4, 24, 3\) and \(23,\)"),
        (lambda: label_information(batch()[0][0], batch()[1]), r"hypotheses×n×d.*got \(24, 3\)"),
    ],
)
def test_faults_are_one_sentence(look, message):
    with pytest.raises(DataError, match=message):
        look()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_gradients_are_finite_at_any_scale_and_where_examples_coincide(scale):
    z, labels = batch(dtype=torch.float32)
    z[:, 5] = z[:, 4]
    z = (scale * z).requires_grad_()
    label_information(z, labels).biased.sum().backward()
    assert z.grad.isfinite().all()
    assert z.grad.any()
