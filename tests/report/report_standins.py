"""Five stand-in classifiers in run folders, so that the page is tested on its own and without torch.

To look at their page: ``python -m tests.report.report_standins FOLDER``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from isthmus.core import files, results
from isthmus.core.results import AuditRecord
from isthmus.core.types import CheckResult, Interval, Metric, Metrics, Status

N = 360
COMMIT = "4f0c2f0e8b1d5a6c7e9f00112233445566778899"
MODELS = {  # name: (clean accuracy, how fast it falls with ε, rate in nats, ECE)
    "deterministic": (0.975, 14.0, None, 0.011),
    "vib-rho4": (0.972, 10.0, 6.4, 0.019),
    "vib-rho0": (0.931, 7.0, 2.6, 0.088),
    "ceb-rho4": (0.978, 9.0, 5.1, 0.024),
    "ceb-rho0": (0.958, 6.0, 2.4, 0.061),
}
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def fraction(value: float, name: str = "", **coords: str) -> Metric:
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-3) / N)
    interval = Interval(low=max(0.0, value - half), high=min(1.0, value + half), method="Wilson")
    return Metric(name=name, value=value, unit="fraction", n=N, interval=interval, coords=coords)


def nats(value: float, name: str) -> Metric:
    interval = Interval(low=value - 0.08, high=value + 0.08, method="bootstrap over examples")
    return Metric(name=name, value=value, unit="nats", n=N, interval=interval)


def accuracy(name: str) -> CheckResult:
    clean = MODELS[name][0]
    reason = f"{clean:.1%} of {N} are right, chance is 10%."
    return CheckResult(
        check="accuracy", status=Status.PASS, reason=reason, metrics=Metrics([fraction(clean, "accuracy")])
    )


def robustness(name: str, images: np.ndarray) -> CheckResult:
    clean, fall, rate, _ = MODELS[name]
    curves = {"mean": [clean * math.exp(-fall * eps * (0.4 + 4 * eps)) for eps in EPSILONS]}
    if rate:
        curves["stochastic"] = [min(1.0, 1.04 * y + 0.01) for y in curves["mean"]]
    left = curves["mean"][3]
    noise = np.random.default_rng(len(name)).normal(0, 40, images.shape)
    return CheckResult(
        check="robustness",
        status=Status.FAIL if left < 0.5 else Status.WARN if left < 0.6 else Status.PASS,
        reason=f"PGD leaves {left:.1%} right at ε = 0.1.",
        metrics=Metrics(fraction(curve[3], "robust_accuracy", mode=mode) for mode, curve in curves.items()),
        details={"curves": curves},
        arrays={"adversarial": np.clip(images + noise, 0, 255).astype(np.uint8)},
    )


def calibration(name: str) -> CheckResult:
    ece = MODELS[name][3]
    confidences = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
    return CheckResult(
        check="calibration",
        status=Status.PASS if ece < 0.05 else Status.WARN,
        reason=f"Confidence is off by {ece:.1%} on average.",
        metrics=Metrics([fraction(ece, "ece")]),
        details={"bins": [(c, min(1.0, c + 2 * ece)) for c in confidences]},
    )


def information(name: str) -> CheckResult:
    clean, _, rate, _ = MODELS[name]
    if rate is None:
        reason = "A deterministic classifier has no e(z|x) to measure."
        return CheckResult(check="information", status=Status.SKIPPED, reason=reason)
    missing = Metric(name="residual", value=None, unit="nats", n=N, note="no b(z|y)")
    residual = nats(rate - 2.2, "residual") if name.startswith("ceb") else missing
    metrics = Metrics([nats(rate, "rate"), nats(2.302 - 3 * (1 - clean), "relevance"), residual])
    return CheckResult(check="information", status=Status.MEASURED, reason="The bounds agree.", metrics=metrics)


def digits(count: int = 6) -> np.ndarray:
    from sklearn.datasets import load_digits

    return (load_digits().images[:count] * (255 / 16)).astype(np.uint8)


def provenance() -> dict[str, object]:
    return {
        "date": "2026-05-09T10:00:00+00:00",
        "python": "3.11.7",
        "packages": {"isthmus": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "lightning-fabric": None},
        "commit": COMMIT,
        "machine": {"system": "Linux", "processor": "x86_64", "cpus": 2},
    }


def recipe(name: str) -> dict[str, object]:
    kind, _, rho = name.partition("-rho")
    return {
        "name": name,
        "seed": 0,
        "data": {"name": "digits"},
        "model": {"backbone": {"name": "mlp", "hidden": [256, 256]}, "dim": 16, "covariance": "diagonal"},
        "objective": {"name": kind} | ({"rho": float(rho)} if rho else {}),
        "training": {"epochs": 20, "batch_size": 128, "optimizer": {"name": "adam", "lr": 0.001}},
    }


def training_line(name: str, epoch: int) -> dict[str, float]:
    clean, fall, rate, _ = MODELS[name]
    line = {
        "step": 11 * (epoch + 1),
        "epoch": epoch,
        "epoch_ce": 2.3 * math.exp(-epoch * fall / 30) + 1 - clean,
        "test_accuracy": clean * (1 - 0.9 * math.exp(-epoch * fall / 20)),
    }
    if rate:
        line |= {"epoch_rate": rate * (1 + math.exp(-epoch / 2)), "epoch_rate_lower": min(rate, 2.2)}
    return line


def write_run(root: Path, name: str, images: np.ndarray) -> Path:
    """Write one whole run folder, as training and audit leave it."""
    folder = root / name
    record = AuditRecord(
        model=name,
        model_hash=files.sha256(name.encode()),
        data="digits",
        data_hash="ab" * 32,
        n=N,
        num_classes=10,
        seed=0,
        settings={"threat": "linf:0.1", "budget": "quick"},
        provenance=provenance(),
    )
    results.save_record(folder / "audit", record)
    for result in (accuracy(name), robustness(name, images), calibration(name), information(name)):
        results.save_result(folder / "audit", result)
    data = {"name": "digits", "fingerprint": "cd" * 32, "train": 1437, "classes": list("0123456789")}
    run = {"recipe": recipe(name), "given": {}, "data": data, "starts": [provenance()], "status": "finished"}
    files.write_json(folder / "run.json", run)
    lines = [json.dumps(training_line(name, epoch)) + "\n" for epoch in range(20)]
    files.write_bytes(folder / "metrics.jsonl", "".join(lines).encode())
    return folder


def write_runs(root: Path) -> list[Path]:
    """Five run folders."""
    images = digits()
    return [write_run(root, name, images) for name in MODELS]


if __name__ == "__main__":
    import sys

    from isthmus.report import page, sections
    from tests.report import standin_checks

    sections.find = standin_checks.find
    print(page.write(write_runs(Path(sys.argv[1])), Path(sys.argv[1]) / "page.html"))
