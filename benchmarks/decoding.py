"""How fast photographs come in, beside the decoder alone.

    make bench
    python -m benchmarks.decoding [--files 400] [--rounds 5] [--out results/benchmarks/decoding.json]

Files are JPEGs of 500×375 pixels at quality 90, about as large as ImageNet's, grown out of CIFAR-10's images with grain
put on top (ISTHMUS_DATA); the same lie in folders and in the rows of a parquet shard. The bare decoder opens each file
with Pillow and decodes it, in as many threads as the loader has; the loader cuts out a random part, scales it to
224×224 and makes batches. CPU time stands beside time on the wall, which on a shared machine
is mostly waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isthmus.core import files, provenance
from isthmus.data.batches import Batches
from isthmus.data.loading import load
from isthmus.data.prefetch import threads

WIDTH, HEIGHT, QUALITY, GRAIN, BATCH, CLASSES = 500, 375, 90, 12.0, 100, 2


def write_photographs(folder: Path, count: int) -> float:
    """``train`` and ``val`` of so many files each; returns the mean kilobytes of one."""
    images = load("cifar10").train.select(torch.arange(count)).images.permute(0, 2, 3, 1).numpy()
    generator, sizes = np.random.default_rng(0), []
    for part in ("train", "val"):
        for number, pixels in enumerate(images):
            path = folder / part / f"class{number % CLASSES}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            grown = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            grain = generator.normal(0.0, GRAIN, (HEIGHT, WIDTH, 1))
            Image.fromarray((np.asarray(grown) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
            sizes.append(path.stat().st_size)
    return statistics.fmean(sizes) / 1000


def as_parquet(folder: Path) -> dict[str, str]:
    """The same files as rows; returns how to load them."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    for part in ("train", "val"):
        paths = sorted((folder / part).rglob("*.JPEG"))
        cells = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
            "label": [int(path.parent.name.removeprefix("class")) for path in paths],
        }
        shard = str(folder / "shards" / f"{part}-00000-of-00001.parquet")
        datasets.Dataset.from_dict(cells, features=features).to_parquet(shard)
    return {"name": "parquet", "path": str(folder / "shards"), "test": "val"}


def bare(paths: Sequence[Path]) -> None:
    """Decode every file."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.convert("RGB").load()

    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(decode, paths))


def timed(act: Callable[[], None], count: int) -> tuple[float, float]:
    """Images per second on the wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def measure(count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        kilobytes = write_photographs(Path(folder), count)
        paths = sorted(Path(folder, "train").rglob("*.JPEG"))
        split = load(f"imagenet:{folder}").train
        ways: dict[str, Callable[[], None]] = {"the decoder alone": lambda: bare(paths)}
        for augment in ("imagenet", "imagenet_autoaugment"):
            batches = Batches(split, BATCH, augment=augment)
            ways[f"batches, {augment}"] = lambda batches=batches: [None for _ in batches.epoch(0)]  # type: ignore[misc]
        rows = Batches(load(as_parquet(Path(folder))).train, BATCH, augment="imagenet")
        ways["batches of rows, imagenet"] = lambda: [None for _ in rows.epoch(0)]  # type: ignore[misc]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, act in ways.items():
                found[name].append(timed(act, count))
    plain = [cpu for _, cpu in found["the decoder alone"]]
    return {
        "files": count,
        "kilobytes": kilobytes,
        "threads": threads(),
        "rounds": rounds,
        "rows": [
            {
                "way": name,
                "images_per_second": statistics.median(wall for wall, _ in each),
                "images_per_cpu_second": statistics.median(cpu for _, cpu in each),
                "of_the_decoder": statistics.median(cpu / alone for (_, cpu), alone in zip(each, plain, strict=True)),
            }
            for name, each in found.items()
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if "ISTHMUS_DATA" not in os.environ:
        raise SystemExit("ISTHMUS_DATA is not set: there are no images to grow photographs from.")
    torch.set_num_threads(1)
    found = measure(given.files, given.rounds)
    for row in found["rows"]:
        print(
            f"{row['way']:28} {row['images_per_second']:7.0f} a second, {row['images_per_cpu_second']:7.0f} a second "
            f"of CPU, {row['of_the_decoder']:.2f} of the decoder alone"
        )
    if given.out:
        command = f"python -m benchmarks.decoding --files {given.files} --rounds {given.rounds}"
        files.write_json(given.out, {"command": command, **found, "provenance": provenance.collect()})


if __name__ == "__main__":
    main()
