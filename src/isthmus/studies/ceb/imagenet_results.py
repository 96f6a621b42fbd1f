"""Reading the cells of the ImageNet studies: estimates over seeds, the chosen ρ, and the printed column beside each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from isthmus.metrics.corruption import CORRUPTIONS
from isthmus.studies.ceb.imagenet import VARIANTS
from isthmus.studies.ceb.printed import IMAGENET, ImageNetModel
from isthmus.studies.old.evidence import Estimate, difference, pooled
from isthmus.studies.old.image_models import healthy
from isthmus.studies.old.study import StudyRecord

NUMBERS = {
    "clean": "clean error",
    "mce": "mCE",
    "average": "average error under corruptions",
    "imagenet_a": "error on ImageNet-A",
    "pgd_l2": "error under PGD in ℓ2",
    "pgd_linf": "error under PGD in ℓ∞",
}
"""The summary numbers, by their names in cells and in :class:`isthmus.studies.ceb.printed.ImageNetModel`."""
ROWS = {
    **{name: NUMBERS[name] for name in ("clean", "mce", "average")},
    **{name: name.replace("_", " ") for name in CORRUPTIONS},
    **{name: NUMBERS[name] for name in ("imagenet_a", "pgd_l2", "pgd_linf")},
}
"""All rows of the printed tables, in their order."""
Cells = Sequence[Mapping[str, Any]]


def variants(record: StudyRecord) -> list[str]:
    """Ways of training that have a deterministic network and a CEB model that did not collapse."""
    return [name for name in VARIANTS if cells_at(record, name, None) and chosen(record, name) is not None]


def cells_at(record: StudyRecord, variant: str, rho: float | None) -> Cells:
    """Cells of one way of training, seed by seed, without collapsed runs; ρ None is the deterministic network."""
    return healthy(record, variant=variant, knob=rho)


def places(record: StudyRecord, variant: str) -> list[float]:
    """Values of ρ at which there are runs that did not collapse, ascending."""
    return sorted({cell["knob"] for cell in healthy(record, variant=variant, objective="ceb")})


def chosen(record: StudyRecord, variant: str) -> float | None:
    """The paper's ρ*: the best clean accuracy, made on the test set; of those within ``tie`` of it, the lowest."""
    errors = {rho: fmean(_values(cells_at(record, variant, rho), "clean")) for rho in places(record, variant)}
    limit = min(errors.values(), default=0.0) + float(record.config["tie"]) + 1e-9  # not to split hairs of rounding
    return next((rho for rho, error in sorted(errors.items()) if error <= limit), None)


def why(cells: Cells, name: str) -> str:
    """Why a number is not measured; "" where it is."""
    return next((cell["errors"][name]["why"] for cell in cells if "why" in cell["errors"][name]), "")


def error(cells: Cells, name: str, level: float = 0.95) -> Estimate | None:
    """Mean over seeds of a number; None where it is not measured. Its interval has both kinds of chance."""
    if not cells or why(cells, name):
        return None
    given = [cell["errors"][name] for cell in cells]
    measured = [(each["value"], each["low"], each["high"]) for each in given]
    return pooled(measured, given[0]["n"], level, highest=math.inf)


def gain(record: StudyRecord, variant: str, name: str, level: float = 0.95) -> Estimate | None:
    """By how much CEB at ρ* errs less than its baseline; None where either is not measured."""
    plain, ours = (error(cells_at(record, variant, rho), name, level) for rho in (None, chosen(record, variant)))
    return None if plain is None or ours is None else difference(plain, ours)


def _values(cells: Cells, name: str) -> list[float]:
    return [cell["errors"][name]["value"] for cell in cells]


def printed(depth: int, variant: str, bottleneck: bool) -> ImageNetModel | None:
    """The paper's column for a way of training; None for a depth that it did not train."""
    wanted = (depth, 2 if variant == "wide" else 1, variant != "plain", bottleneck)
    for model in IMAGENET.values():
        if (model.depth, model.width, model.autoaugment, model.rho is not None) == wanted:
            return model
    return None


def printed_value(model: ImageNetModel, row: str) -> float:
    """A number of a printed column, by its name in :data:`ROWS`."""
    return model.corruptions[row] if row in model.corruptions else float(getattr(model, row))
