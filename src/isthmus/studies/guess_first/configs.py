"""Options of the Guess-First studies; the defaults are the paper's. ``presets.yaml`` has the smaller scales.

White-box numbers come from minimal norms, as Foolbox 1 found them (:mod:`isthmus.attacks.foolbox_protocol`): accuracy
at ε is the fraction of images whose smallest known perturbation is larger, and clean errors count as broken. Black-box
numbers are of images found on a substitute, a LeNet-5 trained on the same data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from isthmus.core.config import Frozen, Positive
from isthmus.studies.image_models import Eps
from isthmus.studies.study import Data, Several, TrainedConfig, data_name, data_options

Conditioned = Literal["C-DV", "C-DV-IE", "C-JS", "C-JS-IE"]
Name = Literal[Conditioned, "CNN", "VIB", "C-JS-sigmoid", "C-JS-IE-sigmoid"]
Attack = Literal["fgsm", "pgd", "cw"]
MODELS: tuple[Name, ...] = ("CNN", "C-DV", "C-JS", "C-DV-IE", "C-JS-IE", "VIB")
"""In the order of the paper's tables, which call the last one "Alemi et al."."""
PROPOSED: tuple[Name, ...] = ("C-DV", "C-JS", "C-DV-IE", "C-JS-IE")
THROUGH = "-sigmoid"
SIGMOID: tuple[Name, ...] = ("C-JS-sigmoid", "C-JS-IE-sigmoid")
"""C-JS and C-JS-IE with a sigmoid on their scores, as in a GAN's critic: the same predictions, and other gradients for
attacks that take the output for logits. The paper does not say which of the two it attacked."""
SUBSTITUTE = "substitute"
ATTACKS: tuple[Attack, ...] = ("fgsm", "pgd", "cw")
NORMS: Mapping[str, str] = {"fgsm": "linf", "pgd": "linf", "cw": "l2"}
LINF, L2 = (0.15, 0.3), (2.0,)
SIZES = {"linf": LINF, "l2": L2}
"""Perturbation sizes of the tables: of FGSM and PGD, and of C&W."""
_TRAINING: dict[str, Any] = {"epochs": 200, "batch_size": 250, "optimizer": {"lr": 1e-3}}
# without elimination until at least half of an epoch's labels were predicted correctly, then two epochs up to its λ
_LATE: dict[str, Any] = {"start": 100, "space": "weight", "epochs": 1, "hold": 20, "gate": 0.5, "release": 2}
_OBJECTIVES: Mapping[str, dict[str, Any]] = {
    "C-DV": {"name": "donsker_varadhan"},
    "C-JS": {"name": "f_divergence", "divergence": "js"},
}


class CarliniWagner(Frozen):
    """Budget of C&W; the defaults are Foolbox's of the time.

    Attributes:
        steps: of Adam for each weight c.
        binary_search_steps: number of weights.
        learning_rate: of Adam.
    """

    steps: Positive = 1000
    binary_search_steps: Positive = 5
    learning_rate: Eps = 5e-3


class ModelsConfig(TrainedConfig):
    """How the models are trained, and on how many images they are evaluated (appendix F).

    The paper's λ, σ and weight of VIB's rate are unknown; it does not say how often a model was trained.

    Attributes:
        images: number of test images, class-balanced; None for all.
        hidden: widths of the three fully connected layers. VIB's code takes the place of the last.
        rho: of the information elimination, whose weight is λ = exp(−ρ).
        rho_schedule: of the elimination, since models that begin with λ = 1 stay at chance; None to begin with it.
        elimination: options of its MMD, such as ``pairing`` and ``sigma``; the median heuristic if empty.
        rate_weight: of VIB.
    """

    images: Positive | None = None
    hidden: tuple[Positive, Positive, Positive] = (512, 256, 128)
    training: dict[str, Any] = _TRAINING
    rho: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    rho_schedule: dict[str, Any] | None = _LATE
    elimination: dict[str, Any] = Field(default_factory=dict)
    rate_weight: Annotated[float, Field(gt=0, lt=1)] = 1e-3

    def recipe(self, name: str, seed: int) -> dict[str, Any]:
        """The recipe of one model, or of the substitute; it is the same with a sigmoid and without."""
        name = name.removesuffix(THROUGH)
        model, objective = self._model(name)
        late = {"rho_schedule": self.rho_schedule} if name.endswith("-IE") and self.rho_schedule else {}
        return {
            "name": f"{data_name(self.data)}-{name.lower()}-seed{seed}",
            "seed": seed,
            "data": data_options(self.data, train_limit=self.train_limit),
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
    """Figure 3, and the attacks of section 3: FGSM and PGD in ℓ∞, C&W in ℓ2, each black- and white-box.

    Attributes:
        models: which of the six, and of the two with a sigmoid, which are attacked white-box alone.
        linf, l2: perturbation sizes, ascending, with those of the tables.
        transfer_steps: of PGD on the substitute, each ε/30 long, from a random start.
        bisections: of ε in white-box PGD, Foolbox's number; half of them determine it within 0.0003.
        cw: C&W, on the substitute and on the models.
    """

    models: Several[Name] = MODELS
    linf: tuple[Eps, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
    l2: tuple[Eps, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
    transfer_steps: Positive = 40
    bisections: Positive = 20
    cw: CarliniWagner = CarliniWagner()

    @model_validator(mode="after")
    def _sizes(self) -> CurvesConfig:
        for norm, needed in SIZES.items():
            grid = getattr(self, norm)
            if not set(needed) <= set(grid) or any(a >= b for a, b in pairwise(grid)):
                wanted = " and ".join(f"{eps:g}" for eps in needed)
                raise ValueError(f"{norm} must ascend and hold {wanted}, which the tables list; got {list(grid)}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"give each model once; got {', '.join(self.models)}")
        return self

    def sizes(self, attack: Attack) -> tuple[float, ...]:
        """The perturbation sizes of an attack."""
        return self.l2 if NORMS[attack] == "l2" else self.linf


class TableConfig(CurvesConfig):
    """Table 1, and beyond the paper: a strong ensemble, and whether the robustness is genuine.

    Attributes:
        suite: the ensemble, at the tables' sizes.
        battery_images: number of the images, from the first on, that the diagnosis uses, at ℓ∞ 0.15.
        budget: of the diagnosis.
    """

    models: Several[Name] = (*MODELS, *SIGMOID)
    suite: str = "standard"
    battery_images: Positive = 1000
    budget: Literal["quick", "full"] = "full"


class FashionConfig(TableConfig):
    """Table 2."""

    data: Data = "fashion_mnist"


class RepresentationsConfig(ModelsConfig):
    """Figure 2.

    Attributes:
        models: which of those that are conditioned on hypotheses.
        hypothesis: the class whose projection is drawn.
        shown: number of images that are drawn.
        blocks: of images, for the interval of MMD².
        fisher: number of images on which the prediction's Fisher information is measured (appendix D).
    """

    models: Several[Conditioned] = ("C-DV", "C-DV-IE", "C-JS", "C-JS-IE")
    hypothesis: Annotated[int, Field(ge=0)] = 1
    shown: Positive = 500
    blocks: Annotated[int, Field(ge=3)] = 10
    fisher: Annotated[int, Field(ge=2)] = 500
