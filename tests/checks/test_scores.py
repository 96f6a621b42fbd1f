"""OOD scores against closed forms on linear models and independent implementations of scikit-learn and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import nn

import isthmus
from isthmus.audits.classifier import adopt
from isthmus.checks import OODDetection
from isthmus.checks.ood_scores import Score, Scorer
from isthmus.checks.scores.features import features_of
from isthmus.checks.scores.fitting import configured, fit_scores
from isthmus.checks.scores.score import Batch, OODScore
from isthmus.checks.trained_on import InMemory
from isthmus.core import registry
from isthmus.core.config import component, split_names
from isthmus.core.errors import ConfigError, ModelError
from isthmus.core.types import Status

KEYS = torch.arange(40)


def linear(weight, bias=None):
    """A classifier whose features are the pixels."""
    weight = torch.as_tensor(weight, dtype=torch.float32)
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.weight.data[:], layer.bias.data[:] = weight, torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def pixels(n, seed=0):
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


WEIGHT = torch.randn(3, 4, generator=torch.Generator().manual_seed(5))
MODEL = linear(WEIGHT, [0.3, -0.2, 0.1])
TRAINING = InMemory(pixels(60), torch.arange(60) % 3)
IMAGES = pixels(40, seed=1)
FEATURES, KNOWN = IMAGES.flatten(1).double().numpy(), TRAINING.images.flatten(1).double().numpy()


def scores(given, model=MODEL, images=IMAGES, training=TRAINING):
    """Scores of images by one score."""
    fitted = fit_scores({"one": configured(given)}, model, images[:8], training, batch_size=7)
    assert not fitted.missing
    return fitted.scoring["one"](Batch(model, images, KEYS[: len(images)], fitted.extractor))


class Then(nn.Module):
    """A model, and a function of its outputs."""

    def __init__(self, change, *models):
        super().__init__()
        self.models, self.change = nn.ModuleList(models), change

    def forward(self, images):
        return self.change(*(model(images) for model in self.models))


@pytest.mark.parametrize(
    ("model", "has"),
    [
        (MODEL, True),
        (Then(lambda z: z.log_softmax(1), MODEL), True),
        (Then(lambda z: 2.5 * z, MODEL), True),
        (Then(lambda z: -z, MODEL), False),
        (Then(lambda z: z.relu(), MODEL), False),
        (Then(lambda z, other: z + other, MODEL, linear(WEIGHT.flip(0))), False),
        (nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()).eval(), False),
        (linear(WEIGHT[:1]), True),  # one logit
    ],
)
def test_features_are_the_input_of_the_layer_that_gives_the_logits(model, has):
    adopted = adopt(model, IMAGES).model
    found = features_of(adopted, IMAGES[:8], KEYS[:8])
    assert (found is not None) == has
    if found is not None:
        features, logits = found.outputs(IMAGES, KEYS)
        np.testing.assert_allclose(features.numpy(), FEATURES, rtol=1e-6)
        again = found.replaced(IMAGES, KEYS, lambda given: given)
        assert torch.equal(again, logits)
        raw = FEATURES @ found.weight.numpy().T + found.bias.numpy()
        np.testing.assert_allclose(raw.argmax(1), logits.argmax(1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in adopted.modules())


def test_mahalanobis_is_the_distance_to_the_nearest_class_in_scikit_learn():
    labels = TRAINING.labels.numpy()
    means = np.stack([KNOWN[labels == label].mean(0) for label in range(3)])
    shared = EmpiricalCovariance(assume_centered=True).fit(KNOWN - means[labels])
    expected = np.min([shared.mahalanobis(FEATURES - mean) for mean in means], axis=0)
    np.testing.assert_allclose(scores("mahalanobis"), expected, rtol=1e-5)


def test_mahalanobis_ignores_directions_without_variance():
    flat = TRAINING.images.clone()
    flat[:, 0, 0, 0] = 0.5
    assert np.isfinite(scores("mahalanobis", training=InMemory(flat, TRAINING.labels))).all()


@pytest.mark.parametrize("k", [1, 5, 60])
def test_knn_is_the_distance_of_scikit_learns_neighbours(k):
    unit = [given / np.linalg.norm(given, axis=1, keepdims=True) for given in (KNOWN, FEATURES)]
    distances, _ = NearestNeighbors(n_neighbors=k).fit(unit[0]).kneighbors(unit[1])
    np.testing.assert_allclose(scores(f"knn:{k}"), distances[:, -1], atol=1e-6)
    if k == 60:
        np.testing.assert_allclose(scores("knn:1000"), distances[:, -1], atol=1e-6)


def test_vim_measures_what_lies_outside_the_plane_of_the_training_features():
    """Training features vary in the first two pixels, and hardly in the others, which are then the rest."""
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(15, 1)  # uncorrelated with everything
    known = torch.cat([TRAINING.images.flatten(1)[:, :2].repeat_interleave(4, 0)[:60], 0.01 * signs], 1)
    training = InMemory(known.reshape(-1, 1, 2, 2), TRAINING.labels)
    alpha = known.amax(1).mean().item() / (0.01 * 2**0.5)
    expected = alpha * np.linalg.norm(FEATURES[:, 2:], axis=1) - logsumexp(FEATURES, axis=1)
    model = linear(np.eye(4))
    np.testing.assert_allclose(scores("vim:2", model, training=training), expected, rtol=1e-4)
    # by default half of so few dimensions
    np.testing.assert_allclose(scores("vim", model, training=training), expected, rtol=1e-4)


def test_vims_origin_is_where_the_logits_vanish():
    """With W = I, −W⁺b is −b: moving features and b together changes nothing."""
    shift = np.float32([0.2, 0.1, 0.0, 0.3])
    moved = {"model": linear(np.eye(4), (-shift).tolist()), "images": IMAGES + torch.from_numpy(shift).view(1, 2, 2)}
    training = InMemory(TRAINING.images + torch.from_numpy(shift).view(1, 2, 2), TRAINING.labels)
    np.testing.assert_allclose(scores("vim", **moved, training=training), scores("vim", linear(np.eye(4))), rtol=1e-4)


def test_react_is_the_energy_of_clipped_features():
    most = np.percentile(KNOWN, 70)
    logits = np.minimum(FEATURES, most) @ WEIGHT.double().numpy().T + [0.3, -0.2, 0.1]
    np.testing.assert_allclose(scores("react:70"), -logsumexp(logits, axis=1), rtol=1e-5)


def test_odin_steps_along_the_sign_of_the_weights():
    """With two classes the gradient of ln max softmax is a positive multiple of w_ŷ − w_other."""
    weight = WEIGHT[:2].double().numpy()
    apart = weight[1] - weight[0]
    margin = FEATURES @ apart
    moved = FEATURES + 0.05 * np.sign(margin)[:, None] * np.sign(apart)
    found = scores({"name": "odin", "eps": 0.05, "temperature": 10}, linear(weight), training=None)
    np.testing.assert_allclose(found, expit(-np.abs(moved @ apart) / 10), rtol=1e-4)


def first_pixel(model, images):
    assert not model.training
    return images[:, 0, 0, 0]


def wrong_shape(model, images):
    return images


class Distance(OODScore):
    """Distance to the mean training feature, to the power of an option."""

    uses_features = uses_training = True
    power: float = 1.0

    def fit(self, training):
        mean = training.features.mean(0)
        return lambda batch: np.linalg.norm(batch.features - mean, axis=1) ** self.power


def test_scores_of_your_own():
    here = f"{__name__}:first_pixel"
    np.testing.assert_allclose(scores(here, training=None), FEATURES[:, 0], rtol=1e-6)
    own = {"name": f"{__name__}:Distance", "power": 2}
    np.testing.assert_allclose(scores(own), ((FEATURES - KNOWN.mean(0)) ** 2).sum(1), rtol=1e-5)
    with pytest.raises(ModelError, match=r"returned numbers of shape \(40, 1, 2, 2\) for 40 images"):
        scores(f"{__name__}:wrong_shape")
    with pytest.raises(ConfigError, match="is no OOD score"):
        configured("isthmus.attacks.pgd:PGD")
    with pytest.raises(ConfigError, match="Did you mean 'knn'"):
        configured("kn")


def test_a_classifier_without_features_or_gradient_says_so():
    plain = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()).eval()
    wanted = {name: configured(name) for name in ("knn", "odin")}
    assert "one linear layer" in fit_scores(wanted, plain, IMAGES[:8], TRAINING).missing["knn"]
    assert "training images are not known" in fit_scores(wanted, MODEL, IMAGES[:8]).missing["knn"]
    assert "no gradient" in fit_scores(wanted, Then(lambda z: z.detach(), MODEL), IMAGES[:8]).missing["odin"]


class Corner(nn.Module):
    """Answers with NaN where the first pixel is bright."""

    def __init__(self):
        super().__init__()
        self.model = MODEL

    def forward(self, images):
        return torch.where(images[:, 0, 0, :1] > 0.9, torch.nan, self.model(images))


def test_an_image_without_logits_has_no_score():
    adopted = adopt(Corner(), IMAGES)
    fitted = fit_scores({"knn": configured("knn:3")}, adopted.model, IMAGES[:8], TRAINING)
    bright = int((TRAINING.images[:, 0, 0, 0] > 0.9).sum())
    assert fitted.fitted_on == 60 - bright
    found = Scorer(adopted, batch_size=7, fitted=fitted)(IMAGES)[Score("knn", "mean")]
    np.testing.assert_array_equal(np.isnan(found), FEATURES[:, 0] > 0.9)
    assert 0 < np.isnan(found).sum() < 20


def audited(check, tmp_path=None, trained_on=(TRAINING.images, TRAINING.labels)):
    options = isthmus.AuditOptions(trained_on=trained_on)
    labels = MODEL(IMAGES).argmax(1)
    return isthmus.audit(MODEL, IMAGES, labels, "linf:0.1", checks=[check], options=options, out=tmp_path)


def test_an_audit_measures_them_beside_the_others(tmp_path):
    check = OODDetection(scores=["knn:3", "knn:5", "odin"], outs=["uniform_noise"], resamples=50, fitted_on=30)
    found = audited(check, tmp_path).results["ood_detection"]
    assert {"knn", "knn_2", "odin", "energy"} <= {metric.coords["score"] for metric in found.metrics}
    assert found.details["fitted_on"] == 30
    fpr = found.metrics.one("fpr95_out", data="uniform_noise", score="odin", mode="mean")
    assert fpr.note == "out-of-distribution is the positive class"
    assert audited(check, tmp_path).results["ood_detection"].seconds == found.seconds, "reused"
    other = audited(check, tmp_path, (TRAINING.images[:50], TRAINING.labels[:50])).results["ood_detection"]
    assert other.details["trained_on"] != found.details["trained_on"]
    unknown = audited(check, trained_on=None).results["ood_detection"]
    assert unknown.status is not Status.ERROR
    assert "the score knn is not available: the training images are not known" in unknown.reason
    page = audited(check).save(tmp_path / "page.html").read_text()
    assert "k-th nearest neighbour" in page


def test_names_on_the_command_line():
    given = "ood_detection,scores=[knn,{name: vim, dim: 2}],outs=[mnist],calibration"
    first, second = split_names(given)
    check = component("checks", first)
    assert [score.plain()["name"] for score in check.scores] == ["knn", "vim"]
    assert check.scores[1].dim == 2
    assert second == "calibration"
    assert component("checks", check.plain()) == check
    assert registry.names("ood_scores") == ["function", "knn", "mahalanobis", "odin", "react", "vim"]
