"""Ours against torchattacks and foolbox at equal budgets, example by example: do the same examples break?

    python -m benchmarks.agreement [--models trained-53 mnist-03] [--n 500] [--only PEER ...] [--seeds 10] [--out FILE]

Each attack gets the steps (or queries) of its peer, and both sides' images are judged by the same code in float32.
Attacks in a ball are compared by the examples they leave standing, minimum-norm attacks by the size of what they find.
The packages draw different random starts, so that examples on the edge fall to one side and not to the other: ``bar``
allows ours to leave 0.3 points more standing, and ``chance`` says how often equal attacks would differ as much in the
peer's favour (a sign test over examples). Results are written after every comparison, into the file's earlier ones:
``--only`` and ``--models`` make some of them anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binom
from torch import Tensor

from benchmarks.attack_models import RADII, RECIPES, build, test_images
from benchmarks.attacks import environment
from benchmarks.peers import Counting, attack, measure
from isthmus.attacks import L2, Linf, robust_accuracy
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.minimal_norm import minimal_norms
from isthmus.attacks.threats import Threat
from isthmus.core import files

BATCH = 500
NOTES = {
    "torchattacks:pgd l2": "draws its start's distance from the image uniformly from 0 to ε; ours, like Foolbox's, is "
    "uniform in the ball, and so nearly at its surface. PGD from nearer the image is somewhat stronger.",
    "foolbox:pgd linf": "draws the very starts of torchattacks with the same seeds: no independent evidence.",
    "foolbox:cw l2": "returns a black image where it found nothing; not counted.",
}
"""Differences that are known, by peer and norm."""

L2_RADII = {"fashion_mnist": 1.0, "mnist": 2.0}
BAR = 0.3  # points of robust accuracy that ours may be above a peer's
LARGER = 1.02  # a distance that is at most so many times another counts as no larger


@dataclass(frozen=True)
class Pair:
    """One attack here and there.

    Attributes:
        peer: as :func:`benchmarks.peers.attack` calls it.
        steps: of the peer.
        ours: our attack with the same budget.
        norms: in which to compare.
        seeds: how many, from 0 up, to average over.
        most: examples, at most.
    """

    peer: str
    steps: int
    ours: dict[str, Any]
    norms: tuple[str, ...] = ("linf", "l2")
    seeds: int = 1
    most: int | None = None

    def seeded(self, seeds: int | None) -> Pair:
        """With another number of seeds, if given."""
        return self if seeds is None else replace(self, seeds=seeds)


IN_BALL = (
    Pair("torchattacks:pgd", 40, {"name": "pgd", "steps": 40}, seeds=4),
    Pair("foolbox:pgd", 40, {"name": "pgd", "steps": 40}, seeds=4),
    Pair("torchattacks:apgd-ce", 100, {"name": "apgd", "steps": 100}, seeds=2),
    Pair("torchattacks:apgd-dlr", 100, {"name": "apgd", "steps": 100, "loss": "dlr"}),
    Pair("torchattacks:apgd-t", 30, {"name": "apgd", "steps": 30, "loss": "dlr", "targets": 9}),
    Pair("torchattacks:fab-t", 20, {"name": "fab", "steps": 20, "targets": 9}),
    Pair("torchattacks:square", 1000, {"name": "square", "queries": 1000}),
)

_CW = {"name": "cw", "learning_rate": 0.01, "steps": 200}
DISTANCES = (
    Pair("foolbox:fmn", 100, {"name": "fmn", "steps": 100}),
    Pair("foolbox:ddn", 100, {"name": "ddn", "steps": 100}, ("l2",)),
    Pair("foolbox:cw", 1800, _CW | {"binary_search_steps": 9, "initial_const": 1e-3}, ("l2",), most=100),
    Pair("torchattacks:cw", 200, _CW | {"binary_search_steps": 1, "initial_const": 1.0}, ("l2",), most=100),
)


def threats(name: str) -> dict[str, Threat]:
    """The balls in which a model is attacked."""
    data = RECIPES[name].data
    return {"linf": Linf(RADII[data]), "l2": L2(L2_RADII[data])}


def standing(
    pair: Pair, model: Counting, images: Tensor, labels: Tensor, threat: Threat, seed: int
) -> tuple[Tensor, Tensor]:
    """Which examples ours leaves standing, and which the peer."""

    def ours(images: Tensor, labels: Tensor) -> Tensor:
        result = robust_accuracy(model.model, images, labels, threat, [pair.ours], BATCH, seed)
        return result.adversarial

    theirs = attack(pair.peer, model, threat, pair.steps, seed)
    return tuple(measure(run, model, images, labels, threat, BATCH).robust for run in (ours, theirs))  # type: ignore[return-value]


def in_ball(pair: Pair, model: Counting, images: Tensor, labels: Tensor, threat: Threat) -> dict[str, Any]:
    """Robust accuracy of both sides and where they differ; counts are means over the seeds."""
    both = [standing(pair, model, images, labels, threat, seed) for seed in range(pair.seeds)]
    ours, theirs = (torch.stack(side) for side in zip(*both, strict=True))
    points = 100 * (ours.double().mean() - theirs.double().mean()).item()
    return {
        "peer": pair.peer,
        "threat": str(threat),
        "steps": pair.steps,
        "ours": pair.ours,
        "seeds": list(range(pair.seeds)),
        "accuracy": ours.double().mean().item(),
        "peer_accuracy": theirs.double().mean().item(),
        "accuracy_by_seed": ours.double().mean(1).tolist(),
        "peer_accuracy_by_seed": theirs.double().mean(1).tolist(),
        "agree": (ours == theirs).double().mean().item(),
        "only_ours_breaks": (~ours & theirs).sum(1).double().mean().item(),
        "only_peer_breaks": (ours & ~theirs).sum(1).double().mean().item(),
        "points_above_peer": points,
        "chance": chance(ours.sum(0) - theirs.sum(0)),
        "met": points <= BAR + 1e-9,
    }


def chance(excess: Tensor) -> float:
    """P that as many examples favour the peer, of those that favour a side, if both were as likely (sign test)."""
    for_peer, differing = int((excess > 0).sum()), int((excess != 0).sum())
    return float(binom.sf(for_peer - 1, differing, 0.5))


def sizes(model: Counting, images: Tensor, labels: Tensor, found: Tensor, norm: Threat) -> Tensor:
    """‖δ‖ of each image found, ∞ where it is no adversarial image in the box.

    Nor is a black one: Foolbox's C&W returns it where it found nothing, and models take it for some class or other.
    """
    flat = found.flatten(1)
    valid = ((flat >= 0) & (flat <= 1)).all(1) & (flat > 0).any(1)
    with torch.no_grad():
        predicted = torch.cat([model.model(x).argmax(1) for x in found.nan_to_num(0.0).split(BATCH)])
    return norm.norm(found.double() - images.double()).masked_fill(~valid | (predicted == labels), torch.inf)


def distances(pair: Pair, model: Counting, images: Tensor, labels: Tensor, norm: Threat) -> dict[str, Any]:
    """Sizes of what both sides find, on the examples that are classified correctly."""
    with torch.no_grad():
        right = (model.model(images).argmax(1) == labels).nonzero().squeeze(1)[: pair.most]
    images, labels = images[right], labels[right]
    run = attack(pair.peer, model, norm, pair.steps)
    with torch.random.fork_rng():
        peers = torch.cat([run(*part).detach() for part in zip(images.split(BATCH), labels.split(BATCH), strict=True)])
    own = minimal_norms(
        model.model, images, labels, norm.name, [pair.ours], options=RunOptions(batch_size=BATCH)
    ).adversarial
    ours, theirs = (sizes(model, images, labels, found, norm) for found in (own, peers))
    return {
        "peer": pair.peer,
        "norm": norm.name,
        "steps": pair.steps,
        "ours": pair.ours,
        "examples": len(images),
        "median": finite(ours.median()),
        "peer_median": finite(theirs.median()),
        "not_found": int(ours.isinf().sum()),
        "peer_not_found": int(theirs.isinf().sum()),
        "no_larger": (ours <= LARGER * theirs).double().mean().item(),
        "peer_no_larger": (theirs <= LARGER * ours).double().mean().item(),
        "median_ratio": finite((ours / theirs).nanmedian()),
    }


def finite(number: Tensor) -> float | None:
    """A number for JSON, which has no infinities."""
    return number.item() if bool(number.isfinite()) else None


def compare(name: str, n: int, only: list[str] | None, seeds: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every comparison of one model as it is made, with the kind that it is of."""
    model = Counting(build(name))
    images, labels = test_images(name, n)
    for norm, threat in threats(name).items():
        for kind, pairs in (("in_ball", IN_BALL), ("distances", DISTANCES)):
            for pair in pairs:
                if norm not in pair.norms or (only and pair.peer not in only):
                    continue
                start = time.perf_counter()
                measured = in_ball if kind == "in_ball" else distances
                found = measured(pair.seeded(seeds), model, images, labels, threat)
                note = NOTES.get(f"{pair.peer} {norm}")
                yield kind, found | {"note": note, "seconds": time.perf_counter() - start}


