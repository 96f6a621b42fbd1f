"""Minimal norms: the size of the smallest perturbation that succeeds, for each example."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from isthmus import metrics
from isthmus.attacks.engine import inputs
from isthmus.attacks.engine.batch import Batch
from isthmus.attacks.engine.evaluation import Evaluation
from isthmus.attacks.engine.run_options import RunOptions, bar_of
from isthmus.attacks.engine.verifier import Verifier, VerifierResult
from isthmus.attacks.result import CLEAN
from isthmus.attacks.security_curve import accuracy_figure
from isthmus.attacks.suites import Suite, stages_of
from isthmus.attacks.threats import THREATS, Threat
from isthmus.core.errors import ConfigError, DataError, unknown
from isthmus.core.format import NORMS, number, percent, size
from isthmus.core.notebook import Summarized
from isthmus.core.preserve_state import device_of, preserve_state
from isthmus.core.progress import shown_progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class MinimalNorms(Summarized):
    """The smallest perturbation found for each of N examples. Every tensor is on the CPU.

    Each is an upper bound on the distance to the nearest adversarial image, with an adversarial image that proves it.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        attacks: labels of the attacks in the order they ran; the first is "clean", the unperturbed image.
        sizes: ‖δ‖ in units of images in [0, 1]: 0 for clean errors (with targets: if the clean image is classified as
            the target), ∞ if no adversarial image was found, NaN if in addition logits were not finite.
        adversarial: a finite image for every example: the adversarial image, or the clean image if that is an error or
            no adversarial image was found.
        stage: position in ``attacks`` of the attack that found the adversarial image, −1 if there is none.
        forward_passes, backward_passes: example-passes through the model.
        targets: the class that each adversarial image had to reach; None where any wrong class counts.
    """

    norm: str
    attacks: tuple[str, ...]
    sizes: Float[Tensor, " n"]
    adversarial: Float[Tensor, "n c h w"]
    stage: Int[Tensor, " n"]
    forward_passes: int
    backward_passes: int
    targets: Int[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def found(self) -> Bool[Tensor, " n"]:
        """Whether an adversarial image was found; clean errors count."""
        return self.stage >= 0

    @property
    def found_by(self) -> tuple[str | None, ...]:
        """Label of the attack that found each adversarial image; None where there is none."""
        return tuple(self.attacks[stage] if stage >= 0 else None for stage in self.stage.tolist())

    @property
    def median(self) -> float:
        """Of all sizes that are not NaN, zeros and ∞ included; NaN where there is none."""
        ranked = self.sizes[~self.sizes.isnan()].double().sort().values
        if len(ranked) == 0:
            return math.nan
        return float(ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2

    def accuracy(self, eps: float) -> float:
        """Share of all N examples that hold at ε, mean(‖δ‖ > ε): an upper bound on robust accuracy.

        At ε = 0 it is clean accuracy. With targets it is the share that cannot be brought to them, as in
        :attr:`isthmus.attacks.RobustResult.accuracy`.
        """
        return float((self.sizes > eps).double().mean())

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Plot :meth:`accuracy` against ε, at 0 and at every finite size, with 95% Wilson intervals.

        Args:
            ax: axes to draw into; None for a new figure.

        Returns:
            The figure and its axes.
        """
        from isthmus.core import plots

        eps = sorted({0.0, *self.sizes[self.sizes.isfinite()].tolist()})
        found = [metrics.proportion(int((self.sizes > each).sum()), len(self)) for each in eps]
        return plots.draw(accuracy_figure(self.norm, eps, found, ", ".join(self.attacks[1:])), ax)

    def _summary(self) -> dict[str, str]:
        return {
            "MinimalNorms": f"{NORMS[self.norm]}, {size(len(self))}, attacks: {', '.join(self.attacks[1:])}",
            "median": f"{number(self.median)} (an upper bound)",
            "examples": f"{int(self.found.sum())} adversarial; clean accuracy {percent(self.accuracy(0))}",
        }


def minimal_norms(
    model: nn.Module,
    images: Float[Tensor, "n c h w"] | ArrayLike,
    labels: Int[Tensor, " n"] | ArrayLike,
    norm: str = "l2",
    attacks: Suite = ("fmn",),
    seed: int = 0,
    options: RunOptions | None = None,
) -> MinimalNorms:
    """Find for each example the smallest perturbation that changes the prediction, or makes it the target.

    Attacks run one after another on every example that is classified correctly (with targets: not as its target), even
    if earlier attacks succeeded, in a ball that contains the whole box. Minimum-norm attacks (fmn, fab; cw and ddn in
    ℓ2) are made for that; pgd and others search for any adversarial image, not for the nearest. Every success is
    verified as in :func:`isthmus.attacks.robust_accuracy`. A random model's successes are confirmed on fresh draws, at
    a level that falls with every confirmation.

    Args:
        model: from images in [0, 1] to logits; treated as in :func:`isthmus.attacks.robust_accuracy`.
        images: floating point, in [0, 1].
        labels: true classes, integers.
        norm: ``linf``, ``l2`` or ``l1``.
        attacks: as the suite of :func:`isthmus.attacks.robust_accuracy`.
        seed: with an example's index it determines all of that example's random starts and noise.
        options: ``batch_size``, ``indices``, ``targets`` and ``progress`` are used. With targets,
            no other class counts.

    Raises:
        ModelError: the model is no module, fails, or returns something other than N×K logits (K ≥ 2).
        DataError: images, labels, targets or indices of a wrong type, shape or range, a target that is its example's
            label or no class of the model, or an index twice.
        ConfigError: an unknown norm or attack (with a suggestion), or an attack that does not know the norm.
    """
    if norm not in THREATS:
        raise ConfigError(unknown("norm", norm, THREATS))
    suite = stages_of(attacks)
    inputs.check_model(model)
    options = options or RunOptions()
    examples = inputs.examples(images, labels, targets=options.targets, seed=seed, indices=options.indices)
    size = None if options.batch_size is None else inputs.check_whole(options.batch_size, "batch_size")
    device = device_of(model, examples.images)
    with preserve_state(model, device, seed), shown_progress(options.progress, "minimal norms", bar_of) as progress:
        # norms are recorded as they are found, each success queried twice; no final verification is needed
        own = RunOptions(batch_size=size, progress=progress, verify=False)
        evaluation = Evaluation(model, examples, _whole_box(norm, examples.images), suite, seed, own)
        for stage in suite:
            stage.attack.runs_in(evaluation.context.threat, 2)  # whether it works in the norm, before any pass
        smallest = Smallest(evaluation)
        evaluation.context.verifier = smallest
        evaluation.init(None)
        evaluation.run()
    return smallest.summary()


