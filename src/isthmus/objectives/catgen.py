"""CatGen: CEB whose classifier picks an example's label among the labels of the batch (Fischer 2020, §2.6.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.contrast import among_labels, infonce_bound
from isthmus.objectives.objective import InformationObjective, WeightName, report, report_rate, residual


class CatGen(InformationObjective):
    """CatGen CEB: ``ce + e^-ρ · ReX``, where ``ce`` picks among the batch's labels; only e and b are learned."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    uses_backward_encoder: ClassVar[bool] = True
    default_classifier: ClassVar[Literal["linear", "consistent"]] = "consistent"
    across_examples: ClassVar[bool] = True
    name: Literal["catgen"] = "catgen"
    rho: float = 3.0

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """mean[−log softmax_k b(z_i|y_k) at k = i + e^-ρ·(log e(z|x) − log b(z|y))], in nats.

        The first term is InfoNCE with log b as its critic: ln K minus its mean bounds I(Y;Z) from below and is at most
        ln K, for a batch of K. Accuracy is that of the consistent classifier, softmax_y [log b(z|y) + log p(y)].
        """
        assert codes.backward is not None
        ce = among_labels(codes.backward, codes.exact, labels).mean()
        information = residual(codes, labels, self.kl).mean()
        reported = report(codes, labels, ce) | {"i_yz_lower": infonce_bound(ce, len(labels))}
        return self.combined(rho, ce, information, **report_rate(codes, labels), **reported)
