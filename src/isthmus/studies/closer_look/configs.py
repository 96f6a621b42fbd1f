"""Options of the studies of A Closer Look; the defaults are the paper's. ``presets.yaml`` has the smaller scales."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.core.model_options import StdOffset
from isthmus.core.tradeoff import Rho
from isthmus.studies.image_models import Eps, ImageConfig, Mode, ModelSpec
from isthmus.studies.study import Several, StudyConfig

Beta = Annotated[float, Field(gt=0, lt=1)]
Bottleneck = Literal["vib", "ceb"]
SHOWN: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
"""Numbers of starts in tables, and at which random models are evaluated."""
OF_MNIST = -5.0
"""The offset in σ that the paper states for MNIST."""

MNIST_MODEL: dict[str, Any] = {"backbone": {"name": "mlp", "hidden": [1024, 1024]}, "dim": 256, "samples": 12}
MNIST_TRAINING: dict[str, Any] = {
    "epochs": 200,
    "batch_size": 100,
    "optimizer": {"lr": 1e-4, "betas": [0.5, 0.999]},
    "learning_rate": {"every": 2, "factor": 0.97},
    "ema": 0.999,
}
CIFAR_MODEL: dict[str, Any] = {
    "backbone": {"name": "preact_resnet", "depth": 18, "hidden": [1024, 1024]},
    "dim": 256,
    "samples": 12,
    "normalize": "dataset",
}
CIFAR_TRAINING: dict[str, Any] = {
    "epochs": 1000,
    "batch_size": 1024,
    "optimizer": {"lr": 0.012},
    "learning_rate": {"every": 250, "factor": 0.3},
    "augment": "crop_flip",
}


class Pgd(Frozen):
    """Steps of PGD.

    Attributes:
        steps: from each start.
        step_size: in units of images in [0, 1].
        loss: "ce" is the paper's. "log_odds" has its direction, but does not round to zero if a model is confident.
    """

    steps: Positive = 40
    step_size: Eps = 0.01
    loss: Literal["ce", "margin", "log_odds", "dlr"] = "ce"


class MnistConfig(ImageConfig):
    """MNIST as in the appendix; ten seeds."""

    seeds: Positive = 10
    data: str = "mnist"
    model: dict[str, Any] = MNIST_MODEL
    training: dict[str, Any] = MNIST_TRAINING


class FgsConfig(MnistConfig):
    """Figure 1.

    Attributes:
        betas: weights of the rate; the paper names 0.01 and draws 0.001 to 0.1.
        best: the β that was most robust in the paper, and that its claims are about.
        eps: of FGS.
    """

    betas: Several[Beta] = (0.001, 0.003, 0.01, 0.03, 0.1)
    best: Beta = 0.01
    eps: Several[Eps] = (0.2, 0.35, 0.5)


class RestartConfig(MnistConfig):
    """Figure 2: one β under PGD with restarts.

    Attributes:
        beta: weight of the rate; in the paper the one that was best under FGS.
        eps: radius of the ℓ∞ ball.
        pgd: the attack.
        starts: number of random starts on each image that is still robust.
    """

    beta: Beta = 0.01
    eps: Eps = 0.2
    pgd: Pgd = Pgd()
    starts: Positive = 100


class SmallBallConfig(RestartConfig):
    """Figure 8."""

    eps: Eps = 0.1


class CifarConfig(ImageConfig):
    """Figure 3: CIFAR-10 as in section 3.2.

    Attributes:
        kind: the bottleneck.
        tradeoffs: values of the trade-off parameter, ρ (CEB) or β (VIB); the paper does not list them.
        reference: the value at which restarts are tried.
        warm_up: epochs in which the trade-off parameter reaches its value: linearly in ρ for CEB, from 100; linearly
            in β for VIB, from 1e-8.
        eps: radius of the ℓ∞ ball.
        pgd: the weaker attack.
        starts: of PGD at ``reference`` and on the deterministic network; one for the others.
        ensemble: the suite, or the attacks, of AA+MT: AutoPGD and MultiTargeted together.
    """

    seeds: Positive = 10
    data: str = "cifar10"
    model: dict[str, Any] = CIFAR_MODEL
    training: dict[str, Any] = CIFAR_TRAINING
    modes: tuple[Mode, ...] = ("mean",)
    kind: Bottleneck = "ceb"
    tradeoffs: Several[float] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    reference: float = 3.0
    warm_up: float = 4.0
    eps: Eps = 8 / 255
    pgd: Pgd = Pgd(steps=20, step_size=0.007)
    starts: Positive = 100
    ensemble: str | list[Any] = "ib"

    @property
    def parameter(self) -> str:
        """Coordinate of the trade-off parameter."""
        return "rho" if self.kind == "ceb" else "beta"

    @property
    def symbol(self) -> str:
        """Of the trade-off parameter."""
        return "ρ" if self.kind == "ceb" else "β"

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model, with the warm-up of its trade-off parameter."""
        recipe = super().recipe(model)
        if model.objective == "determ" or not self.warm_up:
            return recipe
        start, space = (100.0, "rho") if self.kind == "ceb" else (Rho.from_rate_weight(1e-8).value, "weight")
        schedule = {"start": start, "space": space, "epochs": self.warm_up}
        return {**recipe, "training": {**self.training, "rho_schedule": schedule}}

    def models(self, seed: int) -> list[ModelSpec]:
        """The deterministic network, and a bottleneck for each value of the trade-off parameter."""
        return [ModelSpec("determ", None, seed), *(ModelSpec(self.kind, value, seed) for value in self.tradeoffs)]


