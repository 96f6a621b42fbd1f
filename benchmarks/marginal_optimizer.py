"""How far a mixture m(z) stays above a refit when it is trained beside CEB, for several learning rates.

    OMP_NUM_THREADS=1 python -m benchmarks.marginal_optimizer --out results/benchmarks/marginal-optimizer.json

Nothing of a marginal reaches the encoder, so that one model of each seed is trained with all learning rates side by
side: each has a mixture of its own, which starts alike and sees the same codes at every step. Then the encoder is kept,
and the best of the mixtures is fitted further to codes of the training images, at 1e-2 and on to 0 along a cosine. The
excess is −E log m(z) less that of the refit, on codes of all test images, in nats.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

import isthmus
from isthmus.core import files, provenance
from isthmus.data.images import Examples, ImageData, as_float
from isthmus.data.loading import load
from isthmus.information.codes import Codes
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.marginals import MixtureMarginal

DIM, COMPONENTS, BATCH = 4, 240, 128


def batches(data: ImageData, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless random batches of training images."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        rows = torch.randint(len(data.train), (BATCH,), generator=generator)
        part = data.train.select(rows)
        yield as_float(part.images), part.labels


def encode(model: Bottleneck, images: Tensor, noise: torch.Generator) -> Codes:
    with torch.no_grad():
        return model.codes(images, noise)


def nll(marginal: nn.Module, codes: Codes) -> Tensor:
    loss: Tensor = -marginal(codes).log_prob(codes.exact.detach()).mean()
    return loss


def train(
    data: ImageData, rho: float, seed: int, steps: int, rates: Sequence[float]
) -> tuple[Bottleneck, dict[float, MixtureMarginal]]:
    """A CEB model and the mixtures beside it, by learning rate."""
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    objective = {"name": "ceb", "rho": rho}
    model = isthmus.bottleneck(
        backbone, 10, objective, DIM, features=256, options={"covariance": "full", "classifier": "mlp"}
    )
    start = MixtureMarginal(DIM, COMPONENTS)
    marginals = {rate: copy.deepcopy(start) for rate in rates}
    optimizers: list[optim.Optimizer] = [optim.Adam(model.parameters(), 1e-3)]
    optimizers += [optim.Adam(marginal.parameters(), rate) for rate, marginal in marginals.items()]
    noise = torch.Generator().manual_seed(seed)
    for _, (images, labels) in zip(range(steps), batches(data, seed), strict=False):
        codes = model.codes(images, noise)
        loss = model.objective(codes, labels, None).total + sum(nll(each, codes) for each in marginals.values())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return model, marginals


def refit(model: Bottleneck, marginal: MixtureMarginal, data: ImageData, seed: int, steps: int) -> MixtureMarginal:
    """The mixture after further steps on codes of a model that is done."""
    fitted = copy.deepcopy(marginal)
    optimizer = optim.Adam(fitted.parameters(), 1e-2)
    noise = torch.Generator().manual_seed(seed)
    for step, (images, _) in zip(range(steps), batches(data, seed + 1000), strict=False):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        nll(fitted, encode(model, images, noise)).backward()
        optimizer.step()
    return fitted


@torch.no_grad()
def judge(model: Bottleneck, marginals: list[MixtureMarginal], test: Examples, seed: int) -> list[float]:
    """−E log m(z) of each, on the same codes of all test images."""
    noise = torch.Generator().manual_seed(seed)
    sums = [0.0] * len(marginals)
    for rows in torch.split(torch.arange(len(test)), 1000):
        codes = encode(model, as_float(test.select(rows).images), noise)
        sums = [total + float(nll(each, codes)) * len(rows) for total, each in zip(sums, marginals, strict=True)]
    return [total / len(test) for total in sums]


def measure(data: ImageData, rho: float, seed: int, steps: int, rates: Sequence[float]) -> dict[str, Any]:
    model, marginals = train(data, rho, seed, steps, rates)
    at_once = judge(model, list(marginals.values()), data.test, seed)
    best = min(marginals, key=lambda rate: at_once[list(marginals).index(rate)])
    (fitted,) = judge(model, [refit(model, marginals[best], data, seed, steps)], data.test, seed)
    excess = {f"{rate:g}": value - fitted for rate, value in zip(marginals, at_once, strict=True)}
    print(f"rho {rho:g}, seed {seed}: refit {fitted:.3f},", {rate: round(value, 3) for rate, value in excess.items()})
    return {"rho": rho, "seed": seed, "refit": fitted, "excess": excess}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rhos", type=float, nargs="+", default=[0.0, 3.0])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    data = load({"name": "fashion_mnist"})
    rhos, rates = (" ".join(f"{value:g}" for value in values) for values in (given.rhos, given.rates))
    options = f"--rhos {rhos} --rates {rates} --seeds {given.seeds} --steps {given.steps}"
    content: dict[str, Any] = {
        "command": f"python -m benchmarks.marginal_optimizer {options}",
        "provenance": provenance.collect(),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "test": len(data.test)},
        "unit": "nats",
        "runs": [],
    }
    for rho in given.rhos:
        for seed in range(given.seeds):
            content["runs"].append(measure(data, rho, seed, given.steps, given.rates))
            if given.out is not None:
                files.write_json(given.out, content)


if __name__ == "__main__":
    main()
