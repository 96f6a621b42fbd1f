"""Surrogate gradients of operations on single elements: rounding, comparisons, logic and bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import soft_choice
from isthmus.diagnosis.bpda.relaxed import Call, as_float, as_probability, fast_sigmoid

Surrogate = Callable[[Call], Any]
"""Computes the result of a call, with the gradient of a smooth function attached."""

# --- rounding ---


def identity(call: Call) -> Any:
    """The gradient of the identity in the first argument."""
    return call.attach(call.detached(), as_float(call.args[0]))


def no_gradient(call: Call) -> Any:
    """No gradient."""
    return call.detached()


def quotient(call: Call) -> Any:
    """Floor division, with the gradient of the division."""
    first, second = (as_float(call.argument(at, name)) for at, name in enumerate(("input", "other")))
    return call.attach(call.detached(), first / second)


def division(call: Call) -> Any:
    """A division, which may round."""
    return call.relaxed() if call.options.get("rounding_mode") is None else quotient(call)


def exponent(call: Call) -> Any:
    """``frexp``: the exponent has the gradient of the logarithm."""
    real = call.real()
    call.attach(real[1], as_float(call.args[0]).abs().clamp(min=torch.finfo(torch.float32).tiny).log2())
    return real


# --- comparisons and signs ---


def comparison(direction: float) -> Surrogate:
    """Greater (1) or less (−1) than: a fast sigmoid of the difference."""

    def compare(call: Call) -> Any:
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        if (label := _hard_label(call, first)) is not None:
            return call.attach(call.detached(), label)
        return call.attach(call.detached(), fast_sigmoid(direction * (first - second)))

    return compare


def _hard_label(call: Call, first: Any) -> Tensor | None:
    """The softmax, if a tensor is compared with its own largest or smallest value; None otherwise."""
    source, dim, sign = getattr(call.argument(1, "other"), "extreme_of", (None, 0, 0))
    if source is None or source is not first:
        return None
    if call.soft_values:
        return sign * source  # type: ignore[no-any-return]
    return soft_choice(source, source.amax(dim, True) if sign > 0 else source.amin(dim, True), dim)


def equality(equal: bool) -> Surrogate:
    """Equal or not: 1 / (1 + 10 · distance), or 1 minus that."""

    def compare(call: Call) -> Any:
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        soft = _hard_label(call, first)
        if soft is None:
            soft = 1 / (1 + _distance(first, second))
        return call.attach(call.detached(), soft if equal else 1 - soft)

    return compare


def _distance(first: Any, second: Any) -> Any:
    return 10.0 * (first - second).abs()


def is_in(call: Call) -> Any:
    """``isin``: the equality with the nearest element."""
    elements, among = as_float(call.argument(0, "elements")), as_float(call.argument(1, "test_elements"))
    among = among.flatten() if isinstance(among, Tensor) else torch.as_tensor([among], dtype=elements.dtype)
    soft = (1 / (1 + _distance(elements.unsqueeze(-1), among))).amax(-1)
    return call.attach(call.detached(), 1 - soft if call.options.get("invert") else soft)


def sign(call: Call) -> Any:
    """``sign``, ``sgn``: a fast sigmoid from −1 to 1."""
    x = as_float(call.args[0])
    return call.relaxed() if x.is_complex() else call.attach(call.detached(), 2 * fast_sigmoid(x) - 1)


def sign_bit(call: Call) -> Any:
    """``signbit``: a fast sigmoid of the negative."""
    return call.attach(call.detached(), fast_sigmoid(-as_float(call.args[0])))


def heaviside(call: Call) -> Any:
    """``heaviside``: a fast sigmoid."""
    return call.attach(call.detached(), fast_sigmoid(as_float(call.args[0])))


def copysign(call: Call) -> Any:
    """``copysign``: differentiable in the magnitude, a fast sigmoid in the sign."""
    magnitude, other = as_float(call.args[0]), as_float(call.argument(1, "other"))
    if not isinstance(other, Tensor):
        return call.relaxed()
    soft = call.function(magnitude, other.detach()) + 2 * magnitude.detach().abs() * fast_sigmoid(other)
    return call.attach(call.detached(), soft)


def angle(call: Call) -> Any:
    """``angle`` of a real number, 0 or π."""
    x = as_float(call.args[0])
    return call.relaxed() if x.is_complex() else call.attach(call.detached(), torch.pi * fast_sigmoid(-x))


# --- logic and bits ---

LOGIC: dict[str, Callable[..., Any]] = {
    "and": lambda a, b: a * b,
    "or": lambda a, b: a + b - a * b,
    "xor": lambda a, b: a + b - 2 * a * b,
    "not": lambda a: 1 - a,
}
"""Logic of probabilities."""


def logical(name: str) -> Surrogate:
    """``logical_and`` and similar: products and sums of probabilities."""

    def combine(call: Call) -> Any:
        given = (call.args[0],) if name == "not" else (call.args[0], call.argument(1, "other"))
        return call.attach(call.detached(), LOGIC[name](*map(as_probability, given)))

    return combine


def any_or_all(reduce: Callable[..., Tensor]) -> Surrogate:
    """``any`` and ``all``: the largest and the smallest probability."""

    def combine(call: Call) -> Any:
        soft = as_probability(call.args[0])
        dim = {"dim": call.args[1]} if len(call.args) > 1 else {}
        return call.attach(call.detached(), reduce(soft, **dim, **call.options))

    return combine


def where(call: Call) -> Any:
    """``where``: between two constants, the mask is all that has a gradient."""
    if len(call.args) < 3:
        return call.real()
    mask, first, second = (as_float(x) for x in call.args)
    made = call.relaxed(keep=0)
    if not isinstance(made, Tensor) or made.requires_grad:
        return made
    return call.attach(made, second + mask * (first - second))


def bitwise(name: str) -> Surrogate:
    """Logic for booleans; for integers the identity in the argument with a gradient."""

    def combine(call: Call) -> Any:
        if all(not isinstance(x, Tensor) or x.dtype == torch.bool for x in call.args):
            return logical(name)(call)
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        if name == "not":
            return call.attach(call.detached(), -1 - first)
        return call.attach(call.detached(), first if isinstance(first, Tensor) and first.requires_grad else second)

    return combine


def shift(direction: int) -> Surrogate:
    """Bit shifts to the left (1) or right (−1): multiplication or division by a power of two."""

    def multiply(call: Call) -> Any:
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        return call.attach(call.detached(), first * 2.0 ** (direction * second))

    return multiply


# --- derivatives that torch does not implement ---


def by_differences(call: Call) -> Any:
    """Central differences of an elementwise function."""
    hard = call.detached()
    places = [at for at, x in enumerate(call.args) if isinstance(x, Tensor) and as_float(x).requires_grad]
    soft: Any = 0.0
    for at in places:
        x = as_float(call.args[at])
        h = 1e-3 * (1 + x.detach().abs())
        moved = ([*call.args[:at], x.detach() + way * h, *call.args[at + 1 :]] for way in (1, -1))
        up, down = (call.function(*(_detached(each) for each in args), **call.options) for args in moved)
        soft = soft + ((up - down) / (2 * h)).nan_to_num(0.0, 0.0, 0.0) * x
    return call.attach(hard, soft) if places else hard


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x
