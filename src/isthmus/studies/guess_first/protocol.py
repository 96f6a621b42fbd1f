"""What the studies of Guess First share, as plain data: the six models' recipes and how they are attacked (appendix F).

White-box numbers come from minimal norms, as Foolbox 1 found them (:mod:`isthmus.attacks.foolbox_protocol`): accuracy
at ε is the share of images whose smallest known perturbation is larger, and clean errors count as broken. Black-box
numbers are of images found on a substitute, a LeNet-5 that was trained on the same data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from isthmus.core.config import Frozen
from isthmus.core.recipe import Positive
from isthmus.studies.guess_first.printed import L2, LINF
from isthmus.studies.old.image_models import Eps
from isthmus.studies.old.study import Beta, StudyConfig

Name = Literal["CNN", "C-DV", "C-JS", "C-DV-IE", "C-JS-IE", "VIB", "C-JS-sigmoid", "C-JS-IE-sigmoid"]
MODELS: tuple[Name, ...] = ("CNN", "C-DV", "C-JS", "C-DV-IE", "C-JS-IE", "VIB")
PROPOSED: tuple[Name, ...] = ("C-DV", "C-JS", "C-DV-IE", "C-JS-IE")
THROUGH = "-sigmoid"
SIGMOID: tuple[Name, ...] = ("C-JS-sigmoid", "C-JS-IE-sigmoid")
"""C-JS and C-JS-IE once more, answering with σ of their scores, as a GAN's critic does: the same predictions, and other
gradients for who takes the answers for logits. Which of the two the paper attacked, it does not say."""
SUBSTITUTE = "substitute"
ATTACKS = ("fgsm", "pgd", "cw")
TRAINING: dict[str, Any] = {"epochs": 200, "batch_size": 250, "optimizer": {"lr": 1e-3}}
# without the elimination until the labels of an epoch were told at least half of the time, then two epochs up to its λ
LATE: dict[str, Any] = {"start": 100, "space": "weight", "epochs": 1, "hold": 20, "gate": 0.5, "release": 2}
_OBJECTIVES: Mapping[str, dict[str, Any]] = {
    "C-DV": {"name": "donsker_varadhan"},
    "C-JS": {"name": "f_divergence", "divergence": "js"},
}


class CarliniWagner(Frozen):
    """C&W's effort; the defaults are Foolbox's of the time.

    Attributes:
        steps: of Adam for each weight c.
        binary_search_steps: weights that are tried.
        learning_rate: of Adam.
    """

    steps: Positive = 1000
    binary_search_steps: Positive = 5
    learning_rate: Eps = 5e-3


class ModelsConfig(StudyConfig):
    """How the models are trained, and on how many images they are judged.

    Appendix F says optimiser, epochs, batch size and layers. Its λ, σ and weight of VIB's rate are lost; it does not
    say how often a model was trained.

    Attributes:
        seeds: how often everything is trained, the substitute too: with seeds 0, 1, 2, ...
        data: name of a data set.
        train_limit: train on so many images, class-balanced; None for all.
        images: judge on so many test images, class-balanced; None for all.
        hidden: widths of the three fully connected layers. VIB's code takes the place of the last.
        training: part of a recipe (:class:`isthmus.core.recipe.Recipe`), the same for all models and the substitute.
        rho: of the information elimination, whose weight is λ = exp(−ρ).
        rho_schedule: of the elimination, since models stay at chance that begin with λ = 1; None to begin with it.
        elimination: options of its MMD, such as ``pairing`` and ``sigma``; the median heuristic where empty.
        rate_weight: of VIB.
    """

    seeds: Positive = 3
    data: str = "mnist"
    train_limit: Positive | None = None
    images: Positive | None = None
    hidden: tuple[Positive, Positive, Positive] = (512, 256, 128)
    training: dict[str, Any] = TRAINING
    rho: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    rho_schedule: dict[str, Any] | None = LATE
    elimination: dict[str, Any] = Field(default_factory=dict)
    rate_weight: Beta = 1e-3

    def recipe(self, name: str, seed: int) -> dict[str, Any]:
        """The recipe of one model, or of the substitute; with a sigmoid or without, a model is trained once."""
        name = name.removesuffix(THROUGH)
        model, objective = self._model(name)
        late = {"rho_schedule": self.rho_schedule} if name.endswith("-IE") and self.rho_schedule else {}
        return {
            "name": f"{self.data}-{name.lower()}-seed{seed}",
            "seed": seed,
            "data": {"name": self.data, "train_limit": self.train_limit},
            "model": model,
            "objective": objective,
            "training": self.training | late,
        }

    def _model(self, name: str) -> tuple[dict[str, Any], Any]:
        layers = list(self.hidden)
        if name == SUBSTITUTE:
            return {"backbone": {"name": "lenet5"}}, "deterministic"
        if name == "CNN":
            return {"backbone": _backbone(layers)}, "deterministic"
        if name == "VIB":
            model = {"backbone": _backbone(layers[:-1]), "dim": layers[-1]}
            return model, {"name": "vib", "rate_weight": self.rate_weight}
        conditioned = {"backbone": _backbone([]), "hypothesis": {"hidden": layers, "inject": "concatenate"}}
        objective = dict(_OBJECTIVES[name.removesuffix("-IE")])
        if name.endswith("-IE"):
            objective |= {"rho": self.rho}
            objective |= {"elimination": self.elimination} if self.elimination else {}
        return conditioned, objective


def _backbone(hidden: Sequence[int]) -> dict[str, Any]:
    return {"name": "strided_conv", "hidden": list(hidden)}


class CurvesConfig(ModelsConfig):
    """The attacks of section 3: FGSM and PGD in ℓ∞, C&W in ℓ2, each black- and white-box.

    Attributes:
        models: which of the six, and of the two that answer through a sigmoid, which are attacked in the open alone.
        linf, l2: perturbation sizes that accuracy is told at, ascending, the tables' among them.
        transfer_steps: of PGD on the substitute, each ε/30 long, from a random start.
        bisections: of ε in white-box PGD, Foolbox's number; half of them know it within 0.0003.
        cw: C&W, on the substitute and on the models.
    """

    models: Annotated[tuple[Name, ...], Field(min_length=1)] = MODELS
    linf: tuple[Eps, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    l2: tuple[Eps, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
    transfer_steps: Positive = 40
    bisections: Positive = 20
    cw: CarliniWagner = CarliniWagner()

    @model_validator(mode="after")
    def _sizes(self) -> CurvesConfig:
        for norm, grid, needed in (("linf", self.linf, LINF), ("l2", self.l2, L2)):
            if not set(needed) <= set(grid) or any(a >= b for a, b in pairwise(grid)):
                wanted = " and ".join(f"{eps:g}" for eps in needed)
                raise ValueError(f"{norm} must ascend and hold {wanted}, which the tables list; got {list(grid)}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"each model can be asked for once; got {', '.join(self.models)}")
        return self

    def sizes(self, attack: str) -> tuple[float, ...]:
        """The grid of an attack: "cw" works in ℓ2, the others in ℓ∞."""
        return self.l2 if attack == "cw" else self.linf


class TableConfig(CurvesConfig):
    """The tables, and what the paper did not ask: a strong ensemble, and whether the robustness is real.

    Attributes:
        suite: the ensemble, at the tables' sizes.
        battery_images: of the judged images, the first so many for the tests of the verdict, at ℓ∞ 0.15.
        budget: how hard these try.
    """

    models: Annotated[tuple[Name, ...], Field(min_length=1)] = (*MODELS, *SIGMOID)
    suite: str = "standard"
    battery_images: Positive = 1000
    budget: Literal["quick", "full"] = "full"


# three seeds: claims about a way of training are not decided by fewer
SMALL_MODELS: dict[str, Any] = {"seeds": 3, "images": 2000, "training": {**TRAINING, "epochs": 30, "precision": "bf16"}}
TINY_MODELS: dict[str, Any] = {
    "seeds": 1,
    "data": "digits",
    "images": 40,
    "hidden": (64, 32, 16),
    "rho_schedule": None,
    "rho": 4.0,  # in a handful of steps nothing is learned against more
    "training": {"epochs": 15, "batch_size": 125, "optimizer": {"lr": 3e-3}},
}
# longer steps make up for fewer: on a CNN the median norm is within 3% of what 1,000 steps of 0.005 find
SMALL_CURVES: dict[str, Any] = {**SMALL_MODELS, "bisections": 8, "cw": CarliniWagner(steps=100, learning_rate=0.1)}
TINY_CURVES: dict[str, Any] = {
    **TINY_MODELS,
    "linf": (0.15, 0.3),
    "bisections": 5,
    "l2": (1.0, 2.0),
    "cw": CarliniWagner(steps=20, binary_search_steps=3, learning_rate=5e-2),
}
SMALL_TABLE: dict[str, Any] = {**SMALL_CURVES, "suite": "fast", "battery_images": 200, "budget": "quick"}
TINY_TABLE: dict[str, Any] = {**TINY_CURVES, "suite": "pgd", "battery_images": 40, "budget": "quick"}
