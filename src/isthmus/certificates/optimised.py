"""α-CROWN: the lower slopes of ReLUs, chosen by gradient ascent on the bound (Xu et al. 2021, arXiv:2011.13824).

Every slope between those of the two pieces gives a sound bound, so that the largest bound on the way counts. Each wrong
class has slopes of its own; the intermediate bounds are those of CROWN and stay as they are.
"""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.certificates.activations import LeakyReLU
from isthmus.certificates.bounds import backward
from isthmus.certificates.network import Network
from isthmus.certificates.regions import Box, Region

_RATE = 0.1
_DECAY = 0.98
_BETAS = (0.9, 0.999)


def optimised(
    network: Network,
    boxes: list[Box],
    region: Region,
    rows: Float[Tensor, "n r classes"],
    steps: int,
    deadline: float = float("inf"),
) -> Float[Tensor, "n r"]:
    """Lower bounds of linear functions of the logits, with optimised slopes.

    Args:
        network, boxes, region: as for :func:`isthmus.certificates.bounds.backward`.
        rows: coefficients of the logits.
        steps: of Adam, at most; 0 for the usual slopes. It stops once all bounds are positive.
        deadline: by ``time.monotonic()``.
    """
    last = len(network.nodes) - 1
    best = backward(network, boxes, region, rows, last)
    slopes = {at: _start(network, boxes, at, rows.shape[1]) for at in _free(network, boxes)} if steps else {}
    if not slopes:
        return best
    moments = {at: (torch.zeros_like(slope), torch.zeros_like(slope)) for at, slope in slopes.items()}
    for step in range(1, steps + 1):
        if bool((best > 0).all()) or time.monotonic() > deadline:
            break
        with torch.enable_grad():
            bound = backward(network, boxes, region, rows, last, slopes)
            gradients = torch.autograd.grad(bound.sum(), list(slopes.values()))
        best = torch.maximum(best, bound.detach())
        for (at, slope), gradient in zip(slopes.items(), gradients, strict=True):
            slope.data += _RATE * _DECAY**step * _adam(moments[at], gradient, step)
        _restrict(network, boxes, slopes)
    return best


def _adam(moments: tuple[Tensor, Tensor], gradient: Tensor, step: int) -> Tensor:
    """Adam's direction (Kingma & Ba 2015); torch's own class takes seconds to import."""
    mean, square = moments
    mean.lerp_(gradient, 1 - _BETAS[0])
    square.lerp_(gradient.square(), 1 - _BETAS[1])
    return mean / (1 - _BETAS[0] ** step) / ((square / (1 - _BETAS[1] ** step)).sqrt() + 1e-8)


def _free(network: Network, boxes: list[Box]) -> list[int]:
    """Activations with an input whose sign is open."""
    return [
        at
        for at, node in enumerate(network.nodes)
        if isinstance(node.operation, LeakyReLU) and bool(node.operation.open(boxes[node.inputs[0]]).any())
    ]


def _start(network: Network, boxes: list[Box], at: int, rows: int) -> Tensor:
    """The usual slopes."""
    node = network.nodes[at]
    assert isinstance(node.operation, LeakyReLU)
    usual = node.operation.lines(boxes[node.inputs[0]]).lower_slope
    return usual[:, None].repeat(1, rows, *[1] * len(node.shape)).requires_grad_()


@torch.no_grad()
def _restrict(network: Network, boxes: list[Box], slopes: dict[int, Tensor]) -> None:
    """Slopes between those of the pieces where the sign is open, and the usual ones elsewhere."""
    for at, slope in slopes.items():
        operation, box = network.nodes[at].operation, boxes[network.nodes[at].inputs[0]]
        assert isinstance(operation, LeakyReLU)
        usual = operation.lines(box).lower_slope[:, None]
        slope.copy_(torch.where(operation.open(box)[:, None], slope.clamp(operation.slope, 1.0), usual))
