"""isthmus: train information-bottleneck classifiers, and audit any PyTorch classifier for robust generalisation.

Names are looked up lazily: ``import isthmus`` imports no torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.attacks.api import robust_accuracy
    from isthmus.attacks.threats import L1, L2, Linf
    from isthmus.attacks.verify import verify
    from isthmus.auditing import Audit, audit
    from isthmus.classifier.assembly import bottleneck
    from isthmus.classifier.guessing import hypothesis
    from isthmus.classifier.pairing import paired
    from isthmus.errors import IsthmusError
    from isthmus.tradeoff import Rho
    from isthmus.training.run import Run, load
    from isthmus.training.start import train

_HOMES = {
    "Audit": "isthmus.auditing",
    "IsthmusError": "isthmus.errors",
    "L1": "isthmus.attacks.threats",
    "L2": "isthmus.attacks.threats",
    "Linf": "isthmus.attacks.threats",
    "Rho": "isthmus.tradeoff",
    "Run": "isthmus.training.run",
    "audit": "isthmus.auditing",
    "bottleneck": "isthmus.classifier.assembly",
    "hypothesis": "isthmus.classifier.guessing",
    "load": "isthmus.training.run",
    "paired": "isthmus.classifier.pairing",
    "robust_accuracy": "isthmus.attacks.api",
    "train": "isthmus.training.start",
    "verify": "isthmus.attacks.verify",
}

__all__ = [
    "L1",
    "L2",
    "Audit",
    "IsthmusError",
    "Linf",
    "Rho",
    "Run",
    "audit",
    "bottleneck",
    "hypothesis",
    "load",
    "paired",
    "robust_accuracy",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version("isthmus")
    if name not in _HOMES:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
