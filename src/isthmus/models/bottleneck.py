"""The bottleneck around a backbone: normalise, features, e(z|x), c(y|z), and b(z|y) and m(z) where there are any."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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
from isthmus.models.gaussian_heads import BackwardEncoder, Encoder
from isthmus.models.learner import Learner, Normalizer
from isthmus.models.noise import Noise, standard_normal

Objective = Callable[[Codes, Tensor, float | None], Terms]


class Bottleneck(Learner):
    """A classifier that passes only a code z from its backbone to its decision.

    ``forward`` is the mean mode, c(y|E z), from images in [0, 1] to logits; :class:`StochasticMode` averages samples.
    With a deterministic objective the code is the mean and there is no noise anywhere.

    Args:
        backbone: any module from images (normalised by ``normalize``) to features, batch × features.
        encoder: e(z|x) on those features.
        classifier: c(y|z), from codes (any leading dimensions × dim) to logits. None for the consistent classifier,
            softmax_y [log b(z|y) + log p(y)], which has no parameters of its own and needs ``backward``.
        objective: from codes, labels and an optional ρ to the terms of the loss.
        backward: b(z|y), where the objective or an audit wants one.
        marginal: m(z), a module from a batch's codes to a density.
        samples: how many codes are drawn per image in training and in the default stochastic mode.
        stochastic: False for deterministic codes.
        label_noise: draw noise for codes from b(z|y), too, in training.
        kernel_points: images that :meth:`fit_kernel` is to be given at the start of each epoch; 0 where the objective
            has no kernel that is fitted to separate images.
        normalize, log_prior: as :class:`isthmus.models.learner.Learner` takes them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        encoder: Encoder,
        classifier: nn.Module | None,
        objective: Objective,
        *,
        backward: BackwardEncoder | None = None,
        marginal: nn.Module | None = None,
        samples: int = 1,
        stochastic: bool = True,
        label_noise: bool = False,
        kernel_points: int = 0,
        normalize: Normalizer | None = None,
        log_prior: Float[Tensor, "classes"] | None = None,
    ) -> None:
        super().__init__(normalize, log_prior)
        self.backbone = backbone
        self.encoder = encoder
        self.classifier = classifier
        self.backward_encoder = backward
        self.marginal = marginal
        self.objective = objective
        self.samples = samples
        self.stochastic = stochastic
        self.label_noise = label_noise
        self.kernel_points = kernel_points
        self.kernel_variance: Tensor | None
        # saved with the weights, so that a run which resumes in the middle of an epoch keeps it
        self.register_buffer("kernel_variance", torch.tensor(math.nan, dtype=torch.float64) if kernel_points else None)

    def encode(self, images: Float[Tensor, "n c h w"]) -> Gaussian:
        """e(z|x) for images in [0, 1]. Densities leave in float32, whatever autocast does in the backbone.

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
        with torch.autocast(images.device.type, enabled=False):
            encoded: Gaussian = self.encoder(features.float() if features.dtype.itemsize < 4 else features)
        return encoded

    def decode(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any classes"]:
        """Logits of c(y|z)."""
        with torch.autocast(codes.device.type, enabled=False):
            return decision(codes, self.classifier, self.backward_encoder, self.log_prior)

    @property
    def noise_dim(self) -> int:
        """How many numbers of noise one answer takes, see :meth:`answer`."""
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

        ``noise`` is the generator to draw from, torch's global one where None, or a share of a larger batch's noise.
        """
        encoded = self.encode(images)
        if not self.stochastic:
            samples = encoded.mean.unsqueeze(0)
            return Codes(samples, self.decode(samples), self.log_prior)
        mean = encoded.mean
        drawn = [
            standard_normal(noise, self.samples, len(mean), self.noise_dim, like=mean)
            for _ in range(1 + self.label_noise)
        ]
        return self.draw(encoded, *drawn)

    def draw(
        self,
        encoded: Gaussian,
        noise: Float[Tensor, "samples n noise_dim"],
        label_noise: Float[Tensor, "samples n dim"] | None = None,
    ) -> Codes:
        """Codes from e(z|x) and standard normal noise, with everything the model says about them."""
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
        """The objective's terms on one batch, in nats; minimise ``terms.total``.

        Args:
            images: in [0, 1].
            labels: class indices.
            rho: replaces the objective's own trade-off, for schedules; with a warning if its options name one.
            noise: generator of the sampling noise (torch's global one where None), or a share of a larger batch's.
            gather: see :class:`isthmus.models.learner.Learner`.
        """
        with self.checked(images, labels):
            codes = self.codes(images, noise)
        with torch.autocast(images.device.type, enabled=False):
            if gather is not None:
                codes, labels = codes.whole(gather, self.marginal), gather(labels, 0)
            return self.objective(codes, labels.long(), self.trade_off(rho))

    @torch.no_grad()
    def fit_kernel(self, images: Float[Tensor, "n c h w"]) -> None:
        """Fit the kernel's width to the codes of these images, as the model encodes them now; nothing else changes.

        In training mode batch normalisation takes the statistics of these images, and leaves its running ones as they
        were.

        Args:
            images: in [0, 1], two at least.

        Raises:
            ModelError: the objective has no kernel that is fitted to separate images.
        """
        if self.kernel_variance is None:
            raise ModelError("This model's objective has no kernel that is fitted to separate images (kernel_points).")
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
        """What the codes of a batch say, one number per example, in nats; means are the papers' quantities.

        See :func:`isthmus.information.measures.measure` for the names and which of them a model has. Bounds on I(X;Z)
        compare the images of the batch with one another, so that the lower one cannot exceed ln n. An audit gives the
        means with intervals.

        Args:
            images: in [0, 1].
            labels: class indices.
            noise: generator of the sampling noise (torch's global one where None).
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
    """Logits of c(y|z): the classifier's, or without one those of Bayes' rule.

    These are log b(z|y) + log p(y), the largest of them moved to 0, since float32 has few digits left far from it.
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
