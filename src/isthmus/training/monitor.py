"""Metrics of a run while it trains: averages, the metrics file, and checks for impossible values."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from isthmus.core.errors import FileError, ModelError
from isthmus.core.types import Terms
from isthmus.information.measures import mni_distance
from isthmus.training.loggers.logger import LoggerList

LARGEST_LOSS = 1e6  # nats
NEVER_NEGATIVE = {
    "residual": "The residual information",
    "reverse_residual": "The residual information of codes from labels",
    "rate": "The rate",
    "rate_upper": "The upper bound on I(X;Z)",
}
REMEDY = "Try a smaller learning rate, training.clip_norm=1 or training.precision=float32."
NOISE = 30.0  # a mean over n samples is this / n nats below its expectation of 0 with probability e^-30
ROUNDING = 0.1  # nats; generous for float32 at large rates


class TermAverages:
    """Means of the terms over a window and over an epoch, weighted by examples, without synchronising the device.

    ``rate_lower_max`` is the running maximum of the rate's lower bound over all steps of the run.

    Args:
        i_xy: I(X;Y) in nats, for the distance to the MNI point; H(Y) if images determine labels.
    """

    def __init__(self, i_xy: float) -> None:
        self.i_xy = i_xy
        self.sums: dict[str, dict[str, Tensor]] = {"window": {}, "epoch": {}}
        self.counts: dict[str, dict[str, int]] = {"window": {}, "epoch": {}}
        self.rate_lower_max: Tensor | None = None

    @torch.no_grad()
    def add(self, terms: Terms, examples: int) -> None:
        """Add one batch."""
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
        """Means and derived quantities of the "window" or the "epoch" so far; then reset it."""
        means = {name: float(total) / self.counts[kind][name] for name, total in self.sums[kind].items()}
        self.sums[kind], self.counts[kind] = {}, {}
        return means | self._derived(means)

    def _derived(self, means: dict[str, float]) -> dict[str, float]:
        # distances of means: means of distances would include the noise of each batch
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
        """Restore the state of a checkpoint.

        Raises:
            ValueError: sums and counts do not match, or a value is no number.
        """
        if (
            any(value.dim() for value in tensors.values())
            or not tensors.get("rate_lower_max", torch.ones(())).isfinite()
        ):
            raise ValueError("its averages are not numbers")
        self.counts = {kind: dict(named) for kind, named in counts.items()}
        self.rate_lower_max = tensors.get("rate_lower_max")
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if name:
                self.sums[kind][name] = value
        if {kind: set(sums) for kind, sums in self.sums.items()} != {kind: set(n) for kind, n in self.counts.items()}:
            raise ValueError("its counts do not match its sums")
        if not all(type(n) is int and n > 0 for named in self.counts.values() for n in named.values()):
            raise ValueError("a count is not a positive integer")


def _finite(value: Any) -> Any:
    """Replace every number that is not finite by None."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsFile:
    """JSON lines, flushed at once. A resumed run truncates the file to the length at its checkpoint.

    Args:
        path: None for a process that writes no file.
        keep: number of bytes to keep.
        loggers: get every line as well.

    Raises:
        FileError: the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path | None, keep: int = 0, loggers: LoggerList | None = None) -> None:
        self.path, self._loggers = path, loggers or LoggerList([])
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            self._file.truncate(min(keep, path.stat().st_size))  # truncating to a greater length would append zeros
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise FileError(f"Cannot write metrics to {path}: {error.strerror}.") from None

    def write(self, line: dict[str, Any]) -> None:
        """Append one line. Non-finite numbers become null: JSON has none."""
        if self._file is None:
            return
        clean = _finite(line)
        try:
            self._file.write((json.dumps(clean) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise FileError(
                f"Cannot write metrics to {self.path}: {error.strerror}. The last checkpoint is complete; free some "
                "space and run the same command again."
            ) from None
        self._loggers.write(clean)

    def position(self) -> int:
        """Number of bytes that are safely on disk, for a checkpoint."""
        if self._file is None:
            return 0
        self._loggers.checkpoint()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self, finished: bool) -> None:
        """Close the file and the loggers; a full disk was reported by :meth:`write`."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._loggers.close(finished)


def check_finite(means: dict[str, float], step: int) -> None:
    """Stop a run whose loss is not finite, before it is checkpointed.

    Raises:
        ModelError: the loss is NaN or infinite.
    """
    if not math.isfinite(means.get("total", 0.0)):
        named = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        raise diverged(step, f"the loss is not finite: {named}")


def impossible(means: dict[str, float], examples: int, unit: float = 1.0) -> str:
    """Why the terms of a window are mathematically impossible, as a sentence; empty if they are not.

    KL divergences are at least 0, and so are expectations of upper bounds on I(X;Z). The mean of their samples over
    ``examples`` codes is below −a with probability at most e^(−a·examples), since E[e^(log m − log e)] = 1 under e. A
    lower bound on I(X;Z) never exceeds the leave-one-out upper bound by more than ln 2.

    Args:
        means: of the terms over the window, in nats.
        examples: number of examples in the means.
        unit: factor on the loss that gives its cross-entropy a weight of 1.
    """
    total = unit * means.get("total", 0.0)
    if abs(total) > LARGEST_LOSS:
        return f"The loss is {total:.3g} nats; a loss above {LARGEST_LOSS:.0e} means that training fails. {REMEDY}"
    least = -NOISE / examples - ROUNDING
    for name, value in means.items():
        if name in NEVER_NEGATIVE and value < least:
            return f"{NEVER_NEGATIVE[name]} is {value:.3g} nats on average, below 0 beyond its noise. {REMEDY}"
    lower, upper = means.get("rate_lower", 0.0), means.get("rate_upper", math.inf)
    if lower > upper + math.log(2.0) + ROUNDING:
        return f"The lower bound on I(X;Z), {lower:.3g} nats, is above the upper one, {upper:.3g} nats. {REMEDY}"
    return ""


def diverged(step: int, what: str) -> ModelError:
    """The error of a run with numbers that are not finite."""
    return ModelError(
        f"Training diverged at step {step} ({what}). Try a smaller learning rate, training.clip_norm=1, or "
        "training.precision=float32; the last checkpoint has finite weights."
    )
