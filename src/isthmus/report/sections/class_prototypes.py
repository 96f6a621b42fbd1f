"""Class prototypes (the reverse channel), their patterns enlarged, the means of their classes, and a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.core.display import Gallery, Headline, Picture, Section, Table
from isthmus.core.types import CheckResult
from isthmus.report.sections.common import (
    MEAN,
    STOCHASTIC,
    Results,
    Row,
    column,
    in_mode,
    label,
    with_metrics,
)

_ROW = 10  # pictures side by side
_TITLES = {
    "reached": "at full confidence",
    "steps": "steps",
    "distance": "distance from the mean",
    "relative_distance": "relative to images",
    "similarity": "similarity to the class's mean",
}


def section(results: Results) -> Section:
    """A gallery for each classifier, a table of all modes, and columns for similarity and distance."""
    shown = with_metrics(results)
    blocks: list[Gallery | Table] = [_gallery(name, result, len(shown) > 1) for name, result in shown.items()]
    if shown:
        blocks.append(_table(shown))
    similarity = column(shown, "similarity", mode=MEAN)
    columns = {
        "similarity of prototypes": similarity,
        "distance of prototypes, of an image's": column(shown, "relative_distance", mode=MEAN),
    }
    headlines = {
        name: Headline(metric, "similarity of prototypes to their class's mean") for name, metric in similarity.items()
    }
    question = "Which images maximise its class scores?"
    return Section("Class prototypes", question, tuple(blocks), columns, headlines)


def _gallery(name: str, result: CheckResult, several: bool) -> Gallery:
    classes, means = result.arrays["prototype_class"], result.arrays["class_means"]
    rows: list[tuple[str, tuple[Picture, ...]]] = []
    outside = []
    for mode in (MEAN, STOCHASTIC):
        if in_mode("prototypes", mode) not in result.arrays:
            continue
        images, steps, confidence = (
            result.arrays[in_mode(key, mode)][: len(means)]
            for key in ("prototypes", "prototype_steps", "prototype_confidence")
        )
        outside.append(((images < 0) | (images > 1)).mean())
        captions = [_caption(*each) for each in zip(classes, steps, confidence, strict=False)]
        title = "prototypes" if mode == MEAN else f"prototypes, {mode}"
        rows += _rows(title, [_clipped(image) for image in images], captions)
        patterns = [enlarged(image, result.details["mean"]) for image in images]
        rows += _rows("enlarged", [pattern for pattern, _ in patterns], [f"× {times:.2g}" for _, times in patterns])
    known = [(number, mean) for number, mean in zip(classes, means, strict=False) if not np.isnan(mean).any()]
    rows += _rows("means", [_clipped(mean) for _, mean in known], [f"class {number}" for number, _ in known])
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


def _rows(
    title: str, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    pictures = [Picture(image, caption) for image, caption in zip(images, captions, strict=True)]
    for start in range(0, len(pictures), _ROW):
        yield title if start == 0 else "", tuple(pictures[start : start + _ROW])


def _clipped(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image c×h×w as a picture, h×w×(1 or 3) bytes: clipped to [0, 1], NaN as black."""
    seen = image if image.shape[0] in (1, 3) else image[:1]
    drawn: NDArray[np.uint8] = np.rint(255 * np.nan_to_num(seen).clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return drawn


def enlarged(image: NDArray[np.float32], mean: Sequence[float]) -> tuple[NDArray[np.uint8], float]:
    """The difference from the mean, around grey, enlarged until its extreme is black or white; and the factor."""
    pattern = np.nan_to_num(image - np.asarray(mean, dtype=np.float32)[:, None, None])
    times = 0.5 / max(float(np.abs(pattern).max()), 1e-6)
    return _clipped(0.5 + times * pattern), times


def _table(shown: Results) -> Table:
    rows: list[Row] = []
    for name, result in shown.items():
        for mode, passes in result.details["passes"].items():
            found = [result.metrics.one(metric, mode=mode) for metric in _TITLES]
            images = result.metrics.one("image_similarity")
            rows.append((label(name, mode), *found, images, round(sum(passes) / found[0].n)))
    reading = (
        "Means over prototypes at full confidence. Similarity is a cosine, both sides less the mean of all pixels; for "
        "images it is taken with the mean of the others of their class. A prototype close to the mean and unlike its "
        "class is a fooling image."
    )
    columns = ("classifier", *_TITLES.values(), "similarity of images", "passes per prototype")
    return Table("From label to image", reading, columns, tuple(rows))
