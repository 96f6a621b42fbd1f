"""isthmus: train information-bottleneck classifiers, and audit any PyTorch classifier for robust generalisation.

Names are looked up lazily: ``import isthmus`` imports no torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus import attacks as attacks
    from isthmus import certificates as certificates
    from isthmus import compat as compat
    from isthmus import data as data
    from isthmus import metrics as metrics
    from isthmus import models as models
    from isthmus import objectives as objectives
    from isthmus.attacks.api import robust_accuracy
    from isthmus.attacks.threats import L1, L2, Linf
    from isthmus.attacks.verify import verify
    from isthmus.audits import Audit, AuditOptions, audit
    from isthmus.audits.comparison import compare
    from isthmus.audits.tracking import log_to
    from isthmus.certificates import certify
    from isthmus.core.errors import IsthmusError
    from isthmus.core.tradeoff import Rho
    from isthmus.models.ensembles import ensemble, mc_dropout
    from isthmus.models.external import load_model
    from isthmus.models.external.black_box import black_box
    from isthmus.models.factory import bottleneck
    from isthmus.models.hypothesis import hypothesis
    from isthmus.models.paired import paired
    from isthmus.models.preprocessing import normalized
    from isthmus.training.run import Run, load
    from isthmus.training.start import train

_HOMES = {
    "Audit": "isthmus.audits",
    "AuditOptions": "isthmus.audits",
    "IsthmusError": "isthmus.core.errors",
    "L1": "isthmus.attacks.threats",
    "L2": "isthmus.attacks.threats",
    "Linf": "isthmus.attacks.threats",
    "Rho": "isthmus.core.tradeoff",
    "Run": "isthmus.training.run",
    "audit": "isthmus.audits",
    "black_box": "isthmus.models.external.black_box",
    "bottleneck": "isthmus.models.factory",
    "certify": "isthmus.certificates",
    "compare": "isthmus.audits.comparison",
    "ensemble": "isthmus.models.ensembles",
    "hypothesis": "isthmus.models.hypothesis",
    "load": "isthmus.training.run",
    "load_model": "isthmus.models.external",
    "log_to": "isthmus.audits.tracking",
    "mc_dropout": "isthmus.models.ensembles",
    "normalized": "isthmus.models.preprocessing",
    "paired": "isthmus.models.paired",
    "robust_accuracy": "isthmus.attacks.api",
    "train": "isthmus.training.start",
    "verify": "isthmus.attacks.verify",
}

__all__ = [
    "L1",
    "L2",
    "Audit",
    "AuditOptions",
    "IsthmusError",
    "Linf",
    "Rho",
    "Run",
    "audit",
    "black_box",
    "bottleneck",
    "certify",
    "compare",
    "ensemble",
    "hypothesis",
    "load",
    "load_model",
    "log_to",
    "mc_dropout",
    "normalized",
    "paired",
    "robust_accuracy",
    "train",
    "verify",
]


_PACKAGES = ("attacks", "certificates", "checks", "compat", "data", "metrics", "models", "objectives")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("isthmus")
    if name in _PACKAGES:
        return importlib.import_module(f"isthmus.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