class VibConfig(CifarConfig):
    """Figure 9."""

    kind: Bottleneck = "vib"
    tradeoffs: Several[float] = (0.0001, 0.001, 0.01, 0.1)
    reference: float = 0.01
    warm_up: float = 100.0


class SurfaceConfig(CifarConfig):
    """Figure 4: CEB with ρ = 2, of all seeds the one with the highest accuracy under AA+MT.

    Attributes:
        classes: the first test image of each that the model classifies correctly is shown.
        measured: number of test images on which flatness is measured.
        direction_starts: of the PGD whose worst perturbation gives the direction.
        grid: steps from the image to the diamond's corner.
    """

    tradeoffs: tuple[float] = (2.0,)
    reference: float = 2.0
    classes: Several[str] = ("truck",)
    measured: Positive = 100
    direction_starts: Positive = 10
    grid: Positive = 12


class OtherSurfacesConfig(SurfaceConfig):
    """Figure 10."""

    classes: Several[str] = ("airplane", "frog", "deer")


class Vib(NamedTuple):
    """A toy VIB: the weight of its rate, and the offset in its σ."""

    beta: float
    offset: float


class ToyConfig(StudyConfig):
    """Figure 5: how toy classifiers are trained and evaluated.

    Attributes:
        seeds: number of seeds, 0, 1, 2, …, that each classifier is trained with; the paper does not say.
        betas: weights of the rate, ascending. The paper does not give them.
        std_offsets: VIB's σ is softplus(s + offset), where s is the linear encoder's output. The paper states an
            offset for MNIST alone, −5, and none for the toys: 0 is the plain softplus. Each is a reading of the
            paper and is measured separately.
        dim: size of the code.
        samples: S, codes a point, in training and in stochastic mode.
        steps: of SGD with Nesterov's momentum, each on ``batch_size`` fresh points.
        points: number of points to evaluate on, the same for all classifiers.
    """

    seeds: Positive = 10
    betas: Several[Beta] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    std_offsets: Several[StdOffset] = (0.0, OF_MNIST)
    dim: Positive = 2
    samples: Positive = 12
    steps: Positive = 1000
    batch_size: Positive = 1024
    lr: Annotated[float, Field(gt=0)] = 0.003
    momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    points: Positive = 10_000


class GaussiansConfig(ToyConfig):
    """Figure 7."""

    dim: Positive = 25
    steps: Positive = 200


class SamplesConfig(StudyConfig):
    """Figure 6: number of points to draw, and their seed."""

    points: Positive = 1000
    seed: Annotated[int, Field(ge=0)] = 0
