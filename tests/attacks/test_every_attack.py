"""One table: every attack against every threat, through the same invariants."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.attacks import (
    APGD,
    CW,
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    MultiTargeted,
    Race,
    RayS,
    Square,
    Uniform,
    robust_accuracy,
)
from isthmus.attacks.api import curve
from isthmus.attacks.engine.optimized_model import PROBE
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.suites import stages_of
from isthmus.attacks.threats import L1, L2, Linf
from isthmus.core.errors import ConfigError
from tests.attacks.attacked_models import Counting, Noisy, subject

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
THREATS = [Linf(0.08), L2(0.3), L1(0.8)]
ATTACKS = [
    FGSM(),
    FGSM(loss="log_odds"),
    PGD(steps=8),
    PGD(steps=8, restarts=3, loss="margin"),
    PGD(steps=5, random_start=False, loss="log_odds"),
    PGD(steps=6, step_size=0.02),
    PGD(steps=6, targets="random", loss="margin"),
    PGD(steps=6, targets="all", loss="ce"),
    APGD(steps=10),
    APGD(steps=10, loss="dlr"),
    APGD(steps=10, loss="dlr", targets=9),
    APGD(steps=10, loss="margin", restarts=2),
    MultiTargeted(steps=8, restarts=1),
    FAB(steps=8, targets=2),
    FAB(steps=6, targets=0, restarts=2),
    Square(queries=80),
    Uniform(samples=40),
    RayS(queries=80),
    RayS(queries=40, restarts=2),
    FMN(steps=30),
    DDN(steps=30),
    CW(steps=60, binary_search_steps=2, learning_rate=0.05),
    Race(ce_steps=4, rounds=((1.0, 9, 4), (1.0, 1, 6)), queries=20, sample_queries=10),
]
ONLY = {"cw": ("l2",), "ddn": ("l2",), "rays": ("linf", "l2")}
BOUNDARY = ("fab", "fmn", "ddn", "cw", "uniform", "rays")  # end where a random model's lead is too small to be sure of
TABLE = [(attack, threat) for attack in ATTACKS for threat in THREATS if threat.name in ONLY.get(attack.name, ORDER)]

FIRST = [next(each for each in ATTACKS if each.name == name) for name in dict.fromkeys(each.name for each in ATTACKS)]
"""One attack of each kind, without its other options."""
ONE_OF_EACH = [(attack, next(t for t in reversed(THREATS) if (attack, t) in TABLE)) for attack in FIRST]
"""One attack of each kind against one threat, the last in the table."""


every = pytest.mark.parametrize(("attack", "threat"), TABLE, ids=lambda value: str(value)[:70])
one_of_each = pytest.mark.parametrize(
    ("attack", "threat"),
    [pytest.param(*pair, marks=[] if pair in ONE_OF_EACH else pytest.mark.slow) for pair in TABLE],
    ids=lambda value: str(value)[:70],
)


def labels_of(attack) -> list[str]:
    return [each.label for each in stages_of([attack])]


def reach(attack, threat):
    """Sampling needs a larger ball than a gradient does."""
    return threat.with_eps(4 * threat.eps) if attack.name == "uniform" else threat


@cache
def evaluated(attack, threat):
    return robust_accuracy(*subject(), threat, [attack])


@pytest.mark.parametrize("attack", FIRST, ids=lambda attack: attack.name)
def test_norm_and_radius_are_refused_as_those_of_the_threat(attack):
    for name in ("eps", "epsilon"):
        with pytest.raises(ConfigError, match=rf"{name} is part of the threat.*=isthmus\.Linf\(8 / 255\)"):
            type(attack)(**{name: 8 / 255})
    with pytest.raises(ConfigError, match="eps are part of the threat"):
        stages_of([{"name": attack.name, "eps": 0.1, "norm": "linf"}])


@every
def test_witnesses_are_inside_ball_and_box_and_misclassified(attack, threat):
    model, images, labels = subject()
    threat = reach(attack, threat)
    result = evaluated(attack, threat)
    assert {None, "clean"} < set(result.broken_by) <= {None, "clean", *labels_of(attack)}
    found, originals = result.adversarial[result.broken].double(), images[result.broken].double()
    assert found.min() >= 0
    assert found.max() <= 1
    sizes = np.linalg.norm((found - originals).flatten(1).numpy(), ORDER[threat.name], axis=1)
    assert sizes.max() <= threat.eps + 1e-5
    assert (model(found).argmax(1) != labels[result.broken]).all()
    assert result.state.adversarial[~result.broken].isnan().all()


@every
def test_the_numbers_agree_with_the_examples(attack, threat):
    model, images, labels = subject()
    result = evaluated(attack, threat)
    correct = model(images).argmax(1) == labels
    assert torch.equal(result.correct, correct)
    assert torch.equal(result.adversarial[~correct], images[~correct])
    assert [by == "clean" for by in result.broken_by] == (~correct).tolist()
    assert result.accuracy == int((~result.broken).sum()) / len(images)
    assert list(result.by_attack) == ["clean", *labels_of(attack)]
    assert next(iter(result.by_attack.values())) == int(correct.sum()) / len(images)
    assert list(result.by_attack.values())[-1] == result.accuracy
    assert list(result.by_attack.values()) == sorted(result.by_attack.values(), reverse=True)
    assert result.interval.low < result.accuracy < result.interval.high


@one_of_each
def test_broken_examples_stay_broken_with_more_restarts(attack, threat):
    model, images, labels = subject()
    before = None
    repeatable = hasattr(attack, "restarts") and getattr(attack, "random_start", True)
    for restarts in (1, 3) if repeatable else (1,):
        more = attack.model_copy(update={"restarts": restarts} if restarts > 1 else {})
        result = robust_accuracy(model, images, labels, threat, [more])
        if before is not None:
            assert not (before.broken & ~result.broken).any()
        before = result


@one_of_each
def test_accuracy_never_rises_along_a_curve(attack, threat):
    model, images, labels = subject()
    threat = reach(attack, threat)
    grid = [threat.with_eps(threat.eps * factor) for factor in (0.25, 0.7, 2)]
    results = curve(model, images, labels, grid, [attack])
    for smaller, larger in pairwise(results):
        assert not (smaller.broken & ~larger.broken).any()
    assert results[0].accuracy > results[-1].accuracy
    for result in results:
        assert result.threat.contains(result.adversarial[result.broken], images[result.broken]).all()


@one_of_each
def test_batch_size_and_order_change_nothing(attack, threat):
    model, images, labels = subject(n=12)
    whole = robust_accuracy(model, images, labels, threat, [attack], seed=3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 7):
        other = robust_accuracy(
            model, images[order], labels[order], threat, [attack], batch_size, seed=3, options=RunOptions(indices=order)
        )
        assert torch.equal(other.broken, whole.broken[order])
        torch.testing.assert_close(other.adversarial, whole.adversarial[order], equal_nan=True, rtol=0, atol=1e-6)
        passes = [(result.forward_passes, result.backward_passes) for result in (other, whole)]
        if batch_size == 1:  # runs follow one another, and nothing is spent beside one that succeeds
            assert all(alone <= together for alone, together in zip(*passes, strict=True))
        if all(each.attack.runs_in(threat, len(labels.unique())) == 1 for each in stages_of([attack])):
            assert passes[0] == passes[1]


@one_of_each
def test_passes_are_counted_exactly(attack, threat):
    model, images, labels = subject()
    counting = Counting(model)
    result = robust_accuracy(counting, images, labels, threat, [attack], batch_size=10)
    assert (result.forward_passes, result.backward_passes) == (counting.forwards, counting.backwards)
    assert int(result.state.forwards.sum()) <= result.forward_passes
    probes = result.forward_passes - int(result.state.forwards.sum())
    assert probes == 3 * PROBE  # whether the model is random, and what an example takes in memory
    assert result.backward_passes - int(result.state.backwards.sum()) == PROBE
    broken_later = result.correct & result.broken
    if attack.name == "pgd":  # those that fall leave early
        runs = attack.restarts * {"all": 2}.get(attack.targets, 1)
        ceiling = int(result.correct.sum()) * attack.steps * runs
        assert int(result.state.backwards.sum()) <= ceiling - int(broken_later.sum())


@one_of_each
def test_the_model_and_the_caller_notice_nothing(attack, threat):
    _, images, labels = subject()
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.ReLU(), nn.Linear(12, 3)
    )
    model.train()
    model[3].eval()
    model[1].weight.grad = torch.full_like(model[1].weight, 7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, kept = torch.get_rng_state(), (images.clone(), labels.clone())
    robust_accuracy(model, images, labels, threat, [attack])
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert (model[1].weight.grad == 7).all()
    assert all(p.grad is None for p in model[5].parameters())
    assert torch.equal(images, kept[0])
    assert not images.requires_grad
    assert torch.equal(labels, kept[1])


@one_of_each
def test_a_targeted_attack_hits_its_target(attack, threat):
    model, images, labels = subject()
    targets = (labels + 1) % 3
    wide = reach(attack, threat).with_eps(reach(attack, threat).eps * 2)
    result = robust_accuracy(model, images, labels, wide, [attack], options=RunOptions(targets=targets))
    hit = result.broken
    assert (model(result.adversarial[hit]).argmax(1) == targets[hit]).all()
    assert set(labels_of(attack)) & set(result.broken_by)
    assert result.targeted
    assert result.clean_accuracy == float((model(images).argmax(1) == labels).double().mean())


@one_of_each
def test_a_random_model_is_attacked_reproducibly_on_fresh_noise(attack, threat):
    plain, images, labels = subject(n=24)
    model = Noisy(plain, sigma=0.05)
    result = robust_accuracy(model, images, labels, threat, [attack], seed=1)
    assert result.random
    assert result.forward_passes == len(model.seen)
    order = torch.arange(23, -1, -1)
    again = robust_accuracy(
        Noisy(plain, sigma=0.05),
        images[order],
        labels[order],
        threat,
        [attack],
        11,
        seed=1,
        options=RunOptions(indices=order),
    )
    assert torch.equal(again.broken, result.broken[order])
    silent = robust_accuracy(Noisy(plain, sigma=0.0), images, labels, threat, [attack], seed=1)
    deterministic = robust_accuracy(plain, images, labels, threat, [attack], seed=1)
    assert silent.accuracy >= deterministic.accuracy - 2 / 24
    if attack.name not in BOUNDARY:
        assert silent.accuracy <= deterministic.accuracy + 4 / 24


class Convolved(nn.Module):
    """A float32 model with a convolution and batch norm: it gets an optimized copy, and bfloat16 changes its logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(96, 3)
        )

    def forward(self, images):
        return self.net(images)


@one_of_each
def test_what_optimized_models_and_half_precision_find_holds_in_float32(attack, threat):
    """Gradients in bfloat16 may find less or more; the model itself verifies what they find."""
    model, images = Convolved().eval(), subject(n=24)[1]
    labels = model(images).argmax(1)
    wide = reach(attack, threat).with_eps(2 * reach(attack, threat).eps)
    plain = robust_accuracy(model, images, labels, wide, [attack])
    rough = robust_accuracy(model, images, labels, wide, [attack], options=RunOptions(bf16=True))
    for result in (plain, rough):
        found = result.adversarial[result.broken]
        assert (model(found).argmax(1) != labels[result.broken]).all()
        assert wide.contains(found, images[result.broken]).all()
    assert abs(plain.accuracy - rough.accuracy) <= 4 / 24
