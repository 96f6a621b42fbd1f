"""MeanSparse (Amini et al. 2024, arXiv:2406.05927) on a small network: AutoAttack, our suites and the verdict.

    python -m benchmarks.meansparse [--model trained-74] [--n 2000] [--alpha 0.3 ...] [--out FILE]

MeanSparse replaces, before each activation of a trained network, every value within α standard deviations of its
channel's mean by that mean. There the gradient is zero, so gradient attacks see less than there is. RobustBench notes
that AutoAttack overstates such networks, and that an attack which passes gradients straight through finds more.
Needs a mirror of the hub (ISTHMUS_DATA).
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import isthmus
from benchmarks.attack_models import RADII, RECIPES, build, test_images
from benchmarks.peers import Counting, autoattack, measure
from isthmus.core import files, provenance
from isthmus.data.images import as_float
from isthmus.data.loading import load

CALIBRATION = 10_000
"""Training images from which the channels' means and standard deviations are computed."""


class MeanSparse(nn.Module):
    """Replace values within ``alpha`` standard deviations of their channel's mean by the mean.

    Attributes:
        straight_through: pass gradients as if nothing were replaced, for an attack that knows the defence.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.straight_through = False
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.dim() - 2)
        mean, std = self.mean.view(shape), self.std.view(shape)
        replaced = torch.where((x - mean).abs() <= self.alpha * std, mean, x)
        return x + (replaced - x).detach() if self.straight_through else replaced


def sparsified(name: str, alpha: float) -> nn.Module:
    """A trained network with MeanSparse before each ReLU, calibrated on training images layer by layer."""
    network = build(name)
    train = load(RECIPES[name].data).train
    x = as_float(train.images[:CALIBRATION])
    layers: list[nn.Module] = []
    with torch.no_grad():
        for layer in [*network.features, *network.classifier]:
            if isinstance(layer, nn.ReLU):
                sparse = MeanSparse(x.shape[1], alpha)
                dims = [0, *range(2, x.dim())]
                sparse.mean, sparse.std = x.mean(dims), x.std(dims)
                layers.append(sparse)
                x = sparse(x)
            layers.append(layer)
            x = layer(x.clone())
    return nn.Sequential(*layers).eval()


def straight_through(model: nn.Module) -> nn.Module:
    """A copy whose gradients pass through MeanSparse unchanged."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, MeanSparse):
            layer.straight_through = True
    return model


def measured(name: str, alpha: float, n: int) -> dict[str, Any]:
    """Clean accuracy, robust accuracy under AutoAttack, ``fast`` and ``standard``, and the verdict on AutoAttack's."""
    model, threat = sparsified(name, alpha), isthmus.Linf(RADII[RECIPES[name].data])
    images, labels = test_images(name, n)
    counting = Counting(model)
    peer = measure(autoattack(counting, threat.eps), counting, images, labels, threat)
    found: dict[str, Any] = {
        "alpha": alpha,
        "n": n,
        "clean": isthmus.robust_accuracy(model, images, labels, threat, "uniform:2").clean_accuracy,
        "autoattack": peer.accuracy,
        "autoattack_seconds": peer.seconds,
    }
    for suite in ("fast", "standard"):
        start = time.perf_counter()
        found[suite] = isthmus.robust_accuracy(model, images, labels, threat, suite).accuracy
        found[f"{suite}_seconds"] = time.perf_counter() - start
    adaptive = isthmus.robust_accuracy(straight_through(model), images, labels, threat, "fast")
    found["straight_through"] = isthmus.verify(adaptive, model).verified
    start = time.perf_counter()
    verdict = isthmus.audit(model, images, labels, threat, ["diagnosis"], claimed=peer.accuracy).verdict
    return found | {"audit_seconds": time.perf_counter() - start, "verdict": verdict.model_dump(mode="json")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each α, print a line for it, and put it into the file, in place of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RECIPES, default="trained-74")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.25, 0.45])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    about = {"model": given.model, "threads": torch.get_num_threads(), "provenance": provenance.collect()}
    for alpha in given.alpha:
        row = measured(given.model, alpha, given.n)
        Console().print(
            {k: v for k, v in row.items() if k != "verdict"}, row["verdict"]["status"], row["verdict"]["corrected"]
        )
        if given.out is not None:
            rows = json.loads(given.out.read_text("utf-8"))["rows"] if given.out.exists() else []
            rows = sorted([*(old for old in rows if old["alpha"] != alpha), row], key=lambda one: one["alpha"])
            files.write_json(given.out, about | {"rows": rows})


if __name__ == "__main__":
    main()
