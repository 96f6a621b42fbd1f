"""The model as attacks see it: frozen, counted, and checked.

An attack queries a :class:`CountedModel` and never the model itself, so that every pass is counted, and neither the
model nor the caller's random state can change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isthmus.attacks.engine.inputs import check_logits
from isthmus.core.errors import IsthmusError, ModelError, one_line, out_of_memory
from isthmus.core.preserve_state import ENDS
from isthmus.core.randomness import fold
from isthmus.models import outputs

Objective = Callable[[Tensor], Tensor]
"""From logits n×K to the n values that an attack ascends."""


@dataclass(frozen=True)
class Answer:
    """The model's answer to one query; without a gradient (forward only), ``loss`` and ``gradient`` are empty."""

    logits: Float[Tensor, "n classes"]
    loss: Float[Tensor, " n"]
    gradient: Float[Tensor, "n c h w"]

    @property
    def finite(self) -> Bool[Tensor, " n"]:
        """Rows whose logits are all finite."""
        return self.logits.isfinite().all(1)


class BudgetExhausted(Exception):
    """The limit on passes or time is reached; every pass until then is counted.

    Attributes:
        forwards, backwards: example-passes of an evaluation that has no result.
    """

    forwards = backwards = 0


class CountedModel:
    """A classifier that answers the queries of attacks, and counts passes.

    Passes are counted in example-passes: one prediction of the model for one image. A stochastic model's average over
    S codes is one pass, and each further average is another, even if the image was encoded once for all of them: the
    count does not depend on how the model computes its predictions.

    A model with a true attribute ``takes_keys`` draws its noise from ``forward(images, keys=...)``, each row's from its
    own key. Every query names its ``draw``, a number from 0 up: different draws see different noise. Such a model may
    also define ``forward_draws(images, keys)``, from n images and n × d keys to n × d × K logits: what ``forward``
    returns for each key, at less than the cost of d passes. Other models ignore keys and draws.

    A binary classifier may return one logit z, which is replaced by the two logits 0 and z.

    Args:
        model: the classifier itself, which decides success.
        optimized_model: a faster model of the same function (:mod:`isthmus.attacks.engine.optimized_model`), which
            attacks query instead.
        autocast: a lower precision for that model's passes, such as ``torch.bfloat16``.
    """

    def __init__(
        self, model: nn.Module, optimized_model: nn.Module | None = None, autocast: torch.dtype | None = None
    ) -> None:
        self._model = model
        self.optimized_model = model if optimized_model is None else optimized_model
        self._autocast = autocast
        self._half = outputs.precision_of(model)
        self.takes_keys = bool(getattr(model, "takes_keys", False))
        self.random = self.takes_keys
        self.samples = int(getattr(model, "samples", 1)) if self.takes_keys else 1  # draws behind one prediction
        self.classes: int | None = None
        self.one_logit = False
        self.forward_passes = 0
        self.backward_passes = 0
        self.limit: int | None = None  # of passes, forward and backward
        self.deadline: float | None = None  # by time.monotonic()
        self._forward_draws = forward_draws(model)
        self.rows = 256  # of a pass with several draws of an image, at most
        self._most: int | None = None  # rows that fit into memory, once more did not

    @property
    def exact(self) -> bool:
        """Whether attacks query the model that decides success, in its own precision."""
        return self.optimized_model is self._model and self._autocast is None

    def check(self, passes: int) -> None:
        """Check that this many further passes are within the limits.

        Raises:
            BudgetExhausted: they are not, or the deadline has passed.
        """
        if self.limit is not None and self.forward_passes + self.backward_passes + passes > self.limit:
            raise BudgetExhausted("passes")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise BudgetExhausted("time")

    def took_over(self, other: CountedModel) -> CountedModel:
        """This counted model, with the passes of another one added."""
        self.forward_passes += other.forward_passes
        self.backward_passes += other.backward_passes
        return self

    def logits(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], draw: int | Int[Tensor, " n"] = 0
    ) -> Float[Tensor, "n classes"]:
        """Logits of the model itself in float32, without autograd.

        Raises:
            ModelError: the model fails on the images, or does not return N×K logits.
        """

        def plain(part: slice) -> Tensor:
            with torch.no_grad():
                return self._forward(self._model, images[part], keys[part], _of(draw, part))

        return self._fitting(plain, len(images))

    def draws(
        self, images: Float[Tensor, "n c h w"], keys: Int[Tensor, " n"], first: int, count: int
    ) -> Float[Tensor, "n count classes"]:
        """What :meth:`logits` returns for ``count`` draws, from number ``first`` on; in few passes.

        Raises:
            ModelError: as :meth:`logits`.
        """
        n, numbers = len(images), torch.arange(first, first + count, device=keys.device)
        answer = self._forward_draws
        if answer is not None:

            def together(part: slice) -> Tensor:
                each = _draw_keys(keys[part, None], numbers)
                with torch.no_grad():
                    logits = self._checked(
                        lambda: answer(images[part].clone(), each).flatten(0, 1), images[part], each.numel()
                    )
                return logits.reshape(*each.shape, -1)

            return self._fitting(together, n)
        found = []
        for some in torch.split(numbers, max(1, self.rows // n)):
            copies, own = (column.repeat_interleave(len(some), 0) for column in (images, keys))
            found.append(self.logits(copies, own, some.repeat(n)).reshape(n, len(some), -1))
        return torch.cat(found, 1)

    def query(
        self,
        images: Float[Tensor, "n c h w"],
        keys: Int[Tensor, " n"],
        objective: Objective | None,
        draw: int | Int[Tensor, " n"] = 0,
        eot: int = 1,
    ) -> Answer:
        """Logits, the values to ascend and their gradient at ``images``, from one forward and one backward pass.

        Only the images' gradient is computed; the parameters' ``.grad`` is never filled.

        Args:
            images: to query.
            keys: of the runs, one each.
            objective: from the logits of all n rows to what is ascended; None for logits alone, forward only.
            draw: number of the query, or one for each row.
            eot: draws of a random model to average over (expectation over transformation, Athalye et al. 2018):
                the mean gradient, and as logits the ln of the mean probabilities. Deterministic models are queried
                once.

        Raises:
            ModelError: as :meth:`logits`, or the output does not depend on the images differentiably.
        """
        draws = eot if self.random else 1
        answers = [
            self._once(images, keys if e == 0 else fold(keys, "model/eot", draw, e), objective, draw if e == 0 else 0)
            for e in range(draws)
        ]
        return answers[0] if draws == 1 else _mean(answers)

    def _once(self, images: Tensor, keys: Tensor, objective: Objective | None, draw: int | Tensor) -> Answer:
        n = len(images)
        if objective is not None and (self._most is None or n <= self._most):
            try:
                return self._gradient(images, keys, objective, draw)
            except Exception as error:
                self._halve(n, error)

        def forward(part: slice) -> Tensor:
            with torch.no_grad(), self._precision(images.device):
                return self._forward(self.optimized_model, images[part], keys[part], _of(draw, part))

        logits = self._fitting(forward, n)
        if objective is None:
            return Answer(logits, logits.new_empty(0), images.new_empty(0))
        # The objective depends on all rows at once: compute its gradient in the logits, then pull it back in parts.
        logits.requires_grad_()
        with torch.enable_grad():
            values = objective(logits)
            (upstream,) = torch.autograd.grad(values.sum(), logits)

        def pull_back(part: slice) -> Tensor:
            of = upstream[part]
            return self._gradient(images[part], keys[part], lambda z: (z * of).sum(1), _of(draw, part)).gradient

        return Answer(logits.detach(), values.detach(), self._fitting(pull_back, n))

    def _gradient(self, images: Tensor, keys: Tensor, objective: Objective, draw: int | Tensor) -> Answer:
        self.check(2 * len(images))
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            with self._precision(images.device):
                logits = self._forward(self.optimized_model, leaf, keys, draw)
            values = objective(logits)
            gradient, fault = None, ""
            if values.requires_grad:
                try:
                    (gradient,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
                except Exception as error:  # a user's backward pass may raise anything
                    if out_of_memory(error):
                        raise
                    fault = f" ({one_line(error)})"
        if gradient is None:
            raise ModelError(
                "The model's logits have no gradient with respect to its images (a detach(), no_grad() or "
                "conversion inside it?). Let gradients pass, or use an attack that needs none, such as square; an "
                f"audit also tries to follow the forward pass.{fault}"
            )
        self.backward_passes += len(images)
        return Answer(logits.detach(), values.detach(), gradient)

    def _precision(self, device: torch.device) -> torch.autocast | nullcontext[None]:
        return nullcontext() if self._autocast is None else torch.autocast(device.type, self._autocast)

    def _fitting(self, ask: Callable[[slice], Tensor], n: int) -> Tensor:
        """Query as many rows at a time as fit into memory; halve their number if they do not."""
        parts: list[Tensor] = []
        at = 0
        while at < n:
            size = min(n - at, self._most or n)
            try:
                parts.append(ask(slice(at, at + size)))
            except Exception as error:
                self._halve(size, error)
                continue
            at += size
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _halve(self, size: int, error: Exception) -> None:
        """Query half as many rows from now on, if the error is about memory."""
        if not out_of_memory(error):
            raise error
        if size == 1:
            raise ModelError("The model does not fit into memory even with a single image.") from None
        self._most = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _forward(self, model: nn.Module, images: Tensor, keys: Tensor, draw: int | Tensor) -> Tensor:
        options = {"keys": _draw_keys(keys, draw)} if self.takes_keys else {}
        # A clone, so that a model which works in place changes neither our images nor a leaf of the graph.
        given = images.clone() if self._half is None else images.to(self._half)
        return self._checked(lambda: model(given, **options), images, len(images))

    def _checked(self, answer: Callable[[], Any], images: Tensor, passes: int) -> Tensor:
        """The logits of this many passes, counted; anything else is an error with the reason."""
        self.check(passes)
        dtype = torch.get_default_dtype()
        try:
            output = outputs.unwrapped(answer())
        except IsthmusError:
            raise
        except (Exception, SystemExit) as error:  # a user's code may raise anything, or exit
            if out_of_memory(error):
                raise
            fault = f"it ends the program ({ENDS})" if isinstance(error, SystemExit) else one_line(error)
            raise ModelError(
                f"The model fails on {images.dtype} images of shape {tuple(images.shape)}: {fault}"
            ) from error
        finally:
            if torch.get_default_dtype() != dtype:  # the model has changed it
                torch.set_default_dtype(dtype)
        self.forward_passes += passes
        if outputs.is_one(output, passes):
            output, self.one_logit = outputs.two(output), True
        check_logits(output, passes)
        self.classes = self.classes or output.shape[1]
        if output.shape[1] != self.classes:
            raise ModelError(f"The model returned {self.classes} logits per image first and {output.shape[1]} later.")
        logits: Tensor = outputs.floored(output.float())
        # A copy if nothing was converted, so that changes to logits do not reach the model's own tensors.
        return logits.clone() if logits is output else logits


def forward_draws(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The method of that name if the model's own class has one; a method that a wrapper passes on would bypass it."""
    return getattr(model, "forward_draws", None) if hasattr(type(model), "forward_draws") else None


def _draw_keys(keys: Int[Tensor, "*batch"], draw: int | Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Keys of a model's numbered draws."""
    return fold(keys, "model/draw", draw)


def _of(draw: int | Tensor, part: slice) -> int | Tensor:
    return draw[part] if isinstance(draw, Tensor) else draw


def _mean(answers: list[Answer]) -> Answer:
    probabilities = torch.stack([answer.logits.log_softmax(1) for answer in answers])
    return Answer(
        probabilities.logsumexp(0) - math.log(len(answers)),
        torch.stack([answer.loss for answer in answers]).mean(0),
        torch.stack([answer.gradient for answer in answers]).mean(0),
    )
