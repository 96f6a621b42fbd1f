"""Exact decisions by mixed-integer programming, for small ReLU networks in ℓ∞ (Tjeng et al. 2019, arXiv:1711.07356).

A ReLU with an open sign is a linear program with one binary variable, whose constraints use the bounds of its input.
The program of a wrong class asks for the allowed image with the smallest margin, at most a threshold. If there is none,
the margin is above it; if there is one, it is proposed as an adversarial image.

**Tolerances.** The solver (HiGHS, through ``scipy.optimize.milp``) decides feasibility within 1e-6, in floating point,
and about the network in exact arithmetic. The threshold is therefore positive: it covers the largest difference of a
float32 pass, and the largest effect of a violation of every constraint and every integrality by :data:`TOLERANCE`, both
propagated through the layers by |W|. That the solver keeps its tolerances is trusted, not proven. Such a certificate is
as good as the solver; those of the other methods do not depend on one.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from isthmus.certificates.activations import LeakyReLU
from isthmus.certificates.network import Network
from isthmus.certificates.operations import LinearMap, Reshaping, Sum
from isthmus.certificates.regions import Box

TOLERANCE = 2e-6
"""Violation of a constraint that is allowed for, relative to the size of its terms; HiGHS's tolerance is 1e-6."""

MARGIN = 1e-4
"""What a certified margin is above the slack, in logits."""

MOST_OPEN = 400
"""ReLUs with an open sign beyond which no program is built."""

MOST_WEIGHTS = 2**22
"""Numbers in the matrix of one layer, at most."""

_GAP = 0.5  # stop once the bound is at most half as far again as the best margin


class Decision(NamedTuple):
    """The outcome for one wrong class.

    Attributes:
        margin: a lower bound of the margin; −∞ if there is none.
        image: an allowed image whose margin is at most the threshold, flat; None if none was found.
    """

    margin: float
    image: NDArray[np.float64] | None = None


