"""What the studies of CEB on CIFAR-10 share: the attacks, the sets under shift, and the cells of two stages.

First every model is trained and attacked. Then those that did not collapse are tested on the published sets under
shift, and adversarial images of some models are tried on another (:mod:`isthmus.studies.ceb.cifar_transfers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from isthmus.core.config import Positive
from isthmus.studies.ceb.sweeps import Curve, SweepConfig
from isthmus.studies.old.image_models import Eps, Kind
from isthmus.studies.store import ResultStore, Stages

Grid = Annotated[tuple[Eps, ...], Field(min_length=1)]
LINF: Grid = tuple(n / 255 for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))
L2: Grid = tuple(n / 255 for n in (10, 25, 50, 75, 100, 200, 400, 800, 1600))
CIFAR10_1 = ("cifar10_1:v4", "cifar10_1:v6")
DIGITS: dict[str, Any] = {
    "data": "digits",
    "images": 60,
    "linf": (0.03, 0.1, 0.2),
    "at_linf": 0.1,
    "l2": (0.5, 1.0, 2.0),
    "at_l2": 1.0,
    "ensemble": [{"name": "apgd", "steps": 10}],
    "ensemble_images": 30,
}
"""For presets that take seconds."""
FIVE_THOUSAND: dict[str, Any] = {
    "seeds": 2,
    "train_limit": 5000,
    "images": 200,
    "linf": tuple(n / 255 for n in (1, 2, 4, 8, 16)),
    "l2": tuple(n / 255 for n in (25, 50, 100, 200, 400)),
    "ensemble": "fast",
    "ensemble_images": 100,
    "shifts": (*CIFAR10_1, {"name": "cifar10_c", "limit": 500}),
}
"""For presets on 5,000 of CIFAR-10's training images."""


class CifarConfig(SweepConfig):
    """How networks are trained and attacked on CIFAR-10.

    Attributes:
        steps: of PGD, each 4/3·ε/steps long.
        direction: "none" for untargeted PGD, as figure 3 says; "random" directs every run at a wrong class drawn for
            it (the text on figure 2 says "targeted", but not at what).
        linf, l2: ε of the curves, ascending. The papers print no list.
        at_linf, at_l2: ε of these at which models are compared. The paper's ε in ℓ2 is not printed: ours is a reading.
        ensemble: the suite that is put beside PGD, at ``at_linf`` and ``at_l2``.
        ensemble_images: on so many of the judged images.
        shifts: published sets under shift to test on, by name or with options.
        madry: a run folder of an adversarially trained network of CIFAR-10, to transfer attacks from; None for none.
    """

    departs: ClassVar[Mapping[str, Any]] = {}
    data: str = "cifar10"
    rho_schedule: str | dict[str, Any] | None = "cifar_000"
    scheduled: float = math.inf
    steps: Positive = 20
    direction: Literal["none", "random"] = "none"
    linf: Grid = LINF
    l2: Grid = L2
    at_linf: Eps = 8 / 255
    at_l2: Eps = 200 / 255
    ensemble: str | list[Any] = "standard"
    ensemble_images: Positive = 1000
    shifts: tuple[str | dict[str, Any], ...] = CIFAR10_1
    madry: str | None = None

    @model_validator(mode="after")
    def _on_the_grid(self) -> Self:
        for name in ("linf", "l2"):
            grid, at = getattr(self, name), getattr(self, f"at_{name}")
            if list(grid) != sorted(set(grid)):
                raise ValueError(f"{name} must ascend")
            if at not in grid:
                raise ValueError(f"at_{name}={at:g} is none of {name}; add it there")
        return self

    def pgd(self) -> list[Any]:
        """The papers' attack; their step is (4/3)·ε/n."""
        step = 4 / 3 / self.steps
        return [{"name": "pgd", "steps": self.steps, "relative_step_size": step, "targets": self.direction}]

    def curves(self) -> tuple[Curve, ...]:
        """PGD on all judged images at every ε; the ensemble on some of them at one, and PGD on the same."""
        strong: dict[str, Any] = {"suite": self.ensemble, "images": self.ensemble_images}
        weak: dict[str, Any] = {"suite": self.pgd(), "images": self.ensemble_images}
        return (
            Curve(name="pgd linf", norm="linf", eps=self.linf, suite=self.pgd()),
            Curve(name="pgd l2", norm="l2", eps=self.l2, suite=self.pgd()),
            Curve(name="same images linf", norm="linf", eps=(self.at_linf,), **weak),
            Curve(name="same images l2", norm="l2", eps=(self.at_l2,), **weak),
            Curve(name="ensemble linf", norm="linf", eps=(self.at_linf,), **strong),
            Curve(name="ensemble l2", norm="l2", eps=(self.at_l2,), **strong),
        )

    def recipe(self, kind: Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model; "_bn" and "_pgd" put batch normalisation into its backbone."""
        recipe = super().recipe(kind, knob, seed)
        if kind.endswith(("_bn", "_pgd")):
            recipe["model"] = {**self.model, "backbone": {**self.model["backbone"], "norm": True}}
        return recipe

    def objective(self, kind: Kind, knob: float | None) -> Any:
        """The same with batch normalisation and without, and of adversarial images."""
        plain: dict[str, Kind] = {"determ_bn": "determ", "ceb_bn": "ceb", "determ_pgd": "determ"}
        return super().objective(plain.get(kind, kind), knob)


def cells(config: CifarConfig, bench: ResultStore) -> Stages:
    """Every model, trained and attacked; then those that trained, under shift and under each other's attacks."""
    from isthmus.studies.ceb import cifar_shifts, cifar_transfers, measuring
    from isthmus.studies.old.laboratory import Laboratory

    laboratory = Laboratory(config, bench)
    cifar_transfers.check(config)
    models = yield measuring.cells(config, laboratory)
    trained = [cell for cell in models if not cell["collapsed"]]
    yield [*cifar_shifts.cells(config, laboratory, trained), *cifar_transfers.cells(config, laboratory, trained)]
