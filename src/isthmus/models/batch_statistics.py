"""Compare images with the running statistics of a model's first batch normalisation.

The running statistics describe the training images. Images that are normalised twice, not at all or to another range
differ from them by far more than test images do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

UNUSUAL = 0.6
"""A shift beyond that of test images. On small networks for Fashion-MNIST, 20 test images shift by at most 0.13, 50 of
a single class by at most 0.47, and wrongly normalised images by at least 0.67."""

FEWEST = 20
"""Smallest number of images to compare."""

Forward = Callable[[Tensor], object]
"""Runs the model on images."""


class _Moments:
    """Moments per channel of the input of the first batch normalisation that runs."""

    def __init__(self) -> None:
        self.module: _BatchNorm | None = None
        self.count, self.total, self.squares = 0, torch.zeros(()), torch.zeros(())

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if self.module is None and isinstance(module, _BatchNorm):
            self.module = module
        if module is not self.module:
            return
        x = given[0].detach().cpu().double().transpose(0, 1).flatten(1)  # channels × values
        self.count += x.shape[1]
        self.total, self.squares = self.total + x.sum(1), self.squares + x.square().sum(1)


def shift(model: nn.Module, forward: Forward, images: Float[Tensor, "n c h w"]) -> float | None:
    """Distance between the statistics of images and the running statistics of the first batch normalisation.

    The median over channels of |μ − μ_run|/σ_run + |ln(σ/σ_run)|, 0 if they agree. None for a model without batch
    normalisation in eval mode, or without running statistics.
    """
    seen = _Moments()
    hooks = [
        layer.register_forward_pre_hook(seen)
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and not layer.training
    ]
    try:
        if hooks:
            forward(images)
    finally:
        for hook in hooks:
            hook.remove()
    if seen.module is None or seen.module.running_mean is None or seen.module.running_var is None:
        return None
    mean = seen.total / seen.count
    deviation = (seen.squares / seen.count - mean**2).clamp(min=1e-30).sqrt()
    usual = (seen.module.running_var.cpu().double() + seen.module.eps).sqrt()
    apart = (mean - seen.module.running_mean.cpu().double()).abs() / usual + (deviation / usual).log().abs()
    return float(apart.median())


def warning(model: nn.Module, forward: Forward, images: Float[Tensor, "n c h w"]) -> str | None:
    """The likely fault in the normalisation of images; None if there is none, or too little evidence."""
    found = shift(model, forward, images) if len(images) >= FEWEST else None
    if found is None or found <= UNUSUAL:
        return None
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True).clamp(min=1e-3)
    remedies = {
        "images in [0, 255]": 255 * images,
        "images in [-1, 1]": 2 * images - 1,
        "images normalised once more (normalisation is missing)": (images - mean) / std,
        "images normalised once less (normalisation is applied twice)": mean + std * images,
    }
    shifts: dict[str, float] = {}
    for name, changed in remedies.items():
        with suppress(Exception):  # the model may reject such images
            shifts[name] = shift(model, forward, changed) or 0.0
    best = min(shifts, key=lambda name: shifts[name], default=None)
    likely = f"; with {best}, they would agree" if best is not None and shifts[best] < UNUSUAL / 2 else ""
    return (
        "The input of the first batch normalisation differs from its running statistics by "
        f"{found:.1f} standard deviations{likely}. Is normalisation missing, applied twice, or for another range?"
    )
