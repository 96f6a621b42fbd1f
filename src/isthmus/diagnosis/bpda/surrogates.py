"""The registry of surrogate gradients: which smooth function stands for which operation without a useful derivative.

One table, :data:`SURROGATES`, holds every torch operation whose derivative is zero or undefined almost everywhere, by
kind. A surrogate computes what torch computes, exactly, and attaches the gradient of a smooth function to it
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
draws          the probability itself
unimplemented  central finite differences, element by element
=============  =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import Choice, choice_of, chosen, soft_choice, soft_rank
from isthmus.diagnosis.bpda.lookups import LOOKUPS, looked_up
from isthmus.diagnosis.bpda.relaxed import Call, number, step, truth

Surrogate = Callable[[Call], Any]

_MOST_PAIRS = 2**24  # values × boundaries that are compared one by one


def _identity(call: Call) -> Any:
    return call.attach(call.detached(), number(call.args[0]))


def _no_gradient(call: Call) -> Any:
    return call.detached()


def _quotient(call: Call) -> Any:
    first, second = (number(call.argument(at, name)) for at, name in enumerate(("input", "other")))
    return call.attach(call.detached(), first / second)


def _division(call: Call) -> Any:
    return call.relaxed() if call.options.get("rounding_mode") is None else _quotient(call)


def _exponent(call: Call) -> Any:
    real = call.real()
    call.attach(real[1], number(call.args[0]).abs().clamp(min=torch.finfo(torch.float32).tiny).log2())
    return real


def _compared(way: float) -> Surrogate:
    def compared(call: Call) -> Any:
        first, second = number(call.args[0]), number(call.argument(1, "other"))
        if (extreme := _of_its_own_extreme(call, first)) is not None:
            return call.attach(call.detached(), extreme)
        return call.attach(call.detached(), step(way * (first - second)))

    return compared


def _of_its_own_extreme(call: Call, first: Any) -> Tensor | None:
    """A comparison with one's own largest or smallest value is a hard label."""
    source, dim, sign = getattr(call.argument(1, "other"), "extreme_of", (None, 0, 0))
    if source is None or source is not first:
        return None
    if call.valued:
        return sign * source  # type: ignore[no-any-return]
    return soft_choice(source, source.amax(dim, True) if sign > 0 else source.amin(dim, True), dim)


def _near(equal: bool) -> Surrogate:
    def near(call: Call) -> Any:
        first, second = number(call.args[0]), number(call.argument(1, "other"))
        soft = _of_its_own_extreme(call, first)
        if soft is None:
            soft = 1 / (1 + _distance(first, second))
        return call.attach(call.detached(), soft if equal else 1 - soft)

    return near


def _distance(first: Any, second: Any) -> Any:
    return 10.0 * (first - second).abs()


def _is_in(call: Call) -> Any:
    elements, among = number(call.argument(0, "elements")), number(call.argument(1, "test_elements"))
    among = among.flatten() if isinstance(among, Tensor) else torch.as_tensor([among], dtype=elements.dtype)
    soft = (1 / (1 + _distance(elements.unsqueeze(-1), among))).amax(-1)
    return call.attach(call.detached(), 1 - soft if call.options.get("invert") else soft)


def _sign(call: Call) -> Any:
    x = number(call.args[0])
    return call.relaxed() if x.is_complex() else call.attach(call.detached(), 2 * step(x) - 1)


def _sign_bit(call: Call) -> Any:
    return call.attach(call.detached(), step(-number(call.args[0])))


def _heaviside(call: Call) -> Any:
    return call.attach(call.detached(), step(number(call.args[0])))


def _copied_sign(call: Call) -> Any:
    size, sign = number(call.args[0]), number(call.argument(1, "other"))
    if not isinstance(sign, Tensor):
        return call.relaxed()
    return call.attach(call.detached(), call.function(size, sign.detach()) + 2 * size.detach().abs() * step(sign))


def _angle(call: Call) -> Any:
    x = number(call.args[0])
    return call.relaxed() if x.is_complex() else call.attach(call.detached(), torch.pi * step(-x))


def _where(call: Call) -> Any:
    """Between two constants, the mask's own gradient is all there is."""
    if len(call.args) < 3:
        return call.real()
    mask, first, second = (number(x) for x in call.args)
    made = call.relaxed(keep=0)
    if not isinstance(made, Tensor) or made.requires_grad:
        return made
    return call.attach(made, second + mask * (first - second))


_LOGIC: dict[str, Callable[..., Any]] = {
    "and": lambda a, b: a * b,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: a + b - 2 * a * b,
    "not": lambda a: 1 - a,
}


def _logical(name: str) -> Surrogate:
    def logical(call: Call) -> Any:
        given = (call.args[0],) if name == "not" else (call.args[0], call.argument(1, "other"))
        return call.attach(call.detached(), _LOGIC[name](*map(truth, given)))

    return logical


