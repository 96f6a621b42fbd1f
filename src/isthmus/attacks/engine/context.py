"""What every attack of an evaluation works with: the model, its judge, the examples, and the record of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.threats import Threat


@dataclass
class EvaluationContext:
    """Examples under attack.

    Attributes:
        verifier: of the model and threat; attacks query its counted model.
        examples: all of them.
        state: what is known of each, row by row; filled as attacks go.
        device: the model's.
        size: examples at a time, at most.
    """

    verifier: Verifier
    examples: Batch
    state: EvaluationState
    device: torch.device
    size: int

    def __post_init__(self) -> None:
        self.counted_model.rows = self.size

    @property
    def counted_model(self) -> CountedModel:
        """The model that attacks ask."""
        return self.verifier.counted_model

    @property
    def threat(self) -> Threat:
        """The ball around each example."""
        return self.verifier.threat

    @property
    def classes(self) -> int:
        """How many logits the model gives; known once it was asked."""
        return self.state.ranked.shape[1] + 1

    def batch(self, rows: Tensor) -> Batch:
        """These examples where the model is."""
        return self.examples.take(rows).to(self.device)

    @contextmanager
    def booked(self, rows: Tensor) -> Iterator[None]:
        """Books what the model is asked inside on these examples; one may be named more than once.

        In equal shares, after what the verifier asked about some of them again; of what is left over the first get one
        pass more.
        """
        self.verifier.take_repeated()
        forwards, backwards = self.counted_model.forward_passes, self.counted_model.backward_passes
        yield
        forwards, backwards = (
            self.counted_model.forward_passes - forwards,
            self.counted_model.backward_passes - backwards,
        )
        repeated = self.verifier.take_repeated()
        if repeated is not None:
            self.state.forwards.index_add_(0, rows, repeated)
            forwards -= int(repeated.sum())
        for column, passes in ((self.state.forwards, forwards), (self.state.backwards, backwards)):
            each, rest = divmod(passes, len(rows))
            column.index_add_(0, rows, each + (torch.arange(len(rows)) < rest).long())
