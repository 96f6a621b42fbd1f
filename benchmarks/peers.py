"""The attacks of torchattacks and foolbox behind one face, with their passes counted and their claims judged again.

    python -m benchmarks.peers [--model trained-53] [--n 1000] [--batch-size 500]

measures AutoAttack stage by stage. In code::

    model = Counting(build("trained-53"))
    measured = measure(attack("torchattacks:apgd-ce", model, Linf(0.1)), model, images, labels, Linf(0.1), 500)

Everything runs in float32 on a copy of the model without parameter gradients, which spares the peers work that they
would otherwise throw away.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.attack_models import RADII, RECIPES, build, test_images
from isthmus.attacks.threats import L2, Linf, Threat

Run = Callable[[Tensor, Tensor], Tensor]
"""An attack that is ready: adversarial images from images and labels. Not all lie inside the ball."""

NORMS = {"linf": "Linf", "l2": "L2"}


class Counting(nn.Module):
    """A frozen copy of a model that counts the examples passed forward and backward through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.eval().requires_grad_(False)
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        logits: Tensor = self.model(images)
        if logits.requires_grad:  # the hook fires once for each gradient that is taken of these logits
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    @property
    def passes(self) -> tuple[int, int]:
        """Examples forward and backward so far."""
        return self.forwards, self.backwards


@dataclass
class Stage:
    """One attack of a sequence, with what it has cost so far. ``standing`` counts examples before and after it."""

    name: str
    model: Counting
    run: Run
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    standing: list[int] = field(default_factory=lambda: [0, 0])

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        forwards, backwards = self.model.passes
        start = time.perf_counter()
        found = self.run(images, labels)
        self.seconds += time.perf_counter() - start
        self.forwards += self.model.forwards - forwards
        self.backwards += self.model.backwards - backwards
        self.standing[0] += len(labels)
        with torch.no_grad():
            self.standing[1] += int((self.model.model(found).argmax(1) == labels).sum())
        return found


@dataclass(frozen=True)
class Measured:
    """What an attack achieved, judged by ourselves, and what it cost.

    Attributes:
        robust: whether each example still stands.
        images: per example the attack's image, in ball and box; where it stands, without meaning.
        seconds: of the attack alone, judging not included.
    """

    robust: Tensor
    images: Tensor
    seconds: float
    forwards: int
    backwards: int

    @property
    def accuracy(self) -> float:
        return float(self.robust.double().mean())


def measure(
    run: Run, model: Counting, images: Tensor, labels: Tensor, threat: Threat, batch_size: int = 500
) -> Measured:
    """Attack and judge: broken is what is misclassified in float32 once it is projected into ball and box.

    Clean mistakes count as broken too. The global random state, which the peers seed, is afterwards as it was.
    """
    forwards, backwards = model.passes
    found, seconds = [], 0.0
    with torch.random.fork_rng():
        for batch, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            start = time.perf_counter()
            found.append(run(batch, classes).detach().float())
            seconds += time.perf_counter() - start
    spent = model.forwards - forwards, model.backwards - backwards
    adversarial = torch.cat(found)
    inside = threat.contains(adversarial, images)
    adversarial[~inside] = threat.project(adversarial[~inside], images[~inside])
    with torch.no_grad():
        robust = torch.cat([model.model(x).argmax(1) for x in adversarial.split(batch_size)]) == labels
        robust &= torch.cat([model.model(x).argmax(1) for x in images.split(batch_size)]) == labels
    return Measured(robust, adversarial, seconds, *spent)


STEPS = {
    "pgd": 40,
    "apgd-ce": 100,
    "apgd-dlr": 100,
    "apgd-t": 100,
    "fab": 100,
    "fab-t": 100,
    "square": 5000,
    "cw": 900,
    "fmn": 100,
    "ddn": 100,
}
"""What each attack takes by default: gradient steps, or queries of Square."""


def torchattacks() -> ModuleType:
    """The package, without its declared torchvision, which it never imports."""
    import torchattacks

    return torchattacks


