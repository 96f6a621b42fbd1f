"""What the studies of loss surfaces share: figures 4 and 10 of the paper differ in the test images they show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from pydantic import Field

from isthmus.core.config import Positive
from isthmus.core.types import Figure, Gallery, Picture, Section, Series, Table
from isthmus.studies import catalogue
from isthmus.studies.closer_look import cifar
from isthmus.studies.old.evidence import ClaimResult, Verdict, exceeds, percent, share
from isthmus.studies.old.study import StudyRecord

MOSTLY = 0.5
"""A share of the diamond, and of the images, from which on a surface counts as flat, and flatness as typical."""
DIRECTIONS = {"worst": "towards PGD's worst perturbation", "random": "towards a random one"}
SMALL: dict[str, Any] = {**cifar.SMALL, "warm_up": 2.0}
Classes = Annotated[tuple[str, ...], Field(min_length=1)]
_PIXELS = 6  # of a picture for each grid point


def tiny(*classes: str) -> dict[str, Any]:
    """Few images of digits on a coarse grid."""
    return {**cifar.TINY, "warm_up": 1.0, "classes": classes, "measured": 20, "grid": 6}


class SurfaceConfig(cifar.CifarConfig):
    """CEB with ρ = 2, of all seeds the one that AA+MT leaves most of.

    Attributes:
        classes: show the first test image of each that the model gets right.
        measured: how many test images the flatness is measured on.
        direction_starts: of the PGD whose worst perturbation gives the direction.
        grid: steps from the image to the diamond's corner.
    """

    kind: cifar.Bottleneck = "ceb"
    knobs: Annotated[tuple[float, ...], Field(min_length=1, max_length=1)] = (2.0,)
    reference: float = 2.0
    warm_up: float = 4.0
    classes: Classes
    measured: Positive = 100
    direction_starts: Positive = 10
    grid: Positive = 12


def _surfaces(record: StudyRecord) -> Mapping[str, Any] | None:
    return next(record.each(attack="surfaces"), None)


def findings(record: StudyRecord) -> list[ClaimResult]:
    """The paper's claim: the landscape is flat, so that gradients of the cross-entropy lead nowhere."""
    found = _surfaces(record)
    if found is None:
        reason = "Every model collapsed, so there is none to look at."
        return [ClaimResult(claim="The loss landscape is flat.", verdict=Verdict.UNDECIDED, reason=reason)]
    return [_flat(found, direction) for direction in DIRECTIONS]


def _flat(found: Mapping[str, Any], direction: str) -> ClaimResult:
    values = found["flat"][direction]
    flat = share([sum(value > MOSTLY for value in values)], len(values))
    return ClaimResult(
        claim=f"Around most images the cross-entropy is flat {DIRECTIONS[direction]}.",
        verdict=exceeds(flat, MOSTLY, least_seeds=1),
        reason=f"{flat} of the images have it within 0.01 nats of its own value in more than half of the diamond; "
        f"more than {percent(MOSTLY)} of the images counts. The claim is about this one model.",
    )


def section(record: StudyRecord, title: str) -> Section:
    """Heat maps, how flat all measured images are, and what the models' ranking was."""
    found = _surfaces(record)
    ranking, question = _ranking(record), catalogue.question(record.study)
    if found is None:
        return Section(title, question, (ranking,))
    return Section(title, question, (_gallery(found, record.config["eps"]), _flatness(found), ranking))


def _gallery(found: Mapping[str, Any], eps: float) -> Gallery:
    classes = dict.fromkeys((one["class"], one["index"]) for one in found["pictures"])
    rows = [
        (
            f"{name}, test image {index}",
            tuple(_picture(one, found["offsets"], eps) for one in found["pictures"] if one["index"] == index),
        )
        for name, index in classes
    ]
    return Gallery(
        title="Cross-entropy around test images",
        reading="The image is at the centre; the white diamond is the ball of radius ε. Along the horizontal axis the "
        "image moves as each caption says, along the vertical one in another random direction. Dark is low, bright is "
        "high, each picture on its own scale.",
        rows=tuple(rows),
    )


def _picture(one: Mapping[str, Any], offsets: list[float], eps: float) -> Picture:
    loss = np.array(one["loss"], dtype=float)
    caption = (
        f"{DIRECTIONS[one['direction']]}: {loss.min():.3g} to {loss.max():.3g} nats; {percent(one['flat'])} of the "
        f"diamond is flat; on its grid the model {'errs somewhere' if one['broken'] else 'is right throughout'}"
    )
    return Picture(heat_map(loss, np.array(offsets), eps), caption)


def heat_map(
    loss: NDArray[np.float64], offsets: NDArray[np.float64], eps: float, pixels: int = _PIXELS
) -> NDArray[np.uint8]:
    """A picture of a surface with the diamond |u| + |v| = ε drawn in white: uint8, side × side × 3.

    Args:
        loss: points × points; the first axis is u, which runs to the right, the second v, which runs upwards.
        offsets: u and v of the grid points, ascending.
    """
    spread = loss.max() - loss.min()
    shade = (loss - loss.min()) / (spread if spread > 0 else 1.0)
    colours = np.asarray(colormaps["viridis"](shade.T[::-1])[..., :3])
    image = (255 * colours).round().astype(np.uint8).repeat(pixels, axis=0).repeat(pixels, axis=1)
    step = offsets[1] - offsets[0]
    fine = (np.arange(len(image)) + 0.5) / pixels * step + offsets[0] - step / 2
    border = np.abs(np.abs(fine)[:, None] + np.abs(fine)[None] - eps) < 0.15 * step
    image[border] = 255
    return image


def _flatness(found: Mapping[str, Any]) -> Figure:
    series = []
    for direction, name in DIRECTIONS.items():
        values = sorted(found["flat"][direction])
        above = tuple(1 - position / len(values) for position in range(len(values)))
        series.append(Series(name, tuple(values), above, group=name))
    n = len(found["flat"]["worst"])
    return Figure(
        title="How flat the surfaces are",
        reading=f"{n:,} test images that the model gets right. A point says: so many images have at least this share "
        "of their diamond within 0.01 nats of the cross-entropy at the image. A model that is truly robust is flat, "
        "too: read this beside what AA+MT left.",
        x_label="share of the diamond that is flat",
        y_label="share of the images",
        series=tuple(series),
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def _ranking(record: StudyRecord) -> Table:
    found = _surfaces(record)
    rows = []
    for cell in record.each(attack="ensemble"):
        left, clean = (share([cell["modes"]["mean"][what]], cell["n"]).metric for what in ("left", "clean"))
        note = "shown" if found and found["seed"] == cell["seed"] else "collapsed" if cell["collapsed"] else ""
        rows.append((f"seed {cell['seed']}", note, clean, left))
    return Table(
        title="The models to choose from",
        reading="Mean mode. The one that AA+MT leaves most of is shown, as in the paper: a choice by the result.",
        columns=("model", "", "clean", "AA+MT"),
        rows=tuple(rows),
    )
