"""Class prototypes (the reverse channel), their patterns enlarged, the means of their classes, and a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Gallery, Picture, Section, Table
from isthmus.core.types import CheckResult
from isthmus.report.sections import common
from isthmus.report.sections.common import MEAN, STOCHASTIC, Cells, Results


def section(results: Results) -> Section:
    """A gallery for each classifier, a table of all modes, and columns for similarity and distance."""
    shown = common.with_metrics(results)
    galleries = [_gallery(name, result, len(shown) > 1) for name, result in shown.items()]
    columns = {
        "similarity of prototypes": common.column(shown, "similarity", mode=MEAN),
        "distance of prototypes, of an image's": common.column(shown, "relative_distance", mode=MEAN),
    }
    return Section(
        "Class prototypes",
        "Which images maximise its class scores?",
        (*galleries, _table(shown)) if shown else (),
        columns,
        common.headlines(shown, "similarity", "similarity of prototypes to their class's mean"),
    )


def _gallery(name: str, result: CheckResult, several: bool) -> Gallery:
    classes, means = result.arrays["prototype_class"], result.arrays["class_means"]
    rows: list[tuple[str, tuple[Picture, ...]]] = []
    outside = []
    for mode in (MEAN, STOCHASTIC):
        if common.in_mode("prototypes", mode) not in result.arrays:
            continue
        images, steps, confidence = (
            result.arrays[common.in_mode(key, mode)][: len(means)]
            for key in ("prototypes", "prototype_steps", "prototype_confidence")
        )
        outside.append(((images < 0) | (images > 1)).mean())
        captions = [_caption(*each) for each in zip(classes, steps, confidence, strict=False)]
        rows.append(
            ("prototypes" if mode == MEAN else f"prototypes, {mode}", tuple(map(common.picture, images, captions)))
        )
        rows.append(("enlarged", tuple(_enlarged(image, result.details["mean"]) for image in images)))
    averages = zip(classes, means, strict=False)
    known = [common.picture(mean, f"class {number}") for number, mean in averages if not np.isnan(mean).any()]
    rows += [("means", tuple(known))] if known else []
    reading = "Each started from faint noise around the images' mean. Enlarged: the difference from the mean, around "
    reading += "grey. Means: of the audited images of the same classes."
    if max(outside) > 0:
        reading += (
            f" {100 * max(outside):.2g}% of the pixels are outside [0, 1]; they are clipped in the pictures only."
        )
    return Gallery(f"Prototypes: {name}" if several else "Prototypes", reading, tuple(rows))


def _caption(number: int, steps: int, confidence: float) -> str:
    how = f"{steps} steps" if steps >= 0 else "not reached"
    return f"class {number}, p\u00a0=\u00a0{confidence:.3f}, {how}"


def _enlarged(image: NDArray[np.float32], mean: Sequence[float]) -> Picture:
    pattern, times = common.enlarged(image - np.asarray(mean, dtype=np.float32)[:, None, None])
    return common.picture(pattern, f"× {times:.2g}")


def _table(shown: Results) -> Table:
    reading = (
        "Means over prototypes at full confidence. Similarity is a cosine, both sides less the mean of all pixels; for "
        "images it is taken with the mean of the others of their class. A prototype close to the mean and unlike its "
        "class is a fooling image."
    )
    cells: Cells = {
        "at full confidence": common.measured("reached"),
        "steps": common.measured("steps"),
        "distance from the mean": common.measured("distance"),
        "relative to images": common.measured("relative_distance"),
        "similarity to the class's mean": common.measured("similarity"),
        "similarity of images": common.overall("image_similarity"),
        "passes per prototype": lambda result, mode: round(
            sum(result.details["passes"][mode]) / result.metrics.one("reached", mode=mode).n
        ),
    }
    return common.table("From label to image", reading, shown, cells)
