"""Attacks as functions of images and labels: what they find, what they leave alone, and training loops."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from isthmus.attacks import (
    APGD,
    CW,
    FAB,
    FGSM,
    FMN,
    L1,
    L2,
    PGD,
    Linf,
    MultiTargeted,
    Race,
    Square,
    Transfer,
    Uniform,
    robust_accuracy,
    transferred,
)
from isthmus.core.errors import ConfigError, DataError, ModelError
from tests.attacks.attacked_models import Counting, Linear, Noisy, Smooth, pictures, subject

THREATS = [Linf(0.1), L2(0.4), L1(1.0)]
each_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)


def broken(model, images, labels):
    return model(images).argmax(1) != labels


@each_threat
def test_pgd_reaches_the_optimum_of_a_linear_model(threat):
    """The largest rise of a linear margin is ε times the dual norm of its gradient, as long as the box is far."""
    weight = torch.tensor([[1.0, -2.0, 0.5, 3.0] * 4, [0.0] * 16])
    images, labels = pictures(8, low=0.45, high=0.55), torch.zeros(8, dtype=torch.int64)
    attack = PGD(steps=40, random_start=False, loss="margin")
    adversarial = attack.bind(Linear(weight), threat.with_eps(threat.eps / 4))(images, labels)
    rise = (Linear(weight)(images)[:, 0] - Linear(weight)(adversarial)[:, 0]).float()
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[threat.name]
    expected = threat.eps / 4 * torch.linalg.vector_norm(weight[0], dual)
    assert (rise >= 0.9 * expected).all()
    assert (rise <= 1.001 * expected).all()


ATTACKS = [
    FGSM(),
    PGD(steps=20),
    PGD(steps=10, restarts=2),
    PGD(steps=10, targets="all"),
    APGD(steps=20),
    APGD(steps=20, loss="dlr", targets=2),
    MultiTargeted(steps=10, restarts=2),
    FAB(steps=20, targets=2),
    FMN(steps=40, restarts=2),
    Square(queries=200),
    Uniform(samples=20),
]


@each_threat
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.label)
def test_images_are_inside_ball_and_box_and_break_about_what_an_evaluation_breaks(attack, threat):
    model, images, labels = subject()
    adversarial = attack.bind(model, threat)(images, labels)
    assert adversarial.shape == images.shape
    assert threat.contains(adversarial, images).all()
    found, evaluated = broken(model, adversarial, labels), robust_accuracy(model, images, labels, threat, [attack])
    assert abs(int(found.sum()) - int(evaluated.broken.sum())) <= 5
    assert found.sum() > broken(model, images, labels).sum()


def test_an_attack_that_needs_one_norm_is_refused_in_others():
    model, images, labels = subject()
    with pytest.raises(ConfigError, match="works in l2, not in linf"):
        CW().bind(model, 0.1)
    assert L2(0.4).contains(CW(steps=30).bind(model, "l2:0.4")(images, labels), images).all()


@pytest.mark.parametrize("given", [0.1, "linf:0.1", Linf(0.1)])
def test_a_number_is_a_radius_in_linf(given):
    model, images, labels = subject()
    adversarial = PGD(steps=5).bind(model, given)(images, labels)
    assert torch.equal(adversarial, PGD(steps=5).bind(model, Linf(0.1))(images, labels))
    assert (adversarial - images).abs().max() == pytest.approx(0.1, abs=1e-6)


def test_with_a_radius_of_0_images_are_unchanged():
    model, images, labels = subject()
    adversarial = PGD().bind(model, 0)(images, labels)
    assert torch.equal(adversarial, images)
    assert adversarial.data_ptr() != images.data_ptr()


def test_starts_derive_from_seed_and_call_alone():
    model, images, labels = subject()
    attack, again, other = (PGD(steps=1).bind(model, 0.1, seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second = attack(images, labels), attack(images, labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other(images, labels))
    assert torch.equal(first, again(images, labels))
    assert torch.equal(second, again(images, labels))


def test_targets_are_reached():
    model, images, _ = subject()
    labels = model(images).argmax(1)
    targets = (labels + 1) % 3
    adversarial = APGD(steps=40).bind(model, 0.3)(images, labels, targets)
    assert (model(adversarial).argmax(1) == targets).double().mean() > 0.9


def test_only_what_an_earlier_run_left_is_attacked_again():
    model, images, labels = subject()
    counting = Counting(model)
    attack = PGD(steps=4, restarts=3).bind(counting, 0.1)
    attack(images, labels)  # the first call also learns the number of classes
    counting.forwards = counting.backwards = 0
    attack(images, labels)
    assert 4 * len(images) < counting.backwards < 12 * len(images)


def test_a_run_that_is_over_leaves_the_batch():
    model, images, labels = subject()
    counting = Counting(model)
    attack = Uniform(samples=100).bind(counting, 1.0)
    attack(images, labels)
    assert counting.forwards < 50 * len(images)


class Normalised(nn.Module):
    """Convolution, batch norm and dropout: everything whose mode matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
        )
        self.modes = []

    def forward(self, images):
        self.modes.append((self.net[1].training, self.net[3].training))
        return self.net(images)


