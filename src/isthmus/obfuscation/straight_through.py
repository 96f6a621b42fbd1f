"""A model whose gradient follows its forward pass, whatever its author made of the backward pass.

Backward pass differentiable approximation (Athalye, Carlini & Wagner 2018, arXiv:1802.00420, §4.1) for models that we
have not written. While the wrapped model runs, every torch function that it calls is watched, and

* what cuts the graph does not: ``detach``, ``.data``, ``no_grad``, ``inference_mode``, copies, hooks on gradients and
  on modules;
* a custom ``autograd.Function`` is differentiated through what its ``forward`` does, not by its ``backward``; where
  that cannot be seen into, and keeps the shape, it counts as the identity;
* what is constant somewhere or almost everywhere lets the gradient through: ``clamp``, ``round`` and its like, floor
  division and casts to integers as the identity, ``sign`` and comparisons as a sigmoid about their threshold;
  remainders have no gradient, so that ``x - x % s`` is a step as well;
* so do a table's entries looked up by such integers, and arrays that come back from numpy with the shape of a tensor
  that went there;
* casts to a lower precision than the weights' are left out.

But for those casts the forward pass is what it was. What changes its shape outside torch, or goes to another process,
cannot be followed: no gradient comes through that. Only the thread that runs the model is watched.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

SLOPE = 10.0
"""Of the sigmoid that stands for a comparison, at its threshold: four times its steepest derivative."""

LEAST = 1e-3
"""Of a saturated probability, in its stead where gradients are to be unsaturated."""

_STEPS = {"round", "floor", "ceil", "trunc", "fix", "clamp", "clip", "clamp_min", "clamp_max", "hardtanh"}
_REMAINDERS = {"remainder", "fmod", "frac", "__mod__", "__rmod__"}
_SIGNS = {"sign", "sgn"}
_ABOVE = {"gt", "ge", "greater", "greater_equal"}
_BELOW = {"lt", "le", "less", "less_equal"}
_QUOTIENTS = {"__floordiv__", "floor_divide"}
_CASTS = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "short", "byte", "char"}
_ARITHMETIC = {"mul", "add", "sub", "div", "sum", "mean", "matmul", "stack", "cat", "rsub", "lerp", "__rmul__"}
_COPIES = {"tensor", "as_tensor", "asarray", "new_tensor"}
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}
_BITS = {f"{way}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for way in ("__", "__i", "__r")} | {
    f"bitwise_{name}" for name in ("and", "or", "xor", "left_shift", "right_shift")
}
_LOOKUPS = {"__getitem__": 1, "__setitem__": 1, "take": 1, "take_along_dim": 1, "embedding": 0, "one_hot": 0} | {
    "index_select": 2,
    "gather": 2,
    "scatter": 2,
    "scatter_": 2,
}
"""What takes indices, and at which place among its arguments."""


class StraightThrough(nn.Module):
    """A model with gradients that follow what it computes; see the module.

    Args:
        model: any module from images to logits; never changed.
        unsaturated: let a gradient through softmax and sigmoid even where they are 0 or 1 in float32.
    """

    def __init__(self, model: nn.Module, *, unsaturated: bool = False) -> None:
        super().__init__()
        self.model, self.unsaturated = model, unsaturated

    def forward(self, images: Tensor, **options: Any) -> Any:
        """What the model answers; the images may be a leaf that it would change in place."""
        if not torch.is_grad_enabled() or _here.watch is not None:  # inside another, which watches already
            return self.model(images.clone(), **options)
        # What the weights can be used with; it is below that where a cast only loses something.
        weights = {x.dtype for x in self.model.parameters() if x.is_floating_point()} or {images.dtype}
        with _watching(_Watch(self.unsaturated, min(weights, key=lambda dtype: dtype.itemsize))):
            return self.model(images.clone(), **options)


class _Watch(TorchFunctionMode):
    """Of one run of a model; inside ``__torch_function__`` nothing is watched, so that ``detach`` detaches."""

    def __init__(self, unsaturated: bool, precision: torch.dtype) -> None:
        super().__init__()
        self.unsaturated, self.precision = unsaturated, precision
        self.left: dict[torch.Size, Tensor] = {}  # the last tensor of its shape that went to numpy

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "__get__" and getattr(function, "__self__", None) is Tensor.data:
            return args[0]
        if name in ("detach", "detach_"):
            return args[0]
        if name == "_set_grad_enabled":
            return None
        if name in _HOOKS:
            return RemovableHandle(OrderedDict())
        if name in _COPIES and args:
            return self._copied(args[1] if name == "new_tensor" else args[0], function, args, options)
        if not any(isinstance(given, Tensor) for given in args[:2]):
            return function(*_arithmetic(name, args), **options)
        if name in ("numpy", "__array__") and args[0].requires_grad:
            self.left[args[0].shape] = args[0]
            return function(args[0].detach(), *args[1:], **options)
        if name in _LOOKUPS:
            return _looked_up(function, _LOOKUPS[name], args, options)
        if name in _BITS and _real(args[0]):
            return _through(args[0], function(*map(_whole, args), **options).to(args[0].dtype))
        if self.unsaturated and name in ("softmax", "special_softmax", "sigmoid", "special_expit"):
            return _unsaturated(function, args, options)
        if name in _CASTS:
            return self._cast(function, args, options)
        return _followed(name, function, args, options)

    def _copied(self, source: Any, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A new tensor from a tensor, with its gradient, or from an array."""
        if not isinstance(source, Tensor):
            made = function(*args, **options)
            return self.returned(made) if isinstance(source, np.ndarray) else made
        if not source.requires_grad:
            return function(*args, **options)
        asked = {key: options[key] for key in ("dtype", "device") if options.get(key) is not None}
        return self._cast(Tensor.to, (source.clone(),), asked) if asked else source.clone()

    def _cast(self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        number = _as_number(args[0])
        if not number.is_floating_point():
            return function(*args, **options)
        asked = function(number.detach(), *args[1:], **options)
        if not isinstance(asked, Tensor):  # .type() without arguments names the type
            return asked
        if not (asked.is_floating_point() or asked.is_complex()):
            follows = number.requires_grad and asked.dtype != torch.bool
            return _through(number, asked.to(number.dtype)) if follows else asked
        coarser = asked.is_floating_point() and asked.dtype.itemsize < self.precision.itemsize
        return number.to(asked.device, self.precision) if coarser else function(number, *args[1:], **options)

    def returned(self, tensor: Tensor) -> Tensor:
        """An array that numpy made, with the gradient of the last tensor of its shape that went there."""
        left = self.left.get(tensor.shape)
        if left is None or tensor.dtype == torch.bool or tensor.is_complex():
            return tensor
        return _through(left, tensor if tensor.is_floating_point() else tensor.to(left.dtype))


def _followed(name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What a function computes, with a gradient that follows it."""
    if name in _STEPS:
        return _through(args[0], function(args[0].detach(), *args[1:], **options))
    if name in _REMAINDERS:
        return function(*args, **options).detach()
    if name.endswith("_") and name[:-1] in _STEPS | _SIGNS | _REMAINDERS:
        hard = function(args[0].detach().clone(), *args[1:], **options)
        if name[:-1] in _REMAINDERS:
            return args[0].copy_(hard.detach())
        return args[0].copy_(_through(args[0] if name[:-1] in _STEPS else torch.tanh(SLOPE * args[0]), hard))
    if name in _QUOTIENTS:
        return _through(args[0] / args[1], function(*args, **options).detach())
    if name in _SIGNS:
        return _through(torch.tanh(SLOPE * args[0]), torch.sign(args[0].detach()))
    if name in _ABOVE or name in _BELOW:
        return _compared(function(*args, **options), args, 1.0 if name in _ABOVE else -1.0)
    if name == "where" and len(args) == 3:
        return _chosen(function, args)
    return function(*_arithmetic(name, args), **options)


class _Through(torch.autograd.Function):
    """The value of ``hard``, exactly, even where ``soft`` is infinite."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def _through(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of one with the gradient of the other."""
    exactly: Any = _Through.apply
    found: Tensor = exactly(soft, hard)
    return found


def _compared(answer: Any, args: tuple[Any, ...], way: float) -> Any:
    """A comparison's answer, which remembers how near it was."""
    if isinstance(answer, Tensor) and any(isinstance(x, Tensor) and x.is_floating_point() for x in args):
        first, second = (x.float() if isinstance(x, Tensor) else x for x in args[:2])
        answer.how_near = torch.sigmoid(SLOPE * way * (first - second))  # type: ignore[attr-defined]
    return answer


def _as_number(mask: Any) -> Any:
    near = getattr(mask, "how_near", None)
    return mask if near is None else _through(near, mask.detach().to(near.dtype))


def _arithmetic(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of sums and products, with comparisons as numbers that have a gradient."""
    if name not in _ARITHMETIC:
        return args
    return tuple(type(x)(map(_as_number, x)) if isinstance(x, list | tuple) else _as_number(x) for x in args)


def _chosen(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``where``: between two constants, the comparison's own gradient is all there is."""
    mask, first, second = args
    constant = not any(isinstance(x, Tensor) and x.requires_grad for x in (first, second))
    if getattr(mask, "how_near", None) is None or not constant:
        return function(*args)
    return second + _as_number(mask) * (first - second)


def _real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _whole(x: Any) -> Any:
    """Back to integers: a cast to them gave floats, for the sake of their gradient."""
    if isinstance(x, list | tuple):
        return type(x)(map(_whole, x))
    return x.detach().round().long() if _real(x) else x


def _looked_up(function: Callable[..., Any], place: int, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Entries at some indices; where there is one for each index, with the indices' own gradient besides."""
    indices = args[place] if place < len(args) else options.get("index", options.get("indices"))
    answer = function(
        *(_whole(x) if at == place else x for at, x in enumerate(args)),
        **{key: _whole(x) if key in ("index", "indices") else x for key, x in options.items()},
    )
    for soft in indices if isinstance(indices, list | tuple) else [indices]:
        if not (isinstance(answer, Tensor) and isinstance(soft, Tensor) and _real(soft)):
            continue
        if soft.shape == answer.shape and answer.dtype != torch.bool:
            found = answer if answer.is_floating_point() else answer.to(soft.dtype)
            return found + (soft - soft.detach()).to(found.dtype)
    return answer


def _unsaturated(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Probabilities with the gradient of their logarithms (of their logits), times no less than ``LEAST``."""
    found = function(*args, **options)
    if "sigmoid" in function.__name__ or "expit" in function.__name__:
        return _through((found * (1 - found)).clamp(min=LEAST).detach() * args[0], found)
    dim = args[1] if len(args) > 1 else options.get("dim")
    if dim is None:  # the old guess of a dimension
        return found
    return _through(found.clamp(min=LEAST).detach() * args[0].log_softmax(dim), found)


class _Context:
    """What an autograd function is told to remember for its ``backward``, which nobody will call."""

    needs_input_grad = (True,) * 64

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


# --- what is no torch function is replaced, while anybody watches, by what differs in the watching threads alone ---


class _Here(threading.local):
    watch: _Watch | None = None


_here = _Here()
_lock = threading.Lock()
_watchers = 0
_Function: Any = torch.autograd.function._SingleLevelFunction  # where a kept ``F.apply`` ends up, too
_from_numpy: Any = torch.from_numpy
_enter_inference: Any = torch.inference_mode.__enter__
_get_backward_hooks: Any = nn.Module._get_backward_hooks
_get_backward_pre_hooks: Any = nn.Module._get_backward_pre_hooks


def _apply(cls: Any, *args: Any, **options: Any) -> Any:
    """A custom function is only what its ``forward`` does."""
    if _here.watch is None or cls is _Through or not torch.is_grad_enabled():
        return super(_Function, cls).apply(*args, **options)
    context = () if cls.setup_context is not _Function.setup_context else (_Context(),)
    given = [x for x in args if isinstance(x, Tensor) and x.requires_grad]
    try:
        found = cls.forward(*context, *args, **options)
    except Exception:
        if not given:
            raise
        # Its own author's code never ran with gradients. This disables the watch, so that nothing has one.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            bare = (x.detach() if isinstance(x, Tensor) else x for x in args)
            found = cls.forward(*context, *bare, **options)
    if isinstance(found, Tensor) and found.is_floating_point() and not found.requires_grad:
        for soft in given:
            if soft.shape == found.shape:
                return _through(soft, found)
    return found


def _array(array: Any) -> Tensor:
    tensor: Tensor = _from_numpy(array)
    return tensor if _here.watch is None else _here.watch.returned(tensor)


def _enter(mode: Any) -> None:
    if _here.watch is None:
        _enter_inference(mode)
    else:
        mode._inference_mode_context = nullcontext()


def _backward_hooks(module: nn.Module) -> Any:
    return _get_backward_hooks(module) if _here.watch is None else ([], [])


def _backward_pre_hooks(module: nn.Module) -> Any:
    return _get_backward_pre_hooks(module) if _here.watch is None else []


_REPLACED: list[tuple[Any, str, Any, Any]] = [
    (_Function, "apply", None, classmethod(_apply)),
    (torch, "from_numpy", _from_numpy, _array),
    (torch.inference_mode, "__enter__", _enter_inference, _enter),
    (nn.Module, "_get_backward_hooks", _get_backward_hooks, _backward_hooks),
    (nn.Module, "_get_backward_pre_hooks", _get_backward_pre_hooks, _backward_pre_hooks),
]
"""Whose, its name, what it is (None where it is inherited), and what stands for it."""


@contextmanager
def _watching(watch: _Watch) -> Iterator[None]:
    """The first watcher in any thread replaces what must be, and the last puts it back."""
    global _watchers
    with _lock:
        _watchers += 1
        if _watchers == 1:
            for owner, name, _, new in _REPLACED:
                setattr(owner, name, new)
    _here.watch = watch
    try:
        with watch:
            yield
    finally:
        _here.watch = None
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                for owner, name, old, _ in _REPLACED:
                    delattr(owner, name) if old is None else setattr(owner, name, old)
