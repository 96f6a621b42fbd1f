"""Attacking one model of a sweep along its curves: what its cell holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.attacks.threats import parse
from isthmus.core.preserve_state import device_of
from isthmus.core.randomness import example_keys
from isthmus.studies.ceb.sweeps import Curve, SweepConfig
from isthmus.studies.old.laboratory import Attacker, Laboratory, Trial
from isthmus.studies.store import Experiment

BATCH = 1000


def cells(config: SweepConfig, laboratory: Laboratory) -> list[Experiment]:
    """A cell for every model and seed."""
    trial = attacks(config.curves())
    return [laboratory.cell(*model, trial) for model in config.every()]


def attacks(curves: Sequence[Curve]) -> Trial:
    """``{"clean": images right, "curves": {name: see targeted and untargeted}}``."""

    def measure(attacker: Attacker) -> dict[str, Any]:
        right = correct(attacker)
        return {"clean": int(right.sum()), "curves": {curve.name: _kept(attacker, curve, right) for curve in curves}}

    return Trial("attacked", {"curves": [curve.plain() for curve in curves]}, measure)


def _kept(attacker: Attacker, curve: Curve, right: Tensor) -> dict[str, Any]:
    """One curve, kept by itself: a kill costs no more than it."""
    follow = untargeted if curve.target is None else targeted
    about = {**attacker.about, "curves": curve.plain()}
    return attacker.bench.part(Experiment(f"curve {curve.name}", about, lambda: follow(attacker, curve, right)))


def correct(attacker: Attacker) -> Tensor:
    """Which of the subject's images are right, bool, on the CPU."""
    subject, model = attacker.subject, attacker.model
    device, found = device_of(model, subject.images), []
    keyed = getattr(model, "takes_keys", False)
    with torch.no_grad():
        for start in range(0, len(subject.labels), BATCH):
            images = subject.images[start : start + BATCH].to(device)
            keys = {"keys": example_keys(0, subject.indices[start : start + BATCH]).to(device)} if keyed else {}
            found.append(model(images, **keys).argmax(1).cpu())
    return torch.cat(found) == subject.labels


def untargeted(attacker: Attacker, curve: Curve, right: Tensor) -> dict[str, Any]:
    """``{"n": images, "eps": …, "standing": how many stand at each ε}``.

    What falls at one ε is not attacked again at a larger one: its witness lies in that ball, too.
    """
    standing = torch.arange(len(right))[: curve.images]
    n, counts = len(standing), []
    for eps in curve.eps:
        if len(standing):
            result = attacker.run(parse(f"{curve.norm}:{eps}"), curve.suite, standing)
            standing = standing[result.robust]
        counts.append(len(standing))
    return {"n": n, "eps": list(curve.eps), "standing": counts}


def targeted(attacker: Attacker, curve: Curve, right: Tensor) -> dict[str, Any]:
    """``{"n": images, "right": right ones, "eligible": those of other classes, "reached": of these, at each ε}``."""
    judged = torch.arange(len(right))[: curve.images]
    judged = judged[right[judged]]
    holding = judged[attacker.subject.labels[judged] != curve.target]
    eligible, reached = len(holding), []
    for eps in curve.eps:
        if len(holding):
            result = attacker.run(parse(f"{curve.norm}:{eps}"), curve.suite, holding, curve.target)
            holding = holding[~result.broken]
        reached.append(eligible - len(holding))
    return {
        "n": len(torch.arange(len(right))[: curve.images]),
        "right": len(judged),
        "eligible": eligible,
        "eps": list(curve.eps),
        "reached": reached,
    }
