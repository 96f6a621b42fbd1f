"""Threat models: projections against a slow oracle, uniform starts, steepest steps, and their notation."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

from isthmus.attacks.threats import L1, L2, Linf, Threat, parse, parse_grid
from isthmus.core.errors import ConfigError
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, pictures

ORDER = {Linf: math.inf, L2: 2, L1: 1}
KINDS = sorted(ORDER, key=lambda kind: kind.name)


def size_of(threat: Threat, perturbation: torch.Tensor) -> np.ndarray:
    return np.linalg.norm(perturbation.double().flatten(1).numpy(), ORDER[type(threat)], axis=1)


@st.composite
def situations(draw, kinds=KINDS, most=40):
    """A threat, originals in the box (often at its walls), and images anywhere."""
    threat = draw(st.sampled_from(kinds))(draw(st.floats(1e-3, 1)) * draw(st.sampled_from([0.1, 1])))
    shape = (draw(st.integers(1, 3)), 1, 1, draw(st.integers(1, most)))
    unit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
    anywhere = st.floats(-3, 3, width=32)
    originals = torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=unit)))
    images = torch.from_numpy(draw(hnp.arrays(np.float32, shape, elements=anywhere)))
    return threat, images, originals


@given(situations())
def test_projection_is_inside_ball_and_box_and_idempotent(situation):
    threat, images, originals = situation
    projected = threat.project(images, originals)
    assert threat.contains(projected, originals).all()
    assert (size_of(threat, projected - originals) <= threat.eps + 1e-5).all()
    assert projected.min() >= 0
    assert projected.max() <= 1
    torch.testing.assert_close(threat.project(projected, originals), projected, rtol=0, atol=2e-6)


@given(situations())
def test_a_point_inside_stays_where_it_is(situation):
    threat, images, originals = situation
    inside = originals + 0.99 * (threat.project(images, originals) - originals)
    torch.testing.assert_close(threat.project(inside, originals), inside, rtol=0, atol=1e-6)


@settings(max_examples=40)
@given(situations(most=5))
def test_projection_is_the_nearest_point(situation):
    threat, images, originals = situation
    projected = threat.project(images, originals)
    rows = zip(images.flatten(1).double(), originals.flatten(1).double(), projected.flatten(1).double(), strict=True)
    for image, original, ours in rows:
        best = nearest_by_slsqp(threat, (image - original).numpy(), original.numpy())
        assert (image - ours).norm() <= np.linalg.norm((image - original).numpy() - best) + 1e-4


def nearest_by_slsqp(threat: Threat, wanted: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Minimise ‖(p − q) − wanted‖² over p, q ≥ 0: with the two halves apart, every ball is smooth."""
    d = len(wanted)
    reach = threat.eps if isinstance(threat, Linf) else np.inf
    bounds = [(0, min(1 - x, reach)) for x in original] + [(0, min(x, reach)) for x in original]
    ball = {
        Linf: [],
        L1: [{"type": "ineq", "fun": lambda v: 1 - v.sum() / threat.eps}],
        L2: [{"type": "ineq", "fun": lambda v: 1 - ((v[:d] - v[d:]) ** 2).sum() / threat.eps**2}],
    }[type(threat)]
    found = optimize.minimize(
        lambda v: ((v[:d] - v[d:] - wanted) ** 2).sum(),
        np.zeros(2 * d),
        method="SLSQP",
        bounds=bounds,
        constraints=ball,
    )
    best = found.x[:d] - found.x[d:]
    return best / max(1, np.linalg.norm(best, ORDER[type(threat)]) / threat.eps)


@pytest.mark.parametrize("kind", KINDS)
def test_projection_does_not_depend_on_the_rest_of_the_batch(kind):
    g = torch.Generator().manual_seed(0)
    originals = torch.rand(20, 1, 6, 6, generator=g).round(decimals=1)
    images = originals + torch.randn(20, 1, 6, 6, generator=g)
    together = kind(0.3).project(images, originals)
    alone = torch.cat([kind(0.3).project(images[i : i + 1], originals[i : i + 1]) for i in range(20)])
    assert torch.equal(together, alone)


# --- starts ---


@pytest.mark.parametrize("kind", KINDS)
def test_starts_are_uniform_in_the_ball(kind):
    """Radius^d is uniform, and a coordinate has the distribution of a slice through the ball."""
    d, threat = 6, kind(0.5)
    drawn = threat.sample(example_keys(0, torch.arange(4000)), (1, 2, 3))
    sizes = size_of(threat, drawn)
    assert sizes.max() <= threat.eps * (1 + 1e-6)
    assert stats.kstest((sizes / threat.eps) ** d, "uniform").pvalue > 0.01
    slices = {
        Linf: stats.uniform(-1, 2).cdf,
        L2: lambda t: 0.5 + np.sign(t) * stats.beta(0.5, (d + 1) / 2).cdf(t**2) / 2,
        L1: lambda t: 0.5 + np.sign(t) * stats.beta(1, d).cdf(np.abs(t)) / 2,
    }
    for pixel in (0, d - 1):
        assert stats.kstest(drawn.flatten(1)[:, pixel].numpy() / threat.eps, slices[kind]).pvalue > 0.01
    correlations = np.corrcoef(drawn.flatten(1).numpy().T)
    assert np.abs(correlations - np.eye(d)).max() < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_starts_belong_to_the_key_and_stay_in_the_box(kind):
    originals = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    keys, threat = example_keys(7, torch.arange(30)), kind(0.4)
    starts = threat.random_start(originals, keys)
    assert threat.contains(starts, originals).all()
    assert torch.equal(threat.random_start(originals[[5]], keys[[5]]), starts[[5]])
    assert not torch.equal(threat.random_start(originals, example_keys(8, torch.arange(30))), starts)


