"""Views of stochastic models: class probabilities averaged over draws, reproducible from keys."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.core import files, randomness
from isthmus.models.bottleneck import Bottleneck

NUMBERS = 2**20
"""Most random numbers held at once; at least one draw of every image."""


class Averaged(nn.Module, ABC):
    """Base of both views: ln of the class probabilities averaged over S samples, reproducible from keys.

    Without keys every call draws new noise from (seed, number of the call, position in the batch).
    """

    takes_keys = True

    def __init__(self, model: nn.Module, samples: int = 12, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.samples = samples
        self.seed = seed
        self._calls = 0

    def forward(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, "n"] | None = None
    ) -> Float[Tensor, "n classes"]:
        """Averaged log-probabilities for images in [0, 1]."""
        if keys is None:
            self._calls += 1
            rows = torch.arange(images.shape[0], device=images.device)
            keys = randomness.fold(rows, "modes/call", self.seed, self._calls)
        return self.forward_draws(images, keys[:, None])[:, 0]

    @abstractmethod
    def forward_draws(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, "n draws"]
    ) -> Float[Tensor, "n draws classes"]:
        """Logits of each image for several keys (see :class:`isthmus.attacks.engine.counted_model.CountedModel`)."""

    def _averaged(self, logits: Float[Tensor, "samples *any n classes"]) -> Float[Tensor, "*any n classes"]:
        # Classes before images: log_softmax over a short last dimension takes ten times as long.
        each = torch.log_softmax(logits.mT.contiguous(), -2)
        return torch.logsumexp(each, 0).mT - math.log(self.samples)


class StochasticMode(Averaged):
    """Stochastic mode of a bottleneck: ln (1/S) Σ_s c(y|z_s), z_s ~ e(z|x), log-probabilities as logits.

    Noise derives from ``keys``, one per image, so that predictions do not depend on the rest of the batch. Without keys
    every call draws new noise. Attacks that call it with new keys at each step attack the expectation (EOT with S draws
    per step).
    """

    model: Bottleneck

    def forward_draws(self, images: Tensor, keys: Tensor) -> Tensor:
        """Averages over S samples from e(z|x) for each key; an image is encoded once for all of them."""
        encoded = self.model.encode(images)
        shape = self.samples, self.model.noise_dim
        found = []
        for some in torch.split(keys, max(1, NUMBERS // (len(images) * math.prod(shape))), 1):
            noise = randomness.normal(some, shape).permute(2, 1, 0, 3).to(encoded.mean.dtype)
            logits = self.model.answer(encoded, noise.flatten(0, 1))
            found.append(self._averaged(logits.reshape(*noise.shape[:3], -1)))
        return torch.cat(found).transpose(0, 1)


class AveragedDraws(Averaged):
    """A view of a model that draws its own noise: ln (1/S) Σ_s p_s(y|x), each p_s from another pass.

    The noise comes from the global generators of torch, numpy and Python, which are seeded for each call from its keys
    and restored afterwards. So calls are reproducible, and an attack that uses new keys at each step attacks the
    expectation. The model itself assigns noise to the images of a batch, so predictions depend on the batch, and
    results on the batch size. A model with its own generator is not reproducible.
    """

    def forward_draws(self, images: Tensor, keys: Tensor) -> Tensor:
        """Averages over S passes for each column of keys; separate passes, since rows may share noise."""
        found = []
        for column in keys.T:
            seed = int(files.sha256(column.contiguous().cpu().numpy())[:15], 16)
            with seeded(seed, images.device):
                logits = torch.stack([self.model(images.clone()).float() for _ in range(self.samples)])
            found.append(self._averaged(logits))
        return torch.stack(found, 1)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch (CPU and ``device``), numpy and Python, and restore them afterwards."""
    cuda = [device] if device.type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                with torch.cuda.device(index):
                    torch.cuda.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
