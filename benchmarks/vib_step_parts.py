"""Where a VIB step with 12 samples of 256 dimensions spends its time outside the backbone, part by part, on one thread.

    python -m benchmarks.vib_step_parts [--out results/benchmarks/vib-step-parts.json]

Medians over 200 repetitions of each part alone, at batch 100 and 10 classes; the parts are nested as their names say.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.core import files, provenance
from isthmus.information.codes import Codes
from isthmus.information.gaussians import Gaussian, IdentityGaussian
from isthmus.models.gaussian_heads import INITIAL_STD, gaussian
from isthmus.objectives import VIB
from isthmus.objectives.objective import report

BATCH, DIM, SAMPLES, CLASSES = 100, 256, 12, 10


def milliseconds(part: Callable[[], Any], repetitions: int = 200) -> float:
    for _ in range(10):
        part()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        part()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def measure() -> dict[str, float]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(BATCH, 2 * DIM, requires_grad=True)
    decoder, labels = nn.Linear(DIM, CLASSES), torch.arange(BATCH) % CLASSES
    noise = torch.randn(SAMPLES, BATCH, DIM)
    marginal = IdentityGaussian(torch.zeros(DIM))

    def encode() -> Gaussian:
        return gaussian(raw, "diagonal", DIM, INITIAL_STD["diagonal"])

    def codes() -> Codes:
        encoder = encode()
        samples = encoder.sample(noise)
        return Codes(samples, decoder(samples), encoder=encoder, marginal=marginal, noise=noise)

    def head() -> None:
        encoder = encode()
        (encoder.mean.sum() + encoder.std.sum()).backward()

    def head_and_cross_entropy() -> None:
        codes().cross_entropy(labels).mean().backward()

    def whole_objective() -> None:
        VIB().terms(codes(), labels).total.backward()

    made, ce = codes(), torch.tensor(0.0)

    def reported() -> dict[str, Tensor]:
        return report(Codes(made.samples, made.logits, encoder=made.encoder, noise=noise), labels, ce)

    return {
        "draw the noise": milliseconds(lambda: torch.randn(SAMPLES, BATCH, DIM, generator=generator)),
        "head, forward and backward": milliseconds(head),
        "head, samples, decoder, cross-entropy, forward and backward": milliseconds(head_and_cross_entropy),
        "reported bounds and accuracy": milliseconds(reported),
        "whole objective, forward and backward, without drawing": milliseconds(whole_objective),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    given = parser.parse_args()
    parts = measure()
    for name, value in parts.items():
        print(f"{value:6.2f} ms  {name}")
    if given.out is not None:
        content = {"command": "python -m benchmarks.vib_step_parts", "milliseconds": parts}
        files.write_json(given.out, content | {"provenance": provenance.collect()})


if __name__ == "__main__":
    main()
