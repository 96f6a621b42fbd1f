"""Methods that bound margins from below, from cheap to dear."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.certificates import bounds
from isthmus.certificates.exact import Program, fits
from isthmus.certificates.network import Network
from isthmus.certificates.optimised import optimised
from isthmus.certificates.regions import Box, Region

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", "milp")
"""Intervals; backward bounds on those; backward bounds on backward bounds; with optimised slopes; exact decisions."""

BATCHED = ("ibp", "crown-ibp")
"""Methods that bound many images at once; the others take one image at a time."""

STEPS = 40
"""Steps of α-CROWN for each image, at most."""


class Found(NamedTuple):
    """What a method found.

    Attributes:
        method: its name.
        margins: lower bounds of z_y − z_j for every wrong class j, in logits, by all methods so far; −∞ if none.
        image: an image to try as adversarial image of the only example; None if there is none.
    """

    method: str
    margins: Float[Tensor, "n wrong"]
    image: Float[Tensor, "1 c h w"] | None = None


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

    def bounds(self, methods: Sequence[str], deadline: float = float("inf")) -> Iterator[Found]:
        """What each method finds.

        Args:
            methods: names from :data:`METHODS`, in that order. Those not in :data:`BATCHED` need a single example.
            deadline: by ``time.monotonic()``. No further method begins after it, and CROWN ends without a bound.
        """
        boxes = self.network.intervals(self.region.box)
        rows = bounds.margins(self.network.num_classes, self.labels)
        best = torch.full(rows.shape[:2], -torch.inf, dtype=torch.float64, device=rows.device)
        tight: list[Box] | None = None
        for method in methods:
            if time.monotonic() > deadline:
                return
            if method not in BATCHED and tight is None:
                tight = bounds.tightened(self.network, boxes, self.region, deadline)
                if tight is None:
                    return
            known = boxes if tight is None else tight
            if method == "milp":
                yield from self._decided(known, rows, best, deadline)
                return
            if method == "ibp":
                found = bounds.interval_margins(boxes[-1], self.labels)
            else:
                steps = STEPS if method == "alpha-crown" else 0
                found = optimised(self.network, known, self.region, rows, steps, deadline)
            best = torch.maximum(best, bounds.sound(found, known))
            yield Found(method, best)

    def _decided(self, boxes: list[Box], rows: Tensor, best: Tensor, deadline: float) -> Iterator[Found]:
        """Exact decisions about the wrong classes that are open, the closest first; the last one if it is an image."""
        if type(self.region) is not Region or not fits(self.network, boxes):
            return
        program, margins = Program(self.network, boxes), best.clone()
        order = [wrong for wrong in margins[0].argsort().tolist() if margins[0, wrong] <= 0]
        for position, wrong in enumerate(order):
            now = time.monotonic()
            if now > deadline:
                break
            share = now + (deadline - now) / (len(order) - position)
            decision = program.decide(rows[0, wrong].numpy(), share)
            margins[0, wrong] = max(float(margins[0, wrong]), decision.margin)
            if decision.image is not None:
                image = torch.from_numpy(decision.image).view_as(boxes[0].low).float()
                yield Found("milp", margins, image)
                return
        yield Found("milp", bounds.sound(margins, boxes))


def parts(mask: Bool[Tensor, " n"], size: int) -> list[Int[Tensor, " k"]]:
    """Positions where a mask is true, at most ``size`` at a time."""
    return [part for part in torch.split(mask.nonzero().squeeze(1), size) if len(part)]
