"""Options of the CEB studies on small images; the defaults are the papers', or our reading if they do not state them.

The smaller scales are in ``presets.yaml``. "CEB" is Fischer & Alemi, "CEB Improves Model Robustness" (2020), "Entropy"
is Fischer, "The Conditional Entropy Bottleneck" (Entropy 22(9), 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.core.types import Coordinate
from isthmus.studies.image_models import Eps, ImageConfig, Mode, ModelSpec, Objective

OBJECTIVES: dict[Coordinate, str] = {
    "determ": "deterministic",
    "ceb": "CEB",
    "vib": "VIB",
    "bidirectional": "bidirectional CEB",
    "determ_bn": "deterministic, batch norm",
    "ceb_bn": "CEB, batch norm",
    "determ_pgd": "deterministic, adversarial training",
}
"""Names of the objectives on pages, in the order of display."""
TROUSER = 1
"""Target class of targeted PGD on Fashion-MNIST."""
FASHION_MODEL: dict[str, Any] = {
    "backbone": {"name": "wide_resnet", "depth": 7, "width": 2, "norm": False},
    "dim": 4,
    "covariance": "full",
    "classifier": "mlp",
    "marginal": "mixture",
}
FASHION_TRAINING: dict[str, Any] = {
    "epochs": 171,  # 40,000 steps, the last in figure 5 of Entropy
    "batch_size": 256,  # the figure's bound reaches 5 nats, more than the logarithm of 148
    "optimizer": {"lr": 1e-3},
}
RANDOM_LABELS_TRAINING: dict[str, Any] = {**FASHION_TRAINING, "epochs": 100}
CALIBRATION_TRAINING: dict[str, Any] = {**FASHION_TRAINING, "snapshots": (2000, 20_000, 40_000)}
LINF_40: list[Any] = [{"name": "pgd", "steps": 40, "step_size": 0.01}]
L2_40: list[Any] = [{"name": "pgd", "steps": 40, "relative_step_size": 4 / 3 / 40}]

Bottlenecks = Annotated[tuple[tuple[Objective, float], ...], Field(min_length=1)]
Families = Annotated[tuple[Objective, ...], Field(min_length=1)]
Rhos = Annotated[tuple[float, ...], Field(min_length=1)]
Grid = Annotated[tuple[Eps, ...], Field(min_length=1)]


class Curve(Frozen):
    """An attack at one or several ε.

    Attributes:
        name: the coordinate ``attack`` of its rows.
        eps: ascending, in units of images in [0, 1]. An image broken at one counts as broken at larger ones.
        suite: name of a suite, or attacks.
        target_class: of a targeted attack; None for any wrong class.
        images: attack this many of the evaluated images, class-balanced; None for all.
    """

    name: str
    norm: Literal["linf", "l2"]
    eps: Grid
    suite: str | list[Any]
    target_class: Annotated[int, Field(ge=0)] | None = None
    images: Positive | None = None


class FamilyConfig(ImageConfig):
    """A deterministic network and bottlenecks of one architecture; by default the one for Fashion-MNIST.

    Attributes:
        first_seed: so that another machine can add seeds to a sweep.
        kl: how the information term is computed: "sampled" is the papers' own form, log-density ratios of the same
            samples that classify; "closed" has less variance if there is a closed form.
        rho_schedule: how training reaches a bottleneck's ρ: a name of
            :data:`isthmus.core.training_options.RHO_SCHEDULES`, or the options of
            :class:`isthmus.core.training_options.RhoSchedule`; None for this ρ from the first step. "jump_start"
            descends from ρ = 10 in 1,500 steps, or in two thirds of a shorter run. The papers mention none for
            Fashion-MNIST; without it, models with ρ ≤ 1 are far from trained after some thousand steps.
        scheduled: bottlenecks with ρ up to this have the schedule.
    """

    departs: ClassVar[Mapping[str, Any]] = {"rho_schedule": None}

    seeds: Positive = 4
    data: str = "fashion_mnist"
    model: dict[str, Any] = FASHION_MODEL
    training: dict[str, Any] = FASHION_TRAINING
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("mean",)
    first_seed: Annotated[int, Field(ge=0)] = 0
    kl: Literal["closed", "sampled"] = "sampled"
    rho_schedule: str | dict[str, Any] | None = "jump_start"
    scheduled: float = 1.0

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model, with the schedule of ρ if it has one."""
        recipe = super().recipe(model)
        if model.parameter is not None and model.parameter <= self.scheduled and self.rho_schedule is not None:
            recipe["training"] = {**self.training, "rho_schedule": self.rho_schedule}
        return recipe

    def objective(self, model: ModelSpec) -> Any:
        """Every bottleneck has ρ."""
        if model.objective == "determ":
            return "deterministic"
        return {"name": model.objective, "rho": model.parameter, "kl": self.kl}

    def of_seed(self, seed: int) -> list[tuple[Objective, float | None]]:
        """Objective and ρ of the models of one seed."""
        raise NotImplementedError

    def models(self) -> list[ModelSpec]:
        """The models of all seeds, seed by seed, so that an interrupted study has every model once."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [ModelSpec(*model, seed) for seed in seeds for model in self.of_seed(seed)]


class ChosenConfig(FamilyConfig):
    """Some bottlenecks, each with its ρ, beside the deterministic network; all are tested by a check.

    Attributes:
        bottlenecks: objective and ρ of each.
        resamples: number of bootstrap resamples.
    """

    training: dict[str, Any] = CALIBRATION_TRAINING
    bottlenecks: Bottlenecks
    resamples: Positive = 1000

    def of_seed(self, seed: int) -> list[tuple[Objective, float | None]]:
        """The same for every seed, the deterministic one first."""
        return [("determ", None), *self.bottlenecks]


class SweepConfig(FamilyConfig):
    """A deterministic network and bottlenecks over ρ.

    Attributes:
        families: objectives of the bottlenecks.
        rhos: values of ρ, for each of them.
        repeated: values that are trained with every seed, the others with the first alone; None for all.
    """

    families: Families = ("ceb",)
    rhos: Rhos
    repeated: tuple[float, ...] | None = None

    def of_seed(self, seed: int) -> list[tuple[Objective, float | None]]:
        """The deterministic network, and each family over ρ."""
        again = self.rhos if seed == self.first_seed or self.repeated is None else self.repeated
        return [("determ", None), *((family, rho) for rho in self.rhos if rho in again for family in self.families)]

    def curves(self) -> tuple[Curve, ...]:
        """The attacks on every model."""
        raise NotImplementedError


class FashionConfig(SweepConfig):
    """CEB, figure 1. The papers state neither optimiser, batch size nor steps, nor the attacks' ε and steps.

    Attributes:
        ensemble: a suite that attacks beside targeted PGD.
        ensemble_images: number of evaluated images that it attacks.
        ensemble_linf, ensemble_l2: its ε; the last is that of targeted PGD.
    """

    families: Families = ("vib", "ceb")
    rhos: Rhos = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    ensemble: str = "standard"
    ensemble_images: Positive = 1000
    ensemble_linf: Grid = (0.02, 0.05, 0.1)
    ensemble_l2: Grid = (0.5, 1.0, 2.0)

    def curves(self) -> tuple[Curve, ...]:
        """Targeted PGD on all evaluated images, and the ensemble on some of them."""
        strong: dict[str, Any] = {"suite": self.ensemble, "images": self.ensemble_images}
        return (
            Curve(name="targeted pgd", norm="linf", eps=(0.1,), suite=LINF_40, target_class=TROUSER),
            Curve(name="targeted pgd", norm="l2", eps=(2.0,), suite=L2_40, target_class=TROUSER),
            Curve(name="ensemble", norm="linf", eps=self.ensemble_linf, **strong),
            Curve(name="ensemble", norm="l2", eps=self.ensemble_l2, **strong),
        )


class RandomLabelsConfig(SweepConfig):
    """Entropy, section 3.1.5, with the sweep's model and optimiser if it states none.

    What a model memorises while a jump-start lowers ρ, it must forget afterwards. So a jump-start takes a quarter of
    the run in the smaller presets, and accuracy is measured at the end of training.

    Attributes:
        label_seed: of the random labels, the same for all models.
    """

    training: dict[str, Any] = RANDOM_LABELS_TRAINING
    families: Families = ("vib", "ceb")
    rhos: Rhos = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    label_seed: Annotated[int, Field(ge=0)] = 0

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model, on random labels."""
        plain = super().recipe(model)
        data = {**plain["data"], "random_labels": self.label_seed}
        return {**plain, "name": f"{plain['name']}-random-labels", "data": data}


class DetectionConfig(ChosenConfig):
    """Entropy, table 1. All test images are in-distribution; there are as many of each other kind.

    Attributes:
        outs: options of the check ``ood_detection``.
        samples: codes of each image for rate and ReX.
        attacked: number of evaluated images for which adversarial images are searched.
    """

    bottlenecks: Bottlenecks = (("vib", 4.0), ("vib", 0.0), ("ceb", 0.0))
    outs: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = (
        "uniform_noise",
        "mnist",
        "vertical_flip",
        "cw",
    )
    samples: Annotated[int, Field(ge=0)] = 16
    attacked: Positive = 10_000


class CalibrationConfig(ChosenConfig):
    """Entropy, figure 5, with the model and optimiser of the other studies on Fashion-MNIST.

    Models are evaluated after the steps in ``training.snapshots``.

    Attributes:
        bins: of equal width.
    """

    bottlenecks: Bottlenecks = (("ceb", 0.0), ("vib", 0.0), ("vib", 2.0))
    bins: Positive = 20
