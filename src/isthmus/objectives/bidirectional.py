"""Bidirectional CEB: codes from images, and codes from labels, each of which tells the other (Fischer 2020, §2.6.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes, among_labels, label_information
from isthmus.information.gaussians import kl
from isthmus.objectives.terms import TradeOff, WeightName, rate_beside, report, residual, weighted_sum

PARTS = frozenset({"encoder", "backward", "label_noise"})


class Config(TradeOff):
    """Bidirectional CEB: CatGen's ``ce + e^-ρ · ReX``, and the same from labels to images; one ρ for both."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    classifier: ClassVar[str] = "consistent"
    across_examples: ClassVar[bool] = True
    name: Literal["bidirectional"] = "bidirectional"
    rho: float = 3.0


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """CatGen on z_X ~ e(z|x); plus, on z_Y ~ b(z|y), mean[−log softmax_k e(z_Y|x_k) + e^-ρ·log b(z_Y|y)/e(z_Y|x)].

    ``ce`` and ``residual`` are those of z_X, ``reverse_ce`` and ``reverse_residual`` those of z_Y; in nats.
    """
    assert codes.encoder is not None
    assert codes.backward is not None
    assert codes.label_noise is not None
    weight = config.weight(rho)
    ce = among_labels(codes.backward, codes.exact, labels).mean()
    information = residual(codes, labels, config.kl).mean()
    of_labels = codes.backward[labels].exact(codes.label_noise)
    reverse_ce = among_codes(codes.encoder, of_labels).mean()
    reverse = _reverse_residual(codes, labels, of_labels, config.kl).mean()
    reported = report(codes, labels, ce) | {"i_yz_lower": label_information(ce, len(labels))}
    return Terms(
        total=weighted_sum(config, ce + reverse_ce, information + reverse, weight),
        ce=ce,
        weight=weight,
        residual=information,
        reverse_ce=reverse_ce,
        reverse_residual=reverse,
        **rate_beside(codes, labels),
        **reported,
    )


def _reverse_residual(
    codes: Codes, labels: Int[Tensor, "batch"], samples: Float[Tensor, "samples batch dim"], kl_form: str
) -> Float[Tensor, "batch"]:
    """E[log b(z_Y|y) − log e(z_Y|x)] per example, at most I(Y;Z_Y|X) from above."""
    assert codes.encoder is not None
    assert codes.backward is not None
    assert codes.label_noise is not None
    backward = codes.backward[labels]
    if kl_form == "closed":
        return kl(backward, codes.encoder)
    own = backward.log_prob_of(codes.label_noise)
    return (own - codes.encoder.log_prob(samples)).mean(0).to(codes.samples.dtype)
