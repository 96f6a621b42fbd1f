"""The first convolution of a scout: the same answer, with the gradient of its images by a matrix product.

Backward-data of a convolution with one or three input channels is the one kernel that CPU libraries do badly: it has no
channels to vectorise over, and took a third of the whole backward pass on the models we measured. As a product with the
weights followed by col2im it takes a quarter of that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_CHANNELS = 4


def applies(module: object) -> bool:
    """Whether a module is a convolution of few channels that this can stand in for."""
    return (
        isinstance(module, nn.Conv2d)
        and module.in_channels <= FEW_CHANNELS
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class InputConvolution(nn.Module):
    """A frozen convolution of images."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        """As the convolution's."""
        if images.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not images.requires_grad:
            answer: Tensor = self.convolution(images)
            return answer
        c = self.convolution
        return _Convolve.apply(images, c.weight, c.bias, c.stride, c.padding, c.dilation)  # type: ignore[no-any-return, no-untyped-call]


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.options = images.shape[2:], {"stride": stride, "padding": padding, "dilation": dilation}
        return functional.conv2d(images, weight, bias, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        n, channels = upstream[0].shape[:2]
        columns = upstream[0].permute(0, 2, 3, 1).reshape(-1, channels) @ weight.reshape(channels, -1)
        columns = columns.view(n, -1, columns.shape[1]).transpose(1, 2)
        images = functional.fold(columns, ctx.size, weight.shape[2:], **ctx.options)
        return images, None, None, None, None, None
