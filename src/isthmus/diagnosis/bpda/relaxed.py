"""Relaxed numbers: how a tensor that cannot have a gradient carries one all the same.

A tensor of integers or booleans keeps its dtype and values, and remembers a floating-point tensor of its shape, its
relaxation. Functions of such a tensor are computed twice, on the values and on the relaxation, and the gradient of
the second is attached to the first. :class:`Call` does this for any function; surrogates are built with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SLOPE = 10.0
"""Of the fast sigmoid that stands for a comparison. Pixels in [0, 1] distinguish thresholds a tenth apart."""

_OPERATORS = {
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "mod",
    "floordiv",
    "add",
    "sub",
    "mul",
    "truediv",
    "pow",
    "matmul",
}
_PREFIXES = ("special_", "linalg_")


class Through(torch.autograd.Function):
    """The value of ``hard``, exactly, even where ``soft`` is infinite."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        """``hard``, and no view of it."""
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """All of it is for ``soft``."""
        return gradients[0], None


def through(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of one with the gradient of the other."""
    exactly: Any = Through.apply
    found: Tensor = exactly(soft, hard)
    return found


def plain(name: str) -> tuple[str, bool, bool]:
    """A function's name without spelling, whether it works in place, and whether its operands are reflected.

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


def is_real(x: Any) -> bool:
    """Whether this is a tensor of floating-point numbers."""
    return isinstance(x, Tensor) and x.is_floating_point()


def relaxation(x: Any) -> Tensor | None:
    """What a tensor of integers or booleans remembers; None where there is none."""
    if not isinstance(x, Tensor) or x.is_floating_point():
        return None
    found: Tensor | None = getattr(x, "relaxed", None)
    if found is None and getattr(x, "choice", None) is not None:
        found = x.choice.expected()  # type: ignore[attr-defined]
        if found is not None:
            found = through(found, x.detach().to(found.dtype))
            x.relaxed = found  # type: ignore[attr-defined]
    return found


def number(x: Any) -> Any:
    """A tensor as floating-point numbers that have a gradient where there is one; anything else as it is."""
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex():
        return x
    relaxed = relaxation(x)
    return x.dequantize() if x.is_quantized and relaxed is None else x.float() if relaxed is None else relaxed


def truth(x: Any) -> Any:
    """How true a number is, from 0 to 1: a boolean's relaxation, and otherwise how far it is from 0."""
    if not isinstance(x, Tensor):
        return float(bool(x))
    if x.dtype == torch.bool:
        return number(x)
    size = SLOPE * number(x).abs()
    return size / (1 + size)


def step(x: Tensor) -> Tensor:
    """A fast sigmoid ½ + ½·s·x/(1 + s·|x|): its slope falls as 1/x², so that it never vanishes in float32."""
    scaled = (SLOPE * x).nan_to_num()
    return 0.5 + 0.5 * scaled / (1 + scaled.abs())


def each(values: Any) -> Iterator[Any]:
    """Arguments, and what is in lists among them."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from each(value)
        else:
            yield value


def is_relaxed(x: Any) -> bool:
    """Whether a tensor of integers or booleans has a gradient."""
    return (
        isinstance(x, Tensor)
        and not x.is_floating_point()
        and (getattr(x, "relaxed", None) is not None or getattr(x, "choice", None) is not None)
    )


def is_alive(x: Any) -> bool:
    """Whether a gradient can come through this argument."""
    return isinstance(x, Tensor) and (x.requires_grad or is_relaxed(x))


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    Attributes:
        name: without its spelling; see :func:`plain`.
        function: what to call; never one that works in place.
        args, options: its arguments.
        valued: results have their relaxation's value, too.
        writes: the first argument is what the result is written into.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    valued: bool = False
    writes: bool = False

    def argument(self, at: int, name: str) -> Any:
        """One of the arguments, by place or name; None where it was not given."""
        return self.args[at] if at < len(self.args) else self.options.get(name)

    def real(self) -> Any:
        """The result with the gradient that torch gives it."""
        return self.function(*self.args, **self.options)

    def detached(self) -> Any:
        """The result without a gradient."""
        with torch.no_grad():
            return self.function(*self.args, **self.options)

    def attach(self, hard: Any, soft: Any) -> Any:
        """The value of ``hard`` with the gradient of ``soft``; tensor by tensor where there are several."""
        if isinstance(hard, tuple | list) and isinstance(soft, tuple | list):
            return type(hard)([self.attach(*pair) for pair in zip(hard, soft, strict=True)])
        if not (isinstance(hard, Tensor) and is_real(soft) and soft.requires_grad) or hard.is_complex():
            return hard
        if soft.shape != hard.shape:
            return hard
        if hard.is_floating_point():
            return soft.to(hard.dtype) if self.valued else through(soft.to(hard.dtype), hard)
        value = hard.dequantize() if hard.is_quantized else hard
        hard.relaxed = soft if self.valued else through(soft, value.to(soft.dtype))  # type: ignore[attr-defined]
        return hard

    def relaxed(self, keep: int | None = None) -> Any:
        """The result on relaxations: the gradient of integers and booleans where they are used as numbers.

        Args:
            keep: place of an argument that stays as it is: indices.
        """
        given = [x for at, x in enumerate(self.args) if at != keep] + list(self.options.values())
        if not any(is_relaxed(x) for x in each(given)):
            return self.real()
        choice = getattr(self.args[0], "choice", None) if self.args else None
        if choice is not None and self.name in RESHAPING:
            hard = self.detached()
            if isinstance(hard, Tensor) and not hard.is_floating_point():
                hard.choice = choice.moved(self)  # type: ignore[attr-defined]
                return hard
        hard = self.detached()
        if not any(isinstance(x, Tensor) for x in each((hard,))):
            return hard
        try:
            soft = self.function(
                *(x if at == keep else _soft(x, self.writes and at == 0) for at, x in enumerate(self.args)),
                **{name: _soft(x) for name, x in self.options.items()},
            )
        except (TypeError, RuntimeError, IndexError, ValueError):  # for integers alone
            return self.real()
        return self.attach(hard, soft)


RESHAPING = {
    *(
        "getitem",
        "select",
        "squeeze",
        "unsqueeze",
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "transpose",
        "t",
        "permute",
    ),
    *("movedim", "swapaxes", "swapdims", "expand", "expand_as", "repeat", "contiguous", "clone", "flip", "narrow"),
    *("to", "long", "int", "short", "byte", "cpu", "cuda", "view_as", "index_select", "take", "gather"),
}
"""Functions that keep, move, repeat or leave out the integers they are given."""


def _soft(x: Any, target: bool = False) -> Any:
    if isinstance(x, list | tuple):
        return type(x)([_soft(one) for one in x]) if type(x) in (list, tuple) else x
    return number(x) if target or is_relaxed(x) else x
