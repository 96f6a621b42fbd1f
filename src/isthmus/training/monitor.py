"""What a run shows and writes while it trains: a progress bar, JSON lines, and TensorBoard where asked."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from isthmus.core.errors import FileError, ModelError
from isthmus.core.types import Terms
from isthmus.information.measures import mni_distance

SHOWN = {
    "ce": "ce",
    "rate": "R",
    "residual": "ReX",
    "rate_lower": "I(X;Z)≥",
    "i_yz_lower": "I(Y;Z)≥",
    "accuracy": "acc",
}

LARGEST_LOSS = 1e6  # nats
NEVER_NEGATIVE = {
    "residual": "The residual information",
    "reverse_residual": "The residual information of the labels' codes",
    "rate": "The rate",
    "rate_upper": "The upper bound on I(X;Z)",
}
REMEDY = "Try a smaller learning rate, training.clip_norm=1 or training.precision=float32."
NOISE = 30.0  # a mean over n samples is this / n nats below its expectation of 0 with a probability of e^-30
ROUNDING = 0.1  # nats; generous, of float32 where rates are large


class Averages:
    """Means of the terms over a window and over an epoch, weighted by examples, on the device, without waiting for it.

    ``rate_lower_max`` is the running maximum of the rate's lower bound over all steps of the run.

    Args:
        i_xy: I(X;Y) in nats, for the distance to the MNI point; H(Y) where labels follow from images.
    """

    def __init__(self, i_xy: float) -> None:
        self.i_xy = i_xy
        self.sums: dict[str, dict[str, Tensor]] = {"window": {}, "epoch": {}}
        self.counts: dict[str, dict[str, int]] = {"window": {}, "epoch": {}}
        self.rate_lower_max: Tensor | None = None

    @torch.no_grad()
    def add(self, terms: Terms, examples: int) -> None:
        """Take in one batch."""
        for name, value in terms.measured().items():
            if not isinstance(value, Tensor):
                continue
            for kind, sums in self.sums.items():
                weighted = value.detach().double() * examples
                sums[name] = sums[name] + weighted if name in sums else weighted
                self.counts[kind][name] = self.counts[kind].get(name, 0) + examples
        if terms.rate_lower is not None:
            best, new = self.rate_lower_max, terms.rate_lower.detach().double()
            self.rate_lower_max = new.clone() if best is None else torch.maximum(best, new)

    def take(self, kind: str) -> dict[str, float]:
        """Means of the "window" or the "epoch" so far, with what follows from them, and start it anew."""
        means = {name: float(total) / self.counts[kind][name] for name, total in self.sums[kind].items()}
        self.sums[kind], self.counts[kind] = {}, {}
        return means | self._lengths(means)

    def _lengths(self, means: dict[str, float]) -> dict[str, float]:
        # lengths of means: means of lengths would count each batch's noise as if it were distance
        found = {}
        if "rate_lower" in means:
            found["mni_distance"] = mni_distance(means["rate_lower"], means["i_yz_lower"], self.i_xy)
        if "consistency_gap" in means:
            found["consistency"] = abs(means["consistency_gap"])
        return found

    def tensors(self) -> dict[str, Tensor]:
        """State for a checkpoint, beside ``counts``."""
        state = {f"{kind}.{name}": total for kind, sums in self.sums.items() for name, total in sums.items()}
        return state if self.rate_lower_max is None else state | {"rate_lower_max": self.rate_lower_max}

    def restore(self, tensors: dict[str, Tensor], counts: dict[str, dict[str, int]]) -> None:
        """Put state from a checkpoint back.

        Raises:
            ValueError: sums and counts do not belong together, or something is no number.
        """
        if (
            any(value.dim() for value in tensors.values())
            or not tensors.get("rate_lower_max", torch.ones(())).isfinite()
        ):
            raise ValueError("its averages are no numbers")
        self.counts = {kind: dict(named) for kind, named in counts.items()}
        self.rate_lower_max = tensors.get("rate_lower_max")
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if name:
                self.sums[kind][name] = value
        if {kind: set(sums) for kind, sums in self.sums.items()} != {kind: set(n) for kind, n in self.counts.items()}:
            raise ValueError("its counts are not those of its sums")
        if not all(type(n) is int and n > 0 for named in self.counts.values() for n in named.values()):
            raise ValueError("a count is no whole number above 0")


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsFile:
    """JSON lines, flushed as they come; a resumed run cuts off what came after its checkpoint.

    Raises:
        FileError: the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, keep: int = 0, tensorboard: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._file.truncate(min(keep, path.stat().st_size))  # a longer one would be filled up with zeros
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise FileError(f"Cannot write metrics to {path}: {error.strerror}.") from None
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(path.parent / "tensorboard"))

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. Non-finite numbers become null: JSON has none."""
        clean = {name: _finite(value) for name, value in line.items()}
        try:
            self._file.write((json.dumps(clean) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise FileError(
                f"Cannot write metrics to {self.path}: {error.strerror}. The last checkpoint is whole; free some space "
                "and run the same command again."
            ) from None
        if self._board is not None:
            for name, value in clean.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, line["step"])

    def position(self) -> int:
        """Bytes that are safely on disk, for a checkpoint to refer to."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file and the TensorBoard writer; a line that did not fit on the disk was complained of before."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board is not None:
            self._board.close()


