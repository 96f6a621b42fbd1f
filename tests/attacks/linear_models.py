"""Linear models, where the best perturbation is known, and the geometry of distances to their boundaries."""

from __future__ import annotations

import numpy as np
import torch

from isthmus.attacks import robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, Linear, end_of, pictures

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
"""Order of the dual norm."""
THREATS = [Linf(0.05), L2(0.2), L1(0.25)]


def weights(classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(seed))


def margins(model, images, labels):
    logits = model(images).double()
    return (logits.gather(1, labels[:, None]).squeeze(1) - logits.gather(1, 1 - labels[:, None]).squeeze(1)).detach()


def never_broken(images):
    """A binary model so sure of class 0 that no attack stops early."""
    model = Linear(weights(2), torch.tensor([1e3, 0.0]))
    labels = torch.zeros(len(images), dtype=torch.int64)
    return model, Batch(images, labels, example_keys(0, torch.arange(len(images))))


def largest_gain(threat, direction, image):
    """max ⟨direction, δ⟩ over ball and box: all, the largest multiple that fits, or the best pixels first."""
    room = np.where(direction > 0, 1 - image, image)
    gains = np.abs(direction)
    if threat.name == "linf":
        return float((gains * np.minimum(room, threat.eps)).sum())
    if threat.name == "l2":
        low, high = 0.0, 1e3
        for _ in range(200):
            middle = (low + high) / 2
            fits = np.linalg.norm(np.minimum(middle * gains, room)) <= threat.eps
            low, high = (middle, high) if fits else (low, middle)
        return float((gains * np.minimum(low * gains, room)).sum())
    order = np.argsort(-gains)
    left = np.maximum(threat.eps - np.concatenate([[0], np.cumsum(room[order])[:-1]]), 0)
    return float((gains[order] * np.minimum(room[order], left)).sum())


def uneven(classes, seed, side):
    """A linear model whose pixels differ in weight, with balanced classes; and images near the walls of the box."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, side * side, generator=generator).double()
    weight *= torch.rand(side * side, generator=generator)
    images = ((torch.rand(100, 1, side, side, generator=generator) - 0.5) * 1.5 + 0.5).clamp(0, 1)
    return Linear(weight, -(images.flatten(1).double() @ weight.T).mean(0)), images


def certainly_robust(model, images, labels, threat):
    """Whether no image in ball and box has another class, pair by pair of classes; and by how much, in logits."""
    w, z = model.weight.detach().numpy(), model(images).detach().numpy()
    slack = []
    for image, logits, y in zip(images.flatten(1).double().numpy(), z, labels.tolist(), strict=True):
        others = [t for t in range(len(w)) if t != y]
        slack.append(min(logits[y] - logits[t] - largest_gain(threat, w[t] - w[y], image) for t in others))
    return np.array(slack)


def through_the_middle(images):
    """A binary model that calls half of the images 0."""
    logits = Linear(weights(2))(images).detach()
    return Linear(weights(2), torch.stack([torch.zeros(()).double(), (logits[:, 0] - logits[:, 1]).median()]))


def linear(classes, norm, n=16, low=0.35, high=0.65):
    """A linear model, images, labels, and for each the least ‖δ‖ in the box that changes its label."""
    weight = torch.randn(classes, PIXELS, generator=torch.Generator().manual_seed(classes)).double()
    model, images = Linear(weight), pictures(n, low=low, high=high)
    logits = model(images).detach()
    labels = logits.argmax(1)
    sizes = torch.full((n, classes), torch.inf, dtype=torch.float64)
    for row, (image, label) in enumerate(zip(images.flatten(1).double(), labels.tolist(), strict=True)):
        for other in set(range(classes)) - {label}:
            margin = float(logits[row, label] - logits[row, other])
            sizes[row, other] = least(norm, weight[other] - weight[label], image, margin)
    return model, images, labels, sizes.amin(1)


def least(norm, uphill, image, margin):
    """Least ‖δ‖ in the box with ⟨uphill, δ⟩ = gap."""
    room, gains = torch.where(uphill > 0, 1 - image, image), uphill.abs()
    if norm == "l1":
        order = gains.argsort(descending=True)
        used = 0.0
        for gain, most in zip(gains[order].tolist(), room[order].tolist(), strict=True):
            if margin <= gain * most:
                return used + margin / gain
            used, margin = used + most, margin - gain * most
        return torch.inf
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        delta = torch.minimum(room, middle * (gains if norm == "l2" else torch.ones_like(gains)))
        low, high = (middle, high) if float(delta @ gains) < margin else (low, middle)
    return float(torch.linalg.vector_norm(delta, ord=2 if norm == "l2" else torch.inf))


def check_margin_drop(attack, threat):
    """Away from the box the margin drops by ε‖w_y − w_t‖ in the dual norm (identity 15)."""
    images = pictures(12, low=0.3, high=0.7)
    model, batch = never_broken(images)
    found = end_of(attack, model, batch, threat)
    drop = margins(model, images, batch.labels) - margins(model, found, batch.labels)
    difference = (model.weight[0] - model.weight[1]).detach().numpy()
    np.testing.assert_allclose(drop, threat.eps * np.linalg.norm(difference, DUAL[threat.name]), rtol=2e-3)


def check_binary_accuracy(attack, threat):
    """Robust accuracy of a binary model is the fraction of margins above ε‖w_0 − w_1‖ in the dual norm."""
    threat = threat.with_eps(threat.eps / 2)
    images = pictures(200, low=0.3, high=0.7)
    model = through_the_middle(images)
    labels = model(images).argmax(1)
    labels[:10] = 1 - labels[:10]
    norm = np.linalg.norm((model.weight[0] - model.weight[1]).detach().numpy(), DUAL[threat.name])
    slack = margins(model, images, labels).numpy() - threat.eps * norm
    assert np.abs(slack).min() > 1e-4
    result = robust_accuracy(model, images, labels, threat, [attack])
    assert 0.1 < result.accuracy < 0.9
    assert {"clean", attack.label} < set(result.broken_by)
    assert (result.robust.numpy() == (slack > 0)).all()


def check_walls_in_l1(suite, classes, side, seed, eps):
    """Greedily, the pixels of largest weight as far as the box allows: exact for each pair of classes."""
    (model, images), threat = uneven(classes, seed, side), L1(eps)
    labels = model(images).argmax(1)
    slack = certainly_robust(model, images, labels, threat)
    assert np.abs(slack).min() > 1e-5
    result = robust_accuracy(model, images, labels, threat, suite)
    assert 0.1 < result.accuracy < 0.9
    assert (result.robust.numpy() == (slack > 0)).all()
