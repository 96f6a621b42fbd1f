"""Entries of a table at indices that have a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import Choice, choice_of, soft_rank
from isthmus.diagnosis.bpda.relaxed import Call, as_float, is_floating, is_relaxed

LOOKUPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "getitem": (1, ()),
    "setitem": (1, ()),
    "take": (1, ("index",)),
    "take_along_dim": (1, ("indices",)),
    "embedding": (0, ("input",)),
    "one_hot": (0, ("tensor", "input")),
    "index_select": (2, ("index",)),
    "gather": (2, ("index",)),
    "scatter": (2, ("index",)),
    "masked_fill": (1, ("mask",)),
}
"""Functions that take indices or a mask: the position and the names of that argument."""

WRITES = {"setitem", "scatter", "masked_fill"}
_OFFSETS = (1, 2, 4, 8)  # of the finite differences along a table's index
_MAX_REPEATS = 64  # alternatives that are looked up individually


def lookup(call: Call) -> Any:
    """Entries of a table; if the table has no gradient, with the gradient of their indices.

    An index that was chosen by comparison gets the expectation over all alternatives. Any other gets the slope of the
    table near it, a weighted mean of finite differences 1, 2, 4 and 8 entries away.
    """
    place, name, indices = _indices(call)
    made = call.relaxed(keep=place)
    if not isinstance(made, Tensor) or made.requires_grad or is_relaxed(made):
        return made
    for at, index in enumerate(indices):
        if not is_relaxed(index):
            continue
        if index.dtype == torch.bool:
            soft = _masked(call, index) if call.name in WRITES else None
        elif call.name in WRITES:
            soft = _written(call, index)
        else:
            again = _repeat(call, place, name, indices, at)
            choice = choice_of(index)
            soft = _by_expectation(call, choice, again, index, made) if choice is not None else None
            if soft is None:
                soft = _by_slope(call, again, index, at, made)
        if soft is not None:
            return call.attach(made, soft)
    return made


def _indices(call: Call) -> tuple[int | None, str | None, Sequence[Any]]:
    """Position or name of the indices among the arguments, and the indices."""
    place, names = LOOKUPS[call.name]
    if call.name == "embedding" and call.args and is_floating(call.args[0]):  # torch.embedding takes the table first
        place, names = 1, ("indices",)
    name = next((each for each in names if each in call.options), None)
    found: Any = call.options[name] if name else call.args[place] if place < len(call.args) else None
    several = isinstance(found, tuple | list) and call.name in ("getitem", "setitem")
    return None if name else place, name, found if several else (found,)


def _repeat(
    call: Call, place: int | None, name: str | None, indices: Sequence[Any], at: int
) -> Callable[[Tensor], Tensor]:
    """The lookup as a function of one of its indices."""

    def again(index: Tensor) -> Tensor:
        others = tuple(index if each == at else given for each, given in enumerate(indices))
        whole = others if len(indices) > 1 or isinstance(call.argument(1, ""), tuple | list) else others[0]
        args = [whole if each == place else given for each, given in enumerate(call.args)]
        options = {key: whole if key == name else given for key, given in call.options.items()}
        with torch.no_grad():
            found: Tensor = call.function(*args, **options)
        return found

    return again


def _broadcastable(numbers: Tensor, made: Tensor, dim: int | None) -> Tensor | None:
    """Numbers for each index, in a shape that multiplies the entries; None if they do not fit."""
    if dim is not None and numbers.dim() <= 1:  # index_select
        shape = [1] * made.dim()
        shape[dim] = numbers.numel()
        return numbers.reshape(shape)
    if numbers.shape != made.shape[: numbers.dim()]:
        return None
    return numbers.reshape(*numbers.shape, *[1] * (made.dim() - numbers.dim()))


def _dim(call: Call) -> int | None:
    return int(call.argument(1, "dim")) if call.name == "index_select" else None


def _by_expectation(
    call: Call, choice: Choice, again: Callable[[Tensor], Tensor], index: Tensor, made: Tensor
) -> Tensor | None:
    """The expectation over all alternatives."""
    if call.soft_values and choice.sign and made.shape == choice.shape:  # a hard label: the values it was chosen from
        return choice.in_input_shape(choice.sign * choice.source)
    weights = choice.weights()
    if weights is None or weights.shape[:-1] != index.shape:
        return None
    if weights.shape[-1] > _MAX_REPEATS:
        table: Any = call.args[0] if call.name == "getitem" and call.argument(1, "") is index else None
        if call.name == "embedding":
            table = call.args[1] if is_floating(call.argument(1, "weight")) else call.args[0]
        if not is_floating(table) or len(table) < weights.shape[-1]:
            return None
        rows: Tensor = table[: weights.shape[-1]].detach().flatten(1)
        return (weights @ rows).view_as(made)
    total: Any = 0.0
    for j in range(weights.shape[-1]):
        part = _broadcastable(weights[..., j], made, _dim(call))
        if part is None:
            return None
        try:
            total = total + part * again(torch.full_like(index, j))
        except (IndexError, RuntimeError):  # the table is shorter than the number of alternatives
            return None
    found: Tensor = total
    return found


def _by_slope(call: Call, again: Callable[[Tensor], Tensor], index: Tensor, at: int, made: Tensor) -> Tensor | None:
    """Finite differences of the table along the index, times the relaxed index."""
    size = _size(call, at, made)
    relaxed = as_float(index)
    if size is None or not relaxed.requires_grad:
        return None
    rise: Any = 0.0
    run: Any = 0.0
    for offset in _OFFSETS:
        up, down = (index.detach() + offset).clamp(max=size - 1), (index.detach() - offset).clamp(min=0)
        rise = rise + (again(up).to(relaxed.dtype) - again(down).to(relaxed.dtype)) / offset
        run = run + (up - down).to(relaxed.dtype) / offset
    run, soft = _broadcastable(run, made, _dim(call)), _broadcastable(relaxed, made, _dim(call))
    if run is None or soft is None:
        return None
    found: Tensor = rise / run.clamp(min=1) * soft
    return found


def _size(call: Call, at: int, made: Tensor) -> int | None:
    """Number of entries of the table along the index; None if unknown."""
    table = call.args[0]
    if call.name == "one_hot":
        return made.shape[-1]
    if call.name == "take":
        return int(table.numel())
    if call.name == "embedding":
        return len(call.argument(1, "weight") if not is_floating(table) else table)
    if call.name == "getitem":
        given = call.args[1] if isinstance(call.args[1], tuple | list) else (call.args[1],)
        before = given[:at]
        return None if any(each is None or each is Ellipsis for each in before) else int(table.shape[at])
    dim = call.argument(2 if call.name == "take_along_dim" else 1, "dim")
    return int(table.numel() if dim is None else table.shape[dim])


def _written(call: Call, index: Tensor) -> Tensor | None:
    """Values written at chosen positions: a hard label, or values in the order of others."""
    choice = choice_of(index)
    if choice is None or call.args[0].shape != choice.shape:
        return None
    value = call.argument(2 if call.name == "setitem" else 3, "src")
    value = call.options.get("value", value)
    if choice.order and isinstance(value, Tensor) and value.shape == choice.shape:
        return _ranked(call, choice, as_float(value))
    if call.soft_values and choice.sign:
        return choice.in_input_shape(choice.sign * choice.source)
    weights = choice.weights()
    if weights is None:
        return None
    rows = weights.reshape(len(choice.source), -1, weights.shape[-1]).sum(1)
    before = as_float(call.args[0])
    single = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
    amount = as_float(value) if single else 1.0
    written: Tensor = before + choice.in_input_shape(rows) * (amount - before)
    return written


def _ranked(call: Call, choice: Choice, values: Tensor) -> Tensor:
    """Values by rank: their slope times the rank of each position."""
    if call.soft_values:
        return choice.in_input_shape(choice.order * choice.source)
    slopes = torch.zeros_like(values)
    if values.shape[choice.dim] > 1:
        slopes = torch.gradient(values, dim=choice.dim)[0]
    order = choice.in_input_shape(choice.index)
    return torch.zeros_like(slopes).scatter(choice.dim, order, slopes) * choice.in_input_shape(
        soft_rank(choice.source, choice.order)
    )


def _masked(call: Call, mask: Tensor) -> Tensor | None:
    """A number written by a mask."""
    value = call.argument(2, "value")
    before, soft = as_float(call.args[0]), as_float(mask)
    if isinstance(value, Tensor) and value.numel() != 1:
        return None
    soft = soft.reshape(*soft.shape, *[1] * (before.dim() - soft.dim())) if call.name == "setitem" else soft
    found: Tensor = before + soft * (as_float(value) - before)
    return found
