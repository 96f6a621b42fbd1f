"""A scout's last step in channels-last: flatten as the memory lies, and a linear layer with its columns in that order.

A convolution that is laid out channels-last gives images whose channels lie side by side. To flatten them channel by
channel copies them, each way, for nothing: the linear layer that follows can as well take its inputs in another order.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn


class FlattenChannelsLast(nn.Module):
    """N×C×H×W to N×(H·W·C), as the memory lies."""

    def forward(self, images: Tensor) -> Tensor:
        """Flat features; a view where the memory is channels-last."""
        return images.permute(0, 2, 3, 1).flatten(1)


class Shapes(fx.Interpreter):
    """Notes the shape of every node's tensor; unlike fx's own pass it prints no traceback where the model fails."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        n.meta["shape"] = getattr(result, "shape", ())
        return result


def reorder(traced: fx.GraphModule, probe: Tensor) -> None:
    """Where a flatten is followed by a linear layer alone, both in channels-last order; in place.

    Args:
        probe: a few images, to learn the shapes from.
    """
    modules = dict(traced.named_modules())
    Shapes(traced).run(probe.clone())  # a model may work in place
    for node in traced.graph.nodes:
        flatten, after = modules.get(str(node.target)), [user for user in node.users if user.op == "call_module"]
        if not _flattens(flatten) or node.op != "call_module" or len(node.users) != 1 or len(after) != 1:
            continue
        linear, shape = modules.get(str(after[0].target)), node.args[0].meta["shape"]
        if not isinstance(linear, nn.Linear) or len(shape) != 4 or not _used_once(traced, node, after[0]):
            continue
        _, c, h, w = shape
        reordered = copy.deepcopy(linear)
        reordered.weight.data = linear.weight.data.reshape(-1, c, h, w).permute(0, 2, 3, 1).flatten(1).contiguous()
        traced.set_submodule(str(node.target), FlattenChannelsLast())
        traced.set_submodule(str(after[0].target), reordered)


def _flattens(module: object) -> bool:
    return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)


def _used_once(traced: fx.GraphModule, *nodes: fx.Node) -> bool:
    return all(sum(node.target == other.target for other in traced.graph.nodes) == 1 for node in nodes)
