"""Whitening inside the model: grey images, their leading principal components, rotated back (ZCA).

x ↦ U (Λ + ε)^(−½) Uᵀ (x − μ), where the columns of U are the leading eigenvectors of the training images' covariance
and Λ their eigenvalues (Bell & Sejnowski 1997; section 4 of "A Rate-Distortion Theory of Adversarial Examples"). It is
fitted to training images only, and saved with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.core.errors import ConfigError

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue: NTSC, which is ITU-R BT.601."""


class Whitening(nn.Module):
    """From images in [0, 1] to whitened grey images of ``size``×``size``, or of the original size.

    Args:
        shape: channels (1 or 3), height and width of the images.
        components: number of principal components.
        epsilon: added to every eigenvalue.
        size: images are first scaled bilinearly to this many pixels per side; None does not scale them.

    Raises:
        ConfigError: channels that are neither grey nor RGB, or more components than pixels.
    """

    mean: Tensor
    basis: Tensor
    scales: Tensor

    def __init__(
        self, shape: tuple[int, int, int], components: int, epsilon: float = 1e-5, size: int | None = None
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if channels not in (1, 3):
            raise ConfigError(f"Whitening needs grey or RGB images; these have {channels} channels.")
        self.sides = (height, width) if size is None else (size, size)
        pixels = math.prod(self.sides)
        if components > pixels:
            raise ConfigError(
                f"{components} principal components of images of {self.sides[0]}×{self.sides[1]} are too many: there "
                f"are {pixels}. Give fewer, or scale the images up with size."
            )
        self.epsilon, self.resized = epsilon, size is not None
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.zeros(components, pixels))  # rows: eigenvectors, the largest first
        self.register_buffer("scales", torch.ones(components))  # (λ + ε)^(−½)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        return (1, *self.sides)

    def grey(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n pixels"]:
        """Grey images of the right size, flattened, in float32."""
        images = images.float()
        if images.shape[1] == 3:
            weights = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
        if self.resized:
            images = F.interpolate(images, self.sides, mode="bilinear", align_corners=False)
        return images.flatten(1)

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Float[Tensor, "n c h w"]]]) -> Whitening:
        """Compute mean, eigenvectors and eigenvalues (of the covariance over N) of training images; returns itself.

        Args:
            batches: yields all images, in [0, 1]; called twice, for a numerically stable covariance.
        """
        pixels = len(self.mean)
        total, count = torch.zeros(pixels, dtype=torch.float64), 0
        for images in batches():
            flat = self.grey(images)
            total, count = total + flat.double().sum(0), count + len(flat)
        mean = total / count
        covariance = torch.zeros(pixels, pixels, dtype=torch.float64)
        for images in batches():
            centred = self.grey(images).double() - mean
            covariance += centred.T @ centred
        values, vectors = torch.linalg.eigh(covariance / count)
        kept = len(self.scales)
        self.mean.copy_(mean)
        self.basis.copy_(vectors.flip(1)[:, :kept].T)
        self.scales.copy_((values.flip(0)[:kept].clamp_min(0.0) + self.epsilon).rsqrt())
        return self

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 height width"]:
        """Whitened images; in float32 even under autocast, since small eigenvalues amplify rounding errors."""
        with torch.autocast(images.device.type, enabled=False):
            components = (self.grey(images) - self.mean) @ self.basis.T
            whitened: Tensor = (components * self.scales) @ self.basis
        return whitened.view(len(images), *self.shape)
