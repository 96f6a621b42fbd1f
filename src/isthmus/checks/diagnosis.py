"""Is the robustness real? A battery of tests, what an expert would try next, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from isthmus import metrics
from isthmus.checks import diagnosis_page
from isthmus.checks.views import MEAN, STOCHASTIC, in_mode
from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metric, Section, Status

if TYPE_CHECKING:
    from torch import nn

    from isthmus.checks.context import Context
    from isthmus.diagnosis.diagnose import Diagnosis

_SEVERITY = {"holds": 0, "undecided": 1, "overstated": 2, "broken": 3}


ADVERSARIAL = "adversarial.safetensors"
"""File of an audit's folder with the adversarial examples of the mean mode, for ``isthmus verify``."""

OWN = ("ensemble", "sample", "passes", "seconds")
"""Options that replace the budget's."""


class Config(Component):
    """Options of the battery; what each test does is in the documentation.

    Attributes:
        ensemble: the strong suite; None for ``fast``, or ``standard`` with the full budget.
        sample: how many examples the tests get that ask more of each; None for 100, or 300.
        examples: how many of the audited examples, the first; None for all.
        modes: which modes of a bottleneck; all where None.
        passes: example-passes for each image, forward and backward, that are never exceeded in each mode; None for
            10,000, or 50,000 with the full budget. Where they do not suffice, the verdict says what was not tried.
        seconds: of time for each mode, likewise; what is tried then depends on the machine. None for no limit.
    """

    name: Literal["diagnosis"] = "diagnosis"
    ensemble: str | None = None
    sample: Annotated[int, Field(gt=0)] | None = None
    examples: Annotated[int, Field(gt=0)] | None = None
    modes: Annotated[tuple[Literal["mean", "stochastic"], ...], Field(min_length=1)] | None = None
    passes: Annotated[int, Field(gt=0)] | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


def run(context: Context, config: Config) -> CheckResult:
    """The verdict on the audit's threat, in mean and (if any) stochastic mode; the worse of the two counts.

    Passes where the reported robust accuracy holds and no test failed; warns where it holds although one did, or is
    undecided; fails where it is overstated or broken.

    Arrays, in mean mode and again with ``stochastic_`` before the name: ``reported_standing`` and
    ``corrected_standing`` bool[n], and ``broken`` int64[k] with ``witnesses`` float32[k, c, h, w], the positions of
    broken examples and their adversarial images.

    Progress is counted in example-passes, out of the most that there can be.

    Raises:
        ConfigError: an unknown suite, a budget that does not cover the clean images, or none of the modes that are
            asked about.
    """
    modes = {MEAN: context.model}
    if context.stochastic is not None:
        modes[STOCHASTIC] = context.stochastic
    modes = {mode: model for mode, model in modes.items() if config.modes is None or mode in config.modes}
    if not modes:
        raise ConfigError("The classifier has no stochastic mode to be doubted; leave out modes, or name mean.")
    found = {
        mode: _diagnosed(model, context, config, number, len(modes))
        for number, (mode, model) in enumerate(modes.items())
    }
    if context.folder is not None and MEAN in found:
        found[MEAN].result.save(context.folder / ADVERSARIAL)
    worst = max(found, key=lambda mode: _SEVERITY[found[mode].verdict.status])
    verdict = found[worst].verdict
    failed = any(finding.status == Status.FAIL for each in found.values() for finding in each.findings)
    told = {"holds": Status.WARN if failed else Status.PASS, "undecided": Status.WARN}
    status = told.get(verdict.status, Status.FAIL)
    reason = f"{verdict.status}: {verdict.reason}"
    if len(found) > 1:
        reason += f" ({worst} mode)"
    return CheckResult(
        check="diagnosis",
        status=status,
        reason=f"{reason}.",
        metrics={
            in_mode(name, mode): metric for mode, each in found.items() for name, metric in _metrics(each).items()
        },
        details={
            "threat": str(context.threat),
            "verdict": verdict.model_dump(mode="json"),
            "mode": worst,
            "chance": found[worst].chance,
            "modes": {mode: _details(each) for mode, each in found.items()},
        },
        arrays={in_mode(name, mode): array for mode, each in found.items() for name, array in _arrays(each).items()},
    )


def _diagnosed(model: nn.Module, context: Context, config: Config, mode: int, modes: int) -> Diagnosis:
    """What is found in one of so many modes."""
    from dataclasses import replace

    from isthmus.attacks.api import ready
    from isthmus.attacks.engine import inputs
    from isthmus.diagnosis.context import FULL, QUICK, DiagnosisContext
    from isthmus.diagnosis.diagnose import diagnose
    from isthmus.models.modes import AveragedDraws

    budget = QUICK if context.budget == "quick" else FULL
    chosen = {name: value for name in OWN if (value := getattr(config, name)) is not None}
    if isinstance(model, AveragedDraws):  # the average over draws is the judge's business here
        model = AveragedDraws(model.model, 1, context.seed).eval()
    ready(chosen.get("ensemble", budget.ensemble), context.threat.name)
    some = slice(config.examples)
    granted = replace(budget, **chosen)
    bound = granted.passes * len(context.labels[some])
    context.progress(mode * bound, modes * bound)
    suspect = DiagnosisContext(
        model,
        inputs.examples(
            context.images[some],
            context.labels[some],
            seed=context.seed,
            indices=None if context.indices is None else context.indices[some],
        ),
        context.threat,
        granted,
        remembers=context.remembers,
        seed=context.seed,
        tell=lambda passes: context.progress(mode * bound + passes, modes * bound),
    )
    return diagnose(suspect, context.claimed)


def _metrics(found: Diagnosis) -> dict[str, Metric]:
    verdict = found.verdict
    return {
        "reported_accuracy": verdict.reported_metric,
        "corrected_accuracy": verdict.corrected_metric,
        "clean_accuracy": metrics.accuracy(found.result.correct.numpy()),
    }


def _details(found: Diagnosis) -> dict[str, Any]:
    return {
        "verdict": found.verdict.model_dump(mode="json"),
        "findings": [finding.plain() for finding in found.findings],
        "follow_ups": {name: metric.model_dump(mode="json") for name, metric in found.follow_ups.items()},
        "broken_by": _counts(found),
        "passes": {
            "forward": found.forwards,
            "backward": found.backwards,
            "ensemble": found.ensemble,
            "bound": found.bound,
        },
    }


def _counts(found: Diagnosis) -> dict[str, int]:
    by = [label for label in found.result.broken_by if label is not None]
    return {label: by.count(label) for label in dict.fromkeys(by)}


def _arrays(found: Diagnosis) -> dict[str, NDArray[Any]]:
    result = found.result
    rows = result.broken.nonzero().squeeze(1)
    return {
        "reported_standing": found.usual.numpy(),
        "corrected_standing": result.robust.numpy(),
        "broken": rows.numpy(),
        "witnesses": result.adversarial[rows].numpy().astype(np.float32),
    }


def section(results: Mapping[str, CheckResult]) -> Section:
    """The verdict, the evidence for it, and what follow-ups left."""
    return diagnosis_page.section(results)
