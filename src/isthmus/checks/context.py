"""What a check may look at: one classifier, the images to judge it on, and the audit's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor, nn

    from isthmus.attacks.threats import Threat
    from isthmus.checks.members import TrainedOn


def _silent(_done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class Context:
    """The input of every check.

    Attributes:
        model: from float images in [0, 1], N×C×H×W, to logits, in eval mode, on ``device``. For a bottleneck this is
            its mean mode.
        stochastic: the same model's stochastic mode, where it has one.
        bottleneck: the model itself where it is one of ours (has ``encode``), for measures of information.
        images, labels: the audited examples, on ``device``.
        threat: norm and largest ε; checks that scan ε go from 0 up to it.
        draws: how many passes :attr:`model` averages; more than 1 for a foreign model that answers at random.
        remembers: whether the model's answers depend on what it was asked before; then :attr:`model` asks a fresh copy
            each time. None where that could not be tested.
        indices: positions of the examples in their data set; 0..N−1 where None.
        trained_on: the examples that the model was trained on; None where they are not known. A check that looks at
            them puts their hash into its result's ``details["trained_on"]``, and None where it had none to look at, so
            that the result is not taken for one about other examples.
        claimed: the robust accuracy that somebody reports, in [0, 1]; None where nobody does.
        budget: "quick" or "full".
        seed: every random choice derives from it and the example's index.
        progress: call it with (done, total) now and then.
        folder: where the audit's files lie, for files besides a check's own result; None in memory.
    """

    model: nn.Module
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, "n"]
    num_classes: int
    threat: Threat
    stochastic: nn.Module | None = None
    bottleneck: nn.Module | None = None
    draws: int = 1
    remembers: bool | None = False
    indices: Int[Tensor, "n"] | None = None
    trained_on: TrainedOn | None = None
    claimed: float | None = None
    budget: Literal["quick", "full"] = "quick"
    folder: Path | None = None
    seed: int = 0
    batch_size: int = 256
    progress: Callable[[int, int], None] = field(default=_silent, repr=False)

    @cached_property
    def keys(self) -> Int[Tensor, "n"]:
        """One random key per example (see :mod:`isthmus.core.randomness`), on ``device``."""
        import torch

        from isthmus.core import randomness

        positions = torch.arange(len(self.labels)) if self.indices is None else self.indices
        return randomness.example_keys(self.seed, positions.to(self.images.device))

    @cached_property
    def logits(self) -> Float[Tensor, "n classes"]:
        """Clean logits of :attr:`model` on all images, computed once for all checks (float32, on the CPU)."""
        return _logits(self.model, self)

    @cached_property
    def stochastic_logits(self) -> Float[Tensor, "n classes"]:
        """Clean log-probabilities averaged over samples of :attr:`stochastic`, computed once."""
        assert self.stochastic is not None
        return _logits(self.stochastic, self)


def answer(model: nn.Module, images: Float[Tensor, "b c h w"], keys: Int[Tensor, "b"]) -> Float[Tensor, "b classes"]:
    """A mode's answer to a batch, without gradients, float32 on the CPU.

    A stochastic mode draws an example's noise from its key, so that no answer depends on the batch. The model is shown
    a copy of the images, which it may change in place.
    """
    import torch

    with torch.no_grad():
        options = {"keys": keys} if getattr(model, "takes_keys", False) else {}
        logits: Tensor = model(images.clone(), **options)
        return logits.float().cpu()


def _logits(model: nn.Module, context: Context) -> Tensor:
    import torch

    parts = (torch.split(values, context.batch_size) for values in (context.images, context.keys))
    return torch.cat([answer(model, images, keys) for images, keys in zip(*parts, strict=True)])
