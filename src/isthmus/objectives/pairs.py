"""Base of objectives on pairs (x, x'): CatGen, with the partners of the batch in place of labels.

Codes of pairs hold e(z|x) for every example and, in ``backward``, b(z|x') for every partner, so that the label of
example i is i.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import replace
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_codes, partner_logits
from isthmus.objectives.objective import InformationObjective, report, residual


class PairObjective(InformationObjective, ABC):
    """An objective on the codes of pairs, for :func:`isthmus.paired`."""

    uses_backward_encoder: ClassVar[bool] = True
    uses_label_noise: ClassVar[bool] = True

    def one_way(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None) -> Terms:
        """mean[−log softmax_k b(z_i|x'_k) at k = i + e^-ρ·(log e(z|x) − log b(z|x'))], in nats (Fischer 2020, §2.6.3).

        For a batch of K, ln K minus the first term's mean bounds I(X';Z) from below. ``accuracy`` is the fraction of
        examples whose partner is the most likely one.
        """
        assert codes.backward is not None
        ce = among_codes(codes.backward, codes.exact).mean()
        information = residual(codes, labels, self.kl).mean()
        return self.combined(rho, ce, information, **report(codes, labels, ce))

    def both_ways(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None) -> Terms:
        """The sum of :meth:`one_way` on z ~ e(z|x) and on z' ~ b(z|x') (Fischer 2020, §2.6.1).

        ``reverse_ce`` and ``reverse_residual`` belong to z', all other terms to z.
        """
        forward = self.one_way(codes, labels, rho)
        back = self.one_way(swapped(codes), labels, rho)
        return replace(forward, total=forward.total + back.total, reverse_ce=back.ce, reverse_residual=back.residual)


def swapped(codes: Codes) -> Codes:
    """Exchange examples and partners: z' ~ b(z|x'), with e(z'|x) as its backward encoder."""
    assert codes.encoder is not None
    assert codes.backward is not None
    assert codes.label_noise is not None
    noise = codes.label_noise
    logits = partner_logits(codes.encoder, codes.backward.exact(noise))
    samples = codes.backward.sample(noise)
    return Codes(samples, logits, encoder=codes.backward, backward=codes.encoder, noise=noise)
