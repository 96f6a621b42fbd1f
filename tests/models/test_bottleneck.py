"""The bottleneck assembly: parts, parameter counts, modes, averages, and autocast: identities 27 to 30."""

import math

import pytest
import torch
from torch import nn

import isthmus
from isthmus.attacks import losses
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.audits import classifier
from isthmus.core.errors import ConfigError, DataError, ModelError
from isthmus.core.recipe import load_recipe
from isthmus.data.loading import load
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, IdentityGaussian, kl
from isthmus.models import factory
from isthmus.models.gaussian_heads import BackwardEncoder, Encoder, gaussian, parameters_per_code
from isthmus.models.marginals import MixtureMarginal
from isthmus.models.modes import StochasticMode
from isthmus.training.optimizers import MovingAverage

IMAGES = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def small(objective="ceb", **options) -> isthmus.bottleneck:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
    direct = {name: options.pop(name) for name in ("normalize", "class_counts") if name in options}
    return isthmus.bottleneck(backbone, 10, objective, features=32, **direct, options=options)


class CallCount:
    """How often a module is called."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.count = module, 0

    def __enter__(self):
        self.hook = self.module.register_forward_hook(self._called)
        return self

    def _called(self, *_):
        self.count += 1

    def __exit__(self, *_):
        self.hook.remove()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_vib_model_of_mnist_has_the_published_size():
    """Identity 27."""
    recipe = load_recipe(
        {
            "name": "vib",
            "data": "mnist",
            "model": {"backbone": "mlp", "dim": 256, "covariance": "diagonal"},
            "objective": "vib",
        }
    )
    assert count(factory.build(recipe, (1, 28, 28), 10)) == 2_380_810


def test_a_mixture_of_240_in_four_dimensions_has_3600_parameters():
    """Identity 27."""
    assert count(MixtureMarginal(4, 240)) == 3_600
    assert parameters_per_code("full", 4) == 14


@pytest.mark.parametrize(
    ("covariance", "family"),
    [("identity", IdentityGaussian), ("diagonal", DiagonalGaussian), ("full", FullGaussian)],
)
@pytest.mark.parametrize("objective", ["vib", "ceb"])
def test_every_combination_trains_a_step(objective, covariance, family):
    for marginal in (None, "standard", "mixture"):
        for head, backward in (("linear", "linear"), ("linear", "table"), ("mlp", "mlp")):
            model = small(
                objective, dim=3, covariance=covariance, marginal=marginal, components=5, classifier=head,
                backward=backward, samples=2,
            )  # fmt: skip
            assert isinstance(model.encode(IMAGES), family)
            terms = model.loss(IMAGES, LABELS)
            (terms.total + (0 if terms.marginal_nll is None else terms.marginal_nll)).backward()
            missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
            assert not missing


def test_parts_an_objective_does_not_use_are_not_built():
    assert small("ceb").marginal is None
    assert small("vib").backward_encoder is None
    deterministic = small("deterministic", dim=3)
    assert deterministic.marginal is deterministic.backward_encoder is None
    assert deterministic.codes(IMAGES).encoder is None
    assert torch.equal(deterministic.codes(IMAGES).logits[0], deterministic(IMAGES))


def test_without_a_dim_the_features_are_the_code():
    model = small("ceb")
    torch.testing.assert_close(model.encode(IMAGES).mean, model.backbone(IMAGES))


@pytest.mark.parametrize(("covariance", "std"), [("diagonal", math.log1p(math.exp(-5))), ("full", 1.0)])
def test_scales_start_where_the_papers_start_them(covariance, std):
    encoder = Encoder(8, 3, covariance)
    nn.init.zeros_(encoder.project.weight)
    torch.testing.assert_close(encoder(torch.randn(2, 8)).std, torch.full((2, 3), std), rtol=1e-4, atol=2e-5)
    backward = BackwardEncoder(10, 3, covariance, "linear")
    nn.init.zeros_(backward.layers.weight)
    torch.testing.assert_close(backward().std, torch.ones(10, 3), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("covariance", "columns"), [("identity", 4), ("diagonal", 8), ("full", 14)])
def test_a_table_is_the_linear_form_without_the_bias_that_all_classes_share(covariance, columns):
    torch.manual_seed(0)
    table, linear = (BackwardEncoder(10, 4, covariance, kind) for kind in ("table", "linear"))
    assert (count(table), count(linear)) == (10 * columns, 11 * columns)
    with torch.no_grad():
        linear.layers.weight.copy_(table.layers.weight.T)
        linear.layers.bias.zero_()
    for first, second in zip(vars(table()).values(), vars(linear()).values(), strict=True):
        torch.testing.assert_close(first, second)
    wide = BackwardEncoder(100, 300, "identity", "table").layers.weight
    limit = math.sqrt(6 / 400)  # Glorot-uniform
    assert wide.abs().max() <= limit
    assert float(wide.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.02)


def test_the_kl_of_near_images_is_the_fisher_form():
    """Identity 30: with unit covariance KL(e(x) ‖ e(x + δu)) → ½δ²·‖J_f u‖², the ratio → 1 as δ → 0."""
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
    model = isthmus.bottleneck(bent, 10, "ceb", 3, features=32).double()
    x = IMAGES[:4].double()
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, along = torch.autograd.functional.jvp(lambda images: model.encode(images).mean, x, u)
    form = 0.5 * along.square().sum(-1)
    with torch.no_grad():
        errors = [
            float((kl(model.encode(x), model.encode(x + delta * u)) / (delta**2 * form) - 1).abs().max())
            for delta in (0.1, 1e-3, 1e-5)
        ]
    assert errors[0] > 1e-3, "the encoder must bend, or this tests nothing"
    assert errors[1] < 0.02 * errors[0]  # the rest is of the order of δ
    assert errors[2] < 0.02 * errors[1]


def test_scales_stay_finite_for_extreme_parameters():
    raw = torch.tensor([[0.0, -60.0], [0.0, 60.0]], requires_grad=True)
    encoded = gaussian(raw, "diagonal", 1, 1.0)
    encoded.log_prob(torch.zeros(2, 1)).sum().backward()
    assert encoded.log_std.isfinite().all()
    assert raw.grad.isfinite().all()


class TestModes:
    """Identity 28."""

    def test_without_noise_the_stochastic_mode_is_the_mean_mode(self):
        """Identity 28."""
        model = small("ceb", dim=3, covariance="diagonal")
        with torch.no_grad():
            model.encoder.project.weight[3:] = 0
            model.encoder.project.bias[3:] = -60.0  # σ = e^-55
        torch.testing.assert_close(StochasticMode(model)(IMAGES), torch.log_softmax(model(IMAGES), -1))

    def test_averaged_attack_gradients_are_the_analytic_gradient_of_a_linear_decoder(self):
        """Identity 28: what an attack sees of the stochastic mode, averaged over draws (EOT), for a loss linear in z.

        With one sample a difference of log-probabilities is a difference of logits. The noise enters through σ(x), so
        single draws differ; their mean is the gradient of the mean mode.
        """
        torch.manual_seed(0)
        model = isthmus.bottleneck(
            nn.Flatten(), 2, "ceb", dim=3, features=64, options={"covariance": "diagonal"}
        ).eval()
        with torch.no_grad():
            model.encoder.project.bias[3:] = 5.0  # σ near 1/2, and different for every image
        draws, image = 20_000, IMAGES[:1]
        batch = Batch(image.expand(draws, -1, -1, -1), torch.zeros(draws, dtype=torch.int64), torch.arange(draws))
        query = CountedModel(StochasticMode(model, samples=1)).query
        found = query(batch.images, batch.keys, lambda logits: losses.margin_loss(logits, batch.labels)).gradient
        x = image.clone().requires_grad_()
        logits = model(x)
        analytic = torch.autograd.grad(logits[0, 1] - logits[0, 0], x)[0]
        error = 5 * found.std(0) / draws**0.5
        assert (found.std(0) > 0.1 * analytic.abs().mean()).all(), "the noise must matter for this to test anything"
        assert ((found.mean(0) - analytic[0]).abs() < error + 1e-5).all()

    def test_the_same_seed_gives_the_same_loss(self):
        """Identity 28."""
        model = small("vib", dim=3, samples=4)
        first, second, other = (
            model.loss(IMAGES, LABELS, noise=torch.Generator().manual_seed(seed)).total.item() for seed in (1, 1, 2)
        )
        assert first == second != other

    def test_an_example_answers_alike_in_any_batch(self):
        mode = StochasticMode(small("ceb", dim=3)).eval()
        keys = torch.arange(16)
        whole = mode(IMAGES, keys)
        torch.testing.assert_close(mode(IMAGES[5:7], keys[5:7]), whole[5:7])

    def test_several_draws_of_an_image_cost_one_encoding(self, monkeypatch):
        model = small("ceb", dim=3, covariance="diagonal").eval()
        mode, keys = StochasticMode(model, samples=5), torch.arange(32).reshape(16, 2)
        expected = torch.stack([mode(IMAGES, column) for column in keys.T], 1)
        for numbers in (1, 2**20):  # held at a time
            monkeypatch.setattr("isthmus.models.modes.NUMBERS", numbers)
            with CallCount(model.backbone) as calls:
                torch.testing.assert_close(mode.forward_draws(IMAGES, keys), expected)
            assert calls.count == 1

    def test_calls_without_keys_draw_fresh_noise_that_the_seed_repeats(self):
        model = small("ceb", dim=3)
        first, second = StochasticMode(model, seed=1), StochasticMode(model, seed=1)
        a, b = first(IMAGES), first(IMAGES)
        assert not torch.equal(a, b)
        assert torch.equal(second(IMAGES), a)

    def test_probabilities_are_averaged_not_logits(self):
        model = small("ceb", dim=3, samples=1)
        mode = StochasticMode(model, samples=5)
        assert torch.exp(mode(IMAGES)).sum(-1).tolist() == pytest.approx([1.0] * 16)


def test_densities_stay_in_float32_under_autocast():
    model = small("ceb", dim=3, covariance="full", classifier="mlp")
    with torch.autocast("cpu", torch.bfloat16):
        assert model.backbone(IMAGES).dtype == torch.bfloat16
        codes = model.codes(IMAGES)
        terms = model.loss(IMAGES, LABELS)
    assert torch.equal(codes.backward.mean, model.backward_encoder().mean)  # not rounded to bfloat16 on the way
    assert codes.samples.dtype == codes.logits.dtype == terms.total.dtype == torch.float32
    terms.total.backward()
    assert model.backbone[1].weight.grad.isfinite().all()


def test_normalisation_lives_inside():
    recipe = load_recipe(
        {
            "name": "a",
            "data": "digits",
            "model": {"backbone": "mlp", "normalize": "dataset"},
            "objective": "ceb",
        }
    )
    digits = load("digits")
    model = factory.build(recipe, (1, 8, 8), 10, digits)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(IMAGES)
    values = digits.train.images.float() / 255
    torch.testing.assert_close(seen[0], (IMAGES - values.mean()) / values.std(correction=0))


def test_building_is_seeded_and_leaves_the_global_generator_alone():
    recipe = load_recipe({"name": "a", "data": "digits", "model": {"backbone": "mlp"}, "objective": "ceb"})
    state = torch.random.get_rng_state()
    a, b = (factory.build(recipe, (1, 8, 8), 10) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert classifier.fingerprint(a) == classifier.fingerprint(b)
    other = factory.build(load_recipe(recipe, {"seed": 1}), (1, 8, 8), 10)
    assert classifier.fingerprint(other) != classifier.fingerprint(a)


def test_a_backbone_without_known_features_is_explained():
    with pytest.raises(ModelError, match="Pass features="):
        isthmus.bottleneck(nn.Linear(3, 3), 10)


def test_a_backbone_that_gives_maps_is_explained():
    model = isthmus.bottleneck(nn.Conv2d(1, 4, 3), 10, features=4)
    with pytest.raises(ModelError, match="batch x features"):
        model(IMAGES)


@pytest.mark.parametrize("rho", [isthmus.Rho(3), 3, torch.tensor(3.0)], ids=repr)
def test_rho_is_a_number_or_rho(rho):
    model = small("ceb", dim=3)
    expected = model.loss(IMAGES, LABELS, rho=3.0, noise=torch.Generator().manual_seed(0))
    assert model.loss(IMAGES, LABELS, rho=rho, noise=torch.Generator().manual_seed(0)).total == expected.total
    assert small({"name": "ceb", "rho": isthmus.Rho(2)}).loss(IMAGES, LABELS).weight == pytest.approx(math.exp(-2))
    with pytest.raises(ConfigError, match="rho is a number or isthmus.Rho; got 'three'"):
        model.loss(IMAGES, LABELS, rho="three")


@pytest.mark.parametrize("options", [{"rate_weight": 1e-3}, {"rho": 2.0}], ids=str)
def test_a_rho_that_replaces_a_configured_trade_off_is_said_once(caplog, options):
    model = small({"name": "vib", **options})
    model.loss(IMAGES, LABELS)
    assert not caplog.records
    for _ in range(2):
        assert model.loss(IMAGES, LABELS, rho=3.0).weight == pytest.approx(1 / (1 + math.exp(3)))
    (record,) = caplog.records
    assert "loss(rho=3) replaces the trade-off that the objective was given, rho = " in record.message
    small("vib").loss(IMAGES, LABELS, rho=3.0)
    assert len(caplog.records) == 1


def test_another_papers_name_of_the_trade_off_is_explained():
    with pytest.raises(ConfigError, match="there is no beta; β in ce \\+ β·rate is called rate_weight"):
        small({"name": "vib", "beta": 1e-3})
    with pytest.raises(ConfigError, match="There is: .*rate_weight"):
        small({"name": "vib", "wieght": 1e-3})


@pytest.mark.parametrize("pair", [((0.5,), (0.25,)), ([0.5], [0.25]), (0.5, 0.25)], ids=str)
def test_mean_and_standard_deviation_normalise(pair):
    seen = []
    model = small(normalize=pair)
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(IMAGES)
    torch.testing.assert_close(seen[0], (IMAGES - 0.5) / 0.25)


@pytest.mark.parametrize("given", [((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), 3, "dataset", ((0.5,),)], ids=str)
def test_what_cannot_normalise_is_refused_at_once(given):
    with pytest.raises(ConfigError, match=r"normalize is a module .* or \(mean, std\)"):
        small(normalize=given)


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (IMAGES, LABELS.float(), DataError, r"16 class indices, one per image; got torch.float32 of \(16,\)"),
        (IMAGES, LABELS[:3], DataError, r"16 class indices, one per image; got torch.int64 of \(3,\)"),
        (IMAGES, LABELS[:, None], DataError, r"got torch.int64 of \(16, 1\)"),
        (IMAGES, LABELS.tolist(), DataError, "got list"),
        (IMAGES, LABELS + 1, DataError, r"labels\[9\] is 10; with 10 classes a label is 0 to 9"),
        (IMAGES, LABELS - 1, DataError, r"labels\[0\] is -1"),
        ((IMAGES * 255).byte(), LABELS, DataError, "floating-point tensor in .*; got torch.uint8"),
        (IMAGES[..., 1:], LABELS, ModelError, r"The model fails on images of shape \(16, 1, 8, 7\): mat1 and mat2"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_fit_is_explained(images, labels, error, words):
    with pytest.raises(error, match=words):
        small().loss(images, labels)


def test_debiased_average_after_one_step_is_the_weights():
    """Identity 29."""
    model = small("ceb", dim=3)
    average = MovingAverage(model, 0.999)
    with pytest.raises(ValueError, match="moving average is empty"):
        average.weights()
    average.update()
    for name, value in model.named_parameters():
        torch.testing.assert_close(average.weights()[name], value, rtol=1e-4, atol=1e-6)


def test_average_is_its_formula():
    layer = nn.Linear(1, 1, bias=False)
    average, history = MovingAverage(layer, 0.9), []
    for step in range(5):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        history.append(float(step))
        average.update()
    weights = [0.9 ** (4 - s) for s in range(5)]
    expected = sum(w * h for w, h in zip(weights, history, strict=True)) / sum(weights)
    assert average.weights()["weight"].item() == pytest.approx(expected, rel=1e-5)
