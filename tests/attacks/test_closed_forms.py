"""Linear models, where the best perturbation is known: attacks must attain it."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from isthmus.attacks import FGSM, PGD, robust_accuracy
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.randomness import example_keys
from tests.attacks.attacked_models import PIXELS, SHAPE, Linear, end_of, pictures

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
THREATS = [Linf(0.05), L2(0.2), L1(0.25)]
FROM_THE_IMAGE = PGD(steps=60, random_start=False)


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


@pytest.mark.parametrize(
    "config",
    [
        FGSM(loss="margin"),
        PGD(steps=60, random_start=False, loss="log_odds"),
        PGD(steps=60, random_start=False, loss="margin", relative_step_size=1, decay=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_margin_drops_by_eps_times_the_dual_norm(threat, config):
    """Away from the box: ε‖w_y − w_t‖₁ in ℓ∞, and likewise (identity 15)."""
    images = pictures(12, low=0.3, high=0.7)
    model, batch = never_broken(images)
    found = end_of(config, model, batch, threat)
    drop = margins(model, images, batch.labels) - margins(model, found, batch.labels)
    difference = (model.weight[0] - model.weight[1]).detach().numpy()
    np.testing.assert_allclose(drop, threat.eps * np.linalg.norm(difference, DUAL[threat.name]), rtol=2e-3)


@pytest.mark.parametrize("threat", [Linf(0.3), L2(0.9), L1(2.0)], ids=str)
def test_at_the_walls_of_the_box_pgd_attains_the_constrained_optimum(threat):
    images = pictures(12)
    model, batch = never_broken(images)
    config = PGD(steps=400, relative_step_size=0.03, loss="margin", random_start=False)
    found = end_of(config, model, batch, threat)
    drop = margins(model, images, batch.labels) - margins(model, found, batch.labels)
    direction = (model.weight[1] - model.weight[0]).detach().numpy()
    best = [largest_gain(threat, direction, image) for image in images.flatten(1).double().numpy()]
    assert (drop.numpy() <= np.array(best) * (1 + 1e-5)).all()
    np.testing.assert_allclose(drop, best, rtol=5e-3)


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


MULTITARGETED = [{"name": "multitargeted", "restarts": 1, "steps": 20}]


@pytest.mark.parametrize(
    ("suite", "classes", "side", "seed", "eps"),
    [
        ("fast", 2, 4, 0, 0.3),
        ("fast", 10, 4, 2, 0.15),
        (MULTITARGETED, 2, 4, 0, 0.3),
        (MULTITARGETED, 3, 28, 0, 1.0),
        (MULTITARGETED, 10, 28, 1, 0.6),
    ],
)
def test_in_l1_at_the_walls_of_the_box_robust_accuracy_is_the_closed_form(suite, classes, side, seed, eps):
    """Greedily, the pixels of largest weight as far as the box allows: exact for each pair of classes."""
    (model, images), threat = uneven(classes, seed, side), L1(eps)
    labels = model(images).argmax(1)
    slack = certainly_robust(model, images, labels, threat)
    assert np.abs(slack).min() > 1e-5
    result = robust_accuracy(model, images, labels, threat, suite)
    assert 0.1 < result.accuracy < 0.9
    assert (result.robust.numpy() == (slack > 0)).all()


def test_the_linear_optimum_in_l1_is_that_of_a_linear_program():
    images = pictures(8)
    gradient = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(3))
    gradient[0, 0, 0] = 0
    for eps in (0.05, 1.0, 30.0):
        found = L1(eps).linear_optimum(gradient, images)
        assert L1(eps).contains(found, images).all()
        for x, g, best in zip(images.flatten(1).double(), gradient.flatten(1).double(), found.flatten(1), strict=True):
            # δ = up − down, both from 0 to the room that the box leaves
            program = linprog(
                torch.cat([-g, g]).numpy(),
                A_ub=np.ones((1, 2 * PIXELS)),
                b_ub=[eps],
                bounds=[(0, float(room)) for room in torch.cat([1 - x, x])],
            )
            assert float(g @ (best - x)) == pytest.approx(-program.fun, abs=1e-5)


def through_the_middle(images):
    """A binary model that calls half of the images 0."""
    logits = Linear(weights(2))(images).detach()
    return Linear(weights(2), torch.stack([torch.zeros(()).double(), (logits[:, 0] - logits[:, 1]).median()]))


@pytest.mark.parametrize("attack", [FGSM(), FROM_THE_IMAGE], ids=repr)
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_robust_accuracy_of_a_binary_model_is_the_closed_form(threat, attack):
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
    assert {"clean", attack.name} < set(result.broken_by)
    assert (result.robust.numpy() == (slack > 0)).all()


def test_a_random_start_loses_nothing_in_linf():
    images = pictures(200, low=0.3, high=0.7)
    model = through_the_middle(images)
    labels = model(images).argmax(1)
    outcomes = [
        robust_accuracy(model, images, labels, Linf(0.05), [PGD(random_start=start)]).broken for start in (True, False)
    ]
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_with_many_classes_no_attack_claims_more_than_is_possible(threat):
    images = pictures(100, low=0.3, high=0.7)
    model = Linear(weights(6))
    labels = model(images).argmax(1)
    logits = model(images).double().detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    w = model.weight.detach()
    reach = threat.eps * torch.linalg.vector_norm(w[labels][:, None] - w[None], ord=DUAL[threat.name], dim=2)
    truly_robust = ((gaps > reach) | (gaps == 0)).all(1)
    result = robust_accuracy(model, images, labels, threat, ["fgsm", "pgd", {"name": "pgd", "loss": "margin"}])
    assert not (result.broken & truly_robust).any()
    assert float(result.robust.float().mean() - truly_robust.float().mean()) <= 0.03


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_one_full_step_of_pgd_is_fgsm(threat):
    """Identity 15, to the bit."""
    images = pictures(12)
    model, batch = never_broken(images)
    one = PGD(steps=1, random_start=False, relative_step_size=1.0)
    ours = end_of(one, model, batch, threat)
    assert torch.equal(ours, end_of(FGSM(), model, batch, threat))