def check_finite(means: dict[str, float], step: int) -> None:
    """Stop a run whose loss is no longer a number, before it is checkpointed.

    Raises:
        ModelError: the loss is NaN or infinite.
    """
    if not math.isfinite(means.get("total", 0.0)):
        named = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        raise diverged(step, f"the loss is not finite: {named}")


def impossible(means: dict[str, float], examples: int, unit: float = 1.0) -> str:
    """Why the terms of a window cannot be right, as a sentence; empty where they can be.

    KL divergences are at least 0, and so is the expectation of what bounds I(X;Z) from above. The mean of their samples
    over ``examples`` codes is below −a with a probability of e^(−a·examples) at most, since E[e^(log m − log e)] = 1
    under e; a lower bound on I(X;Z) never exceeds the leave-one-out upper bound by more than ln 2.

    Args:
        means: of the terms over the window, in nats.
        examples: how many they are means over.
        unit: what the loss has to be multiplied with for a weight of 1 on its cross-entropy.
    """
    total = unit * means.get("total", 0.0)
    if abs(total) > LARGEST_LOSS:
        return f"The loss is {total:.3g} nats; more than {LARGEST_LOSS:.0e} is no loss of a model that learns. {REMEDY}"
    least = -NOISE / examples - ROUNDING
    for name, value in means.items():
        if name in NEVER_NEGATIVE and value < least:
            return f"{NEVER_NEGATIVE[name]} is {value:.3g} nats on average, below 0 beyond its noise. {REMEDY}"
    lower, upper = means.get("rate_lower", 0.0), means.get("rate_upper", math.inf)
    if lower > upper + math.log(2.0) + ROUNDING:
        return f"The lower bound on I(X;Z), {lower:.3g} nats, is above the upper one, {upper:.3g} nats. {REMEDY}"
    return ""


def diverged(step: int, what: str) -> ModelError:
    """The error of a run whose numbers are no longer numbers."""
    return ModelError(
        f"Training diverged at step {step} ({what}). Try a smaller learning rate, training.clip_norm=1, or "
        "training.precision=float32; the last checkpoint holds finite weights."
    )


Watch = Callable[[float, float, str], None]
"""Called at every step with (steps done, steps in all, the terms of the last window)."""


class Shown(Protocol):
    """Where the loop says how far it is."""

    def advance(self) -> None:
        """One step done."""

    def show(self, means: dict[str, float]) -> None:
        """Show the terms of the last window."""


class Told:
    """Progress for somebody who draws it elsewhere, such as a study that trains several models at once."""

    def __init__(self, watch: Watch, total: int, done: int) -> None:
        self._watch, self._total, self._done, self._terms = watch, total, done, ""

    def advance(self) -> None:
        """One step done."""
        self._done += 1
        self._watch(self._done, self._total, self._terms)

    def show(self, means: dict[str, float]) -> None:
        """Remember the terms of the last window for the next step."""
        self._terms = in_words(means)


def in_words(means: dict[str, float]) -> str:
    """The terms of a window as a line: "ce 0.412 R 2.310 acc 0.870"."""
    return " ".join(f"{label} {means[name]:.3f}" for name, label in SHOWN.items() if name in means)


class Bar:
    """One progress bar on stderr: steps, rate, time left, and the information terms."""

    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, completed=done, terms="")

    def advance(self) -> None:
        """One step done."""
        self._progress.advance(self._task)

    def show(self, means: dict[str, float]) -> None:
        """Show the terms of the last window."""
        self._progress.update(self._task, terms=in_words(means))


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        from rich.text import Text

        return Text(f"{task.speed:.0f} steps/s" if task.speed else "", style="progress.data.speed")


@contextlib.contextmanager
def progress_bar(name: str, total: int, done: int, shown: bool | Watch) -> Iterator[Shown]:
    """A bar for one run; nothing is drawn where stderr is no terminal or ``shown`` is False."""
    if not isinstance(shown, bool):
        yield Told(shown, total, done)
        return
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[terms]}", style="dim"),
        console=console,
        disable=not shown or not console.is_terminal,
        transient=True,
    )
    with progress:
        yield Bar(progress, name, total, done)
