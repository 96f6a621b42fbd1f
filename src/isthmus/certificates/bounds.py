"""Lower bounds of margins: backward CROWN on intermediate bounds from intervals (CROWN-IBP) or from CROWN itself."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus.certificates.activations import Activation, LeakyReLU
from isthmus.certificates.network import Network
from isthmus.certificates.operations import LinearMap, Reshaping, Scaling
from isthmus.certificates.regions import Box, Region
from isthmus.certificates.rounding import LARGEST, SPARE

NUMBERS = 2**19
"""Coefficients of one layer that are held at once: 4 MiB, which fits into a processor's cache."""

Slopes = Mapping[int, Tensor]
"""Lower slopes of activations by their node, n × r × shape."""


def backward(
    network: Network,
    boxes: list[Box],
    region: Region,
    rows: Float[Tensor, "n r *shape"],
    node: int,
    slopes: Slopes | None = None,
) -> Float[Tensor, "n r"]:
    """Lower bounds of linear functions of a node's output over all allowed images (Zhang et al. 2018).

    Args:
        network: the network.
        boxes: bounds of every node before ``node``.
        region: the allowed images.
        rows: coefficients.
        node: position of the output.
        slopes: lower slopes of activations; None for the usual ones.
    """
    return _from({node: rows}, [], network, boxes, region, node, slopes or {})


def _from(
    rows: dict[int, Tensor],
    constants: list[Tensor],
    network: Network,
    boxes: list[Box],
    region: Region,
    start: int,
    slopes: Slopes,
) -> Tensor:
    """The bound, from the coefficients of nodes up to ``start`` and constants so far."""
    rounded: set[int] = set()  # nodes whose coefficients carry a rounding that nothing has left room for
    for at in range(start, 0, -1):
        if at not in rows:
            continue
        own, node = rows.pop(at), network.nodes[at]
        operation = node.operation
        assert operation is not None
        if at in rounded and not operation.slacked:
            size = boxes[at].magnitude.flatten(1)
            constants.append(-SPARE * torch.einsum("nrd,nd->nr", own.flatten(2).abs(), size))
        pulled = operation.pull(own, [boxes[i] for i in node.inputs], slopes.get(at))
        constants.append(pulled.constants)
        for source, part in zip(node.inputs, pulled.rows, strict=True):
            if source in rows:
                rows[source] = rows[source] + part
                rounded.add(source)
            else:
                rows[source] = part
            if operation.rounds:
                rounded.add(source)
    bound = region.minimum(rows[0]) if 0 in rows else torch.zeros_like(constants[0])
    terms = torch.stack([bound, *constants])
    return terms.sum(0) - SPARE * terms.abs().sum(0)


def margins(num_classes: int, labels: Int[Tensor, " n"]) -> Float[Tensor, "n wrong classes"]:
    """The coefficients of z_y − z_j for every wrong class j, in the order of the classes."""
    classes = torch.arange(num_classes, device=labels.device).expand(len(labels), -1)
    wrong = classes[classes != labels[:, None]].view(len(labels), num_classes - 1)
    one = torch.eye(num_classes, dtype=torch.float64, device=labels.device)
    return one[labels][:, None] - one[wrong]


def interval_margins(logits: Box, labels: Int[Tensor, " n"]) -> Float[Tensor, "n wrong"]:
    """Lower bounds of the margins from bounds of each logit."""
    rows = margins(logits.low.shape[1], labels)
    high = torch.einsum("nrk,nk->nr", rows.clamp(max=0), logits.high)
    return torch.einsum("nrk,nk->nr", rows.clamp(min=0), logits.low) + high


def tightened(network: Network, boxes: list[Box], region: Region, deadline: float = float("inf")) -> list[Box] | None:
    """Bounds of every node, with the inputs of activations bounded by CROWN, layer after layer.

    Only inputs whose sign intervals leave open are bounded again (all inputs of S-shaped functions).

    Args:
        boxes: bounds by intervals, for a single image.
        region: of that image.
        deadline: by ``time.monotonic()``.

    Returns:
        None if the time did not suffice.
    """
    found = list(boxes)
    for at, node in enumerate(network.nodes):
        if node.operation is None:
            continue
        sources = [found[i] for i in node.inputs]
        own = node.operation.interval(sources).meet(found[at])
        users = [n.operation for n in network.nodes if at in n.inputs and isinstance(n.operation, Activation)]
        if users and _gains(network, at, region):
            bounded = _bounded(network, found, region, at, own, _chosen(users, own), deadline)
            if bounded is None:
                return None
            own = bounded
        found[at] = own
    return found


def _gains(network: Network, at: int, region: Region) -> bool:
    """Whether CROWN may improve on intervals: not for the first linear layer in ℓ∞, where they are exact.

    Normalisation of single pixels and other shapes before that layer keep them exact.
    """
    if type(region) is not Region:
        return True
    (source, *others) = network.nodes[at].inputs
    while source and not others and isinstance(network.nodes[source].operation, Scaling | Reshaping):
        (source, *others) = network.nodes[source].inputs
    return bool(source or others)


def _chosen(users: list[Activation], own: Box) -> Bool[Tensor, " d"]:
    """Elements of a node whose tighter bounds would tighten its activations."""
    if all(isinstance(user, LeakyReLU) for user in users):
        return ((own.low < 0) & (own.high > 0)).flatten()
    return torch.ones_like(own.low, dtype=torch.bool).flatten()


def _bounded(
    network: Network,
    boxes: list[Box],
    region: Region,
    at: int,
    own: Box,
    chosen: Bool[Tensor, " d"],
    deadline: float,
) -> Box | None:
    """Bounds of some elements of a node of a single image by CROWN; of the others as given. None if time ran out."""
    low, high = own.low.flatten().clone(), own.high.flatten().clone()
    widest = max(int(node_size) for node_size in (box.low[0].numel() for box in boxes[: at + 1]))
    for part in torch.split(chosen.nonzero().squeeze(1), max(1, NUMBERS // widest)):
        if time.monotonic() > deadline:
            return None
        for sign, edge in ((1.0, low), (-1.0, high)):
            bound = _unit_rows(network, boxes, region, at, part, sign)
            edge[part] = torch.maximum(edge[part], bound) if sign > 0 else torch.minimum(edge[part], -bound)
    shape = own.low.shape
    return Box(low.view(shape), high.view(shape))


def _unit_rows(
    network: Network, boxes: list[Box], region: Region, at: int, positions: Tensor, sign: float
) -> Float[Tensor, " k"]:
    """Lower bounds of sign · x for elements x of a node."""
    node = network.nodes[at]
    operation = node.operation
    if isinstance(operation, LinearMap):
        pulled = operation.pull_rows(positions, sign, boxes[node.inputs[0]])
        start = node.inputs[0]
        return _from({start: pulled.rows[0]}, [pulled.constants], network, boxes, region, start, {})[0]
    rows = boxes[0].low.new_zeros(1, len(positions), boxes[at].low[0].numel())
    rows[0].scatter_(1, positions[:, None], sign)
    return _from({at: rows.view(1, len(positions), *node.shape)}, [], network, boxes, region, at, {})[0]


def sound(bound: Tensor, boxes: list[Box]) -> Tensor:
    """The bounds, or −∞ where a float32 pass might overflow or the bounds themselves did."""
    fits = torch.stack([box.magnitude.flatten(1).amax(1) < LARGEST for box in boxes]).all(0)
    return torch.where(fits.view(-1, *[1] * (bound.dim() - 1)) & bound.isfinite(), bound, -torch.inf)
