"""Is the robust accuracy genuine? Diagnostic tests, follow-up attacks, and a verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from isthmus import metrics
from isthmus.attacks.engine import inputs
from isthmus.attacks.suites import stages_of
from isthmus.checks.check import Check, arrays_of, metrics_of
from isthmus.checks.context import MEAN, STOCHASTIC, Context, Progress, single_draw
from isthmus.checks.security_curve import Outcome
from isthmus.core.types import CheckResult, Coordinate, Metric, Metrics, Status
from isthmus.diagnosis import diagnose
from isthmus.diagnosis.budget import FULL, QUICK
from isthmus.diagnosis.context import DiagnosisContext
from isthmus.diagnosis.verdict import Verdict

ADVERSARIAL = "adversarial.safetensors"
"""File in an audit's folder with the adversarial examples of the mean mode, for ``isthmus verify``."""

BUDGET_OPTIONS = ("ensemble", "sample", "passes", "seconds")
"""Options that replace the budget's."""

_SEVERITY = {"holds": 0, "undecided": 1, "overstated": 2, "broken": 3}


class Diagnosis(Check):
    """The verdict on robust accuracy at the audit's threat, in mean and (if any) stochastic mode; the worse one counts.

    The worse mode is that with the worse verdict, or of equal ones that with the lower corrected accuracy. The
    corrected accuracy is the robust accuracy of the audit: everything else shows the same number.

    Passes if the reported robust accuracy holds and no test failed. Warns if it holds although a test failed, or if it
    is undecided. Fails if it is overstated or broken.

    Metrics by mode, norm and eps: ``reported_accuracy`` and ``corrected_accuracy``; by mode: ``clean_accuracy``.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``correct``, ``reported_robust`` and
    ``corrected_robust`` bool[n]; for random predictions ``robust_one_evaluation`` and ``robust_confident`` (see
    :class:`isthmus.checks.Robustness`); and ``broken`` int64[k] with ``broken_by`` str[k] and ``adversarial``
    float32[k, c, h, w], the positions of broken examples, the attacks that broke them and the adversarial examples.

    Progress is counted in example-passes, out of the largest possible number.

    Attributes:
        ensemble: the strong suite; if None ``fast``, or ``standard`` with the full budget.
        sample: number of examples for the expensive tests; if None 100, or 300.
        examples: number of audited examples, the first; all if None.
        modes: which modes of a bottleneck; all if None.
        passes: most example-passes for each image, forward and backward, in each mode; if None 10,000, or 50,000 with
            the full budget. If they do not suffice, the verdict names what was not tried.
        seconds: most time for each mode; what is tried then depends on the machine. No limit if None.
    """

    above_chance: ClassVar[bool] = True

    name: Literal["diagnosis"] = "diagnosis"
    ensemble: str | None = None
    sample: Annotated[int, Field(gt=0)] | None = None
    examples: Annotated[int, Field(gt=0)] | None = None
    modes: Annotated[tuple[Literal["mean", "stochastic"], ...], Field(min_length=1)] | None = None
    passes: Annotated[int, Field(gt=0)] | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def run(self, context: Context) -> CheckResult:
        """Diagnose every mode.

        Raises:
            ConfigError: an unknown suite, a budget that does not cover the clean images, or none of the requested
                modes.
        """
        context = context.first(self.examples)
        found = context.by_mode(
            lambda model, progress: self._diagnosed(model, context, progress), self.modes or (MEAN, STOCHASTIC)
        )
        if context.folder is not None and MEAN in found:
            found[MEAN].result.save(context.folder / ADVERSARIAL)
        worst = max(found, key=lambda mode: _severity(found[mode].verdict))
        verdict = found[worst].verdict
        failed = any(test.status == Status.FAIL for each in found.values() for test in each.tests)
        statuses = {"holds": Status.WARN if failed else Status.PASS, "undecided": Status.WARN}
        mode = f" ({worst} mode)" if len(found) > 1 else ""
        return CheckResult(
            check=self.name,
            status=statuses.get(verdict.status, Status.FAIL),
            reason=f"{verdict.status}: {verdict.reason}{mode}.",
            metrics=Metrics(metrics_of({mode: _metrics(each, context) for mode, each in found.items()})),
            thresholds={"corrected_accuracy": verdict.reported},
            details={
                "threat": str(context.threat),
                "norm": context.threat.name,
                "eps": context.threat.eps,
                "verdict": verdict.model_dump(mode="json"),
                "mode": worst,
                "chance": found[worst].chance,
                "modes": {mode: _details(each) for mode, each in found.items()},
            },
            arrays=arrays_of({mode: _arrays(each) for mode, each in found.items()}),
        )

    def _diagnosed(self, model: nn.Module, context: Context, progress: Progress) -> diagnose.Diagnosis:
        """The diagnosis of one mode."""
        options = {name: value for name in BUDGET_OPTIONS if (value := getattr(self, name)) is not None}
        budget = replace(QUICK if context.budget == "quick" else FULL, **options)
        stages_of(budget.ensemble, context.threat.name)
        bound = budget.passes * len(context.labels)
        progress(0, bound)
        diagnosed = DiagnosisContext(
            single_draw(model, context.seed),
            inputs.examples(context.images, context.labels, seed=context.seed, indices=context.indices),
            context.threat,
            budget,
            stateful=context.stateful,
            seed=context.seed,
            progress=lambda passes: progress(passes, bound),
        )
        return diagnose.diagnose(diagnosed, context.claimed)


def _severity(verdict: Verdict) -> tuple[int, float]:
    """The order of modes: by the verdict's status, then by the corrected accuracy."""
    return _SEVERITY[verdict.status], -verdict.corrected


def _metrics(found: diagnose.Diagnosis, context: Context) -> list[Metric]:
    at: dict[str, Coordinate] = {"norm": context.threat.name, "eps": context.threat.eps}
    verdict = found.verdict
    return [
        verdict.reported_metric.named("reported_accuracy", **at),
        verdict.corrected_metric.named("corrected_accuracy", **at),
        metrics.accuracy(found.result.correct.numpy()).named("clean_accuracy"),
    ]


def _details(found: diagnose.Diagnosis) -> dict[str, Any]:
    return {
        "verdict": found.verdict.model_dump(mode="json"),
        "tests": [test.plain() for test in found.tests],
        "follow_ups": {name: metric.model_dump(mode="json") for name, metric in found.follow_ups.items()},
        "broken_by": Counter(label for label in found.result.broken_by if label is not None),
        "passes": {
            "forward": found.forward_passes,
            "backward": found.backward_passes,
            "ensemble": found.ensemble_passes,
            "bound": found.limit,
        },
    }


def _arrays(found: diagnose.Diagnosis) -> dict[str, NDArray[Any]]:
    result = found.result
    rows, labels = result.broken.nonzero().squeeze(1), result.broken_by
    rules = {f"robust_{rule}": flags for rule, flags in Outcome.of(result).rules.items()}
    return {
        **rules,
        "correct": result.correct.numpy(),
        "reported_robust": found.baseline_robust.numpy(),
        "corrected_robust": result.robust.numpy(),
        "broken": rows.numpy(),
        "broken_by": np.array([labels[row] or "" for row in rows.tolist()], dtype=str),
        "adversarial": result.adversarial[rows].numpy().astype(np.float32),
    }
