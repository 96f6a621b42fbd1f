"""Surrogate gradients of operations on single elements: rounding, comparisons, logic and bits.

:func:`smooth` makes most of them from a formula; the functions after it need more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import soft_choice
from isthmus.diagnosis.bpda.relaxed import Call, as_float, as_probability, fast_sigmoid

Surrogate = Callable[[Call], Any]
"""Computes the result of a call, with the gradient of a smooth function attached."""


def smooth(formula: Callable[..., Any], *names: str, operand: Callable[[Any], Any] = as_float) -> Surrogate:
    """The result of torch with the gradient of a formula.

    Args:
        formula: of the function's first arguments.
        names: of these arguments; by default the first one alone.
        operand: converts each argument.
    """

    def surrogate(call: Call) -> Any:
        operands = [operand(call.argument(at, name)) for at, name in enumerate(names or ("input",))]
        if isinstance(operands[0], Tensor) and operands[0].is_complex():
            return call.relaxed()
        return call.attach(call.detached(), formula(*operands))

    return surrogate


identity = smooth(lambda x: x)
quotient = smooth(lambda x, y: x / y, "input", "other")


def division(call: Call) -> Any:
    """A division, which may round."""
    return call.relaxed() if call.options.get("rounding_mode") is None else quotient(call)


def exponent(call: Call) -> Any:
    """``frexp``: the exponent has the gradient of the logarithm."""
    real = call.real()
    call.attach(real[1], as_float(call.args[0]).abs().clamp(min=torch.finfo(torch.float32).tiny).log2())
    return real


def nearness(difference: Any) -> Any:
    """1 / (1 + 10 · distance), the surrogate of an equality."""
    return 1 / (1 + 10.0 * difference.abs())


def comparison(soft: Callable[[Tensor], Tensor], negated: bool = False) -> Surrogate:
    """A comparison with the gradient of a function of the difference.

    If a tensor is compared with its own largest or smallest value, the gradient is that of a softmax instead.

    Args:
        soft: of the first argument minus the second.
        negated: whether the comparison is false where the values are equal.
    """

    def compare(call: Call) -> Any:
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        label = _hard_label(call, first)
        if label is None:
            return call.attach(call.detached(), soft(first - second))
        return call.attach(call.detached(), 1 - label if negated else label)

    return compare


def _hard_label(call: Call, first: Any) -> Tensor | None:
    source, dim, sign = getattr(call.argument(1, "other"), "extreme_of", (None, 0, 0))
    if source is None or source is not first:
        return None
    if call.soft_values:
        return sign * source  # type: ignore[no-any-return]
    return soft_choice(source, source.amax(dim, True) if sign > 0 else source.amin(dim, True), dim)


def is_in(call: Call) -> Any:
    """``isin``: the equality with the nearest element."""
    elements, among = as_float(call.argument(0, "elements")), as_float(call.argument(1, "test_elements"))
    among = among.flatten() if isinstance(among, Tensor) else torch.as_tensor([among], dtype=elements.dtype)
    soft = nearness(elements.unsqueeze(-1) - among).amax(-1)
    return call.attach(call.detached(), 1 - soft if call.options.get("invert") else soft)


def copysign(call: Call) -> Any:
    """``copysign``: differentiable in the magnitude, a fast sigmoid in the sign."""
    magnitude, other = as_float(call.args[0]), as_float(call.argument(1, "other"))
    if not isinstance(other, Tensor):
        return call.relaxed()
    soft = call.function(magnitude, other.detach()) + 2 * magnitude.detach().abs() * fast_sigmoid(other)
    return call.attach(call.detached(), soft)


LOGIC: dict[str, Surrogate] = {
    "and": smooth(lambda a, b: a * b, "input", "other", operand=as_probability),
    "or": smooth(lambda a, b: a + b - a * b, "input", "other", operand=as_probability),
    "xor": smooth(lambda a, b: a + b - 2 * a * b, "input", "other", operand=as_probability),
    "not": smooth(lambda a: 1 - a, operand=as_probability),
}
"""Logic of probabilities."""


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
            return LOGIC[name](call)
        first, second = as_float(call.args[0]), as_float(call.argument(1, "other"))
        if name == "not":
            return call.attach(call.detached(), -1 - first)
        return call.attach(call.detached(), first if isinstance(first, Tensor) and first.requires_grad else second)

    return combine


def by_differences(call: Call) -> Any:
    """Central differences of an elementwise function whose derivative torch does not implement."""
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