# --- steps ---


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(("kind", "dual"), [(Linf, 1), (L2, 2), (L1, math.inf)])
def test_step_has_its_size_and_gains_the_dual_norm(kind, dual, scale):
    gradient = torch.randn(8, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    images = torch.full_like(gradient, 0.5)
    move = kind(0.3).step(images, gradient * scale, 0.1) - images
    np.testing.assert_allclose(size_of(kind(1), move), 0.1, rtol=1e-5)
    gain = (move * gradient).flatten(1).sum(1)
    np.testing.assert_allclose(gain, 0.1 * np.linalg.norm(gradient.flatten(1).numpy(), dual, axis=1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_no_step(kind):
    images = torch.full((2, 1, 3, 3), 0.5)
    assert torch.equal(kind(0.1).step(images, torch.zeros_like(images), 0.1), images)


def test_l1_steps_pass_over_pixels_that_cannot_move():
    images = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    gradient = torch.tensor([3.0, 1.0, -2.0]).view(1, 1, 1, 3)
    moved = L1(1.0).step(images, gradient, 0.2)
    torch.testing.assert_close(moved.flatten(), torch.tensor([1.0, 0.7, 0.0]))


def test_contains_is_strict_up_to_rounding():
    originals = torch.full((1, 1, 2, 2), 0.5)
    for threat in (Linf(0.1), L2(0.2), L1(0.4)):
        on_the_edge = originals + 0.1
        assert threat.contains(on_the_edge, originals).all()
        assert not threat.contains(on_the_edge + 1e-5, originals).any()
    assert not Linf(1).contains(originals - 0.5 - 1e-7, originals).any()


# --- notation ---


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("linf:8/255", Linf(8 / 255)),
        ("linf:0.1", Linf(0.1)),
        (" LINF : 1/2", Linf(0.5)),
        ("l2:0.5", L2(0.5)),
        ("l1:12", L1(12)),
    ],
)
def test_parse(text, threat):
    assert parse(text) == threat
    assert hash(parse(text)) == hash(threat)


@given(st.sampled_from(KINDS), st.floats(1e-9, 1, exclude_min=True))
def test_text_round_trip(kind, eps):
    assert parse(str(kind(eps))) == kind(eps)


def test_text_is_the_short_form():
    assert [str(t) for t in (Linf(8 / 255), Linf(0.1), L2(2), L1(1 / 3))] == [
        "linf:8/255",
        "linf:0.1",
        "l2:2",
        "l1:85/255",
    ]


def test_parse_grid_is_ascending_and_without_doubles():
    assert parse_grid("l2:2, 1/2,1,0.5") == (L2(0.5), L2(1.0), L2(2.0))


def test_threats_are_values():
    assert Linf(0.1) != L2(0.1)
    assert Linf(0.1) != Linf(0.2)
    assert Linf(0.1).with_eps(0.2) == Linf(0.2)
    assert pickle.loads(pickle.dumps(L1(2))) == L1(2)


@pytest.mark.parametrize("eps", [0, -0.1, math.nan, math.inf, "0.1", None, True])
def test_a_useless_radius_is_refused(eps):
    with pytest.raises(ConfigError, match="ε of l2"):
        L2(eps)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linff:0.1", "Did you mean 'linf'"),
        ("0.1", "norm:ε"),
        ("linf:", "must be a number"),
        ("linf:1/0", "must be a number"),
        ("linf:a/b", "must be a number"),
        ("linf:8", "Did you mean 8/255"),
        ("l2:-1", "positive"),
        ("l2:nan", "positive"),
        ("linf:0.1,0.2", "One ε is expected"),
    ],
)
def test_bad_notation_says_what_is_wrong(text, words):
    with pytest.raises(ConfigError, match=words):
        parse(text)


def test_the_linear_optimum_in_l1_is_that_of_a_linear_program():
    images = pictures(8)
    gradient = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(3))
    gradient[0, 0, 0] = 0
    for eps in (0.05, 1.0, 30.0):
        found = L1(eps).linear_optimum(gradient, images)
        assert L1(eps).contains(found, images).all()
        for x, g, best in zip(images.flatten(1).double(), gradient.flatten(1).double(), found.flatten(1), strict=True):
            # δ = up − down, both from 0 to the room that the box leaves
            program = optimize.linprog(
                torch.cat([-g, g]).numpy(),
                A_ub=np.ones((1, 2 * PIXELS)),
                b_ub=[eps],
                bounds=[(0, float(room)) for room in torch.cat([1 - x, x])],
            )
            assert float(g @ (best - x)) == pytest.approx(-program.fun, abs=1e-5)
