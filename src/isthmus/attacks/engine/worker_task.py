"""The worker's side of a shared attack: the model, sent once, and one order after another.

An order's part of the ledger goes back every second or so, so that what is known elsewhere is never far behind.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.attacks.engine import optimized_model
from isthmus.attacks.engine.context import EvaluationContext
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.evaluation import work
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Randomness, Verifier
from isthmus.attacks.engine.workers import Order, Part
from isthmus.core.errors import IsthmusError
from isthmus.core.preserve_state import device_of

INTERVAL = 1.0
"""Seconds between two reports of a worker."""


@dataclass(frozen=True)
class Kit:
    """What a worker gets once."""

    model: nn.Module
    seed: int
    bf16: bool
    settings: dict[str, Any]


def settings(threads: int) -> dict[str, Any]:
    """How the parent computes, as far as that is set from within Python."""
    return {
        "threads": threads,
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def apply(found: dict[str, Any]) -> None:
    """Compute as :func:`settings` says."""
    torch.set_num_threads(found["threads"])
    torch.set_default_dtype(found["dtype"])
    torch.set_float32_matmul_precision(found["precision"])
    torch.backends.cudnn.allow_tf32 = found["tf32"]
    torch.use_deterministic_algorithms(found["deterministic"])


def packed_error(error: Exception) -> bytes:
    """An error as bytes; one that cannot be sent, as text."""
    if not isinstance(error, IsthmusError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        content = pickle.dumps(RuntimeError(f"{type(error).__name__} in a worker process: {error}"))
    return content


class Server:
    """Works on orders, one after another, with the same eyes on the model."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._oracle: CountedModel | None = None
        self._told = (0, 0)

    def parts(self, order: Order) -> Iterator[Part]:
        """Work on an order; what changed, every second or so and at the end."""
        context, rows = self._setting(order), torch.arange(len(order.state))
        seen, last = _marks(order.state), time.monotonic()
        random = False
        try:
            for _ in work(context, order.attack, rows, order.stage):
                if time.monotonic() - last > INTERVAL:
                    yield self._part(context, seen, over=False)
                    seen, last = _marks(order.state), time.monotonic()
        except Randomness:
            random = True
        yield replace(self._part(context, seen, over=True), random=random)

    def _setting(self, order: Order) -> EvaluationContext:
        device = device_of(self._kit.model, torch.empty(0))
        if self._oracle is None:
            probe = order.examples.images[: optimized_model.PROBE].to(device)
            self._oracle = optimized_model.wrap(self._kit.model, self._kit.bf16, probe)
        self._oracle.random = order.random
        return EvaluationContext(Verifier(self._oracle, order.threat), order.examples, order.state, device, order.size)

    def _part(self, context: EvaluationContext, seen: Tensor, over: bool) -> Part:
        counted_model, told = context.counted_model, self._told
        rows = (_marks(context.state) != seen).any(0).nonzero().squeeze(1)
        self._told = counted_model.forward_passes, counted_model.backward_passes
        return Part(rows, context.state.take(rows), self._told[0] - told[0], self._told[1] - told[1], over)


def _marks(state: EvaluationState) -> Tensor:
    """Columns of which one at least changes whenever anything about an example does: no pass is left uncounted."""
    return torch.stack([state.forwards, state.backwards, state.tries, state.done, state.stage])
