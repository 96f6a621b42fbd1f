"""Entries of a table at indices that have a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.choices import Choice, choice_of, soft_rank
from isthmus.diagnosis.bpda.relaxed import Call, is_real, is_relaxed, number

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
"""What takes indices or a mask, and at which place and under which names."""

WRITES = {"setitem", "scatter", "masked_fill"}
_OFFSETS = (1, 2, 4, 8)  # along a table's index, for its finite differences
_LOOPS = 64  # alternatives that are looked up one by one


def looked_up(call: Call) -> Any:
    """The entries; where they have no gradient of their own, with that of their indices.

    An index that was chosen by comparison stands for all alternatives by their weights. Any other has the slope of the
    table about it, a weighted mean of finite differences 1, 2, 4 and 8 entries away.
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
            again = _again(call, place, name, indices, at)
            choice = choice_of(index)
            soft = _expected(call, choice, again, index, made) if choice is not None else None
            if soft is None:
                soft = _sloped(call, again, index, at, made)
        if soft is not None:
            return call.attach(made, soft)
    return made


def _indices(call: Call) -> tuple[int | None, str | None, Sequence[Any]]:
    """Where the indices are among the arguments, and what they are."""
    place, names = LOOKUPS[call.name]
    if call.name == "embedding" and call.args and is_real(call.args[0]):  # torch's own has the table first
        place, names = 1, ("indices",)
    name = next((each for each in names if each in call.options), None)
    found: Any = call.options[name] if name else call.args[place] if place < len(call.args) else None
    several = isinstance(found, tuple | list) and call.name in ("getitem", "setitem")
    return None if name else place, name, found if several else (found,)


def _again(
    call: Call, place: int | None, name: str | None, indices: Sequence[Any], at: int
) -> Callable[[Tensor], Tensor]:
    """The lookup with other indices in the place of one."""

    def again(index: Tensor) -> Tensor:
        others = tuple(index if each == at else given for each, given in enumerate(indices))
        whole = others if len(indices) > 1 or isinstance(call.argument(1, ""), tuple | list) else others[0]
        args = [whole if each == place else given for each, given in enumerate(call.args)]
        options = {key: whole if key == name else given for key, given in call.options.items()}
        with torch.no_grad():
            found: Tensor = call.function(*args, **options)
        return found

    return again


def _aligned(numbers: Tensor, made: Tensor, dim: int | None) -> Tensor | None:
    """Numbers for each index, shaped so that they multiply what was looked up; None where they cannot."""
    if dim is not None and numbers.dim() <= 1:  # index_select
        shape = [1] * made.dim()
        shape[dim] = numbers.numel()
        return numbers.reshape(shape)
    if numbers.shape != made.shape[: numbers.dim()]:
        return None
    return numbers.reshape(*numbers.shape, *[1] * (made.dim() - numbers.dim()))


def _dim(call: Call) -> int | None:
    return int(call.argument(1, "dim")) if call.name == "index_select" else None


def _expected(
    call: Call, choice: Choice, again: Callable[[Tensor], Tensor], index: Tensor, made: Tensor
) -> Tensor | None:
    """The mean over all alternatives by their weights."""
    if call.valued and choice.sign and made.shape == choice.shape:  # a hard label: what it was chosen from
        return choice.as_given(choice.sign * choice.source)
    weights = choice.weights()
    if weights is None or weights.shape[:-1] != index.shape:
        return None
    if weights.shape[-1] > _LOOPS:
        table: Any = call.args[0] if call.name == "getitem" and call.argument(1, "") is index else None
        if call.name == "embedding":
            table = call.args[1] if is_real(call.argument(1, "weight")) else call.args[0]
        if not is_real(table) or len(table) < weights.shape[-1]:
            return None
        rows: Tensor = table[: weights.shape[-1]].detach().flatten(1)
        return (weights @ rows).view_as(made)
    total: Any = 0.0
    for j in range(weights.shape[-1]):
        part = _aligned(weights[..., j], made, _dim(call))
        if part is None:
            return None
        try:
            total = total + part * again(torch.full_like(index, j))
        except (IndexError, RuntimeError):  # a table that is shorter than what was chosen among
            return None
    found: Tensor = total
    return found


