"""Fisher information against closed forms, the definition, and the KL divergence that it governs (identity 30)."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError, ModelError
from isthmus.information.fisher import fisher_information
from isthmus.information.gaussians import DiagonalGaussian, IdentityGaussian, kl
from isthmus.models.gaussian_heads import Encoder

SHAPE, PIXELS = (1, 3, 4), 12


def images(n=3, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(rows, seed=1):
    return torch.randn(rows, PIXELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(outputs, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 16), nn.Tanh(), nn.Linear(16, outputs)).double()


def encoder(covariance, dim=3):
    torch.manual_seed(2)
    front = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh())
    head = Encoder(8, dim, covariance, **({"std_offset": 0.0} if covariance in ("diagonal", "full") else {}))
    return nn.Sequential(front, head).double()


def same_up_to_sign(found, expected):
    found, expected = found.flatten(1), expected.flatten(1)
    turned = (found * expected).sum(1, keepdim=True).sign()
    torch.testing.assert_close(found * turned, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("exact", [True, False])
def test_of_a_linear_encoder_with_unit_noise_it_is_the_product_of_its_weights(exact):
    """J = WᵀW, wherever the image is: trace ‖W‖²_F, largest eigenvalue σ₁², and its right singular vector."""
    w = weights(4)
    found = fisher_information(
        lambda x: IdentityGaussian(x.flatten(1) @ w.T), images(), exact=exact, draws=1500, steps=200
    )
    assert found.exact == exact
    _, singular, right = torch.linalg.svd(w)
    trace = w.square().sum().expand(3)
    torch.testing.assert_close(found.trace, trace, rtol=1e-10 if exact else 0.15, atol=0)
    torch.testing.assert_close(found.largest, singular[0].square().expand(3), rtol=1e-8, atol=0)
    assert found.direction.shape == (3, *SHAPE)
    same_up_to_sign(found.direction, right[0].expand(3, -1))


def test_of_a_linear_classifier_of_two_classes_it_has_one_direction():
    """Logistic regression: J = p(1 − p)·wwᵀ with w the difference of the classes' weights."""
    w, x = weights(2), images()
    found = fisher_information(lambda x: x.flatten(1) @ w.T, x)
    p = (x.flatten(1) @ w.T).softmax(1)
    difference = w[0] - w[1]
    expected = p[:, 0] * p[:, 1] * difference.square().sum()
    torch.testing.assert_close(found.trace, expected)
    torch.testing.assert_close(found.largest, expected)
    same_up_to_sign(found.direction, (difference / difference.norm()).expand(3, -1))


def test_of_many_classes_it_is_the_covariance_of_the_logits_gradients():
    """J = Wᵀ(diag p − ppᵀ)W for a linear classifier."""
    w, x = weights(5), images()
    found = fisher_information(lambda x: x.flatten(1) @ w.T, x)
    p = (x.flatten(1) @ w.T).softmax(1)
    j = w.T @ (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ w
    values, vectors = torch.linalg.eigh(j)
    torch.testing.assert_close(found.trace, values.sum(1))
    torch.testing.assert_close(found.largest, values[:, -1])
    same_up_to_sign(found.direction, vectors[:, :, -1])


def moved_scale():
    """N(a·x, (e^{b·x})²) of one number: J = a²/σ² + 2b², along pixels that are distinguished."""
    a, b = weights(1, seed=5)[0], weights(1, seed=6)[0]

    def answer(x):
        flat = x.flatten(1)
        return DiagonalGaussian((flat @ a)[:, None], (flat @ b)[:, None])

    return answer, a, b


def test_a_scale_that_depends_on_the_image_tells_of_it_too():
    answer, a, b = moved_scale()
    x = images()
    found = fisher_information(answer, x)
    sigma = (x.flatten(1) @ b).exp()
    torch.testing.assert_close(found.trace, a.square().sum() / sigma**2 + 2 * b.square().sum())
    j = a[:, None] * a / sigma[:, None, None] ** 2 + 2 * b[:, None] * b
    torch.testing.assert_close(found.largest, torch.linalg.eigvalsh(j)[:, -1])


@pytest.mark.parametrize("covariance", ["identity", "diagonal", "full"])
def test_it_is_the_curvature_of_the_kl_divergence_of_codes(covariance):
    """KL(e(·|x) ‖ e(·|x + δu)) / ½δ²uᵀJu → 1 as δ → 0, along the largest eigenvector and a random direction."""
    model, x = encoder(covariance), images()
    found = fisher_information(model, x)
    with torch.no_grad():
        for delta, tolerance in ((1e-2, 3e-2), (1e-3, 3e-3)):
            moved = kl(model(x), model(x + delta * found.direction))
            torch.testing.assert_close(
                moved / (0.5 * delta**2 * found.largest), torch.ones(3).double(), rtol=tolerance, atol=0
            )
    # the trace is the sum over all pixels' directions
    total = torch.zeros(3).double()
    with torch.no_grad():
        for pixel in torch.eye(PIXELS).double():
            total += kl(model(x), model(x + 1e-3 * pixel.view(SHAPE))) / (0.5 * 1e-6)
    torch.testing.assert_close(found.trace, total, rtol=3e-3, atol=0)


def test_of_unit_noise_the_kl_divergence_is_exact():
    """Identity 30: KL = ½‖f(x + δu) − f(x)‖², whose limit is ½δ²‖J_f u‖²."""
    model, x = encoder("identity"), images()
    u = nn.functional.normalize(torch.randn(3, *SHAPE, dtype=torch.float64).flatten(1), dim=1).view_as(x)
    _, pushed = torch.autograd.functional.jvp(lambda x: model(x).mean, x, u)
    for delta in (1e-1, 1e-2, 1e-3, 1e-4):
        ratio = kl(model(x), model(x + delta * u)) / (0.5 * delta**2 * pushed.square().sum(1))
        torch.testing.assert_close(ratio, torch.ones(3).double(), rtol=2 * delta, atol=0)
    found = fisher_information(model, x)
    assert (pushed.square().sum(1) <= found.largest * (1 + 1e-9)).all()
    assert (found.largest <= found.trace).all()


def test_it_is_the_curvature_of_the_kl_divergence_of_predictions():
    model, x = network(6), images()
    found = fisher_information(model, x)
    with torch.no_grad():
        logs, moved = (model(each).log_softmax(1) for each in (x, x + 1e-3 * found.direction))
        divergence = (logs.exp() * (logs - moved)).sum(1)
    torch.testing.assert_close(divergence / (0.5e-6 * found.largest), torch.ones(3).double(), rtol=3e-3, atol=0)


@pytest.mark.parametrize(
    "model", [network(7), encoder("diagonal"), encoder("full")], ids=["softmax", "diagonal", "full"]
)
def test_products_reach_what_the_rows_give(model):
    rows, products = (fisher_information(model, images(), exact=e, draws=800, steps=150) for e in (True, False))
    torch.testing.assert_close(products.largest, rows.largest, rtol=1e-3, atol=0)
    torch.testing.assert_close(products.trace, rows.trace, rtol=0.2, atol=0)
    assert not products.exact


def test_it_is_the_mean_square_of_the_score():
    """Its definition, eq. 9: E[∇ log p(z|x) ∇ log p(z|x)ᵀ] over 20,000 codes."""
    model, x = encoder("full"), images(1)
    noise = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)).double()
    copies = x.expand(len(noise), *SHAPE).clone().requires_grad_()
    codes = model(x.expand_as(copies)).sample(noise).detach()
    (score,) = torch.autograd.grad(model(copies).log_prob(codes).sum(), copies)
    j = score.flatten(1).T @ score.flatten(1) / len(score)
    found = fisher_information(model, x)
    torch.testing.assert_close(found.trace[0], j.trace(), rtol=0.03, atol=0)
    torch.testing.assert_close(found.largest[0], torch.linalg.eigvalsh(j)[-1], rtol=0.03, atol=0)


