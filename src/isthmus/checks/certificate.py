"""Certified lower bound on the robust accuracy of the mean mode."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from isthmus import metrics
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.evaluation import evaluate
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.result import RobustResult
from isthmus.attacks.threats import L2, Linf
from isthmus.certificates import CannotCertify, CertifiedResult, CertifyOptions, certify
from isthmus.certificates.methods import METHODS
from isthmus.certificates.network import read
from isthmus.checks.check import Check
from isthmus.checks.context import MEAN, Context
from isthmus.core.format import interval, percent, threat_title
from isthmus.core.types import CheckResult, Metrics, Status

CERTIFICATE = "certificate.safetensors"
"""File in an audit's folder with images and bounds, for ``isthmus verify``."""

DIAGNOSIS = "diagnosis"

SECONDS = {"quick": 2.0, "full": 20.0}
"""Time for each image by budget."""


class Certificate(Check):
    """Which examples provably have no adversarial image at the audit's threat, in mean mode.

    Examples that the check ``diagnosis`` broke in the same audit are not tried; without it only clean errors are
    broken. The others are certified by :func:`isthmus.certify`, from cheap to dear. A counterexample that an exact
    decision finds and the verifier confirms counts as broken here.

    Skipped if the model has a layer without sound bounds ("cannot certify: LAYER"), if it has more activations than
    ``most_activations`` ("not attempted"), and in ℓ1. A measurement without a threshold.

    Metrics by mode, norm and eps: ``certified_accuracy``, a lower bound on robust accuracy; ``robust_accuracy``, the
    upper bound of this audit; and ``undecided``, the fraction between them.

    Arrays: ``certified``, ``broken`` bool[n]; ``method`` str[n], what certified an example, "" if nothing; and
    ``margins`` float[n, classes − 1], lower bounds of the margin for each wrong class, −inf if there is none.

    Options that are None follow the audit's budget.

    Attributes:
        methods: names from :data:`isthmus.certificates.METHODS`.
        seconds_per_image: time for each image (2, or 20 with the full budget).
        most_activations: largest number of inputs of activations in the network.
    """

    uses: ClassVar[tuple[str, ...]] = (DIAGNOSIS,)
    above_chance: ClassVar[bool] = True

    name: Literal["certificate"] = "certificate"
    methods: Annotated[tuple[Literal["ibp", "crown-ibp", "crown", "alpha-crown", "milp"], ...], Field(min_length=1)] = (
        "ibp",
        "crown-ibp",
        "crown",
        "alpha-crown",
        "milp",
    )
    seconds_per_image: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    most_activations: Annotated[int, Field(gt=0)] = 20_000

    def run(self, context: Context) -> CheckResult:
        """Certify the examples."""
        if not isinstance(context.threat, Linf | L2):
            return self._skipped(f"not attempted: there are no bounds for {threat_title(str(context.threat))}")
        try:
            network = read(context.model, context.images)
            if network.activations > self.most_activations:
                return self._skipped(
                    f"not attempted: {network.layers} layers with {network.activations:,} activations; bounds are "
                    f"computed up to {self.most_activations:,} (option most_activations)"
                )
            options = CertifyOptions(
                methods=self.methods,
                seconds_per_image=self.seconds_per_image or SECONDS[context.budget],
                progress=context.progress,
            )
            found = certify(context.model, _attacked(context), options=options)
        except CannotCertify as error:
            return self._skipped(str(error))
        if context.folder is not None:
            found.save(context.folder / CERTIFICATE)
        return self._result(found)

    def _skipped(self, reason: str) -> CheckResult:
        return CheckResult(check=self.name, status=Status.SKIPPED, reason=f"{reason}.")

    def _result(self, found: CertifiedResult) -> CheckResult:
        lower, upper = found.lower, found.upper
        undecided = ~(found.certified | found.broken | found.invalid)
        reason = (
            f"Robust accuracy at {threat_title(str(found.threat))} is at least {percent(lower.value)}"
            f"{interval(lower)}, certified, and at most {percent(upper.value)} on these {len(found)} images; "
            f"{int(undecided.sum())} are undecided"
        )
        names = np.array(["", *found.methods])[(found.method + 1).numpy()]
        by_method = {name: int((names == name).sum()) for name in METHODS if name in found.methods}
        share = metrics.accuracy(undecided.numpy()).named("undecided", **lower.coords)
        return CheckResult(
            check=self.name,
            status=Status.MEASURED,
            reason=f"{reason}.",
            metrics=Metrics([each.named(each.name, mode=MEAN) for each in (lower, upper, share)]),
            details={
                "threat": str(found.threat),
                "norm": found.threat.name,
                "eps": found.threat.eps,
                "attacks": list(found.attacks),
                "certified_by": by_method,
                "seconds": round(float(found.seconds.sum()), 3),
            },
            arrays={
                "certified": found.certified.numpy(),
                "broken": found.broken.numpy(),
                "method": names,
                "margins": found.margins.numpy(),
            },
        )


def _attacked(context: Context) -> RobustResult:
    """The clean predictions, with the adversarial images of this audit's diagnosis."""
    examples = inputs.examples(context.images, context.labels, seed=context.seed, indices=context.indices)
    result = evaluate(context.model, examples, context.threat, [], options=RunOptions(progress=False))
    diagnosed = context.results.get(DIAGNOSIS)
    arrays: dict[str, Any] = {} if diagnosed is None else dict(diagnosed.arrays)
    if not {"broken", "adversarial"} <= set(arrays) or len(arrays["correct"]) > len(result):
        return result
    rows, images = torch.from_numpy(arrays["broken"]).long(), torch.from_numpy(arrays["adversarial"])
    state = result.state
    new = ~state.broken[rows]
    state.broken[rows[new]], state.adversarial[rows[new]], state.stage[rows[new]] = True, images[new], 1
    return replace(result, attacks=(*result.attacks, DIAGNOSIS), spent=(*result.spent, 0))