def _sloped(call: Call, again: Callable[[Tensor], Tensor], index: Tensor, at: int, made: Tensor) -> Tensor | None:
    """The entries' finite differences along the index, times the index's relaxation."""
    size = _size(call, at, made)
    relaxed = number(index)
    if size is None or not relaxed.requires_grad:
        return None
    rise: Any = 0.0
    run: Any = 0.0
    for offset in _OFFSETS:
        up, down = (index.detach() + offset).clamp(max=size - 1), (index.detach() - offset).clamp(min=0)
        rise = rise + (again(up).to(relaxed.dtype) - again(down).to(relaxed.dtype)) / offset
        run = run + (up - down).to(relaxed.dtype) / offset
    run, soft = _aligned(run, made, _dim(call)), _aligned(relaxed, made, _dim(call))
    if run is None or soft is None:
        return None
    found: Tensor = rise / run.clamp(min=1) * soft
    return found


def _size(call: Call, at: int, made: Tensor) -> int | None:
    """How many entries the table has along the index."""
    table = call.args[0]
    if call.name == "one_hot":
        return made.shape[-1]
    if call.name == "take":
        return int(table.numel())
    if call.name == "embedding":
        return len(call.argument(1, "weight") if not is_real(table) else table)
    if call.name == "getitem":
        given = call.args[1] if isinstance(call.args[1], tuple | list) else (call.args[1],)
        before = given[:at]
        return None if any(each is None or each is Ellipsis for each in before) else int(table.shape[at])
    dim = call.argument(2 if call.name == "take_along_dim" else 1, "dim")
    return int(table.numel() if dim is None else table.shape[dim])


def _written(call: Call, index: Tensor) -> Tensor | None:
    """Values written at chosen places: a hard label, or values in the order of others."""
    choice = choice_of(index)
    if choice is None or call.args[0].shape != choice.shape:
        return None
    value = call.argument(2 if call.name == "setitem" else 3, "src")
    value = call.options.get("value", value)
    if choice.order and isinstance(value, Tensor) and value.shape == choice.shape:
        return _ranked(call, choice, number(value))
    if call.valued and choice.sign:
        return choice.as_given(choice.sign * choice.source)
    weights = choice.weights()
    if weights is None:
        return None
    rows = weights.reshape(len(choice.source), -1, weights.shape[-1]).sum(1)
    before = number(call.args[0])
    amount = value if isinstance(value, int | float) else number(value) if getattr(value, "numel", int)() == 1 else 1.0
    written: Tensor = before + choice.as_given(rows) * (amount - before)
    return written


def _ranked(call: Call, choice: Choice, values: Tensor) -> Tensor:
    """Values, one for each rank: their slope times the rank that each place has."""
    if call.valued:
        return choice.as_given(choice.order * choice.source)
    slopes = torch.zeros_like(values)
    if values.shape[choice.dim] > 1:
        slopes = torch.gradient(values, dim=choice.dim)[0]
    order = choice.as_given(choice.index)
    return torch.zeros_like(slopes).scatter(choice.dim, order, slopes) * choice.as_given(
        soft_rank(choice.source, choice.order)
    )


def _masked(call: Call, mask: Tensor) -> Tensor | None:
    """A number written where a mask is true."""
    value = call.argument(2, "value")
    before, soft = number(call.args[0]), number(mask)
    if isinstance(value, Tensor) and value.numel() != 1:
        return None
    soft = soft.reshape(*soft.shape, *[1] * (before.dim() - soft.dim())) if call.name == "setitem" else soft
    found: Tensor = before + soft * (number(value) - before)
    return found