def foolbox() -> ModuleType:
    """The package; it wants a git program and scipy's old names for things that are not used here."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox

    return foolbox


def attack(name: str, model: Counting, threat: Threat, steps: int | None = None, seed: int = 0) -> Run:
    """An attack by name, such as ``"torchattacks:fab-t"`` or ``"foolbox:ddn"``.

    Args:
        steps: gradient steps (each target's, if targeted; all of them, over the binary search of a CW), or the
            queries of Square; None for what :data:`STEPS` says.
    """
    package, _, kind = name.partition(":")
    makers = {"torchattacks": _torchattack, "foolbox": _foolbox_attack}
    return makers[package](kind, model, threat, steps or STEPS[kind], seed)


# AutoAttack's standard version (Croce & Hein 2020). torchattacks' own class of that name takes 10 steps, not 100.
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")


class AutoAttack:
    """torchattacks' MultiAttack over AutoAttack's four attacks at their published budgets; see ``stages``."""

    def __init__(self, model: Counting, threat: Threat, seed: int = 0) -> None:
        self.stages = [Stage(name, model, _torchattack(name, model, threat, STEPS[name], seed)) for name in AUTOATTACK]
        self._run = torchattacks().MultiAttack(self.stages)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = self._run(images, labels)
        return found


def autoattack(model: Counting, eps: float, norm: str = "Linf", seed: int = 0) -> AutoAttack:
    """AutoAttack as published, of torchattacks' parts."""
    return AutoAttack(model, {"Linf": Linf, "L2": L2}[norm](eps), seed)


def _torchattack(kind: str, model: Counting, threat: Threat, steps: int, seed: int) -> Run:
    package, eps = torchattacks(), threat.eps
    if kind == "pgd":
        make = {"linf": package.PGD, "l2": package.PGDL2}[threat.name]
        return _seeded(make(model, eps=eps, alpha=2.5 * eps / steps, steps=steps), seed)
    if kind == "cw":
        # one run at a fixed trade-off of 1: its authors left the binary search out
        return package.CW(model, c=1, kappa=0, steps=steps, lr=0.01)
    common: dict[str, Any] = {"norm": NORMS[threat.name], "eps": eps, "n_restarts": 1, "seed": seed}
    makers: dict[str, Callable[[], Run]] = {
        "apgd-ce": lambda: package.APGD(model, steps=steps, loss="ce", **common),
        "apgd-dlr": lambda: package.APGD(model, steps=steps, loss="dlr", **common),
        "apgd-t": lambda: package.APGDT(model, steps=steps, n_classes=10, **common),
        "fab": lambda: package.FAB(model, steps=steps, **common),
        "fab-t": lambda: package.FAB(model, steps=steps, multi_targeted=True, n_classes=10, **common),
        "square": lambda: package.Square(model, n_queries=steps, **common),
    }
    return makers[kind]()


def _foolbox_attack(kind: str, model: Counting, threat: Threat, steps: int, seed: int) -> Run:
    attacks, l2 = foolbox().attacks, threat.name == "l2"
    if kind == "pgd":
        make = attacks.L2ProjectedGradientDescentAttack if l2 else attacks.LinfProjectedGradientDescentAttack
        chosen = make(rel_stepsize=2.5 / steps, steps=steps)
    elif kind == "fmn":
        chosen = (attacks.L2FMNAttack if l2 else attacks.LInfFMNAttack)(steps=steps)
    elif kind == "ddn":
        chosen = attacks.DDNAttack(steps=steps)
    elif kind == "cw":
        chosen = attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=steps // 9)
    else:
        raise KeyError(kind)
    # of the attacks that minimise a distance, only pgd is told ε: early stopping would spare the others nothing
    eps = threat.eps if kind == "pgd" else None

    def run(images: Tensor, labels: Tensor) -> Tensor:
        wrapped = foolbox().PyTorchModel(model, bounds=(0, 1), device=images.device)
        found: Tensor = chosen(wrapped, images, foolbox().criteria.Misclassification(labels), epsilons=eps)[0]
        return found

    return _seeded(run, seed)


def _seeded(run: Run, seed: int) -> Run:
    def seeded(images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return run(images, labels)

    return seeded


def show(run: AutoAttack, measured: Measured, n: int) -> None:
    table = Table(title=f"AutoAttack of torchattacks: {measured.accuracy:.1%} robust, {measured.seconds:.0f} s")
    for column in ("attack", "attacked", "robust after", "seconds", "forward", "backward"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    rows = [(stage.name, *stage.standing, stage) for stage in run.stages]
    for name, before, after, cost in [*rows, ("all", n, round(measured.accuracy * n), measured)]:
        counts = f"{cost.forwards:,}", f"{cost.backwards:,}"
        table.add_row(name, str(before), f"{after / n:.1%}", f"{cost.seconds:.1f}", *counts)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RECIPES, default="trained-53")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=500)
    given = parser.parse_args()
    images, labels = test_images(given.model, given.n)
    model, threat = Counting(build(given.model)), Linf(RADII[RECIPES[given.model].data])
    run = autoattack(model, threat.eps)
    show(run, measure(run, model, images, labels, threat, given.batch_size), given.n)


if __name__ == "__main__":
    main()
