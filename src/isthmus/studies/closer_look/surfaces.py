"""Figures 4 and 10: the loss around test images, for the CEB model that seems most robust.

Section 3.2: CE(x + u·d₁ + v·d₂) with d₁ the sign of PGD's worst perturbation, or random, and d₂ random
(:mod:`isthmus.attacks.loss_surface`); CIFAR-10, CEB with ρ = 2, the best of all seeds under AA+MT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Figure, Gallery, Picture, Series
from isthmus.core.types import Coordinate
from isthmus.studies.blocks import Block, Pivot
from isthmus.studies.claims import Claim
from isthmus.studies.closer_look.configs import OtherSurfacesConfig, SurfaceConfig
from isthmus.studies.estimates import percent
from isthmus.studies.quantities import select
from isthmus.studies.study import Study, StudyRecord

MOSTLY = 0.5
"""A surface is flat if more than this fraction of its diamond is; flatness is typical if more of the images have it."""
DIRECTIONS: Mapping[Coordinate, str] = {
    "worst": "towards PGD's worst perturbation",
    "random": "towards a random one",
}
_PIXELS = 6  # of a picture for each grid point


def _claims(_: SurfaceConfig) -> list[Claim]:
    return [
        Claim(
            f"Around most images the cross-entropy is flat {words}.",
            left=select("flat_images", direction=direction),
            right=MOSTLY,
            about="images for which it is within 0.01 nats of its own value in more than half of the diamond, of this "
            "one model",
            least_seeds=1,
            place="Section 3.2",
        )
        for direction, words in DIRECTIONS.items()
    ]


def _gallery(record: StudyRecord, config: SurfaceConfig) -> Iterator[Gallery]:
    for coords, found in record.details("surfaces"):
        rows: dict[str, tuple[Picture, ...]] = {}
        for one in found["pictures"]:
            name = f"{one['class']}, test image {one['index']}"
            rows[name] = (*rows.get(name, ()), _picture(one, found["offsets"], config.eps))
        yield Gallery(
            title=f"Cross-entropy around test images, seed {coords['seed']}",
            reading="The image is at the centre; the white diamond is the ball of radius ε. Along the horizontal axis "
            "the image moves as each caption says, along the vertical one in another random direction. Dark is low, "
            "bright is high, each picture on its own scale.",
            rows=tuple(rows.items()),
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
    from matplotlib import colormaps

    spread = loss.max() - loss.min()
    shade = (loss - loss.min()) / (spread if spread > 0 else 1.0)
    colours = np.asarray(colormaps["viridis"](shade.T[::-1])[..., :3])
    image = (255 * colours).round().astype(np.uint8).repeat(pixels, axis=0).repeat(pixels, axis=1)
    step = offsets[1] - offsets[0]
    fine = (np.arange(len(image)) + 0.5) / pixels * step + offsets[0] - step / 2
    border = np.abs(np.abs(fine)[:, None] + np.abs(fine)[None] - eps) < 0.15 * step
    image[border] = 255
    return image


def _flatness(record: StudyRecord, _: SurfaceConfig) -> Iterator[Figure]:
    for coords, found in record.details("surfaces"):
        series = []
        for direction, name in DIRECTIONS.items():
            values = sorted(found["flat"][direction])
            above = tuple(1 - position / len(values) for position in range(len(values)))
            series.append(Series(name, tuple(values), above, group=name))
        yield Figure(
            title=f"How flat the surfaces are, seed {coords['seed']}",
            reading=f"{len(found['flat']['worst']):,} test images that the model classifies correctly. A point: this "
            "fraction of the images has at least that fraction of its diamond within 0.01 nats of the cross-entropy at "
            "the image. A model that is truly robust is flat, too: read this beside the accuracy under AA+MT.",
            x_label="fraction of the diamond that is flat",
            y_label="fraction of the images",
            series=tuple(series),
            x_range=(0.0, 1.0),
            y_range=(0.0, 1.0),
        )


_BLOCKS: tuple[Block, ...] = (
    _gallery,
    _flatness,
    Pivot(
        title="The models to choose from",
        reading="Mean mode. The one with the highest accuracy under AA+MT is shown, as in the paper: a choice by the "
        "result.",
        rows=("seed",),
        columns={
            "clean": select("clean_accuracy", attack="ensemble"),
            "AA+MT": select("robust_accuracy", attack="ensemble"),
        },
    ),
)

_surfaces = partial(Study, measure="experiments:surfaces", claims=_claims, blocks=_BLOCKS)
STUDIES = (
    _surfaces(
        name="closer-look/figure-4",
        title="Figure 4: a loss surface of CEB on CIFAR-10",
        question="What does the loss look like around an image, for the CEB model that seems most robust? A truck.",
        config=SurfaceConfig,
    ),
    _surfaces(
        name="closer-look/figure-10",
        title="Figure 10: loss surfaces of CEB on CIFAR-10",
        question="What does the loss look like around an airplane, a frog and a deer?",
        config=OtherSurfacesConfig,
    ),
)
