"""AutoAugment of CIFAR-10 batches against Pillow, image by image: one process, one thread. Needs ISTHMUS_DATA.

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.autoaugment [--out results/benchmarks/autoaugment.json]

Both get the same bytes and the same sub-policies, and give the same bytes back, which is checked. They take turns, and
the ratio is the median over rounds, because on a shared machine a mean is mostly waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageEnhance, ImageOps

from isthmus.core import files, provenance
from isthmus.core.randomness import example_keys
from isthmus.data.autoaugment.apply import apply
from isthmus.data.autoaugment.operations import KINDS, Operations, draw
from isthmus.data.loading import load

BATCH, ROUNDS, BAR = 256, 30, 2.0


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    return ImageOps.posterize(image, bits) if bits else image.point(lambda _: 0)  # Pillow keeps one bit at least


# As Google's released code does them, on an image without transparency; m is the level, s is 1 or −1 for the other way.
WITH_PILLOW: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {
    "none": lambda image, m, s: image,
    "invert": lambda image, m, s: ImageOps.invert(image),
    "posterize": lambda image, m, s: ImageOps.posterize(image, 4 - int(m * 4 / 10)),
    "solarize": lambda image, m, s: ImageOps.solarize(image, 256 - int(m * 256 / 10)),
    "posterize_to": lambda image, m, s: _posterize(image, int(m / 10 * 4)),
    "solarize_from": lambda image, m, s: ImageOps.solarize(image, int(m / 10 * 256)),
    "autocontrast": lambda image, m, s: ImageOps.autocontrast(image),
    "equalize": lambda image, m, s: ImageOps.equalize(image),
    "brightness": lambda image, m, s: ImageEnhance.Brightness(image).enhance(m * 1.8 / 10 + 0.1),
    "contrast": lambda image, m, s: ImageEnhance.Contrast(image).enhance(m * 1.8 / 10 + 0.1),
    "color": lambda image, m, s: ImageEnhance.Color(image).enhance(m * 1.8 / 10 + 0.1),
    "sharpness": lambda image, m, s: ImageEnhance.Sharpness(image).enhance(m * 1.8 / 10 + 0.1),
    "rotate": lambda image, m, s: image.rotate(s * int(m * 30 / 10)),
    "shear_x": lambda image, m, s: _affine(image, 1, s * (m * 0.3 / 10), 0, 0, 1, 0),
    "shear_y": lambda image, m, s: _affine(image, 1, 0, 0, s * (m * 0.3 / 10), 1, 0),
    "translate_x": lambda image, m, s: _affine(image, 1, 0, s * int(m * 10 / 10), 0, 1, 0),
    "translate_y": lambda image, m, s: _affine(image, 1, 0, 0, 0, 1, s * int(m * 10 / 10)),
}


def one_by_one(images: np.ndarray, operations: Operations) -> np.ndarray:
    """A batch of N×C×H×W bytes through Pillow, image by image."""
    stages = torch.stack(list(operations), -1).tolist()
    done = []
    for pixels, image_stages in zip(images.transpose(0, 2, 3, 1), stages, strict=True):
        image = Image.fromarray(np.ascontiguousarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels))
        for kind, level, variant in image_stages:
            image = WITH_PILLOW[KINDS[kind]](image, level, -1 if variant < 512 else 1)
        done.append(np.asarray(image).reshape(pixels.shape))
    return np.stack(done).transpose(0, 3, 1, 2)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(images: torch.Tensor) -> dict[str, Any]:
    ours, pillow = [], []
    for round_ in range(ROUNDS + 1):
        batch = images[round_ * BATCH : (round_ + 1) * BATCH]
        pixels = np.ascontiguousarray(batch.numpy().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # as Pillow likes it
        operations = draw(example_keys(round_, torch.arange(BATCH)), "published")
        assert np.array_equal(apply(batch, operations).numpy(), one_by_one(pixels, operations))
        ours.append(seconds(lambda b=batch, o=operations: apply(b, o)))
        pillow.append(seconds(lambda p=pixels, o=operations: one_by_one(p, o)))
    ratios = [theirs / own for own, theirs in zip(ours[1:], pillow[1:], strict=True)]  # the first round warms up
    return {
        "case": f"CIFAR-10, batch {BATCH}, the 25 published sub-policies",
        "rounds": ROUNDS,
        "ours_ms": statistics.median(ours[1:]) * 1e3,
        "pillow_ms": statistics.median(pillow[1:]) * 1e3,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "pillow": PIL.__version__,
        "bar": BAR,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="write the numbers as JSON")
    given = parser.parse_args()
    if not os.environ.get("ISTHMUS_DATA"):
        print("autoaugment: skipped, since ISTHMUS_DATA names no mirror of CIFAR-10")
        return
    torch.set_num_threads(1)
    row = measure(load("cifar10").train.images)
    print(f"{row['case']}: {row['ours_ms']:.2f} ms, Pillow {row['pillow_ms']:.2f} ms, {row['ratio']:.2f}× (bar {BAR}×)")
    if given.out is not None:
        command = "OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.autoaugment"
        files.write_json(given.out, {"command": command, "rows": [row], "provenance": provenance.collect()})


if __name__ == "__main__":
    main()
