"""A bottleneck of several levels, image → z_1 → ... → z_L: each level a code of the one below (Fischer 2020, C.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.information.codes import Codes
from isthmus.information.gaussians import Gaussian
from isthmus.models.bottleneck import Bottleneck, Heads, decision
from isthmus.models.gaussian_heads import BackwardEncoder
from isthmus.models.learner import Normalizer
from isthmus.objectives.objective import BottleneckObjective


class Level(nn.Module):
    """One level above another: e_i(z_i|z_{i−1}), c_i(y|z_i) and b_i(z_i|y).

    Args:
        encoder: a module from codes of the level below (any leading dimensions × dim) to Gaussians.
        classifier: from this level's codes to logits; None is the consistent classifier.
        backward: b_i(z_i|y).
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module | None, backward: BackwardEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.backward_encoder = backward

    def decode(
        self, codes: Float[Tensor, "*any dim"], log_prior: Float[Tensor, "classes"] | None
    ) -> Float[Tensor, "*any classes"]:
        """Logits of c_i(y|z_i)."""
        return decision(codes, self.classifier, self.backward_encoder, log_prior)


class Hierarchy(Bottleneck):
    """A bottleneck whose codes are encoded again; the highest level classifies.

    ``encode`` gives e_1(z_1|x), the only access to the image: I(X; Z_1, …, Z_L) = I(X;Z_1). ``decode`` takes codes of
    the highest level, and ``forward`` goes up from mean to mean. ``backward_encoder``, ``classifier`` and ``marginal``
    belong to the lowest level.

    Args:
        backbone, heads: of the lowest level.
        upper: the levels above it, in order.
        objective, samples, normalize, log_prior: see :class:`isthmus.models.bottleneck.Bottleneck`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Heads,
        upper: Sequence[Level],
        objective: BottleneckObjective,
        *,
        samples: int = 1,
        normalize: Normalizer | None = None,
        log_prior: Float[Tensor, "classes"] | None = None,
    ) -> None:
        super().__init__(backbone, heads, objective, samples=samples, normalize=normalize, log_prior=log_prior)
        self.upper = nn.ModuleList(upper)

    @property
    def above(self) -> list[Level]:
        """The levels above the lowest, in order."""
        return [level for level in self.upper if isinstance(level, Level)]

    @property
    def noise_dim(self) -> int:
        """For all levels, since an answer draws z_1, then z_2, ..."""
        return (1 + len(self.upper)) * self.encoder.dim

    def decode(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any classes"]:
        """Logits of c_L(y|z_L)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.above[-1].decode(codes, self.log_prior)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Mean mode: logits of the highest level, each level at the mean of the one below."""
        mean = self.encode(images).mean
        with torch.autocast(mean.device.type, enabled=False):
            for level in self.above:
                mean = level.encoder(mean).mean
        return self.decode(mean)

    def answer(
        self, encoded: Gaussian, noise: Float[Tensor, "samples n noise_dim"]
    ) -> Float[Tensor, "samples n classes"]:
        """Logits of the highest level for chains of codes, each drawn from the one below."""
        first, *others = noise.chunk(1 + len(self.upper), dim=-1)
        codes = encoded.sample(first)
        with torch.autocast(codes.device.type, enabled=False):
            for level, own in zip(self.above, others, strict=True):
                codes = level.encoder(codes).sample(own)
        return self.decode(codes)

    def draw(
        self,
        encoded: Gaussian,
        noise: Float[Tensor, "samples n noise_dim"],
        label_noise: Float[Tensor, "samples n dim"] | None = None,
    ) -> Codes:
        """The highest level's codes, with the densities of each level; ``below`` leads to the lower ones."""
        first, *others = noise.chunk(1 + len(self.upper), dim=-1)
        codes = super().draw(encoded, first, label_noise)
        with torch.autocast(noise.device.type, enabled=False):
            for level, own in zip(self.above, others, strict=True):
                above = level.encoder(codes.samples)
                samples = above.sample(own)
                logits = level.decode(samples, self.log_prior)
                backward = level.backward_encoder()
                codes = Codes(samples, logits, self.log_prior, above, backward, below=codes, noise=own)
        return codes
