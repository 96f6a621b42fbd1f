"""Variational bounds on f-divergences: their order, when they are tight, and their behaviour at extreme scores.

Identities 8 and 9. Divergences are computed apart from the bounds, from their textbook sums over a table.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.nn.functional import cross_entropy, log_softmax, softplus

from isthmus.information.f_divergences import (
    DIVERGENCES,
    Pairs,
    convex_conjugate,
    donsker_varadhan,
    energy_based,
)

NAMES = sorted(DIVERGENCES)
SMOOTH = [name for name in NAMES if name != "total_variation"]

TEXTBOOK = {  # D(P‖Q) of two positive tables
    "js": lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum(),
    "kl": lambda p, q: (p * np.log(p / q)).sum(),
    "reverse_kl": lambda p, q: (q * np.log(q / p)).sum(),
    "pearson": lambda p, q: ((p - q) ** 2 / q).sum(),
    "squared_hellinger": lambda p, q: ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(),
    "total_variation": lambda p, q: np.abs(p - q).sum() / 2,
}
DOMAIN = {  # of f*: the largest T and the smallest that the conjugate's formula holds for
    "js": (-math.inf, math.log(2)),
    "kl": (-math.inf, math.inf),
    "reverse_kl": (-math.inf, 0.0),
    "pearson": (-2.0, math.inf),
    "squared_hellinger": (-math.inf, 1.0),
    "total_variation": (-0.5, 0.5),
}

any_of_many = settings(max_examples=60)
joints = arrays.arrays(np.float64, (4, 3), elements=st.floats(0.01, 1)).map(lambda a: a / a.sum())
critics = arrays.arrays(np.float64, (4, 3), elements=st.floats(-12, 12))
numbers = st.floats(-100, 100)


def table(joint, critic):
    return Pairs.of_table(torch.from_numpy(critic), torch.from_numpy(joint))


def product(joint):
    return joint.sum(1, keepdims=True) * joint.sum(0)


def log_ratio(joint):
    return np.log(joint / product(joint))


def bound(name, pairs):
    return convex_conjugate(DIVERGENCES[name], pairs).item()


def random_batch(n=12, classes=5, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return scores.to(dtype), torch.randint(classes, (n,), generator=generator)


@any_of_many
@given(joints, critics)
def test_order_of_the_bounds_on_mutual_information(joint, critic):
    """Identity 9: NWJ ≤ DV ≤ EB ≤ I."""
    pairs = table(joint, critic)
    nwj, dv, eb = bound("kl", pairs), donsker_varadhan(pairs).item(), energy_based(pairs).item()
    information = TEXTBOOK["kl"](joint, product(joint))
    slack = 1e-12 * (1 + abs(nwj))
    assert nwj <= dv + slack
    assert dv <= eb + 1e-12
    assert eb <= information + 1e-12


@pytest.mark.parametrize("name", NAMES)
@any_of_many
@given(joint=joints, critic=critics)
def test_no_critic_passes_the_divergence(name, joint, critic):
    """Identity 8 for js: at most twice the Jensen-Shannon divergence."""
    found = bound(name, table(joint, critic))
    assert found <= TEXTBOOK[name](joint, product(joint)) + 1e-12 * (1 + abs(found))


@pytest.mark.parametrize("name", SMOOTH)
@any_of_many
@given(joint=joints)
def test_the_log_ratio_reaches_the_divergence(name, joint):
    pairs = table(joint, log_ratio(joint))
    assert bound(name, pairs) == pytest.approx(TEXTBOOK[name](joint, product(joint)), rel=1e-10, abs=1e-12)


@any_of_many
@given(joints)
def test_total_variation_is_reached_where_the_critic_tells_the_side_for_sure(joint):
    exact = TEXTBOOK["total_variation"](joint, product(joint))
    hesitant, sure = (bound("total_variation", table(joint, scale * log_ratio(joint))) for scale in (1.0, 1e9))
    assert sure == pytest.approx(exact, abs=1e-6)
    assert hesitant <= sure + 1e-12


@any_of_many
@given(joints, numbers, arrays.arrays(np.float64, (4, 1), elements=numbers))
def test_the_log_ratio_reaches_mutual_information_up_to_what_each_form_ignores(joint, constant, of_x):
    """Identity 8: a constant in DV, anything that depends on x in EB."""
    exact, best = TEXTBOOK["kl"](joint, product(joint)), log_ratio(joint)
    assert donsker_varadhan(table(joint, best + constant)).item() == pytest.approx(exact, abs=1e-10)
    assert energy_based(table(joint, best + of_x)).item() == pytest.approx(exact, abs=1e-10)


@any_of_many
@given(joints, critics, numbers, arrays.arrays(np.float64, (4, 1), elements=numbers))
def test_shifts_of_the_critic(joint, critic, constant, of_x):
    """Identity 8 away from the optimum."""
    dv, eb = donsker_varadhan(table(joint, critic)).item(), energy_based(table(joint, critic)).item()
    assert donsker_varadhan(table(joint, critic + constant)).item() == pytest.approx(dv, abs=1e-10)
    assert energy_based(table(joint, critic + of_x)).item() == pytest.approx(eb, abs=1e-10)


@any_of_many
@given(st.integers(1, 20), st.integers(2, 8), st.floats(0.0, 300.0), st.integers(0, 999))
def test_energy_based_is_cross_entropy(n, classes, scale, seed):
    """Identity 8: EB = ln C − CE on every batch."""
    scores, labels = random_batch(n, classes, scale, seed)
    eb = energy_based(Pairs.of_batch(scores, labels))
    torch.testing.assert_close(eb, math.log(classes) - cross_entropy(scores, labels), rtol=1e-12, atol=1e-12)


@any_of_many
@given(joints, critics)
def test_energy_based_is_cross_entropy_of_a_table_with_uniform_labels(joint, critic):
    """Identity 8."""
    joint = joint / joint.sum(0) / 3
    cross = -(torch.from_numpy(joint) * log_softmax(torch.from_numpy(critic), 1)).sum().item()
    assert energy_based(table(joint, critic)).item() == pytest.approx(math.log(3) - cross, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("v", [-7.0, -2.0, -0.3, 0.0, 0.4, 1.0, 3.0])
def test_conjugates_against_their_definition(name, v):
    """f*(T) = sup over r ≥ 0 of rT − f(r), on a fine grid of r."""
    divergence, v = DIVERGENCES[name], torch.tensor(v, dtype=torch.float64)
    r = torch.cat([torch.linspace(-14, 8, 400_001, dtype=torch.float64).exp(), torch.ones(1, dtype=torch.float64)])
    supremum = (r * divergence.activation(v) - divergence.f(r)).max().item()
    exact = divergence.conjugate(v).item()
    assert supremum <= exact + 1e-12
    assert supremum == pytest.approx(exact, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_f_is_convex_and_zero_at_one(name):
    f = DIVERGENCES[name].f
    r = torch.linspace(0.01, 6, 2001, dtype=torch.float64)
    assert f(torch.ones(1, dtype=torch.float64)).item() == 0.0
    assert (f(r[1:-1]) <= (f(r[:-2]) + f(r[2:])) / 2 + 1e-12).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_activations_lie_in_the_domain_of_the_conjugate_and_rise(name, dtype):
    v = torch.linspace(-1e4, 1e4, 4001, dtype=dtype)
    v = torch.cat([v, torch.linspace(-30, 30, 4001, dtype=dtype)]).sort().values
    activated = DIVERGENCES[name].activation(v)
    low, high = DOMAIN[name]
    assert activated.isfinite().all()
    assert low <= activated.min()
    assert activated.max() <= high
    assert (activated.diff() >= 0).all()
    middle = DIVERGENCES[name].activation(torch.linspace(-12, 12, 241, dtype=torch.float64))
    assert (middle.diff() > 0).all()


def maximised(objective, joint):
    """The critic that ascent from 0 ends at."""
    critic = torch.zeros(joint.shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [critic], max_iter=2000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = -objective(Pairs.of_table(critic, torch.from_numpy(joint)))
        value.backward()
        return value

    optimizer.step(loss)
    return critic.detach()


@pytest.fixture(scope="module")
def joint():
    return np.random.default_rng(3).dirichlet(np.ones(12) * 2).reshape(4, 3)


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_learned_leads_back_to_the_log_ratio(name, joint):
    divergence = DIVERGENCES[name]
    learned = maximised(lambda pairs: convex_conjugate(divergence, pairs), joint)
    np.testing.assert_allclose(divergence.log_ratio(learned).numpy(), log_ratio(joint), atol=1e-4)


def test_what_total_variation_learns_is_the_side_of_the_ratio(joint):
    divergence = DIVERGENCES["total_variation"]
    assert divergence.log_ratio is None
    learned = maximised(lambda pairs: convex_conjugate(divergence, pairs), joint)
    np.testing.assert_array_equal(learned.sign().numpy(), np.sign(log_ratio(joint)))


def test_what_the_other_forms_learn_is_the_log_ratio_less_what_they_ignore(joint):
    dv, eb = maximised(donsker_varadhan, joint).numpy(), maximised(energy_based, joint).numpy()
    best = log_ratio(joint)
    np.testing.assert_allclose(dv - dv.mean(), best - best.mean(), atol=1e-4)
    np.testing.assert_allclose(eb - eb.mean(1, keepdims=True), best - best.mean(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@any_of_many
@given(joint=joints)
def test_between_independent_variables_there_is_nothing(name, joint):
    independent = product(joint)
    assert bound(name, table(independent, np.zeros((4, 3)))) == pytest.approx(0.0, abs=1e-14)


def test_a_batch_takes_true_pairs_against_all_pairs():
    """Section 2.2 of the paper: the n true pairs, and all n·classes pairs, true ones among them."""
    scores, labels = random_batch()
    true, pairs = scores[torch.arange(len(labels)), labels], Pairs.of_batch(scores, labels)
    js = math.log(4) - softplus(-true).mean() - softplus(scores).mean()
    nwj = 1 + true.mean() - scores.exp().mean()
    dv = true.mean() - scores.exp().mean().log()
    assert bound("js", pairs) == pytest.approx(js.item(), rel=1e-12)
    assert bound("kl", pairs) == pytest.approx(nwj.item(), rel=1e-12)
    assert donsker_varadhan(pairs).item() == pytest.approx(dv.item(), rel=1e-12)


def test_the_mean_inside_donsker_varadhan_spans_the_batch():
    """Halves of a batch do not average to the whole, as they do for the other bounds."""
    scores, labels = random_batch(n=20)
    halves = [Pairs.of_batch(scores[part], labels[part]) for part in (slice(0, 10), slice(10, 20))]
    whole = Pairs.of_batch(scores, labels)
    js, dv = ([each(half).item() for half in halves] for each in (lambda p: convex_conjugate(DIVERGENCES["js"], p),
                                                                  donsker_varadhan))  # fmt: skip
    assert sum(js) / 2 == pytest.approx(bound("js", whole), rel=1e-12)
    assert abs(sum(dv) / 2 - donsker_varadhan(whole).item()) > 0.01


@pytest.mark.parametrize("labels_of", [torch.int32, torch.int64, torch.uint8], ids=str)
def test_labels_of_any_integer_type(labels_of):
    scores, labels = random_batch()
    pairs = Pairs.of_batch(scores, labels.to(labels_of))
    torch.testing.assert_close(pairs.joint, Pairs.of_batch(scores, labels).joint)


FORMS = {name: lambda pairs, name=name: convex_conjugate(DIVERGENCES[name], pairs) for name in NAMES} | {
    "donsker_varadhan": donsker_varadhan,
    "energy_based": energy_based,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1.0, 30.0, 100.0, 1e4])
def test_values_and_gradients_are_finite_at_wild_scores(form, dtype, size):
    """Whatever the signs of the true pairs and of the others."""
    labels = torch.arange(6) % 3
    for true, other in [(1, -1), (-1, 1), (1, 1), (-1, -1)]:
        scores = torch.full((6, 3), other * size)
        scores[torch.arange(6), labels] = true * size
        scores = scores.to(dtype).requires_grad_()
        value = FORMS[form](Pairs.of_batch(scores, labels))
        assert value.dtype == torch.float32
        assert value.isfinite()
        value.backward()
        assert scores.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_far_from_the_optimum_the_way_back_is_still_seen(form, size):
    """Ascent lowers wrong pairs that are scored high and raises true ones scored low; total variation saturates."""
    labels = torch.arange(6) % 3
    scores = torch.full((6, 3), size).scatter_(1, labels[:, None], -size).requires_grad_()
    FORMS[form](Pairs.of_batch(scores, labels)).backward()
    true = torch.zeros(6, 3, dtype=torch.bool).scatter_(1, labels[:, None], True)
    if form == "total_variation":
        assert not scores.grad.any()
    else:
        assert (scores.grad[~true] < 0).all()
        assert (scores.grad[true] > 0).all()


@pytest.mark.parametrize("form", FORMS)
@any_of_many
@given(scale=st.floats(0.01, 8.0), seed=st.integers(0, 999))
def test_float32_agrees_with_float64(form, scale, seed):
    scores, labels = random_batch(scale=scale, seed=seed)
    scores = scores.float().double().clamp(-15, 15)
    exact, rounded = (FORMS[form](Pairs.of_batch(s, labels)).item() for s in (scores, scores.float()))
    assert rounded == pytest.approx(exact, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_changes_nothing(form):
    scores, labels = random_batch(dtype=torch.float32)
    expected = FORMS[form](Pairs.of_batch(scores, labels))
    with torch.autocast("cpu", torch.bfloat16):
        found = FORMS[form](Pairs.of_batch(scores, labels))
    assert torch.equal(found, expected)
