"""The result of a certification: which examples are broken, certified or undecided, and the bracket that follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from isthmus import metrics
from isthmus.attacks.threats import Threat, parse
from isthmus.certificates import result_file
from isthmus.core.format import count, in_words, threat_title
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.types import Metric

BROKEN, CERTIFIED, UNDECIDED = "broken", "certified", "undecided"


@dataclass(frozen=True, repr=False)
class CertifiedResult(Summarized):
    """Lower and upper bound on the robust accuracy of one classifier on N examples. Every tensor is on the CPU.

    Each example is exactly one of three: broken (an image inside ball and box is misclassified), certified (no image
    inside ball and box is, as a proof shows), or undecided.

    Attributes:
        threat: norm and ε.
        images: the clean images.
        labels: true classes.
        broken: whether an adversarial image is known. Clean errors count as broken.
        invalid: whether logits or gradients were not finite. Such an example is undecided, and counts as not robust.
        adversarial: an image for every example: the adversarial image of a broken one, else the clean image.
        attacks: labels of the attacks that ran; the first is "clean".
        margins: lower bounds of z_y − z_j for every wrong class j in order, in logits and over all images inside ball
            and box; −∞ if there is none.
        methods: names of the methods, in order.
        method: position in ``methods`` of what certified the example; −1 if it is not certified.
        seconds: spent on each example's bounds.
        complete: False if the certification was interrupted.
    """

    threat: Threat
    images: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    broken: Bool[Tensor, " n"]
    invalid: Bool[Tensor, " n"]
    adversarial: Float[Tensor, "n c h w"]
    attacks: tuple[str, ...]
    margins: Float[Tensor, "n wrong"]
    methods: tuple[str, ...]
    method: Int[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    complete: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def certified(self) -> Bool[Tensor, " n"]:
        """Whether all margins are positive for every allowed image."""
        return self.method >= 0

    @property
    def undecided(self) -> Bool[Tensor, " n"]:
        """Examples that are neither broken nor certified."""
        return ~(self.broken | self.certified)

    @property
    def status(self) -> tuple[str, ...]:
        """ "broken", "certified" or "undecided", for each example."""
        pairs = zip(self.broken.tolist(), self.certified.tolist(), strict=True)
        return tuple(BROKEN if broken else CERTIFIED if certified else UNDECIDED for broken, certified in pairs)

    @property
    def margin(self) -> Float[Tensor, " n"]:
        """The smallest of an example's bounds: positive if it is certified."""
        return self.margins.amin(1)

    @property
    def lower(self) -> Metric:
        """Fraction of examples that are certified, with its 95% interval: robust accuracy is at least this."""
        return metrics.accuracy(self.certified.numpy()).named("certified_accuracy", **self._at)

    @property
    def upper(self) -> Metric:
        """Fraction of examples that no attack broke, with its 95% interval: robust accuracy is at most this."""
        return metrics.accuracy((~(self.broken | self.invalid)).numpy()).named("robust_accuracy", **self._at)

    @property
    def by_method(self) -> dict[str, float]:
        """Certified accuracy after each method, in order."""
        known = [(self.method >= 0) & (self.method <= position) for position in range(len(self.methods))]
        return {name: int(mask.sum()) / len(self) for name, mask in zip(self.methods, known, strict=True)}

    @property
    def _at(self) -> dict[str, Any]:
        return {"norm": self.threat.name, "eps": self.threat.eps}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each example: label, status, method, margin and seconds.

        Raises:
            ConfigError: pandas is not installed.
        """
        names = [self.methods[position] if position >= 0 else None for position in self.method.tolist()]
        columns = {
            "label": self.labels.tolist(),
            "status": list(self.status),
            "method": names,
            "margin": self.margin.tolist(),
            "seconds": self.seconds.tolist(),
        }
        return dataframe(columns, ".status and .margins")

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, atomically.

        Raises:
            FileError: it cannot be written; an older file is left unchanged.
        """
        tensors = {name: getattr(self, name) for name in result_file.COLUMNS}
        facts = result_file.Facts(
            threat=str(self.threat), attacks=self.attacks, methods=self.methods, complete=self.complete
        )
        result_file.write(path, tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> CertifiedResult:
        """Read a file that :meth:`save` wrote; runs no code from it.

        Raises:
            FileError: it is missing, truncated or something else.
        """
        tensors, facts = result_file.read(path)
        names = {"attacks": facts.attacks, "methods": facts.methods, "complete": facts.complete}
        return cls(threat=parse(facts.threat), **tensors, **names)  # type: ignore[arg-type]

    def _summary(self) -> dict[str, str]:
        title = f"{threat_title(str(self.threat))}, methods: {', '.join(self.methods)}"
        numbers = (self.broken, self.certified, self.undecided)
        counts = ", ".join(
            f"{int(mask.sum())} {word}" for mask, word in zip(numbers, (BROKEN, CERTIFIED, UNDECIDED), strict=True)
        )
        ran = count(len(self.attacks) - 1, "attack") if len(self.attacks) > 1 else "clean errors only"
        return {
            "CertifiedResult": title,
            "robust accuracy": f"at least {in_words(self.lower)}; at most {in_words(self.upper)} ({ran})",
            "examples": counts + ("" if self.complete else "; interrupted"),
        }
