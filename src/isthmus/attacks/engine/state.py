"""The state of an evaluation, example by example: on the CPU, and in a file to resume from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isthmus.attacks.engine.averages import Reading
from isthmus.attacks.engine.batch import Rows
from isthmus.attacks.engine.verifier import VerifierResult
from isthmus.core import files
from isthmus.core.errors import FileError, brief

_FORMAT = "isthmus evaluation 4"


@dataclass
class EvaluationState(Rows):
    """Everything known of every example. Rows can be processed elsewhere and put back.

    Attributes:
        correct: whether the clean image is classified as its label.
        broken: whether an adversarial image was found.
        stage: position of the attack that broke or invalidated the example; −1 if it is robust.
        adversarial: adversarial images, NaN if not broken.
        margin: smallest margin found inside the ball, in logits; negative if broken.
        run, step, target_class: of the attack that broke it: which run, after how many steps, directed at which class
            (−1: none).
        forwards, backwards: example-passes spent on it.
        zero_gradients: steps at which its gradient was exactly zero.
        tries: how many proposals for a random model were tested.
        ranked: wrong classes by falling logit, on the clean image until an attack ranks them anew.
        done: runs of the present attack that are over.
        scores: smallest margin of each run; NaN until it is over.
        marks: notes that a suite's selection rules leave for later ones.
        nearest: for a random model, the image with the smallest margin on average so far, at first the clean image;
            like all columns below None for other models.
        nearest_margin, nearest_stage, nearest_run: that margin, in ln of mean probabilities, and the attack and run
            that found it.
        lead: from the final reading there, the mean probability by which the attacker's success leads.
        draws: how many draws that mean is over; 0 before the reading.
        once: whether the first of them alone is a success.
        sure: whether the average is one with 99% confidence.
    """

    correct: Bool[Tensor, " n"]
    broken: Bool[Tensor, " n"]
    stage: Int[Tensor, " n"]
    adversarial: Float[Tensor, "n c h w"]
    margin: Float[Tensor, " n"]
    run: Int[Tensor, " n"]
    step: Int[Tensor, " n"]
    target_class: Int[Tensor, " n"]
    forwards: Int[Tensor, " n"]
    backwards: Int[Tensor, " n"]
    zero_gradients: Int[Tensor, " n"]
    tries: Int[Tensor, " n"]
    ranked: Int[Tensor, "n others"]
    done: Int[Tensor, " n"]
    scores: Float[Tensor, "n runs"]
    marks: Int[Tensor, " n"]
    nearest: Float[Tensor, "n c h w"] | None = None
    nearest_margin: Float[Tensor, " n"] | None = None
    nearest_stage: Int[Tensor, " n"] | None = None
    nearest_run: Int[Tensor, " n"] | None = None
    lead: Float[Tensor, " n"] | None = None
    draws: Int[Tensor, " n"] | None = None
    once: Bool[Tensor, " n"] | None = None
    sure: Bool[Tensor, " n"] | None = None

    @classmethod
    def new(cls, images: Float[Tensor, "n c h w"]) -> Self:
        """The state of images that were not evaluated yet."""
        n = len(images)
        images = images.cpu()

        def whole(value: int) -> Tensor:
            return torch.full((n,), value, dtype=torch.int64)

        return cls(
            correct=torch.zeros(n, dtype=torch.bool),
            broken=torch.zeros(n, dtype=torch.bool),
            stage=whole(-1),
            adversarial=torch.full(images.shape, torch.nan),
            margin=torch.full((n,), torch.inf),
            run=whole(-1),
            step=whole(-1),
            target_class=whole(-1),
            forwards=whole(0),
            backwards=whole(0),
            zero_gradients=whole(0),
            tries=whole(0),
            ranked=torch.zeros(n, 0, dtype=torch.int64),
            done=whole(0),
            scores=torch.zeros(n, 0),
            marks=whole(0),
        )

    def for_random(self, images: Float[Tensor, "n c h w"]) -> Self:
        """Add the columns for a random model; the nearest images are the clean ones."""
        none, never = torch.zeros_like(self.stage), torch.zeros_like(self.broken)
        return self._with(
            {
                "nearest": images.detach().cpu().float().clone(),
                "nearest_margin": torch.full_like(self.margin, torch.inf),
                "nearest_stage": none.clone(),
                "nearest_run": none - 1,
                "lead": torch.full_like(self.margin, torch.nan),
                "draws": none.clone(),
                "once": never.clone(),
                "sure": never.clone(),
            }
        )

    @property
    def robust(self) -> Bool[Tensor, " n"]:
        """Examples that are neither broken nor invalid."""
        return self.stage < 0

    def open_stage(self, runs: int) -> None:
        """Reset ``done`` and ``scores`` for the runs of the next attack."""
        self.done = torch.zeros_like(self.done)
        self.scores = torch.full((len(self), runs), torch.nan)

    def record(self, rows: Tensor, checked: VerifierResult, stage: int) -> Bool[Tensor, " n"]:
        """Record verified proposals; return (on the CPU) which examples are now broken or invalid."""
        broken, finite = checked.broken.cpu(), checked.finite.cpu()
        decided = broken | ~finite
        won = rows[broken]
        self.adversarial[won] = checked.images[checked.broken].cpu()
        self.margin[won] = checked.margin[checked.broken].float().cpu()
        self.broken[won] = True
        self.stage[rows[decided]] = stage  # last: an example that is interrupted before this is still robust
        return decided

    def record_nearest(self, rows: Tensor, checked: VerifierResult, stage: int, runs: Tensor | int) -> None:
        """For a random model, keep proposals whose margin is smaller than any before; ``rows`` are distinct."""
        if self.nearest is None:
            return
        columns = self.columns()
        margin = checked.margin.float().cpu()
        closer = checked.finite.cpu() & (margin < columns["nearest_margin"][rows])
        at = rows[closer]
        self.nearest[at] = checked.images[closer.to(checked.images.device)].cpu()
        columns["nearest_run"][at] = runs[closer] if isinstance(runs, Tensor) else runs
        columns["nearest_stage"][at], columns["nearest_margin"][at] = stage, margin[closer]

    def reopen(self, rows: Tensor) -> None:
        """Make these examples robust again, since what broke them was not confirmed."""
        self.stage[rows], self.broken[rows], self.adversarial[rows] = -1, False, torch.nan
        self.margin[rows] = self.margin[rows].abs()
        for column in (self.run, self.step, self.target_class):
            column[rows] = -1

    def record_reading(self, rows: Tensor, reading: Reading) -> None:
        """Record a random model's average predictions at these examples' nearest images."""
        columns = self.columns()
        for name in ("lead", "draws", "once", "sure"):
            columns[name][rows] = getattr(reading, name).cpu()
        self.stage[rows[~reading.mean.isfinite().all(1).cpu() & self.robust[rows]]] = 0

    def break_by_nearest(self, rows: Tensor, images: Tensor) -> None:
        """Count these images, the nearest of their examples, as adversarial: they are wrong on average."""
        columns = self.columns()
        self.adversarial[rows], self.broken[rows], self.margin[rows] = images, True, -self.margin[rows].abs()
        self.run[rows], self.stage[rows] = columns["nearest_run"][rows], columns["nearest_stage"][rows]

    def settle(self) -> None:
        """Remove what was recorded only in part when an interruption came."""
        half = self.broken & self.robust
        self.broken[half] = False
        self.adversarial[half] = torch.nan

    def closed(self) -> Self:
        """A copy without what only the present attack needs."""
        return self._with({"done": torch.zeros_like(self.done), "scores": self.scores[:, :0]})

    def save(self, path: Path, facts: str) -> None:
        """Write the state to a safetensors file, atomically.

        Args:
            facts: JSON that :meth:`load` returns.
        """
        columns = {name: column.contiguous() for name, column in self.columns().items()}
        files.write_bytes(path, save(columns, {"format": _FORMAT, "facts": facts, "seal": seal(columns, facts)}))

    @classmethod
    def load(cls, path: Path) -> tuple[Self, str]:
        """Read a saved state and its facts; runs no code from the file.

        Raises:
            FileError: it is truncated, damaged or something else.
        """
        files.check_regular(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise FileError(
                        f"{path} is not an evaluation that this version of isthmus began; choose another path."
                    )
                columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                check_columns(columns, columns["adversarial"].shape)
                if seal(columns, metadata["facts"]) != metadata["seal"]:
                    raise ValueError("its content does not match its own checksum")
                return cls(**columns), metadata["facts"]
        except (SafetensorError, OSError, AttributeError, TypeError, KeyError, ValueError, RuntimeError) as error:
            raise FileError(f"{path} is not a readable evaluation ({brief(error)}); choose another path.") from None


def check_columns(columns: Mapping[str, Tensor], shape: Sequence[int]) -> None:
    """Check that columns from a file have the types and lengths of a state's.

    Args:
        shape: of the images, N×C×H×W.

    Raises:
        ValueError: a column has not.
    """
    if len(shape) != 4:
        raise ValueError(f"its images have the shape {tuple(shape)}")
    none = torch.empty(0, 1, 1, 1)
    for name, like in EvaluationState.new(none).for_random(none).columns().items():
        if name not in columns:
            continue
        expected = (
            (*shape,) if name in ("adversarial", "nearest") else (shape[0], *columns[name].shape[1:])[: like.dim()]
        )
        if columns[name].dtype != like.dtype or tuple(columns[name].shape) != tuple(expected):
            raise ValueError(f"its column {name} is {columns[name].dtype} of shape {tuple(columns[name].shape)}")


def seal(tensors: Mapping[str, Tensor], facts: str) -> str:
    """SHA-256 of named tensors and the facts beside them."""
    named = sorted(tensors)
    return files.sha256(facts.encode(), " ".join(named).encode(), fingerprint(tensors[n] for n in named).encode())


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over shapes and contents of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
