"""Toy problems with closed-form solutions: two of Korshunova et al. 2021 (section 3.3), and blobs.

Points are rows of numbers, not images. In the first two problems labels are 0 or 1, and y = 2·label − 1 is the papers'
sign. A linear rule predicts 1 if w·x + b > 0. Its clean accuracy and its accuracy under attack are formulas for both
problems, so that measurements of a trained classifier can be compared with the values implied by its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """Samples of a toy problem: features n × d (float32) and labels n."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def signs(self) -> Float[Tensor, " n"]:
        """y of each point, −1 or 1."""
        return 2.0 * self.labels - 1.0


@dataclass(frozen=True)
class Rule:
    """A linear rule: label 1 if w·x + b > 0."""

    weights: tuple[float, ...]
    bias: float = 0.0


@dataclass(frozen=True)
class Intervals:
    """Two features, one that always determines the label and one that mostly does (Korshunova et al. 2021, section
    3.3).

    y is −1 or 1, equally often; x₁ ~ y·U(0, ``reach``); x₂ ~ y·U(0, 1) with probability ``reliability``, else
    −y·U(0, 1). The information bottleneck's optimum uses only sign(x₁): ln 2 nats, always correct, for any x₂.

    Attributes:
        reliability: probability that x₂ is on the side of its label.
        reach: length of x₁'s interval.
    """

    reliability: float = 0.9
    reach: float = 10.0

    @property
    def dim(self) -> int:
        """Number of features."""
        return 2

    def sample(self, count: int, generator: torch.Generator) -> Points:
        """Independent points from the distribution itself."""
        labels, x1, x2 = self._draw(count, generator)
        agrees = torch.rand(count, generator=generator) < self.reliability
        return self._points(labels, x1, torch.where(agrees, x2, -x2))

    def rare(self, count: int, generator: torch.Generator) -> Points:
        """Points with x₂ always on the wrong side, and x₁ unchanged: the paper's robust set (its appendix)."""
        labels, x1, x2 = self._draw(count, generator)
        return self._points(labels, x1, -x2)

    def shifted(self, points: Points, eps: float = 1.0) -> Points:
        """Points whose x₂ was moved by ``eps`` against the label (the attack of section 3.3)."""
        moved = points.features.clone()
        moved[:, 1] -= eps * points.signs
        return Points(moved, points.labels)

    def accuracy(self, rule: Rule) -> float:
        """Accuracy of a linear rule on :meth:`sample`."""
        p = self.reliability
        return p * self._on_interval(rule, 0.0) + (1 - p) * self._on_interval(rule, -1.0)

    def accuracy_on_rare(self, rule: Rule) -> float:
        """Accuracy of a linear rule on :meth:`rare`; 0 for sign(x₂), 1 for sign(x₁)."""
        return self._on_interval(rule, -1.0)

    def accuracy_when_shifted(self, rule: Rule, eps: float = 1.0) -> float:
        """Accuracy of a linear rule on :meth:`shifted` points."""
        p = self.reliability
        return p * self._on_interval(rule, -eps) + (1 - p) * self._on_interval(rule, -1.0 - eps)

    @property
    def information_of_second(self) -> float:
        """I(sign x₂; Y) in nats: ln 2 minus the entropy of ``reliability``; .368 nats (.531 bits) at 0.9."""
        p = self.reliability
        return math.log(2) + sum(q * math.log(q) for q in (p, 1 - p) if q > 0)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, and |x₁| and |x₂|."""
        labels = torch.randint(2, (count,), generator=generator)
        return labels, self.reach * torch.rand(count, generator=generator), torch.rand(count, generator=generator)

    def _points(self, labels: Tensor, along_first: Tensor, along_second: Tensor) -> Points:
        features = torch.stack([along_first, along_second], dim=1)
        return Points(features * (2.0 * labels - 1.0).unsqueeze(1), labels)

    def _on_interval(self, rule: Rule, start: float) -> float:
        """Accuracy if y·x₂ is uniform in [start, start + 1]."""
        first, second = _numbers(rule, 2)
        # y = 1 is correct if w₁x₁ + w₂x₂ > −b; by symmetry, y = −1 is correct if the same exceeds +b
        return 0.5 * sum(exceeds(first * self.reach, second, sign - second * start) for sign in (-rule.bias, rule.bias))


@dataclass(frozen=True)
class Gaussians:
    """One feature that is mostly correct, and many that are weakly correlated with the label (Tsipras et al. 2019,
    arXiv:1805.12152).

    y is −1 or 1, equally often; x₁ = y with probability ``reliability``, else −y; the other ``others`` features are
    N(``shift``·y, 1). An attacker with ε = 2·``shift`` moves these to N(−``shift``·y, 1): then only x₁ is reliable.
    """

    reliability: float = 0.95
    shift: float = 0.3
    others: int = 100

    @property
    def dim(self) -> int:
        """Number of features."""
        return 1 + self.others

    def sample(self, count: int, generator: torch.Generator) -> Points:
        """Independent points from the distribution itself."""
        labels = torch.randint(2, (count,), generator=generator)
        y = 2.0 * labels - 1.0
        agrees = torch.rand(count, generator=generator) < self.reliability
        noise = torch.randn(count, self.others, generator=generator)
        features = torch.cat([torch.where(agrees, y, -y).unsqueeze(1), noise + self.shift * y.unsqueeze(1)], dim=1)
        return Points(features, labels)

    def attacked(self, points: Points) -> Points:
        """Points whose Gaussian features were moved by 2·``shift`` against the label; x₁ stays."""
        moved = points.features.clone()
        moved[:, 1:] -= 2.0 * self.shift * points.signs.unsqueeze(1)
        return Points(moved, points.labels)

    def accuracy(self, rule: Rule) -> float:
        """Accuracy of a linear rule."""
        return self._with_shift(rule, self.shift)

    def accuracy_under_attack(self, rule: Rule) -> float:
        """Accuracy of a linear rule on :meth:`attacked` points."""
        return self._with_shift(rule, -self.shift)

    @property
    def bayes(self) -> Rule:
        """The most accurate rule: weights ln(p / (1 − p)) and 2·``shift``; accuracy 99.947%, under attack 0.576%."""
        p = self.reliability
        return Rule((math.log(p / (1 - p)), *(2.0 * self.shift,) * self.others))

    def _with_shift(self, rule: Rule, shift: float) -> float:
        first, *others = _numbers(rule, self.dim)
        mean, spread = shift * sum(others), math.hypot(*others)
        return sum(
            share * 0.5 * _positive(sign * first + mean + bias, spread)
            for share, sign in ((self.reliability, 1), (1 - self.reliability, -1))
            for bias in (rule.bias, -rule.bias)
        )


@dataclass(frozen=True)
class Blobs:
    """Equally frequent classes, each a standard Gaussian blob around its centre, all centres equally far apart.

    Attributes:
        classes: C, also the number of features.
        distance: between any two centres, in standard deviations of a blob.
    """

    classes: int = 10
    distance: float = 10.0

    def sample(self, count: int, generator: torch.Generator) -> Points:
        """Independent points; labels are 0 to C − 1."""
        labels = torch.randint(self.classes, (count,), generator=generator)
        centres = torch.eye(self.classes) * (self.distance / math.sqrt(2.0))
        return Points(centres[labels] + torch.randn(count, self.classes, generator=generator), labels)

    @property
    def information(self) -> tuple[float, float]:
        """Lower and upper bound on I(X;Y) in nats: ln C minus Fano's bound on H(Y|X), and ln C.

        The most likely class is wrong with probability p at most (C − 1)·Q(distance/2), so H(Y|X) is at most
        h(p) + p·ln(C − 1).
        """
        highest = math.log(self.classes)
        wrong = min((self.classes - 1) * 0.5 * math.erfc(self.distance / math.sqrt(8.0)), 1.0 - 1.0 / self.classes)
        if wrong <= 0.0:
            return highest, highest
        binary = -wrong * math.log(wrong) - (1.0 - wrong) * math.log1p(-wrong)
        return max(highest - binary - wrong * math.log(max(self.classes - 1, 1)), 0.0), highest


def exceeds(first: float, second: float, threshold: float) -> float:
    """P(first·U + second·V > threshold) for independent U and V, uniform in [0, 1].

    The part of the unit square on one side of a line: with positive weights, the distribution function is
    [t₊² − (t − a)₊² − (t − c)₊² + (t − a − c)₊²] / 2ac. A negative weight is a positive one of 1 − U.
    """
    threshold -= min(first, 0.0) + min(second, 0.0)
    large, small = max(abs(first), abs(second)), min(abs(first), abs(second))
    if not 0 <= threshold < large + small:
        return float(threshold < 0)
    threshold, small = threshold / large, small / large
    if small < 1e-9:  # the formula would divide rounding by rounding
        return max(1.0 - threshold, 0.0)
    corners = ((0.0, 1), (1.0, -1), (small, -1), (1.0 + small, 1))
    below = sum(sign * max(threshold - at, 0.0) ** 2 for at, sign in corners) / (2 * small)
    return min(max(1.0 - below, 0.0), 1.0)


def _positive(mean: float, spread: float) -> float:
    """P(N(mean, spread²) > 0); for zero spread, whether the mean is positive."""
    return 0.5 * math.erfc(-mean / (spread * math.sqrt(2))) if spread > 0 else float(mean > 0)


def _numbers(rule: Rule, dim: int) -> Sequence[float]:
    if len(rule.weights) != dim:
        raise ValueError(f"a rule for this problem has {dim} weights; got {len(rule.weights)}")
    return rule.weights