class Smallest(Verifier):
    """A verifier that keeps the smallest success of each example and marks none broken, so that attacks continue.

    A proposal that is no smaller than what is known costs no pass.

    Raises:
        DataError: two examples have the same key.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(evaluation.context.counted_model, evaluation.context.threat)
        self.evaluation = evaluation
        images, keys = evaluation.context.examples.images.cpu(), evaluation.context.examples.keys.cpu()
        self.keys, self.rows = keys.sort()
        if (self.keys[1:] == self.keys[:-1]).any():
            raise DataError("The indices name an example twice; each may occur once.")
        self.sizes = torch.full((len(images),), torch.inf, dtype=torch.float64)
        self.adversarial = torch.full(images.shape, torch.nan)
        self.stage = torch.full((len(images),), -1)

    @property
    def in_turn(self) -> bool:
        """A proposal that is no smaller than an earlier success is not verified."""
        return True

    def start_over(self) -> None:
        """Forget every norm."""
        super().start_over()
        self.sizes.fill_(torch.inf)
        self.adversarial.fill_(torch.nan)
        self.stage.fill_(-1)

    def proposals(self, images: Float[Tensor, "n c h w"], batch: Batch, tries: Int[Tensor, " n"]) -> VerifierResult:
        """Verify proposals that would be new smallest perturbations, and record them; none counts as broken."""
        n = len(images)
        rows = self.rows[torch.searchsorted(self.keys, batch.keys.cpu())]
        hopeless = self._size(images, batch.images) >= self.sizes[rows]  # false for NaN, which is for the verifier
        idle = torch.zeros(n, dtype=torch.bool, device=images.device)
        checked = VerifierResult(images, idle, ~idle, images.new_full((n,), torch.inf))
        chosen = (~hopeless).nonzero().squeeze(1)
        if len(chosen) == 0:
            return checked
        at = chosen.to(images.device)
        some, counted = batch.take(at), tries[at]
        found = super().proposals(images[at], some, counted)
        if self.repeated is not None:  # counted among the chosen proposals
            self.repeated = torch.zeros(n, dtype=torch.int64).index_copy(0, chosen.cpu(), self.repeated)
        tries[at] = counted
        self._note(rows[chosen], found, some.images)
        checked.finite[at], checked.margin[at] = found.finite, found.margin.to(checked.margin)
        return replace(checked, images=images.index_copy(0, at, found.images))

    def _note(self, rows: Tensor, found: VerifierResult, originals: Tensor) -> None:
        size = self._size(found.images, originals)
        better = found.broken.cpu() & (size < self.sizes[rows])
        if better.any():
            won = rows[better]
            self.sizes[won], self.adversarial[won] = size[better], found.images.cpu()[better]
            self.stage[won] = self.evaluation.progress.at + 1

    def _size(self, images: Tensor, originals: Tensor) -> Tensor:
        return self.threat.norm(images.double() - originals.double()).cpu()

    def summary(self) -> MinimalNorms:
        """The recorded norms, with clean errors and invalid examples."""
        state, targets = self.evaluation.context.state, self.evaluation.context.examples.targets
        wrong = state.broken  # only the clean image itself can break an example here
        sizes = self.sizes.masked_fill(wrong, 0)
        aside = ~state.robust & ~wrong & sizes.isinf()
        images, found = self.evaluation.context.examples.images.cpu(), self.stage >= 0
        return MinimalNorms(
            norm=self.threat.name,
            attacks=(CLEAN, *(stage.label for stage in self.evaluation.stages)),
            sizes=sizes.masked_fill(aside, torch.nan),
            adversarial=torch.where((found & ~wrong)[:, None, None, None], self.adversarial, images),
            stage=self.stage.masked_fill(wrong, 0),
            forward_passes=self.counted_model.forward_passes,
            backward_passes=self.counted_model.backward_passes,
            targets=None if targets is None else targets.cpu(),
        )


def _whole_box(norm: str, images: Tensor) -> Threat:
    """The smallest ball about any image that holds the box."""
    pixels = math.prod(images.shape[1:])
    return THREATS[norm]({"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm])
