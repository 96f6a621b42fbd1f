"""How the page shows the reverse channel: prototypes, their patterns enlarged, the means of their classes, a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.checks.views import MEAN, STOCHASTIC, column, in_mode, measured
from isthmus.core.types import CheckResult, Gallery, Headline, Metric, Picture, Section, Table

_ROW = 10  # pictures side by side
_TITLES = {
    "reached": "at full confidence",
    "steps": "steps",
    "distance": "distance from the mean",
    "relative_distance": "relative to images",
    "similarity": "similarity to the class's mean",
}


def section(results: Mapping[str, CheckResult]) -> Section:
    """A gallery for each classifier, a table of all modes, and columns for similarity and distance."""
    shown = measured(results)
    blocks: list[Gallery | Table] = [_gallery(name, result, len(shown) > 1) for name, result in shown.items()]
    if shown:
        blocks.append(_table(shown))
    similarity = column(shown, "similarity")
    columns = {
        "similarity of prototypes": similarity,
        "distance of prototypes, of an image's": column(shown, "relative_distance"),
    }
    headlines = {
        name: Headline(metric, "similarity of prototypes to their class's mean") for name, metric in similarity.items()
    }
    question = "What does the classifier send back, from a label to an image?"
    return Section("Reverse channel", question, tuple(blocks), columns, headlines)


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
        said = "prototypes" if mode == MEAN else f"prototypes, {mode}"
        rows += _rows(said, [_clipped(image) for image in images], captions)
        patterns = [enlarged(image, result.details["mean"]) for image in images]
        rows += _rows("enlarged", [pattern for pattern, _ in patterns], [f"× {times:.2g}" for _, times in patterns])
    known = [(label, mean) for label, mean in zip(classes, means, strict=False) if not np.isnan(mean).any()]
    rows += _rows("means", [_clipped(mean) for _, mean in known], [f"class {label}" for label, _ in known])
    reading = "Each began as faint noise around the images' mean. Enlarged: what has grown, around grey. "
    reading += "Means: of the audited images of the same classes."
    if max(outside) > 0:
        reading += f" {100 * max(outside):.2g}% of the pixels left [0, 1]; they are cut for show, not in the numbers."
    return Gallery(f"Prototypes: {name}" if several else "Prototypes", reading, tuple(rows))


def _caption(label: int, steps: int, confidence: float) -> str:
    how = f"{steps} steps" if steps >= 0 else "not there"
    return f"class {label}, p\u00a0=\u00a0{confidence:.3f}, {how}"


def _rows(
    label: str, images: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    pictures = [Picture(image, caption) for image, caption in zip(images, captions, strict=True)]
    for start in range(0, len(pictures), _ROW):
        yield label if start == 0 else "", tuple(pictures[start : start + _ROW])


def _clipped(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture of an image that may have left [0, 1] (or be NaN, which is black): c×h×w to h×w×(1 or 3) bytes."""
    seen = image if image.shape[0] in (1, 3) else image[:1]
    drawn: NDArray[np.uint8] = np.rint(255 * np.nan_to_num(seen).clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return drawn


def enlarged(image: NDArray[np.float32], mean: Sequence[float]) -> tuple[NDArray[np.uint8], float]:
    """What differs from the mean, around grey, so many times that the most of it is black or white."""
    pattern = np.nan_to_num(image - np.asarray(mean, dtype=np.float32)[:, None, None])
    times = 0.5 / max(float(np.abs(pattern).max()), 1e-6)
    return _clipped(0.5 + times * pattern), times


def _table(shown: Mapping[str, CheckResult]) -> Table:
    rows: list[tuple[str | float | Metric | None, ...]] = []
    for name, result in shown.items():
        for mode, passes in result.details["passes"].items():
            label = name if mode == MEAN else f"{name} ({mode})"
            found = [result.metrics[in_mode(metric, mode)] for metric in _TITLES]
            images = result.metrics["image_similarity"]
            rows.append((label, *found, images, round(sum(passes) / result.metrics[in_mode("reached", mode)].n)))
    reading = (
        "Means over prototypes at full confidence. Similarity is a cosine, both sides less the mean of all pixels; of "
        "images it is taken with the mean of the others of their class. Near to the mean and unlike its class is what "
        "fools a classifier."
    )
    columns = ("classifier", *_TITLES.values(), "similarity of images", "passes per prototype")
    return Table("From label to image", reading, columns, tuple(rows))