def show(model: str, kind: str, found: dict[str, Any]) -> None:
    console = Console(width=150)
    if kind == "in_ball":
        console.print(
            f"{model} {found['threat']} {found['peer']}: ours {100 * found['accuracy']:.2f}%, theirs "
            f"{100 * found['peer_accuracy']:.2f}%, agree {100 * found['agree']:.1f}%, only ours breaks "
            f"{found['only_ours_breaks']:.1f}, only theirs {found['only_peer_breaks']:.1f}, met {found['met']}, "
            f"chance {found['chance']:.2f}"
        )
    else:
        console.print(
            f"{model} {found['norm']} {found['peer']}: medians {found['median']} and {found['peer_median']}, no larger "
            f"{100 * found['no_larger']:.1f}% (theirs {100 * found['peer_no_larger']:.1f}%), not found "
            f"{found['not_found']} and {found['peer_not_found']}"
        )


def table(models: dict[str, Any]) -> Table:
    made = Table(title="At equal budgets: points of robust accuracy, examples that one side alone breaks")
    for column in ("model", "threat", "peer", "ours", "theirs", "agree", "only ours", "only theirs", "chance", "bar"):
        made.add_column(column, justify="left" if column in ("model", "threat", "peer", "bar") else "right")
    for name, kinds in models.items():
        for found in kinds["in_ball"]:
            shares = (f"{100 * found[key]:.1f}%" for key in ("accuracy", "peer_accuracy", "agree"))
            only = (f"{found[key]:.1f}" for key in ("only_ours_breaks", "only_peer_breaks"))
            made.add_row(
                name,
                found["threat"],
                found["peer"],
                *shares,
                *only,
                f"{found['chance']:.2f}",
                "met" if found["met"] else "MISSED",
            )
    return made


