"""A faster copy of a model for the gradients of attacks.

Batch norm is folded into convolutions, weights are laid out channels-last, and the first convolution has a faster
backward pass. The copy is used only if its logits and gradients agree with the model's on a probe, which shows this for
the probe, not in general. Only attacks query it: success is verified with the model itself.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isthmus.attacks.engine.counted_model import Answer, CountedModel
from isthmus.attacks.engine.rounding import slack
from isthmus.core.errors import ModelError, brief

log = logging.getLogger(__name__)

PROBE = 4
"""Examples on which the copy is compared with the model."""

PROBING = 96
"""Passes that this takes at most."""

FEW_CHANNELS = 4
"""Input channels up to which :class:`InputConvolution` replaces a convolution."""


def wrap(model: nn.Module, bf16: bool, probe: Tensor) -> CountedModel:
    """A counted model whose attacks query an optimised copy, if one agrees with the model on the probe.

    Args:
        bf16: compute the copy's passes in bfloat16.
        probe: a few images on the model's device.
    """
    counted = CountedModel(model)
    faster = _optimized(counted, model, probe)
    return CountedModel(model, faster, torch.bfloat16 if bf16 else None).took_over(counted)


def _optimized(counted: CountedModel, model: nn.Module, probe: Tensor) -> nn.Module | None:
    """A faster copy with the model's logits and gradient up to rounding; None if there is none."""
    hooked = bool(model._forward_pre_hooks or model._forward_hooks)  # which a traced copy would not call
    if counted.takes_keys or hooked or not any(isinstance(m, nn.Conv2d) for m in model.modules()):
        return None
    try:
        expected = _answers(counted, probe)
    except ModelError:  # it will fail on clean images too, and is reported then
        return None
    ways: tuple[Callable[[], nn.Module], ...] = (lambda: _rewritten(model, probe), lambda: copy.deepcopy(model))
    failed: Exception | None = None
    for make in ways:
        try:  # a user's model may be impossible to copy, to trace or to fold
            faster: nn.Module = make().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            candidate = CountedModel(model, faster)
            agreed = _agree(expected, _answers(candidate, probe))
            counted.took_over(candidate)
            if agreed:
                return faster
        except Exception as error:
            failed = error
    if failed is not None:
        _warn_once(type(model).__name__, brief(failed))
    return None


@cache
def _warn_once(name: str, why: str) -> None:
    log.warning("No faster copy of %s could be made (%s); attacks use the model itself, which is slower.", name, why)


