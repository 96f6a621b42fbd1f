"""The training loop: one readable loop over lightning-fabric, resumable after ``kill -9`` at any moment.

Nothing random carries over between steps: the order of an epoch comes from (seed, epoch), the noise of a step from
(seed, step). So a checkpoint needs no generator state, and on a CPU a resumed run ends with bitwise the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from isthmus import classifier, files
from isthmus.data.batches import Batches
from isthmus.data.images import ImageData, Split
from isthmus.information.tables import entropy
from isthmus.nets.bottleneck import Bottleneck
from isthmus.recipe import Optimizer, Recipe
from isthmus.training import checkpoints
from isthmus.training.averaging import MovingAverage
from isthmus.training.interrupts import Interrupt, deferred
from isthmus.training.monitor import Averages, MetricsFile, Shown, Watch, check_finite, diverged, progress_bar
from isthmus.training.optimizers import make_optimizer, parameter_groups
from isthmus.training.run import Run
from isthmus.training.schedules import RhoController, learning_rate_factor

# An accuracy this close to chance after the schedule's end is reported as a collapse (fact of the papers: runs with
# too strong a bottleneck stay at chance).
COLLAPSE_MARGIN = 0.02


class Trainer:
    """State of one run: model, optimisers, average, schedules, and where it stands."""

    def __init__(self, recipe: Recipe, data: ImageData, run: Run) -> None:
        from lightning_fabric import Fabric  # 2 s of imports that only training needs

        self.recipe, self.data, self.run = recipe, data, run
        self.settings = recipe.training
        precision = "bf16-mixed" if self.settings.precision == "bf16" else "32-true"
        self.fabric = Fabric(accelerator=_accelerator(self.settings.accelerator), devices=1, precision=precision)  # type: ignore[arg-type]
        counts = data.train.labels.bincount(minlength=data.num_classes).tolist()
        self.chance = max(counts) / sum(counts)  # accuracy of the best constant answer
        model = classifier.build(recipe, data.shape, data.num_classes, (data.mean, data.std), counts)
        self.model: Bottleneck = model.to(self.fabric.device)
        if self.settings.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        main, marginal = parameter_groups(self.model)
        self.optimizers = {"optimizer": make_optimizer(self.settings.optimizer, main)}
        if marginal:  # a marginal fitted beside the objective gets an optimiser of its own and cannot touch it
            self.optimizers["marginal_optimizer"] = make_optimizer(Optimizer(), marginal)
        self.average = MovingAverage(self.model, self.settings.ema) if self.settings.ema else None
        self.batches = Batches(
            data.train,
            self.settings.batch_size,
            seed=recipe.seed,
            augment=self.settings.augment,
            channels_last=self.settings.channels_last,
            device=self.fabric.device,
        )
        self.steps_per_epoch = len(self.batches)
        self.rho = RhoController(self.settings.rho_schedule, recipe.objective, self.steps_per_epoch)
        self.averages = Averages(i_xy=entropy([count / sum(counts) for count in counts]))
        self.step = 0
        self.last_epoch: dict[str, Any] = {}
        self.weights_digest = ""

    def fit(self, progress: bool | Watch) -> None:
        """Train to the end, from the checkpoint where there is one; leave weights and metrics in the run folder."""
        files.remove_leftovers(self.run.path)
        keep = self._restore() if self.run.checkpoint.exists() else 0
        metrics = MetricsFile(self.run.metrics_file, keep, self.settings.tensorboard)
        total = self.settings.epochs * self.steps_per_epoch
        wrapped = self.fabric.setup_module(self.model)
        wrapped.mark_forward_method("loss")
        try:
            with deferred() as interrupt, progress_bar(self.recipe.name, total, self.step, progress) as bar:
                while self.step < total:
                    self._epoch(wrapped, metrics, bar, interrupt)
        finally:
            metrics.close()
        self._write_weights()

    def _epoch(self, wrapped: Any, metrics: MetricsFile, bar: Shown, interrupt: Interrupt) -> None:
        epoch, start = divmod(self.step, self.steps_per_epoch)
        factor = learning_rate_factor(self.settings.learning_rate, epoch)
        for group in self.optimizers["optimizer"].param_groups:
            group["lr"] = self.settings.optimizer.lr * factor
        self.model.train()
        for images, labels, _ in self.batches.epoch(epoch, start):
            self._step(wrapped, images, labels)
            bar.advance()
            if self.step % self.settings.log_every == 0:
                bar.show(self._log(metrics, epoch))
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch(metrics, epoch)
            if interrupt.asked or 0 in (self.step % self.settings.checkpoint_every, self.step % self.steps_per_epoch):
                self._checkpoint(metrics)
            if interrupt.asked:
                raise KeyboardInterrupt

    def _step(self, wrapped: Any, images: Tensor, labels: Tensor) -> None:
        noise = torch.Generator(self.fabric.device).manual_seed(noise_seed(self.recipe.seed, self.step))
        with self.fabric.autocast():  # a method other than forward gets no precision context of its own
            terms = wrapped.loss(images, labels, self.rho.at(self.step), noise)
        loss = terms.total if terms.marginal_nll is None else terms.total + terms.marginal_nll
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameter_groups(self.model)[0], self.settings.clip_norm)
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self.average is not None:
            self.average.update()
        self.averages.add(terms, len(labels))
        self.step += 1

    def _log(self, metrics: MetricsFile, epoch: int) -> dict[str, float]:
        means = self.averages.take("window")
        check_finite(means, self.step)
        maximum = self.averages.rate_lower_max
        extra = {} if maximum is None else {"rate_lower_max": float(maximum)}
        metrics.write({"step": self.step, "epoch": epoch} | self._knobs() | means | extra)
        return means

    def _knobs(self) -> dict[str, float]:
        rho = self.rho.at(self.step - 1)
        lr = self.optimizers["optimizer"].param_groups[0]["lr"]
        return {"lr": lr} if rho is None else {"lr": lr, "rho": rho}

    def _end_epoch(self, metrics: MetricsFile, epoch: int) -> None:
        means = self.averages.take("epoch")
        check_finite(means, self.step)
        self.rho.end_epoch(self.step, means["accuracy"])
        last = self.step == self.settings.epochs * self.steps_per_epoch
        if not last and (epoch + 1) % self.settings.validate_every:
            return
        accuracy = evaluate(self.model, self.data.test, self._averaged_weights(), self.settings.channels_last)
        at_chance = means["accuracy"] <= self.chance + COLLAPSE_MARGIN
        self.last_epoch = {
            "step": self.step,
            "epoch": epoch,
            "test_accuracy": accuracy,
            "collapsed": at_chance and (last or self.rho.finished(self.step)),  # a gate may never open
        } | {f"epoch_{name}": value for name, value in means.items()}
        metrics.write(self.last_epoch)

    def result(self) -> dict[str, Any]:
        """What ``run.json`` keeps of a finished run."""
        maximum = self.averages.rate_lower_max
        found = {key: value for key, value in self.last_epoch.items() if key != "epoch"}
        found["weights_sha256"] = self.weights_digest
        found["parameters"] = sum(p.numel() for p in self.model.parameters())
        if maximum is not None:
            found["rate_lower_max"] = float(maximum)
        return found

    def _averaged_weights(self) -> dict[str, Tensor]:
        return self.average.weights() if self.average is not None else {}

    def _write_weights(self) -> None:
        self._check_weights()
        state = self.model.state_dict() | self._averaged_weights()
        flat = {name: value.cpu().contiguous() for name, value in state.items()}
        self.weights_digest = checkpoints.digest(flat)
        files.write_bytes(self.run.weights, save(flat))

    def _check_weights(self) -> None:
        """Never write weights that are not numbers: the last checkpoint stays one to go on from."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise diverged(self.step, "a weight is not finite")

    def _checkpoint(self, metrics: MetricsFile) -> None:
        self._check_weights()
        groups = {"model": self.model.state_dict(), "averages": self.averages.tensors()}
        groups |= {name: checkpoints.optimizer_tensors(optimizer) for name, optimizer in self.optimizers.items()}
        facts = {
            "step": self.step,
            "metrics_bytes": metrics.position(),
            "counts": self.averages.counts,
            "released_at": self.rho.released_at,
            "last_epoch": self.last_epoch,
        }
        if self.average is not None:
            groups["average"] = self.average.shadow
            facts["average_steps"] = self.average.steps
        checkpoints.write(self.run.checkpoint, groups, facts)

    def _restore(self) -> int:
        """Go back to the checkpoint; returns how many bytes of metrics belong to it."""
        groups, facts = checkpoints.read(self.run.checkpoint)
        device = self.fabric.device
        self.model.load_state_dict(groups["model"])
        for name, optimizer in self.optimizers.items():
            checkpoints.restore_optimizer(optimizer, groups.get(name, {}))
        averages = {name: value.to(device) for name, value in groups.get("averages", {}).items()}
        self.averages.restore(averages, facts["counts"])
        if self.average is not None:
            for name, value in self.average.shadow.items():
                value.copy_(groups["average"][name])
            self.average.steps = facts["average_steps"]
        self.step, self.rho.released_at, self.last_epoch = (
            facts["step"],
            facts["released_at"],
            facts["last_epoch"],
        )
        keep: int = facts["metrics_bytes"]
        return keep


def noise_seed(seed: int, step: int) -> int:
    """Seed of a step's noise. Hashed: torch's CPU generator looks at the low 32 bits alone."""
    return int(files.sha256(f"{seed}/{step}".encode())[:15], 16)


def _accelerator(name: str) -> str:
    # Not Fabric's "auto": it would pick Apple's MPS, which has no float64, and the bounds are computed in float64.
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@torch.no_grad()
def evaluate(model: Bottleneck, split: Split, weights: Mapping[str, Tensor], channels_last: bool = False) -> float:
    """Mean-mode accuracy on a split in [0, 1], with some weights replaced (a moving average)."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    right = 0
    served = Batches(split, 1000, shuffle=False, channels_last=channels_last, device=device)
    for images, labels, _ in served.epoch():
        logits = torch.func.functional_call(model, dict(weights), (images,))
        right += int((logits.argmax(-1) == labels).sum())
    model.train(was_training)
    return right / len(split.labels)
