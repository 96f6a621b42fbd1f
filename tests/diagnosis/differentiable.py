"""Find out from torch which of its functions have a derivative that is zero or undefined almost everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def reals(*shape: int) -> Tensor:
    """Numbers in [0.1, 0.9] that require a gradient, and may be changed in place."""
    return (torch.rand(*shape) * 0.8 + 0.1).requires_grad_() * 1


def _x() -> Tensor:
    return reals(4, 4)


def _i() -> Tensor:
    return torch.randint(0, 3, (4, 4))


def _rows() -> Tensor:
    return torch.tensor([0, 1, 2, 3])


def _mask() -> Tensor:
    return torch.rand(4, 4) > 0.5


ARGUMENTS: tuple[Callable[[], tuple[Any, ...]], ...] = (
    lambda: (_x(),),
    lambda: (_x(), -1),
    lambda: (_x(), _x()),
    lambda: (_x(), 2),
    lambda: (_x(), 1),
    lambda: (_x(), 0.3),
    lambda: (_x(), torch.rand(4).sort().values),
    lambda: (torch.rand(4).sort().values, _x()),
    lambda: (_x(), 1, -1),
    lambda: (_x(), -1, _i(), _x()),
    lambda: (_x(), -1, _i()),
    lambda: (_x(), _i()),
    lambda: (_i(), _x()),
    lambda: (_x(), 0, _rows(), _x()),
    lambda: (_x(), 0, _rows()),
    lambda: (_x(), 0, _rows(), 0.5),
    lambda: (_x(), _x(), _x()),
    lambda: (_x(), 0.3, 0.6),
    lambda: (_mask(), _x(), _x()),
    lambda: (_x(), _mask(), 0.5),
    lambda: (_x(), _mask(), _x()),
    lambda: (_x(), _mask()),
    lambda: (_x(), (2, 8)),
    lambda: (_x(), (1, 0)),
    lambda: (_x(), torch.int64),
    lambda: (reals(4),),
    lambda: (reals(4), reals(4)),
    lambda: (reals(3, 3), reals(3), reals(3)),
    lambda: (reals(2, 4, 4), reals(2, 4, 4)),
    lambda: (reals(4, 4), reals(2, 4, 4), reals(2, 4, 4)),
    lambda: (reals(2, 4, 4), reals(2, 4, 4), reals(2, 4, 4)),
    lambda: (reals(1, 2, 6, 6), 2),
    lambda: (reals(1, 2, 6, 6),),
    lambda: (reals(1, 2, 6), 2),
    lambda: (reals(1, 2, 6, 6), reals(2, 2, 3, 3)),
    lambda: ([_x(), _x()],),
    lambda: (reals(1),),
    lambda: (_x(), 0, 2, 1),
    lambda: (_x(), 0, torch.tensor([0, 2]), 0.5),
    lambda: (_x(), 0, 0, 2),
    lambda: (_x(), (_rows(), _rows()), reals(4)),
    lambda: (_x(), _rows(), reals(4)),
    lambda: (_x(), 2, 0, 0.5),
    lambda: (1, _x()),
    lambda: (_x(), 0.1, 0, torch.quint8),
    lambda: (_x(), 0.1, 0, 0, 15),
)
"""Arguments that are tried on a function until some have a gradient."""


def leaves(value: Any) -> Iterator[Tensor]:
    """Tensors in a result or among arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)


def probed(function: Callable[..., Any]) -> set[str]:
    """Outcomes of differentiating a function, over all arguments that it accepts.

    ``ok`` (not zero everywhere), ``zero``, ``none`` (a tensor without a gradient), ``undefined`` (the backward pass
    raises) or ``no tensor``; empty if it accepts none of them.
    """
    found: set[str] = set()
    for make in ARGUMENTS:
        args = make()
        given = [x for x in leaves(list(args)) if x.requires_grad]
        try:
            made = function(*args)
        except Exception:  # it does not accept these arguments
            continue
        results = list(leaves(made))
        attached = [x for x in results if x.requires_grad]
        if not attached:
            found.add("none" if results else "no tensor")
            continue
        try:
            total = sum(
                (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).mul(0.7).pow(2).sum() for x in attached
            )
            gradients = torch.autograd.grad(total, given, allow_unused=True)
        except Exception:  # the derivative is not implemented
            found.add("undefined")
            continue
        if any(gradient is not None and bool(gradient.any()) for gradient in gradients):
            return {"ok"}
        found.add("zero")
    return found
