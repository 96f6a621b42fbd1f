"""The training loop: one readable loop over lightning-fabric, resumable after ``kill -9`` at any moment.

Nothing random carries over between steps: the order of an epoch comes from (seed, epoch), the noise of a step from
(seed, step). So a checkpoint needs no generator state, and on a CPU a resumed run ends with bitwise the same weights.
Several processes, or several parts of a batch one after another, make the step that one process makes of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from isthmus.core import files
from isthmus.core.errors import ConfigError, FileError, ModelError, brief, out_of_memory
from isthmus.core.randomness import fold
from isthmus.core.recipe import Recipe
from isthmus.core.types import Terms
from isthmus.data.batches import Batch, Batches
from isthmus.data.images import ImageData, as_float
from isthmus.data.order import shuffled
from isthmus.information.tables import entropy
from isthmus.models import factory
from isthmus.models.learner import Learner
from isthmus.models.noise import Noise, Share
from isthmus.objectives.objective import InformationObjective
from isthmus.training import checkpoints, processes
from isthmus.training.adversarial import Adversary
from isthmus.training.averaging import MovingAverage
from isthmus.training.callback_list import CallbackList
from isthmus.training.evaluation import count_right
from isthmus.training.interrupts import Interrupt, deferred
from isthmus.training.monitor import (
    Averages,
    MetricsFile,
    Shown,
    Watch,
    check_finite,
    diverged,
    impossible,
    progress_bar,
)
from isthmus.training.optimizers import make_optimizer, norm_parameters, parameter_groups
from isthmus.training.run import Run
from isthmus.training.schedules import RhoController, learning_rate_factor, warm_up_factor

# An accuracy this close to chance after the schedule's end is reported as a collapse (fact of the papers: runs with
# too strong a bottleneck stay at chance).
COLLAPSE_MARGIN = 0.02
AT_CHANCE = "Accuracy on the training images is at chance. Try a larger rho or a rho_schedule."


class Trainer:
    """State of one run: model, optimisers, average, schedules, and where it stands."""

    def __init__(self, recipe: Recipe, data: ImageData, run: Run) -> None:
        self.recipe, self.data, self.run = recipe, data, run
        self.settings = recipe.training
        self.team = processes.start(self.settings)
        self.fabric = self.team.fabric
        counts = data.train.labels.bincount(minlength=data.num_classes).tolist()
        self.chance = max(counts) / sum(counts)  # accuracy of the best constant answer
        model = factory.build(recipe, data.shape, data.num_classes, data, counts)
        self.model: Learner = model.to(self.fabric.device)
        if self.settings.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        main, marginal = parameter_groups(self.model)
        self.optimizers = {"optimizer": make_optimizer(self.settings.optimizer, main, norm_parameters(self.model))}
        if marginal:  # a marginal fitted beside the objective gets an optimiser of its own and cannot touch it
            self.optimizers["marginal_optimizer"] = make_optimizer(self.settings.marginal_optimizer, marginal)
        objective = recipe.objective
        self.unit = 1.0  # what the loss is multiplied with for a weight of 1 on its cross-entropy
        if isinstance(objective, InformationObjective) and objective.normalize == "rate":
            self.unit = objective.weight()
        self.average = MovingAverage(self.model, self.settings.ema) if self.settings.ema else None
        self.adversary = Adversary.of_recipe(recipe, self.model, self.team)
        batches = Batches(
            data.train,
            self.settings.batch_size,
            seed=recipe.seed,
            augment=self.settings.augment,
            drop_last=self.settings.parts > 1,
            channels_last=self.settings.channels_last,
            device=self.fabric.device,
            rank=self.team.rank,
            world=self.team.world,
        )
        self.steps_per_epoch = len(batches)
        self.batches = replace(batches, batch_size=self.settings.batch_size // self.settings.accumulate)
        if self.settings.snapshots and self.settings.snapshots[-1] > self._total():
            raise ConfigError(
                f"training.snapshots asks for the weights of step {self.settings.snapshots[-1]}, but the run has "
                f"{self._total()} steps ({self.settings.epochs} epochs of {self.steps_per_epoch})."
            )
        self.model.configured = ""  # a schedule is meant to replace it
        self.rho = RhoController(self.settings.rho_schedule, recipe.objective, self.steps_per_epoch, self._total())
        self.callbacks = CallbackList(self.settings.callbacks, self.model, data, recipe.seed)
        self.averages = Averages(i_xy=entropy([count / sum(counts) for count in counts]))
        self.step = 0
        self.last_epoch: dict[str, Any] = {}
        self.impossible = ""  # why the last window's terms cannot be right, which ends training
        self.weights_digest = ""

    def fit(self, progress: bool | Watch) -> None:
        """Train to the end, from the checkpoint where there is one; leave weights and metrics in the run folder."""
        self.team.first_does(lambda: files.remove_leftovers(self.run.path))
        keep = self._restore() if checkpoints.exists(self.run.checkpoint) else 0
        self.team.share_state(self.model)
        opened = MetricsFile if self.team.first else processes.NoMetrics
        metrics = opened(self.run.metrics_file, keep, self.settings.tensorboard)
        total = self._total()
        shown = progress if self.team.first else False
        try:
            with deferred() as interrupt, progress_bar(self.recipe.name, total, self.step, shown) as bar:
                while self.step < total and not self.impossible:
                    self._epoch(metrics, bar, interrupt)
        finally:
            metrics.close()
        self.weights_digest = self._write_weights(self.run.weights)
        self.team.first_does(lambda: checkpoints.before(self.run.checkpoint).unlink(missing_ok=True))

    def _epoch(self, metrics: MetricsFile, bar: Shown, interrupt: Interrupt) -> None:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        self.model.train()
        if not start and self.model.kernel_points:
            self.model.fit_kernel(self._separate(epoch))
        for parts in self._parts(epoch, start):
            self._set_learning_rate(epoch)
            with self._memory():
                self._step(parts)
            bar.advance()
            if self.step in self.settings.snapshots:
                self._write_weights(self.run.weights_at(self.step))
            if self.step % self.settings.log_every == 0:
                bar.show(self._log(metrics, epoch))
            if self.step % self.steps_per_epoch == 0 or self.impossible:
                self._end_epoch(metrics, epoch)
            if self.impossible:
                return  # without a checkpoint of it
            stop = self.team.anyone(interrupt.asked)
            if stop or 0 in (self.step % self.settings.checkpoint_every, self.step % self.steps_per_epoch):
                self._checkpoint(metrics)
            if stop:
                raise KeyboardInterrupt

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Say what to do where a step does not fit into memory."""
        try:
            yield
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise ModelError(
                f"Step {self.step + 1} does not fit into memory: {self.settings.batch_size} images a batch, "
                f"{self.settings.batch_size // self.settings.parts} at a time ({brief(error, 200)}). Where other "
                "programs had the memory, the same command goes on from the last checkpoint; otherwise start anew with "
                f"training.accumulate={2 * self.settings.accumulate}, which gives the same gradient, or a smaller "
                "training.batch_size."
            ) from None

    def _separate(self, epoch: int) -> Tensor:
        """Training images for :meth:`isthmus.models.learner.Learner.fit_kernel`, drawn anew for each epoch."""
        train = self.data.train
        keys = fold(torch.arange(len(train)), "training/kernel", self.recipe.seed, epoch)
        chosen = train.select(shuffled(keys)[: self.model.kernel_points])
        return as_float(chosen.images).to(self.fabric.device)

    def _total(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    def _parts(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        """This process's share of each batch, in as many parts as are seen one after another."""
        count = self.settings.accumulate
        stream = self.batches.epoch(epoch, start * count)
        return zip(*[stream] * count, strict=False)  # batches whose last parts are missing are left out

    def _set_learning_rate(self, epoch: int) -> None:
        schedule = self.settings.learning_rate
        factor = learning_rate_factor(schedule, epoch) * warm_up_factor(schedule, self.step / self.steps_per_epoch)
        for group in self.optimizers["optimizer"].param_groups:
            group["lr"] = self.settings.optimizer.lr * factor

    def _step(self, parts: Sequence[Batch]) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        terms = self.team.mean([self._backward(part, number) for number, part in enumerate(parts)])
        self.team.average_gradients(self.model.parameters())
        self.team.loss_scale.unscale(self.optimizers.values())
        self.callbacks.gradients()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameter_groups(self.model)[0], self.settings.clip_norm)
        self.team.loss_scale.take_steps(self.optimizers.values())
        if self.average is not None:
            self.average.update()
        self.averages.add(terms, self.team.world * sum(len(part.labels) for part in parts))
        self.step += 1

    def _backward(self, part: Batch, number: int) -> Terms:
        if self.adversary is not None:
            part = self.adversary.attack(part, self.step)
        with self.fabric.autocast():
            rho, noise = self.rho.at(self.step), self._noise(number)
            terms = self.model.loss(part.images, part.labels, rho, noise, self.team.gather)
        loss = terms.total if terms.marginal_nll is None else terms.total + terms.marginal_nll
        self.fabric.backward(loss / self.settings.accumulate)
        return terms

    def _noise(self, number: int) -> Noise:
        """What a process that sees the whole batch would draw for this part of it."""
        generator = torch.Generator(self.fabric.device).manual_seed(noise_seed(self.recipe.seed, self.step))
        if self.settings.parts == 1:
            return generator
        size = self.batches.batch_size
        rows = slice(number * size + self.team.rank, (number + 1) * size, self.team.world)
        return Share(generator, self.settings.batch_size, rows)

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
        found = self.team.first_does(lambda: impossible(means, examples, self.unit))  # one decision for all processes
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
        if said := self.callbacks.end_epoch(epoch, last):
            metrics.write({"step": self.step, "epoch": epoch, "observed": said})
        at_chance = means["accuracy"] <= self.chance + COLLAPSE_MARGIN
        where = {"step": self.step, "epoch": epoch}
        seen = {f"epoch_{name}": value for name, value in means.items()}
        if not last and (epoch + 1) % self.settings.validate_every:
            metrics.write(where | seen)
            return
        test_accuracy = self._test_accuracy()
        if self.adversary is not None:  # attacked images may well be less accurate than chance
            at_chance = at_chance and test_accuracy <= self.chance + COLLAPSE_MARGIN
        tested = {
            "test_accuracy": test_accuracy,
            # a gate may never open
            "collapsed": bool(self.impossible) or (at_chance and (last or self.rho.finished(self.step))),
        }
        self.last_epoch = where | tested | seen
        metrics.write(self.last_epoch)

    def _test_accuracy(self) -> float:
        self.team.share_buffers(self.model)
        test, rank = self.data.test, self.team.rank
        right = torch.zeros((), dtype=torch.int64, device=self.fabric.device)
        if rank < len(test):
            share = test if self.team.world == 1 else test.select(torch.arange(rank, len(test), self.team.world))
            right = count_right(self.model, share, self._averaged_weights(), self.settings.channels_last)
        return self.team.total(right) / len(test)

    def result(self) -> dict[str, Any]:
        """What ``run.json`` keeps of a run that ended; ``collapse`` says why where it collapsed."""
        maximum = self.averages.rate_lower_max
        found = {key: value for key, value in self.last_epoch.items() if key != "epoch"}
        if found["collapsed"]:
            found |= {"collapse": self.impossible or AT_CHANCE, "impossible": bool(self.impossible)}
        found["weights_sha256"] = self.weights_digest
        found["parameters"] = sum(p.numel() for p in self.model.parameters())
        if maximum is not None:
            found["rate_lower_max"] = float(maximum)
        return found

    def _averaged_weights(self) -> dict[str, Tensor]:
        return self.average.weights() if self.average is not None else {}

    def _write_weights(self, path: Path) -> str:
        """Write the weights as they would be used now; returns their checksum, which the file says too."""
        self._check_weights()
        self.team.share_buffers(self.model)
        state = self.model.state_dict() | self._averaged_weights()
        flat = {name: value.cpu().contiguous() for name, value in state.items()}
        digest = checkpoints.digest(flat)
        self.team.first_does(lambda: files.write_bytes(path, save(flat, {"sha256": digest})))
        return digest

    def _check_weights(self) -> None:
        """Never write weights that are not numbers: the last checkpoint stays one to go on from."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise diverged(self.step, "a weight is not finite")

    def _checkpoint(self, metrics: MetricsFile) -> None:
        self._check_weights()
        self.team.loss_scale.check(self.step)
        self.team.share_buffers(self.model)
        groups = {"model": self.model.state_dict(), "averages": self.averages.tensors()}
        groups |= {name: checkpoints.optimizer_tensors(optimizer) for name, optimizer in self.optimizers.items()}
        facts = {
            "step": self.step,
            "metrics_bytes": metrics.position(),
            "counts": self.averages.counts,
            "released_at": self.rho.released_at,
            "last_epoch": self.last_epoch,
            "loss_scale": self.team.loss_scale.facts(),
        }
        groups |= self.callbacks.tensors()
        if self.average is not None:
            groups["average"] = self.average.shadow
            facts["average_steps"] = self.average.steps
        self.team.first_does(lambda: checkpoints.write(self.run.checkpoint, groups, facts))

    def _restore(self) -> int:
        """Go back to the checkpoint; returns how many bytes of metrics belong to it."""
        groups, facts = checkpoints.read_last_good(self.run.checkpoint)
        try:
            return self._take_up(groups, facts)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(
                f"The checkpoint {self.run.checkpoint} is not of this run ({type(error).__name__}: "
                f"{brief(error)}). Delete it to train again from the start."
            ) from error

    def _take_up(self, groups: dict[str, dict[str, Tensor]], facts: dict[str, Any]) -> int:
        step, keep, released_at = facts["step"], facts["metrics_bytes"], facts["released_at"]
        if not all(type(number) is int and number >= 0 for number in (step, keep, released_at or 0)):
            raise ValueError("a count is no whole number")
        if step > self._total():
            raise ValueError(f"it is of step {step}, and the run has {self._total()}")
        ended = facts["last_epoch"]
        if not isinstance(ended, dict) or not all(math.isfinite(value) for value in ended.values()):
            raise ValueError("what it says of the last epoch is no number")
        if step == self._total() and not {"test_accuracy", "collapsed"} <= set(ended):
            raise ValueError("it does not say how training ended")
        device = self.fabric.device
        self.model.load_state_dict(groups["model"])
        for name, optimizer in self.optimizers.items():
            checkpoints.restore_optimizer(optimizer, groups.get(name, {}))
        averages = {name: value.to(device) for name, value in groups.get("averages", {}).items()}
        self.averages.restore(averages, facts["counts"])
        self.callbacks.restore(groups)
        self.team.loss_scale.restore(facts.get("loss_scale", {}))
        if self.average is not None:
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name])
            self.average.steps = facts["average_steps"]
            if type(self.average.steps) is not int or self.average.steps < 1:
                raise ValueError("the moving average is of no step")
        self.step, self.rho.released_at, self.last_epoch = step, released_at, ended
        return int(keep)


def noise_seed(seed: int, step: int) -> int:
    """Seed of a step's noise. Hashed: torch's CPU generator looks at the low 32 bits alone."""
    return int(files.sha256(f"{seed}/{step}".encode())[:15], 16)
