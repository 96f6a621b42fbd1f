"""The training loop, on lightning-fabric, resumable after ``kill -9`` at any moment.

No random state carries over between steps: the order of an epoch derives from (seed, epoch), the noise of a step from
(seed, step). So a checkpoint needs no generator state, and on a CPU a resumed run ends with bitwise the same weights.
Several processes, or gradient accumulation over parts of a batch, take the same steps as one process with the whole
batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn, optim

from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, ModelError, brief, out_of_memory
from isthmus.core.randomness import fold
from isthmus.core.recipe import Recipe
from isthmus.core.types import Terms
from isthmus.data.batches import Batch, Batches
from isthmus.data.images import Examples, ImageData, as_float
from isthmus.data.loading import held_out
from isthmus.data.order import shuffled
from isthmus.information.tables import entropy
from isthmus.models import factory
from isthmus.models.hypothesis import Hypothesis
from isthmus.models.learner import Learner
from isthmus.models.noise import Noise, NoiseShare
from isthmus.models.pretrained import initialise
from isthmus.objectives.objective import InformationObjective
from isthmus.training import checkpoints, processes
from isthmus.training.adversarial import Adversary
from isthmus.training.callbacks.callback import CallbackList
from isthmus.training.early_stopping import EarlyStopper
from isthmus.training.evaluation import sums
from isthmus.training.freezing import FrozenLayers
from isthmus.training.gradient_checkpoints import checkpoint_blocks
from isthmus.training.interrupts import Interrupt, deferred_interrupt
from isthmus.training.loggers.logger import LoggedRun, LoggerList
from isthmus.training.monitor import MetricsFile, TermAverages, check_finite, diverged, impossible
from isthmus.training.optimizers import MovingAverage, make_optimizer, norm_parameters, parameter_groups
from isthmus.training.progress import ProgressCallback, format_terms, show_progress
from isthmus.training.run import Run
from isthmus.training.schedules import RhoController, learning_rate_factor, warm_up_factor

# An accuracy this close to chance after the end of the schedule is reported as a collapse. Runs with too strong a
# bottleneck stay at chance, as in the papers.
COLLAPSE_MARGIN = 0.02
log = logging.getLogger(__name__)
AT_CHANCE = "Accuracy on the training images is at chance. Try a larger rho or a rho_schedule."


class Trainer:
    """State of one run: model, optimisers, moving average, schedules and progress."""

    def __init__(self, recipe: Recipe, data: ImageData, run: Run) -> None:
        self.recipe, self.run, self.settings = recipe, run, recipe.training
        data, self.validation = held_out(data, self.settings.validation)
        if self.settings.early_stopping is not None and self.validation is None:
            raise ConfigError(
                "training.early_stopping needs a validation split: set training.validation=0.1, or another share, or "
                "give data with a part 'validation'."
            )
        self.data = data
        self.group = processes.start(self.settings)
        self.fabric = self.group.fabric
        counts = data.train.labels.bincount(minlength=data.num_classes).tolist()
        self.chance = max(counts) / sum(counts)  # accuracy of the best constant answer
        model = factory.build(recipe, data.shape, data.num_classes, data, counts)
        self.pretrained = self._initialise(model)
        self.frozen = FrozenLayers(model, recipe.model.freeze)
        if self.settings.gradient_checkpointing:
            checkpoint_blocks(model.front if isinstance(model, Hypothesis) else model.get_submodule("backbone"))
        self.model: Learner = model.to(self.fabric.device)
        if self.settings.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = self._make_optimizers()
        objective = recipe.objective
        self.unit = 1.0  # factor on the loss that gives its cross-entropy a weight of 1
        if isinstance(objective, InformationObjective) and objective.normalize == "rate":
            self.unit = objective.weight()
        self.average = MovingAverage(self.model, self.settings.ema) if self.settings.ema else None
        self.adversary = Adversary.of_recipe(recipe, self.model, self.group)
        batches = self._make_batches()
        self.steps_per_epoch = len(batches)
        self.batches = replace(batches, batch_size=self.settings.batch_size // self.settings.accumulate)
        if self.settings.snapshots and self.settings.snapshots[-1] > self._total():
            raise ConfigError(
                f"training.snapshots includes step {self.settings.snapshots[-1]}, but the run has "
                f"{self._total()} steps ({self.settings.epochs} epochs of {self.steps_per_epoch})."
            )
        self.model.configured = ""  # here the schedule replaces it on purpose
        self.rho = RhoController(self.settings.rho_schedule, recipe.objective, self.steps_per_epoch, self._total())
        self.loggers = LoggerList(self.settings.loggers)
        self.callbacks = CallbackList(self.settings.callbacks, self.model, data, recipe.seed)
        self.averages = TermAverages(i_xy=entropy([count / sum(counts) for count in counts]))
        self.stopper = EarlyStopper(self.settings.early_stopping)
        self.step = 0
        self.last_epoch: dict[str, Any] = {}
        self.impossible = ""  # why the terms of the last window are impossible, which ends training
        self.weights_digest = ""
        self.shown_terms = ""  # of the last window

    def _initialise(self, model: Learner) -> dict[str, Any]:
        """Start from ``model.init``, unless a checkpoint has the weights; returns what ``run.json`` holds of it."""
        source = self.recipe.model.init
        if source is None or checkpoints.exists(self.run.checkpoint):
            return {}
        found = initialise(model, source)
        if (report := found.report()) and self.group.first:
            log.warning("model.init: %s", report)
        return asdict(found)

    def _make_optimizers(self) -> dict[str, optim.Optimizer]:
        main, marginal = parameter_groups(self.model)
        optimizers = {"optimizer": make_optimizer(self.settings.optimizer, main, norm_parameters(self.model))}
        if marginal:  # a marginal that is fitted separately from the objective has its own optimiser
            optimizers["marginal_optimizer"] = make_optimizer(self.settings.marginal_optimizer, marginal)
        return optimizers

    def _make_batches(self) -> Batches:
        """Whole batches of the training split, of which this process takes its share."""
        return Batches(
            self.data.train,
            self.settings.batch_size,
            seed=self.recipe.seed,
            augment=self.settings.augment,
            drop_last=self.settings.parts > 1,
            channels_last=self.settings.channels_last,
            device=self.fabric.device,
            rank=self.group.rank,
            world=self.group.world,
        )

    def fit(self, progress: bool | ProgressCallback) -> None:
        """Train to the end, from the checkpoint if there is one; write weights and metrics into the run folder."""
        self.group.on_first(lambda: files.remove_leftovers(self.run.path))
        keep = self._restore() if checkpoints.exists(self.run.checkpoint) else 0
        self.group.broadcast_state(self.model)
        file = self.run.metrics_file if self.group.first else None
        metrics = MetricsFile(file, keep, self.loggers)
        total = self._total()
        shown = progress if self.group.first else False
        try:
            self.group.on_first(self._start_loggers)
            with deferred_interrupt() as interrupt, show_progress(self.recipe.name, total, self.step, shown) as show:
                while not self._ended():
                    self._epoch(metrics, show, interrupt)
        finally:
            metrics.close(self._ended())
        self.weights_digest = self._write_weights(self.run.weights, self._best()[1])
        self.group.on_first(lambda: checkpoints.before(self.run.checkpoint).unlink(missing_ok=True))

    def _ended(self) -> bool:
        return self.step >= self._total() or bool(self.impossible) or self.stopper.stopped

    def _start_loggers(self) -> None:
        if self.settings.loggers:
            recipe, folder = self.recipe, self.run.path
            run = LoggedRun(folder, self.run.info()["id"], recipe.name, recipe.plain(), self.step)
            self.loggers.start(run, self.run.metrics())

    def check_longer_than(self, epochs: int) -> None:
        """Check that a run of fewer epochs can go on as this one.

        Raises:
            ConfigError: a schedule depends on the length of the run.
        """
        self.rho.check_longer_than(epochs * self.steps_per_epoch)

    def _epoch(self, metrics: MetricsFile, show: ProgressCallback, interrupt: Interrupt) -> None:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        self.model.train()
        self.frozen.keep_statistics()
        if not start and self.model.kernel_points:
            self.model.fit_kernel(self._kernel_images(epoch))
        for parts in self._parts(epoch, start):
            self._set_learning_rate(epoch)
            with self._explaining_memory():
                self._step(parts)
            show(self.step, self._total(), self.shown_terms)
            if self.step in self.settings.snapshots:
                self._write_weights(self.run.weights_at(self.step))
            if self.step % self.settings.log_every == 0:
                self.shown_terms = format_terms(self._log(metrics, epoch))
            if self.step % self.steps_per_epoch == 0 or self.impossible:
                self._end_epoch(metrics, epoch)
            if self.impossible:
                return  # without a checkpoint of this state
            stop = self.group.any_process(interrupt.requested)
            if stop or 0 in (self.step % self.settings.checkpoint_every, self.step % self.steps_per_epoch):
                self._checkpoint(metrics)
            if stop:
                raise KeyboardInterrupt

    @contextmanager
    def _explaining_memory(self) -> Iterator[None]:
        """Raise an error with advice if a step does not fit into memory."""
        try:
            yield
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise ModelError(
                f"Step {self.step + 1} does not fit into memory: {self.settings.batch_size} images a batch, "
                f"{self.settings.batch_size // self.settings.parts} at a time ({brief(error, 200)}). If other "
                "programs used the memory, run the same command again to resume; otherwise start a new run with "
                f"training.accumulate={2 * self.settings.accumulate}, which gives the same gradient, or a smaller "
                "training.batch_size."
            ) from None

    def _kernel_images(self, epoch: int) -> Tensor:
        """Training images for :meth:`isthmus.models.learner.Learner.fit_kernel`, drawn for each epoch."""
        train = self.data.train
        keys = fold(torch.arange(len(train)), "training/kernel", self.recipe.seed, epoch)
        chosen = train.select(shuffled(keys)[: self.model.kernel_points])
        return as_float(chosen.images).to(self.fabric.device)

    def _total(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    def _parts(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        """This process's share of each batch, in the parts of the gradient accumulation."""
        count = self.settings.accumulate
        stream = self.batches.epoch(epoch, start * count)
        return zip(*[stream] * count, strict=False)  # a batch with missing parts is skipped

    def _set_learning_rate(self, epoch: int) -> None:
        schedule = self.settings.learning_rate
        factor = learning_rate_factor(schedule, epoch) * warm_up_factor(schedule, self.step / self.steps_per_epoch)
        for group in self.optimizers["optimizer"].param_groups:
            group["lr"] = self.settings.optimizer.lr * factor

    def _step(self, parts: Sequence[Batch]) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        terms = self.group.mean([self._backward(part, number) for number, part in enumerate(parts)])
        self.group.average_gradients(self.model.parameters())
        self.group.loss_scale.unscale(self.optimizers.values())
        self.callbacks.gradients()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameter_groups(self.model)[0], self.settings.clip_norm)
        self.group.loss_scale.take_steps(self.optimizers.values())
        if self.average is not None:
            self.average.update()
        self.averages.add(terms, self.group.world * sum(len(part.labels) for part in parts))
        self.step += 1

    def _backward(self, part: Batch, number: int) -> Terms:
        if self.adversary is not None:
            part = self.adversary.attack(part, self.step)
        with self.fabric.autocast():
            rho, noise = self.rho.at(self.step), self._noise(number)
            terms = self.model.loss(part.images, part.labels, rho, noise, self.group.gather)
        loss = terms.total if terms.marginal_nll is None else terms.total + terms.marginal_nll
        self.fabric.backward(loss / self.settings.accumulate)
        return terms

    def _noise(self, number: int) -> Noise:
        """The noise of this part of the batch, as one process would draw it for the whole batch."""
        generator = torch.Generator(self.fabric.device).manual_seed(noise_seed(self.recipe.seed, self.step))
        if self.settings.parts == 1:
            return generator
        size = self.batches.batch_size
        rows = slice(number * size + self.group.rank, (number + 1) * size, self.group.world)
        return NoiseShare(generator, self.settings.batch_size, rows)

    def _log(self, metrics: MetricsFile, epoch: int) -> dict[str, float]:
        means = self._means("window")
        maximum = self.averages.rate_lower_max
        extra = {} if maximum is None else {"rate_lower_max": float(maximum)}
        metrics.write({"step": self.step, "epoch": epoch} | self._trade_off() | means | extra)
        return means

    def _means(self, kind: str) -> dict[str, float]:
        examples = max(self.averages.counts[kind].values(), default=1)
        means = self.averages.take(kind)
        check_finite(means, self.step)
        found = self.group.on_first(lambda: impossible(means, examples, self.unit))  # one decision for all processes
        self.impossible = self.impossible or found
        return means

    def _trade_off(self) -> dict[str, float]:
        rho = self.rho.at(self.step - 1)
        lr = self.optimizers["optimizer"].param_groups[0]["lr"]
        return {"lr": lr} if rho is None else {"lr": lr, "rho": rho}

    def _end_epoch(self, metrics: MetricsFile, epoch: int) -> None:
        means = self._means("epoch")
        self.rho.end_epoch(self.step, means["accuracy"])
        last = self.step == self._total() or bool(self.impossible)
        due = last or (epoch + 1) % self.settings.validate_every == 0
        validated = self._validate() if due else {}
        improves = self.rho.finished(self.step) and self.stopper.improves(validated)
        last = last or self.stopper.stopped
        if observed := self.callbacks.end_epoch(epoch, last):
            metrics.write({"step": self.step, "epoch": epoch, "observed": observed})
        where = {"step": self.step, "epoch": epoch}
        seen = {f"epoch_{name}": value for name, value in means.items()}
        if not due:
            metrics.write(where | seen)
            return
        test_accuracy = self._accuracy_and_ce(self.data.test)[0]
        at_chance = self._at_chance(means["accuracy"], test_accuracy)
        tested = {
            "test_accuracy": test_accuracy,
            # a gate may never open
            "collapsed": bool(self.impossible) or (at_chance and (last or self.rho.finished(self.step))),
        }
        self.last_epoch = where | tested | validated | seen
        metrics.write(self.last_epoch)
        if improves:
            self.stopper.keep(self.last_epoch, self.model.state_dict() | self._averaged_weights())

    def _at_chance(self, accuracy: float, test_accuracy: float) -> bool:
        """Whether the accuracy in training is that of a constant answer."""
        accuracies = [accuracy] if self.adversary is None else [accuracy, test_accuracy]  # attacked: may be below
        return bool(max(accuracies) <= self.chance + COLLAPSE_MARGIN)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        accuracy, ce = self._accuracy_and_ce(self.validation)
        return {"validation_accuracy": accuracy, "validation_ce": ce}

    def _accuracy_and_ce(self, split: Examples) -> tuple[float, float]:
        """Accuracy and mean cross-entropy in nats of the mean mode on a split, which the processes share."""
        self.group.broadcast_buffers(self.model)
        rank, world = self.group.rank, self.group.world
        found = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        if rank < len(split):
            share = split if world == 1 else split.select(torch.arange(rank, len(split), world))
            found = sums(self.model, share, self._averaged_weights(), self.settings.channels_last)
        right, ce = self.group.sums(found)
        return right / len(split), ce / len(split)

    def _best(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The epoch whose weights the run ends with, and these weights: the best one of early stopping, or the last."""
        if self.impossible or not self.stopper.weights:
            return self.last_epoch, {}
        line = self.stopper.line
        return line | {
            "collapsed": self._at_chance(line["epoch_accuracy"], line["test_accuracy"])
        }, self.stopper.weights

    def result(self) -> dict[str, Any]:
        """The result of an ended run for ``run.json``; ``collapse`` is the reason if it collapsed."""
        maximum = self.averages.rate_lower_max
        line, best = self._best()
        found = {key: value for key, value in line.items() if key != "epoch"}
        if best:
            found |= {"best_epoch": line["epoch"] + 1, "last_step": self.step}
        if found["collapsed"]:
            found |= {"collapse": self.impossible or AT_CHANCE, "impossible": bool(self.impossible)}
        found["weights_sha256"] = self.weights_digest
        found["parameters"] = sum(p.numel() for p in self.model.parameters())
        if maximum is not None:
            found["rate_lower_max"] = float(maximum)
        return found

    def _averaged_weights(self) -> dict[str, Tensor]:
        return self.average.weights() if self.average is not None else {}

    def _write_weights(self, path: Path, best: dict[str, Tensor] | None = None) -> str:
        """Write ``best``, or the current weights, averaged if so configured; returns the checksum, also in the file."""
        self._check_weights()
        self.group.broadcast_buffers(self.model)
        state = best or self.model.state_dict() | self._averaged_weights()
        flat = {name: value.cpu().contiguous() for name, value in state.items()}
        digest = checkpoints.digest(flat)
        self.group.on_first(lambda: files.write_bytes(path, save(flat, {"sha256": digest})))
        return digest

    def _check_weights(self) -> None:
        """Refuse to write weights that are not finite, so that the last checkpoint stays usable."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise diverged(self.step, "a weight is not finite")

    def _checkpoint(self, metrics: MetricsFile) -> None:
        self._check_weights()
        self.group.loss_scale.check(self.step)
        self.group.broadcast_buffers(self.model)
        groups = {"model": self.model.state_dict(), "averages": self.averages.tensors()}
        groups |= {name: checkpoints.optimizer_tensors(optimizer) for name, optimizer in self.optimizers.items()}
        facts = {
            "step": self.step,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics_bytes": metrics.position(),
            "counts": self.averages.counts,
            "released_at": self.rho.released_at,
            "last_epoch": self.last_epoch,
            "loss_scale": self.group.loss_scale.facts(),
        }
        groups |= self.callbacks.tensors()
        if self.stopper.settings is not None:
            groups["best"] = self.stopper.weights
            facts["early_stopping"] = self.stopper.facts()
        if self.average is not None:
            groups["average"] = self.average.shadow
            facts["average_steps"] = self.average.steps
        self.group.on_first(lambda: checkpoints.write(self.run.checkpoint, groups, facts))

    def _restore(self) -> int:
        """Restore the checkpoint; returns the length of the metrics file at that time."""
        groups, facts = checkpoints.read_last_good(self.run.checkpoint)
        try:
            keep = self._restore_state(groups, facts)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(
                f"The checkpoint {self.run.checkpoint} is not of this run ({type(error).__name__}: "
                f"{brief(error)}). Delete it to train again from the start."
            ) from error
        if self.group.first and self.step < self._total():
            log.info(
                "Resuming %s after step %d of %d, in epoch %d of %d, from its checkpoint of %s.",
                self.run.path,
                self.step,
                self._total(),
                self.step // self.steps_per_epoch + 1,
                self.settings.epochs,
                facts.get("written", "an unknown time"),
            )
        return keep

    def _restore_state(self, groups: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> int:
        step, keep, released_at = facts["step"], facts["metrics_bytes"], facts["released_at"]
        if not all(type(number) is int and number >= 0 for number in (step, keep, released_at or 0)):
            raise ValueError("a count is not a whole number")
        if step > self._total():
            raise ValueError(f"its step {step} exceeds the {self._total()} steps of the run")
        ended = facts["last_epoch"]
        if not isinstance(ended, dict) or not all(math.isfinite(value) for value in ended.values()):
            raise ValueError("its last epoch has values that are not finite numbers")
        if step == self._total() and not {"test_accuracy", "collapsed"} <= set(ended):
            raise ValueError("its result of the training is missing")
        device = self.fabric.device
        self.model.load_state_dict(groups["model"])
        for name, optimizer in self.optimizers.items():
            checkpoints.restore_optimizer(optimizer, groups.get(name, {}))
        averages = {name: value.to(device) for name, value in groups.get("averages", {}).items()}
        self.averages.restore(averages, facts["counts"])
        self.callbacks.restore(groups)
        self.stopper.restore(facts.get("early_stopping", {}), groups.get("best", {}), set(groups["model"]))
        self.group.loss_scale.restore(facts.get("loss_scale", {}))
        if self.average is not None:
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name])
            self.average.steps = facts["average_steps"]
            if type(self.average.steps) is not int or self.average.steps < 1:
                raise ValueError("its moving average has no steps")
        self.step, self.rho.released_at, self.last_epoch = step, released_at, ended
        return int(keep)


def noise_seed(seed: int, step: int) -> int:
    """Seed of the noise of a step, hashed since torch's CPU generator uses only the low 32 bits."""
    return int(files.sha256(f"{seed}/{step}".encode())[:15], 16)
