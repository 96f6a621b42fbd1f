"""Experiments of figures 5, 6 and 7: linear classifiers of the toy problems (appendix, "Toy example"), as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from isthmus.core.files import sha256
from isthmus.core.randomness import example_keys, normal
from isthmus.core.types import Coordinate, Metric
from isthmus.data.toys import Gaussians, Intervals, Points, Rule
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.factory import bottleneck
from isthmus.objectives.objective import rate
from isthmus.studies.blocks import grouped
from isthmus.studies.closer_look.configs import SamplesConfig, ToyConfig, Vib
from isthmus.studies.closer_look.toys import MODES
from isthmus.studies.measured import fraction, measured
from isthmus.studies.store import Experiment, ResultStore, Stages, Tell

Toy = Intervals | Gaussians
_EVALUATED = "judged"  # purpose of the points on which all models are evaluated, whatever their seed


@dataclass(frozen=True)
class Problem:
    """A toy problem, its sets of points to evaluate on ("clean", ...), and the formulas that belong to them.

    Attributes:
        name: of the problem, in the names of experiments.
        sets: name -> points, and the formula from a linear rule to its accuracy there.
    """

    name: str
    toy: Toy
    sets: Mapping[str, tuple[Points, Callable[[Rule], float]]]


def intervals(points: int) -> Problem:
    """The problem of section 3.3: clean points, its rare points (appendix), and with x₂ moved by 1 (main text)."""
    toy = Intervals()
    clean, rare = toy.sample(points, _generator(_EVALUATED)), toy.rare(points, _generator(_EVALUATED, "rare"))
    sets = {
        "clean": (clean, toy.accuracy),
        "rare": (rare, toy.accuracy_on_rare),
        "shifted": (toy.shifted(clean), toy.accuracy_when_shifted),
    }
    return Problem("intervals", toy, sets)


def gaussians(points: int) -> Problem:
    """The problem of Tsipras et al. 2019, evaluated clean and with every Gaussian feature moved by 2η."""
    toy = Gaussians()
    clean = toy.sample(points, _generator(_EVALUATED))
    sets = {"clean": (clean, toy.accuracy), "attacked": (toy.attacked(clean), toy.accuracy_under_attack)}
    return Problem("gaussians", toy, sets)


def toys(config: ToyConfig, store: ResultStore) -> Stages:
    """Figure 5: every classifier of the first problem, trained and evaluated."""
    yield _experiments(intervals(config.points), config, store)


def gaussian_toys(config: ToyConfig, store: ResultStore) -> Stages:
    """Figure 7: the same of the second problem."""
    yield _experiments(gaussians(config.points), config, store)


def _experiments(problem: Problem, config: ToyConfig, store: ResultStore) -> list[Experiment]:
    """The deterministic classifier and one VIB for each β and offset in σ, with every seed."""
    vibs: list[Vib | None] = [None, *(Vib(beta, offset) for offset in config.std_offsets for beta in config.betas)]
    tell = store.telling("training")
    training = config.model_dump(mode="json", exclude={"betas", "std_offsets", "seeds"})

    def experiment(vib: Vib | None, seed: int) -> Experiment:
        kind = "determ" if vib is None else f"vib, beta {vib.beta:g}, offset {vib.offset:g}"
        about = {"problem": problem.name, "training": training, "vib": vib and vib._asdict(), "seed": seed}
        make = partial(measure, problem, config, vib, seed, tell)
        return Experiment(f"{problem.name}, {kind}, seed {seed}", about, make)

    return [experiment(vib, seed) for seed in range(config.seeds) for vib in vibs]


def measure(problem: Problem, config: ToyConfig, vib: Vib | None, seed: int, tell: Tell) -> dict[str, Any]:
    """Train one classifier and evaluate it on each set of points.

    Rows: accuracy by mode and set; of the linear rule of the mean mode, the accuracy by the closed form; the rate R on
    clean points, in nats. Details: that rule.

    Args:
        vib: None for the deterministic classifier.
        seed: of initial weights, training points and noise; points are the same for every ``vib``.
    """
    model = train(problem.toy, config, vib, seed, tell)
    rule = linear_rule(model, problem.toy.dim)
    modes = MODES[:1] if vib is None else MODES
    with torch.no_grad():
        rows = [
            fraction("accuracy", _right(model, mode, points), config.points, mode=mode, points=name)
            for mode in modes
            for name, (points, _) in problem.sets.items()
        ]
        if vib is not None:
            codes = model.codes(problem.sets["clean"][0].features, _generator(_EVALUATED, "rate"))
            nats = float(rate(codes, "closed").mean())
            rows.append(Metric(name="rate", value=nats, unit="nats", n=config.points))
    for name, (_, formula) in problem.sets.items():
        coords = {"points": name}
        rows.append(Metric(name="expected_accuracy", value=formula(rule), unit="fraction", n=1, coords=coords))
    details = {"rule": {"weights": [_rounded(weight) for weight in rule.weights], "bias": _rounded(rule.bias)}}
    return measured(rows, coords_of(vib, seed), details=details)


def coords_of(vib: Vib | None, seed: int) -> dict[str, Coordinate]:
    """Coordinates of a toy classifier."""
    if vib is None:
        return {"objective": "determ", "seed": seed}
    return {"objective": "vib", "beta": vib.beta, "std_offset": vib.offset, "seed": seed}


def samples(config: SamplesConfig, store: ResultStore) -> Stages:
    """Figure 6: points of the first problem, and how often each feature's sign is the label's."""

    def draw() -> dict[str, Any]:
        points = Intervals().sample(config.points, torch.Generator().manual_seed(config.seed))
        first, second = (points.features * points.signs.unsqueeze(1) > 0).sum(0).tolist()
        features = (points.features.double() * 1e4).round() / 1e4
        order = points.labels.argsort(stable=True)
        groups = grouped(features[order].tolist(), ("y = 1" if label else "y = −1" for label in points.labels[order]))
        rows = [fraction("sign_of_x1", first, config.points), fraction("sign_of_x2", second, config.points)]
        return measured(rows, {}, details={"points": {"": groups}})

    yield [Experiment("points", {"problem": "intervals", **config.plain()}, draw)]


def train(toy: Toy, config: ToyConfig, vib: Vib | None, seed: int, tell: Tell) -> Bottleneck:
    """A linear VIB with N(0, I) as marginal, or a linear deterministic classifier, on fresh points at every step.

    Decoders, and the whole deterministic classifier, begin at zero; encoders Glorot-uniform.
    """
    model = _untrained(toy.dim, config, vib, seed)
    optimizer = optim.SGD(model.parameters(), config.lr, momentum=config.momentum, nesterov=True)
    points, noise = _generator("points", str(seed)), _generator("noise", str(seed))
    for step in range(config.steps):
        batch = toy.sample(config.batch_size, points)
        codes = model.codes(batch.features, noise)
        loss = codes.cross_entropy(batch.labels).mean()
        if vib is not None:  # as objectives.vib, without the bounds that it reports at every step
            loss = loss + vib.beta * rate(codes, "closed").mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        tell(step + 1, config.steps)
    return model.eval()


def linear_rule(model: Bottleneck, dim: int) -> Rule:
    """The rule that a linear classifier follows in mean mode, by its logits at the origin and at the unit vectors."""
    with torch.no_grad():
        logits = model(torch.cat([torch.zeros(1, dim), torch.eye(dim)])).double()
    lead = logits[:, 1] - logits[:, 0]
    return Rule(tuple((lead[1:] - lead[0]).tolist()), float(lead[0]))


def _untrained(dim: int, config: ToyConfig, vib: Vib | None, seed: int) -> Bottleneck:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = bottleneck(
            nn.Identity(),
            num_classes=2,
            objective="deterministic" if vib is None else {"name": "vib", "rate_weight": vib.beta},
            dim=None if vib is None else config.dim,
            features=dim,
            options={"samples": config.samples, "encoder_std_offset": None if vib is None else vib.offset},
        )
    assert model.classifier is not None
    for parameter in model.classifier.parameters():
        nn.init.zeros_(parameter)
    return model


def _right(model: Bottleneck, mode: str, points: Points) -> int:
    if mode == "mean":
        predicted: Tensor = model(points.features).argmax(1)
    else:  # S codes a point, keyed, so that all models are evaluated with the same noise
        encoded = model.encode(points.features)
        keys = example_keys(0, torch.arange(len(points)))
        predicted = model.draw(encoded, normal(keys, (model.samples, encoded.dim)).transpose(0, 1)).predictions()
    return int((predicted == points.labels).sum())


def _rounded(number: float) -> float:
    """Six digits: as many as a float32 weight deserves."""
    return float(f"{number:.6g}")


def _generator(*purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(sha256("/".join(purpose).encode())[:15], 16))
