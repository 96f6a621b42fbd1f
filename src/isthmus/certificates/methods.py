"""Methods that bound margins from below, from cheap to dear."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.certificates import bounds
from isthmus.certificates.network import Network
from isthmus.certificates.optimised import optimised
from isthmus.certificates.regions import Box, Region

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
"""Interval bounds; backward bounds on those; backward bounds on backward bounds; the same with optimised slopes."""

BATCHED = ("ibp", "crown-ibp")
"""Methods that bound many images at once; the others take one image at a time."""

STEPS = 40
"""Steps of α-CROWN for each image, at most."""


@dataclass(frozen=True)
class Problem:
    """Examples whose margins are to be bounded.

    Attributes:
        network: the classifier.
        region: the allowed images of each example.
        labels: true classes.
    """

    network: Network
    region: Region
    labels: Int[Tensor, " n"]

    def bounds(
        self, methods: Sequence[str], deadline: float = float("inf")
    ) -> Iterator[tuple[str, Float[Tensor, "n wrong"]]]:
        """Each method with its lower bounds of z_y − z_j for every wrong class j, in logits; −∞ if there is none.

        Args:
            methods: names from :data:`METHODS`, in that order. Those not in :data:`BATCHED` need a single example.
            deadline: by ``time.monotonic()``. No further method begins after it, and CROWN ends without a bound.
        """
        boxes = self.network.intervals(self.region.box)
        rows = bounds.margins(self.network.num_classes, self.labels)
        tight: list[Box] | None = None
        for method in methods:
            if time.monotonic() > deadline:
                return
            if method == "ibp":
                yield method, bounds.sound(bounds.interval_margins(boxes[-1], self.labels), boxes)
                continue
            if method not in BATCHED and tight is None:
                tight = bounds.tightened(self.network, boxes, self.region, deadline)
                if tight is None:
                    return
            known = boxes if tight is None else tight
            steps = STEPS if method == "alpha-crown" else 0
            yield method, bounds.sound(optimised(self.network, known, self.region, rows, steps, deadline), known)


def parts(mask: Bool[Tensor, " n"], size: int) -> list[Int[Tensor, " k"]]:
    """Positions where a mask is true, at most ``size`` at a time."""
    return [part for part in torch.split(mask.nonzero().squeeze(1), size) if len(part)]
