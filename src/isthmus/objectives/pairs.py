"""What objectives on pairs (x, x') share: CatGen, with the partners of the batch for its labels.

Codes of pairs hold e(z|x) for every example and in ``backward`` b(z|x') for every partner, so that the label of example
i is i.
"""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes, partner_logits
from isthmus.objectives.terms import TradeOff, report, residual, weighted_sum


def one_way(config: TradeOff, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None) -> Terms:
    """mean[−log softmax_k b(z_i|x'_k) at k = i + e^-ρ·(log e(z|x) − log b(z|x'))], in nats (Fischer 2020, §2.6.3).

    ln K less the first term's mean, for a batch of K, bounds I(X';Z) from below; ``accuracy`` is how often the own
    partner is the likeliest.
    """
    assert codes.backward is not None
    weight = config.weight(rho)
    ce = among_codes(codes.backward, codes.exact).mean()
    information = residual(codes, labels, config.kl).mean()
    return Terms(
        total=weighted_sum(config, ce, information, weight),
        ce=ce,
        weight=weight,
        residual=information,
        **report(codes, labels, ce),
    )


def both_ways(config: TradeOff, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None) -> Terms:
    """The sum of :func:`one_way` on z ~ e(z|x) and on z' ~ b(z|x') (Fischer 2020, §2.6.1).

    ``reverse_ce`` and ``reverse_residual`` are those of z', all other terms those of z.
    """
    forth = one_way(config, codes, labels, rho)
    back = one_way(config, swapped(codes), labels, rho)
    return replace(forth, total=forth.total + back.total, reverse_ce=back.ce, reverse_residual=back.residual)


def swapped(codes: Codes) -> Codes:
    """The partners as examples and the examples as partners: z' ~ b(z|x'), judged by e(z'|x)."""
    assert codes.encoder is not None
    assert codes.backward is not None
    assert codes.label_noise is not None
    noise = codes.label_noise
    logits = partner_logits(codes.encoder, codes.backward.exact(noise))
    samples = codes.backward.sample(noise)
    return Codes(samples, logits, encoder=codes.backward, backward=codes.encoder, noise=noise)
