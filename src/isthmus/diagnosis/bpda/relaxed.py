"""Relaxations: gradients for tensors of integers and booleans.

Such a tensor keeps its dtype and values, and carries a floating-point tensor of its shape, its relaxation. A function
of it is computed twice, on the values and on the relaxation, and the gradient of the second is attached to the first.
:class:`Call` does this for any function; surrogates are built with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLOPE = 10.0
"""Slope of the fast sigmoid that replaces a comparison: thresholds a tenth apart remain distinguishable in [0, 1]."""


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


_OPERATORS = words("and or xor lshift rshift mod floordiv add sub mul truediv pow matmul")
_PREFIXES = ("special_", "linalg_")


class AttachGradient(torch.autograd.Function):
    """The exact value of ``hard``, even if ``soft`` is infinite, with the gradient of ``soft``."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        """A copy of ``hard``."""
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The gradient goes to ``soft``."""
        return gradients[0], None


def attach_gradient(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of ``hard`` with the gradient of ``soft``."""
    exactly: Any = AttachGradient.apply
    found: Tensor = exactly(soft, hard)
    return found


def normalized_name(name: str) -> tuple[str, bool, bool]:
    """A function's bare name, whether it works in place, and whether its operands are reflected.

    ``__ixor__`` is ``xor``, in place; ``__rfloordiv__`` is ``floordiv``, reflected; ``round_`` is ``round``, in place.
    """
    name = name.split(".")[0]
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        if name[:1] in ("i", "r") and name[1:] in _OPERATORS:
            return name[1:], name[0] == "i", name[0] == "r"
        return name, name == "setitem", False
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return (name[:-1], True, False) if name.endswith("_") else (name, False, False)


def is_floating(x: Any) -> bool:
    """Whether this is a floating-point tensor."""
    return isinstance(x, Tensor) and x.is_floating_point()


def relaxation(x: Any) -> Tensor | None:
    """The relaxation of a tensor of integers or booleans; None if it has none."""
    if not isinstance(x, Tensor) or x.is_floating_point():
        return None
    found: Tensor | None = getattr(x, "relaxed", None)
    if found is None and getattr(x, "choice", None) is not None:
        found = x.choice.expected()  # type: ignore[attr-defined]
        if found is not None:
            found = attach_gradient(found, x.detach().to(found.dtype))
            x.relaxed = found  # type: ignore[attr-defined]
    return found


def as_float(x: Any) -> Any:
    """A tensor as floating-point numbers, with its gradient if it has one; anything else unchanged."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        return x
    relaxed = relaxation(x)
    return x.dequantize() if x.is_quantized and relaxed is None else x.float() if relaxed is None else relaxed


def as_probability(x: Any) -> Any:
    """The probability that a value is true: the relaxation of a boolean; for a number, by its distance from 0."""
    if not isinstance(x, Tensor):
        return float(bool(x))
    if x.dtype == torch.bool:
        return as_float(x)
    size = SLOPE * as_float(x).abs()
    return size / (1 + size)


def fast_sigmoid(x: Tensor) -> Tensor:
    """½ + ½·s·x/(1 + s·|x|), whose slope falls as 1/x² and so never vanishes in float32."""
    scaled = (SLOPE * x).nan_to_num()
    return 0.5 + 0.5 * scaled / (1 + scaled.abs())


def flattened(values: Any) -> Iterator[Any]:
    """Arguments, with lists among them flattened."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flattened(value)
        else:
            yield value


def is_relaxed(x: Any) -> bool:
    """Whether this is a tensor of integers or booleans that carries a gradient."""
    return (
        isinstance(x, Tensor)
        and not x.is_floating_point()
        and (getattr(x, "relaxed", None) is not None or getattr(x, "choice", None) is not None)
    )


def carries_gradient(x: Any) -> bool:
    """Whether this is a tensor with a gradient."""
    return isinstance(x, Tensor) and (x.requires_grad or is_relaxed(x))


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        name: bare name of the function; see :func:`normalized_name`.
        function: what to call; it never works in place.
        args, options: its arguments.
        soft_values: whether results take the value of their relaxation as well.
        in_place: whether the result is written into the first argument.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    soft_values: bool = False
    in_place: bool = False

    def argument(self, at: int, name: str) -> Any:
        """An argument by position or name; None if it was not given."""
        return self.args[at] if at < len(self.args) else self.options.get(name)

    def real(self) -> Any:
        """The result with torch's gradient."""
        return self.function(*self.args, **self.options)

    def detached(self) -> Any:
        """The result without a gradient."""
        with torch.no_grad():
            return self.function(*self.args, **self.options)

    def attach(self, hard: Any, soft: Any) -> Any:
        """The value of ``hard`` with the gradient of ``soft``; tensor by tensor if there are several."""
        if isinstance(hard, tuple | list) and isinstance(soft, tuple | list):
            return type(hard)([self.attach(*pair) for pair in zip(hard, soft, strict=True)])
        if not (isinstance(hard, Tensor) and is_floating(soft) and soft.requires_grad) or hard.is_complex():
            return hard
        if soft.shape != hard.shape:
            return hard
        if hard.is_floating_point():
            return soft.to(hard.dtype) if self.soft_values else attach_gradient(soft.to(hard.dtype), hard)
        value = hard.dequantize() if hard.is_quantized else hard
        hard.relaxed = soft if self.soft_values else attach_gradient(soft, value.to(soft.dtype))  # type: ignore[attr-defined]
        return hard

    def relaxed(self, keep: int | None = None) -> Any:
        """The result with the gradient of the function on relaxations: integers and booleans used as numbers.

        Args:
            keep: position of an argument that is not relaxed, such as indices.
        """
        given = [x for at, x in enumerate(self.args) if at != keep] + list(self.options.values())
        if not any(is_relaxed(x) for x in flattened(given)):
            return self.real()
        hard = self.detached()
        choice = getattr(self.args[0], "choice", None) if self.args else None
        if choice is not None and self.name in RESHAPING and isinstance(hard, Tensor) and not hard.is_floating_point():
            hard.choice = choice.transformed(self)  # type: ignore[attr-defined]
            return hard
        if not any(isinstance(x, Tensor) for x in flattened((hard,))):
            return hard
        args = [x if at == keep else _relaxed_argument(x, self.in_place and at == 0) for at, x in enumerate(self.args)]
        options = {name: _relaxed_argument(x) for name, x in self.options.items()}
        try:
            soft = self.function(*args, **options)
        except (TypeError, RuntimeError, IndexError, ValueError):  # the function only takes integers
            return self.real()
        return self.attach(hard, soft)


RESHAPING = words(
    "getitem select squeeze unsqueeze view reshape flatten unflatten transpose t permute movedim swapaxes swapdims "
    "expand expand_as repeat contiguous clone flip narrow to long int short byte cpu cuda view_as index_select take "
    "gather"
)
"""Functions that keep, move, repeat or drop the integers they are given."""


def _relaxed_argument(x: Any, target: bool = False) -> Any:
    if isinstance(x, list | tuple):
        return type(x)([_relaxed_argument(one) for one in x]) if type(x) in (list, tuple) else x
    return as_float(x) if target or is_relaxed(x) else x
