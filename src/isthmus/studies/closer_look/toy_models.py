"""Training and judging the linear classifiers of the toy problems (appendix, "Toy example")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, optim

from isthmus.core.files import sha256
from isthmus.core.randomness import example_keys, normal
from isthmus.data.toys import Gaussians, Intervals, Points, Rule
from isthmus.models.bottleneck import Bottleneck
from isthmus.models.factory import bottleneck
from isthmus.objectives.objective import rate
from isthmus.studies.closer_look.toys import MODES, ToyConfig, Vib
from isthmus.studies.store import Experiment, ResultStore, Tell

Toy = Intervals | Gaussians
_JUDGED = "judged"  # the points that all models are judged on, whatever their seed


@dataclass(frozen=True)
class Problem:
    """A toy problem, its points to judge on under several names ("clean", ...), and the formulas that belong to them.

    Attributes:
        name: of the problem, in the names of cells.
        sets: name -> points, n of them.
        formulas: name -> from a linear rule to how often it is right there.
    """

    name: str
    toy: Toy
    sets: Mapping[str, Points]
    formulas: Mapping[str, Callable[[Rule], float]]


def intervals(points: int) -> Problem:
    """The problem of section 3.3, judged clean, on its rare points (appendix), and with x₂ moved by 1 (main text)."""
    toy = Intervals()
    clean = toy.sample(points, _generator(_JUDGED))
    sets = {"clean": clean, "rare": toy.rare(points, _generator(_JUDGED, "rare")), "shifted": toy.shifted(clean)}
    formulas = {"clean": toy.accuracy, "rare": toy.accuracy_on_rare, "shifted": toy.accuracy_when_shifted}
    return Problem("intervals", toy, sets, formulas)


def gaussians(points: int) -> Problem:
    """The problem of Tsipras et al. 2019, judged clean and with every Gaussian feature moved by 2η."""
    toy = Gaussians()
    clean = toy.sample(points, _generator(_JUDGED))
    return Problem(
        "gaussians",
        toy,
        {"clean": clean, "attacked": toy.attacked(clean)},
        {"clean": toy.accuracy, "attacked": toy.accuracy_under_attack},
    )


def cells(problem: Problem, config: ToyConfig, bench: ResultStore) -> list[Experiment]:
    """The deterministic classifier and one VIB for each β and offset in σ, with every seed."""
    vibs: list[Vib | None] = [None, *(Vib(beta, offset) for offset in config.std_offsets for beta in config.betas)]
    found, tell = [], bench.telling("training")
    training = config.model_dump(mode="json", exclude={"betas", "std_offsets", "seeds"})
    for seed in range(config.seeds):
        for vib in vibs:
            kind = "determ" if vib is None else f"vib, beta {vib.beta:g}, offset {vib.offset:g}"
            about = {"problem": problem.name, "training": training, "vib": vib and vib._asdict(), "seed": seed}
            make = partial(measure, problem, config, vib, seed, tell)
            found.append(Experiment(f"{problem.name}, {kind}, seed {seed}", about, make))
    return found


def measure(problem: Problem, config: ToyConfig, vib: Vib | None, seed: int, tell: Tell) -> dict[str, Any]:
    """Train one classifier and judge it.

    Args:
        vib: None for the deterministic classifier.
        seed: of initial weights, training points and noise; points are the same for every ``vib``.

    Returns:
        How many points are right, by mode and set; the linear rule of the mean mode and how often it is right by the
        closed form; and the rate R on clean points, in nats.
    """
    model = train(problem.toy, config, vib, seed, tell)
    rule = linear_rule(model, problem.toy.dim)
    modes = MODES[:1] if vib is None else MODES
    with torch.no_grad():
        right = {mode: {name: _right(model, mode, points) for name, points in problem.sets.items()} for mode in modes}
        codes = model.codes(problem.sets["clean"].features, _generator(_JUDGED, "rate"))
        nats = None if vib is None else float(rate(codes, "closed").mean())
    return {
        "objective": "determ" if vib is None else "vib",
        "beta": None if vib is None else vib.beta,
        "std_offset": None if vib is None else vib.offset,
        "seed": seed,
        "n": config.points,
        "right": right,
        "rule": {"weights": [_rounded(weight) for weight in rule.weights], "bias": _rounded(rule.bias)},
        "expected": {name: formula(rule) for name, formula in problem.formulas.items()},
        "rate": nats,
    }


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
    else:  # S codes a point, keyed, so that all models are judged with the same noise
        encoded = model.encode(points.features)
        keys = example_keys(0, torch.arange(len(points)))
        predicted = model.draw(encoded, normal(keys, (model.samples, encoded.dim)).transpose(0, 1)).predictions()
    return int((predicted == points.labels).sum())


def _rounded(number: float) -> float:
    """Six digits: as many as a float32 weight deserves."""
    return float(f"{number:.6g}")


def _generator(*purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(sha256("/".join(purpose).encode())[:15], 16))
