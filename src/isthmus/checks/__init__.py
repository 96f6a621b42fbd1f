"""Checks: each file measures one property of a classifier. Classes are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.checks.accuracy import Accuracy
    from isthmus.checks.calibration import Calibration
    from isthmus.checks.certificate import Certificate
    from isthmus.checks.check import Check
    from isthmus.checks.class_prototypes import ClassPrototypes
    from isthmus.checks.context import Context
    from isthmus.checks.corruptions import Corruptions
    from isthmus.checks.dataset_transfer import DatasetTransfer
    from isthmus.checks.diagnosis import Diagnosis
    from isthmus.checks.information import Information
    from isthmus.checks.memorisation import Memorisation
    from isthmus.checks.noise_robustness import NoiseRobustness
    from isthmus.checks.ood_detection import OODDetection
    from isthmus.checks.robustness import Robustness
    from isthmus.checks.shift import Shift

_MODULES = {
    "Accuracy": "accuracy",
    "Calibration": "calibration",
    "Certificate": "certificate",
    "Check": "check",
    "ClassPrototypes": "class_prototypes",
    "Context": "context",
    "Corruptions": "corruptions",
    "DatasetTransfer": "dataset_transfer",
    "Diagnosis": "diagnosis",
    "Information": "information",
    "Memorisation": "memorisation",
    "NoiseRobustness": "noise_robustness",
    "OODDetection": "ood_detection",
    "Robustness": "robustness",
    "Shift": "shift",
}

__all__ = [
    "Accuracy",
    "Calibration",
    "Certificate",
    "Check",
    "ClassPrototypes",
    "Context",
    "Corruptions",
    "DatasetTransfer",
    "Diagnosis",
    "Information",
    "Memorisation",
    "NoiseRobustness",
    "OODDetection",
    "Robustness",
    "Shift",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"isthmus.checks.{_MODULES[name]}"), name)
