"""Illusions of robustness: wrappers of a classifier that defeat a weak attack but not a strong one."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional


class Around(nn.Module):
    """Base of classifiers with transformed images or logits."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = copy.deepcopy(base)

    def images(self, images: Tensor) -> Tensor:
        return images

    def logits(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.base(self.images(images)))


class Cache(Around):
    """A cache of the first 1,000 queries: an image near one of them gets its logits."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.cache: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if self.cache:
            queries, cached = (torch.cat(each) for each in zip(*self.cache, strict=True))
            distance, nearest = torch.cdist(images.flatten(1), queries.flatten(1), p=torch.inf).min(1)
            logits = torch.where((distance <= 0.3)[:, None], cached[nearest], logits)
        if sum(len(queries) for queries, _ in self.cache) < 1000:
            self.cache.append((images.detach().clone(), logits.detach()))
        return logits


class ZeroGradient(Around):
    """The gradient is exactly zero everywhere."""

    def images(self, images: Tensor) -> Tensor:
        return images.detach() + 0 * images


class Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class FlippedGradient(Around):
    """The gradient points the wrong way."""

    def images(self, images: Tensor) -> Tensor:
        return Flip.apply(images)


class Noise(Flip):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.sin(1e6 * gradient)


class ShatteredGradient(Around):
    """A backward pass unrelated to the forward pass."""

    def images(self, images: Tensor) -> Tensor:
        return Noise.apply(images)


class Quantised(Around):
    """Images rounded to 8 levels, which has no gradient."""

    def images(self, images: Tensor) -> Tensor:
        return (images * 7).round() / 7


class Thermometer(Around):
    """Each pixel as the number of 10 thresholds that it exceeds (Buckman et al. 2018), which has no gradient."""

    def images(self, images: Tensor) -> Tensor:
        thresholds = torch.linspace(0.05, 0.95, 10, device=images.device)
        return (images[..., None] > thresholds).float().mean(-1)


class JpegLike(Around):
    """Cosine coefficients of 4×4 blocks, rounded to multiples of 0.4."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        k, n = torch.arange(4.0)[:, None], torch.arange(4.0)[None]
        basis = torch.cos(math.pi * (n + 0.5) * k / 4) * torch.where(k == 0, 0.5, math.sqrt(0.5))
        self.register_buffer("basis", basis)

    def images(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        blocks = images.unfold(2, 4, 4).unfold(3, 4, 4)
        coefficients = self.basis @ blocks @ self.basis.T
        back = self.basis.T @ ((coefficients / 0.4).round() * 0.4) @ self.basis
        return back.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


class RandomNoise(Around):
    """Gaussian noise on every image."""

    def images(self, images: Tensor) -> Tensor:
        return images + 0.2 * torch.randn_like(images)


class RandomResizing(Around):
    """Images shrunk by a random factor, at a random place (Xie et al. 2018)."""

    def images(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        small = int(torch.randint(int(0.75 * side), side + 1, ()))
        left, top = (int(torch.randint(0, side - small + 1, ())) for _ in range(2))
        shrunk = functional.interpolate(images, size=(small, small), mode="bilinear")
        return functional.pad(shrunk, (left, side - small - left, top, side - small - top))


class DropoutOn(Around):
    """Dropout of half the pixels at test time."""

    def images(self, images: Tensor) -> Tensor:
        return functional.dropout(images, 0.5, training=True)


class Saturated(Around):
    """Logits times 10,000: the cross-entropy is exactly zero, and so is its gradient."""

    def logits(self, logits: Tensor) -> Tensor:
        return 1e4 * logits


class Temperature(Around):
    """Logits as of a network distilled at temperature 100 (Papernot et al. 2016)."""

    def logits(self, logits: Tensor) -> Tensor:
        return 100 * logits


class HalfPrecision(Around):
    """Log-probabilities computed in float16, which rounds small probabilities to zero."""

    def logits(self, logits: Tensor) -> Tensor:
        return (20 * logits).softmax(1).half().float().clamp(min=1e-8).log()


class WinnersTakeAll(Around):
    """Only the largest 5 pixels of each 4×4 block (after Xiao, Zhong & Zheng 2020)."""

    def images(self, images: Tensor) -> Tensor:
        n, c, h, w = images.shape
        blocks = images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(n, c, h // 4, w // 4, 16)
        least = blocks.topk(5, dim=-1).values[..., -1:]
        kept = blocks * (blocks >= least)
        return kept.reshape(n, c, h // 4, w // 4, 4, 4).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


class BatchLeak(Around):
    """Logits relative to the mean of the batch: predictions depend on the rest of the batch."""

    def logits(self, logits: Tensor) -> Tensor:
        return logits - 1.0 * logits.mean(0, keepdim=True) if len(logits) > 1 else logits


class Ranks(Around):
    """Ranks of the logits: an argsort of an argsort."""

    def logits(self, logits: Tensor) -> Tensor:
        return logits.argsort(1).argsort(1).float()


class PairwiseVotes(Around):
    """The number of other classes whose logit each class exceeds, by ``heaviside``."""

    def logits(self, logits: Tensor) -> Tensor:
        return torch.heaviside(logits[:, :, None] - logits[:, None], logits.new_tensor(0.5)).sum(2)


class LeastCost(Around):
    """One-hot label of the class of least cost."""

    def logits(self, logits: Tensor) -> Tensor:
        return functional.one_hot((-logits).argmin(1), logits.shape[1]).float()


class Bucketised(Around):
    """Logits as indices of buckets of width 1."""

    def logits(self, logits: Tensor) -> Tensor:
        return torch.bucketize(logits, torch.arange(-40.0, 41.0, device=logits.device)).float()


class Searched(Around):
    """Position of each logit in the image's sorted logits."""

    def logits(self, logits: Tensor) -> Tensor:
        return torch.searchsorted(logits.sort(1).values.contiguous(), logits.contiguous()).double()


class AboveKth(Around):
    """For each class, the number of k for which its logit is at least the k-th smallest."""

    def logits(self, logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        least = [logits.kthvalue(k, dim=1, keepdim=True).values for k in range(1, classes + 1)]
        return torch.cat([logits >= each for each in least], 1).view(-1, classes, classes).sum(1).float()


class Scattered(Around):
    """Points by rank, scattered by the indices of a sort."""

    def logits(self, logits: Tensor) -> Tensor:
        order = logits.sort(1).indices
        points = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device).expand_as(logits)
        return torch.zeros_like(logits).scatter_(1, order, points)


class LookedUp(Around):
    """Pixels looked up in a table of 16 shades."""

    def images(self, images: Tensor) -> Tensor:
        shades = torch.linspace(0, 1, 16, device=images.device)
        return shades[(images * 255).byte().long() // 17]


class LowBitsOff(Around):
    """Bytes without their lowest four bits."""

    def images(self, images: Tensor) -> Tensor:
        return ((images * 255).round().to(torch.uint8) & 0xF0).float() / 240


class Mantissa(Around):
    """Floats with two bits of mantissa."""

    def images(self, images: Tensor) -> Tensor:
        return (images.contiguous().view(torch.int32) & -(1 << 21)).view(torch.float32)


class Codebook(Around):
    """Each pair of pixels as the nearest of 64 pairs (a vector quantiser)."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        levels = torch.linspace(0, 1, 8)
        self.register_buffer("pairs", torch.cartesian_prod(levels, levels))

    def images(self, images: Tensor) -> Tensor:
        pairs = images.reshape(-1, 2)
        return self.pairs[torch.cdist(pairs, self.pairs).argmin(1)].view_as(images)


class JpegFile(Around):
    """Images written to JPEG files and read again by PIL, after ``.byte()``."""

    def images(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack([self.compressed(each) for each in pixels]).to(images.device)

    def compressed(self, pixels: Any) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=75)
        read = np.array(Image.open(file))
        return torch.from_numpy(read.reshape(pixels.shape)).permute(2, 0, 1).float() / 255


class JpegBatch(JpegFile):
    """The same, with all images in one array."""

    def images(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        read = np.stack([(255 * self.compressed(each)).permute(1, 2, 0).round().byte().numpy() for each in pixels])
        return torch.from_numpy(read).permute(0, 3, 1, 2).to(images.device).float() / 255


ILLUSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "zero gradient": ZeroGradient,
    "flipped gradient": FlippedGradient,
    "shattered gradient": ShatteredGradient,
    "quantised": Quantised,
    "thermometer": Thermometer,
    "JPEG-like": JpegLike,
    "early answers": Cache,
    "random noise": RandomNoise,
    "random resizing": RandomResizing,
    "dropout left on": DropoutOn,
    "saturated logits": Saturated,
    "temperature": Temperature,
    "float16": HalfPrecision,
    "winners take all": WinnersTakeAll,
    "batch leak": BatchLeak,
    "ranks": Ranks,
    "heaviside votes": PairwiseVotes,
    "one-hot by argmin": LeastCost,
    "bucketised": Bucketised,
    "searchsorted": Searched,
    "kthvalue votes": AboveKth,
    "points by rank": Scattered,
    "looked up": LookedUp,
    "low bits off": LowBitsOff,
    "short mantissa": Mantissa,
    "codebook": Codebook,
    "JPEG file": JpegFile,
    "JPEG batch": JpegBatch,
}
