"""What a look at the information plane costs: 2,000 examples and the six layers of a 784-512-256-128-64-32-2 MLP.

    python -m benchmarks.information_plane [--rounds 30] [--out results/benchmarks/information-plane.json]

On one thread, for ReLU and tanh: the plane from bins of equal mass, with and without the forward pass that gives the
activations, and of equal width; and from numpy's own quantiles, look-up and unique rows, which must find the same.
Medians over rounds, by the clock and in processor time; the two differ where others use the processors. The bar, 100
ms, is for the plane with its forward pass.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.core import files, provenance
from isthmus.information import discrete
from isthmus.information.binning import Binning, information_plane

EXAMPLES, WIDTHS = 2000, (784, 512, 256, 128, 64, 32, 2)
BAR = 100.0


def net(activation: nn.Module) -> list[nn.Sequential]:
    """Layer by layer; the last one is linear."""
    torch.manual_seed(0)
    pairs = itertools.pairwise(WIDTHS)
    return [nn.Sequential(nn.Linear(*pair), *[activation] * (pair[1] != WIDTHS[-1])) for pair in pairs]


@torch.no_grad()
def activations(layers: list[nn.Sequential], inputs: Tensor) -> dict[str, Tensor]:
    found = {}
    for number, layer in enumerate(layers, 1):
        inputs = found[f"layer {number}"] = layer(inputs)
    return found


def plain(layers: dict[str, Tensor], labels: np.ndarray) -> dict[str, tuple[float, float]]:
    """Bins of equal mass by numpy alone."""
    found = {}
    for name, layer in layers.items():
        rows = layer.numpy()
        shares = (-(-np.arange(1, 30) * rows.size // 30) - 0.5) / rows.size
        edges = np.unique(np.quantile(rows, shares, method="inverted_cdf"))
        words = np.unique(np.searchsorted(edges, rows), axis=0, return_inverse=True)[1].ravel()
        found[name] = (discrete.entropy(words), discrete.information(words, labels))
    return found


def milliseconds(look: Callable[[], Any], rounds: int) -> dict[str, float]:
    look()
    times = []
    for _ in range(rounds):
        start = time.perf_counter(), time.process_time()
        look()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
    return {"clock": round(clock, 2), "processor": round(processor, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/information-plane.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    inputs, labels = torch.rand(EXAMPLES, WIDTHS[0]), np.arange(EXAMPLES) % 2
    rows: list[dict[str, Any]] = []
    for activation in (nn.ReLU(), nn.Tanh()):
        mlp = net(activation)
        layers = activations(mlp, inputs)
        found = information_plane(layers, labels)
        for name, expected in plain(layers, labels).items():
            assert np.allclose(expected, (found[name].i_xt, found[name].i_ty), rtol=0, atol=1e-12), name
        looks: dict[str, Callable[[], Any]] = {
            "forward pass, equal mass": lambda: information_plane(activations(mlp, inputs), labels),  # noqa: B023
            "equal mass": lambda: information_plane(layers, labels),  # noqa: B023
            "equal width": lambda: information_plane(layers, labels, Binning(scheme="equal_width")),  # noqa: B023
            "equal mass, numpy alone": lambda: plain(layers, labels),  # noqa: B023
        }
        for name, look in looks.items():
            took = milliseconds(look, given.rounds)
            rows.append({"activation": type(activation).__name__, "look": name, "milliseconds": took})
            print(
                f"{type(activation).__name__:5} {name:24} {took['clock']:7.1f} ms  {took['processor']:7.1f} ms of CPU"
            )
    content = {
        "command": "python -m benchmarks.information_plane",
        "examples": EXAMPLES,
        "widths": WIDTHS,
        "rows": rows,
    }
    files.write_json(given.out, content | {"bar": BAR, "provenance": provenance.collect()})


if __name__ == "__main__":
    main()
