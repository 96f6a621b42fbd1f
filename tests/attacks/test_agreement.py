"""Ours against torchattacks and foolbox on a really trained model: at equal budgets, the same examples break.

``python -m benchmarks.agreement`` is the same at full size. Below are faults of the peers, shown not to be ours.
"""

from importlib.util import find_spec

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from benchmarks import peers
from isthmus.attacks import L2, PGD, Linf, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.suites import stages_of
from tests.attacks.attacked_models import Shell, Smooth, pictures

LINF, L2_BALL = Linf(0.1), L2(0.5)


def package(name):
    """A peer, imported as the benchmarks do it: on its own, foolbox warns of its dependencies."""
    if find_spec(name) is None:
        pytest.skip(f"compares with {name}, which is not installed; 'make setup' installs it")
    return getattr(peers, name)()


@pytest.fixture(scope="module")
def trained():
    """A network of one convolution, and 150 digits that it has not seen and gets right."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16).float().view(-1, 1, 8, 8)
    labels = torch.tensor(digits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(3):
            for rows in torch.randperm(1400).split(50):
                optimiser.zero_grad()
                functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimiser.step()
    right = (model(images).argmax(1) == labels)[1400:].nonzero().squeeze(1)[:150] + 1400
    return model.eval(), images[right], labels[right]


IN_BALL = [
    ("torchattacks:pgd", 10, {"name": "pgd", "steps": 10}),
    ("foolbox:pgd", 10, {"name": "pgd", "steps": 10}),
    ("torchattacks:apgd-ce", 15, {"name": "apgd", "steps": 15}),
    ("torchattacks:apgd-dlr", 15, {"name": "apgd", "steps": 15, "loss": "dlr"}),
    ("torchattacks:apgd-t", 5, {"name": "apgd", "steps": 5, "loss": "dlr", "targets": 9}),
    ("torchattacks:fab-t", 5, {"name": "fab", "steps": 5, "targets": 9}),
    ("torchattacks:square", 150, {"name": "square", "queries": 150}),
]


@pytest.mark.parametrize("threat", [LINF, L2_BALL], ids=["linf", "l2"])
@pytest.mark.parametrize(("peer", "steps", "ours"), IN_BALL, ids=[each[0] for each in IN_BALL])
def test_the_same_examples_break_at_equal_budgets(trained, peer, steps, ours, threat):
    package(peer.partition(":")[0])
    model, images, labels = trained
    counting = peers.Counting(model)
    theirs = peers.measure(peers.attack(peer, counting, threat, steps), counting, images, labels, threat)
    own = robust_accuracy(model, images, labels, threat, [ours])
    assert 0.1 < own.accuracy < 0.9
    assert own.robust.sum() <= theirs.robust.sum() + 2
    assert (own.robust == theirs.robust).double().mean() >= (
        0.92 if "square" in peer else 0.95
    )  # so few random queries agree less


DISTANCES = [
    ("foolbox:fmn", 40, {"name": "fmn", "steps": 40}, LINF),
    ("foolbox:fmn", 40, {"name": "fmn", "steps": 40}, L2_BALL),
    ("foolbox:ddn", 40, {"name": "ddn", "steps": 40}, L2_BALL),
    (
        "foolbox:cw",
        270,
        {"name": "cw", "binary_search_steps": 9, "steps": 30, "learning_rate": 0.01, "initial_const": 1e-3},
        L2_BALL,
    ),
]


@pytest.mark.parametrize(("peer", "steps", "ours", "norm"), DISTANCES, ids=[f"{e[0]}-{e[3].name}" for e in DISTANCES])
def test_the_same_distances_are_found_at_equal_budgets(trained, peer, steps, ours, norm):
    package("foolbox")
    model, images, labels = trained
    found = peers.attack(peer, peers.Counting(model), norm, steps)(images, labels).detach()
    there = (model(found).argmax(1) != labels) & (found > 0).flatten(1).any(1)  # black: see below
    theirs = norm.norm(found.double() - images.double())[there]
    own = minimal_norms(model, images, labels, norm.name, [ours]).sizes
    assert (own[there] <= 1.02 * theirs).double().mean() >= 0.95
    assert own.isfinite().sum() >= there.sum() - 1


# --- faults of the peers ---


def test_autoattack_of_torchattacks_takes_10_steps_where_100_are_published():
    theirs = package("torchattacks").AutoAttack(Smooth(10), n_classes=10, seed=0)
    assert [attack.steps for attack in theirs._autoattack.attacks[:3]] == [10, 10, 10]
    assert [stage.attack.steps for stage in stages_of("standard")[:3]] == [100, 100, 100]


@pytest.mark.parametrize("name", ["torchattacks", "foolbox"])
def test_pgd_of_the_peers_scores_the_last_iterate_only(name):
    peer, model = package(name), peers.Counting(Shell())
    images, labels = torch.full((1, 1, 4, 4), 0.5), torch.tensor([0])
    if name == "torchattacks":
        run = peer.PGD(model, eps=0.4, alpha=0.01, steps=20, random_start=False)
    else:
        chosen = peer.attacks.LinfPGD(abs_stepsize=0.01, steps=20, random_start=False)
        wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def run(images, labels):
            return chosen(wrapped, images, peer.criteria.Misclassification(labels), epsilons=0.4)[0]

    threat = Linf(0.4)
    assert peers.measure(run, model, images, labels, threat).robust.all()
    config = PGD(steps=20, step_size=0.01, random_start=False)
    assert robust_accuracy(Shell(), images, labels, threat, [config]).accuracy == 0


class Listening(nn.Module):
    """Prefers class 0 whatever it is shown, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def forward(self, images):
        self.heard.append(images.detach().clone())
        return torch.tensor([1.0, 0.0]).repeat(len(images), 1)


