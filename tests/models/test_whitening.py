"""Whitening: what is left of a covariance, that it is a projector's, and that only training images go into it."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.data.images import ImageData, Split, as_float
from isthmus.data.loading import load
from isthmus.models.whitening import Whitening

SHAPE, KEPT, EPSILON = (1, 6, 5), 12, 1e-3


def correlated(n=500, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = shape[0] * shape[1] * shape[2]
    mixing = torch.randn(pixels, pixels, generator=generator) / pixels**0.5
    values = 0.5 + 0.05 * torch.randn(n, pixels, generator=generator) @ mixing
    return values.clamp(0, 1).view(n, *shape)


def fitted(images, components=KEPT, epsilon=EPSILON, size=None):
    whitening = Whitening(tuple(images.shape[1:]), components, epsilon, size)
    return whitening.fit(lambda: images.split(100))


def test_the_covariance_becomes_a_projector_shrunk_by_epsilon():
    """W Σ W = U Λ(Λ + ε)⁻¹ Uᵀ (fact sheet §8.26)."""
    images = correlated()
    flat = images.flatten(1).double().numpy()
    pca = PCA(KEPT).fit(flat)
    values = pca.explained_variance_ * (len(flat) - 1) / len(flat)
    expected = pca.components_.T @ np.diag(values / (values + EPSILON)) @ pca.components_
    white = fitted(images)(images).flatten(1).double().numpy()
    assert white.mean(0) == pytest.approx(np.zeros(30), abs=1e-5)
    assert np.allclose(np.cov(white.T, bias=True), expected, atol=1e-4)


def test_the_transform_is_symmetric_and_of_the_given_rank():
    images = correlated()
    whitening = fitted(images).double()
    zero = whitening(torch.zeros(1, *SHAPE).double())
    matrix = (whitening(torch.eye(30).view(30, *SHAPE)) - zero).flatten(1)
    assert torch.allclose(matrix, matrix.T, atol=1e-4)
    assert torch.linalg.matrix_rank(matrix.double(), rtol=1e-4) == KEPT


def test_nothing_but_what_it_was_fitted_to_goes_in():
    images = correlated()
    whitening = fitted(images)
    first = whitening(images[:7])
    whitening(correlated(seed=1))
    assert torch.equal(whitening(images[:7]), first)
    other = fitted(images.flip(0))  # another order, the same images
    assert torch.allclose(other(images[:7]), first, atol=1e-3)


def test_colours_become_grey_and_sizes_are_scaled():
    colours = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whitening = fitted(colours, components=20, size=12)
    assert whitening(colours).shape == (50, 1, 12, 12)
    grey = (0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2]).unsqueeze(1)
    assert torch.allclose(fitted(grey, components=20, size=12)(grey), whitening(colours), atol=1e-2)


def test_autocast_does_not_round_it():
    images = correlated()
    whitening = fitted(images, epsilon=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whitening(images), whitening.to(torch.float32)(images))


def test_gradients_reach_the_images():
    images = correlated(3).requires_grad_()
    fitted(correlated())(images).square().sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())


@pytest.mark.parametrize(
    ("shape", "said"),
    [((1, 3, 3), "there are 9. Give fewer"), ((2, 8, 8), "grey or RGB images; these have 2 channels")],
)
def test_what_cannot_be_whitened_is_said(shape, said):
    with pytest.raises(ConfigError, match=said):
        Whitening(shape, 10)


def test_a_trained_model_keeps_its_whitening(tmp_path):
    recipe = {
        "name": "white",
        "data": {"name": "digits", "train_limit": 200},
        "model": {
            "backbone": {"name": "basic_cnn", "width": 4},
            "normalize": {"name": "zca", "components": 30, "size": 32},
            "classifier_unit_norm": True,
        },
        "objective": "deterministic",
        "training": {"epochs": 1, "batch_size": 50, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0}},
    }
    run = isthmus.train(recipe, out=tmp_path / "run", progress=False)
    images = as_float(load(run.recipe.data).train.images)
    loaded = run.load()
    again = Whitening((1, 8, 8), 30, size=32).fit(lambda: images.split(64))
    assert torch.allclose(loaded.normalize(images), again(images), atol=1e-2)
    one, two = loaded(images[:4]), loaded(images[:9])[:4]
    assert torch.allclose(one, two, atol=1e-5)


def test_files_are_read_a_few_at_a_time():
    """Fitting reads batches, never all images at once."""
    from isthmus.models import factory

    images = (correlated(2500) * 255).byte()
    asked = []

    class Watched(Split):
        def select(self, indices):
            asked.append(len(indices))
            return super().select(indices)

    labels = torch.arange(2500) % 2
    split = Watched(images, labels)
    data = ImageData.of("watched", split, Split(images[:4], labels[:4]), ("a", "b"))
    whitening = Whitening(SHAPE, KEPT).fit(lambda: factory._batches(data.train))
    assert max(asked) <= 1000
    assert torch.allclose(
        whitening(as_float(images[:5])), fitted(as_float(images), epsilon=1e-5)(as_float(images[:5])), atol=1e-3
    )
