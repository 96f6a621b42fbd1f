"""Stored results of the checks ``diagnosis`` and ``robustness`` in their real format, for any numbers."""

from __future__ import annotations

import numpy as np

from isthmus import metrics
from isthmus.core.types import CheckResult, Metric, Metrics, Status

TESTS = (
    *("outputs", "statefulness", "batch_dependence", "randomness", "gradients", "finite_differences", "loss_surface"),
    *("one_step", "restarts", "steps", "radius", "ensemble", "black_box"),
)
AT = {"mode": "mean", "norm": "linf", "eps": 0.1}


def diagnosis(
    status: str, reported: int, corrected: int, n: int = 100, *, claimed: bool = False, failed: tuple[str, ...] = ()
) -> CheckResult:
    """A verdict: this many of n examples are robust to the baseline attack (or claimed to be), and to all attacks."""
    robust = {"reported": np.arange(n) < reported, "corrected": np.arange(n) < corrected}
    found = {word: metrics.accuracy(flags) for word, flags in robust.items()}
    if claimed:
        found["reported"] = Metric(value=reported / n, unit="fraction", n=0, note="claimed")
        del robust["reported"]
    verdict = {
        "status": status,
        **{word: metric.value for word, metric in found.items()},
        **{f"{word}_metric": metric.model_dump(mode="json") for word, metric in found.items()},
        "reason": "a comparison; the model has no gradient" if status == "undecided" else "a comparison",
    }
    tests = [
        {"test": test, "status": "fail" if test in failed else "pass", "reason": f"What {test} found", "details": {}}
        for test in TESTS
    ]
    passes = {"forward": 10 * n, "backward": 5 * n, "ensemble": 0, "bound": 100 * n}
    mode = {"verdict": verdict, "tests": tests, "follow_ups": {}, "broken_by": {}, "passes": passes}
    return CheckResult(
        check="diagnosis",
        status=Status.PASS if status == "holds" else Status.FAIL,
        reason=f"{status}: {verdict['reason']}.",
        metrics=Metrics([metric.named(f"{word}_accuracy", **AT) for word, metric in found.items()]),
        details={"threat": "linf:0.1", "norm": "linf", "eps": 0.1, "verdict": verdict, "mode": "mean", "chance": 0.1}
        | {"modes": {"mean": mode}},
        options={"ensemble": None},
        arrays={f"{word}_robust": flags for word, flags in robust.items()},
    )


def robustness(images: np.ndarray, broken: tuple[int, ...], wrong: tuple[int, ...] = ()) -> CheckResult:
    """A robust accuracy with a gallery of these images: some broken at ε = 0.1, some misclassified, the rest robust."""
    n = len(images)
    robust = ~np.isin(np.arange(n), [*broken, *wrong])
    original = images[..., None]
    facts = [
        {
            "index": i,
            "label": i % 10,
            "clean_predicted": 8 if i in wrong else i % 10,
            "clean_confidence": 0.99,
            "predicted": 9 if i in broken else None,
            "confidence": 0.51 if i in broken else None,
            "eps": 0.1 if i in broken else None,
            "size": 0.098 if i in broken else None,
            "attack": "pgd" if i in broken else None,
        }
        for i in range(n)
    ]
    changed = np.isin(np.arange(n), broken)[:, None, None, None]
    accuracy = metrics.accuracy(robust)
    return CheckResult(
        check="robustness",
        status=Status.MEASURED,
        reason="Some are robust.",
        metrics=Metrics(
            [
                metrics.accuracy(np.ones(n, bool)).named("accuracy", mode="mean"),
                accuracy.named("robust_accuracy", **AT),
                accuracy.named("robust_accuracy", attack="pgd", **AT),
            ]
        ),
        details={
            "threat": "linf:0.1",
            "norm": "linf",
            "eps": [0.1],
            "attacks": {"pgd": {}},
            "mode": "mean",
            "modes": {"mean": {"passes": {}, "warning_signs": [], "rules": []}},
            "gallery": facts,
        },
        arrays={
            "gallery_original": original,
            "gallery_adversarial": np.clip(original.astype(int) + 20 * changed, 0, 255).astype(np.uint8),
            "smallest_eps": np.where(robust, np.inf, 0.1),
        },
    )
