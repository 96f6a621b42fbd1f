"""The examples of an evaluation with their verifier and state: every query of the model is booked on examples here."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isthmus.attacks.attack import SingleShotAttack
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.counted_model import CountedModel
from isthmus.attacks.engine.inputs import check_classes, check_proposals
from isthmus.attacks.engine.state import EvaluationState
from isthmus.attacks.engine.verifier import Verifier
from isthmus.attacks.losses import ranked_classes
from isthmus.attacks.threats import Threat
from isthmus.core.errors import ModelError
from isthmus.models import outputs


@dataclass
class EvaluationContext:
    """Examples under attack.

    Attributes:
        verifier: of the model and threat; attacks query its counted model.
        examples: all of them.
        state: one row for each.
        device: the model's.
        size: largest number of examples in a batch.
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
        """The model that attacks query."""
        return self.verifier.counted_model

    @property
    def threat(self) -> Threat:
        """The ball around each example."""
        return self.verifier.threat

    @property
    def classes(self) -> int:
        """Number of logits; known after :meth:`evaluate_clean`."""
        return self.state.ranked.shape[1] + 1

    def batch(self, rows: Tensor) -> Batch:
        """These examples on the model's device."""
        return self.examples.take(rows).to(self.device)

    def batches(self, rows: Tensor) -> tuple[Tensor, ...]:
        """These rows in parts of at most ``size``; none if there are no rows."""
        return torch.split(rows, self.size) if len(rows) else ()

    @contextmanager
    def booked(self, rows: Tensor) -> Iterator[None]:
        """Book the passes inside on these examples; one may occur more than once.

        Passes that the verifier repeated belong to the examples concerned; the others are shared equally, and the first
        examples take the remainder.
        """
        model = self.counted_model
        self.verifier.take_repeated()
        forwards, backwards = model.forward_passes, model.backward_passes
        yield
        forwards, backwards = model.forward_passes - forwards, model.backward_passes - backwards
        repeated = self.verifier.take_repeated()
        if repeated is not None:
            self.state.forwards.index_add_(0, rows, repeated)
            forwards -= int(repeated.sum())
        for column, passes in ((self.state.forwards, forwards), (self.state.backwards, backwards)):
            each, rest = divmod(passes, len(rows))
            column.index_add_(0, rows, each + (torch.arange(len(rows)) < rest).long())

    def start_over(self) -> None:
        """Forget everything but the passes, and count the model as random."""
        self.verifier.start_over()
        kept = {name: getattr(self.state, name) for name in ("forwards", "backwards", "zero_gradients")}
        self.state = replace(EvaluationState.new(self.examples.images), **kept)

    def make_random(self) -> None:
        """Add a random model's columns; nearest images outside this ball are replaced by clean ones."""
        self.counted_model.random, images, state = True, self.examples.images.cpu(), self.state
        if state.nearest is None or state.nearest_margin is None:
            self.state = state.for_random(images)
            return
        outside = ~self.threat.contains(state.nearest, images)
        state.nearest[outside], state.nearest_margin[outside] = images[outside], torch.inf

    # --- before the attacks ---

    def evaluate_clean(self) -> None:
        """Evaluate the clean images: errors are broken by "clean", and NaN or infinite logits make an example invalid.

        Raises:
            ModelError: no image has finite logits, or the model returns probabilities of class 1.
            DataError: a label or target is not one of the model's classes.
        """
        state, examples = self.state, self.examples
        ranked, probabilities = [], True
        for rows in self.batches(torch.arange(len(examples))):
            batch = self.batch(rows)
            with self.booked(rows):
                logits, sure = self._clean_logits(batch)
                check_classes(examples, logits.shape[1])
                finite, predicted = logits.isfinite().all(1), logits.argmax(1)
                errs = finite & ((predicted != batch.labels) | batch.reached(logits))
                self.verifier.query_again(batch.images, batch.keys, logits, errs)
                wrong = batch.reached(logits) if sure is None else sure
            state.correct[rows] = (finite & (predicted == batch.labels)).cpu()
            broken = (finite & wrong).cpu()
            state.broken[rows], state.margin[rows] = broken, batch.margin(logits).float().cpu()
            if state.nearest_margin is not None:
                state.nearest_margin[rows] = state.margin[rows]
            state.stage[rows[broken | ~finite.cpu()]] = 0
            probabilities &= self.counted_model.one_logit and outputs.are_probabilities(logits[:, 1])
            ranked.append(ranked_classes(logits, batch.labels).cpu())
        if probabilities and (examples.labels == 0).any():
            raise ModelError(
                "The model gives one number in [0, 1] for each image, as probabilities are; a single logit means "
                "class 1 where it is positive. Return log-odds (torch.logit), or two columns."
            )
        state.ranked = torch.cat(ranked)
        state.adversarial[state.broken] = examples.images.cpu()[state.broken]
        if not (state.broken | state.robust).any():
            raise ModelError(
                "The model's logits are NaN or infinite on every clean image: training diverged, or the "
                "weights are of another model."
            )

    def _clean_logits(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits; for a random model the ln of mean probabilities, and whether they are wrong with confidence."""
        if not self.counted_model.random:
            return self.verifier.clean(batch), None
        reading = self.verifier.averages.read(batch.images, batch)
        return reading.mean.clamp(min=1e-30).log(), reading.sure

    # --- single-shot attacks ---

    def propose(self, label: str, attack: SingleShotAttack, rows: Tensor, stage: int) -> Generator[None, None, None]:
        """Run a single-shot attack on these examples, with new keys for each restart; yield after every batch.

        Args:
            label: of the stage; the keys of its runs derive from it.
            stage: its position, as the state counts.

        Raises:
            ConfigError: it returned something other than one image per example.
        """
        state = self.state
        for restart in range(attack.runs_in(self.threat, self.classes)):
            for part in self.batches(rows[state.robust[rows] & (state.done[rows] <= restart)]):
                batch = self.batch(part)
                tries = state.tries[part].to(self.device)
                before = self.counted_model.backward_passes
                with self.booked(part):
                    own = batch.folded("single_shot/run", label, restart)
                    given = attack.perturb(self.counted_model, own, self.threat)
                    proposals = check_proposals(given, batch.images, label)
                    if self.counted_model.backward_passes > before:  # a zero gradient does not move the image
                        state.zero_gradients[part] += (proposals == batch.images).flatten(1).all(1).cpu()
                    checked = self.verifier.proposals(proposals, batch, tries)
                state.tries[part] = tries.cpu()
                state.record_nearest(part, checked, stage, restart)
                margin = torch.where(checked.finite, checked.margin, torch.inf).float().cpu()
                state.margin[part] = state.margin[part].minimum(margin)
                state.run[part[state.record(part, checked, stage)]] = restart
                state.done[part], state.scores[part, restart] = restart + 1, margin
                yield

    # --- after the attacks ---

    def verify(self, rows: Tensor) -> Iterator[int]:
        """Check adversarial examples on a further pass; those that it does not confirm become robust again.

        Yields, for each batch, how many it did not confirm.
        """
        for part in self.batches(rows):
            images, batch = self.state.adversarial[part].to(self.device), self.batch(part)
            with self.booked(part):
                refuted = part[~self.verifier.holds(images, batch).cpu()]
            self.state.reopen(refuted)
            yield len(refuted)

    def read_averages(self, rows: Tensor) -> Iterator[int]:
        """Compute a random model's average prediction at the nearest image of each example; the result follows it.

        An example whose average is not finite becomes invalid. Yields, for each batch, how many broken examples the
        average did not confirm.
        """
        state, readings = self.state, []
        for part in self.batches(rows):
            with self.booked(part):
                images = self._nearest(part).to(self.device)
                readings.append((part, self.verifier.averages.read(images, self.batch(part))))
        for part, reading in readings:  # all of them or none: an interrupted reading begins again
            images, wrong = self._nearest(part), reading.wrong.cpu()
            refuted = state.broken[part] & ~wrong
            state.reopen(part[refuted])
            new = wrong & ~state.broken[part]
            state.record_reading(part, reading)
            state.break_by_nearest(part[new], images[new])
            yield int(refuted.sum())

    def _nearest(self, rows: Tensor) -> Tensor:
        """The adversarial image of each row, or the image with the smallest margin."""
        assert self.state.nearest is not None
        broken = self.state.broken[rows][:, None, None, None]
        return torch.where(broken, self.state.adversarial[rows], self.state.nearest[rows])
