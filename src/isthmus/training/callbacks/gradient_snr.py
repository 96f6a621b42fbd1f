"""The signal-to-noise ratio of the stochastic gradient, layer by layer and epoch by epoch.

Figure 2 of "A Rate-Distortion Theory of Adversarial Examples", after Shwartz-Ziv & Tishby 2017: over the batches of an
epoch the signal is ‖mean ∇_W L‖₂ / ‖W‖₂ and the noise ‖std ∇_W L‖₂ / ‖W‖₂, where std is taken element by element. The
caption prints the noise without ‖W‖₂; ``normalize_noise: false`` follows it literally, and the ratio then falls as
weights grow. The second norm is the root of the trace of the covariance, so that no second moment per weight is needed:
a running mean (Welford) per weight and one sum of squares per layer suffice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from isthmus.data.images import ImageData
from isthmus.training.callbacks.callback import Callback, CallbackState


class GradientSNR(Callback):
    """The signal-to-noise ratio of the stochastic gradient of each layer.

    Attributes:
        largest: upper limit of reported ratios; a ratio without noise gets this value.
        normalize_noise: divide the noise by ‖W‖₂, like the signal; false follows the printed formula.
    """

    name: Literal["gradient_snr"] = "gradient_snr"
    largest: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e6
    normalize_noise: bool = True

    def build(self, model: nn.Module, data: ImageData, seed: int) -> GradientSNRState:
        """The ratios of a model; needs neither data nor seed."""
        return GradientSNRState(model, self.largest, self.normalize_noise)


class GradientSNRState(CallbackState):
    """Running moments of the gradients of all trained weights of at least two dimensions.

    Args:
        model: the model whose gradients are measured.
        largest, normalize_noise: see :class:`GradientSNR`.
    """

    def __init__(self, model: nn.Module, largest: float, normalize_noise: bool = True) -> None:
        self.largest, self.normalize_noise = largest, normalize_noise
        self.weights = {name: p for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
        self.means = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self.weights.items()}
        self.squares = [p.new_zeros((), dtype=torch.float32) for p in self.weights.values()]
        self.count = 0

    @torch.no_grad()
    def gradients(self) -> None:
        """Add the gradients of one step: a subtraction, a norm and an addition over all weights."""
        self.count += 1
        found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.weights.values()]
        means = list(self.means.values())
        away = torch._foreach_sub([g.float() for g in found], means)
        torch._foreach_add_(means, away, alpha=1 / self.count)
        norms = torch._foreach_norm(away)
        torch._foreach_addcmul_(self.squares, norms, norms, value=(self.count - 1) / self.count)

    @torch.no_grad()
    def end_epoch(self) -> dict[str, dict[str, float | None]]:
        """``{layer: {"signal", "noise", "snr"}}``; None for each after fewer than two steps."""
        ratios: dict[str, dict[str, float | None]] = {}
        for (name, weight), squares in zip(self.weights.items(), self.squares, strict=True):
            size, mean = float(weight.float().norm()), float(self.means[name].norm())
            if self.count < 2 or size == 0:
                ratios[name] = dict.fromkeys(("signal", "noise", "snr"))
                continue
            signal, noise = mean / size, math.sqrt(float(squares) / self.count)
            if self.normalize_noise:
                noise /= size
            snr = min(signal / noise, self.largest) if noise > 0 else (self.largest if signal > 0 else 0.0)
            ratios[name] = {"signal": signal, "noise": noise, "snr": snr}
        return ratios

    def reset(self) -> None:
        """Start a new epoch."""
        self.count = 0
        torch._foreach_zero_([*self.means.values(), *self.squares])

    def tensors(self) -> dict[str, Tensor]:
        """Means, sums of squares and the number of steps."""
        squares = {f"squares.{name}": value for name, value in zip(self.weights, self.squares, strict=True)}
        means = {f"mean.{name}": value for name, value in self.means.items()}
        return {**means, **squares, "count": torch.tensor(self.count)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume within an epoch."""
        self.count = int(tensors["count"])
        for name, squares in zip(self.weights, self.squares, strict=True):
            self.means[name].copy_(tensors[f"mean.{name}"])
            squares.copy_(tensors[f"squares.{name}"])
