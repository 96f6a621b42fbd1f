"""Base class of backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from isthmus.core.config import Component


class Backbone(Component, ABC):
    """Options of a network from images to features, and how to build it."""

    @abstractmethod
    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """Build the untrained network for images of ``shape`` (channels, height, width).

        The network maps images to batch × features, and has the number of features as its attribute ``features``.
        """
