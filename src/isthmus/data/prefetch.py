"""Reads the images of batches: from memory at once, from files by threads that read ahead.

Pillow releases the interpreter lock while it decodes and scales, so threads suffice; each process has its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from isthmus.data.crops import draw_parts
from isthmus.data.images import Examples, Split

AHEAD = 2
"""Batches that are read ahead while another one is in use."""

Pending = tuple[Tensor, Tensor, list[Future[None]]]


def read(
    split: Examples, shares: Iterable[Int64[Tensor, " b"]], crops: Int64[Tensor, " n"] | None = None
) -> Iterator[tuple[Int64[Tensor, " b"], UInt8[Tensor, "b c h w"]]]:
    """Yield positions and images of each share, a list of positions in the split.

    Args:
        crops: keys of all examples; each image is then a random part, see :func:`isthmus.data.crops.resized_crop`.

    Raises:
        DataError: a file is missing or no image; the message names it.
    """
    if isinstance(split, Split) and crops is None:
        for indices in shares:
            yield indices, split.images.index_select(0, indices)
        return
    yield from _read_ahead(split, shares, crops)


def threads() -> int:
    """Number of decoding threads: the cores that this process may use, divided by the local processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _read_ahead(split: Examples, shares: Iterable[Tensor], crops: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    pool = ThreadPoolExecutor(threads(), thread_name_prefix="isthmus-read")
    pending: deque[Pending] = deque()
    try:
        for indices in shares:
            pending.append(_start(pool, split, indices, crops))
            if len(pending) > AHEAD:
                yield _finish(pending.popleft())
        while pending:
            yield _finish(pending.popleft())
    finally:  # also if the caller stops iterating
        pool.shutdown(cancel_futures=True)


def _start(pool: ThreadPoolExecutor, split: Examples, indices: Tensor, crops: Tensor | None) -> Pending:
    images = torch.empty((len(indices), *split.shape), dtype=torch.uint8)
    rows = images.numpy()
    parts = [None] * len(indices) if crops is None else draw_parts(crops.index_select(0, indices)).tolist()

    def fill(row: int, index: int) -> None:
        rows[row] = split.prepared(index, parts[row]).transpose(2, 0, 1)

    return indices, images, [pool.submit(fill, row, index) for row, index in enumerate(indices.tolist())]


def _finish(pending: Pending) -> tuple[Tensor, Tensor]:
    indices, images, work = pending
    for each in work:
        each.result()
    return indices, images
