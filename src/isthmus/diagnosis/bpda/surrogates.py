"""The registry of surrogate gradients for operations without a useful derivative.

:data:`SURROGATES` holds every torch operation whose derivative is zero or undefined almost everywhere, by kind. A
surrogate computes exactly what torch computes, and attaches the gradient of a smooth function
(:meth:`~isthmus.diagnosis.bpda.relaxed.Call.attach`).

=============  =======================================================================================================
rounding       the identity (straight-through estimator, Bengio et al. 2013, arXiv:1308.3432)
remainders     zero, so that x − x % s has the gradient of a rounding
comparisons    a fast sigmoid of the difference (Zenke & Ganguli 2018, arXiv:1705.11146); also signs and ``heaviside``
logic          products and sums of probabilities
bits           division and multiplication by powers of two for shifts, the identity for masks
choices        SoftSort (Prillo & Eisenschlos 2020, arXiv:2006.16038): ``argmax``, ``argsort``, ``topk``, ``median`` …
lookups        the expectation over a choice, or the finite difference of the table along its index
search         a sum of fast sigmoids, one for each boundary
counts         sums of kernels
draws          the mean of the draw
unimplemented  central finite differences, element by element
=============  =======================================================================================================
"""

from __future__ import annotations

import torch

from isthmus.diagnosis.bpda import choices, counts, elementwise
from isthmus.diagnosis.bpda.elementwise import Surrogate, comparison, identity, nearness, smooth
from isthmus.diagnosis.bpda.lookups import LOOKUPS, lookup
from isthmus.diagnosis.bpda.relaxed import Call, fast_sigmoid

_POLYNOMIALS = [f"{shift}chebyshev_polynomial_{kind}" for shift in ("", "shifted_") for kind in "tuvw"]


def _named(table: dict[str, Surrogate]) -> dict[str, Surrogate]:
    """One entry for each of the names that a key lists."""
    return {name: surrogate for names, surrogate in table.items() for name in names.split()}


KINDS: dict[str, dict[str, Surrogate]] = {
    "rounding": _named(
        {
            "round floor ceil trunc fix clamp clip clamp_min clamp_max hardtanh": identity,
            "quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic dequantize": identity,
            "floordiv floor_divide": elementwise.quotient,
            "div divide": elementwise.division,
            "frexp": elementwise.exponent,
        }
    ),
    "remainders": _named({"remainder fmod frac mod": Call.detached}),
    "comparisons": _named(
        {
            "gt ge greater greater_equal": comparison(fast_sigmoid),
            "lt le less less_equal": comparison(lambda difference: fast_sigmoid(-difference)),
            "eq isclose": comparison(nearness),
            "ne not_equal": comparison(lambda difference: 1 - nearness(difference), negated=True),
            "isin": elementwise.is_in,
            "sign sgn": smooth(lambda x: 2 * fast_sigmoid(x) - 1),
            "signbit": smooth(lambda x: fast_sigmoid(-x)),
            "heaviside": smooth(fast_sigmoid),
            "copysign": elementwise.copysign,
            "angle": smooth(lambda x: torch.pi * fast_sigmoid(-x)),
        }
    ),
    "logic": {f"logical_{name}": surrogate for name, surrogate in elementwise.LOGIC.items()}
    | {
        "all": elementwise.any_or_all(torch.amin),
        "any": elementwise.any_or_all(torch.amax),
        "where": elementwise.where,
    },
    "bits": _named(
        {
            "and bitwise_and": elementwise.bitwise("and"),
            "or bitwise_or": elementwise.bitwise("or"),
            "xor bitwise_xor": elementwise.bitwise("xor"),
            "invert bitwise_not": elementwise.bitwise("not"),
            "lshift bitwise_left_shift": smooth(lambda x, y: x * 2.0**y, "input", "other"),
            "rshift bitwise_right_shift": smooth(lambda x, y: x * 2.0 ** (-1 * y), "input", "other"),
        }
    ),
    "choices": _named(
        {
            "argmax argmin": choices.argmax,
            "argsort": choices.argsort,
            "sort topk kthvalue median nanmedian mode max min cummax cummin": choices.values_and_indices,
            "amax amin": choices.extreme,
        }
    ),
    "lookups": dict.fromkeys(LOOKUPS, lookup),
    "search": {"bucketize": counts.search(0), "searchsorted": counts.search(1)},
    "counts": _named(
        {
            "histc histogram": counts.histogram,
            "bincount": counts.bincount,
            "count_nonzero": counts.count_nonzero,
            "unique unique_consecutive": counts.unique,
        }
    ),
    "draws": _named(
        {
            "bernoulli poisson": identity,
            "binomial": smooth(lambda count, probability: count * probability, "count", "prob"),
            "multinomial": counts.multinomial,
        }
    ),
    "unimplemented": _named(
        {
            "airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 "
            "modified_bessel_k1 scaled_modified_bessel_k0 scaled_modified_bessel_k1 spherical_bessel_j0 zeta igamma "
            "igammac gammainc gammaincc laguerre_polynomial_l hermite_polynomial_h hermite_polynomial_he "
            "legendre_polynomial_p nextafter": elementwise.by_differences,
            " ".join(_POLYNOMIALS): elementwise.by_differences,
            "apply map map2": identity,  # a user's function of single elements
            "native_channel_shuffle": smooth(torch.channel_shuffle, "input", "groups"),
        }
    ),
}
"""The registry. Names are normalized by :func:`~isthmus.diagnosis.bpda.relaxed.normalized_name`."""

SURROGATES: dict[str, Surrogate] = {name: each for kind in KINDS.values() for name, each in kind.items()}

BY_RELAXATION = {*LOOKUPS, "where"}
"""Functions with a derivative in their values, which only need a surrogate if an index or a mask has a gradient."""

EXEMPT: dict[str, str] = {
    name: reason
    for reason, names in {
        "constant almost everywhere: images are finite and real": (
            "isnan isinf isfinite isposinf isneginf isreal matrix_rank"
        ),
        "does not depend on the values": (
            "zeros_like ones_like full_like empty_like rand_like randn_like randint_like zero new_zeros new_ones "
            "new_full new_empty new_empty_strided fill resize_as resize uniform normal random exponential geometric "
            "cauchy log_normal get"
        ),
        "positions whose number depends on the values": "nonzero argwhere nonzero_static",
        "leaves torch for a number, a list or text of Python": (
            "item tolist float int bool long complex index nonzero_ len contains equal allclose is_nonzero repr format "
            "reduce_ex deepcopy backward"
        ),
        "copied or cast by the interceptor": ("detach detach_copy byte char short half bfloat16 type to numpy array"),
        "counts or hashes of bits, in more than one dimension": "histogramdd hash_tensor",
        "factors of a matrix that torch cannot differentiate": "geqrf ldl_factor ldl_factor_ex",
        "another layout or device of the same values": "to_mkldnn module_load set",
        "weights packed for quantised arithmetic": "fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16",
    }.items()
    for name in names.split()
}
"""Functions without a useful derivative that have no surrogate, and why. Gradient-free attacks cover what they cut."""
