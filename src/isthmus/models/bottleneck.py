"""The bottleneck around a backbone: normalise, features, e(z|x), c(y|z), and optionally b(z|y) and m(z)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isthmus.core.errors import ModelError
from isthmus.core.tradeoff import Rho
from isthmus.core.types import Terms
from isthmus.information.codes import Codes, Gather
from isthmus.information.gaussians import Gaussian
from isthmus.information.kde import fit_kernel_variance
from isthmus.information.measures import measure
from isthmus.models.gaussian_heads import BackwardEncoder, Encoder, gaussians_of
from isthmus.models.learner import Learner, Normalizer
from isthmus.models.noise import Noise, standard_normal
from isthmus.objectives.objective import BottleneckObjective


@dataclass(frozen=True)
class Heads:
    """The densities of a bottleneck.

    Attributes:
        encoder: e(z|x) on the backbone's features.
        classifier: c(y|z), from codes (any leading dimensions × dim) to logits. None is the consistent classifier,
            softmax_y [log b(z|y) + log p(y)], which has no parameters and needs ``backward``.
        backward: b(z|y), if the objective or an audit needs it.
        marginal: m(z), a module from a batch's codes to a density.
    """

    encoder: Encoder
    classifier: nn.Module | None
    backward: BackwardEncoder | None = None
    marginal: nn.Module | None = None


class Bottleneck(Learner):
    """A classifier that passes only a code z from its backbone to its decision.

    ``forward`` is the mean mode, c(y|E z), from images in [0, 1] to logits;
    :class:`isthmus.models.modes.StochasticMode` averages over samples. With a deterministic objective the code is the
    mean, without noise.

    Args:
        backbone: any module from images (normalised by ``normalize``) to features, batch × features.
        heads: the densities on those features.
        objective: the loss. It also determines whether codes are drawn or deterministic.
        samples: number of codes drawn per image in training and in the default stochastic mode.
        normalize, log_prior: see :class:`isthmus.models.learner.Learner`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Heads,
        objective: BottleneckObjective,
        *,
        samples: int = 1,
        normalize: Normalizer | None = None,
        log_prior: Float[Tensor, "classes"] | None = None,
    ) -> None:
        super().__init__(normalize, log_prior)
        self.backbone = backbone
        self.encoder = heads.encoder
        self.classifier = heads.classifier
        self.backward_encoder = heads.backward
        self.marginal = heads.marginal
        self.objective = objective
        self.configured = objective.configured
        self.samples = samples
        self.stochastic = objective.stochastic
        self.kernel_points = objective.kernel_images
        self.kernel_variance: Tensor | None
        # saved with the weights, so that a run that resumes within an epoch keeps it
        empty = torch.tensor(math.nan, dtype=torch.float64) if self.kernel_points else None
        self.register_buffer("kernel_variance", empty)

    def encode(self, images: Float[Tensor, "n c h w"]) -> Gaussian:
        """e(z|x) for images in [0, 1], in float32 even if the backbone runs under autocast.

        Raises:
            ModelError: the backbone does not give batch × features.
        """
        features = self.backbone(self.normalize(images))
        if not isinstance(features, Tensor):
            raise ModelError(
                f"The backbone gives {type(features).__name__}; a bottleneck needs one tensor, batch x features. Wrap "
                "the backbone in a module that returns its features alone."
            )
        if features.dim() != 2 or features.shape[0] != images.shape[0]:
            raise ModelError(
                f"The backbone gives {tuple(features.shape)} for {images.shape[0]} images; a bottleneck needs "
                "batch x features. End the backbone with pooling and a Flatten."
            )
        return gaussians_of(self.encoder, features)

    def decode(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any classes"]:
        """Logits of c(y|z)."""
        with torch.autocast(codes.device.type, enabled=False):
            return decision(codes, self.classifier, self.backward_encoder, self.log_prior)

    @property
    def noise_dim(self) -> int:
        """Numbers of noise per image and sample that :meth:`answer` takes."""
        return self.encoder.dim

    def answer(
        self, encoded: Gaussian, noise: Float[Tensor, "samples n noise_dim"]
    ) -> Float[Tensor, "samples n classes"]:
        """Logits of c(y|z) for codes drawn from e(z|x) with standard normal noise."""
        return self.decode(encoded.sample(noise))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Mean mode: logits of c(y|E z)."""
        return self.decode(self.encode(images).mean)

    def codes(self, images: Float[Tensor, "n c h w"], noise: Noise = None) -> Codes:
        """Encode a batch in [0, 1], draw ``samples`` codes for each image, and classify them.

        ``noise`` is the generator to draw from (None for torch's global one), or a share of a larger batch's noise.
        """
        encoded = self.encode(images)
        if not self.stochastic:
            samples = encoded.mean.unsqueeze(0)
            return Codes(samples, self.decode(samples), self.log_prior)
        mean = encoded.mean
        drawn = [
            standard_normal(noise, self.samples, len(mean), self.noise_dim, like=mean)
            for _ in range(1 + self.objective.uses_label_noise)
        ]
        return self.draw(encoded, *drawn)

    def draw(
        self,
        encoded: Gaussian,
        noise: Float[Tensor, "samples n noise_dim"],
        label_noise: Float[Tensor, "samples n dim"] | None = None,
    ) -> Codes:
        """Codes from e(z|x) and standard normal noise, with all densities that the model has."""
        samples = encoded.sample(noise)
        with torch.autocast(samples.device.type, enabled=False):  # densities are float32, also those of b and m
            codes = Codes(
                samples,
                decision(samples, self.classifier, self.backward_encoder, self.log_prior),
                self.log_prior,
                encoder=encoded,
                backward=self.backward_encoder() if self.backward_encoder is not None else None,
                label_noise=label_noise,
                kernel_variance=self.kernel_variance,
                noise=noise,
            )
            return codes if self.marginal is None else replace(codes, marginal=self.marginal(codes))

    def loss(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int[Tensor, "n"],
        rho: float | Rho | None = None,
        noise: Noise = None,
        gather: Gather | None = None,
    ) -> Terms:
        """The objective's terms on one batch, in nats; arguments as in :meth:`isthmus.models.learner.Learner.loss`."""
        with self.checked(images, labels):
            codes = self.codes(images, noise)
        with torch.autocast(images.device.type, enabled=False):
            if gather is not None:
                codes, labels = codes.whole(gather, self.marginal), gather(labels, 0)
            return self.objective.terms(codes, labels.long(), self.trade_off(rho))

    @torch.no_grad()
    def fit_kernel(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit the kernel width to the codes of these images under the current weights. Nothing else changes.

        In training mode, batch normalisation uses the statistics of these images and keeps its running statistics.

        Args:
            images: in [0, 1], at least two.

        Raises:
            ModelError: the objective has no kernel to fit.
        """
        if self.kernel_variance is None:
            raise ModelError("This model's objective has no kernel to fit to separate images (kernel_points).")
        kept = {name: value.clone() for name, value in self.named_buffers()}
        with torch.random.fork_rng(enabled=self.training):
            means = self.encode(images).mean
        for name, value in self.named_buffers():
            value.copy_(kept[name])
        self.kernel_variance.fill_(fit_kernel_variance(means))

    def fitted_beside(self) -> list[nn.Parameter]:
        """Parameters of a marginal that the objective does not minimise."""
        return list(self.marginal.parameters()) if self.marginal is not None and self.backward_encoder else []

    @torch.no_grad()
    def measure(
        self, images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"], noise: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, "n"]]:
        """Information quantities of a batch, one number per example, in nats; their means are the papers' quantities.

        See :func:`isthmus.information.measures.measure` for the names and which of them a model has. Bounds on I(X;Z)
        compare the images of the batch with one another, so the lower bound cannot exceed ln n. An audit reports the
        means with intervals.

        Args:
            images: in [0, 1].
            labels: class indices.
            noise: generator of the sampling noise (None for torch's global one).
        """
        codes = self.codes(images, noise)
        with torch.autocast(images.device.type, enabled=False):
            return measure(codes, labels.long())


def decision(
    codes: Float[Tensor, "*any dim"],
    classifier: nn.Module | None,
    backward: BackwardEncoder | None,
    log_prior: Float[Tensor, "classes"] | None,
) -> Float[Tensor, "*any classes"]:
    """Logits of c(y|z): the classifier's, or without one those of Bayes' rule, log b(z|y) + log p(y).

    The latter are shifted so that the largest is 0, where float32 is most precise.
    """
    if classifier is not None:
        logits: Tensor = classifier(codes)
        return logits
    assert backward is not None
    scores = backward().scores(codes)
    if log_prior is not None:
        scores = scores + log_prior
    consistent: Tensor = (scores - scores.detach().amax(-1, keepdim=True)).to(codes.dtype)
    return consistent