class Program:
    """The mixed-integer program of one image; each node's output is an affine function of the variables.

    Args:
        network: of linear layers, ReLUs and sums; see :func:`fits`.
        boxes: bounds of every node for this image.
    """

    def __init__(self, network: Network, boxes: list[Box]) -> None:
        self.low, self.high = (edge.flatten().tolist() for edge in boxes[0])
        self.pixels = len(self.low)
        self.low, self.high = [*self.low, 1.0], [*self.high, 1.0]  # a variable that is 1, for the margin's constant
        self.binary = [0] * (self.pixels + 1)
        self.rows: list[sparse.csr_matrix] = []
        self.least: list[NDArray[np.float64]] = []
        self.width = self.pixels + 1 + 2 * open_units(network, boxes)
        identity = sparse.eye(self.pixels, self.width, format="csr")
        values: list[tuple[sparse.csr_matrix, NDArray[np.float64]]] = [(identity, np.zeros(self.pixels))]
        errors: list[Tensor] = [torch.zeros_like(boxes[0].low)]
        for at, node in enumerate(network.nodes[1:-1], 1):
            operation, inputs = node.operation, [values[i] for i in node.inputs]
            sources, before = [boxes[i] for i in node.inputs], [errors[i] for i in node.inputs]
            if isinstance(operation, LinearMap):
                matrix = matrices(network)[at]
                bias = operation.bias.expand(operation.output_shape).flatten().numpy()
                values.append((matrix @ inputs[0][0], matrix @ inputs[0][1] + bias))
                errors.append(operation.apply(before[0], absolute=True) + operation.error(sources[0]))
            elif isinstance(operation, Sum):
                values.append((inputs[0][0] + inputs[1][0], inputs[0][1] + inputs[1][1]))
                own = 2.0**-22 * (sources[0].magnitude + sources[1].magnitude)
                errors.append(before[0] + before[1] + own)
            elif isinstance(operation, LeakyReLU):
                values.append(self._unit(*inputs[0], operation.slope, sources[0]))
                errors.append(self._error(before[0], operation.slope, sources[0]))
            else:
                values.append(inputs[0])
                errors.append(before[0].view(1, *node.shape))
        last = network.nodes[-1]
        assert isinstance(last.operation, LinearMap)
        self.final, self.matrix = last.operation, matrices(network)[len(network.nodes) - 1]
        self.hidden, self.error = values[last.inputs[0]], errors[last.inputs[0]]
        self.box = boxes[last.inputs[0]]

    def _unit(
        self, matrix: sparse.csr_matrix, offset: NDArray[np.float64], slope: float, box: Box
    ) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        """The outputs of a layer of (leaky) ReLUs; adds variables and constraints for those with an open sign."""
        low, high = (edge.flatten().numpy() for edge in box)
        on, open_ = low >= 0, (low < 0) & (high > 0)
        scale = np.where(on, 1.0, np.where(open_, 0.0, slope))
        output = sparse.diags(scale) @ matrix
        (positions,) = open_.nonzero()
        first, count = len(self.low), len(positions)
        if count == 0:
            return output.tocsr(), scale * offset
        own, below, above = matrix[positions], low[positions], high[positions]
        self.low += [*(slope * below), *np.zeros(count)]
        self.high += [*above, *np.ones(count)]
        self.binary += [0] * count + [1] * count
        columns, ones = np.arange(count), np.ones(count)
        shape = (count, self.width)
        value = sparse.csr_matrix((ones, (columns, first + columns)), shape)
        switch = sparse.csr_matrix((ones, (columns, first + count + columns)), shape)
        gain = 1 - slope
        # value ≥ x, value ≥ slope·x, value ≤ x − gain·low·(1 − switch), value ≤ slope·x + gain·high·switch
        self._at_least(value - own, offset[positions])
        self._at_least(value - slope * own, slope * offset[positions])
        rest = sparse.diags(gain * below) @ switch
        self._at_least(own - value + rest, gain * below - offset[positions])
        self._at_least(slope * own - value + sparse.diags(gain * above) @ switch, -slope * offset[positions])
        placed = sparse.csr_matrix((ones, (positions, first + columns)), matrix.shape)
        return (output + placed).tocsr(), scale * offset

    def _at_least(self, rows: sparse.csr_matrix, least: NDArray[np.float64]) -> None:
        self.rows.append(rows.tocsr())
        self.least.append(least)

    @staticmethod
    def _error(before: Tensor, slope: float, box: Box) -> Tensor:
        """What float32 and the solver's tolerance may change of each unit's output."""
        open_ = (box.low < 0) & (box.high > 0)
        own = torch.where(open_, TOLERANCE * (4 + box.high - box.low), 0.0) + slope * 2.0**-22 * box.magnitude
        return torch.where(box.high <= 0, slope, 1.0) * before + own

    def decide(self, row: NDArray[np.float64], deadline: float) -> Decision:
        """Whether a linear function of the logits can be at most the threshold.

        Args:
            row: its coefficients.
            deadline: by ``time.monotonic()``.
        """
        combined = np.asarray(self.matrix.T @ row)
        bias = float(row @ self.final.bias.expand(self.final.output_shape).flatten().numpy())
        rounding = np.abs(row) @ self.final.error(self.box).flatten().numpy()
        slack = float(np.abs(combined) @ self.error.flatten().numpy() + rounding)
        slack += TOLERANCE * (1 + float(np.abs(combined) @ self.box.magnitude.flatten().numpy()) + abs(bias))
        matrix, offset = self.hidden
        objective = np.asarray(combined @ matrix).ravel()
        objective[self.pixels] = float(combined @ offset) + bias
        constraints = [LinearConstraint(objective[None], ub=slack + MARGIN)]
        if self.rows:
            constraints.append(LinearConstraint(sparse.vstack(self.rows).tocsr(), lb=np.concatenate(self.least)))
        solved = milp(
            objective,
            integrality=np.array(self.binary),
            bounds=Bounds(np.array(self.low), np.array(self.high)),
            constraints=constraints,
            options={"time_limit": max(deadline - time.monotonic(), 1e-3), "mip_rel_gap": _GAP},
        )
        if solved.status == 2:  # infeasible
            return Decision(MARGIN)
        bound = -np.inf if solved.mip_dual_bound is None else float(solved.mip_dual_bound) - slack
        image = None if solved.x is None or bound > 0 else np.asarray(solved.x[: self.pixels], dtype=np.float64)
        return Decision(bound, image)


def open_units(network: Network, boxes: list[Box]) -> int:
    """Number of ReLUs whose sign the bounds leave open."""
    return sum(
        int(node.operation.open(boxes[node.inputs[0]]).sum())
        for node in network.nodes
        if isinstance(node.operation, LeakyReLU)
    )


def fits(network: Network, boxes: list[Box]) -> bool:
    """Whether a program can be built: linear layers, ReLUs and sums on a CPU, not too large, and few open signs."""
    for node in network.nodes[1:]:
        operation = node.operation
        if not isinstance(operation, LinearMap | LeakyReLU | Sum | Reshaping):
            return False
        if isinstance(operation, LinearMap) and _weights(operation) > MOST_WEIGHTS:
            return False
    if boxes[0].low.device.type != "cpu" or not isinstance(network.nodes[-1].operation, LinearMap):
        return False
    return open_units(network, boxes) <= MOST_OPEN


def _weights(operation: LinearMap) -> int:
    inputs = torch.Size(operation.input_shape).numel()
    return inputs * torch.Size(operation.output_shape).numel()


@lru_cache(maxsize=1)
def matrices(network: Network) -> dict[int, sparse.csr_matrix]:
    """The matrix of every linear layer by its node."""
    found = {}
    for at, node in enumerate(network.nodes):
        if isinstance(node.operation, LinearMap):
            rows = node.operation.rows_of(torch.arange(torch.Size(node.shape).numel()))
            found[at] = sparse.csr_matrix(rows.flatten(1).cpu().numpy())
    return found
