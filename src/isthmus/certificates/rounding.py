"""Outward slack: how far a float32 forward pass, and the computation of a bound, may be from exact arithmetic.

A certificate is about the numbers that the model computes in float32, not about a network in exact arithmetic. Every
bound in this package therefore encloses the float32 values of a layer: its output, computed in exact arithmetic from
the float32 values of its input, and its rounding error.

**Float32.** A sum of n products in floating point, in any order, with or without fused multiply-add, is off by at most
γ_n Σ|w_i||x_i| with γ_n = nu / (1 − nu) and u = 2⁻²⁴ (Higham 2002, *Accuracy and Stability of Numerical Algorithms*,
2nd edition, §3.1 and lemma 3.1). A bias is one more term. :func:`rate` is γ_{n+3}, and a layer's error is at most
``rate(n) · (|W||x| + |b|)``, with |x| at most as large as the bounds of x allow.

**Float64.** Bounds are computed in float64, with unit 2⁻⁵³. Each step of a bound is a sum of at most 2²⁶ products of
numbers that :func:`rate` multiplies too, so that its error is at most 2⁻²⁷ · (|W||x| + |b|). The third additional unit
in γ_{n+3}, 2⁻²⁴, covers four such steps. Other sums get the slack :data:`SPARE` relative to their absolute terms.

**Underflow.** A product that underflows, or is flushed to zero, is off by at most :data:`TINY` = 2⁻¹²⁶, and so is an
input that is flushed.

**Not covered.** Convolutions by Winograd's or FFT algorithms do not sum the products themselves. Their error is bounded
in norm only, and may exceed this bound for single outputs. PyTorch uses neither on a CPU with oneDNN; cuDNN and NNPACK
may. Reduced precision (TensorFloat-32, bfloat16) is not covered either. Functions such as tanh are assumed to be within
eight units in the last place (:data:`FUNCTION`).
"""

from __future__ import annotations

UNIT = 2.0**-24
"""Unit roundoff of float32."""

SPARE = 2.0**-26
"""Relative slack for a sum of up to 2²⁶ terms in float64."""

TINY = 2.0**-126
"""Smallest normal float32 number."""

FUNCTION = 2.0**-20
"""Relative error of tanh and sigmoid in float32: eight units in the last place."""

LARGEST = 1e30
"""Magnitude of a bound above which a float32 pass might overflow; nothing is certified then.

A bound contains the slack of its layer, at least 2⁻²² (|W||x| + |b|), so that partial sums are below 5e36 otherwise.
"""


def rate(terms: int) -> float:
    """γ_{n+3} of float32, for a sum of ``terms`` products and a bias; infinite for sums that are too long."""
    product = (terms + 3) * UNIT
    return product / (1 - product) if product < 0.5 else float("inf")
