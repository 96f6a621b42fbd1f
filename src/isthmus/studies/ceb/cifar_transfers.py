"""Transfer attacks: adversarial images made on one model, tried on another.

Two kinds of images are tried at each ε: the witnesses that broke the source, and where PGD on the source ends after all
its steps. The first lie just across the source's boundary, since the engine stops there; the second are what the papers
transfer. What falls at one ε counts as fallen at the larger ones, as in every curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isthmus.attacks import pgd
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.attack import Attack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.threats import Threat, parse
from isthmus.attacks.transfer import transferred
from isthmus.core.config import Component
from isthmus.core.files import sha256
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.studies.ceb.cifar import CifarConfig
from isthmus.studies.ceb.cifar_choice import Model, Pair, pairs
from isthmus.studies.old.laboratory import Attacker, Laboratory, Subject
from isthmus.studies.store import Experiment


class Steps(Component):
    """PGD on another model, all its steps.

    Attributes:
        source: what identifies the other model.
    """

    name: Literal["surrogate"] = "surrogate"
    steps: int
    source: str


@dataclass(frozen=True)
class Surrogate:
    """PGD's last iterate on ``source``, whether or not it broke that: what papers call a transfer attack."""

    source: nn.Module

    def perturb(self, config: Steps, oracle: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """``steps`` steps of 4/3·ε/steps on the source's cross-entropy; the oracle's model is not asked."""
        source = CountedModel(self.source)
        size = pgd.Config(steps=config.steps, relative_step_size=4 / 3 / config.steps).size(threat.eps)
        x = threat.random_start(batch.images, batch.keys)
        with preserve_state(self.source, x.device, seed=0):
            for _ in range(config.steps):
                answer = source.query(x, batch.keys, lambda logits: batch.ascend("ce", logits))
                x = threat.project(threat.step(x, answer.gradient, size), batch.images)
        return x


def attack(source: nn.Module, steps: int, name: str) -> Attack:
    """A surrogate's attack; ``name`` identifies the source."""
    return Attack("surrogate", Steps(steps=steps, source=name), perturb=Surrogate(source).perturb)


def check(config: CifarConfig) -> None:
    """Look at the run that ``madry`` names before anything is trained.

    Raises:
        FileError: it is no run folder, or not finished.
    """
    if config.madry is not None:
        from isthmus.training.run import load

        load(Path(config.madry).expanduser())


def cells(config: CifarConfig, laboratory: Laboratory, trained: Sequence[Model]) -> list[Experiment]:
    """A cell for each pair of models (:func:`isthmus.studies.ceb.cifar_choice.pairs`).

    Raises:
        FileError: ``madry`` names no run folder.
    """
    found = []
    for pair in pairs(trained, config.families[0], config.madry is not None):
        about = {
            "transfer": pair.name,
            "source": _identity(config, pair.source),
            "target": _identity(config, pair.target),
            "images": config.images,
            "suite": config.pgd(),
            "eps": {"linf": config.linf, "l2": config.l2},
        }
        found.append(Experiment(f"transfer {pair.name}", about, partial(_measure, config, laboratory, pair, about)))
    return found


def _identity(config: CifarConfig, model: Model | None) -> Any:
    if model is not None:
        return config.recipe(model["objective"], model["knob"], model["seed"])
    from isthmus.training.run import Run

    assert config.madry is not None
    run = Run(Path(config.madry).expanduser())
    return {"run": str(run.path), "weights": (run.info().get("result") or {}).get("weights_sha256")}


def _measure(config: CifarConfig, laboratory: Laboratory, pair: Pair, about: dict[str, Any]) -> dict[str, Any]:
    """``{"transfer": name, "source", "target", "n": images, "curves": {norm: {"eps", "standing"}}}``."""
    target = _subject(laboratory, pair.target)
    curves = {}
    for norm, grid in (("linf", config.linf), ("l2", config.l2)):
        source = _source(config, laboratory, pair, target)
        curves[norm] = {"eps": list(grid), "standing": standing(laboratory, source, target, about, norm)}
    facts = ("objective", "knob", "seed")
    return {
        "transfer": pair.name,
        "source": pair.source and {name: pair.source[name] for name in facts},
        "target": {name: pair.target[name] for name in facts},
        "n": len(target.labels),
        "curves": curves,
    }


def _subject(laboratory: Laboratory, model: Model) -> Subject:
    return laboratory.subject(model["objective"], model["knob"], model["seed"])


def _source(config: CifarConfig, laboratory: Laboratory, pair: Pair, target: Subject) -> Subject:
    if pair.source is not None:
        return _subject(laboratory, pair.source)
    from isthmus.training.run import load

    assert config.madry is not None
    model = load(Path(config.madry).expanduser())
    return replace(target, modes={"mean": model.to(device_of(target.modes["mean"], target.images))})


def standing(laboratory: Laboratory, source: Subject, target: Subject, about: dict[str, Any], norm: str) -> list[int]:
    """How many of the target's images are still right at each ε, after the source's witnesses and its surrogate.

    Args:
        about: of the cell; its ``suite`` attacks the source, at its ``eps`` of this norm.
    """
    left, counts = torch.arange(len(target.labels)), []
    attacker = Attacker(laboratory.bench, source, {**about, "mode": "mean", "role": "source"})
    other = attack(source.modes["mean"], about["suite"][0]["steps"], sha256(repr(about["source"]).encode())[:16])
    for eps in about["eps"][norm]:
        if len(left):
            threat = parse(f"{norm}:{eps}")
            witnesses = transferred(attacker.run(threat, about["suite"], left))
            result = robust_accuracy(
                target.modes["mean"],
                target.images[left],
                target.labels[left],
                threat,
                [witnesses, other],
                indices=target.indices[left],
            )
            left = left[result.robust]
        counts.append(len(left))
    return counts
