"""Patches of torch for what ``__torch_function__`` does not reach, effective only in intercepted threads.

``autograd.Function.apply``, ``from_numpy``, ``inference_mode``, modules and their hooks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.diagnosis.bpda.estimates import Estimate, with_estimated_gradient
from isthmus.diagnosis.bpda.gradients import NumpyRoundTrip
from isthmus.diagnosis.bpda.relaxed import AttachGradient, as_float, attach_gradient, carries_gradient, is_floating


class _Thread(threading.local):
    round_trip: NumpyRoundTrip | None = None  # None if the thread is not intercepted


_thread = _Thread()
_lock = threading.Lock()
_interceptors = 0
_Function: Any = torch.autograd.function._SingleLevelFunction  # a saved ``F.apply`` calls it, too
_from_numpy: Any = torch.from_numpy
_enter_inference: Any = torch.inference_mode.__enter__
_call: Any = nn.Module.__call__
_get_backward_hooks: Any = nn.Module._get_backward_hooks
_get_backward_pre_hooks: Any = nn.Module._get_backward_pre_hooks


def intercepting() -> bool:
    """Whether this thread runs an intercepted model."""
    return _thread.round_trip is not None


class _Context:
    """Accepts and ignores what an autograd function saves for its ``backward``, which is never called."""

    needs_input_grad = (True,) * 64

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **options: None


def _apply(cls: Any, *args: Any, **options: Any) -> Any:
    """Differentiate a custom function through its ``forward``."""
    if not intercepting() or issubclass(cls, AttachGradient | Estimate) or not torch.is_grad_enabled():
        return super(_Function, cls).apply(*args, **options)
    context = () if cls.setup_context is not _Function.setup_context else (_Context(),)
    given = [x for x in args if carries_gradient(x)]
    try:
        found = cls.forward(*context, *args, **options)
    except Exception:
        if not given:
            raise
        # The forward pass was never written to run with gradients: run it without.
        with torch._C.DisableTorchFunction(), torch.no_grad():
            bare = (x.detach() if isinstance(x, Tensor) else x for x in args)
            found = cls.forward(*context, *bare, **options)
    if is_floating(found) and not found.requires_grad:
        for soft in map(as_float, given):
            if soft.shape == found.shape:
                return attach_gradient(soft, found)
        if given:
            at = next(place for place, x in enumerate(args) if x is given[0])
            return with_estimated_gradient(
                lambda x: cls.forward(*context, *args[:at], x, *args[at + 1 :]), args[at], found
            )
    return found


def _call_module(module: nn.Module, *args: Any, **options: Any) -> Any:
    """A module that cuts the graph between images or feature maps counts as one unknown function."""
    found = _call(module, *args, **options)
    if intercepting() and len(args) == 1 and is_floating(args[0]) and is_floating(found) and found.dim() > 2:
        return with_estimated_gradient(lambda x: _call(module, x, **options), args[0], found)
    return found


def _convert_array(array: Any) -> Tensor:
    tensor: Tensor = _from_numpy(array)
    return tensor if _thread.round_trip is None else _thread.round_trip.restore(tensor)


def _enter_inference_mode(mode: Any) -> None:
    if intercepting():
        mode._inference_mode_context = nullcontext()
    else:
        _enter_inference(mode)


def _backward_hooks(module: nn.Module) -> Any:
    return ([], []) if intercepting() else _get_backward_hooks(module)


def _backward_pre_hooks(module: nn.Module) -> Any:
    return [] if intercepting() else _get_backward_pre_hooks(module)


_REPLACED: list[tuple[Any, str, Any, Any]] = [
    (_Function, "apply", None, classmethod(_apply)),
    (torch, "from_numpy", _from_numpy, _convert_array),
    (nn.Module, "__call__", _call, _call_module),
    (torch.inference_mode, "__enter__", _enter_inference, _enter_inference_mode),
    (nn.Module, "_get_backward_hooks", _get_backward_hooks, _backward_hooks),
    (nn.Module, "_get_backward_pre_hooks", _get_backward_pre_hooks, _backward_pre_hooks),
]
"""Owner, attribute, original (None if inherited) and replacement."""


@contextmanager
def patched(round_trip: NumpyRoundTrip) -> Iterator[None]:
    """Apply the patches when the first thread enters, and undo them when the last one leaves.

    Args:
        round_trip: tensors that this thread converts to numpy.
    """
    global _interceptors
    with _lock:
        _interceptors += 1
        if _interceptors == 1:
            for owner, name, _, new in _REPLACED:
                setattr(owner, name, new)
    _thread.round_trip = round_trip
    try:
        yield
    finally:
        _thread.round_trip = None
        with _lock:
            _interceptors -= 1
            if _interceptors == 0:
                for owner, name, old, _ in _REPLACED:
                    delattr(owner, name) if old is None else setattr(owner, name, old)
