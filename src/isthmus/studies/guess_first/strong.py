"""What the paper did not ask: what a strong ensemble leaves of a model, and whether the robustness is real."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from isthmus.attacks.threats import Linf, parse
from isthmus.checks import Diagnosis
from isthmus.checks.context import Context
from isthmus.core.preserve_state import device_of
from isthmus.studies.guess_first.printed import L2, LINF
from isthmus.studies.guess_first.protocol import TableConfig
from isthmus.studies.guess_first.workshop import Workshop, about, model_of
from isthmus.studies.old.laboratory import Attacker, Subject
from isthmus.studies.store import Experiment, Tell

SIZES = {"linf": LINF, "l2": L2}


def ensemble(config: TableConfig, workshop: Workshop, name: str, seed: int) -> Experiment:
    """A suite at the tables' sizes: ``{"left": {"linf": {"eps": grid, "standing": images}, "l2": …}}``.

    What falls at one ε is not attacked again at a larger one: its witness lies in that ball, too.
    """
    given = about(config.recipe(name, seed), config, suite=config.suite, eps=SIZES)

    def make() -> dict[str, Any]:
        subject = workshop.subject(name, seed)
        attacker = Attacker(workshop.bench, subject, {**given, "mode": "mean"})
        left = {
            norm: workshop.bench.part(
                Experiment(
                    f"ensemble {norm} {name}", {**given, "norm": norm}, partial(_standing, attacker, config, norm)
                )
            )
            for norm in SIZES
        }
        return {**subject.facts, "trial": "ensemble", "left": left}

    return Experiment(f"{name}, seed {seed}, ensemble", given, make)


def _standing(attacker: Attacker, config: TableConfig, norm: str) -> dict[str, Any]:
    rows, found = torch.arange(len(attacker.subject.labels)), []
    for eps in SIZES[norm]:
        if len(rows):
            rows = rows[attacker.run(parse(f"{norm}:{eps}"), config.suite, rows).robust]
        found.append(len(rows))
    return {"eps": list(SIZES[norm]), "standing": found}


def verdict(config: TableConfig, workshop: Workshop, name: str, seed: int) -> Experiment:
    """The obfuscation battery at ℓ∞ 0.15, on some of the images.

    ``{"status": of the check, "verdict": holds, overstated or broken, "reported", "corrected": images that stand,
    "tests": {name: [status, reason]}, "follow_ups": {name: share left}, "reason"}``
    """
    asked = {"battery": LINF[0], "battery_images": config.battery_images, "suite": config.suite}
    given = about(config.recipe(name, seed), config, **asked, budget=config.budget)

    def make() -> dict[str, Any]:
        subject = workshop.subject(name, seed)
        return {**subject.facts, "trial": "verdict", **_diagnosed(config, subject, workshop.bench.telling("doubting"))}

    return Experiment(f"{name}, seed {seed}, verdict", given, make)


def _diagnosed(config: TableConfig, subject: Subject, tell: Tell) -> dict[str, Any]:
    model, some = model_of(subject), slice(config.battery_images)
    device = device_of(model, subject.images)
    context = Context(
        model=model,
        images=subject.images[some].to(device),
        labels=subject.labels[some].to(device),
        num_classes=len(subject.classes),
        threat=Linf(LINF[0]),
        indices=subject.indices[some],
        budget=config.budget,
        progress=tell,
    )
    found = Diagnosis(ensemble=config.suite, modes=("mean",)).run(context)
    (details,) = found.details["modes"].values()
    return {
        "n": len(context.labels),
        "status": found.status.value,
        "verdict": details["verdict"]["status"],
        "reported": int(found.arrays["reported_robust"].sum()),
        "corrected": int(found.arrays["corrected_robust"].sum()),
        "tests": {each["test"]: [each["status"], each["reason"]] for each in details["findings"]},
        "follow_ups": {each: metric["value"] for each, metric in details["follow_ups"].items()},
        "reason": found.reason,
    }
