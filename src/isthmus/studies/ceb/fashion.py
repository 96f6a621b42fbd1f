"""How do accuracy, rate and robustness on Fashion-MNIST depend on ρ, for CEB, VIB and a deterministic network?

Figure 1 of Fischer & Alemi 2020, which is figure 4 of Fischer 2020: Wide ResNets 7×2 without norm, a code of four
numbers with full covariance, ELU heads, a mixture of 240 Gaussians as marginal; PGD that wants every image taken for
trousers. Beside it stands what a strong untargeted ensemble leaves, which the papers did not ask.
"""

from __future__ import annotations

from typing import Any

from isthmus.recipe import Positive
from isthmus.studies.ceb import fashion_claims, fashion_page
from isthmus.studies.ceb.sweeps import Curve, SweepConfig
from isthmus.studies.image_models import Kind
from isthmus.studies.study import scales
from isthmus.studies.workbench import Stages, Workbench

TROUSER = 1
MODEL: dict[str, Any] = {
    "backbone": {"name": "wide_resnet", "depth": 7, "width": 2, "norm": False},
    "dim": 4,
    "covariance": "full",
    "classifier": "mlp",
    "marginal": "mixture",
}
TRAINING: dict[str, Any] = {
    "epochs": 171,  # 40,000 steps, as long as figure 5 of Fischer 2020 goes on
    "batch_size": 256,  # the figure's bound reaches 5 nats, more than the logarithm of 148
    "optimizer": {"lr": 1e-3},
}
LINF_40: list[Any] = [{"name": "pgd", "steps": 40, "step_size": 0.01}]
L2_40: list[Any] = [{"name": "pgd", "steps": 40, "relative_step_size": 4 / 3 / 40}]


def curves(suite: str, images: int | None, strong: int) -> tuple[Curve, ...]:
    """Targeted PGD on so many images, and a strong ensemble on some of them."""
    return (
        Curve(name="targeted linf", norm="linf", eps=(0.1,), suite=LINF_40, target=TROUSER, images=images),
        Curve(name="targeted l2", norm="l2", eps=(2.0,), suite=L2_40, target=TROUSER, images=images),
        Curve(name="ensemble linf", norm="linf", eps=(0.02, 0.05, 0.1), suite=suite, images=strong),
        Curve(name="ensemble l2", norm="l2", eps=(0.5, 1.0, 2.0), suite=suite, images=strong),
    )


class Config(SweepConfig):
    """The papers say neither optimiser, batch size, steps, nor the attacks' ε and steps: those are our reading."""

    seeds: Positive = 4
    data: str = "fashion_mnist"
    model: dict[str, Any] = MODEL
    training: dict[str, Any] = TRAINING
    families: tuple[Kind, ...] = ("vib", "ceb")
    rhos: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    curves: tuple[Curve, ...] = curves("standard", None, 1000)


SCALES = scales(
    Config,
    tiny={
        "seeds": 2,
        "data": "digits",
        "images": 60,
        "rhos": (-1.0, 0.0, 3.0, 5.0),
        "model": {**MODEL, "backbone": {"name": "mlp", "hidden": [64]}, "components": 8},
        "training": {"epochs": 10, "batch_size": 128, "optimizer": {"lr": 5e-3}},
        "curves": curves("pgd", 60, 20),
    },
    small={"seeds": 2, "training": {**TRAINING, "epochs": 10}, "images": 1000, "curves": curves("fast", 1000, 200)},
)
findings, section = fashion_claims.findings, fashion_page.section


def cells(config: Config, bench: Workbench) -> Stages:
    """Every model, trained and attacked."""
    from isthmus.studies.ceb import measuring
    from isthmus.studies.laboratory import Laboratory

    yield measuring.cells(config, Laboratory(config, bench))
