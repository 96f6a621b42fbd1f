"""What the studies of CEB share: families of models over ρ, and the attacks they are put to, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from isthmus.core.config import Frozen, Positive
from isthmus.studies.old.evidence import Estimate, share
from isthmus.studies.old.image_models import Eps, ImageConfig, Kind, healthy
from isthmus.studies.old.study import StudyRecord

FAMILIES = {
    "determ": "deterministic",
    "vib": "VIB",
    "ceb": "CEB",
    "bidirectional": "bidirectional CEB",
    "determ_bn": "deterministic, batch norm",
    "ceb_bn": "CEB, batch norm",
    "determ_pgd": "deterministic, adversarial training",
}


class Curve(Frozen):
    """An attack at one or several ε.

    Attributes:
        name: what cells and pages call it.
        eps: ascending, in units of images in [0, 1]. What is broken at one counts as broken at the larger ones.
        suite: name of a suite, or attacks.
        target: a class that images of other classes are to be taken for; None for any wrong class.
        images: attack the first of the judged images alone, class-balanced; None for all.
    """

    name: str
    norm: Literal["linf", "l2"]
    eps: Annotated[tuple[Eps, ...], Field(min_length=1)]
    suite: str | list[Any]
    target: Annotated[int, Field(ge=0)] | None = None
    images: Positive | None = None


class FamilyConfig(ImageConfig):
    """A deterministic network and bottlenecks of one architecture.

    Attributes:
        first_seed: where seeds begin, so that another machine can add more of them to a sweep.
        kl: how the information term is computed: "sampled" is the papers' own form, log-density ratios of the same
            samples that classify; "closed" has less variance where there is a closed form.
        rho_schedule: how training reaches a bottleneck's ρ: a name of
            :data:`isthmus.core.training_options.RHO_SCHEDULES`, or the options of
            :class:`isthmus.core.training_options.RhoSchedule`; None for this ρ from the first step. "jump_start"
            descends from ρ = 10 in 1,500 steps, or in two thirds of a shorter run. The papers say nothing of it for
            Fashion-MNIST; without it, models with ρ ≤ 1 are far from trained after some thousand steps.
        scheduled: bottlenecks with ρ up to this have the schedule.
    """

    departs: ClassVar[Mapping[str, Any]] = {"rho_schedule": None}

    modes: Annotated[tuple[Literal["mean", "stochastic"], ...], Field(min_length=1)] = ("mean",)
    first_seed: Annotated[int, Field(ge=0)] = 0
    kl: Literal["closed", "sampled"] = "sampled"
    rho_schedule: str | dict[str, Any] | None = "jump_start"
    scheduled: float = 1.0

    def recipe(self, kind: Kind, knob: float | None, seed: int) -> dict[str, Any]:
        """The recipe of one model, with the schedule of ρ if it has one."""
        recipe = super().recipe(kind, knob, seed)
        if knob is not None and knob <= self.scheduled and self.rho_schedule is not None:
            recipe["training"] = {**self.training, "rho_schedule": self.rho_schedule}
        return recipe

    def objective(self, kind: Kind, knob: float | None) -> Any:
        """ρ is the knob of every family."""
        return "deterministic" if kind == "determ" else {"name": kind, "rho": knob, "kl": self.kl}

    def models(self, seed: int) -> list[tuple[Kind, float | None]]:
        """The models of one seed."""
        raise AssertionError("a study says which models it trains")

    def every(self) -> list[tuple[Kind, float | None, int]]:
        """The models of all seeds. The first seed's come first: an interrupted study has all of them once."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return [(*model, seed) for seed in seeds for model in self.models(seed)]


class ChosenConfig(FamilyConfig):
    """Some bottlenecks, each with its ρ, beside the deterministic network.

    Attributes:
        bottlenecks: family and ρ of each.
    """

    bottlenecks: Annotated[tuple[tuple[Kind, float], ...], Field(min_length=1)]

    def models(self, seed: int) -> list[tuple[Kind, float | None]]:
        """The same for every seed, the deterministic one first."""
        return [("determ", None), *self.bottlenecks]


class SweepConfig(FamilyConfig):
    """A deterministic network and bottlenecks over ρ.

    Attributes:
        families: the bottlenecks.
        rhos: values of ρ, for each of them.
        repeated: those that are trained with every seed, the others with the first alone; None for all of them.
    """

    families: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("ceb",)
    rhos: Annotated[tuple[float, ...], Field(min_length=1)]
    repeated: tuple[float, ...] | None = None

    def curves(self) -> tuple[Curve, ...]:
        """The attacks that every model is put to."""
        raise AssertionError("a study says what it attacks with")

    def models(self, seed: int) -> list[tuple[Kind, float | None]]:
        """The models of one seed: the deterministic one, and each family over ρ."""
        again = self.rhos if seed == self.first_seed or self.repeated is None else self.repeated
        return [("determ", None), *((kind, rho) for rho in self.rhos if rho in again for kind in self.families)]


def named(kind: str, rho: float | None) -> str:
    """A model as pages name it: "CEB, ρ = 0"."""
    return FAMILIES[kind] if rho is None else f"{FAMILIES[kind]}, ρ = {rho:g}"


def cells_at(record: StudyRecord, kind: str, rho: float | None = None) -> list[Mapping[str, Any]]:
    """Cells of one way of training, seed by seed, without collapsed runs."""
    return healthy(record, objective=kind, knob=rho)


def places(record: StudyRecord, kind: str) -> list[float]:
    """Values of ρ at which a family has runs that did not collapse, ascending."""
    return sorted({cell["knob"] for cell in healthy(record, objective=kind) if cell["knob"] is not None})


def clean(cells: Sequence[Mapping[str, Any]], level: float = 0.95) -> Estimate:
    """Mean accuracy over seeds on the whole test set, in mean mode."""
    return share([round(cell["test_accuracy"] * cell["tested"]) for cell in cells], cells[0]["tested"], level)


def success(
    cells: Sequence[Mapping[str, Any]], curve: str, at: int = -1, mode: str = "mean", level: float = 0.95
) -> Estimate:
    """Mean over seeds of a targeted attack's success: images taken for the target, of all that were right before.

    As the papers count: of the original number of correct predictions, those on images of the target class included.
    Their number differs a little between seeds; the interval is that of its mean.
    """
    found = [cell["modes"][mode]["curves"][curve] for cell in cells]
    n = round(sum(each["right"] for each in found) / len(found))
    return share([min(n, round(n * each["reached"][at] / max(each["right"], 1))) for each in found], n, level)


def left(
    cells: Sequence[Mapping[str, Any]], curve: str, at: int = -1, mode: str = "mean", level: float = 0.95
) -> Estimate:
    """Mean over seeds of the accuracy that an untargeted attack leaves."""
    found = [cell["modes"][mode]["curves"][curve] for cell in cells]
    return share([each["standing"][at] for each in found], found[0]["n"], level)


def best(record: StudyRecord, kind: str) -> float | None:
    """The papers' choice of ρ: the best clean accuracy, and the lower ρ of equals.

    Accuracies are equal here that are printed alike, to a tenth of a percent. The choice is made on the test set, as in
    the papers.
    """
    grid = places(record, kind)
    if not grid:
        return None
    return min(grid, key=lambda rho: (-round(clean(cells_at(record, kind, rho)).value, 3), rho))
