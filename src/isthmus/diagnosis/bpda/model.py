"""Backward-pass differentiable approximation (BPDA) of any model: a gradient that follows the forward pass.

Athalye, Carlini & Wagner 2018 (arXiv:1802.00420, §4.1), for models that we have not written. While the wrapped model
runs, every torch function that it calls is intercepted:

* ``detach``, ``.data``, ``no_grad``, ``inference_mode``, copies, and hooks on gradients and modules do not cut the
  graph;
* a custom ``autograd.Function`` is differentiated through its ``forward``, not by its ``backward``; if ``forward``
  leaves torch and keeps the shape, it counts as the identity;
* a torch function whose derivative is zero or undefined almost everywhere has the gradient of a smooth surrogate, from
  the registry :mod:`~isthmus.diagnosis.bpda.surrogates`. Integers and booleans stay what they are, and carry a
  floating-point number with a gradient (:mod:`~isthmus.diagnosis.bpda.relaxed`);
* arrays that come back from numpy have the gradient of the tensor of their shape that was converted to numpy;
* any other module, custom function or torch function that cuts the graph is the identity if it keeps the shape;
  otherwise its gradient is estimated from its values (:mod:`~isthmus.diagnosis.bpda.estimates`);
* casts to a lower precision than the weights' are left out.

Except for those casts the forward pass is unchanged. A model that leaves torch as a whole has no gradient. Only the
thread that runs the model is intercepted.

This module intercepts; :mod:`~isthmus.diagnosis.bpda.gradients` attaches gradients to results, and
:mod:`~isthmus.diagnosis.bpda.torch_patches` handles what is not a torch function.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from isthmus.diagnosis.bpda.gradients import (
    SATURATING,
    NumpyRoundTrip,
    cast_with_gradient,
    unsaturated_function,
    view_with_gradient,
    with_gradient,
)
from isthmus.diagnosis.bpda.relaxed import as_float, carries_gradient, flattened, is_relaxed, relaxation, words
from isthmus.diagnosis.bpda.torch_patches import intercepting, patched
from isthmus.models.outputs import log_probabilities

Unsaturated = Literal["gradients", "values"]
_CASTS = words("to type type_as float double half bfloat16 int long short byte char bool")
_COPIES = {"tensor", "as_tensor", "asarray", "new_tensor"}
_HOOKS = {"register_hook", "register_post_accumulate_grad_hook"}


class BPDAModel(nn.Module):
    """A model with a gradient that follows its forward pass, as described in this module.

    Args:
        model: any module from images to logits; never changed.
        unsaturated: give softmax, sigmoid, tanh and similar a gradient even where they are flat in float32. With
            "gradients" the values stay the same. With "values" a softmax becomes its logarithm, and a hard label the
            values it was chosen from: the outputs are no longer the model's, but an attack can climb them.
    """

    def __init__(self, model: nn.Module, *, unsaturated: Unsaturated | None = None) -> None:
        super().__init__()
        self.model, self.unsaturated = model, unsaturated

    def forward(self, images: Tensor, **options: Any) -> Any:
        """The model's outputs; the images may be a leaf that the model changes in place."""
        if not torch.is_grad_enabled() or intercepting():  # inside another one
            return self.model(images.clone(), **options)
        # Casts below the lowest precision of the weights only lose information.
        weights = {x.dtype for x in self.model.parameters() if x.is_floating_point()} or {images.dtype}
        interceptor = _Interceptor(self.unsaturated, min(weights, key=lambda dtype: dtype.itemsize))
        with patched(interceptor.round_trip), interceptor:
            answer = self.model(images.clone(), **options)
        return as_float(answer) if is_relaxed(answer) else answer  # integers cannot pass on a gradient


class _Interceptor(TorchFunctionMode):
    """Intercepts torch functions in one run of a model, but not those called inside ``__torch_function__``."""

    def __init__(self, unsaturated: Unsaturated | None, precision: torch.dtype) -> None:
        super().__init__()
        self.unsaturated, self.precision = unsaturated, precision
        self.round_trip = NumpyRoundTrip()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "__get__" and getattr(function, "__self__", None) is Tensor.data:
            return args[0]
        if name in ("detach", "detach_", "detach_copy"):
            return args[0]
        if name == "_set_grad_enabled":
            return None
        if name in _HOOKS:
            return RemovableHandle(OrderedDict())
        if name in _COPIES and args:
            return self._copied(args[1] if name == "new_tensor" else args[0], function, args, options)
        if isinstance(out := options.get("out"), Tensor) and any(carries_gradient(x) for x in flattened(args)):
            return self._into(out, function, types, args, options)
        if name in ("numpy", "__array__") and carries_gradient(args[0]):
            self.round_trip.record(args[0])
            return function(args[0].detach(), *args[1:], **options)
        if function is log_probabilities:  # ours, and differentiable
            return function(as_float(args[0]))
        if self.unsaturated and name in SATURATING:
            return unsaturated_function(function, args, options, soft_values=self.unsaturated == "values")
        if name in _CASTS:
            return cast_with_gradient(function, args, options, self.precision, self.unsaturated == "values")
        if name == "view" and carries_gradient(args[0]) and isinstance(args[1] if len(args) > 1 else None, torch.dtype):
            return view_with_gradient(function, args, options)
        return with_gradient(name, function, args, options, soft_values=self.unsaturated == "values")

    def _into(self, out: Tensor, function: Any, types: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        """A result written into a given tensor."""
        rest = {name: value for name, value in options.items() if name != "out"}
        made = self.__torch_function__(function, types, args, rest)
        with torch.no_grad():
            out.resize_(made.shape)
        if not out.is_floating_point():
            out.relaxed = relaxation(made)  # type: ignore[attr-defined]
        return out.copy_(made)

    def _copied(self, source: Any, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """A new tensor with the gradient of the given tensor or array."""
        if not isinstance(source, Tensor):
            made = function(*args, **options)
            return self.round_trip.restore(made) if isinstance(source, np.ndarray) else made
        if not carries_gradient(source):
            return function(*args, **options)
        target = {key: options[key] for key in ("dtype", "device") if options.get(key) is not None}
        copy = with_gradient("clone", Tensor.clone, (source,), {})
        if not target:
            return copy
        return cast_with_gradient(Tensor.to, (copy,), target, self.precision, self.unsaturated == "values")