def begun(path: Path, n: int) -> dict[str, Any]:
    """The file's results where they are of as many examples, else none yet."""
    if path.exists() and (results := files.read_json(path))["n"] == n:
        return dict(results)
    bar = {"points_above_peer": BAR, "no_larger": LARGER}
    return {"commands": [], "n": n, "bar": bar, "environment": environment(), "models": {}}


def enter(kept: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """In the place of an earlier result of the same peer in the same ball, or at the end."""

    def of(each: dict[str, Any]) -> tuple[str, str]:
        return each["peer"], each.get("threat") or each["norm"]

    places = [place for place, each in enumerate(kept) if of(each) == of(found)]
    if places:
        kept[places[0]] = found
    else:
        kept.append(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=["trained-53", "mnist-03"])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--only", nargs="+", choices=sorted({pair.peer for pair in IN_BALL + DISTANCES}))
    parser.add_argument("--seeds", type=int, help="so many, from 0 up, instead of each attack's own number")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/agreement.json"))
    given = parser.parse_args()
    results = begun(given.out, given.n)
    results["commands"].append(" ".join(["python -m benchmarks.agreement", *sys.argv[1:]]))
    for name in given.models:
        balls = {norm: threat.eps for norm, threat in threats(name).items()}
        kept = results["models"].setdefault(name, {"eps": balls, "in_ball": [], "distances": []})
        for kind, found in compare(name, given.n, given.only, given.seeds):
            enter(kept[kind], found)
            files.write_json(given.out, results)
            show(name, kind, found)
    Console(width=140).print(table(results["models"]))


if __name__ == "__main__":
    main()