def _answers(counted: CountedModel, probe: Tensor) -> list[Answer]:
    """Logits and gradients on the probe, on its negative and on noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(probe.shape, generator=generator).to(probe.device)
    keys = torch.zeros(len(probe), dtype=torch.int64, device=probe.device)
    return [counted.query(images, keys, lambda z: (z * z).sum(1)) for images in (probe, 1 - probe, noise)]


def _agree(expected: list[Answer], found: list[Answer]) -> bool:
    """Whether logits and gradients are the same up to rounding."""
    for ours, theirs in zip(expected, found, strict=True):
        pairs = (
            (ours.logits, theirs.logits, slack(ours.logits, 1e-4).max()),
            (ours.gradient, theirs.gradient, 1e-3 * ours.gradient.abs().max()),
        )
        if not all(bool(((a - b).abs() <= tolerance).all()) for a, b, tolerance in pairs):
            return False
    return True


# --- rewriting a traced copy ---


def _rewritten(model: nn.Module, probe: Tensor) -> nn.Module:
    """A traced copy with batch norm folded, a faster first convolution, and flattening in memory order."""
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    _allow_any_layout(traced)
    _fold_batch_norm(traced)
    _replace_input_convolution(traced)
    with suppress(Exception):  # a model that cannot be run node by node keeps its order
        _flatten_channels_last(traced, probe)
    traced.recompile()
    traced.delete_all_unused_submodules()
    type(traced).__call__ = nn.Module.__call__  # type: ignore[method-assign]  # fx's own prints errors that it raises
    return traced


def _allow_any_layout(traced: fx.GraphModule) -> None:
    """Replace ``view``, which fails on channels-last memory, by ``reshape``."""
    for node in traced.graph.nodes:
        shaped = not any(isinstance(value, torch.dtype) for value in (*node.args, *node.kwargs.values()))
        if node.op == "call_method" and node.target in ("view", "view_as") and shaped:
            node.target = node.target.replace("view", "reshape")


def _calls(traced: fx.GraphModule) -> tuple[dict[str, nn.Module], Counter[Any]]:
    """The modules by name, and how often each is called."""
    return dict(traced.named_modules()), Counter(node.target for node in traced.graph.nodes)


def _fold_batch_norm(traced: fx.GraphModule) -> None:
    modules, calls = _calls(traced)
    for norm in list(traced.graph.nodes):
        before = norm.args[0] if norm.op == "call_module" and norm.args else None
        module = modules.get(str(norm.target))
        if not isinstance(module, nn.BatchNorm2d) or not isinstance(before, fx.Node):
            continue
        convolution = modules.get(str(before.target))
        once = len(before.users) == 1 and calls[before.target] == calls[norm.target] == 1
        if isinstance(convolution, nn.Conv2d) and once:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, module))
            norm.replace_all_uses_with(before)
            traced.graph.erase_node(norm)


def _replace_input_convolution(traced: fx.GraphModule) -> None:
    modules, calls = _calls(traced)
    for node in traced.graph.nodes:
        of_images = node.op == "call_module" and [n.op for n in node.all_input_nodes] == ["placeholder"]
        module = modules.get(str(node.target))
        if of_images and calls[node.target] == 1 and isinstance(module, nn.Conv2d) and InputConvolution.fits(module):
            traced.set_submodule(str(node.target), InputConvolution(module))


def _flatten_channels_last(traced: fx.GraphModule, probe: Tensor) -> None:
    """Flatten in channels-last order if only a linear layer follows, and reorder its columns.

    To flatten channel by channel copies channels-last images, in each direction.
    """
    modules, calls = _calls(traced)
    _Shapes(traced).run(probe.clone())  # a model may work in place
    for node in traced.graph.nodes:
        flatten, after = modules.get(str(node.target)), [user for user in node.users if user.op == "call_module"]
        flattens = isinstance(flatten, nn.Flatten) and (flatten.start_dim, flatten.end_dim) == (1, -1)
        if not flattens or node.op != "call_module" or len(node.users) != 1 or len(after) != 1:
            continue
        linear, shape = modules.get(str(after[0].target)), node.args[0].meta["shape"]
        once = calls[node.target] == calls[after[0].target] == 1
        if not isinstance(linear, nn.Linear) or len(shape) != 4 or not once:
            continue
        _, c, h, w = shape
        reordered = copy.deepcopy(linear)
        reordered.weight.data = linear.weight.data.reshape(-1, c, h, w).permute(0, 2, 3, 1).flatten(1).contiguous()
        traced.set_submodule(str(node.target), FlattenChannelsLast())
        traced.set_submodule(str(after[0].target), reordered)


class _Shapes(fx.Interpreter):
    """Records the shape of every node's tensor; unlike fx's own pass it prints no traceback if the model fails."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        n.meta["shape"] = getattr(result, "shape", ())
        return result


class FlattenChannelsLast(nn.Module):
    """N×C×H×W to N×(H·W·C): a view if the memory is channels-last."""

    def forward(self, images: Tensor) -> Tensor:
        """Flat features."""
        return images.permute(0, 2, 3, 1).flatten(1)


class InputConvolution(nn.Module):
    """A frozen convolution of images, with their gradient by a matrix product.

    The backward pass of a convolution with one or three input channels has no channels to vectorise over, and took a
    third of the whole backward pass on the models that we measured. A product with the weights followed by col2im takes
    a quarter of that.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether this class can replace a convolution, which must have few channels."""
        return (
            convolution.in_channels <= FEW_CHANNELS
            and convolution.groups == 1
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
        )

    def forward(self, images: Tensor) -> Tensor:
        """The convolution's output."""
        if images.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not images.requires_grad:
            answer: Tensor = self.convolution(images)
            return answer
        c = self.convolution
        return _Convolve.apply(images, c.weight, c.bias, c.stride, c.padding, c.dilation)  # type: ignore[no-any-return, no-untyped-call]


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.options = images.shape[2:], dict(zip(("stride", "padding", "dilation"), options, strict=True))
        convolved: Tensor = functional.conv2d(images, weight, bias, *options)
        return convolved

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        n, channels = upstream[0].shape[:2]
        columns = upstream[0].permute(0, 2, 3, 1).reshape(-1, channels) @ weight.reshape(channels, -1)
        columns = columns.view(n, -1, columns.shape[1]).transpose(1, 2)
        images = functional.fold(columns, ctx.size, weight.shape[2:], **ctx.options)
        return images, None, None, None, None, None
