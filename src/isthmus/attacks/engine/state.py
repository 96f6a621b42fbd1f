"""The state of an evaluation, example by example; on the CPU, and in a file, so that a killed one can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isthmus.attacks.engine.averages import Reading
from isthmus.attacks.engine.optimized_model import fingerprint
from isthmus.attacks.engine.rows import Rows
from isthmus.attacks.engine.verifier import VerifierResult
from isthmus.core import files
from isthmus.core.errors import FileError, brief

_FORMAT = "isthmus evaluation 4"


@dataclass
class EvaluationState(Rows):
    """What is known of every example. Rows of it can be worked on elsewhere and put back.

    Attributes:
        correct: whether the clean image is classified as its label.
        broken: whether an adversarial image was found.
        stage: position of the attack that broke it or set it aside; −1 where it stands.
        adversarial: adversarial images, NaN if not broken.
        gap: distance from success in logits, the smallest found inside the ball; negative where broken.
        run, look, aim: of the attack that broke it: which run, after how many looks, directed at which class
            (−1: none).
        forwards, backwards: example-passes spent on it.
        blind: looks at which its gradient was exactly zero.
        tries: confirmations of a random model's proposals so far.
        ranked: wrong classes by falling logit on the clean image.
        done: runs of the present attack that are over.
        scores: smallest gap of each of them; NaN where there was none.
        marks: notes that a suite's rules leave for its later ones.
        nearest: of a random model, the image that came closest to success on average so far, at first the original;
            as all further columns None for others.
        near, near_stage, near_run: its distance in ln of mean probabilities, which attack it is of, and which run.
        lead: what the final reading found there: by how much the mean probability of the attacker's success leads.
        draws: how many draws that mean is over; 0 before the reading.
        once: whether the first of them alone was a success.
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
        """Nothing is known yet but the images."""
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
        """With the columns that a random model needs; nothing is nearer than the originals yet."""
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
        """Examples neither broken nor set aside."""
        return self.stage < 0

    def open_stage(self, runs: int) -> None:
        """Make room for the runs of the next attack."""
        self.done = torch.zeros_like(self.done)
        self.scores = torch.full((len(self), runs), torch.nan)

    def note(self, rows: Tensor, checked: VerifierResult, stage: int) -> Bool[Tensor, " n"]:
        """Enter verdicts on these examples; says (on the CPU) which are decided by them."""
        broken, finite = checked.broken.cpu(), checked.finite.cpu()
        decided = broken | ~finite
        won = rows[broken]
        self.adversarial[won] = checked.images[checked.broken].cpu()
        self.margin[won] = checked.margin[checked.broken].float().cpu()
        self.broken[won] = True
        self.stage[rows[decided]] = stage  # last: an example that was interrupted before this still stands
        return decided

    def approach(self, rows: Tensor, checked: VerifierResult, stage: int, runs: Tensor | int) -> None:
        """Of a random model, keep proposals that came closer than what is known of these examples, each named once."""
        if self.nearest is None:
            return
        assert self.nearest_margin is not None
        assert self.nearest_stage is not None
        assert self.nearest_run is not None
        margin = checked.margin.float().cpu()
        closer = checked.finite.cpu() & (margin < self.nearest_margin[rows])
        at = rows[closer]
        self.nearest[at] = checked.images[closer.to(checked.images.device)].cpu()
        self.nearest_run[at] = runs[closer] if isinstance(runs, Tensor) else runs
        self.nearest_stage[at], self.nearest_margin[at] = stage, margin[closer]

    def reopen(self, rows: Tensor) -> None:
        """What was found of these examples does not hold: they stand."""
        self.stage[rows], self.broken[rows], self.adversarial[rows] = -1, False, torch.nan
        self.margin[rows] = self.margin[rows].abs()
        for column in (self.run, self.step, self.target_class):
            column[rows] = -1

    def enter(self, rows: Tensor, reading: Reading) -> None:
        """What was read of a random model's average at these examples' closest images."""
        assert self.lead is not None
        assert self.draws is not None
        assert self.once is not None
        assert self.sure is not None
        self.lead[rows], self.draws[rows] = reading.lead.cpu(), reading.draws.cpu()
        self.once[rows], self.sure[rows] = reading.once.cpu(), reading.sure.cpu()
        self.stage[rows[~reading.mean.isfinite().all(1).cpu() & self.robust[rows]]] = 0

    def settle_on(self, rows: Tensor, images: Tensor) -> None:
        """These images, the nearest of their examples, are wrong on average: they count as adversarial examples."""
        assert self.nearest_stage is not None
        assert self.nearest_run is not None
        self.adversarial[rows], self.broken[rows], self.margin[rows] = images, True, -self.margin[rows].abs()
        self.run[rows], self.stage[rows] = self.nearest_run[rows], self.nearest_stage[rows]

    def settle(self) -> None:
        """After an interruption at any moment: what was entered by half was not entered."""
        half = self.broken & self.robust
        self.broken[half] = False
        self.adversarial[half] = torch.nan

    def closed(self) -> Self:
        """The same without what only the present attack needs."""
        return self._with({"done": torch.zeros_like(self.done), "scores": self.scores[:, :0]})

    def save(self, path: Path, facts: str) -> None:
        """Write it to a safetensors file, atomically.

        Args:
            facts: what the evaluation is of, as JSON; see :meth:`load`.
        """
        columns = {name: column.contiguous() for name, column in self.columns().items()}
        files.write_bytes(path, save(columns, {"format": _FORMAT, "facts": facts, "seal": seal(columns, facts)}))

    @classmethod
    def load(cls, path: Path) -> tuple[Self, str]:
        """A saved state and its facts; runs no code from the file.

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
    """Whether columns from a file have the types and lengths that a state's have.

    Args:
        shape: of the images, N×C×H×W.

    Raises:
        ValueError: one has not.
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
    """SHA-256 of named tensors and what is said of them."""
    named = sorted(tensors)
    return files.sha256(facts.encode(), " ".join(named).encode(), fingerprint(tensors[n] for n in named).encode())
