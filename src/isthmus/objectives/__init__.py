"""Objectives: the losses that training minimises. Each file holds one, as a frozen class on distributions.

Names are imported lazily, so that ``isthmus.objectives.CEB(rho=3)`` imports one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.objectives.bidirectional import BidirectionalCEB as BidirectionalCEB
    from isthmus.objectives.catgen import CatGen as CatGen
    from isthmus.objectives.ceb import CEB as CEB
    from isthmus.objectives.denoising import DenoisingCEB as DenoisingCEB
    from isthmus.objectives.deterministic import Deterministic as Deterministic
    from isthmus.objectives.donsker_varadhan import DonskerVaradhan as DonskerVaradhan
    from isthmus.objectives.energy_based import EnergyBased as EnergyBased
    from isthmus.objectives.f_divergence import FDivergence as FDivergence
    from isthmus.objectives.hierarchical import HierarchicalCEB as HierarchicalCEB
    from isthmus.objectives.multiscale import MultiscaleCEB as MultiscaleCEB
    from isthmus.objectives.nonlinear_ib import NonlinearIB as NonlinearIB
    from isthmus.objectives.predictive import PredictiveCEB as PredictiveCEB
    from isthmus.objectives.vib import VIB as VIB

_MODULES = {
    "BidirectionalCEB": "bidirectional",
    "CEB": "ceb",
    "CatGen": "catgen",
    "DenoisingCEB": "denoising",
    "Deterministic": "deterministic",
    "DonskerVaradhan": "donsker_varadhan",
    "EnergyBased": "energy_based",
    "FDivergence": "f_divergence",
    "HierarchicalCEB": "hierarchical",
    "MultiscaleCEB": "multiscale",
    "NonlinearIB": "nonlinear_ib",
    "PredictiveCEB": "predictive",
    "VIB": "vib",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
