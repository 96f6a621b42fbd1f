"""MeanSparse (Amini et al. 2024, arXiv:2406.05927) on a small network: AutoAttack, our suites and the verdict.

    python -m benchmarks.meansparse [--model trained-74] [--n 2000] [--alpha 0.3 ...] [--only fast verdict] [--out FILE]

``--only`` measures some of the parts again and keeps the others of FILE, from which the verdict then has its claim.

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
from collections.abc import Iterator, Sequence
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

PARTS = ("autoattack", "fast", "standard", "straight_through", "verdict")


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


def measured(name: str, alpha: float, n: int, only: Sequence[str], before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row, again after each part: AutoAttack, our suites, and the verdict on AutoAttack's robust accuracy."""
    model, threat = sparsified(name, alpha), isthmus.Linf(RADII[RECIPES[name].data])
    images, labels = test_images(name, n)
    row: dict[str, Any] = before | {"alpha": alpha, "n": n}
    for part in only:
        start = time.perf_counter()
        if part == "autoattack":
            counting = Counting(model)
            row[part] = measure(autoattack(counting, threat.eps), counting, images, labels, threat).accuracy
        elif part == "straight_through":
            adaptive = isthmus.robust_accuracy(straight_through(model), images, labels, threat, "fast")
            row[part] = isthmus.verify(adaptive, model).verified
        elif part == "verdict":
            verdict = isthmus.audit(model, images, labels, threat, ["diagnosis"], claimed=row["autoattack"]).verdict
            row[part] = verdict.model_dump(mode="json")
        else:
            found = isthmus.robust_accuracy(model, images, labels, threat, part)
            row |= {part: found.accuracy, "clean": found.clean_accuracy}
        row[f"{part}_seconds"] = time.perf_counter() - start
        yield row


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each α, print a line for each part, and put it into the file, in place of an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RECIPES, default="trained-74")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.25, 0.45])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    about = {"model": given.model, "threads": torch.get_num_threads(), "provenance": provenance.collect()}
    for alpha in given.alpha:
        rows = json.loads(given.out.read_text("utf-8"))["rows"] if given.out and given.out.exists() else []
        same = [old for old in rows if (old["alpha"], old["n"]) == (alpha, given.n)]
        others = [old for old in rows if old["alpha"] != alpha]
        before = same[0] if same and set(given.only) != set(PARTS) else {}
        for row in measured(given.model, alpha, given.n, given.only, before):
            Console().print({key: value for key, value in row.items() if key != "verdict"})
            if given.out is not None:
                files.write_json(given.out, about | {"rows": sorted([*others, row], key=lambda one: one["alpha"])})


if __name__ == "__main__":
    main()
