"""Which models of CIFAR-10 the papers show, chosen by accuracy on the test set, and whose attacks are tried on whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORT = {
    "determ": "Det.",
    "determ_bn": "Det. BN",
    "determ_pgd": "Det. PGD",
    "ceb": "CEB",
    "ceb_bn": "CEB BN ",
    "bidirectional": "CEB",
}
MADRY = "Madry"
Model = Mapping[str, Any]
"""A model's cell of the first stage."""


@dataclass(frozen=True)
class Pair:
    """Adversarial images of ``source``, tried on ``target``.

    Attributes:
        name: as figure 3 has it, "CEB5 ⇒ CEB0".
        source: a model's cell; None for the network of ``config.madry``.
    """

    name: str
    source: Model | None
    target: Model


def short(model: Model) -> str:
    """A model's name in figure 3: "CEB0" for ρ = 0, "Det." for the deterministic network."""
    knob = model["knob"]
    return SHORT[model["objective"]] + ("" if knob is None else f"{knob:g}")


def best_run(models: Sequence[Model]) -> Model | None:
    """The run with the best clean accuracy, the lower seed of equals: selected on the test set, as in the papers."""
    return min(models, key=lambda model: (-model["test_accuracy"], model["seed"]), default=None)


def pairs(models: Sequence[Model], family: str, madry: bool) -> list[Pair]:
    """Whose attacks are tried on the best run at the smallest ρ that trained.

    Those of the best run at the largest ρ, of another run at the smallest, of the deterministic network, and of an
    adversarially trained one, as far as they are there.

    Args:
        models: cells of models that did not collapse.
        family: of the bottlenecks.
        madry: whether there is an adversarially trained network.
    """
    ours = [model for model in models if model["objective"] == family]
    if not ours:
        return []
    low, high = (choose(model["knob"] for model in ours) for choose in (min, max))
    lowest = [model for model in ours if model["knob"] == low]
    target = best_run(lowest)
    assert target is not None
    highest = best_run([model for model in ours if model["knob"] == high]) if high > low else None
    again = best_run([model for model in lowest if model is not target])
    plain = best_run([model for model in models if model["objective"] == "determ"])
    found = [Pair(f"{short(model)} ⇒ {short(target)}", model, target) for model in (highest, plain) if model]
    if again:
        found.append(Pair(f"another {short(again)} ⇒ {short(target)}", again, target))
    if madry:
        found.append(Pair(f"{MADRY} ⇒ {short(target)}", None, target))
    return found
