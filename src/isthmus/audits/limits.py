"""Limits of an audit: how many images the model may be shown, and what fits into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from isthmus.core.config import Component
from isthmus.core.errors import ModelError, out_of_memory
from isthmus.diagnosis.budget import FULL, QUICK
from isthmus.models.bottleneck import Bottleneck

log = logging.getLogger(__name__)

T = TypeVar("T")


def limited_diagnosis(checks: Sequence[Component], queries: int, budget: str) -> list[Component]:
    """The checks, with at most this many passes for each image in the diagnosis."""
    usual = (QUICK if budget == "quick" else FULL).passes
    return [
        check.model_copy(update={"passes": max(1, min(queries, getattr(check, "passes", None) or usual))})
        if check.name == "diagnosis"
        else check
        for check in checks
    ]


@contextmanager
def limited_queries(model: nn.Module, most: int | None) -> Iterator[None]:
    """Inside, the model and its copies accept this many images in all, and then raise a ModelError."""
    if most is None:
        yield
        return
    shown = 0

    def count(_module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal shown
        images: Tensor = given[0]
        if shown + len(images) > most:
            raise ModelError(f"the {most:,} queries of max_queries are spent")
        shown += len(images)

    # Copies of the model share a function. The modes of a bottleneck have only the backbone in common.
    hook = (model.backbone if isinstance(model, Bottleneck) else model).register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


def within_memory(act: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """The result of ``act`` with this batch size, or the largest of its halves that fits into memory; and that size."""
    given = batch_size
    while True:
        try:
            found = act(batch_size)
        except Exception as error:
            if batch_size == 1 or not out_of_memory(error):
                raise
        else:
            if batch_size < given:
                log.warning("There is not enough memory for batches of %d; the audit uses %d.", given, batch_size)
            return found, batch_size
        batch_size //= 2  # after the except clause, whose traceback holds on to memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