def test_neither_batch_nor_units_change_it():
    model, x = network(4), images(5)
    whole, single = (fisher_information(model, x, batch_size=size) for size in (64, 1))
    torch.testing.assert_close(whole.trace, single.trace)
    torch.testing.assert_close(whole.largest, single.largest)
    scaled = fisher_information(lambda x: model(3 * x), x / 3)  # images a third as large, moved as far as before
    torch.testing.assert_close(scaled.trace, 9 * whole.trace)


def test_certain_and_constant_answers_have_none():
    w = weights(3)
    certain = fisher_information(lambda x: 1e4 * (x.flatten(1) @ w.T), images())
    assert (certain.trace < 1e-6).all()
    for exact in (True, False):
        constant = fisher_information(lambda x: 0 * (x.flatten(1) @ w.T), images(), exact=exact)
        assert constant.trace.tolist() == constant.largest.tolist() == [0.0] * 3
        assert (constant.direction == 0).all()


def test_an_answer_that_is_not_finite_has_none_that_is_a_number():
    w = weights(3)

    def answer(x):
        return (x.flatten(1) @ w.T) * torch.tensor([1.0, torch.nan, 1.0])[:, None]

    found = fisher_information(answer, images())
    assert found.trace.isnan().tolist() == found.largest.isnan().tolist() == [False, True, False]


def test_our_classifiers_have_both():
    torch.manual_seed(0)
    model = isthmus.bottleneck(nn.Flatten(), 3, "vib", 2, features=PIXELS, options={"encoder_std_offset": 0.0}).eval()
    x = images().float()
    for answer in (model, model.encode):
        found = fisher_information(answer, x)
        assert found.trace.dtype == torch.float32
        assert (found.largest > 0).all()
        assert (found.largest <= found.trace * (1 + 1e-5)).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mistakes_are_named():
    x = images()
    with pytest.raises(ModelError, match="does not depend on the image differentiably"):
        fisher_information(lambda x: (x.flatten(1) @ weights(3).T).detach(), x)
    with pytest.raises(ModelError, match="at least 2 classes"):
        fisher_information(lambda x: x.flatten(1).sum(1, keepdim=True), x)
    with pytest.raises(ModelError, match="the answer is tuple"):
        fisher_information(lambda x: (x, x), x)
    with pytest.raises(ModelError, match="for 6 images; 3 were given"):
        fisher_information(lambda x: torch.cat([x, x]).flatten(1), x)
    with pytest.raises(ConfigError, match="1 or more"):
        fisher_information(lambda x: x.flatten(1), x, draws=0)
    assert math.isfinite(float(fisher_information(lambda x: x.flatten(1), x).trace.sum()))
