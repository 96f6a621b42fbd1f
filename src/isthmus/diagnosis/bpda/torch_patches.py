"""What is no torch function, replaced in torch while anybody watches: it differs in the watching threads alone.

``autograd.Function.apply``, ``from_numpy``, ``inference_mode``, and hooks on modules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.diagnosis.bpda.estimates import Estimate, substituted
from isthmus.diagnosis.bpda.gradients import Outside
from isthmus.diagnosis.bpda.relaxed import Through, is_alive, is_real, number, through


class _Here(threading.local):
    left: Outside | None = None  # see ``patched``; None where nobody watches


_here = _Here()
_lock = threading.Lock()
_watchers = 0
_Function: Any = torch.autograd.function._SingleLevelFunction  # where a kept ``F.apply`` ends up, too
_from_numpy: Any = torch.from_numpy
_enter_inference: Any = torch.inference_mode.__enter__
_call: Any = nn.Module.__call__
_get_backward_hooks: Any = nn.Module._get_backward_hooks
_get_backward_pre_hooks: Any = nn.Module._get_backward_pre_hooks


def watched() -> bool:
    """Whether this thread is inside a model that is watched."""
    return _here.left is not None


class _Context:
    """What an autograd function is told to remember for its ``backward``, which nobody will call."""

    needs_input_grad = (True,) * 64

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


def _apply(cls: Any, *args: Any, **options: Any) -> Any:
    """A custom function is only what its ``forward`` does."""
    if not watched() or issubclass(cls, Through | Estimate) or not torch.is_grad_enabled():
        return super(_Function, cls).apply(*args, **options)
    context = () if cls.setup_context is not _Function.setup_context else (_Context(),)
    given = [x for x in args if is_alive(x)]
    try:
        found = cls.forward(*context, *args, **options)
    except Exception:
        if not given:
            raise
        # Its own author's code never ran with gradients. This disables the watch, so that nothing has one.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            bare = (x.detach() if isinstance(x, Tensor) else x for x in args)
            found = cls.forward(*context, *bare, **options)
    if is_real(found) and not found.requires_grad:
        for soft in map(number, given):
            if soft.shape == found.shape:
                return through(soft, found)
        if given:
            at = next(place for place, x in enumerate(args) if x is given[0])
            return substituted(lambda x: cls.forward(*context, *args[:at], x, *args[at + 1 :]), args[at], found)
    return found


def _called(module: nn.Module, *args: Any, **options: Any) -> Any:
    """A module that cuts the graph between images or maps of features counts as one unknown function."""
    found = _call(module, *args, **options)
    if watched() and len(args) == 1 and is_real(args[0]) and is_real(found) and found.dim() > 2:
        return substituted(lambda x: _call(module, x, **options), args[0], found)
    return found


def _array(array: Any) -> Tensor:
    tensor: Tensor = _from_numpy(array)
    return tensor if _here.left is None else _here.left.returned(tensor)


def _enter(mode: Any) -> None:
    if watched():
        mode._inference_mode_context = nullcontext()
    else:
        _enter_inference(mode)


def _backward_hooks(module: nn.Module) -> Any:
    return ([], []) if watched() else _get_backward_hooks(module)


def _backward_pre_hooks(module: nn.Module) -> Any:
    return [] if watched() else _get_backward_pre_hooks(module)


_REPLACED: list[tuple[Any, str, Any, Any]] = [
    (_Function, "apply", None, classmethod(_apply)),
    (torch, "from_numpy", _from_numpy, _array),
    (nn.Module, "__call__", _call, _called),
    (torch.inference_mode, "__enter__", _enter_inference, _enter),
    (nn.Module, "_get_backward_hooks", _get_backward_hooks, _backward_hooks),
    (nn.Module, "_get_backward_pre_hooks", _get_backward_pre_hooks, _backward_pre_hooks),
]
"""Whose, its name, what it is (None where it is inherited), and what stands for it."""


@contextmanager
def patched(left: Outside) -> Iterator[None]:
    """The first watcher in any thread replaces what must be, and the last puts it back.

    Args:
        left: what went to numpy from this thread; its watcher keeps it.
    """
    global _watchers
    with _lock:
        _watchers += 1
        if _watchers == 1:
            for owner, name, _, new in _REPLACED:
                setattr(owner, name, new)
    _here.left = left
    try:
        yield
    finally:
        _here.left = None
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                for owner, name, old, _ in _REPLACED:
                    delattr(owner, name) if old is None else setattr(owner, name, old)