def _reduced(reduce: Callable[..., Tensor]) -> Surrogate:
    def reduced(call: Call) -> Any:
        soft = truth(call.args[0])
        rest = {"dim": call.args[1]} if len(call.args) > 1 else {}
        return call.attach(
            call.detached(), reduce(soft, **rest, **call.options) if rest or call.options else reduce(soft)
        )

    return reduced


def _bits(name: str) -> Surrogate:
    def bits(call: Call) -> Any:
        booleans = all(not isinstance(x, Tensor) or x.dtype == torch.bool for x in call.args)
        if booleans:
            return _logical(name)(call)
        first, second = number(call.args[0]), number(call.argument(1, "other"))
        if name == "not":
            return call.attach(call.detached(), -1 - first)
        alive = first if isinstance(first, Tensor) and first.requires_grad else second
        return call.attach(call.detached(), alive)

    return bits


def _shifted(way: int) -> Surrogate:
    def shifted(call: Call) -> Any:
        first, second = number(call.args[0]), number(call.argument(1, "other"))
        return call.attach(call.detached(), first * 2.0 ** (way * second))

    return shifted


def _index(call: Call) -> Any:
    """``argmax``, ``argmin``."""
    real, dim = call.real(), call.argument(1, "dim")
    sign = -1 if call.name == "argmin" else 1
    x = number(call.args[0])
    chosen(real, x.flatten() if dim is None else x, 0 if dim is None else dim, sign)
    return real


def _order(call: Call) -> Any:
    """``argsort``; of an order, it is the rank of what was ordered."""
    real, dim = call.real(), call.options.get("dim", -1)
    descending = call.options.get("descending", False)
    for extra in call.args[1:]:
        dim, descending = (dim, extra) if isinstance(extra, bool) else (extra, descending)
    known = choice_of(call.args[0])
    if known is not None and known.order and not descending:
        source = known.source
        ranked = known.order * source if call.valued else soft_rank(source, known.order)
        return call.attach(real, ranked.movedim(-1, dim))
    chosen(real, number(call.args[0]), dim, 0, -1 if descending else 1)
    return real


def _values_and_indices(call: Call) -> Any:
    """``sort``, ``topk``, ``kthvalue``, ``median``, ``mode``, ``max`` … : values have a gradient, indices need one."""
    real = call.real()
    if not (isinstance(real, tuple) and len(real) == 2):
        return real
    values, indices = real
    if not isinstance(indices, Tensor) or indices.is_floating_point():
        return real
    dim = call.argument(2 if call.name in ("topk", "kthvalue") else 1, "dim")
    dim = (0 if call.name in ("max", "min") else -1) if dim is None or isinstance(dim, bool) else dim
    x = number(call.args[0])
    sign = {"max": 1, "cummax": 1, "min": -1, "cummin": -1}.get(call.name, 0)
    if call.name == "topk":
        sign = 1 if call.options.get("largest", True) else -1
    descending = call.options.get("descending", len(call.args) > 2 and call.args[2] is True)
    chosen(indices, x, dim, sign, (-1 if descending else 1) if call.name == "sort" else 0)
    if sign and values.shape[dim if values.dim() == x.dim() else 0 :][:1] == (1,):
        values.extreme_of = (x, dim, sign)
    return real


def _extreme(call: Call) -> Any:
    """``amax`` and ``amin`` have a gradient; a comparison with them is a hard label."""
    real, dim = call.real(), call.argument(1, "dim")
    if isinstance(dim, int) and real.dim() == call.args[0].dim():
        real.extreme_of = (number(call.args[0]), dim, 1 if call.name == "amax" else -1)
    return real


def _searched(values_at: int) -> Surrogate:
    """``bucketize`` (0) and ``searchsorted`` (1): how many boundaries a value exceeds."""

    def searched(call: Call) -> Any:
        named = (("input", "boundaries"), ("self", "sorted_sequence"))[values_at]
        x = number(call.argument(values_at, named[0]) if values_at == 0 else call.argument(1, "input"))
        boundaries = number(call.argument(1 - values_at, named[1]))
        real = call.detached()
        x = x if isinstance(x, Tensor) else torch.as_tensor(x, dtype=boundaries.dtype, device=boundaries.device)
        if boundaries.dim() == 1:
            rows, among = x.unsqueeze(-1), boundaries
        else:
            rows, among = x.unsqueeze(-1), boundaries.unsqueeze(-2)
        if real.numel() * boundaries.shape[-1] > _MOST_PAIRS:  # each boundary apart takes too much memory
            span = (boundaries[..., -1:] - boundaries[..., :1]).clamp(min=1e-12)
            return call.attach(real, x * (boundaries.shape[-1] / span.squeeze(-1)))
        return call.attach(real, x if call.valued else step(rows - among).sum(-1))

    return searched


