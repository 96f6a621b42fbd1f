"""Callbacks: measurements while a model trains. Each is a frozen class in its own file, for any model.

Names are imported lazily: ``isthmus.training.callbacks.GradientSNR()`` imports one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.training.callbacks.gradient_snr import GradientSNR as GradientSNR
    from isthmus.training.callbacks.information_plane import InformationPlane as InformationPlane

_MODULES = {
    "GradientSNR": "gradient_snr",
    "InformationPlane": "information_plane",
}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
