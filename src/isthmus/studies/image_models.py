"""Options of studies that train classifiers of images, and the models they train; as plain data, without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from isthmus.core.config import Positive
from isthmus.core.types import Coordinate
from isthmus.studies.study import TrainedConfig

Eps = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Mode = Literal["mean", "stochastic"]
Objective = Literal["determ", "vib", "ceb", "bidirectional", "determ_bn", "ceb_bn", "determ_pgd"]
""""_bn" adds batch normalisation to the network; "_pgd" also trains it on adversarial images."""


class ModelSpec(NamedTuple):
    """One model of a study.

    Attributes:
        objective: "determ" for plain cross-entropy on a deterministic code of the same size.
        parameter: the objective's trade-off parameter; None for a deterministic network.
        seed: of training.
        variant: how it is trained and built, if the study compares several ways.
    """

    objective: Objective
    parameter: float | None
    seed: int
    variant: str = ""

    @property
    def title(self) -> str:
        """Its name in experiments and recipes, without the seed: "vib 0.01"."""
        return self.objective if self.parameter is None else f"{self.objective} {self.parameter:g}"

    def coords(self, parameter: str = "rho") -> dict[str, Coordinate]:
        """Its coordinates.

        Args:
            parameter: coordinate of the trade-off parameter; deterministic networks have none.
        """
        variant: dict[str, Coordinate] = {"variant": self.variant} if self.variant else {}
        tradeoff: dict[str, Coordinate] = {} if self.parameter is None else {parameter: self.parameter}
        return {**variant, "objective": self.objective, **tradeoff, "seed": self.seed}


class ImageConfig(TrainedConfig):
    """How models are trained, and on how many images they are evaluated.

    Attributes:
        data: name of a data set.
        images: number of test images, class-balanced; None for all.
        model: part of a recipe, the same for every objective.
        modes: in which bottlenecks are evaluated. Deterministic networks have the first alone.
    """

    data: str = "mnist"
    images: Positive | None = None
    model: dict[str, Any]
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("mean", "stochastic")

    def recipe(self, model: ModelSpec) -> dict[str, Any]:
        """The recipe of one model."""
        return {
            "name": f"{self.data}-{model.title}-seed{model.seed}".replace(" ", ""),
            "seed": model.seed,
            "data": {"name": self.data, "train_limit": self.train_limit},
            "model": self.model,
            "objective": self.objective(model),
            "training": self.training,
        }

    def objective(self, model: ModelSpec) -> Any:
        """An objective with its trade-off parameter: β for VIB, ρ for CEB."""
        if model.objective == "determ":
            return "deterministic"
        name = "rate_weight" if model.objective == "vib" else "rho"
        return {"name": model.objective, name: model.parameter}