def _kernels(values: Tensor, centres: Tensor, width: float, weights: Tensor | None = None) -> Tensor:
    near = 1 / (1 + ((values.flatten()[:, None] - centres) / width).square())
    near = near / near.sum(1, keepdim=True)
    return (near if weights is None else near * weights.flatten()[:, None]).sum(0)


def _histogram(call: Call) -> Any:
    """``histc``, ``histogram``."""
    x = number(call.args[0])
    hard = call.detached()
    counts = hard[0] if isinstance(hard, tuple) else hard
    if isinstance(hard, tuple):
        edges = hard[1]
    else:
        low, high = float(call.argument(2, "min") or 0), float(call.argument(3, "max") or 0)
        if low == high == 0:
            low, high = float(x.detach().min()), float(x.detach().max())
        edges = torch.linspace(low, high, len(counts) + 1, dtype=x.dtype, device=x.device)
    centres, width = (edges[1:] + edges[:-1]) / 2, float((edges[-1] - edges[0]) / len(counts)) or 1.0
    counted = call.attach(counts, _kernels(x, centres, width))
    return type(hard)((counted, hard[1])) if isinstance(hard, tuple) else counted


def _bin_count(call: Call) -> Any:
    x, weights = number(call.args[0]), call.argument(1, "weights")
    hard = call.detached()
    centres = torch.arange(len(hard), dtype=x.dtype, device=x.device)
    return call.attach(hard, _kernels(x, centres, 1.0, weights))


def _count(call: Call) -> Any:
    soft, dim = truth(call.args[0]), call.argument(1, "dim")
    return call.attach(call.detached(), soft.sum() if dim is None else soft.sum(dim))


def _draw(call: Call) -> Any:
    """``bernoulli``, ``poisson``: the mean, which is the argument."""
    return call.attach(call.detached(), number(call.args[0]))


def _binomial(call: Call) -> Any:
    return call.attach(call.detached(), call.argument(0, "count") * call.argument(1, "prob"))


def _category(call: Call) -> Any:
    """``multinomial``: drawn from weights."""
    real = call.detached()
    real.choice = Choice.drawn(number(call.args[0]), real)
    return real


def _distinct(call: Call) -> Any:
    """``unique``: each value is the mean of its copies; the inverse is a rank."""
    x = number(call.args[0])
    if call.options.get("dim") is not None:
        return call.detached()
    again = dict(call.options, return_inverse=True, return_counts=True)
    values, inverse, counts = call.function(call.args[0].detach(), *call.args[1:3], **again)
    soft = torch.zeros_like(values, dtype=x.dtype).index_add(0, inverse.flatten(), x.flatten()) / counts
    values = call.attach(values, soft)
    if call.options.get("return_inverse") and inverse.numel() * len(values) <= _MOST_PAIRS:
        ranks = step(x.unsqueeze(-1) - soft).sum(-1) - 0.5
        inverse = call.attach(inverse, x if call.valued else ranks)
    kept = (("return_inverse", inverse), ("return_counts", counts))
    found = (values, *(each for name, each in kept if call.options.get(name)))
    return found if len(found) > 1 else values


def _differenced(call: Call) -> Any:
    """What torch has no derivative of, where it works element by element: central differences."""
    hard = call.detached()
    at = [i for i, x in enumerate(call.args) if isinstance(x, Tensor) and number(x).requires_grad]
    soft: Any = 0.0
    for i in at:
        x = number(call.args[i])
        h = 1e-3 * (1 + x.detach().abs())
        ways = ([*call.args[:i], x.detach() + way * h, *call.args[i + 1 :]] for way in (1, -1))
        up, down = (call.function(*(_bare(each) for each in way), **call.options) for way in ways)
        soft = soft + ((up - down) / (2 * h)).nan_to_num(0.0, 0.0, 0.0) * x
    return call.attach(hard, soft) if at else hard


