"""Bidirectional CEB: codes from images that predict labels, and codes from labels that predict images.

Fischer 2020, §2.6.1.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes, among_labels, infonce_bound
from isthmus.information.gaussians import kl
from isthmus.objectives.objective import InformationObjective, WeightName, report, report_rate, residual


class BidirectionalCEB(InformationObjective):
    """CatGen's ``ce + e^-ρ · ReX``, plus the same from labels to images, with one ρ for both."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    uses_backward_encoder: ClassVar[bool] = True
    uses_label_noise: ClassVar[bool] = True
    default_classifier: ClassVar[Literal["linear", "consistent"]] = "consistent"
    across_examples: ClassVar[bool] = True
    name: Literal["bidirectional"] = "bidirectional"
    rho: float = 3.0

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """CatGen on z_X ~ e(z|x), plus mean[−log softmax_k e(z_Y|x_k) + e^-ρ·log b(z_Y|y)/e(z_Y|x)] on z_Y ~ b(z|y).

        ``ce`` and ``residual`` belong to z_X, ``reverse_ce`` and ``reverse_residual`` to z_Y; in nats.
        """
        assert codes.encoder is not None
        assert codes.backward is not None
        assert codes.label_noise is not None
        weight = self.weight(rho)
        ce = among_labels(codes.backward, codes.exact, labels).mean()
        information = residual(codes, labels, self.kl).mean()
        of_labels = codes.backward[labels].exact(codes.label_noise)
        reverse_ce = among_codes(codes.encoder, of_labels).mean()
        reverse = self._reverse_residual(codes, labels, of_labels).mean()
        reported = report(codes, labels, ce) | {"i_yz_lower": infonce_bound(ce, len(labels))}
        return Terms(
            total=self.total(ce + reverse_ce, information + reverse, weight),
            ce=ce,
            weight=weight,
            residual=information,
            reverse_ce=reverse_ce,
            reverse_residual=reverse,
            **report_rate(codes, labels),
            **reported,
        )

    def _reverse_residual(
        self, codes: Codes, labels: Int[Tensor, "batch"], samples: Float[Tensor, "samples batch dim"]
    ) -> Float[Tensor, "batch"]:
        """E[log b(z_Y|y) − log e(z_Y|x)] per example, an upper bound on I(Y;Z_Y|X)."""
        assert codes.encoder is not None
        assert codes.backward is not None
        assert codes.label_noise is not None
        backward = codes.backward[labels]
        if self.kl == "closed":
            return kl(backward, codes.encoder)
        own = backward.log_prob_of(codes.label_noise)
        return (own - codes.encoder.log_prob(samples)).mean(0).to(codes.samples.dtype)
