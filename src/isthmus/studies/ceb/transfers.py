"""Transfer attacks: adversarial images of some CIFAR-10 models, tried on the best one at the smallest ρ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import PrivateAttr
from torch import Tensor, nn

from isthmus.attacks import PGD
from isthmus.attacks.api import robust_accuracy
from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.run_options import RunOptions
from isthmus.attacks.threats import Threat, parse
from isthmus.attacks.transfer import transferred
from isthmus.core.files import sha256
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.types import Coordinate, Metric
from isthmus.studies.ceb.cifar_configs import CifarConfig
from isthmus.studies.ceb.common import best_run
from isthmus.studies.image_models import ModelSpec
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.store import Experiment, ResultStore
from isthmus.studies.trained_models import Attacker, TrainedModel, trained
from isthmus.training.run import Run
from isthmus.training.run import load as load_run


class Finished(NamedTuple):
    """A model of the first stage.

    Attributes:
        robust: its robust accuracies under PGD.
    """

    model: ModelSpec
    accuracy: float
    collapsed: bool
    robust: tuple[Metric, ...]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Finished:
        """From the value of its experiment."""
        found = Measured.from_plain(value)
        coords: Mapping[str, Any] = found.metrics[0].coords
        (accuracy,) = (row.value for row in found.metrics if row.name == "test_accuracy")
        robust = tuple(
            row
            for row in found.metrics
            if row.name == "robust_accuracy" and (row.coords["attack"], row.coords["mode"]) == ("pgd", "mean")
        )
        model = ModelSpec(coords["objective"], coords.get("rho"), coords["seed"])
        return cls(model, float(accuracy or 0.0), found.collapsed, robust)


class Pair(NamedTuple):
    """Adversarial images of ``source``, tried on ``target``.

    Attributes:
        name: the coordinate ``source``: "largest rho", "deterministic", "another run" or "madry".
        source: None for the network of ``config.madry``.
    """

    name: str
    source: ModelSpec | None
    target: Finished


def pairs(healthy: Sequence[Finished], family: str, madry: bool) -> list[Pair]:
    """Sources of transfers to the best run at the smallest ρ that trained.

    Sources are the best run at the largest ρ, the deterministic network, another run at the smallest ρ, and an
    adversarially trained network; those that do not exist are left out.

    Args:
        family: of the bottlenecks.
        madry: whether there is an adversarially trained network.
    """
    runs = {run.model: run for run in healthy}
    accuracies = {model: run.accuracy for model, run in runs.items()}
    rhos = [model.parameter for model in runs if model.objective == family and model.parameter is not None]
    target = best_run(accuracies, family, min(rhos, default=None))
    if target is None or target.parameter is None:
        return []
    rest = {model: accuracy for model, accuracy in accuracies.items() if model != target}
    sources = {
        "largest rho": best_run(rest, family, max(rhos)) if max(rhos) > target.parameter else None,
        "deterministic": best_run(rest, "determ", None),
        "another run": best_run(rest, family, target.parameter),
    }
    found = [Pair(name, source, runs[target]) for name, source in sources.items() if source is not None]
    return [*found, Pair("madry", None, runs[target])] if madry else found


def transfer(config: CifarConfig, store: ResultStore, pair: Pair) -> Experiment:
    """The accuracy of the target under transfers at each ε, beside that under PGD on itself."""
    about = {
        "transfer": pair.name,
        "source": _identity(config, pair.source),
        "target": config.recipe(pair.target.model),
        "images": config.images,
        "suite": config.pgd(),
        "eps": {"linf": config.linf, "l2": config.l2},
    }

    def measure() -> dict[str, Any]:
        target = trained(config, store, pair.target.model)
        source = _source(config, store, pair.source, target)
        rows = [row.named("direct_accuracy") for row in pair.target.robust]
        for norm in ("linf", "l2"):
            grid = about["eps"][norm]
            counts = transfer_counts(Attacker(store, source, target.data, about), target, norm)
            n = len(target.data)
            rows += [
                fraction("transfer_accuracy", count, n, norm=norm, eps=eps)
                for eps, count in zip(grid, counts, strict=True)
            ]
        coords: dict[str, Coordinate] = {"source": pair.name}
        return measured(rows, {**pair.target.model.coords(), **coords})

    return Experiment(f"transfer from {pair.name}", about, measure)


def _identity(config: CifarConfig, model: ModelSpec | None) -> Any:
    if model is not None:
        return config.recipe(model)
    assert config.madry is not None
    run = Run(Path(config.madry).expanduser())
    return {"run": str(run.path), "weights": (run.info().get("result") or {}).get("weights_sha256")}


def _source(config: CifarConfig, store: ResultStore, model: ModelSpec | None, target: TrainedModel) -> nn.Module:
    if model is not None:
        return trained(config, store, model).modes["mean"]
    assert config.madry is not None
    network = load_run(Path(config.madry).expanduser())
    return network.to(device_of(target.modes["mean"], target.data.images))


def transfer_counts(source: Attacker, target: TrainedModel, norm: str) -> list[int]:
    """Images that the target classifies correctly at each ε under both kinds of the source's images.

    One kind is the adversarial examples of the source, which lie just across its boundary, since the engine stops
    there. The other is PGD's last iterates, as in the papers. An image broken at one ε counts as broken at larger ones.
    """
    data, about = target.data, source.about
    left, counts = torch.arange(len(data)), []
    attacker = Attacker(source.store, source.model, data, {**about, "mode": "mean", "role": "source"})
    other = surrogate(source.model, about["suite"][0]["steps"], sha256(repr(about["source"]).encode())[:16])
    for eps in about["eps"][norm]:
        if len(left):
            threat = parse(f"{norm}:{eps}")
            found = transferred(attacker.run(threat, about["suite"], left))
            result = robust_accuracy(
                target.modes["mean"],
                data.images[left],
                data.labels[left],
                threat,
                [found, other],
                options=RunOptions(indices=data.indices[left]),
            )
            left = left[result.robust]
        counts.append(len(left))
    return counts


class Surrogate(SingleShotAttack):
    """PGD's last iterate on another model, adversarial there or not; papers call this a transfer attack.

    Attributes:
        steps: of PGD, of size 4/3·ε/steps each.
        source: identifies the other model.
    """

    name: Literal["surrogate"] = "surrogate"
    steps: int
    source: str
    _model: nn.Module | None = PrivateAttr(None)

    def perturb(self, counted_model: CountedModel, batch: Batch, threat: Threat) -> Float[Tensor, "n c h w"]:
        """PGD on the other model's cross-entropy; the attacked model is not queried."""
        assert self._model is not None, "made by surrogate()"
        source = CountedModel(self._model)
        size = PGD(steps=self.steps, relative_step_size=4 / 3 / self.steps).size(threat.eps)
        x = threat.random_start(batch.images, batch.keys)
        with preserve_state(self._model, x.device, seed=0):
            for _ in range(self.steps):
                answer = source.query(x, batch.keys, lambda logits: batch.ascend("ce", logits))
                x = threat.project(threat.step(x, answer.gradient, size), batch.images)
        return x


def surrogate(source: nn.Module, steps: int, name: str) -> Surrogate:
    """The attack of a surrogate; ``name`` identifies it."""
    attack = Surrogate(steps=steps, source=name)
    attack._model = source
    return attack