@pytest.mark.parametrize("eval_mode", [True, False])
def test_the_model_is_left_as_it_was(eval_mode):
    model, images, labels = Normalised().train(), pictures(), torch.arange(48) % 3
    model.net[1].eval()  # a frozen batch norm in a model in train mode
    model.net[0].weight.requires_grad_(False)
    model.net[5].weight.grad = torch.full_like(model.net[5].weight, 7.0)
    before = copy.deepcopy(model.state_dict())
    images.requires_grad_()
    adversarial = PGD(steps=3).bind(model, 0.1, eval_mode=eval_mode)(images, labels)
    assert not adversarial.requires_grad
    assert images.grad is None
    assert set(model.modes) == {(False, not eval_mode)}
    assert (model.training, model.net[1].training, model.net[3].training) == (True, False, True)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert (model.net[5].weight.grad == 7).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_statistics_are_used_and_then_forgotten():
    model, images, labels = Normalised().train(), pictures(), torch.arange(48) % 3
    model.net[3].p = 0.0
    before = copy.deepcopy(model.state_dict())
    found = [PGD(steps=5).bind(model, 0.1, eval_mode=mode)(images, labels) for mode in (True, False)]
    assert not torch.equal(*found)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("eval_mode", [True, False])
def test_an_earlier_forward_pass_can_still_be_differentiated(eval_mode):
    """TRADES differentiates the clean logits after the attack; batch norm has saved its buffers for that."""
    model, images, labels = Normalised().train(), pictures(), torch.arange(48) % 3
    clean = functional.cross_entropy(model(images), labels)
    PGD(steps=2).bind(model, 0.1, eval_mode=eval_mode)(images, labels)
    clean.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_it_works_while_gradients_are_off_and_while_the_model_learns():
    model, images, labels = Smooth(), pictures(), torch.arange(48) % 3
    attack = PGD(steps=5).bind(model, 0.1)
    with torch.no_grad():
        first = attack(images, labels)
    assert not torch.equal(first, images)
    sgd = torch.optim.SGD(model.parameters(), 1.0)
    for _ in range(3):
        sgd.zero_grad()
        functional.cross_entropy(model(attack(images, labels)), labels).backward()
        sgd.step()
    attack.calls = 0
    assert not torch.equal(attack(images, labels), first)  # it attacks the weights as they are now


def divergence(logits, clean):
    return functional.kl_div(logits.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none").sum(1)


@each_threat
@pytest.mark.parametrize("kind", [PGD, APGD])
def test_a_loss_of_ones_own_is_ascended(threat, kind):
    if kind is APGD and threat.name == "l1":
        threat = L1(0.5)
    model, images = Smooth(), pictures()
    clean = model(images).detach()
    adversarial = kind(steps=10).bind(model, threat, loss=divergence)(images, clean)
    assert threat.contains(adversarial, images).all()
    random = threat.random_start(images, torch.arange(48))
    assert divergence(model(adversarial), clean).mean() > 3 * divergence(model(random), clean).mean()


@pytest.mark.parametrize(
    "attack",
    [FGSM(), FAB(), Square(), PGD(restarts=2), PGD(targets="random"), APGD(targets=2), MultiTargeted()],
    ids=str,
)
def test_attacks_that_cannot_ascend_it_are_refused(attack):
    with pytest.raises(ConfigError, match="cannot ascend a loss of your own"):
        attack.bind(Smooth(), 0.1, loss=divergence)


def test_keyed_noise_and_its_average():
    model, images, labels = subject()
    noisy = Noisy(model, 0.01)
    adversarial = PGD(steps=5, eot=3).bind(noisy, 0.1)(images, labels)
    assert len(noisy.seen) == len(images) * (1 + 5 * 3)
    assert len(set(noisy.seen)) == len(noisy.seen)
    assert broken(model, adversarial, labels).sum() > broken(model, images, labels).sum()


def test_what_consists_of_several_stages_is_refused(tmp_path):
    model, images, labels = subject()
    with pytest.raises(ConfigError, match="several stages"):
        Race().bind(model, 0.1)
    result = robust_accuracy(model, images, labels, "linf:0.1", "pgd:5")
    result.save(tmp_path / "pgd.safetensors")
    with pytest.raises(ConfigError, match="several stages"):
        Transfer(results=tmp_path / "pgd.safetensors").bind(model, 0.1)
    assert torch.equal(transferred(result).bind(model, 0.1)(images, labels), result.adversarial)


IMAGES, LABELS = pictures(4), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("images", "labels", "fault"),
    [
        (255 * IMAGES, LABELS, "must lie in"),
        (IMAGES, LABELS[:3], "labels"),
        (IMAGES, LABELS + 3, "with 3 classes"),
        (IMAGES, LABELS.double(), "labels must be integers"),
    ],
)
def test_arguments_are_checked(images, labels, fault):
    with pytest.raises(DataError, match=fault):
        PGD().bind(Smooth(), 0.1)(images, labels)


def test_arguments_of_a_loss_of_ones_own_are_checked():
    attack = PGD().bind(Smooth(), 0.1, loss=divergence)
    with pytest.raises(DataError, match="a row for each of 4 images"):
        attack(IMAGES, torch.zeros(3, 3))
    with pytest.raises(DataError, match="must lie in"):
        attack(2 * IMAGES, torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="no targets"):
        attack(IMAGES, torch.zeros(4, 3), LABELS)


def test_what_is_no_module_is_refused():
    with pytest.raises(ModelError, match="nn.Module"):
        PGD().bind(lambda images: images.flatten(1), 0.1)
    assert repr(PGD(steps=3).bind(Smooth(), 0.1)).endswith(".bind(Smooth, 'linf:0.1')")