def test_square_of_torchattacks_moves_one_window_for_all_images():
    """Where nothing helps, a candidate differs from the first image in its window alone."""
    square = package("torchattacks").Square
    images, labels = torch.full((30, 1, 8, 8), 0.5), torch.zeros(30, dtype=torch.int64)

    def windows(heard):
        """Pixels, over all images, that the last query of the search changed."""
        return (heard[-1] != heard[0]).flatten(1).any(0).sum()

    theirs, ours = Listening(), Listening()
    with torch.random.fork_rng():
        square(theirs, eps=0.1, n_queries=300, seed=0)(images, labels)
    robust_accuracy(ours, images, labels, LINF, ["square:300"])
    theirs.heard = [heard for heard in theirs.heard if (heard != 0.5).all()]
    ours.heard = [heard for heard in ours.heard if (heard != 0.5).all()]
    assert len(theirs.heard) > 250
    assert len(ours.heard) > 250
    assert windows(theirs.heard) <= 1
    assert windows(ours.heard) > 8


def test_cw_of_foolbox_returns_a_black_image_where_it_found_nothing():
    """Its own criterion then takes that image for a success, where the model sees something else in the dark."""
    peer, bright = package("foolbox"), pictures(6, low=0.6, high=0.9)

    class Lamp(nn.Module):
        def forward(self, images):
            mean = images.flatten(1).mean(1)
            return torch.stack([mean, 1 - mean], 1)

    labels = torch.zeros(6, dtype=torch.int64)
    attack = peer.attacks.L2CarliniWagnerAttack(binary_search_steps=1, steps=5, stepsize=1e-3)
    wrapped = peer.PyTorchModel(Lamp().eval(), bounds=(0, 1), device="cpu")
    found, _, success = attack(wrapped, bright, peer.criteria.Misclassification(labels), epsilons=None)
    assert (found == 0).all()
    assert success.all()
    own = {"name": "cw", "binary_search_steps": 1, "steps": 5, "learning_rate": 1e-3, "initial_const": 1e-3}
    assert minimal_norms(Lamp(), bright, labels, "l2", [own]).sizes.isinf().all()


def test_cw_of_torchattacks_stops_all_images_where_their_sum_stalls():
    """What is found for an image depends on who else is in the batch; ours does not."""
    package("torchattacks")
    model, images = Smooth(), pictures(16, low=0.2, high=0.8)
    labels = model(images).argmax(1)
    attack = peers.torchattacks().CW(model, c=0.1, steps=30, lr=0.1)
    theirs = [torch.cat([attack(x, y) for x, y in zip(images.split(n), labels.split(n), strict=True)]) for n in (16, 1)]
    assert (theirs[0] - theirs[1]).flatten(1).norm(dim=1).max() > 0.05
    own = {"name": "cw", "binary_search_steps": 1, "steps": 30, "learning_rate": 0.1, "initial_const": 0.1}
    together, alone = (
        minimal_norms(model, images, labels, "l2", [own], options=RunOptions(batch_size=n)) for n in (16, 1)
    )
    torch.testing.assert_close(together.sizes, alone.sizes, rtol=0, atol=1e-6)