def _bare(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _shuffled(call: Call) -> Any:
    return call.attach(call.detached(), torch.channel_shuffle(number(call.args[0]), call.argument(1, "groups")))


_SPECIAL = {
    *("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "modified_bessel_i0", "modified_bessel_i1"),
    *("modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1"),
    *("spherical_bessel_j0", "zeta", "igamma", "igammac", "gammainc", "gammaincc", "laguerre_polynomial_l"),
    *(f"{shift}chebyshev_polynomial_{kind}" for shift in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "legendre_polynomial_p", "nextafter"),
}

KINDS: dict[str, dict[str, Surrogate]] = {
    "rounding": {
        **dict.fromkeys(("round", "floor", "ceil", "trunc", "fix"), _identity),
        **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max", "hardtanh"), _identity),
        **dict.fromkeys(("floordiv", "floor_divide"), _quotient),
        **dict.fromkeys(("div", "divide"), _division),
        **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel", "quantize_per_tensor_dynamic"), _identity),
        "dequantize": _identity,
        "frexp": _exponent,
    },
    "remainders": dict.fromkeys(("remainder", "fmod", "frac", "mod"), _no_gradient),
    "comparisons": {
        **dict.fromkeys(("gt", "ge", "greater", "greater_equal"), _compared(1.0)),
        **dict.fromkeys(("lt", "le", "less", "less_equal"), _compared(-1.0)),
        **dict.fromkeys(("eq", "isclose"), _near(True)),
        **dict.fromkeys(("ne", "not_equal"), _near(False)),
        **dict.fromkeys(("sign", "sgn"), _sign),
        "isin": _is_in,
        "signbit": _sign_bit,
        "heaviside": _heaviside,
        "copysign": _copied_sign,
        "angle": _angle,
    },
    "logic": {f"logical_{name}": _logical(name) for name in _LOGIC}
    | {"all": _reduced(torch.amin), "any": _reduced(torch.amax), "where": _where},
    "bits": {
        **{name: _bits(name) for name in ("and", "or", "xor")},
        **{f"bitwise_{name}": _bits(name) for name in _LOGIC},
        **dict.fromkeys(("invert",), _bits("not")),
        **dict.fromkeys(("lshift", "bitwise_left_shift"), _shifted(1)),
        **dict.fromkeys(("rshift", "bitwise_right_shift"), _shifted(-1)),
    },
    "choices": {
        **dict.fromkeys(("argmax", "argmin"), _index),
        "argsort": _order,
        **dict.fromkeys(("sort", "topk", "kthvalue", "median", "nanmedian", "mode"), _values_and_indices),
        **dict.fromkeys(("max", "min", "cummax", "cummin"), _values_and_indices),
        **dict.fromkeys(("amax", "amin"), _extreme),
    },
    "lookups": dict.fromkeys(LOOKUPS, looked_up),
    "search": {"bucketize": _searched(0), "searchsorted": _searched(1)},
    "counts": {
        **dict.fromkeys(("histc", "histogram"), _histogram),
        "bincount": _bin_count,
        "count_nonzero": _count,
        **dict.fromkeys(("unique", "unique_consecutive"), _distinct),
    },
    "draws": {
        **dict.fromkeys(("bernoulli", "poisson"), _draw),
        "binomial": _binomial,
        "multinomial": _category,
    },
    "unimplemented": {
        **dict.fromkeys(_SPECIAL, _differenced),
        **dict.fromkeys(("apply", "map", "map2"), _identity),  # somebody's own function, element by element
        "native_channel_shuffle": _shuffled,
    },
}
"""The registry. Names are :func:`~isthmus.diagnosis.bpda.relaxed.plain`: no underscores, prefixes or reflections."""

SURROGATES: dict[str, Surrogate] = {name: each for kind in KINDS.values() for name, each in kind.items()}

BY_RELAXATION = {*LOOKUPS, "where"}
"""Functions that have a gradient of their own unless an index or a mask is to have one."""

EXEMPT: dict[str, str] = {
    name: reason
    for reason, names in {
        "constant almost everywhere: images are finite and real": (
            *("isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal", "matrix_rank"),
        ),
        "does not depend on the values": (
            *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "zero"),
            *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "fill", "resize_as", "resize"),
            *("uniform", "normal", "random", "exponential", "geometric", "cauchy", "log_normal", "get"),
        ),
        "positions whose number depends on the values": ("nonzero", "argwhere", "nonzero_static"),
        "leaves torch for a number, a list or text of Python": (
            *("item", "tolist", "float", "int", "bool", "long", "complex", "index", "nonzero_", "len", "contains"),
            *("equal", "allclose", "is_nonzero", "repr", "format", "reduce_ex", "deepcopy", "backward"),
        ),
        "a copy or cast that the watch sees to": (
            *("detach", "detach_copy", "byte", "char", "short", "half", "bfloat16", "type", "to", "numpy", "array"),
        ),
        "counts or hashes of bits, in more than one dimension": ("histogramdd", "hash_tensor"),
        "factors of a matrix that torch cannot differentiate": ("geqrf", "ldl_factor", "ldl_factor_ex"),
        "another layout or device of the same values": ("to_mkldnn", "module_load", "set"),
        "weights packed for quantised arithmetic": ("fbgemm_linear_quantize_weight", "fbgemm_pack_gemm_matrix_fp16"),
    }.items()
    for name in names
}
"""Functions without a useful derivative that have no surrogate, and why; what they cut is left to attacks without
gradients."""
